//! The command line as data: flags with Docker's names, and Apptainer's where they do not clash.

mod apart;
mod cdi;
mod containers;
mod files;
mod gpus;
mod images;
mod isolation;
mod leftover;
mod listing;
mod processes;
mod prune;
mod resources;
mod sbatch;
mod volumes;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use crate::squashfs::compress::Compressor;

use listing::ListingArgs;
pub(super) use prune::{ContainerPruneArgs, DfArgs, PruneArgs, SystemArgs, SystemCommand};

pub(super) use cdi::{CdiArgs, CdiCheckArgs, CdiCommand, CdiFormat, CdiGenerateArgs, CdiListArgs};
pub(super) use containers::{
    AttachArgs, ContainerArgs, ContainerCommand, ContainerVerb, ExecArgs, KeepArgs, LogsArgs, PsArgs,
    StartArgs, StopArgs,
};
pub(super) use files::{CommitArgs, CpArgs, DiffArgs, ExportArgs, ImportArgs, StatsArgs, UpdateArgs};
pub(super) use gpus::{DoctorArgs, GpusArgs};
pub(super) use processes::ProcessArgs;

pub(super) use images::{
    CheckArgs, HistoryArgs, ImageArgs, ImageCommand, ImagesArgs, InspectArgs, LoginArgs, LogoutArgs,
    PushArgs, RmiArgs, SaveArgs, TagArgs,
};
pub(super) use isolation::{FilesArgs, IsolationArgs, PullWhen};
pub(super) use leftover::LeftoverArgs;
pub(super) use resources::ResourceArgs;
pub(super) use sbatch::SbatchArgs;
pub(super) use volumes::{VolumeArgs, VolumeCommand, VolumeCreateArgs, VolumeLsArgs, VolumePruneArgs};

/// Everything that was typed.
#[derive(Debug, Parser)]
#[command(
    name = "slipway",
    version,
    about = "Take a Docker image to a running job, without root",
    max_term_width = 100
)]
pub(super) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a command in an image
    #[command(disable_help_flag = true)]
    Run(Box<RunArgs>),
    /// A verb for containers.
    #[command(flatten)]
    OfContainer(ContainerVerb),
    /// Manage containers
    Container(ContainerArgs),
    /// Run a shell of an image, or the host's where it has none
    #[command(disable_help_flag = true)]
    Shell(Box<RunArgs>),
    /// Make an image from a tar of a root
    Import(ImportArgs),
    /// Download an image and make it ready to run
    Pull(PullArgs),
    /// Take images from a `docker save` archive
    Load(LoadArgs),
    /// Make a .sif file from an image
    Convert(ConvertArgs),
    /// List the images of the store
    Images(ImagesArgs),
    /// Manage images
    Image(ImageArgs),
    /// Remove images, or names of images
    Rmi(RmiArgs),
    /// Give an image a further name
    Tag(TagArgs),
    /// Show how an image was made
    History(HistoryArgs),
    /// Show everything that is known of images
    Inspect(InspectArgs),
    /// Upload an image to a registry
    Push(PushArgs),
    /// Write images to an archive
    Save(SaveArgs),
    /// Manage volumes
    Volume(VolumeArgs),
    /// Log in to a registry
    Login(LoginArgs),
    /// Log out of a registry
    Logout(LogoutArgs),
    /// Print or submit a job script for a command in an image
    Sbatch(SbatchArgs),
    /// Show this node's GPUs
    Gpus(GpusArgs),
    /// Record this node's GPUs, for a report or a test
    Doctor(DoctorArgs),
    /// Look at and write CDI specifications
    Cdi(CdiArgs),
    /// Show what this machine offers and where the store is
    Info(InfoArgs),
    /// Look at disk space and win it back
    System(SystemArgs),
    /// Show the configuration and where each value comes from
    Config(ConfigArgs),
}

impl Command {
    /// Whether a failure of ours must not look like one of the workload.
    pub(super) fn is_run(&self) -> bool {
        match self {
            Self::Run(_) | Self::Shell(_) => true,
            Self::Container(args) => matches!(args.command, ContainerCommand::Run(_)),
            _ => false,
        }
    }
}

