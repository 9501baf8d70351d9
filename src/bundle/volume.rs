//! The texts of `-v` (Docker) and `-B` (Apptainer) binds.

use std::path::{Path, PathBuf};

use crate::base::Hint;
use crate::base::sizes::parse_size;

use super::MemoryMount;

/// One bind that the user or the site asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// What it is.
    pub kind: VolumeKind,
    /// Absolute host path; of a volume, the place where the store keeps it, once that is known.
    pub source: PathBuf,
    /// Absolute path inside.
    pub target: PathBuf,
    /// `ro`.
    pub read_only: bool,
    /// The words that asked for it, for messages (`-v /data:/data:ro`).
    pub asked: String,
}

/// What is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeKind {
    /// A file or directory of the host.
    Path,
    /// A directory that Slipway keeps.
    Kept {
        /// Its name; without one it is made for this container alone.
        name: Option<String>,
        /// It begins with the image's files of that place.
        copies: bool,
    },
}

/// Why a text is not a bind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// Not `SRC:DST[:OPTIONS]`.
    #[error("`{asked}` is not of the form SOURCE:TARGET[:OPTIONS]")]
    Form {
        /// Flag and text.
        asked: String,
    },
    /// The place inside is not absolute.
    #[error("`{asked}`: the path inside the container, `{target}`, is not absolute")]
    RelativeTarget {
        /// Flag and text.
        asked: String,
        /// The target.
        target: String,
    },
    /// The place inside is the root or climbs out of it.
    #[error("`{asked}`: `{target}` cannot be a mount point")]
    BadTarget {
        /// Flag and text.
        asked: String,
        /// The target.
        target: String,
    },
    /// Neither a path nor the name of a volume.
    #[error("`{asked}`: `{name}` is neither a path nor a name that a volume may have")]
    Named {
        /// Flag and text.
        asked: String,
        /// The name.
        name: String,
    },
    /// An option that is not known.
    #[error("`{asked}`: unknown option `{option}`")]
    Option {
        /// Flag and text.
        asked: String,
        /// The option.
        option: String,
    },
}

impl Hint for VolumeError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Form { .. } => "write for example `-v /scratch/data:/data:ro`".into(),
            Self::RelativeTarget { .. } => "begin the second part with `/`".into(),
            Self::BadTarget { .. } => "choose a directory or file below `/`".into(),
            Self::Named { name, .. } => format!("for a directory of that name write `-v ./{name}:…`"),
            Self::Option { .. } => "the options are ro and rw".into(),
        })
    }
}

/// Reads one `-v SOURCE:TARGET[:OPTIONS]`. A relative source that begins with a dot is taken from `cwd`; a bare name is a
/// volume's, and a target alone asks for a volume without a name.
///
/// `z`, `Z`, `cached`, `delegated`, `consistent`, `nocopy` and the propagation words are Docker's and have no meaning
/// for a bind of one's own files; they are taken without effect.
pub fn parse_docker_volume(text: &str, cwd: &Path) -> Result<Volume, VolumeError> {
    let asked = format!("-v {text}");
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match *parts.as_slice() {
        [target] if target.starts_with('/') => ("", target, ""),
        [source, target] if !source.is_empty() => (source, target, ""),
        [source, target, options] if !source.is_empty() => (source, target, options),
        _ => return Err(VolumeError::Form { asked }),
    };
    if !source.is_empty() && source.starts_with(['/', '.', '~']) {
        return volume(asked, source, target, options, cwd);
    }
    kept(asked, Some(source).filter(|name| !name.is_empty()), target, options)
}

/// A volume that Slipway keeps.
fn kept(asked: String, name: Option<&str>, target: &str, options: &str) -> Result<Volume, VolumeError> {
    if let Some(name) = name.filter(|name| !crate::store::is_volume_name(name)) {
        return Err(VolumeError::Named { asked, name: name.into() });
    }
    let copies = !options.split(',').any(|option| option == "nocopy");
    let found = volume(asked, "/", target, options, Path::new("/"))?;
    Ok(Volume { kind: VolumeKind::Kept { name: name.map(str::to_owned), copies }, ..found })
}

