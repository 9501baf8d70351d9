//! `cp`, `diff` and `export`: the files of a container.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::image::Image;
use crate::runtime::{self, ChangeKind, Container, Place};
use crate::squashfs::read::Reader;

use super::super::Session;
use super::super::run::Prepared;
use super::{shelf, start};
use crate::cli::args::{CpArgs, DiffArgs, ExportArgs};
use crate::cli::failure::Failure;
use crate::cli::term;

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Side<'a> {
    Container(&'a str, &'a str),
    Host(&'a Path),
    Stream,
}

impl<'a> Side<'a> {
    /// docker's rule: what begins with `/` or `.` is this host's, and so is what has no `:`.
    fn parse(text: &'a OsStr) -> Result<Self, Failure> {
        let host = Self::Host(Path::new(text));
        if text == "-" {
            return Ok(Self::Stream);
        }
        if text.is_empty() || matches!(text.as_bytes().first(), Some(b'/' | b'.')) {
            return Ok(host);
        }
        let Some(text) = text.to_str() else {
            if text.as_bytes().contains(&b':') {
                return Err(Failure::new(
                    format!("the path `{}` of a container is not UTF-8", text.to_string_lossy()),
                    "copy the directory above it",
                ));
            }
            return Ok(host);
        };
        Ok(match text.split_once(':') {
            Some((container, path)) if !container.is_empty() => Self::Container(container, path),
            _ => host,
        })
    }
}

/// Copies. Nothing is printed, as with docker.
pub(super) fn cp(args: &CpArgs, session: &Session) -> Result<(), Failure> {
    let usage = |message: &str| {
        Err(Failure::new(message, "write `slipway cp CONTAINER:PATH PATH` or the other way round"))
    };
    match (Side::parse(&args.source)?, Side::parse(&args.target)?) {
        (Side::Container(..), Side::Container(..)) => usage("copying between containers is not supported"),
        (Side::Container(word, from), Side::Host(to)) => {
            let to = absolute(to)?;
            within(word, session, |place| Ok(runtime::copy_out(place, from, args.follow_link, &to)?))
        }
        (Side::Container(word, from), Side::Stream) => {
            if term::output_is_terminal() {
                return Err(Failure::new(
                    "cannot write a tar to a terminal",
                    "write it to a file with `> FILE`, or read it with `| tar`",
                ));
            }
            within(word, session, |place| {
                Ok(runtime::copy_out_tar(place, from, args.follow_link, &mut term::raw_output())?)
            })
        }
        (Side::Host(from), Side::Container(word, to)) => {
            let from = absolute(from)?;
            within(word, session, |place| Ok(runtime::copy_in(place, &from, args.follow_link, to)?))
        }
        (Side::Stream, Side::Container(word, to)) => {
            within(word, session, |place| Ok(runtime::copy_in_tar(place, &mut std::io::stdin().lock(), to)?))
        }
        _ => usage("must specify at least one container source"),
    }
}

/// A stopped container is built anew in the directory where it was made, so that a path must not depend on this one. What
/// ends with `/` or `/.` keeps that: it means something.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let here = std::env::current_dir()
        .map_err(|error| Failure::new(format!("the current directory cannot be named: {error}"), None))?;
    let mut text = here.into_os_string();
    if path.is_absolute() {
        text.clear();
    } else {
        text.push("/");
    }
    text.push(path);
    Ok(text.into())
}

/// Does something with the files of a container, whether it runs or not.
fn within(
    word: &str,
    session: &Session,
    work: impl FnOnce(&Place<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut container = shelf(session).find(word)?;
    if container.is_running() {
        return work(&Place { container: &container, anew: None });
    }
    let _held = container.hold()?;
    let prepared: Prepared = start::prepare_again(&mut container, session)?.0;
    let plan = prepared.plan.for_visit();
    work(&Place { container: &container, anew: Some((&plan, prepared.context())) })
}

/// Writes the whole root as a tar.
pub(super) fn export(args: &ExportArgs, session: &Session) -> Result<(), Failure> {
    let Some(path) = &args.output else {
        if term::output_is_terminal() {
            return Err(Failure::new("cannot write a tar to a terminal", "name a file with `-o`"));
        }
        return within(&args.container, session, |place| {
            Ok(runtime::export(place, &mut term::raw_output())?)
        });
    };
    let path = absolute(path)?;
    let failed =
        |error: std::io::Error| Failure::new(format!("cannot write `{}`: {error}", path.display()), None);
    let partial = path.with_extension(format!("slipway-{}.tmp", std::process::id()));
    let result = within(&args.container, session, |place| {
        let mut file = std::io::BufWriter::new(std::fs::File::create(&partial).map_err(failed)?);
        runtime::export(place, &mut file)?;
        file.flush().map_err(failed)?;
        std::fs::rename(&partial, &path).map_err(failed)
    });
    if result.is_err() {
        // It may not have been made; the error itself says what was wrong.
        let _ = std::fs::remove_file(&partial);
    }
    result
}

/// Lists what a container has changed.
pub(super) fn diff(args: &DiffArgs, session: &Session) -> Result<(), Failure> {
    let container = shelf(session).find(&args.container)?;
    let image = Image::open(&container.record.image_path)?;
    let reader = Reader::open(image.partition())?;
    let mut text = String::new();
    for change in runtime::changes(&container, &reader)? {
        let letter = match change.kind {
            ChangeKind::Added => 'A',
            ChangeKind::Changed => 'C',
            ChangeKind::Deleted => 'D',
        };
        writeln!(text, "{letter} {}", change.path.to_string_lossy())
            .expect("writing to a String cannot fail");
    }
    term::print(&text)
}

/// The processes of a container, held still while it lives.
#[derive(Debug)]
pub(super) struct Stopped {
    pids: Vec<i32>,
}

impl Stopped {
    pub(super) fn new(container: &Container) -> Self {
        let pids = container.processes();
        for pid in &pids {
            // It has just ended.
            let _ = runtime::stop_process(*pid);
        }
        Self { pids }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for pid in &self.pids {
            // It has just ended.
            let _ = runtime::go_on(*pid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_as_docker_does() {
        for (text, expected) in [
            ("-", Side::Stream),
            ("web:/etc", Side::Container("web", "/etc")),
            ("web:", Side::Container("web", "")),
            ("./web:x", Side::Host(Path::new("./web:x"))),
            ("/a:b", Side::Host(Path::new("/a:b"))),
            (":x", Side::Host(Path::new(":x"))),
            ("file", Side::Host(Path::new("file"))),
        ] {
            assert_eq!(Side::parse(OsStr::new(text)).unwrap(), expected, "{text}");
        }
    }
}