/// Flags of `run`.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Bind a host path: SOURCE:TARGET[:ro] (can be repeated)
    #[arg(short = 'v', long = "volume", value_name = "SOURCE:TARGET[:OPTIONS]")]
    pub(super) volume: Vec<OsString>,
    /// Bind host paths, as Apptainer writes them: SOURCE[:TARGET[:OPTIONS]][,…] (can be repeated)
    #[arg(short = 'B', long = "bind", value_name = "SOURCE[:TARGET[:OPTIONS]]")]
    pub(super) bind: Vec<OsString>,
    /// Set a variable, or with the name alone take the caller's (can be repeated)
    #[arg(short = 'e', long = "env", value_name = "NAME[=VALUE]")]
    pub(super) env: Vec<OsString>,
    /// Read variables from a file of NAME=value lines (can be repeated)
    #[arg(long, value_name = "FILE")]
    pub(super) env_file: Vec<PathBuf>,
    /// Keep the caller's environment out
    #[arg(long, alias = "clean-env")]
    pub(super) cleanenv: bool,
    /// Mount a host path or memory: type=bind|tmpfs,source=PATH,target=PATH[,readonly] (can be repeated)
    #[arg(long, value_name = "FIELDS")]
    pub(super) mount: Vec<String>,
    /// Mount memory: TARGET[:size=…,mode=…] (can be repeated)
    #[arg(long, value_name = "TARGET[:OPTIONS]")]
    pub(super) tmpfs: Vec<String>,
    /// Leave the home directory out
    #[arg(long)]
    pub(super) no_home: bool,
    /// Leave home, current directory and the host's /tmp out; /tmp and /var/tmp are memory
    #[arg(short = 'C', long = "contain", visible_alias = "containall")]
    pub(super) contain: bool,
    /// Be another user inside, which outside is the caller: USER[:GROUP] by name or number
    #[arg(short = 'u', long, value_name = "USER[:GROUP]")]
    pub(super) user: Option<String>,
    /// Be root inside, as Apptainer spells it
    #[arg(short = 'f', long, conflicts_with = "user")]
    pub(super) fakeroot: bool,
    /// Let the root be written to; changes are in memory and go with the container
    #[arg(long, visible_alias = "writable", conflicts_with = "read_only")]
    pub(super) writable_tmpfs: bool,
    /// Let the root be written to; changes are kept in this directory
    #[arg(long, value_name = "DIRECTORY", conflicts_with_all = ["read_only", "writable_tmpfs"])]
    pub(super) overlay: Option<PathBuf>,
    /// Keep the root read-only; the default
    #[arg(long)]
    pub(super) read_only: bool,
    /// Choose the network: host or none
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    pub(super) network: Option<String>,
    /// Name the host inside
    #[arg(short = 'h', long, value_name = "NAME")]
    pub(super) hostname: Option<String>,
    /// Limit a resource: NAME=SOFT[:HARD], as nofile=1024:4096 (can be repeated)
    #[arg(long, value_name = "LIMIT")]
    pub(super) ulimit: Vec<String>,
    /// Limits by a control group.
    #[command(flatten)]
    pub(super) resources: ResourceArgs,
    /// What separates it from the host.
    #[command(flatten)]
    pub(super) isolation: IsolationArgs,
    /// Files, and the image.
    #[command(flatten)]
    pub(super) files: FilesArgs,
    /// Flags without an effect of their own.
    #[command(flatten)]
    pub(super) leftovers: LeftoverArgs,
    /// Set the working directory
    #[arg(short = 'w', long = "workdir", visible_aliases = ["pwd", "cwd"], value_name = "PATH")]
    pub(super) workdir: Option<PathBuf>,
    /// Replace the image's ENTRYPOINT; an empty text removes it
    #[arg(long, value_name = "COMMAND")]
    pub(super) entrypoint: Option<OsString>,
    /// Choose GPUs: job, all, none, a number, or device=LIST
    #[arg(long, value_name = "GPUS", conflicts_with = "nv")]
    pub(super) gpus: Option<String>,
    /// Give the GPUs that the job owns, as Apptainer spells it; the same as the default
    #[arg(long, visible_alias = "rocm")]
    pub(super) nv: bool,
    /// Give no GPUs, as Apptainer spells it
    #[arg(long, alias = "no-rocm", hide = true, conflicts_with_all = ["nv", "gpus"])]
    pub(super) no_nv: bool,
    /// Start an image on a driver that is older than it asks for (`NVIDIA_REQUIRE_CUDA`)
    #[arg(long)]
    pub(super) ignore_require: bool,
    /// Give no nodes of RDMA with the GPUs (InfiniBand verbs, GDRCopy, GPUDirect Storage)
    #[arg(long)]
    pub(super) no_rdma: bool,
    /// Remove the container when it ends; always so without `-d`
    #[arg(long)]
    pub(super) rm: bool,
    /// Keep standard input open; always so
    #[arg(short = 'i', long)]
    pub(super) interactive: bool,
    /// Use a terminal; the caller's is used whenever there is one
    #[arg(short = 't', long)]
    pub(super) tty: bool,
    /// The container as a thing with a name.
    #[command(flatten)]
    pub(super) keep: KeepArgs,
    /// Choose how the image becomes the root; the default serves it where that works, else unpacks it
    #[arg(long, value_name = "HOW", value_enum)]
    pub(super) rootfs: Option<RootFsChoice>,
    /// Record anew which blocks of the image this start reads, for the next start of the same command
    #[arg(long)]
    pub(super) record_hot: bool,
    /// Share no user namespace and no mount of the image with other containers of this job
    #[arg(long)]
    pub(super) no_join: bool,
    /// Print the steps of the launch and run nothing
    #[arg(long)]
    pub(super) plan: bool,
    /// Print the plan, or the explanation, as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub(super) help: Option<bool>,
    /// Image name or .sif file, then the command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "IMAGE [COMMAND]"
    )]
    pub(super) words: Vec<OsString>,
}

