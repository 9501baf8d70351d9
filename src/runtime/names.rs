//! Container names and ids: what a name may be, how one is made up, and what a word may mean.

/// Hexadecimal digits of an id.
pub(super) const ID_LENGTH: usize = 64;
/// Digits of an id that are shown.
pub(super) const SHORT_LENGTH: usize = 12;

const ADJECTIVES: [&str; 48] = [
    "able", "airy", "amber", "ample", "brave", "bright", "brisk", "calm", "candid", "civil", "clear",
    "coral", "crisp", "daring", "deft", "eager", "early", "fair", "fleet", "fond", "gentle", "glad",
    "golden", "grand", "hardy", "honest", "jolly", "keen", "kind", "lively", "loyal", "lucid", "mellow",
    "merry", "neat", "nimble", "noble", "patient", "polite", "proud", "quiet", "ready", "royal", "silver",
    "steady", "sunny", "swift", "witty",
];

const NOUNS: [&str; 48] = [
    "anchor", "barge", "beacon", "bosun", "bow", "breeze", "brig", "buoy", "cable", "canoe", "captain",
    "clipper", "compass", "cove", "current", "cutter", "dock", "dory", "ferry", "galley", "gull", "harbor",
    "heron", "hull", "jetty", "kayak", "keel", "ketch", "lagoon", "lantern", "launch", "mast", "oar",
    "otter", "pilot", "port", "quay", "raft", "reef", "rudder", "sail", "schooner", "sextant", "sloop",
    "tide", "tiller", "wharf", "yawl",
];

/// An id and a name that goes with it, from 34 random bytes.
pub(super) fn from_random(bytes: &[u8; 34]) -> (String, String) {
    use std::fmt::Write as _;
    let mut id = String::with_capacity(ID_LENGTH);
    for byte in &bytes[..32] {
        write!(id, "{byte:02x}").expect("writing to a String cannot fail");
    }
    // An id whose short form is a number would be taken for one by tools that sort or parse lists.
    if id.bytes().take(SHORT_LENGTH).all(|byte| byte.is_ascii_digit()) {
        id.replace_range(..1, "a");
    }
    let pick = |words: &'static [&'static str], byte: u8| words[usize::from(byte) % words.len()];
    (id, format!("{}_{}", pick(&ADJECTIVES, bytes[32]), pick(&NOUNS, bytes[33])))
}

/// Docker's rule for names: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`; a slash before it is Docker's own habit and left out.
pub(super) fn parse_name(text: &str) -> Option<&str> {
    let name = text.strip_prefix('/').unwrap_or(text);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let first = name.bytes().next()?;
    let fits = first.is_ascii_alphanumeric() && (2..=128).contains(&name.len()) && name.bytes().all(is_plain);
    fits.then_some(name)
}

/// Whether a word may be the beginning of an id.
pub(super) fn may_be_id(word: &str) -> bool {
    (1..=ID_LENGTH).contains(&word.len()) && word.bytes().all(|byte| b"0123456789abcdef".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_docker_s() {
        for (text, expected) in [
            ("web", Some("web")),
            ("/web", Some("web")),
            ("a.b-c_9", Some("a.b-c_9")),
            ("a", None),
            ("-ab", None),
            (".ab", None),
            ("a b", None),
            ("a/b", None),
            ("", None),
            ("/", None),
            ("näm", None),
        ] {
            assert_eq!(parse_name(text), expected, "{text}");
        }
        assert_eq!(parse_name(&"a".repeat(129)), None);
    }

    #[test]
    fn a_made_up_name_is_a_name_and_an_id_is_no_number() {
        let (id, name) = from_random(&[0x11; 34]);
        assert_eq!(id, format!("a1{}", "11".repeat(31)));
        assert_eq!(parse_name(&name), Some(name.as_str()));
        let (id, _) = from_random(&[0xfe; 34]);
        assert_eq!(id, "fe".repeat(32));
        assert!(
            may_be_id(&id) && may_be_id("fe0") && !may_be_id("") && !may_be_id("xyz") && !may_be_id("FE")
        );
    }
}
