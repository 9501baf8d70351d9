//! What a container asks of a keeper, as bytes.
//!
//! ```text
//! "join\0"  mount points that the image lacks (fuse::encode_points)  NUL  places that are mounted on, each with a NUL
//! ```
//!
//! The places are only looked at. From Linux 6.16 on (fs/fuse/dir.c, `entry->d_time = epoch`), a name that two processes
//! look up for the first time at once can be dropped by the second, after which the first cannot mount there (ENOENT), or
//! would lose its mount. So the keeper looks first, alone.

use std::os::unix::ffi::OsStrExt as _;

use crate::base::RelPath;
use crate::fuse::{MAX_MESSAGE_BYTES, Synthetic, decode_points, encode_points};
use crate::launch::server::View;
use crate::plan::{LaunchPlan, Op};

/// First bytes of what a container says: it wants the user namespace and a copy of the mount that has these points.
const JOIN: &[u8] = b"join\0";

/// Everything of a plan that a keeper must know.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wishes {
    /// Mount points that the image lacks.
    pub(super) points: Vec<Synthetic>,
    /// Places that are mounted on.
    pub(super) places: Vec<RelPath>,
}

impl Wishes {
    /// Those of a plan.
    pub(super) fn of(plan: &LaunchPlan) -> Self {
        let place = |op: &Op| RelPath::parse(op.mounts_on()?.as_os_str().as_bytes()).ok();
        Self { points: View::of(plan).points(), places: plan.ops.iter().filter_map(place).collect() }
    }

    /// The message. Places for which there is no room are left out.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = [JOIN, &encode_points(&self.points), b"\0"].concat();
        for place in &self.places {
            if bytes.len() + place.as_bytes().len() < MAX_MESSAGE_BYTES {
                bytes.extend_from_slice(place.as_bytes());
                bytes.push(0);
            }
        }
        bytes
    }

    /// The wishes of a message; `None` if it is none.
    pub(super) fn decode(message: &[u8]) -> Option<Self> {
        let bytes = message.strip_prefix(JOIN)?;
        // No record of either part is empty.
        let points_end = match bytes.first()? {
            0 => 0,
            _ => bytes.windows(2).position(|pair| pair == [0, 0])? + 1,
        };
        let (points, places) = (bytes.get(..points_end)?, bytes.get(points_end + 1..)?);
        let places = match places.strip_suffix(b"\0") {
            Some(places) => places.split(|byte| *byte == 0).map(|place| RelPath::parse(place).ok()).collect(),
            None => places.is_empty().then(Vec::new),
        };
        Some(Self { points: decode_points(points)?, places: places? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuse::SyntheticKind;

    #[test]
    fn wishes_come_back() {
        let path = |path: &[u8]| RelPath::parse(path).unwrap();
        let point = |text: &[u8], kind| Synthetic { path: path(text), kind };
        let points = vec![point(b"a/b", SyntheticKind::Directory), point(b"\xff", SyntheticKind::File)];
        let places = vec![path(b"proc"), path(b"a/b")];
        for (points, places) in [
            (points.clone(), places.clone()),
            (Vec::new(), places),
            (points, Vec::new()),
            (Vec::new(), Vec::new()),
        ] {
            let wishes = Wishes { points, places };
            assert_eq!(Wishes::decode(&wishes.encode()), Some(wishes));
        }
        for wrong in [&b""[..], b"join", b"join\0", b"join\0da\0", b"join\0\0..\0", b"join\0\0a", b"user\0\0"]
        {
            assert_eq!(Wishes::decode(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_has_no_room_is_left_out() {
        let long = RelPath::parse(&[b'a'; 200]).unwrap();
        let wishes = Wishes { points: Vec::new(), places: vec![long; 1000] };
        let bytes = wishes.encode();
        assert!(bytes.len() <= MAX_MESSAGE_BYTES, "{}", bytes.len());
        assert!(Wishes::decode(&bytes).unwrap().places.len() > 300);
    }
}
