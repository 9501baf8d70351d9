//! Short flags with their values attached: `-eA=1`, `-itv/data:/data`, `-p80:80`, as docker takes them.
//!
//! The command behind an image may begin with a dash, and then clap reads `-eA=1` as a part of it, since not all of its letters are
//! flags. So values are set apart before clap sees them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use clap::{Arg, Command};

/// `words`, the name of the program or verb first, with attached values as words of their own, up to the first word that
/// is no flag. `command` is whose flags they are.
pub(super) fn set_apart(command: &Command, words: Vec<OsString>) -> Vec<OsString> {
    let mut found = Vec::with_capacity(words.len() + 4);
    let mut command = command;
    let mut words = words.into_iter();
    found.extend(words.next());
    while let Some(word) = words.next() {
        let bytes = word.as_bytes();
        if bytes == b"--" || !bytes.starts_with(b"-") || bytes.len() < 2 {
            let inner = word.to_str().and_then(|name| command.find_subcommand(name));
            found.push(word);
            match inner {
                Some(inner) => command = inner,
                None => break,
            }
            continue;
        }
        let wants_next = if let Some(long) = bytes.strip_prefix(b"--") {
            !long.contains(&b'=') && by_long(command, long).is_some_and(needs_value)
        } else {
            let Some((flags, value)) = value_of(command, bytes) else {
                found.push(word);
                continue;
            };
            found.push(OsString::from_vec(flags.to_vec()));
            if let Some(value) = value {
                found.push(OsString::from_vec(value.to_vec()));
                continue;
            }
            found.extend(words.next());
            continue;
        };
        found.push(word);
        if wants_next {
            found.extend(words.next());
        }
    }
    found.extend(words);
    found
}

/// `-itv/data` as `-itv` and its value; no value if it is the next word. `None` if no letter takes one, or one is no flag.
fn value_of<'a>(command: &Command, word: &'a [u8]) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    for (at, letter) in word.iter().enumerate().skip(1) {
        let letter = char::from(*letter);
        let arg = command.get_arguments().find(|arg| has_short(arg, letter))?;
        if needs_value(arg) {
            let (flags, value) = word.split_at(at + 1);
            let value = value.strip_prefix(b"=").unwrap_or(value);
            return Some((flags, (!value.is_empty()).then_some(value)));
        }
    }
    None
}

fn by_long<'a>(command: &'a Command, name: &[u8]) -> Option<&'a Arg> {
    let name = OsStr::from_bytes(name).to_str()?;
    command.get_arguments().find(|arg| {
        arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|others| others.contains(&name))
    })
}

/// Whether the next word is the flag's.
fn needs_value(arg: &Arg) -> bool {
    arg.get_action().takes_values() && arg.get_num_args().is_none_or(|count| count.min_values() > 0)
}

fn has_short(arg: &Arg, letter: char) -> bool {
    arg.get_short() == Some(letter)
        || arg.get_all_short_aliases().is_some_and(|others| others.contains(&letter))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn attached_values_are_words_of_their_own() {
        let mut command = super::super::Arguments::command();
        command.build();
        for (line, expected) in [
            ("slipway run -eA=1 img -eB=2", "slipway run -e A=1 img -eB=2"),
            ("slipway run -itv/a:/b -u0 img", "slipway run -itv /a:/b -u 0 img"),
            ("slipway run -e=A=1 -p80:80 -m512m img", "slipway run -e A=1 -p 80:80 -m 512m img"),
            ("slipway run -e -v img -x", "slipway run -e -v img -x"),
            ("slipway run --env -v -u0 img", "slipway run --env -v -u 0 img"),
            ("slipway run --env=A -u0 img", "slipway run --env=A -u 0 img"),
            ("slipway run -it img -u0", "slipway run -it img -u0"),
            ("slipway run -- -u0", "slipway run -- -u0"),
            ("slipway run -Zx img", "slipway run -Zx img"),
            ("slipway container run -u0 img", "slipway container run -u 0 img"),
            ("slipway exec -w/x c ls -w/y", "slipway exec -w /x c ls -w/y"),
            ("slipway sbatch -N2 --mpi -n4 img", "slipway sbatch -N 2 --mpi -n 4 img"),
            ("slipway images -fdangling=true", "slipway images -f dangling=true"),
            ("slipway", "slipway"),
            ("slipway run -", "slipway run -"),
        ] {
            let words = line.split(' ').map(OsString::from).collect();
            let found = set_apart(&command, words);
            let found: Vec<_> = found.iter().map(|word| word.to_str().unwrap()).collect();
            assert_eq!(found.join(" "), expected);
        }
    }
}
