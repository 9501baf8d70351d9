//! A path inside an image: relative to its root, clean, and unable to leave it.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::limits::{NAME_BYTES as MAX_NAME_BYTES, PATH_BYTES as MAX_PATH_BYTES};

/// A clean path below an image's root. Empty means the root itself.
///
/// Bytes, since file names need not be text. No component is empty, `.` or `..`, or holds a NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelPath(Vec<u8>);

/// Why bytes are not a path inside an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelPathError {
    /// The path climbs above the root.
    #[error("path `{path}` leaves the image")]
    Escapes {
        /// The path as given.
        path: String,
    },
    /// A NUL byte in a name.
    #[error("path `{path}` holds a NUL byte")]
    Nul {
        /// The path as given.
        path: String,
    },
    /// The path or one of its names is longer than Linux allows.
    #[error("path `{path}` is longer than Linux allows ({limit} bytes)")]
    TooLong {
        /// The start of the path.
        path: String,
        /// The limit that it breaks, in bytes.
        limit: usize,
    },
}

impl RelPath {
    /// The root of the image.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// Cleans a path lexically: leading and repeated slashes and `.` vanish, `a/..` is resolved, and a `..` that
    /// would leave the root is an error.
    ///
    /// ```
    /// use slipway::base::RelPath;
    /// assert_eq!(RelPath::parse(b"./usr//bin/../lib/").unwrap().to_string(), "usr/lib");
    /// assert!(RelPath::parse(b"../etc").is_err());
    /// ```
    pub fn parse(bytes: &[u8]) -> Result<Self, RelPathError> {
        let shown = || String::from_utf8_lossy(bytes).chars().take(120).collect::<String>();
        if bytes.contains(&0) {
            return Err(RelPathError::Nul { path: shown() });
        }
        let mut clean: Vec<&[u8]> = Vec::new();
        for name in bytes.split(|&byte| byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." => {
                    if clean.pop().is_none() {
                        return Err(RelPathError::Escapes { path: shown() });
                    }
                }
                _ if name.len() > MAX_NAME_BYTES => {
                    return Err(RelPathError::TooLong { path: shown(), limit: MAX_NAME_BYTES });
                }
                _ => clean.push(name),
            }
        }
        let joined = clean.join(&b'/');
        if joined.len() > MAX_PATH_BYTES {
            return Err(RelPathError::TooLong { path: shown(), limit: MAX_PATH_BYTES });
        }
        Ok(Self(joined))
    }

    /// The path's bytes, without a leading slash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// True for the image's root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The names from the root downwards.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/').filter(|name| !name.is_empty())
    }

    /// The last name, `None` for the root.
    #[must_use]
    pub fn file_name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    /// The directory that holds this path, `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        Some(Self(self.0[..cut].to_vec()))
    }

    /// This path with one more name (or a clean relative path) behind it.
    pub fn join(&self, name: &[u8]) -> Result<Self, RelPathError> {
        let mut bytes = self.0.clone();
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        Self::parse(&bytes)
    }

    /// True if `self` is `other` or lies below it.
    #[must_use]
    pub fn starts_with(&self, other: &Self) -> bool {
        other.is_root()
            || self.0 == other.0
            || (self.0.starts_with(&other.0) && self.0.get(other.0.len()) == Some(&b'/'))
    }

    /// As a [`Path`] without a leading slash (empty for the root).
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// As an absolute path as seen from inside the container: `/` + the path.
    #[must_use]
    pub fn to_absolute(&self) -> std::path::PathBuf {
        Path::new("/").join(self.as_path())
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_and_refuses() {
        let check = |input: &str, expected: Option<&str>| {
            assert_eq!(
                RelPath::parse(input.as_bytes()).ok().map(|p| p.to_string()).as_deref(),
                expected,
                "{input}"
            );
        };
        check("", Some(""));
        check("/", Some(""));
        check(".", Some(""));
        check("/a//b/./c/", Some("a/b/c"));
        check("a/../b", Some("b"));
        check("a/../../b", None);
        check("..", None);
        check("a\0b", None);
        check(&"x".repeat(256), None);
        check(&"x/".repeat(2048), Some(&"x/".repeat(2048)[..4095]));
        check(&"x/".repeat(2049), None);
    }

    #[test]
    fn knows_its_relatives() {
        let path = RelPath::parse(b"usr/lib/x").unwrap();
        assert_eq!(path.parent().unwrap().to_string(), "usr/lib");
        assert_eq!(path.file_name(), Some(b"x".as_slice()));
        assert!(path.starts_with(&RelPath::parse(b"usr/lib").unwrap()));
        assert!(!RelPath::parse(b"usr/lib64").unwrap().starts_with(&RelPath::parse(b"usr/lib").unwrap()));
        assert_eq!(RelPath::root().parent(), None);
    }
}
