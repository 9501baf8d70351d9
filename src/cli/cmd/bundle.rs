//! `slipway convert IMAGE bundle:DIRECTORY`: an OCI bundle, which any OCI runtime starts.
//!
//! ```text
//! DIRECTORY/config.json   what `slipway run IMAGE` would do, as a runtime spec
//! DIRECTORY/rootfs/       the image's files, owned by the caller
//! DIRECTORY/files/        the small files that are bound over the image's
//! ```

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::bundle;
use crate::grants::Grants;
use crate::image::Image;
use crate::launch;
use crate::plan::{LaunchPlan, Op, PathKind};
use crate::squashfs::read::{Inode, InodeKind, ReadError, Reader};
use crate::sys::Errno;
use crate::sys::tree::{Directory, Kind};

use super::{Session, request, run};
use crate::cli::args::{self, Command, RunArgs};
use crate::cli::failure::Failure;

/// Bytes of a file that are copied at once.
const PIECE_BYTES: usize = 1 << 20;

/// Writes the bundle of an image file. What is half made is removed.
pub(super) fn write(
    image: &Path,
    directory: &Path,
    devices: &[String],
    session: &Session,
) -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| Failure::new(format!("cannot make `{}`: {error}", directory.display()), None);
    std::fs::create_dir(directory).map_err(failed)?;
    let written = fill(image, directory, devices, session);
    if written.is_err()
        && let (Some(parent), Some(name)) = (directory.parent(), directory.file_name())
    {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        // The error itself says what was wrong.
        let _ = Directory::open(parent).and_then(|parent| parent.remove_tree(name));
    }
    written
}

fn fill(image: &Path, directory: &Path, devices: &[String], session: &Session) -> Result<(), Failure> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| Failure::new(format!("cannot write `{path}`: {error}"), None)
    };
    let directory = std::fs::canonicalize(directory).map_err(failed(directory))?;
    let opened = Image::open(image)?;
    let reader = Reader::open(opened.partition())?;
    unpack(&reader, &directory.join("rootfs"))?;
    // Whatever way this machine would serve the image: the bundle has its own root.
    let words = ["slipway", "run", "--gpus", "none", "--rootfs", "fuse"]
        .map(Into::into)
        .into_iter()
        .chain(devices.iter().flat_map(|device| ["--device".into(), device.into()]))
        .chain([image.into()]);
    let command = args::parse(words).map_err(|_| Failure::new("the bundle has no command", None))?.command;
    let Command::Run(args) = &command else { return Err(Failure::new("the bundle has no command", None)) };
    let prepared = run::prepare(args, session, run::Way::Run)?;
    let spec = spec(args, session, &opened, &reader)?;
    let files = directory.join("files");
    std::fs::create_dir(&files).map_err(failed(&files))?;
    let spec = adapt(spec, &prepared.plan, &files).map_err(failed(&files))?;
    let path = directory.join("config.json");
    let text = serde_json::to_string_pretty(&spec)
        .map_err(|error| Failure::new(format!("the spec cannot be written as JSON: {error}"), None))?;
    std::fs::write(&path, text + "\n").map_err(failed(&path))
}

/// The runtime spec of a run.
fn spec(args: &RunArgs, session: &Session, image: &Image, reader: &Reader) -> Result<Value, Failure> {
    let files = launch::image_files(reader, &image.path.to_string_lossy())?;
    let caller = launch::caller(&session.env);
    let ground = request::Ground {
        session,
        profile: request::profile(args, session),
        cwd: caller.cwd.as_deref(),
        image: &image.config.config,
        id: None,
    };
    let request = request::request(args, &[], &ground)?;
    let grants = if args.isolation.device.is_empty() {
        Grants::default()
    } else {
        super::grants::Ask { args, session, image, reader, name: &image.path.to_string_lossy() }.for_run()?
    };
    let bundle = bundle::build(&image.config.config, &files, &request, &caller, grants)?;
    serde_json::to_value(&bundle.spec)
        .map_err(|error| Failure::new(format!("the spec cannot be written as JSON: {error}"), None))
}

