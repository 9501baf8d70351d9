//! The last step: find the command in the container, and become it.

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;

use crate::elf;
use crate::sys::{Errno, process};

use super::LaunchError;

/// Most of a file's head that is read to say why it cannot be executed.
const HEAD_BYTES: u64 = 4096;

/// Finds `argv[0]` by the PATH of `env`, as execvp does, and executes it. Returns only the error.
pub fn become_workload(argv: &[OsString], env: &[OsString]) -> LaunchError {
    let Some(command) = argv.first() else {
        return LaunchError::CommandNotFound {
            command: String::new(),
            reason: "the command is empty".into(),
        };
    };
    let shown = command.to_string_lossy().into_owned();
    let strings = |words: &[OsString]| {
        words.iter().map(|word| CString::new(word.as_bytes())).collect::<Result<Vec<_>, _>>()
    };
    let (Ok(args), Ok(env_strings)) = (strings(argv), strings(env)) else {
        return LaunchError::NotExecutable {
            command: shown,
            reason: "an argument or variable holds a NUL byte".into(),
        };
    };
    if process::restore_signals_for_exec().is_err() {
        return LaunchError::NotExecutable { command: shown, reason: "signals cannot be restored".into() };
    }
    let path = env.iter().find_map(|line| line.as_bytes().strip_prefix(b"PATH=")).unwrap_or_default();
    // As execvp: a candidate that cannot be had does not end the search, and is told only if no other is found.
    let (mut lacking, mut denied) = (None, None);
    for candidate in candidates(command, path) {
        let errno = process::exec(&candidate, &args, &env_strings);
        let place = OsStr::from_bytes(candidate.as_bytes());
        match errno {
            Errno::ENOENT | Errno::ENOTDIR => {
                if let Some(reason) = missing_interpreter(place) {
                    lacking.get_or_insert(reason);
                }
            }
            Errno::EACCES => {
                denied.get_or_insert_with(|| format!("`{}` {}", place.to_string_lossy(), why_denied(place)));
            }
            Errno::ELOOP | Errno::ENAMETOOLONG => {
                denied.get_or_insert_with(|| why_not(place, errno));
            }
            _ => return LaunchError::NotExecutable { command: shown, reason: why_not(place, errno) },
        }
    }
    match (lacking, denied) {
        (Some(reason), _) => LaunchError::CommandNotFound { command: shown, reason },
        (None, Some(reason)) => LaunchError::NotExecutable { command: shown, reason },
        (None, None) if command.as_bytes().contains(&b'/') => {
            LaunchError::CommandNotFound { command: shown, reason: "no such file".into() }
        }
        (None, None) => {
            let path = String::from_utf8_lossy(path).into_owned();
            LaunchError::CommandNotFound { command: shown, reason: format!("its PATH is `{path}`") }
        }
    }
}

/// A name with a slash stands for itself; any other is tried in each directory of PATH, where empty means the current.
fn candidates(command: &OsStr, path: &[u8]) -> Vec<CString> {
    let name = command.as_bytes();
    if name.is_empty() {
        return Vec::new();
    }
    if name.contains(&b'/') {
        return CString::new(name).into_iter().collect();
    }
    path.split(|byte| *byte == b':')
        .filter_map(|directory| {
            let directory = if directory.is_empty() { b".".as_slice() } else { directory };
            CString::new([directory, b"/", name].concat()).ok()
        })
        .collect()
}

fn head(place: &OsStr) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(place).ok()?.take(HEAD_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// A file that exists while exec says ENOENT: its `#!` line or its loader names a file that is missing.
fn missing_interpreter(place: &OsStr) -> Option<String> {
    fs::metadata(place).ok()?;
    let head = head(place)?;
    let shown = place.to_string_lossy();
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line).trim().to_owned();
        let interpreter = line.split_whitespace().next().unwrap_or_default().to_owned();
        return Some(format!("`{shown}` needs the interpreter `{interpreter}`, which the image lacks"));
    }
    let loader = elf::interpreter(&head)?;
    Some(format!("`{shown}` needs the loader `{loader}`, which the image lacks"))
}

fn why_denied(place: &OsStr) -> &'static str {
    match fs::metadata(place) {
        Ok(data) if data.is_dir() => "is a directory",
        Ok(data) if !data.is_file() => "is not a regular file",
        _ => "may not be executed (check its mode)",
    }
}

fn why_not(place: &OsStr, errno: Errno) -> String {
    let shown = place.to_string_lossy();
    if errno == Errno::ENOEXEC {
        return match head(place).as_deref().and_then(elf::machine) {
            Some(machine) if machine != std::env::consts::ARCH => {
                format!("`{shown}` is for {machine} and this host is {} (ENOEXEC)", std::env::consts::ARCH)
            }
            Some(_) => format!("`{shown}` is a damaged program (ENOEXEC)"),
            None => format!("`{shown}` is neither a program nor a script that begins with `#!` (ENOEXEC)"),
        };
    }
    format!("`{shown}`: {} ({errno:?})", errno.desc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_each_directory_of_path() {
        let check = |command: &str, path: &str, expected: &[&str]| {
            let found: Vec<_> = candidates(OsStr::new(command), path.as_bytes());
            let found: Vec<_> = found.iter().map(|c| c.to_str().unwrap()).collect();
            assert_eq!(found, expected);
        };
        check("ls", "/bin:/usr/bin", &["/bin/ls", "/usr/bin/ls"]);
        check("ls", ":/x", &["./ls", "/x/ls"]);
        check("./ls", "/bin", &["./ls"]);
        check("", "/bin", &[]);
    }
}