/// A volume without a name for a place where the image wants one (VOLUME).
pub fn image_volume(target: &str) -> Result<Volume, VolumeError> {
    kept(format!("VOLUME {target} of the image"), None, target, "")
}

/// Reads one `-B` value: a comma list of `SOURCE[:TARGET[:OPTIONS]]`, where `\:` and `\,` are plain characters.
pub fn parse_apptainer_binds(text: &str, cwd: &Path) -> Result<Vec<Volume>, VolumeError> {
    let mut volumes = Vec::new();
    // A list item that holds only options belongs to the bind before it: `-B /a:/b:ro,rw` never occurs, `/a,/b` does.
    for item in split_escaped(text, ',') {
        let asked = format!("-B {item}");
        let parts = split_escaped(&item, ':');
        let words: Vec<String> =
            parts.iter().map(|part| part.replace("\\:", ":").replace("\\,", ",")).collect();
        let (source, target, options) = match words.as_slice() {
            [source] => (source, source, ""),
            [source, target] => (source, target, ""),
            [source, target, options] => (source, target, options.as_str()),
            _ => return Err(VolumeError::Form { asked }),
        };
        volumes.push(volume(asked, source, target, options, cwd)?);
    }
    Ok(volumes)
}

fn volume(
    asked: String,
    source: &str,
    target: &str,
    options: &str,
    cwd: &Path,
) -> Result<Volume, VolumeError> {
    if source.is_empty() || target.is_empty() {
        return Err(VolumeError::Form { asked });
    }
    let mut read_only = false;
    for option in options.split([',', '+']).filter(|option| !option.is_empty()) {
        match option {
            "ro" | "readonly" => read_only = true,
            "rw" => read_only = false,
            "z" | "Z" | "cached" | "delegated" | "consistent" | "nocopy" | "private" | "rprivate"
            | "slave" | "rslave" | "shared" | "rshared" | "rbind" | "bind" => {}
            _ => return Err(VolumeError::Option { asked, option: option.into() }),
        }
    }
    let bad_target = || VolumeError::BadTarget { asked: asked.clone(), target: target.into() };
    if !target.starts_with('/') {
        return Err(VolumeError::RelativeTarget { asked: asked.clone(), target: target.into() });
    }
    let clean = crate::base::RelPath::parse(target.as_bytes()).map_err(|_| bad_target())?;
    if clean.is_root() || clean.components().next() == Some(b".slipway") {
        return Err(bad_target());
    }
    Ok(Volume {
        kind: VolumeKind::Path,
        source: cwd.join(source),
        target: clean.to_absolute(),
        read_only,
        asked: asked.clone(),
    })
}

/// What one `--mount` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// A bind.
    Volume(Volume),
    /// A file system in memory.
    Memory(MemoryMount),
}

/// Why a `--mount` or `--tmpfs` is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// A key or value that is not known.
    #[error("`{asked}`: `{field}` has no meaning here")]
    Field {
        /// Flag and text.
        asked: String,
        /// The field.
        field: String,
    },
    /// No source or no target.
    #[error("`{asked}` names no {what}")]
    Missing {
        /// Flag and text.
        asked: String,
        /// `source` or `target`.
        what: &'static str,
    },
    /// The same rules as for `-v`.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl Hint for MountError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Volume(error) => error.hint(),
            Self::Field { .. } | Self::Missing { .. } => Some(
                "write `--mount type=bind,source=/data,target=/in,readonly`, `type=volume,source=NAME,target=/in` or \
                 `type=tmpfs,target=/scratch`"
                    .into(),
            ),
        }
    }
}

