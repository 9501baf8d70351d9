//! `exec`: a further command in a running container.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use crate::bundle::EnvRequest;
use crate::runtime::{self, Entry};

use super::super::Session;
use super::super::request::env_request;
use super::shelf;
use crate::cli::args::ExecArgs;
use crate::cli::failure::Failure;
use crate::cli::term;

/// Becomes the command, or says why not. Returns for `--detach`.
pub(super) fn run(args: &ExecArgs, session: &Session) -> Result<(), Failure> {
    let (word, command) =
        args.words.split_first().ok_or_else(|| Failure::new("no container is named", None))?;
    if args.tty && !args.detach && !(term::input_is_terminal() && term::output_is_terminal()) {
        // In a batch script this is the most common slip of a pasted line, and harmless.
        if !session.env.contains_key(OsStr::new("SLURM_JOB_ID")) {
            return Err(Failure::new("the input device is not a TTY", "leave `-t` out"));
        }
        term::warn("there is no terminal: `-t` is left out");
    }
    let container = shelf(session).find(&word.to_string_lossy())?;
    let mut env = container.env()?;
    if args.tty && !env.iter().any(|line| name_of(line) == b"TERM") {
        let term = session.env.get(OsStr::new("TERM")).cloned().unwrap_or_else(|| "xterm".into());
        env.push(variable(OsStr::new("TERM"), &term));
    }
    for text in &args.env {
        let (name, value) = match env_request(text) {
            EnvRequest::Set(name, value) => (name, Some(value)),
            EnvRequest::Inherit(name) => {
                let value = session.env.get(&name).cloned();
                (name, value)
            }
        };
        env.retain(|line| name_of(line) != name.as_bytes());
        env.extend(value.map(|value| variable(&name, &value)));
    }
    let entry = Entry {
        argv: command.to_vec(),
        env,
        workdir: args.workdir.clone(),
        user: args.user.clone(),
        keep_stdin: args.interactive,
    };
    let result = if args.detach {
        runtime::enter_detached(&container, &entry).map(|()| 0)
    } else {
        runtime::enter(&container, &entry)
    };
    match result {
        Ok(0) => Ok(()),
        Ok(code) => Err(Failure::quiet(u8::try_from(code).unwrap_or(u8::MAX))),
        Err(error) => {
            let code = error.exit_code();
            let failure = Failure::from(error);
            Err(failure.with_code(code.unwrap_or(1)))
        }
    }
}

fn variable(name: &OsStr, value: &OsStr) -> OsString {
    let mut line = name.to_owned();
    line.push("=");
    line.push(value);
    line
}

fn name_of(line: &OsStr) -> &[u8] {
    line.as_bytes().split(|byte| *byte == b'=').next().unwrap_or_default()
}
