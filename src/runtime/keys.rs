//! The keys that detach: docker's `--detach-keys`, a list of single characters and `ctrl-` and one more.

use super::error::RuntimeError;

/// What docker has when nothing is said.
const DEFAULT: [u8; 2] = [0x10, 0x11];

/// A sequence of keys, and how much of it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    typed: usize,
}

impl Default for DetachKeys {
    fn default() -> Self {
        Self { keys: DEFAULT.into(), typed: 0 }
    }
}

impl DetachKeys {
    /// Reads docker's form (`ctrl-p,ctrl-q`); an empty text is the default.
    pub fn parse(text: &str) -> Result<Self, RuntimeError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        match keys {
            Some(keys) => Ok(Self { keys, typed: 0 }),
            None => Err(RuntimeError::BadKeys { text: text.to_owned() }),
        }
    }

    /// Takes what was typed, and gives what goes on to the other side, and whether the sequence is complete. A beginning
    /// of it is held back until it is known not to be one.
    pub fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len());
        for byte in typed {
            if self.keys.get(self.typed) == Some(byte) {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    return (passed, true);
                }
                continue;
            }
            passed.extend(self.keys.iter().take(self.typed));
            self.typed = 0;
            if self.keys.first() == Some(byte) && self.keys.len() > 1 {
                self.typed = 1;
            } else {
                passed.push(*byte);
            }
        }
        (passed, false)
    }
}

fn key(word: &str) -> Option<u8> {
    if let [byte] = word.as_bytes() {
        return Some(*byte);
    }
    match word.strip_prefix("ctrl-")?.as_bytes() {
        [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
        [b'@'] => Some(0),
        [b'['] => Some(27),
        [b'\\'] => Some(28),
        [b']'] => Some(29),
        [b'^'] => Some(30),
        [b'_'] => Some(31),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_docker_s_form() {
        for (text, expected) in [
            ("", Some(vec![16, 17])),
            ("ctrl-p,ctrl-q", Some(vec![16, 17])),
            ("a", Some(vec![b'a'])),
            ("ctrl-a,x,ctrl-[", Some(vec![1, b'x', 27])),
            ("ctrl-@,ctrl-\\,ctrl-],ctrl-^,ctrl-_", Some(vec![0, 28, 29, 30, 31])),
            ("ctrl-", None),
            ("ctrl-A", None),
            ("abc", None),
        ] {
            let read = DetachKeys::parse(text).ok().map(|keys| keys.keys);
            assert_eq!(read, expected, "{text}");
        }
    }

    #[test]
    fn holds_back_only_what_may_be_the_keys() {
        let check = |typed: &[&[u8]], expected: &[u8], detached: bool| {
            let mut keys = DetachKeys::default();
            let mut passed = Vec::new();
            let mut end = false;
            for piece in typed {
                let (bytes, is_end) = keys.filter(piece);
                passed.extend(bytes);
                end |= is_end;
            }
            assert_eq!((passed.as_slice(), end), (expected, detached), "{typed:?}");
        };
        check(&[b"abc"], b"abc", false);
        check(&[b"a\x10\x11b"], b"a", true);
        check(&[b"\x10", b"\x11"], b"", true);
        check(&[b"\x10", b"x"], b"\x10x", false);
        check(&[b"\x10\x10\x11"], b"\x10", true);
        check(&[b"\x10"], b"", false);
    }
}
