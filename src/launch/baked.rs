//! Libraries of a GPU driver that an image carries: those of the node where it was built, or the empty files over which a
//! container tool had bound them. The loader takes the node's own first, unless `LD_LIBRARY_PATH` leads it elsewhere.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::base::RelPath;
use crate::grants::{Trouble, Weight};
use crate::squashfs::read::Reader;

use super::LaunchError;

/// The two libraries by which programs reach a driver. What else was left behind came with them.
const LIBRARIES: [&str; 2] = ["libcuda.so.1", "libnvidia-ml.so.1"];
/// Most directories that are looked into.
const MAX_DIRECTORIES: usize = 32;

/// A library of a driver in an image, which is not that of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BakedLibrary {
    /// Its place, as the loader asks for it.
    pub path: PathBuf,
    /// What it is.
    pub kind: BakedKind,
}

/// What an image's own library of a driver is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BakedKind {
    /// A file without content.
    Empty,
    /// One of another version than the node's driver.
    OfVersion(String),
    /// CUDA's stand-in for linking on machines without a driver.
    Stub,
}

impl fmt::Display for BakedLibrary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.kind {
            BakedKind::Empty => {
                write!(f, "`{path}` of the image is empty, left behind when the image was built with a GPU")
            }
            BakedKind::OfVersion(version) => write!(f, "`{path}` of the image is that of driver {version}"),
            BakedKind::Stub => write!(f, "`{path}` of the image is CUDA's stub for linking"),
        }
    }
}

impl BakedLibrary {
    /// As a trouble, where `LD_LIBRARY_PATH` has the loader find it before the node's own.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        Trouble {
            what: format!("{self}, and LD_LIBRARY_PATH has programs find it before the node's driver"),
            remedy: "give `-e LD_LIBRARY_PATH=`, or remove it from the image".into(),
            weight: Weight::Possible,
        }
    }
}

/// The libraries of a driver in `directories` of an image that are not those of `version`. Directories for forward
/// compatibility (`compat`) hold newer ones on purpose.
pub fn baked_libraries(
    reader: &Reader,
    image_name: &str,
    directories: &[PathBuf],
    version: Option<&str>,
) -> Result<Vec<BakedLibrary>, LaunchError> {
    let mut found = Vec::new();
    for directory in directories.iter().filter(|path| path.is_absolute()).take(MAX_DIRECTORIES) {
        for name in LIBRARIES {
            let path = directory.join(name);
            let failed = |text: String| LaunchError::ImageRead {
                image: image_name.to_owned(),
                path: path.to_string_lossy().into_owned(),
                text,
            };
            // What is no path of an image is nothing that its loader can find.
            let Ok(inside) = RelPath::parse(path.as_os_str().as_encoded_bytes()) else { continue };
            let resolved = reader.resolve_path(&inside).map_err(|error| failed(error.to_string()))?;
            let Some(inode) = resolved.inode.filter(|inode| inode.is_file()) else { break };
            let real = resolved.path.to_absolute();
            if let Some(kind) = kind_of(&real, name, inode.size_bytes(), version) {
                found.push(BakedLibrary { path, kind });
            }
        }
    }
    Ok(found)
}

fn kind_of(real: &Path, name: &str, size_bytes: u64, version: Option<&str>) -> Option<BakedKind> {
    let is_in = |part: &str| real.parent().is_some_and(|path| path.iter().any(|name| name == part));
    if size_bytes == 0 {
        return Some(BakedKind::Empty);
    }
    if is_in("stubs") {
        return Some(BakedKind::Stub);
    }
    if is_in("compat") {
        return None;
    }
    let stem = name.strip_suffix('1')?;
    let own = real.file_name()?.to_str()?.strip_prefix(stem)?;
    (own.contains('.') && version.is_some_and(|version| version != own))
        .then(|| BakedKind::OfVersion(own.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_other_files_than_the_drivers_own_are_told() {
        let check = |path: &str, size: u64, expected: Option<BakedKind>| {
            assert_eq!(kind_of(Path::new(path), "libcuda.so.1", size, Some("550.54.15")), expected, "{path}");
        };
        check("/usr/lib64/libcuda.so.1", 0, Some(BakedKind::Empty));
        check("/usr/lib64/libcuda.so.535.1.1", 9, Some(BakedKind::OfVersion("535.1.1".into())));
        check("/usr/lib64/libcuda.so.550.54.15", 9, None);
        check("/usr/lib64/libcuda.so.1", 9, None);
        check("/usr/local/cuda/compat/libcuda.so.560.1.1", 9, None);
        check("/usr/local/cuda/lib64/stubs/libcuda.so", 9, Some(BakedKind::Stub));
        check("/usr/lib64/libother.so.2.2", 9, None);
        assert_eq!(kind_of(Path::new("/l/libcuda.so.535.1.1"), "libcuda.so.1", 9, None), None);
    }
}
