//! Where each variable, mount, device and library of a launch comes from, and why something is not inside: `--explain`.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::bundle::Bundle;
use crate::bundle::explain::{Reason, Source};
use crate::grants::LIBRARY_DIRECTORY;

use super::{LaunchPlan, Op};

/// Everything that `--explain` tells. Values of variables are not in it: they may be secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The workload's variables.
    pub variables: Vec<Variable>,
    /// Variables of the caller that are not inside.
    pub withheld: Vec<Variable>,
    /// Host paths and file systems in memory, in the order of mounting.
    pub mounts: Vec<Place>,
    /// Device nodes.
    pub devices: Vec<Place>,
    /// Libraries of a driver.
    pub libraries: Vec<Place>,
    /// Why the rest is, or is not, inside.
    pub notes: Vec<String>,
}

/// One variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    #[serde(flatten)]
    pub reason: Reason,
}

/// One place inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Where inside.
    pub target: PathBuf,
    /// The host path; `None` for what is in memory, or made by us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<PathBuf>,
    /// Not writable.
    pub read_only: bool,
    /// Where it comes from.
    #[serde(flatten)]
    pub reason: Reason,
}

/// Explains a plan by the bundle that it was made from.
#[must_use]
pub fn explain(bundle: &Bundle, plan: &LaunchPlan) -> Explanation {
    let variables = |rows: &[(String, Reason)]| {
        rows.iter().map(|(name, reason)| Variable { name: name.clone(), reason: reason.clone() }).collect()
    };
    let mut explanation = Explanation {
        variables: variables(&bundle.variables),
        withheld: variables(&bundle.withheld),
        notes: plan.notes.clone(),
        ..Explanation::default()
    };
    for op in &plan.ops {
        let (target, host, read_only) = match op {
            Op::Bind { target, source, from_run, read_only, .. } => {
                (target, (!from_run).then(|| source.clone()), *read_only)
            }
            Op::Tmpfs { target, .. }
            | Op::Terminals { target }
            | Op::MessageQueues { target }
            | Op::ProcessFiles { target } => (target, None, false),
            _ => continue,
        };
        let reason = reason_of(bundle, op, target);
        let place = Place { target: target.clone(), host, read_only, reason };
        let is_file = matches!(op, Op::Bind { kind: super::PathKind::File, .. });
        if target.starts_with(LIBRARY_DIRECTORY) {
            explanation.libraries.push(place);
        } else if is_file && target.starts_with("/dev") {
            explanation.devices.push(place);
        } else {
            explanation.mounts.push(place);
        }
    }
    explanation
}

fn reason_of(bundle: &Bundle, op: &Op, target: &Path) -> Reason {
    if let Some(reason) = bundle.reasons.get(target) {
        return reason.clone();
    }
    if let Op::Bind { from_run: true, .. } = op {
        return Reason { source: Source::Default, why: "made for this container".into() };
    }
    // A link of the image led it here: the words that asked for it know it still.
    match op {
        Op::Bind { asked: Some(words), .. } => Reason { source: Source::Asked, why: words.clone().into() },
        _ => Reason { source: Source::Default, why: "a link of the image leads here".into() },
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, rows) in
            [("variables", &self.variables), ("variables that are not inside", &self.withheld)]
        {
            let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or_default();
            heading(f, title, rows.is_empty())?;
            for Variable { name, reason } in rows {
                writeln!(f, "  {name:width$}  {:7}  {}", reason.source.as_str(), reason.why)?;
            }
        }
        let places = [("mounts", &self.mounts), ("devices", &self.devices), ("libraries", &self.libraries)];
        for (title, rows) in places {
            heading(f, title, rows.is_empty())?;
            for row in rows {
                let mut what = row.target.display().to_string();
                if let Some(host) = row.host.as_ref().filter(|host| **host != row.target) {
                    what.push_str(" <- ");
                    what.push_str(&host.to_string_lossy());
                }
                what.push_str(match (&row.host, row.read_only) {
                    (None, _) => "",
                    (Some(_), true) => " (ro)",
                    (Some(_), false) => " (rw)",
                });
                writeln!(f, "  {what}  {}  {}", row.reason.source.as_str(), row.reason.why)?;
            }
        }
        heading(f, "notes", self.notes.is_empty())?;
        self.notes.iter().try_for_each(|note| writeln!(f, "  {note}"))
    }
}

fn heading(f: &mut fmt::Formatter<'_>, title: &str, is_empty: bool) -> fmt::Result {
    writeln!(f, "{title}{}", if is_empty { ": none" } else { ":" })
}
