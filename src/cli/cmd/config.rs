//! `slipway config`.

use super::{Session, with_home};
use crate::cli::args::ExplainArgs;
use crate::cli::failure::Failure;
use crate::cli::term;
use crate::config::{Place, Settings, Sources, Step, default_files};

/// Every key, its value and where that came from.
pub(in crate::cli) fn show(session: &Session) -> Result<(), Failure> {
    term::print(&session.settings.show())
}

/// One key: what holds, and what it stands over.
pub(in crate::cli) fn explain(args: &ExplainArgs, session: &Session) -> Result<(), Failure> {
    let env = with_home(&session.env);
    let here = Place::here(&env);
    let place =
        Place { node: args.node.clone().or(here.node), partition: args.partition.clone().or(here.partition) };
    let sources = Sources { files: &default_files(&env), env: &env, flags: &[], place: Some(&place) };
    let steps = Settings::explain(&args.key, &sources)?;
    let line = |(index, step): (usize, &Step)| {
        let scope = step.scope.as_ref().map(|scope| format!(" ({scope})")).unwrap_or_default();
        match index {
            0 => format!("{} = {}\nfrom {}{scope}\n", args.key, step.value, step.origin),
            _ => format!("over {}{scope}: {}\n", step.origin, step.value),
        }
    };
    let text: String = steps.iter().rev().enumerate().map(line).collect();
    term::print(&text)
}
