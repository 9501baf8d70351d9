//! `slipway shell`: an interactive shell of an image, or the host's where it has none.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::Path;

use crate::base::RelPath;
use crate::image::Image;
use crate::squashfs::read::Reader;

use super::{Session, locate, run};
use crate::cli::args::{self, Command, PullWhen, RunArgs};
use crate::cli::failure::Failure;
use crate::cli::term;

/// Shells of images, the best first.
const SHELLS: [&str; 6] = ["/bin/bash", "/usr/bin/bash", "/bin/sh", "/usr/bin/sh", "/bin/ash", "/busybox/sh"];
/// Programs of this host that are a shell without anything else.
const STATIC_SHELLS: [&str; 4] = ["/bin/busybox", "/usr/bin/busybox", "/bin/sash", "/bin/bash-static"];
/// Where such a program is shown inside.
const PLACE: &str = "/.slipway-shell";
/// What tells whether a program needs a loader, in bytes.
const HEAD_BYTES: u64 = 4096;

/// Becomes the shell, or says why not.
pub(in crate::cli) fn run(args: &RunArgs, session: &Session) -> Result<(), Failure> {
    let [word] = args.words.as_slice() else {
        return Err(Failure::new(
            "a shell takes an image and nothing behind it",
            "to run a command, use `slipway run IMAGE COMMAND`",
        ));
    };
    let path = locate::run_file(word, session, PullWhen::Missing, None)?;
    let image = Image::open(&path)?;
    let reader = Reader::open(image.partition())?;
    let has = |shell: &str| {
        let path = RelPath::parse(shell.trim_start_matches('/').as_bytes()).ok();
        path.and_then(|path| reader.resolve(&path, true).ok()).flatten().is_some_and(|inode| inode.is_file())
    };
    let mut line: Vec<OsString> = vec!["slipway".into(), "run".into(), "-it".into()];
    let mut behind: Vec<OsString> = Vec::new();
    if let Some(shell) = SHELLS.iter().find(|shell| has(shell)) {
        line.extend(["--entrypoint".into(), shell.into()]);
    } else {
        let host = STATIC_SHELLS.iter().find(|path| is_static(Path::new(path))).ok_or_else(|| {
            Failure::new(
                format!("`{}` has no shell, and this host has no static one", word.to_string_lossy()),
                "install the package `busybox-static`, or run a command of the image",
            )
        })?;
        term::note(&format_args!("note: the image has no shell: this is `{host}` of the host"));
        let mount = format!("type=bind,source={host},target={PLACE},readonly");
        line.extend(["--mount".into(), mount.into(), "--entrypoint".into(), PLACE.into()]);
        if host.ends_with("busybox") {
            behind.push("sh".into());
        }
    }
    // Flags as they were typed; the verb is the first word that is one, and only once.
    line.extend(std::env::args_os().skip(2));
    line.extend(behind);
    let parsed = args::parse(line).map_err(|_| {
        Failure::new("the flags of the shell do not fit together", "leave `--entrypoint` out")
    })?;
    match &parsed.command {
        Command::Run(args) => run::run(args, session),
        _ => Err(Failure::new("the flags of the shell do not fit together", None)),
    }
}

/// A program that needs no loader and no library of the host.
fn is_static(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head));
    read.is_ok() && crate::elf::machine(&head).is_some() && crate::elf::interpreter(&head).is_none()
}
