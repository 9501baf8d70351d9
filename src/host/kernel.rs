//! The kernel's version, and what depends on it alone.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A kernel's version, `6.18.4-200.fc43.x86_64`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelVersion {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number: the stable release, which vendors mostly leave at 0.
    pub patch: u32,
    /// The whole text of `uname -r`.
    pub release: String,
}

impl KernelVersion {
    /// Reads `uname -r`; what is not there is 0, so that an unknown kernel counts as old.
    ///
    /// ```
    /// use slipway::host::KernelVersion;
    /// let kernel = KernelVersion::parse("4.18.0-553.el8_10.x86_64");
    /// assert_eq!((kernel.major, kernel.minor, kernel.patch), (4, 18, 0));
    /// assert!(kernel.is_at_least(4, 18) && !kernel.is_at_least(5, 0));
    /// ```
    #[must_use]
    pub fn parse(release: &str) -> Self {
        let mut rest = release.trim();
        let mut numbers = [0_u32; 3];
        for number in &mut numbers {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (digits, after) = rest.split_at(end);
            *number = digits.parse().unwrap_or(0);
            match after.strip_prefix('.') {
                Some(next) => rest = next,
                None => break,
            }
        }
        let [major, minor, patch] = numbers;
        Self { major, minor, patch, release: release.trim().to_owned() }
    }

    /// Whether the version is `major.minor` or later.
    #[must_use]
    pub fn is_at_least(&self, major: u32, minor: u32) -> bool {
        (self.major, self.minor) >= (major, minor)
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.release)
    }
}

/// Whether a file system server may answer OPEN with ENOSYS on this kernel.
///
/// With such servers the kernel could free an inode in the middle of its read-ahead, and memory reclaim then waited for a
/// page that only the server could fill: a hang of the whole mount. Commit bd5603eaae0a ("fuse: fix readahead reclaim
/// deadlock") ended that in 6.19; it is in the stable series 6.18 from January 2026 and in 6.12.66. Vendors' kernels
/// keep a patch number of 0 whatever they carry, so they count as unfixed, as does everything else that is not sure.
#[must_use]
pub fn no_open_is_safe(kernel: &KernelVersion) -> bool {
    match (kernel.major, kernel.minor) {
        (6, 12) => kernel.patch >= 66,
        (6, 18) => kernel.patch >= 4,
        newer => newer >= (6, 19),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_judges() {
        for (release, numbers, safe) in [
            ("6.18.44-fc-v657", (6, 18, 44), true),
            ("6.18.0", (6, 18, 0), false),
            ("6.19.0-rc3+", (6, 19, 0), true),
            ("6.20-generic", (6, 20, 0), true),
            ("7.0", (7, 0, 0), true),
            ("6.12.66", (6, 12, 66), true),
            ("6.12.0-124.8.1.el10_1.x86_64", (6, 12, 0), false),
            ("6.13.99", (6, 13, 99), false),
            ("6.8.0-45-generic", (6, 8, 0), false),
            ("4.18.0-553.el8_10.x86_64", (4, 18, 0), false),
            ("5.14.21-150500.55.83_13.0.62-cray_shasta_c", (5, 14, 21), false),
            ("", (0, 0, 0), false),
            ("nonsense", (0, 0, 0), false),
            ("6.99999999999.1", (6, 0, 1), false),
        ] {
            let kernel = KernelVersion::parse(release);
            assert_eq!((kernel.major, kernel.minor, kernel.patch), numbers, "{release}");
            assert_eq!(no_open_is_safe(&kernel), safe, "{release}");
            assert_eq!(kernel.to_string(), release);
        }
    }
}