/// How an image becomes the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum RootFsChoice {
    /// Served where /dev/fuse can be opened, else unpacked
    Auto,
    /// Served by our own file server
    Fuse,
    /// Unpacked to a directory of this node
    Unpack,
}

/// Flags of every verb that makes a run file.
#[derive(Debug, Args)]
pub(super) struct ConversionArgs {
    /// Compress with zstd:1 to zstd:19, gzip:1 to gzip:9, lz4, or none
    #[arg(long, value_name = "NAME[:LEVEL]")]
    pub(super) compression: Option<Compressor>,
    /// How progress is shown.
    #[command(flatten)]
    pub(super) progress: ProgressArgs,
}

/// Flags of every verb that takes long.
#[derive(Debug, Args)]
pub(super) struct ProgressArgs {
    /// Show progress as bars (tty), lines (plain) or one JSON object a line (json)
    #[arg(long, value_name = "STYLE", value_enum, default_value = "auto")]
    pub(super) progress: ProgressStyle,
    /// Print only the result
    #[arg(short = 'q', long)]
    pub(super) quiet: bool,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ProgressStyle {
    /// Bars on a terminal, lines elsewhere
    Auto,
    /// Bars
    Tty,
    /// Lines
    Plain,
    /// JSON
    Json,
}

/// Flags of `pull`.
#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// Choose the platform: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    pub(super) platform: Option<String>,
    /// How the run file is made.
    #[command(flatten)]
    pub(super) conversion: ConversionArgs,
    /// Pull all tags of the repository
    #[arg(short = 'a', long)]
    pub(super) all_tags: bool,
    /// Further tries after a failure that may pass
    #[arg(long, value_name = "COUNT")]
    pub(super) retry: Option<u32>,
    /// Image name, as on Docker Hub: python, user/repo:tag, host/repo@sha256:…
    #[arg(value_name = "NAME")]
    pub(super) name: String,
}

/// Flags of `load`.
#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// Read from a file instead of standard input
    #[arg(short = 'i', long = "input", value_name = "FILE")]
    pub(super) input: Option<PathBuf>,
    /// How the run files are made.
    #[command(flatten)]
    pub(super) conversion: ConversionArgs,
}

/// Flags of `convert`.
#[derive(Debug, Args)]
pub(super) struct ConvertArgs {
    /// Choose the platform where the source has several: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    pub(super) platform: Option<String>,
    /// Replace the target if it exists
    #[arg(short = 'F', long)]
    pub(super) force: bool,
    /// How the file is made.
    #[command(flatten)]
    pub(super) conversion: ConversionArgs,
    /// Lay a .sif or squashfs file, or an image of the store, out anew: what a start reads first and side by side
    #[arg(long, conflicts_with_all = ["platform", "compression"])]
    pub(super) optimize: bool,
    /// Optimize for the start that this list was recorded of; else for all recorded ones (can be repeated)
    #[arg(long, value_name = "FILE", requires = "optimize")]
    pub(super) hot: Vec<PathBuf>,
    /// Give a bundle a CDI device: VENDOR/CLASS=NAME (can be repeated)
    #[arg(long, value_name = "DEVICE", conflicts_with = "optimize")]
    pub(super) device: Vec<String>,
    /// Where the image is: docker-archive:FILE, oci:DIR[:TAG], docker://NAME; for a bundle also a .sif or a name
    #[arg(value_name = "SOURCE")]
    pub(super) source: String,
    /// What to make: PATH.sif, or bundle:DIRECTORY for an OCI bundle
    #[arg(value_name = "TARGET")]
    pub(super) target: PathBuf,
}

