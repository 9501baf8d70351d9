//! The command line of a task whose beginning Slurm's plugin gave (`src/spank`).
//!
//! Slurm before 23.11 lets a plugin change a task's program and not put words before it, so they come in a variable:
//! the number of the process that they are for, a blank, and each word as `LENGTH:WORD`. With the number in it, a copy of the
//! environment means nothing to any other process.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// The variable.
pub(super) const VARIABLE: &str = "SLIPWAY_TASK";

/// `words` with those of the variable behind the program's name, if they are for this process.
pub(super) fn with_beginning(words: Vec<OsString>, variable: Option<&OsStr>, pid: u32) -> Vec<OsString> {
    let Some(beginning) = variable.and_then(|variable| decode(variable.as_bytes(), pid)) else {
        return words;
    };
    let mut words = words.into_iter();
    words.next().into_iter().chain(beginning).chain(words).collect()
}

fn decode(text: &[u8], pid: u32) -> Option<Vec<OsString>> {
    let (number, mut rest) = split(text, b' ')?;
    if number != u64::from(pid) {
        return None;
    }
    let mut words = Vec::new();
    while !rest.is_empty() {
        let (length, behind) = split(rest, b':')?;
        let (word, behind) = behind.split_at_checked(usize::try_from(length).ok()?)?;
        words.push(OsString::from_vec(word.to_vec()));
        rest = behind;
    }
    Some(words)
}

fn split(text: &[u8], end: u8) -> Option<(u64, &[u8])> {
    let at = text.iter().position(|byte| *byte == end)?;
    let number = std::str::from_utf8(&text[..at]).ok()?.parse().ok()?;
    Some((number, text.get(at + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_is_for_one_process() {
        let words = |variable: &str, pid| {
            let own = ["slipway", "-l"].map(OsString::from).to_vec();
            let found = with_beginning(own, Some(OsStr::new(variable)), pid);
            found.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join("|")
        };
        assert_eq!(words("7 3:run0:3:a b2:ls", 7), "slipway|run||a b|ls|-l");
        assert_eq!(words("7 3:run", 8), "slipway|-l");
        for bad in ["", "7", "x 3:run", "7 3:ru", "7 99999999999999999999:x", "7 -1:x", "7 3run", "7 :x"] {
            assert_eq!(words(bad, 7), "slipway|-l", "{bad}");
        }
        assert_eq!(with_beginning(vec!["slipway".into()], None, 7), ["slipway"]);
    }
}
