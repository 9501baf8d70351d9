//! What a user should know about an image that converts well: things that builders leave behind by mistake, or that do
//! not do here what they do elsewhere.
//!
//! Content streams by once and without its name, so what matters of it is noted by its handle ([`Seen`]), and the names
//! come from the finished tree.

use std::collections::HashMap;
use std::fmt;

use crate::base::tree::{FileId, NodeId, NodeKind, Tree};
use crate::elf;

/// First bytes of a file that tell an ELF file's machine.
pub(super) const HEAD_BYTES: usize = 20;
/// Bits that give a program its file's owner or group.
const SETID_BITS: u16 = 0o6000;
/// What the NVIDIA driver brings. A file of these names and no length is the place on which a runtime had bound the
/// host's library while the image was built.
const DRIVER_LIBRARIES: [&[u8]; 8] = [
    b"libcuda.so",
    b"libcudadebugger.so",
    b"libnvcuvid.so",
    b"libnvidia-",
    b"libnvoptix.so",
    b"libGLX_nvidia.so",
    b"libEGL_nvidia.so",
    b"libGLESv2_nvidia.so",
];

/// Something about the image, with how often it is there and one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What it is.
    pub kind: WarningKind,
    /// How many files.
    pub count: u64,
    /// One of them, from the image's root, without the leading slash.
    pub example: String,
}

/// The kinds of [`Warning`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WarningKind {
    /// Driver libraries without content.
    EmptyDriverLibrary,
    /// Programs that would run as somebody else.
    SetId,
    /// Programs and libraries for another machine.
    Foreign {
        /// Their machine, by its Rust name.
        machine: &'static str,
        /// The image's machine.
        image: &'static str,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, count, example } = self;
        let (files, are) = if *count == 1 { ("file", "is") } else { ("files", "are") };
        match kind {
            WarningKind::EmptyDriverLibrary => write!(
                f,
                "{count} {files} of the GPU driver {are} empty, such as `/{example}`: left behind when the image was built \
                 with a GPU; a program that opens it by its path finds no driver"
            ),
            WarningKind::SetId => write!(
                f,
                "{count} {files} {are} setuid or setgid, such as `/{example}`: without effect, since nobody becomes another \
                 user in a container"
            ),
            WarningKind::Foreign { machine, image } => {
                write!(
                    f,
                    "{count} {files} {are} for {machine}, such as `/{example}`, in an image for {image}"
                )
            }
        }
    }
}

/// What was noted of content while it streamed by.
#[derive(Debug)]
pub(super) struct Seen {
    /// The image's machine, if it is one that is known.
    image: Option<&'static str>,
    /// The file without content.
    empty: Option<FileId>,
    /// Files for other machines.
    foreign: HashMap<FileId, &'static str>,
}

impl Seen {
    /// For an image of that GOARCH.
    pub(super) fn new(architecture: &str) -> Self {
        let image = match architecture {
            "amd64" => Some("x86_64"),
            "arm64" => Some("aarch64"),
            _ => None,
        };
        Self { image, empty: None, foreign: HashMap::new() }
    }

    /// Notes a file by its first [`HEAD_BYTES`].
    pub(super) fn note(&mut self, id: FileId, head: &[u8]) {
        if head.is_empty() {
            self.empty = Some(id);
        }
        let (Some(image), Some(machine)) = (self.image, elf::machine(head)) else { return };
        // Firmware and code for GPUs is ELF too, of machines that nobody has a name for; 32-bit programs run where the
        // kernel wants it.
        let runs = machine == image || matches!((machine, image), ("x86", "x86_64") | ("arm", "aarch64"));
        if !runs && machine != elf::UNKNOWN_MACHINE {
            self.foreign.insert(id, machine);
        }
    }

