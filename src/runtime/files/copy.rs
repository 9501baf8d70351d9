//! `cp` in all its directions, and `export`.

use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::super::error::RuntimeError;
use super::CopyError;
use super::inside::{Inside, Outside, Pipe, Place, Word};
use super::pack::{LastLink, Owner, Packer, Packing, Source};
use super::unpack::{self, Head, Names, Target};

/// The root's name in an archive between our own processes.
const ROOT: &[u8] = b"root";
/// Bytes that are gathered before they go through a pipe.
const BUFFER_BYTES: usize = 64 << 10;
/// What travels between a container and the host: as docker has it, without attributes.
const PACKING: Packing = Packing { owner: Owner::Own, one_mount: false, xattrs: false };
const HOST: &str = "this host";

/// Copies from a container to a path of this host.
pub fn copy_out(place: &Place<'_>, from: &str, follow: bool, to: &Path) -> Result<(), RuntimeError> {
    let (inside, mut data) = pack_inside(place, from, follow, Rename::ToRoot)?;
    let head = head(&inside)?;
    let target = Target::find(to, &head, HOST)?;
    let unpacked = unpack::unpack(&mut data, &target, Names::Rooted);
    finish(inside, data, unpacked)
}

/// Writes what is at a path of a container as a tar.
pub fn copy_out_tar(
    place: &Place<'_>,
    from: &str,
    follow: bool,
    out: &mut dyn Write,
) -> Result<(), RuntimeError> {
    let (inside, mut data) = pack_inside(place, from, follow, Rename::ToBase)?;
    head(&inside)?;
    let copied =
        io::copy(&mut data, out).and_then(|_| out.flush()).map_err(|error| CopyError::stream(&error));
    finish(inside, data, copied)
}

/// Copies from a path of this host into a container.
pub fn copy_in(place: &Place<'_>, from: &Path, follow: bool, to: &str) -> Result<(), RuntimeError> {
    let last = if follow { LastLink::Follow } else { LastLink::Keep };
    let source = Source::find(from, last, HOST)?;
    let head = Head { is_directory: source.is_directory, base: source.base.clone() };
    let (inside, writer) = unpack_inside(place, to, Some(head))?;
    let mut packer = Packer::new(BufWriter::with_capacity(BUFFER_BYTES, writer), PACKING);
    let packed = packer.pack(&source, ROOT).and_then(|()| packer.finish());
    // What the child says is the cause where the pipe broke.
    inside.finish().and(packed).map_err(RuntimeError::from)
}

/// Unpacks a tar into a directory of a container.
pub fn copy_in_tar(place: &Place<'_>, stream: &mut dyn Read, to: &str) -> Result<(), RuntimeError> {
    let (inside, mut writer) = unpack_inside(place, to, None)?;
    let copied = io::copy(stream, &mut writer).map(drop).map_err(|error| CopyError::stream(&error));
    drop(writer);
    inside.finish().and(copied).map_err(RuntimeError::from)
}

/// Writes the whole root of a container as a tar, without what is mounted in it.
pub fn export(place: &Place<'_>, out: &mut dyn Write) -> Result<(), RuntimeError> {
    let mut pipe = Pipe::new()?;
    let inside = place.enter(|outside| {
        drop(pipe.reader.take());
        let source = Source::find(Path::new("/"), LastLink::Keep, "the container")?;
        outside.say(&Word::Head(Head { is_directory: true, base: source.base.clone() }));
        let packing = Packing { owner: Owner::Root, one_mount: true, xattrs: false };
        let writer = pipe.writer.take().ok_or(CopyError::Killed)?;
        let mut packer = Packer::new(BufWriter::with_capacity(BUFFER_BYTES, writer), packing);
        packer.pack(&source, b"")?;
        packer.finish()
    })?;
    drop(pipe.writer.take());
    let mut data = pipe.reader.take().ok_or(CopyError::Killed)?;
    head(&inside)?;
    let copied =
        io::copy(&mut data, out).and_then(|_| out.flush()).map_err(|error| CopyError::stream(&error));
    finish(inside, data, copied)
}

