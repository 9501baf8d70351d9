//! Flags of the verbs that deal with images and registries.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ListingArgs, LoadArgs, PruneArgs, PullArgs};

/// Flags of `images`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ImagesArgs {
    /// Print JSON: one array
    #[arg(long, conflicts_with_all = ["quiet", "format"])]
    pub(in crate::cli) json: bool,
    /// Show all images; always so
    #[arg(short = 'a', long)]
    pub(in crate::cli) all: bool,
    /// Show digests
    #[arg(long)]
    pub(in crate::cli) digests: bool,
    /// Show only: reference=PATTERN, dangling=true|false, label=KEY[=VALUE], before=IMAGE, since=IMAGE (can be repeated)
    #[arg(short = 'f', long = "filter", value_name = "FILTER")]
    pub(in crate::cli) filter: Vec<String>,
    /// How it is printed.
    #[command(flatten)]
    pub(in crate::cli) listing: ListingArgs,
    /// Show only this repository or name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub(in crate::cli) name: Option<String>,
}

/// Flags of `image`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ImageArgs {
    /// What to do with images.
    #[command(subcommand)]
    pub(in crate::cli) command: ImageCommand,
}

/// The verbs of `image`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ImageCommand {
    /// Read every block and structure of an image and name what is wrong
    Check(CheckArgs),
    /// List the images of the store
    #[command(alias = "list")]
    Ls(ImagesArgs),
    /// Remove images, or names of images
    #[command(alias = "remove")]
    Rm(RmiArgs),
    /// Show everything that is known of images
    Inspect(InspectArgs),
    /// Show how an image was made
    History(HistoryArgs),
    /// Give an image a further name
    Tag(TagArgs),
    /// Download an image and make it ready to run
    Pull(PullArgs),
    /// Upload an image to a registry
    Push(PushArgs),
    /// Write images to an archive
    Save(SaveArgs),
    /// Take images from a `docker save` archive
    Load(LoadArgs),
    /// Remove images without a name, or all that no container has
    Prune(PruneArgs),
}

/// Flags of `image check`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CheckArgs {
    /// A .sif or squashfs file, or an image of the store
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: OsString,
}

/// Flags of `rmi`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RmiArgs {
    /// Remove an image with all its names
    #[arg(short = 'f', long)]
    pub(in crate::cli) force: bool,
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "IMAGE")]
    pub(in crate::cli) images: Vec<String>,
}

/// Flags of `tag`.
#[derive(Debug, Args)]
pub(in crate::cli) struct TagArgs {
    /// Name or id
    #[arg(value_name = "SOURCE")]
    pub(in crate::cli) source: String,
    /// The further name
    #[arg(value_name = "TARGET")]
    pub(in crate::cli) target: String,
}

/// Flags of `history`.
#[derive(Debug, Args)]
pub(in crate::cli) struct HistoryArgs {
    /// Print sizes and dates for people
    #[arg(short = 'H', long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(in crate::cli) human: bool,
    /// How it is printed.
    #[command(flatten)]
    pub(in crate::cli) listing: ListingArgs,
    /// Name or id
    #[arg(value_name = "IMAGE")]
    pub(in crate::cli) image: String,
}

/// Flags of `inspect`.
#[derive(Debug, Args)]
pub(in crate::cli) struct InspectArgs {
    /// Take the names as those of: container or image
    #[arg(long = "type", value_name = "KIND", value_parser = ["container", "image"])]
    pub(in crate::cli) kind: Option<String>,
    /// Show sizes too; those of images are always shown
    #[arg(short = 's', long)]
    pub(in crate::cli) size: bool,
    /// Print by a Go template or `json`
    #[arg(short = 'f', long, value_name = "FORMAT")]
    pub(in crate::cli) format: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    pub(in crate::cli) images: Vec<String>,
}

/// Flags of `save`.
#[derive(Debug, Args)]
pub(in crate::cli) struct SaveArgs {
    /// Write to a file instead of standard output
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    pub(in crate::cli) output: Option<PathBuf>,
    /// Names or ids; a name without a tag means all tags
    #[arg(required = true, value_name = "IMAGE")]
    pub(in crate::cli) images: Vec<String>,
}

/// Flags of `push`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PushArgs {
    /// Push all tags of the repository
    #[arg(short = 'a', long)]
    pub(in crate::cli) all_tags: bool,
    /// Print only the image's name
    #[arg(short = 'q', long)]
    pub(in crate::cli) quiet: bool,
    /// Write the digest of the pushed manifest to a file
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) digestfile: Option<PathBuf>,
    /// Name with the registry, and without a tag for --all-tags
    #[arg(value_name = "NAME")]
    pub(in crate::cli) name: String,
}

/// Flags of `login`.
#[derive(Debug, Args)]
pub(in crate::cli) struct LoginArgs {
    /// User name
    #[arg(short = 'u', long, value_name = "NAME")]
    pub(in crate::cli) username: Option<String>,
    /// Password or token; every user of the machine can see it, so use --password-stdin
    #[arg(short = 'p', long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub(in crate::cli) password: Option<Hidden>,
    /// Read the password from standard input
    #[arg(long)]
    pub(in crate::cli) password_stdin: bool,
    /// Registry; Docker Hub if not said
    #[arg(value_name = "SERVER", default_value = "", hide_default_value = true)]
    pub(in crate::cli) server: String,
}

/// Flags of `logout`.
#[derive(Debug, Args)]
pub(in crate::cli) struct LogoutArgs {
    /// Registry; Docker Hub if not said
    #[arg(value_name = "SERVER", default_value = "", hide_default_value = true)]
    pub(in crate::cli) server: String,
}

/// A word of the command line that must not be seen again.
#[derive(Clone)]
pub(in crate::cli) struct Hidden(pub(in crate::cli) String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hidden(…)")
    }
}

impl From<&str> for Hidden {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}
