//! A filter from a file in docker's JSON form (`--security-opt seccomp=FILE`).

use serde::Deserialize;

use crate::base::Hint;
use crate::bundle::CapabilitySet;

use super::{Action, Condition, Filter, Rule};

/// GOARCH words and libseccomp's, for rules that hold on some architectures only.
const ARCHITECTURE: [&str; 2] =
    if cfg!(target_arch = "x86_64") { ["amd64", "SCMP_ARCH_X86_64"] } else { ["arm64", "SCMP_ARCH_AARCH64"] };
/// Arguments of a system call.
const MAX_ARGUMENTS: u8 = 6;

/// Why a file is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Not JSON of this form.
    #[error("`{file}` is not a seccomp profile: {reason}")]
    Form {
        /// The file.
        file: String,
        /// What the reader of JSON says.
        reason: String,
    },
    /// An action that is not known.
    #[error("`{file}`: there is no action `{action}`")]
    Action {
        /// The file.
        file: String,
        /// The word.
        action: String,
    },
    /// A comparison that is not known.
    #[error("`{file}`: the comparison `{operator}` of `{call}` is not supported")]
    Operator {
        /// The file.
        file: String,
        /// The word.
        operator: String,
        /// The call that it is for.
        call: String,
    },
    /// An argument that no call has.
    #[error("`{file}`: `{call}` has no argument {index}")]
    Argument {
        /// The file.
        file: String,
        /// The call.
        call: String,
        /// The number.
        index: u64,
    },
}

impl Hint for ProfileError {
    fn hint(&self) -> Option<String> {
        Some("profiles have docker's form; `--security-opt seccomp=unconfined` is none at all".into())
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<u16>,
    #[serde(default)]
    syscalls: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    action: String,
    #[serde(default)]
    errno_ret: Option<u16>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Demands,
    #[serde(default)]
    excludes: Demands,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u64,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// When an entry counts. A demand for a kernel (`minKernel`) is taken as met: the oldest that is named is 4.8.
#[derive(Debug, Default, Deserialize)]
struct Demands {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
}

impl Filter {
    /// Reads a profile for a container with these capabilities. Names that this architecture lacks are left out, as
    /// docker does.
    pub fn parse(file: &str, text: &str, capabilities: CapabilitySet) -> Result<Self, ProfileError> {
        let form =
            |error: serde_json::Error| ProfileError::Form { file: file.into(), reason: error.to_string() };
        let profile: Profile = serde_json::from_str(text).map_err(form)?;
        let default = action(file, &profile.default_action, profile.default_errno_ret)?;
        let mut filter = Self::new(default, default);
        for entry in &profile.syscalls {
            if !entry.counts(capabilities) {
                continue;
            }
            let action = action(file, &entry.action, entry.errno_ret)?;
            for name in entry.names.iter().chain(&entry.name) {
                let conditions = entry.args.iter().flatten().map(|argument| argument.condition(file, name));
                filter.add(name, Rule { action, conditions: conditions.collect::<Result<_, _>>()? });
            }
        }
        Ok(filter)
    }
}

impl Entry {
    fn counts(&self, capabilities: CapabilitySet) -> bool {
        let has = |name: &String| capabilities.has_name(name);
        let here = |name: &String| ARCHITECTURE.contains(&name.as_str());
        let (includes, excludes) = (&self.includes, &self.excludes);
        includes.caps.iter().flatten().all(has)
            && includes.arches.as_ref().is_none_or(|list| list.is_empty() || list.iter().any(here))
            && !excludes.caps.iter().flatten().any(has)
            && !excludes.arches.iter().flatten().any(here)
    }
}

impl Argument {
    fn condition(&self, file: &str, call: &str) -> Result<Condition, ProfileError> {
        let argument =
            u8::try_from(self.index).ok().filter(|index| *index < MAX_ARGUMENTS).ok_or_else(|| {
                ProfileError::Argument { file: file.into(), call: call.into(), index: self.index }
            })?;
        let (mask, value, equal) = match self.op.as_str() {
            "SCMP_CMP_EQ" => (u64::MAX, self.value, true),
            "SCMP_CMP_NE" => (u64::MAX, self.value, false),
            "SCMP_CMP_MASKED_EQ" => (self.value, self.value_two, true),
            operator => {
                return Err(ProfileError::Operator {
                    file: file.into(),
                    operator: operator.into(),
                    call: call.into(),
                });
            }
        };
        Ok(Condition { argument, mask, value, equal })
    }
}

fn action(file: &str, word: &str, errno: Option<u16>) -> Result<Action, ProfileError> {
    const EPERM: u16 = 1;
    Ok(match word {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_ERRNO" => Action::Errno(errno.unwrap_or(EPERM)),
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        _ => return Err(ProfileError::Action { file: file.into(), action: word.into() }),
    })
}