/// How the root of what is packed is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rename {
    ToRoot,
    ToBase,
}

fn pack_inside(
    place: &Place<'_>,
    from: &str,
    follow: bool,
    rename: Rename,
) -> Result<(Inside, io::PipeReader), RuntimeError> {
    let path = absolute(from);
    let last = if follow { LastLink::Follow } else { LastLink::Keep };
    let whose = format!("container {}", place.container.record.name);
    let mut pipe = Pipe::new()?;
    let inside = place.enter(|outside: &Outside<'_>| {
        drop(pipe.reader.take());
        let source = Source::find(&path, last, &whose)?;
        outside.say(&Word::Head(Head { is_directory: source.is_directory, base: source.base.clone() }));
        let root = if rename == Rename::ToRoot { ROOT } else { source.base.as_slice() };
        let writer = pipe.writer.take().ok_or(CopyError::Killed)?;
        let mut packer = Packer::new(BufWriter::with_capacity(BUFFER_BYTES, writer), PACKING);
        packer.pack(&source, root)?;
        packer.finish()
    })?;
    drop(pipe.writer.take());
    let reader = pipe.reader.take().ok_or(CopyError::Killed)?;
    Ok((inside, reader))
}

/// Without a head the archive is somebody's, and goes into a directory.
fn unpack_inside(
    place: &Place<'_>,
    to: &str,
    head: Option<Head>,
) -> Result<(Inside, io::PipeWriter), RuntimeError> {
    let path = absolute(to);
    let whose = format!("container {}", place.container.record.name);
    let mut pipe = Pipe::new()?;
    let inside = place.enter(|_| {
        drop(pipe.writer.take());
        let mut reader = pipe.reader.take().ok_or(CopyError::Killed)?;
        let unpacked = match &head {
            Some(head) => Target::find(&path, head, &whose)
                .and_then(|target| unpack::unpack(&mut reader, &target, Names::Rooted)),
            None => {
                let contents = Head { is_directory: true, base: b".".to_vec() };
                match Target::find(&path, &contents, &whose) {
                    Ok(target @ Target::Into(_)) => unpack::unpack(&mut reader, &target, Names::Plain),
                    Ok(Target::Named { .. }) => {
                        Err(CopyError::Missing { path: path.clone(), whose: whose.clone() })
                    }
                    Err(error) => Err(error),
                }
            }
        };
        // Padding behind the end of an archive: whoever writes it must not meet a closed pipe.
        unpacked.and_then(|()| {
            io::copy(&mut reader, &mut io::sink()).map(drop).map_err(|error| CopyError::stream(&error))
        })
    })?;
    drop(pipe.reader.take());
    let writer = pipe.writer.take().ok_or(CopyError::Killed)?;
    Ok((inside, writer))
}

fn head(inside: &Inside) -> Result<Head, CopyError> {
    match inside.hear()? {
        Word::Head(head) => Ok(head),
        Word::Done | Word::Failed(_) => Err(CopyError::Killed),
    }
}

/// The first cause: of a child that failed, its own; else ours, and then the child meets a closed pipe.
fn finish(inside: Inside, data: io::PipeReader, ours: Result<(), CopyError>) -> Result<(), RuntimeError> {
    drop(data);
    let theirs = inside.finish();
    match (ours, theirs) {
        (Err(CopyError::Archive { .. }), Err(theirs)) => Err(theirs.into()),
        (Err(ours), _) => Err(ours.into()),
        (Ok(()), theirs) => theirs.map_err(RuntimeError::from),
    }
}

/// docker takes any path of a container as one from its root.
fn absolute(path: &str) -> PathBuf {
    PathBuf::from(format!("/{}", path.trim_start_matches('/')))
}
