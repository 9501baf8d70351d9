//! What a file is that is no image, so that the message can say what to do with it.

use std::fs::FileType;
use std::path::Path;

use crate::tarlayer::Encoding;

use super::ImageError;

/// Something that people hand to `run` by mistake.
#[derive(Debug, Clone, Copy)]
pub(super) struct Alien {
    /// What it is, with its article.
    what: &'static str,
    /// What to do about it, if there is more than [`NAME_ONE`]; `FILE` stands for the path.
    advice: Option<&'static str>,
}

const LOAD: Option<&str> = Some(
    "an archive of `docker save` is loaded with `slipway load -i FILE` or converted with `slipway convert`",
);
const BUILD: Option<&str> =
    Some("build it with docker or podman, and save that image: `docker save NAME | slipway load`");
const AGAIN: Option<&str> = Some("download or copy the file again");
const NAME_ONE: &str = "give a .sif or squashfs file, or the name of an image";
const REBUILD: Option<&str> = Some("make a SIF of it with `apptainer build NEW.sif FILE`");

/// Magic bytes, where they stand, and what they mean; the first that fits counts.
const MAGICS: [(usize, &[u8], Alien); 8] = [
    (257, b"ustar", Alien { what: "a tar archive", advice: LOAD }),
    (1080, &[0x53, 0xef], Alien { what: "an ext file system", advice: REBUILD }),
    (0, b"sqsh", Alien { what: "a big-endian squashfs of version 3 or older", advice: None }),
    (0, b"\x7fELF", Alien { what: "a program", advice: None }),
    (0, b"FROM ", Alien { what: "a Dockerfile", advice: BUILD }),
    (0, b"<", Alien { what: "a web page or XML, perhaps the error page of a download", advice: AGAIN }),
    (0, b"{", Alien { what: "a JSON text", advice: None }),
    (0, b"#!", Alien { what: "a script", advice: None }),
];

/// A thing that is no regular file.
pub(super) fn of_type(kind: FileType) -> Option<Alien> {
    if kind.is_file() {
        return None;
    }
    Some(if kind.is_dir() {
        Alien {
            what: "a directory",
            advice: Some("give the path of a .sif file; an OCI layout is loaded with `slipway load -i FILE`"),
        }
    } else {
        Alien { what: "a pipe, a socket or a device", advice: None }
    })
}

/// A file with these first bytes.
pub(super) fn of_content(head: &[u8]) -> Alien {
    if head.is_empty() {
        return Alien { what: "an empty file", advice: AGAIN };
    }
    let compressed = match Encoding::of(head) {
        Encoding::Plain => None,
        Encoding::Gzip => Some("a gzip file"),
        Encoding::Zstd => Some("a zstd file"),
        Encoding::Foreign("xz") => Some("an xz file"),
        Encoding::Foreign(_) => Some("a bzip2 file"),
    };
    if let Some(what) = compressed {
        return Alien { what, advice: LOAD };
    }
    let known =
        MAGICS.iter().find(|(at, magic, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
    let unknown = Alien { what: "neither a SIF nor a squashfs", advice: None };
    known.map_or(unknown, |(_, _, alien)| *alien)
}

impl Alien {
    pub(super) fn into_error(self, path: &Path) -> ImageError {
        let advice = self.advice.unwrap_or(NAME_ONE).replace("FILE", &path.display().to_string());
        ImageError::NotAnImage { path: path.into(), what: self.what, advice }
    }
}
