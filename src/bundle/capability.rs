//! Capabilities by name, as a set.

use std::fmt;

use crate::base::Hint;

/// All capabilities by number (linux/capability.h), without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set of capabilities, a bit for each number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapabilitySet(u64);

/// A word that names no capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{flag} {word}`: there is no such capability")]
pub struct CapabilityError {
    /// The flag.
    pub flag: &'static str,
    /// The word.
    pub word: String,
}

impl Hint for CapabilityError {
    fn hint(&self) -> Option<String> {
        Some("the names are those of capabilities(7), such as SYS_PTRACE; `ALL` is every one".into())
    }
}

impl CapabilitySet {
    /// None.
    pub const NONE: Self = Self(0);
    /// Every one that we know.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);
    /// What `docker run` gives (moby `daemon/pkg/oci/caps/defaults.go`): CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL,
    /// SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
    pub const DOCKER: Self = Self(0xa804_25fb);

    /// The capability of a name, with or without `CAP_` and in any case, or all of them.
    fn parse(flag: &'static str, word: &str) -> Result<Self, CapabilityError> {
        let upper = word.trim().to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name == "ALL" {
            return Ok(Self::ALL);
        }
        let number = NAMES.iter().position(|known| *known == name);
        number.map(|number| Self(1 << number)).ok_or_else(|| CapabilityError { flag, word: word.into() })
    }

    /// `--cap-add` and `--cap-drop`, repeated or with commas, over docker's set: what is added by name stays although all
    /// are dropped, and the other way round.
    pub fn of_flags(add: &[String], drop: &[String]) -> Result<CapabilityChoice, CapabilityError> {
        let read = |flag: &'static str, words: &[String]| {
            let words = words.iter().flat_map(|list| list.split(',')).filter(|word| !word.is_empty());
            words.map(|word| Self::parse(flag, word)).collect::<Result<Vec<_>, _>>()
        };
        let named = |sets: &[Self]| {
            sets.iter().filter(|set| **set != Self::ALL).fold(Self::NONE, |all, set| all.with(*set))
        };
        let (add, drop) = (read("--cap-add", add)?, read("--cap-drop", drop)?);
        let (add_all, drop_all) = (add.contains(&Self::ALL), drop.contains(&Self::ALL));
        let base = match (add_all, drop_all) {
            (true, _) => Self::ALL,
            (false, true) => Self::NONE,
            (false, false) => Self::DOCKER,
        };
        let keep = if drop_all && !add_all {
            base.with(named(&add))
        } else {
            base.with(named(&add)).without(named(&drop))
        };
        let added = if add_all { keep } else { named(&add).and(keep) };
        Ok(CapabilityChoice { keep, added })
    }

    /// Whether the capability of this name, with or without `CAP_`, is in.
    #[must_use]
    pub fn has_name(self, name: &str) -> bool {
        let name = name.strip_prefix("CAP_").unwrap_or(name);
        NAMES.iter().position(|known| *known == name).is_some_and(|number| self.0 & (1 << number) != 0)
    }

    /// The bits.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Display for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NONE => return f.write_str("none"),
            Self::ALL => return f.write_str("all"),
            Self::DOCKER => return f.write_str("Docker's"),
            _ => {}
        }
        let names = NAMES.iter().enumerate().filter(|(number, _)| self.0 & (1 << number) != 0);
        let names: Vec<_> = names.map(|(_, name)| *name).collect();
        f.write_str(&names.join(" "))
    }
}

impl serde::Serialize for CapabilitySet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What flags say of capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapabilityChoice {
    /// Those that may be had inside at all.
    pub keep: CapabilitySet,
    /// Those that were asked for by name: also a user that is not root inside has them.
    pub added: CapabilitySet,
}

impl Default for CapabilityChoice {
    fn default() -> Self {
        Self { keep: CapabilitySet::DOCKER, added: CapabilitySet::NONE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_add_and_drop() {
        let check = |add: &[&str], drop: &[&str], keep: &str, added: &str| {
            let words = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
            let choice = CapabilitySet::of_flags(&words(add), &words(drop)).unwrap();
            assert_eq!((choice.keep.to_string(), choice.added.to_string()), (keep.into(), added.into()));
        };
        check(&[], &[], "Docker's", "none");
        check(&["SYS_PTRACE"], &["ALL"], "SYS_PTRACE", "SYS_PTRACE");
        check(&["cap_sys_ptrace,IPC_LOCK"], &["all"], "IPC_LOCK SYS_PTRACE", "IPC_LOCK SYS_PTRACE");
        check(&["ALL"], &[], "all", "all");
        check(&["KILL"], &["KILL", "ALL"], "KILL", "KILL");
        let choice = CapabilitySet::of_flags(&["ALL".into()], &["SYS_ADMIN".into()]).unwrap();
        assert!(!choice.keep.has_name("CAP_SYS_ADMIN") && choice.keep.has_name("BPF"));
        let error = CapabilitySet::of_flags(&["FLY".into()], &[]).unwrap_err();
        assert_eq!(error.to_string(), "`--cap-add FLY`: there is no such capability");
        for name in ["CHOWN", "NET_RAW", "SETFCAP", "MKNOD"] {
            assert!(CapabilitySet::DOCKER.has_name(name), "{name}");
        }
        assert!(!CapabilitySet::DOCKER.has_name("SYS_ADMIN"));
        assert_eq!(CapabilitySet::DOCKER.bits().count_ones(), 14);
    }
}
