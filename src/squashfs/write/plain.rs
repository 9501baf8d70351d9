//! Which files are not compressed: those that each start of a container reads. Unpacking their blocks one after the other
//! is what a start waits for (15 blocks and 2.2 of 8.4 ms for `true` of a Debian image), and they are few.

/// How the blocks of a file are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storing {
    /// As they are.
    Plain,
    /// Compressed.
    Packed,
}

/// The files of `/etc` that a launch, the loader or the C library reads at a start.
const START_FILES: [&[u8]; 5] =
    [b"etc/passwd", b"etc/group", b"etc/nsswitch.conf", b"etc/ld.so.cache", b"etc/ld.so.preload"];
/// Where loaders and C libraries are; a `64` may follow.
const START_DIRECTORIES: [&[u8]; 2] = [b"lib", b"usr/lib"];
/// The C library: glibc's two names (before and since 2.34).
const C_LIBRARIES: [&[u8]; 2] = [b"libc.so.6", b"libc-2."];
/// What loaders begin with: glibc's, its older file, musl's (which is the C library, too).
const LOADERS: [&[u8]; 4] = [b"ld-linux", b"ld-2.", b"ld64.so", b"ld-musl-"];
/// Shells: the entry point of most images is a script, or `sh -c`.
const SHELLS: [&[u8]; 4] = [b"sh", b"bash", b"dash", b"busybox"];

impl Storing {
    /// By the path below the image's root.
    #[must_use]
    pub fn of(path: &[u8]) -> Self {
        let path = path.strip_prefix(b"./").unwrap_or(path);
        let (directory, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&[][..], path),
        };
        let is_below = |place: &[u8]| {
            directory
                .strip_prefix(place)
                .is_some_and(|rest| rest.is_empty() || rest[0] == b'/' || rest == b"64")
        };
        let begins = |starts: &[&[u8]]| starts.iter().any(|start| name.starts_with(start));
        let is_library = begins(&LOADERS) || begins(&C_LIBRARIES);
        let is_shell = SHELLS.contains(&name) && [b"bin".as_slice(), b"usr/bin"].contains(&directory);
        let is_plain = START_FILES.contains(&path)
            || is_shell
            || (is_library && START_DIRECTORIES.iter().any(|place| is_below(place)));
        if is_plain { Self::Plain } else { Self::Packed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_start_reads_is_plain() {
        let check = |path: &str, expected| assert_eq!(Storing::of(path.as_bytes()), expected, "{path}");
        for path in [
            "etc/passwd",
            "./etc/ld.so.cache",
            "lib/x86_64-linux-gnu/libc.so.6",
            "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
            "usr/lib64/libc-2.28.so",
            "lib64/libc.so.6",
            "lib/ld-musl-x86_64.so.1",
            "bin/busybox",
            "usr/bin/bash",
        ] {
            check(path, Storing::Plain);
        }
        for path in [
            "",
            "/",
            "etc/passwd-",
            "opt/etc/passwd",
            "usr/share/bash",
            "opt/conda/lib/libc.so.6",
            "library/libc.so.6",
            "usr/lib/libcrypt.so.1",
            "usr/bin/bashbug",
        ] {
            check(path, Storing::Packed);
        }
    }
}
