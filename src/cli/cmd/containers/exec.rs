//! `exec`: a further command in a running container.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use std::path::Path;

use crate::bundle::EnvRequest;
use crate::runtime::{self, DetachKeys, Entry, Outputs, Wishes};
use crate::sched;

use super::super::Session;
use super::super::request::env_request;
use super::{attach, has_terminal, shelf};
use crate::cli::args::ExecArgs;
use crate::cli::failure::Failure;
use crate::cli::term;

/// Becomes the command, or says why not. Returns for `--detach`.
pub(super) fn run(args: &ExecArgs, session: &Session) -> Result<(), Failure> {
    let (word, command) =
        args.words.split_first().ok_or_else(|| Failure::new("no container is named", None))?;
    let keys = DetachKeys::parse(&args.detach_keys)?;
    let on_terminal = args.tty && !args.detach && (!args.interactive || has_terminal(session)?);
    let container = shelf(session).find(&word.to_string_lossy())?;
    container.check_job(sched::read_job(&session.env, Path::new("/")).job_id.as_deref())?;
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
        runtime::enter_detached(&container, &entry)
    } else if on_terminal {
        let (mut out, mut err) = (term::raw_output(), term::raw_error());
        let mut outputs = Outputs { out: &mut out, err: &mut err };
        let wishes = Wishes {
            passes_input: args.interactive,
            keys: args.interactive.then_some(keys),
            is_terminal: true,
            passes_signals: false,
        };
        let parting = runtime::enter_terminal(&container, &entry, wishes, &mut outputs);
        drop((out, err));
        match parting {
            Ok(parting) => return attach::part(parting),
            Err(error) => Err(error),
        }
    } else {
        runtime::enter(&container, &entry).map(|never| match never {})
    };
    result.map_err(|error| {
        let code = error.exit_code();
        Failure::from(error).with_code(code.unwrap_or(1))
    })
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
