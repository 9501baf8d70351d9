//! A plan as text: one numbered line for each step. `--plan` prints it, and error messages name a step by its line.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;

use crate::bundle::CapabilitySet;

use super::{LaunchPlan, Op, PathKind, Upper};

impl Op {
    /// The step's name, as it stands in errors: `new user namespace`.
    #[must_use]
    pub fn title(&self) -> String {
        match self {
            Self::NewNamespaces { .. } => "new user namespace".into(),
            Self::HostName { name, .. } => format!("host name `{name}`"),
            Self::LoopbackUp => "bring the loopback up".into(),
            Self::Limit { name, .. } => format!("limit `{name}`"),
            Self::SlavePropagation => "cut mount propagation".into(),
            Self::MountImage { .. } => "mount the image".into(),
            Self::MountDirectory { .. } => "mount the unpacked image".into(),
            Self::ControlGroup { .. } => "make a control group".into(),
            Self::PivotRoot => "enter the image".into(),
            Self::Tmpfs { target, .. } => format!("tmpfs on `{}`", target.display()),
            Self::ProcessFiles { target } => format!("process files on `{}`", target.display()),
            Self::Init => "stand before the command".into(),
            Self::Terminals { target } => format!("terminals on `{}`", target.display()),
            Self::MessageQueues { target } => format!("message queues on `{}`", target.display()),
            Self::LimitCapabilities { .. } => "limit capabilities".into(),
            Self::Umask { .. } => "set the file mode mask".into(),
            Self::OomScore { .. } => "set the out-of-memory score".into(),
            Self::FilterCalls { .. } => "filter system calls".into(),
            Self::MakeDirectory { target } => format!("make directory `{}`", target.display()),
            Self::MakeFile { target, .. } => format!("make file `{}`", target.display()),
            Self::MakeLink { target, .. } => format!("make link `{}`", target.display()),
            Self::Bind { source, target, .. } => {
                format!("bind `{}` on `{}`", source.display(), target.display())
            }
            Self::DetachHost => "detach the host's tree".into(),
            Self::Console => "make a terminal".into(),
            Self::NoNewPrivileges => "no new privileges".into(),
            Self::ChangeDirectory { path, .. } => format!("enter directory `{}`", path.display()),
            Self::Exec { argv, .. } => format!(
                "execute `{}`",
                argv.first().map_or_else(String::new, |word| word.to_string_lossy().into_owned())
            ),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewNamespaces { uid, gid, uid_inside, gid_inside, network, host_name, ipc, pid } => {
                write!(f, "namespaces  user (uid {uid}, gid {gid}")?;
                if (uid, gid) != (uid_inside, gid_inside) {
                    write!(f, " as uid {uid_inside}, gid {gid_inside}")?;
                }
                f.write_str("), mount")?;
                f.write_str(if *network { ", network" } else { "" })?;
                f.write_str(if *host_name { ", host name" } else { "" })?;
                f.write_str(if *ipc { ", ipc" } else { "" })?;
                f.write_str(if *pid { ", pid" } else { "" })
            }
            Self::HostName { name, domain } => {
                write!(f, "host name   {name}")?;
                domain.as_ref().map_or(Ok(()), |domain| write!(f, ", domain {domain}"))
            }
            Self::LoopbackUp => f.write_str("loopback    up"),
            Self::ControlGroup { parent, limits } => {
                let limits: Vec<_> = limits.iter().map(|(file, text)| format!("{file} = {text}")).collect();
                write!(f, "group       below {}: {}", parent.display(), limits.join(", "))
            }
            Self::Limit { name, soft, hard } => {
                let word =
                    |value: &u64| if *value == u64::MAX { "unlimited".into() } else { value.to_string() };
                write!(f, "limit       {name} {} (hard {})", word(soft), word(hard))
            }
            Self::SlavePropagation => f.write_str("propagation slave on every mount"),
            Self::MountImage { image, mount_points, upper } => {
                write!(
                    f,
                    "image       {} at byte {} ({} bytes), {} mount points added",
                    image.path.display(),
                    image.offset_bytes,
                    image.size_bytes,
                    mount_points.len()
                )?;
                changes(f, upper.as_ref())
            }
            Self::MountDirectory { directory, mount_points, upper } => {
                let count = mount_points.len();
                write!(f, "image       unpacked in {}, {count} mount points added", directory.display())?;
                changes(f, upper.as_ref())
            }
            Self::PivotRoot => f.write_str("pivot       the image is /"),
            Self::Tmpfs { target, mode, size_bytes } => {
                write!(f, "tmpfs       {} mode {mode:o}", target.display())?;
                size_bytes.map_or(Ok(()), |size| write!(f, ", at most {size} bytes"))
            }
            Self::ProcessFiles { target } => write!(f, "processes   {} of its own", target.display()),
            Self::Init => f.write_str("init        stands before the command"),
            Self::Terminals { target } => write!(f, "terminals   {} of its own", target.display()),
            Self::MessageQueues { target } => write!(f, "mqueue      {}", target.display()),
            Self::LimitCapabilities { keep, add } => {
                write!(f, "privileges  {keep} capabilities at most")?;
                if *add == CapabilitySet::NONE { Ok(()) } else { write!(f, ", {add} in any case") }
            }
            Self::Umask { mask } => write!(f, "umask       {mask:04o}"),
            Self::OomScore { score } => write!(f, "oom score   {score}"),
            Self::FilterCalls { filter } => {
                write!(f, "privileges  a filter of system calls, {} instructions", filter.len())
            }
            Self::MakeDirectory { target } => write!(f, "mkdir       {}", target.display()),
            Self::MakeFile { target, mode, content } => {
                write!(f, "file        {} mode {mode:o}, {} bytes", target.display(), content.len())
            }
            Self::MakeLink { target, to } => {
                write!(f, "link        {} -> {}", target.display(), to.display())
            }
            Self::Bind { source, target, kind, read_only, from_run, optional, asked } => {
                let whose = if *from_run { "own" } else { "host" };
                let kind = match kind {
                    PathKind::Directory => "directory",
                    PathKind::File => "file",
                };
                let access = if *read_only { "ro" } else { "rw" };
                write!(
                    f,
                    "bind        {} <- {whose} {kind} {} ({access}",
                    target.display(),
                    source.display()
                )?;
                if *optional {
                    f.write_str(", if it can be")?;
                }
                asked.as_ref().map_or(Ok(()), |words| write!(f, ", by {words}"))?;
                f.write_str(")")
            }
            Self::DetachHost => f.write_str("detach      the host's tree"),
            Self::Console => f.write_str("terminal    one of its own for the workload"),
            Self::NoNewPrivileges => f.write_str("privileges  no new ones"),
            Self::ChangeDirectory { path, .. } => write!(f, "cwd         {}", path.display()),
            Self::Exec { argv, env } => {
                write!(f, "exec       ")?;
                argv.iter().try_for_each(|word| write!(f, " {}", word.to_string_lossy()))?;
                write!(f, " ({} variables)", env.len())
            }
        }
    }
}

impl fmt::Display for LaunchPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, op) in self.ops.iter().enumerate() {
            writeln!(f, "{:3}  {op}", index + 1)?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

fn changes(f: &mut fmt::Formatter<'_>, upper: Option<&Upper>) -> fmt::Result {
    match upper {
        None => Ok(()),
        Some(Upper::Memory { .. }) => f.write_str(", changes in memory"),
        Some(Upper::Directory { path }) => write!(f, ", changes in {}", path.display()),
    }
}

/// The name in a `NAME=value` line.
pub(super) fn env_name(line: &OsStr) -> String {
    let name = line.as_bytes().split(|byte| *byte == b'=').next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}