/// Puts the plan's mounts in the place of the spec's: each is certain to be there, and lies where the image's links lead.
fn adapt(mut spec: Value, plan: &LaunchPlan, files: &Path) -> std::io::Result<Value> {
    let mut mounts = Vec::new();
    let mut made: HashMap<&Path, PathBuf> = HashMap::new();
    let mut bound: HashMap<PathBuf, PathBuf> = HashMap::new();
    for op in &plan.ops {
        match op {
            Op::Tmpfs { target, mode, size_bytes } => {
                let mut options = vec!["nosuid".to_owned(), "nodev".to_owned(), format!("mode={mode:o}")];
                options.extend(size_bytes.map(|size| format!("size={size}")));
                mounts.push(json!({
                    "destination": target, "type": "tmpfs", "source": "tmpfs", "options": options,
                }));
            }
            Op::Terminals { target } => mounts.push(json!({
                "destination": target, "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            })),
            Op::MessageQueues { target } => mounts.push(json!({
                "destination": target, "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"],
            })),
            Op::ProcessFiles { target } => mounts.push(json!({
                "destination": target, "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"],
            })),
            Op::MakeFile { target, mode, content } => {
                use std::os::unix::fs::OpenOptionsExt as _;
                let place = files.join(target.file_name().unwrap_or_default());
                let mut options = std::fs::OpenOptions::new();
                options.write(true).create_new(true).mode(*mode).open(&place)?.write_all(content)?;
                made.insert(target, place);
            }
            Op::Bind { source, target, kind, read_only, from_run, .. } => {
                let source = if *from_run { made.get(source.as_path()).unwrap_or(source) } else { source };
                let bind = if *kind == PathKind::Directory { "rbind" } else { "bind" };
                let access = if *read_only { "ro" } else { "rw" };
                bound.insert(target.clone(), source.clone());
                mounts.push(json!({
                    "destination": target, "type": "bind", "source": source, "options": [bind, access],
                }));
            }
            // A further name of a library is a mount of the same file: a spec has no links.
            Op::MakeLink { target, to } => {
                let first = target.parent().map(|directory| directory.join(to));
                if let Some(source) = first.and_then(|first| bound.get(&first)).cloned() {
                    mounts.push(json!({
                        "destination": target, "type": "bind", "source": source, "options": ["bind", "ro"],
                    }));
                    bound.insert(target.clone(), source);
                }
            }
            _ => {}
        }
    }
    // Nothing of later versions is used, and older runtimes refuse what they do not know.
    spec["ociVersion"] = "1.0.2".into();
    spec["mounts"] = Value::Array(mounts);
    // A host name without a namespace for it would be the host's.
    if spec.get("hostname").and_then(Value::as_str) == Some("")
        && let Some(spec) = spec.as_object_mut()
    {
        spec.remove("hostname");
    }
    let none = json!([]);
    spec["process"]["capabilities"] = json!({ "bounding": none, "effective": none, "inheritable": none, "permitted": none, "ambient": none });
    Ok(spec)
}

/// Writes all files of an image below `place`, as the file server shows them: owned by the caller, who may read them.
fn unpack(reader: &Reader, place: &Path) -> Result<(), Failure> {
    std::fs::create_dir(place)
        .map_err(|error| Failure::new(format!("cannot make `{}`: {error}", place.display()), None))?;
    let directory = Directory::open(place).map_err(|errno| wrong("open", place, errno))?;
    let root = reader.root()?;
    let mut unpacker = Unpacker { reader, links: HashMap::new(), top: directory };
    unpacker.fill(&root, &unpacker.top.again().map_err(|errno| wrong("open", place, errno))?, place)
}

struct Unpacker<'a> {
    reader: &'a Reader,
    /// Files with several names, and the first of them, below the top.
    links: HashMap<u32, (PathBuf, std::ffi::OsString)>,
    top: Directory,
}

fn wrong(act: &str, path: &Path, errno: Errno) -> Failure {
    Failure::new(format!("cannot {act} `{}`: {} ({errno:?})", path.display(), errno.desc()), None)
}

impl Unpacker<'_> {
    fn fill(&mut self, inode: &Inode, directory: &Directory, path: &Path) -> Result<(), Failure> {
        for entry in self.reader.read_dir(inode)? {
            let name = OsStr::from_bytes(&entry.name).to_owned();
            let path = path.join(&name);
            let inode = self.reader.inode(entry.reference)?;
            self.add(&inode, directory, &name, &path)?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        inode: &Inode,
        directory: &Directory,
        name: &OsStr,
        path: &Path,
    ) -> Result<(), Failure> {
        let failed = |act: &'static str| move |errno| wrong(act, path, errno);
        let mode = u32::from(inode.mode);
        match &inode.kind {
            InodeKind::Directory(_) => {
                directory.make_directory(name, mode | 0o700).map_err(failed("make"))?;
                let inner = directory.open_directory(name).map_err(failed("open"))?;
                self.fill(inode, &inner, path)?;
                directory.set_mode(name, mode | 0o500).map_err(failed("set the mode of"))?;
            }
            InodeKind::File(_) => {
                if inode.link_count > 1 {
                    if let Some((parent, first)) = self.links.get(&inode.number) {
                        let parent = Directory::open(parent).map_err(failed("open"))?;
                        return directory.make_hard_link(name, &parent, first).map_err(failed("link"));
                    }
                    let parent = path.parent().unwrap_or(path).to_path_buf();
                    self.links.insert(inode.number, (parent, name.to_owned()));
                }
                self.copy(inode, directory, name, path)?;
                directory.set_mode(name, mode | 0o400).map_err(failed("set the mode of"))?;
            }
            InodeKind::Symlink(target) => {
                directory.make_symlink(name, OsStr::from_bytes(target)).map_err(failed("make"))?;
            }
            InodeKind::Fifo => directory.make_node(name, Kind::Fifo, mode).map_err(failed("make"))?,
            // Without root there are no device nodes, and those of an image are shut by the mount anyway.
            InodeKind::CharDevice { .. } | InodeKind::BlockDevice { .. } | InodeKind::Socket => return Ok(()),
        }
        directory.set_mtime(name, inode.mtime.into()).map_err(failed("set the time of"))
    }

    fn copy(&self, inode: &Inode, directory: &Directory, name: &OsStr, path: &Path) -> Result<(), Failure> {
        let mut file = directory.create_file(name, 0o600).map_err(|errno| wrong("make", path, errno))?;
        let mut bytes = vec![0; PIECE_BYTES];
        let mut offset = 0;
        loop {
            let count = self.reader.read_at(inode, offset, &mut bytes).map_err(|error: ReadError| {
                Failure::from(error).about(&format!("cannot read `{}` of the image", path.display()))
            })?;
            if count == 0 {
                return Ok(());
            }
            file.write_all(bytes.get(..count).unwrap_or_default())
                .map_err(|error| Failure::new(format!("cannot write `{}`: {error}", path.display()), None))?;
            offset += count as u64;
        }
    }
}
