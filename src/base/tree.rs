//! A merged file tree: an arena of nodes. The merge of layers builds it, the squashfs writer numbers and writes it.
//!
//! A hard link is one node under several names. Names in a directory are unique; the writer sorts them.

/// Index of a node in its [`Tree`].
pub type NodeId = u32;

/// Handle of file content that was handed to the writer before the tree by the merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId(pub u32);

/// One file, directory, link or device.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Permission bits with setuid, setgid and sticky (`0o7777`).
    pub mode: u16,
    /// Owner to store.
    pub uid: u32,
    /// Group to store.
    pub gid: u32,
    /// Modification time, seconds since 1970 clamped to 32 bits.
    pub mtime: u32,
    /// Extended attributes to store, by full name (`user.x`); `None` for almost every node.
    pub xattrs: Option<Box<Xattrs>>,
}

/// Extended attributes: full name and value, in any order.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// The kinds of node.
#[derive(Debug, Clone)]
pub enum NodeKind {
    /// Directory: name and node of each child.
    Directory(Vec<(Box<[u8]>, NodeId)>),
    /// Regular file with content.
    File(FileId),
    /// Symbolic link and its target.
    Symlink(Box<[u8]>),
    /// Character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// Block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
}

/// The arena. The root is a directory.
#[derive(Debug, Clone)]
pub struct Tree {
    /// All nodes; a [`NodeId`] is an index here. Nodes that no directory names are not written.
    pub nodes: Vec<Node>,
    /// The root directory's index.
    pub root: NodeId,
}
