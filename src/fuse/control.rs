//! What a keeper says to a server that serves already: more mount points, for a container that joins.
//!
//! ```text
//! keeper ── "graft" points ──▶ server ── the same ──▶ spare, which will need the same ids
//!    ▲                           │ adds the nodes, has the kernel forget that the names are not there
//!    └──── "ok", or why not ─────┘
//! ```
//!
//! A point is `d` or `f`, its path and a NUL. Only a name that was not there is taken out of the kernel's memory: to do
//! that to a directory that is there would unmount what other containers have below it (tried on 6.18).

use std::io::IoSlice;
use std::os::fd::OwnedFd;

use super::graft;
use super::serve::Shared;
use super::standby::Standby;
use super::wire;
use super::{Synthetic, SyntheticKind};
use crate::base::RelPath;
use crate::sys::{Errno, fuse_dev, socket};

/// Longest message, in bytes: a socket's buffer takes it at once.
pub const MAX_MESSAGE_BYTES: usize = 64 << 10;
/// Most nodes that are added to an image, in all: far more than anyone mounts, and few enough to look for a name one by one.
const MAX_ADDED: usize = 1 << 12;

/// First bytes of a message with mount points.
pub const GRAFT: &[u8] = b"graft\0";
/// The answer when all of them are there.
pub const DONE: &[u8] = b"ok";

/// Mount points as bytes.
pub fn encode_points<'a>(points: impl IntoIterator<Item = &'a Synthetic>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for point in points {
        bytes.push(match point.kind {
            SyntheticKind::Directory => b'd',
            SyntheticKind::File => b'f',
        });
        bytes.extend_from_slice(point.path.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// Mount points from bytes; `None` if they are none.
#[must_use]
pub fn decode_points(bytes: &[u8]) -> Option<Vec<Synthetic>> {
    let Some(bytes) = bytes.strip_suffix(b"\0") else { return bytes.is_empty().then(Vec::new) };
    let point = |bytes: &[u8]| {
        let (kind, path) = bytes.split_first()?;
        let kind = match kind {
            b'd' => SyntheticKind::Directory,
            b'f' => SyntheticKind::File,
            _ => return None,
        };
        Some(Synthetic { path: RelPath::parse(path).ok()?, kind })
    };
    bytes.split(|byte| *byte == 0).map(point).collect()
}

/// Takes one message and answers it; false if no more will come.
pub(super) fn answer(shared: &Shared, line: &OwnedFd, device: &OwnedFd, spare: Option<&Standby>) -> bool {
    let message = match socket::receive(line, MAX_MESSAGE_BYTES) {
        Ok(Some((message, _))) => message,
        Err(Errno::EINTR | Errno::EAGAIN) => return true,
        Ok(None) | Err(_) => return false,
    };
    let answer = match message.strip_prefix(GRAFT) {
        Some(points) => {
            // First the spare: what the kernel is told here must be true there.
            if let Some(spare) = spare {
                spare.tell(&message);
            }
            match add(shared, points) {
                Ok(names) => {
                    names.iter().for_each(|(directory, name)| forget_absence(device, *directory, name));
                    DONE.to_vec()
                }
                Err(text) => text.into_bytes(),
            }
        }
        None => b"not understood".to_vec(),
    };
    // A keeper that is gone needs no answer.
    socket::send(line, &answer, &[]).is_ok()
}

/// The names that are new in directories of the image, with those directories.
type NewNames = Vec<(u64, Box<[u8]>)>;

/// Adds the points of a message, all up to the first that cannot be added.
pub(super) fn add(shared: &Shared, points: &[u8]) -> Result<NewNames, String> {
    let points = decode_points(points).ok_or("not understood")?;
    let mut names = NewNames::new();
    for point in &points {
        if shared.nodes.added_count() + point.path.components().count() > MAX_ADDED {
            return Err("too many mount points".to_owned());
        }
        names.extend(graft::graft(&shared.nodes, point).map_err(|error| error.to_string())?);
    }
    Ok(names)
}

/// Has the kernel ask again for a name that it may have been told is not there, and for the directory's listing.
fn forget_absence(device: &OwnedFd, directory: u64, name: &[u8]) {
    for notice in [wire::forget_listing_notice(directory), wire::forget_name_notice(directory, name)] {
        // ENOENT: the kernel does not know the directory, or was never asked for the name.
        let _ = fuse_dev::write_answer(device, &[IoSlice::new(&notice)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_come_back() {
        let point = |path: &[u8], kind| Synthetic { path: RelPath::parse(path).unwrap(), kind };
        let points = vec![point(b"a/b", SyntheticKind::Directory), point(b"\xff", SyntheticKind::File)];
        let bytes = encode_points(&points);
        assert_eq!(bytes, b"da/b\0f\xff\0");
        assert_eq!(decode_points(&bytes), Some(points));
        assert_eq!(decode_points(b""), Some(Vec::new()));
        for wrong in [b"d".as_slice(), b"\0", b"xa\0", b"d../b\0", b"da\0\0"] {
            assert_eq!(decode_points(wrong), None, "{wrong:?}");
        }
    }
}
