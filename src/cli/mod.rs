//! Floor 6, the command line: words in, words and exit codes out. The library decides, this module talks.

mod args;
mod cmd;
mod env;
mod failure;
mod progress;
mod table;
mod task;
mod template;
mod term;

use std::process::ExitCode;

use args::{CdiCommand, Command, ConfigCommand, ContainerCommand, ImageCommand, Stop, SystemCommand};
use failure::Failure;

/// The whole program: parses, acts, prints, and says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    crate::sys::process::report_file_size_limits();
    let words =
        task::with_beginning(std::env::args_os().collect(), env::task().as_deref(), std::process::id());
    let arguments = match args::parse(words) {
        Ok(arguments) => arguments,
        Err(Stop::Text(text)) => return end(term::print(&text), true),
        Err(Stop::Usage(text)) => {
            term::complain(&text);
            return ExitCode::from(Failure::quiet_own().code(true));
        }
    };
    let is_run = arguments.command.is_run();
    end(act(&arguments.command), is_run)
}

fn act(command: &Command) -> Result<(), Failure> {
    let session = cmd::Session::open(env::read())?;
    match command {
        Command::Run(args) => cmd::run::run(args, &session),
        Command::OfContainer(verb) => cmd::containers::run(verb, &session),
        Command::Container(args) => match &args.command {
            ContainerCommand::Verb(verb) => cmd::containers::run(verb, &session),
            ContainerCommand::Run(args) => cmd::run::run(args, &session),
            ContainerCommand::Inspect(args) => {
                cmd::inspect::run(args, cmd::inspect::Kind::Container, &session)
            }
            ContainerCommand::Prune(args) => cmd::prune::containers(args, &session),
        },
        Command::Shell(args) => cmd::shell::run(args, &session),
        Command::Import(args) => cmd::import::run(args, &session),
        Command::Pull(args) => cmd::pull::run(args, &session),
        Command::Load(args) => cmd::load::run(args, &session),
        Command::Convert(args) => cmd::convert::run(args, &session),
        Command::Images(args) => cmd::images::run(args, &session),
        Command::Image(args) => match &args.command {
            ImageCommand::Check(args) => cmd::image::check(args, &session),
            ImageCommand::Ls(args) => cmd::images::run(args, &session),
            ImageCommand::Rm(args) => cmd::rmi::run(args, &session),
            ImageCommand::Inspect(args) => cmd::inspect::run(args, cmd::inspect::Kind::Image, &session),
            ImageCommand::History(args) => cmd::history::run(args, &session),
            ImageCommand::Tag(args) => cmd::tag::run(args, &session),
            ImageCommand::Pull(args) => cmd::pull::run(args, &session),
            ImageCommand::Push(args) => cmd::push::run(args, &session),
            ImageCommand::Save(args) => cmd::save::run(args, &session),
            ImageCommand::Load(args) => cmd::load::run(args, &session),
            ImageCommand::Prune(args) => cmd::prune::images(args, &session),
        },
        Command::Rmi(args) => cmd::rmi::run(args, &session),
        Command::Tag(args) => cmd::tag::run(args, &session),
        Command::History(args) => cmd::history::run(args, &session),
        Command::Inspect(args) => cmd::inspect::run(args, cmd::inspect::Kind::Any, &session),
        Command::Push(args) => cmd::push::run(args, &session),
        Command::Save(args) => cmd::save::run(args, &session),
        Command::Login(args) => cmd::login::login(args, &session),
        Command::Logout(args) => cmd::login::logout(args, &session),
        Command::Volume(args) => cmd::volume::run(&args.command, &session),
        Command::System(args) => match &args.command {
            SystemCommand::Df(args) => cmd::prune::df(args, &session),
            SystemCommand::Prune(args) => cmd::prune::system(args, &session),
            SystemCommand::Info(args) => cmd::info::run(args, &session),
        },
        Command::Info(args) => cmd::info::run(args, &session),
        Command::Sbatch(args) => cmd::sbatch::run(args, &session),
        Command::Gpus(args) => cmd::gpus::run(args, &session),
        Command::Doctor(args) => cmd::doctor::run(args, &session),
        Command::Cdi(args) => match &args.command {
            CdiCommand::List(args) => cmd::cdi::list(args, &session),
            CdiCommand::Check(args) => cmd::cdi::check(args, &session),
            CdiCommand::Generate(args) => cmd::cdi::generate(args, &session),
        },
        Command::Config(args) => match &args.command {
            ConfigCommand::Show => cmd::config::show(&session),
            ConfigCommand::Explain(args) => cmd::config::explain(args, &session),
        },
    }
}

fn end(result: Result<(), Failure>, is_run: bool) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            term::complain(&failure);
            ExitCode::from(failure.code(is_run))
        }
    }
}