/// Flags of `info`.
#[derive(Debug, Args)]
pub(super) struct InfoArgs {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Flags of `config`.
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    /// What to do with the configuration.
    #[command(subcommand)]
    pub(super) command: ConfigCommand,
}

/// The verbs of `config`.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print every value and where it comes from
    Show,
    /// Print one value, and every place that sets it
    Explain(ExplainArgs),
}

/// Flags of `config explain`.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The node it is for; this one if not given
    #[arg(long, value_name = "NAME")]
    pub(super) node: Option<String>,
    /// The partition it is for; the job's if not given
    #[arg(long, value_name = "NAME")]
    pub(super) partition: Option<String>,
    /// The key: run.binds
    #[arg(value_name = "KEY")]
    pub(super) key: String,
}

/// How parsing ended without arguments to act on.
#[derive(Debug)]
pub(super) enum Stop {
    /// `--help` or `--version`: this text belongs on standard output.
    Text(String),
    /// The words are wrong: the text says how.
    Usage(String),
}

/// The flags of one verb, for those that a job may start thousands of times: to build the flags of every verb takes longer
/// than to read those of one. `None` where help is asked for or a word is wrong: that comes from the whole.
fn alone<A: Args>(words: &[OsString]) -> Option<A> {
    let verb = A::augment_args(clap::Command::new("slipway").disable_help_flag(true));
    let words = apart::set_apart(&verb, words.to_vec());
    let matches = verb.try_get_matches_from(words).ok()?;
    A::from_arg_matches(&matches).ok()
}

/// Parses the words of the command line, the program's name first.
pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Arguments, Stop> {
    let words: Vec<OsString> = words.into_iter().collect();
    let own = words.get(1..).unwrap_or_default();
    let command = match words.get(1).and_then(|verb| verb.to_str()) {
        Some("run") => alone(own).map(Command::Run),
        Some("exec") => alone(own).map(ContainerVerb::Exec).map(Command::OfContainer),
        Some("ps") => alone(own).map(ContainerVerb::Ps).map(Command::OfContainer),
        Some("start") => alone(own).map(ContainerVerb::Start).map(Command::OfContainer),
        Some("stop") => alone(own).map(ContainerVerb::Stop).map(Command::OfContainer),
        Some("rm") => alone(own).map(ContainerVerb::Rm).map(Command::OfContainer),
        _ => None,
    };
    if let Some(command) = command {
        return Ok(Arguments { command });
    }
    let command = Arguments::command();
    let words = apart::set_apart(&command, words);
    let parsed =
        command.try_get_matches_from(words).and_then(|matches| Arguments::from_arg_matches(&matches));
    parsed.map_err(|error| {
        let text = error.render().to_string();
        if error.use_stderr() { Stop::Usage(text) } else { Stop::Text(text) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn words_behind_the_image_are_the_commands_own() {
        let line = ["slipway", "run", "-e", "A=1", "img", "ls", "-e", "--plan", "--", "-v"];
        let parsed = parse(line.map(OsString::from)).unwrap();
        let Command::Run(run) = parsed.command else { panic!() };
        assert_eq!(run.env, ["A=1"]);
        assert_eq!(run.words, ["img", "ls", "-e", "--plan", "--", "-v"]);
        assert!(!run.plan);
        let parsed = parse(["slipway", "run", "img", "-l"].map(OsString::from)).unwrap();
        let Command::Run(run) = parsed.command else { panic!() };
        assert_eq!(run.words, ["img", "-l"]);
    }

    #[test]
    fn usage_errors_and_help_are_told_apart() {
        assert!(matches!(parse(["slipway", "run"].map(OsString::from)), Err(Stop::Usage(_))));
        assert!(matches!(parse(["slipway", "--help"].map(OsString::from)), Err(Stop::Text(_))));
    }
}
