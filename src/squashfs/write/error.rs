//! Why an image could not be written.

use std::io;

use crate::base::Hint;

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The output failed.
    #[error("writing the squashfs: {source}")]
    Output {
        /// The cause.
        source: io::Error,
    },
    /// What was written could not be read again, to compare it with a file that seems to be the same.
    #[error("reading the squashfs again at byte {offset}: {source}")]
    ReadBack {
        /// Where.
        offset: u64,
        /// The cause.
        source: io::Error,
    },
    /// The content of a file could not be read.
    #[error("reading file content: {source}")]
    Content {
        /// The cause.
        source: io::Error,
    },
    /// The content of a file ended before its size.
    #[error("file content ends after {actual_bytes} bytes, {expected_bytes} bytes were announced")]
    ContentShort {
        /// The size that was announced, in bytes.
        expected_bytes: u64,
        /// What came, in bytes.
        actual_bytes: u64,
    },
    /// The content of a file went on after its size.
    #[error("file content goes on after the {expected_bytes} bytes that were announced")]
    ContentLong {
        /// The size that was announced, in bytes.
        expected_bytes: u64,
    },
    /// One file is larger than we write.
    #[error("a file of {size_bytes} bytes is larger than the {limit_bytes} bytes that one file may have")]
    FileTooLarge {
        /// The size that was announced, in bytes.
        size_bytes: u64,
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// More files than a handle can number.
    #[error("more than {limit} files")]
    TooManyFiles {
        /// The limit.
        limit: u32,
    },
    /// The compressor failed or takes no such level.
    #[error("compressing a block: {source}")]
    Compress {
        /// The cause.
        source: io::Error,
    },
    /// A compressing thread could not be started.
    #[error("starting compressing thread {index} of {threads}: {source}")]
    Thread {
        /// Which one, from 1.
        index: usize,
        /// How many were asked for.
        threads: usize,
        /// The cause.
        source: io::Error,
    },
    /// A compressing thread ended without an answer.
    #[error("a compressing thread ended before its block was done")]
    ThreadLost,
    /// An earlier call failed, so that the image misses something.
    #[error("the squashfs was given up after an earlier error")]
    GivenUp,
    /// The tree's root is not a directory.
    #[error("the root of the tree is not a directory")]
    RootNotDirectory,
    /// A directory names a node that the tree does not have.
    #[error("`{path}` is node {node}, which the tree of {nodes} nodes does not have")]
    UnknownNode {
        /// Path from the image's root.
        path: String,
        /// The node's index.
        node: u32,
        /// Nodes of the tree.
        nodes: usize,
    },
    /// A node names content that was never added.
    #[error("`{path}` has content {file}, but only {files} files were added")]
    UnknownFile {
        /// Path from the image's root.
        path: String,
        /// The content's handle.
        file: u32,
        /// Files that were added.
        files: usize,
    },
    /// A directory is reached under two names.
    #[error("directory `{path}` has a second name")]
    DirectoryTwice {
        /// The second path from the image's root.
        path: String,
    },
    /// A name that a directory cannot hold.
    #[error("`{path}` cannot be stored: its name {reason}")]
    Name {
        /// Path from the image's root.
        path: String,
        /// What is wrong with the last name of the path.
        reason: &'static str,
    },
    /// The same name twice in one directory.
    #[error("`{path}` is there twice")]
    NameTwice {
        /// Path from the image's root.
        path: String,
    },
    /// A symbolic link's target that the kernel would not read.
    #[error("symbolic link `{path}` cannot be stored: its target {reason}")]
    Target {
        /// Path from the image's root.
        path: String,
        /// What is wrong with the target.
        reason: &'static str,
    },
    /// A device number that the format cannot hold.
    #[error(
        "device `{path}` cannot be stored: {major}:{minor} is more than 12 bits of major and 20 of minor"
    )]
    Device {
        /// Path from the image's root.
        path: String,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// An extended attribute that the format cannot hold.
    #[error("extended attribute `{name}` of `{path}` cannot be stored: it {reason}")]
    Xattr {
        /// Path from the image's root.
        path: String,
        /// Name of the attribute.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Too many different uids and gids.
    #[error("more than {limit} different owners and groups, which squashfs cannot number")]
    TooManyIds {
        /// The limit.
        limit: usize,
    },
    /// Too many inodes.
    #[error("more than {limit} files and directories, which squashfs cannot number")]
    TooManyInodes {
        /// The limit.
        limit: u32,
    },
    /// One directory is larger than we read.
    #[error("directory `{path}` is too large: its names take more than {limit_bytes} bytes")]
    DirectoryTooLarge {
        /// Path from the image's root.
        path: String,
        /// The limit, in bytes.
        limit_bytes: u32,
    },
    /// A table is larger than the format can address.
    #[error("the {table} table is larger than 4 GiB, which squashfs cannot address")]
    TableTooLarge {
        /// Which table.
        table: &'static str,
    },
}

impl Hint for WriteError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Output { source } if source.kind() == io::ErrorKind::StorageFull => {
                Some("free space where the image is written, or write it elsewhere".to_owned())
            }
            Self::Output { source } if source.kind() == io::ErrorKind::QuotaExceeded => {
                Some("the quota where the image is written is used up; write it elsewhere".to_owned())
            }
            Self::Output { source } if source.kind() == io::ErrorKind::FileTooLarge => {
                Some("raise `ulimit -f`, or write the image where larger files can be".to_owned())
            }
            Self::Thread { .. } => {
                Some("ask for fewer threads, or look at `ulimit -u` and the job's limit on tasks".to_owned())
            }
            _ => None,
        }
    }
}