/// Reads Docker's `--mount type=bind|tmpfs,source=…,target=…,readonly,…`.
pub fn parse_docker_mount(text: &str) -> Result<Asked, MountError> {
    let asked = format!("--mount {text}");
    let bad = |field: &str| MountError::Field { asked: asked.clone(), field: field.into() };
    // docker takes it for a volume where no type is said, which nobody who gives a path means.
    let (mut kind, mut source, mut target, mut options) = ("", None, None, Vec::new());
    let (mut mode, mut size_bytes) = (0o1777, None);
    for field in text.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, "true"));
        match key {
            "type" if matches!(value, "bind" | "tmpfs" | "volume") => kind = value,
            "source" | "src" => source = Some(value),
            "target" | "destination" | "dst" => target = Some(value),
            "readonly" | "ro" if matches!(value, "true" | "1") => options.push("ro"),
            "readonly" | "ro" if matches!(value, "false" | "0") => {}
            "tmpfs-mode" => mode = u32::from_str_radix(value, 8).map_err(|_| bad(field))?,
            "tmpfs-size" => size_bytes = Some(parse_size(value).ok_or_else(|| bad(field))?),
            "volume-nocopy" if matches!(value, "true" | "1") => options.push("nocopy"),
            "volume-nocopy" if matches!(value, "false" | "0") => {}
            "volume-driver" if value == "local" => {}
            "bind-propagation" | "consistency" | "bind-nonrecursive" | "bind-recursive" => {}
            _ => return Err(bad(field)),
        }
    }
    let target = target.ok_or(MountError::Missing { asked: asked.clone(), what: "target" })?;
    if kind == "tmpfs" {
        let target = volume(asked.clone(), "/", target, "", Path::new("/"))?.target;
        return Ok(Asked::Memory(MemoryMount { target, mode, size_bytes, asked }));
    }
    let is_path = |source: &str| source.starts_with(['/', '.', '~']);
    if kind == "volume" || kind.is_empty() && !source.is_some_and(is_path) {
        return Ok(Asked::Volume(kept(asked, source, target, &options.join(","))?));
    }
    let source = source.ok_or(MountError::Missing { asked: asked.clone(), what: "source" })?;
    Ok(Asked::Volume(volume(asked, source, target, &options.join(","), Path::new(""))?))
}

/// Reads Docker's `--tmpfs TARGET[:size=…,mode=…,…]`.
pub fn parse_docker_tmpfs(text: &str) -> Result<MemoryMount, MountError> {
    let asked = format!("--tmpfs {text}");
    let bad = |field: &str| MountError::Field { asked: asked.clone(), field: field.into() };
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let (mut mode, mut size_bytes) = (0o1777, None);
    for field in options.split(',').filter(|field| !field.is_empty()) {
        match field.split_once('=').unwrap_or((field, "")) {
            ("mode", value) => mode = u32::from_str_radix(value, 8).map_err(|_| bad(field))?,
            ("size", value) => size_bytes = Some(parse_size(value).ok_or_else(|| bad(field))?),
            ("rw" | "exec" | "noexec" | "nosuid" | "suid" | "nodev" | "dev" | "noatime" | "relatime", "") => {
            }
            ("uid" | "gid", _) => {}
            _ => return Err(bad(field)),
        }
    }
    let target = volume(asked.clone(), "/", target, "", Path::new("/"))?.target;
    Ok(MemoryMount { target, mode, size_bytes, asked })
}