    /// Everything worth a warning, each kind once.
    pub(super) fn warnings(&self, tree: &Tree) -> Vec<Warning> {
        let mut found = Vec::new();
        let mut open = vec![(tree.root, String::new())];
        while let Some((directory, path)) = open.pop() {
            let Some(NodeKind::Directory(children)) = node(tree, directory).map(|node| &node.kind) else {
                continue;
            };
            for (name, child) in children {
                let Some(node) = node(tree, *child) else { continue };
                let path = || format!("{path}{}", String::from_utf8_lossy(name));
                match node.kind {
                    NodeKind::Directory(_) => open.push((*child, path() + "/")),
                    NodeKind::File(file) => {
                        let is_driver = || DRIVER_LIBRARIES.iter().any(|prefix| name.starts_with(prefix));
                        let is_empty_driver = Some(file) == self.empty && is_driver();
                        let machine = self.foreign.get(&file).zip(self.image);
                        let kinds = [
                            is_empty_driver.then_some(WarningKind::EmptyDriverLibrary),
                            (node.mode & SETID_BITS != 0).then_some(WarningKind::SetId),
                            machine.map(|(machine, image)| WarningKind::Foreign { machine, image }),
                        ];
                        kinds.into_iter().flatten().for_each(|kind| count(&mut found, kind, path));
                    }
                    _ => {}
                }
            }
        }
        found
    }
}

/// The first of the names in the order of their bytes is the example, so that it does not depend on the walk.
fn count(found: &mut Vec<Warning>, kind: WarningKind, path: impl Fn() -> String) {
    match found.iter_mut().find(|warning| warning.kind == kind) {
        Some(warning) => {
            warning.count += 1;
            let path = path();
            if path < warning.example {
                warning.example = path;
            }
        }
        None => found.push(Warning { kind, count: 1, example: path() }),
    }
}

fn node(tree: &Tree, id: NodeId) -> Option<&crate::base::tree::Node> {
    tree.nodes.get(usize::try_from(id).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::tree::Node;

    fn elf_head(machine: u8) -> Vec<u8> {
        let mut head = b"\x7fELF\x02\x01\x01".to_vec();
        head.resize(HEAD_BYTES, 0);
        head[18] = machine;
        head
    }

    fn texts(architecture: &str, files: &[(&str, u16, &[u8])]) -> Vec<String> {
        let mut seen = Seen::new(architecture);
        let mut nodes = vec![];
        let mut children = vec![];
        for ((name, mode, head), number) in files.iter().zip(1..) {
            seen.note(FileId(number), head);
            children.push((name.as_bytes().into(), number + 1));
            nodes.push(Node {
                kind: NodeKind::File(FileId(number)),
                mode: *mode,
                uid: 0,
                gid: 0,
                mtime: 0,
                xattrs: None,
            });
        }
        let directory =
            |children| Node { kind: NodeKind::Directory(children), mode: 0o755, ..nodes[0].clone() };
        let root = vec![(b"usr"[..].into(), 1)];
        let mut all = vec![directory(root), directory(children)];
        all.extend(nodes);
        seen.warnings(&Tree { nodes: all, root: 0 }).iter().map(Warning::to_string).collect()
    }

    #[test]
    fn each_kind_is_said_once_with_its_first_place() {
        let (native, arm, old, gpu) = (elf_head(62), elf_head(183), elf_head(3), elf_head(190));
        let files: [(&str, u16, &[u8]); 9] = [
            ("su", 0o4755, &native),
            ("mount", 0o2755, &native),
            ("plain", 0o755, &native),
            ("libcuda.so.1", 0o644, b""),
            ("empty", 0o644, b""),
            ("libcuda.so.2", 0o644, b"text"),
            ("for-arm", 0o755, &arm),
            ("old", 0o755, &old),
            ("kernel.cubin", 0o644, &gpu),
        ];
        // Empty files share one handle, as the writer gives it; here the last one noted is the only one.
        let mut files = files.to_vec();
        files.remove(4);
        assert_eq!(
            texts("amd64", &files),
            [
                "2 files are setuid or setgid, such as `/usr/mount`: without effect, since nobody becomes another user in a container",
                "1 file of the GPU driver is empty, such as `/usr/libcuda.so.1`: left behind when the image was built with a GPU; a program that opens it by its path finds no driver",
                "1 file is for aarch64, such as `/usr/for-arm`, in an image for x86_64",
            ]
        );
        assert_eq!(texts("arm64", &[("x", 0o755, &native)]).len(), 1);
        assert!(texts("mips", &[("x", 0o755, &native), ("y", 0o755, &arm), ("z", 0o644, b"")]).is_empty());
    }
}
