//! `run -d`, `create`, `start`: containers that others can find.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use jiff::Timestamp;

use crate::config::Profile;
use crate::launch;
use crate::runtime::{self, Container, DetachKeys, Draft, Ending, Record, RuntimeError};
use crate::sched;

use super::super::run::{Prepared, Way, prepare};
use super::super::{Session, request};
use super::{attach, each, health, shelf};
use crate::cli::args::{self, Command, ContainerCommand, ContainerVerb, RunArgs, StartArgs};
use crate::cli::failure::Failure;
use crate::cli::term;

/// Variables with these beginnings tell about the job: a later start takes the later job's.
const OF_THE_JOB: [&[u8]; 5] =
    [b"SLURM", b"CUDA_VISIBLE_DEVICES", b"GPU_DEVICE_ORDINAL", b"ROCR_VISIBLE_DEVICES", b"ZE_AFFINITY_MASK"];

/// `run` with `-d`, `--name` or `--cidfile`.
pub(in crate::cli::cmd) fn run_kept(
    args: &RunArgs,
    prepared: &mut Prepared,
    session: &Session,
) -> Result<(), Failure> {
    let mut container = make(args, prepared, session, args.keep.detach)?;
    if args.keep.detach || prepared.stays {
        container.keep_changes(&mut prepared.plan)?;
    }
    if !args.keep.detach {
        runtime::register_own(&mut container)?;
        let error = launch::apply(&prepared.plan, &prepared.context());
        take_back(&container, args);
        let code = error.exit_code();
        return Err(Failure::from(error).with_code(code));
    }
    if let Err(error) = runtime::start(&mut container, &prepared.plan, &prepared.context(), None) {
        take_back(&container, args);
        return Err(of_start(error));
    }
    if sched::read_job(&session.env, Path::new("/")).is_in_step() {
        term::note(&"note: the container ends with this job step: Slurm kills what a step has started");
    }
    term::print(&format_args!("{}\n", container.record.id))
}

/// What did not start leaves nothing.
fn take_back(container: &Container, args: &RunArgs) {
    runtime::unregister(container);
    if let Some(path) = &args.keep.cidfile {
        // The launch's own error is what the user must see.
        let _ = std::fs::remove_file(path);
    }
}

/// `create`.
pub(super) fn create(args: &RunArgs, session: &Session) -> Result<(), Failure> {
    let mut prepared = prepare(args, session, Way::Create)?;
    if args.tty {
        prepared.plan.add_console();
    }
    let mut container = make(args, &prepared, session, true)?;
    container.record.stdin_once = args.interactive;
    container.keep_changes(&mut prepared.plan)?;
    container.set_aside()?;
    term::print(&format_args!("{}\n", container.record.id))
}

/// `start`.
pub(super) fn run(args: &StartArgs, session: &Session) -> Result<(), Failure> {
    if !args.attach && !args.interactive {
        return each(&args.containers, session, |container| match container.is_running() {
            true => Ok(()),
            false => again(container, session, None),
        });
    }
    let [word] = args.containers.as_slice() else {
        return Err(Failure::new(
            "cannot attach to more than one container",
            "start them without `-a` and `-i`",
        ));
    };
    let keys = DetachKeys::parse(&args.detach_keys)?;
    let mut container = shelf(session).find(word)?;
    let wanted = attach::Wanted { keys, input: args.interactive, passes_signals: args.sig_proxy };
    let wishes = attach::wishes(&container, wanted, session)?;
    let ending = Ending::of(&container)?;
    let line = if container.is_running() {
        runtime::connect(&container)?
    } else {
        let (ours, theirs) = attach::line(&container)?;
        again(&mut container, session, Some(theirs))?;
        ours
    };
    attach::follow(line, &container, wishes, ending)
}

/// Starts a container that does not run, by the words that made it. Whoever has the other end of `first` is attached
/// before it prints anything.
pub(super) fn again(
    container: &mut Container,
    session: &Session,
    first: Option<OwnedFd>,
) -> Result<(), Failure> {
    let (prepared, then) = prepare_again(container, session)?;
    container.renew(&prepared.plan)?;
    let job = sched::read_job(&then.env, Path::new("/"));
    (container.record.job_id, container.record.step_id) = (job.job_id, job.step_id);
    runtime::start(container, &prepared.plan, &prepared.context(), first).map_err(of_start)
}

/// What a start of a container needs, by the words that made it; and the variables and settings for it.
pub(super) fn prepare_again(
    container: &mut Container,
    session: &Session,
) -> Result<(Prepared, Session), Failure> {
    if let Some(directory) = &container.record.caller_cwd {
        std::env::set_current_dir(directory).map_err(|error| {
            Failure::new(
                format!(
                    "cannot start `{}`: the directory `{}`, in which it was made: {error}",
                    container.record.name,
                    directory.display()
                ),
                None,
            )
        })?;
    }
    let then = Session::open(environment(container.caller_env()?, &session.env))?;
    let mut prepared = with_run_args(container, |args, _| prepare(args, &then, Way::Again(container)))?;
    prepared.make_ready()?;
    if container.record.tty {
        prepared.plan.add_console();
    }
    container.keep_changes(&mut prepared.plan)?;
    Ok((prepared, then))
}

/// The flags of the `run` or `create` that made a container, and the command behind the image.
pub(super) fn with_run_args<T>(
    container: &Container,
    work: impl FnOnce(&RunArgs, &[OsString]) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let words = [OsString::from("slipway")].into_iter().chain(container.words()?);
    let unreadable = || {
        Failure::new(
            format!("cannot start `{}`: it was made by another version of slipway", container.record.name),
            "make it anew with `slipway run`",
        )
    };
    let command = args::parse(words).map_err(|_| unreadable())?.command;
    let args = run_args(&command).ok_or_else(unreadable)?;
    work(args, args.words.get(1..).unwrap_or_default())
}

