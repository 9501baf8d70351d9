//! Names that say which machine it is, replaced by names that do not: the same by the same, so that what belongs
//! together still does.

use std::collections::BTreeMap;

/// Replacements of one record.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    known: BTreeMap<(&'static str, String), usize>,
}

impl Scrub {
    fn number(&mut self, kind: &'static str, name: &str) -> usize {
        let next = 1 + self.known.keys().filter(|(other, _)| *other == kind).count();
        *self.known.entry((kind, name.to_owned())).or_insert(next)
    }

    /// A UUID with its prefix (`GPU-`, `MIG-`) and another number.
    pub(super) fn uuid(&mut self, uuid: &str) -> String {
        let (kind, shown) = match uuid {
            _ if uuid.starts_with("MIG-") => ("MIG", "MIG-"),
            _ if uuid.starts_with("GPU-") => ("GPU", "GPU-"),
            _ => ("other", ""),
        };
        // The fabric of a node that is in none.
        if uuid.bytes().all(|byte| matches!(byte, b'0' | b'-')) {
            return uuid.to_owned();
        }
        format!("{shown}00000000-0000-4000-8000-{:012x}", self.number(kind, uuid))
    }

    /// A serial number.
    pub(super) fn serial(&mut self, serial: &str) -> String {
        format!("{:013}", self.number("serial", serial))
    }
}

/// The text without the name of the host, whole or up to its first dot. A name of few letters is left: it would be
/// found within other words.
pub(super) fn without_host(text: &str, host: &str) -> String {
    /// Shorter names are as good as none.
    const SHORTEST: usize = 4;
    let short = host.split('.').next().unwrap_or_default();
    let names = [host, short].into_iter().filter(|name| name.len() >= SHORTEST);
    names.fold(text.to_owned(), |text, name| text.replace(name, "node"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_stays_the_same() {
        let mut scrub = Scrub::default();
        let first = scrub.uuid("GPU-6f1c2a3b-0000-1111-2222-333344445555");
        assert_eq!(first, "GPU-00000000-0000-4000-8000-000000000001");
        assert_eq!(scrub.uuid("MIG-6f1c"), "MIG-00000000-0000-4000-8000-000000000001");
        assert_eq!(scrub.uuid("GPU-other"), "GPU-00000000-0000-4000-8000-000000000002");
        assert_eq!(scrub.uuid("GPU-6f1c2a3b-0000-1111-2222-333344445555"), first);
        assert_eq!(
            scrub.uuid("00000000-0000-0000-0000-000000000000"),
            "00000000-0000-0000-0000-000000000000"
        );
        assert_eq!([scrub.serial("1650523002711"), scrub.serial("16")], ["0000000000001", "0000000000002"]);
    }

    #[test]
    fn host_names_go() {
        let check = |host: &str, expected: &str| {
            assert_eq!(without_host("dir = \"/opt/gpu017/x\" at gpu017.site.org", host), expected);
        };
        check("gpu017.site.org", "dir = \"/opt/node/x\" at node");
        check("gpu017", "dir = \"/opt/node/x\" at node.site.org");
        check("x", "dir = \"/opt/gpu017/x\" at gpu017.site.org");
    }
}