/// Splits at a separator that has no backslash before it.
fn split_escaped(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for character in text.chars() {
        if character == separator && !escaped {
            parts.push(String::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(character);
        }
        escaped = character == '\\' && !escaped;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_docker_volumes() {
        let check = |text: &str, expected: Result<(&str, &str, bool), &str>| {
            let read = parse_docker_volume(text, Path::new("/w")).map_err(|error| error.to_string());
            let read =
                read.as_ref().map(|v| (v.source.to_str().unwrap(), v.target.to_str().unwrap(), v.read_only));
            assert_eq!(read.map_err(String::as_str), expected, "{text}");
        };
        check("/a:/b", Ok(("/a", "/b", false)));
        check("./a:/b:ro", Ok(("/w/./a", "/b", true)));
        check("/a:/b/../c:rw,z", Ok(("/a", "/c", false)));
        check("a", Err("`-v a` is not of the form SOURCE:TARGET[:OPTIONS]"));
        check(":/a", Err("`-v :/a` is not of the form SOURCE:TARGET[:OPTIONS]"));
        check("da ta:/b", Err("`-v da ta:/b`: `da ta` is neither a path nor a name that a volume may have"));
        check("/a:b", Err("`-v /a:b`: the path inside the container, `b`, is not absolute"));
        check("/a:/", Err("`-v /a:/`: `/` cannot be a mount point"));
        check("/a:/b:wo", Err("`-v /a:/b:wo`: unknown option `wo`"));
        check("/a:/.slipway/run", Err("`-v /a:/.slipway/run`: `/.slipway/run` cannot be a mount point"));
    }

    #[test]
    fn reads_volumes_that_are_kept() {
        let check = |text: &str, name: Option<&str>, copies: bool, read_only: bool| {
            let read = parse_docker_volume(text, Path::new("/w")).unwrap();
            assert_eq!(read.kind, VolumeKind::Kept { name: name.map(str::to_owned), copies }, "{text}");
            assert_eq!((read.target.to_str().unwrap(), read.read_only), ("/b", read_only), "{text}");
        };
        check("data:/b", Some("data"), true, false);
        check("data:/b:ro,nocopy", Some("data"), false, true);
        check("/b", None, true, false);
        let mounts = ["type=volume,source=data,target=/b", "type=volume,src=data,dst=/b,volume-nocopy=true"];
        for (text, copies) in mounts.into_iter().zip([true, false]) {
            let Asked::Volume(read) = parse_docker_mount(text).unwrap() else { panic!("{text}") };
            assert_eq!(read.kind, VolumeKind::Kept { name: Some("data".into()), copies }, "{text}");
        }
        assert!(matches!(image_volume("/b").unwrap().kind, VolumeKind::Kept { name: None, copies: true }));
    }

    #[test]
    fn reads_apptainer_binds() {
        let read = parse_apptainer_binds("/a,/b:/c:ro,/d\\:e\\,f:/g", Path::new("/w")).unwrap();
        let shown: Vec<_> = read
            .iter()
            .map(|v| format!("{} {} {}", v.source.display(), v.target.display(), v.read_only))
            .collect();
        assert_eq!(shown, ["/a /a false", "/b /c true", "/d:e,f /g false"]);
        assert!(parse_apptainer_binds("/a:/b:ro:x", Path::new("/")).is_err());
        assert!(parse_apptainer_binds("", Path::new("/")).is_err());
    }

    #[test]
    fn reads_docker_mounts() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let read = parse_docker_mount(text).map_err(|error| error.to_string()).map(|asked| match asked {
                Asked::Volume(v) => format!("{} {} {}", v.source.display(), v.target.display(), v.read_only),
                Asked::Memory(m) => format!("{} {:o} {:?}", m.target.display(), m.mode, m.size_bytes),
            });
            assert_eq!(read.as_deref().map_err(String::as_str), expected, "{text}");
        };
        check("type=bind,source=/a,target=/b", Ok("/a /b false"));
        check("src=./a,dst=/b,readonly", Ok("./a /b true"));
        check("type=tmpfs,target=/s,tmpfs-size=1m,tmpfs-mode=700", Ok("/s 700 Some(1048576)"));
        check(
            "type=npipe,source=x,target=/b",
            Err("`--mount type=npipe,source=x,target=/b`: `type=npipe` has no meaning here"),
        );
        check("type=bind,target=/b", Err("`--mount type=bind,target=/b` names no source"));
        check("type=bind,source=/a", Err("`--mount type=bind,source=/a` names no target"));
        let read = parse_docker_tmpfs("/run:size=64k,mode=755,noexec").unwrap();
        assert_eq!((read.target.to_str().unwrap(), read.mode, read.size_bytes), ("/run", 0o755, Some(65536)));
        assert!(parse_docker_tmpfs("/run:huge=1").is_err() && parse_docker_tmpfs("run").is_err());
    }
}