fn run_args(command: &Command) -> Option<&RunArgs> {
    match command {
        Command::Run(args) => Some(args),
        Command::OfContainer(ContainerVerb::Create(args)) => Some(args),
        Command::Container(group) => match &group.command {
            ContainerCommand::Run(args) | ContainerCommand::Verb(ContainerVerb::Create(args)) => Some(args),
            _ => None,
        },
        _ => None,
    }
}

/// The variables of whoever made it, with what tells about a job taken from now.
fn environment(made: Vec<OsString>, now: &BTreeMap<OsString, OsString>) -> BTreeMap<OsString, OsString> {
    let of_the_job = |name: &OsStr| OF_THE_JOB.iter().any(|start| name.as_bytes().starts_with(start));
    let mut env: BTreeMap<OsString, OsString> = made
        .iter()
        .filter_map(|line| {
            let at = line.as_bytes().iter().position(|byte| *byte == b'=')?;
            let (name, value) = line.as_bytes().split_at(at);
            Some((OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(value.get(1..)?).to_owned()))
        })
        .filter(|(name, _)| !of_the_job(name))
        .collect();
    env.extend(
        now.iter().filter(|(name, _)| of_the_job(name)).map(|(name, value)| (name.clone(), value.clone())),
    );
    env
}

fn of_start(error: RuntimeError) -> Failure {
    let code = error.exit_code();
    let failure = Failure::from(error);
    match code {
        Some(code) => failure.with_code(code),
        None => failure,
    }
}

/// A container's directory, and the file with its id.
fn make(
    args: &RunArgs,
    prepared: &Prepared,
    session: &Session,
    detached: bool,
) -> Result<Container, Failure> {
    let keep = &args.keep;
    if let Some(signal) = &keep.stop_signal {
        runtime::parse_signal(signal)?;
    }
    if let Some(keys) = &keep.detach_keys {
        DetachKeys::parse(keys)?;
    }
    let job = sched::read_job(&session.env, Path::new("/"));
    let config = &prepared.image.config.config;
    let mut record =
        Record::of_plan(&prepared.plan, prepared.name.clone(), prepared.image.path.clone(), Timestamp::now());
    record.image_id = prepared.image.raw_config().map(|raw| crate::base::Digest::of(raw).to_string());
    record.labels.clone_from(&config.labels);
    record.labels.extend(labels(args)?);
    let image_signal = Some(config.stop_signal.clone()).filter(|signal| !signal.is_empty());
    record.stop_signal = keep.stop_signal.clone().or(image_signal);
    record.stop_seconds = keep.stop_timeout;
    // The image's own check counts for who expects what docker does.
    let is_docker = request::profile(args, session) == Profile::Docker;
    record.health = health::check(&keep.process, prepared.image.raw_config().filter(|_| is_docker))?;
    record.auto_remove = args.rm;
    record.detached = detached;
    record.stays = prepared.stays;
    record.volumes.clone_from(&prepared.volumes);
    record.volume_paths = prepared.volume_paths(session)?;
    record.open_stdin = args.interactive;
    record.tty = args.tty;
    record.caller_cwd = std::env::current_dir().ok();
    record.node = job.node_name.clone().or_else(host_name).unwrap_or_default();
    record.job_id = job.job_id;
    record.step_id = job.step_id;
    let caller_env = session.env.iter().map(|(name, value)| {
        let mut line = name.clone();
        line.push("=");
        line.push(value);
        line
    });
    let draft = Draft {
        record,
        name: keep.name.clone(),
        id: prepared.id.clone(),
        filter: runtime::workload_filter(&prepared.plan),
        env: runtime::workload_env(&prepared.plan),
        words: std::env::args_os().skip(1).collect(),
        caller_env: caller_env.collect(),
    };
    if let Some(path) = keep.cidfile.as_deref().filter(|path| path.exists()) {
        return Err(Failure::new(
            format!("the file `{}` for the container's id exists", path.display()),
            "remove it, or name another",
        ));
    }
    let container = shelf(session).create(draft)?;
    if let Some(path) = &keep.cidfile {
        let written = std::fs::write(path, &container.record.id);
        if let Err(error) = written {
            runtime::unregister(&container);
            return Err(Failure::new(format!("cannot write `{}`: {error}", path.display()), None));
        }
    }
    Ok(container)
}

/// `--label-file`, and over it `--label`.
fn labels(args: &RunArgs) -> Result<Vec<(String, String)>, Failure> {
    let pair = |text: &str| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        (key.to_owned(), value.to_owned())
    };
    let mut labels = Vec::new();
    for path in &args.files.label_file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::new(format!("cannot read `--label-file {}`: {error}", path.display()), "check the path")
        })?;
        let lines =
            text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
        labels.extend(lines.map(pair));
    }
    labels.extend(args.keep.label.iter().map(|text| pair(text)));
    Ok(labels)
}

fn host_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_start_takes_the_later_job() {
        let made = vec!["A=1=2".into(), "SLURM_JOB_ID=1".into(), "CUDA_VISIBLE_DEVICES=0".into()];
        let now = BTreeMap::from([
            (OsString::from("SLURM_JOB_ID"), OsString::from("2")),
            (OsString::from("B"), OsString::from("3")),
        ]);
        let env = environment(made, &now);
        let pairs: Vec<_> = env.iter().map(|(name, value)| (name.to_str(), value.to_str())).collect();
        assert_eq!(pairs, [(Some("A"), Some("1=2")), (Some("SLURM_JOB_ID"), Some("2"))]);
    }
}
