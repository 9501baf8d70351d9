//! CUDA's forward compatibility: an image can carry the user-space driver of a newer CUDA, which works on some older kernel
//! drivers. Whether it does is decided as NVIDIA's container toolkit 1.20 does in its hook (`cudacompat`).
//!
//! What the image has is read by our own reader before the start; nothing of it is executed.

use std::cmp::Ordering;
use std::env::consts::ARCH;
use std::io;
use std::path::Path;

use serde::Deserialize;

use crate::base::{ReadAt, RelPath};
use crate::elf::{self, cache};
use crate::grants::Grants;
use crate::squashfs::read::{Inode, ReadError, Reader};

use super::super::Inventory;
use super::libs::LOADER_CACHE;
use super::require;

/// Where images for CUDA have the libraries (packages `cuda-compat-*`).
const DIRECTORY: &str = "usr/local/cuda/compat";
/// What the newer driver says of the older ones that it works on.
const NOTE_SECTION: &str = ".note.cuda.fwd_compatibility";
const NOTE_OWNER: &str = "NVIDIA Corporation";
const MAIN_LIBRARY: &str = "libcuda.so.";
/// Variables of NVIDIA's images and tools that switch it off.
pub const CUDA_COMPAT_SWITCHES: [&str; 2] =
    ["NVIDIA_DISABLE_FORWARD_COMPATIBILITY", "NVIDIA_DISABLE_CUDA_COMPAT"];

/// When an image's own CUDA driver libraries are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardCompat {
    /// Where they are newer than the host's driver and made for it.
    Auto,
    /// Never.
    Off,
    /// Wherever there are some.
    Always,
}

/// The compatibility libraries of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaCompat {
    /// Their directory inside, absolute, links resolved.
    directory: String,
    /// Names of the libraries in it, links included.
    names: Vec<String>,
    /// Versions of the `libcuda.so.*.*` in it.
    versions: Vec<String>,
    /// The SONAME of the one main library.
    soname: Option<String>,
    /// The note of the one main library: its text, or why it cannot be read.
    note: Option<Result<String, String>>,
}

/// The part of the note that is looked at.
#[derive(Debug, Deserialize)]
struct Note {
    #[serde(rename = "CUDA Version")]
    cuda: Option<String>,
    /// Branches of drivers on which the libraries work.
    #[serde(rename = "Driver", default)]
    drivers: Vec<u32>,
}

/// True if a variable of NVIDIA's says that the host's driver is to be used; `env` is `NAME=value` lines.
#[must_use]
pub fn is_cuda_compat_disabled(env: &[String]) -> bool {
    env.iter().filter_map(|line| line.split_once('=')).any(|(name, value)| {
        CUDA_COMPAT_SWITCHES.contains(&name)
            && !matches!(value.to_ascii_lowercase().as_str(), "" | "0" | "f" | "false" | "no")
    })
}

/// What an image has of CUDA's compatibility libraries. `None` without their directory, which costs a lookup or two.
pub fn find_cuda_compat(reader: &Reader) -> Result<Option<CudaCompat>, ReadError> {
    let Ok(path) = RelPath::parse(DIRECTORY.as_bytes()) else { return Ok(None) };
    let found = reader.resolve_path(&path)?;
    let Some(directory) = found.inode.filter(Inode::is_directory) else { return Ok(None) };
    let entries = reader.read_dir(&directory)?;
    let names = entries.iter().filter_map(|entry| std::str::from_utf8(&entry.name).ok());
    let names: Vec<String> = names.filter(|name| is_library(name)).map(str::to_owned).collect();
    let versions: Vec<String> = names
        .iter()
        .filter_map(|name| name.strip_prefix(MAIN_LIBRARY).filter(|version| version.contains('.')))
        .map(str::to_owned)
        .collect();
    let mut compat =
        CudaCompat { directory: format!("/{}", found.path), names, versions, soname: None, note: None };
    if let [version] = &compat.versions[..] {
        let main = RelPath::parse(format!("{}/{MAIN_LIBRARY}{version}", found.path).as_bytes());
        let inode = main.ok().and_then(|main| reader.resolve(&main, true).transpose()).transpose()?;
        if let Some(inode) = inode.filter(Inode::is_file) {
            let file = ImageFile { reader, inode };
            compat.soname = elf::shared_object(&file).ok().and_then(|object| object.soname);
            compat.note = match elf::note(&file, NOTE_SECTION, NOTE_OWNER) {
                Ok(None) => None,
                Ok(Some(bytes)) => Some(String::from_utf8(bytes).map_err(|_| "it is no text".to_owned())),
                Err(error) => Some(Err(error.to_string())),
            };
        }
    }
    Ok(Some(compat))
}

/// `libcuda.so`, `libcuda.so.1`, `libnvidia-nvvm.so.4`: what a loader can be asked for.
fn is_library(name: &str) -> bool {
    name.starts_with("lib") && (name.ends_with(".so") || name.contains(".so."))
}

/// Puts an image's compatibility libraries before the host's where they are to be used, and says why, or why not.
pub fn grant_cuda_compat(
    grants: &mut Grants,
    inventory: &Inventory,
    compat: Option<&CudaCompat>,
    wish: ForwardCompat,
) {
    if grants.libraries.is_empty() {
        return;
    }
    if wish == ForwardCompat::Off {
        grants.notes.push("CUDA's compatibility libraries of the image are not used: they are off".into());
        return;
    }
    let Some(compat) = compat else {
        grants.notes.push(format!("the image has no CUDA compatibility libraries in `/{DIRECTORY}`"));
        return;
    };
    let place = &compat.directory;
    match decide(compat, inventory, wish) {
        Ok((version, why)) => {
            put_first(grants, compat);
            grants.notes.push(format!(
                "CUDA's compatibility libraries {version} of the image (`{place}`) go before the host's: {why}"
            ));
        }
        Err(why) => grants
            .notes
            .push(format!("CUDA's compatibility libraries of the image (`{place}`) are not used: {why}")),
    }
}

/// Version and reason if the libraries are to be used, else why they are not.
fn decide<'a>(
    compat: &'a CudaCompat,
    inventory: &Inventory,
    wish: ForwardCompat,
) -> Result<(&'a str, String), String> {
    let version = match &compat.versions[..] {
        [version] => version.as_str(),
        [] => return Err("there is no libcuda.so.*.* in it".into()),
        several => return Err(format!("there is more than one libcuda in it ({})", several.join(", "))),
    };
    if wish == ForwardCompat::Always {
        return Ok((version, "gpu.forward_compat is \"always\"".into()));
    }
    let driver = inventory.driver_version.as_deref().unwrap_or_default();
    let host_major = major(driver).ok_or("the version of the host's driver is not known")?;
    let Some(note) = &compat.note else {
        return match major(version) {
            Some(major) if major > host_major => {
                Ok((version, format!("they are newer than the host's driver, {driver}")))
            }
            _ => Err(format!("{version} is not newer than the host's driver, {driver}")),
        };
    };
    let note = note.clone().and_then(|text| {
        serde_json::from_str::<Note>(&text).map_err(|error| format!("it is not what NVIDIA writes ({error})"))
    });
    let note = note.map_err(|why| format!("their note cannot be read: {why}"))?;
    if !note.drivers.is_empty() && !note.drivers.contains(&host_major) {
        let drivers: Vec<String> = note.drivers.iter().map(u32::to_string).collect();
        let drivers = drivers.join(", ");
        return Err(format!("they are made for the drivers {drivers}, and the host's is {driver}"));
    }
    let of_host = inventory.cuda_version.as_deref().or_else(|| require::cuda_of_driver(driver));
    let of_host = of_host.ok_or_else(|| format!("the CUDA of the host's driver {driver} is not known"))?;
    let of_image = note.cuda.ok_or("their note has no CUDA version")?;
    match require::compare(&of_image, of_host) {
        Some(Ordering::Greater) => {
            Ok((version, format!("they bring CUDA {of_image} to driver {driver}, which has {of_host}")))
        }
        _ => Err(format!("they have CUDA {of_image}, and the host's driver {driver} has {of_host}")),
    }
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

/// By the cache where there is one of ours, else by the variable.
fn put_first(grants: &mut Grants, compat: &CudaCompat) {
    let directory = &compat.directory;
    if let Some(file) = grants.files.iter_mut().find(|file| file.target == Path::new(LOADER_CACHE)) {
        let mut entries: Vec<(String, String)> =
            compat.names.iter().map(|name| (name.clone(), format!("{directory}/{name}"))).collect();
        // ldconfig makes a link of this name where the package has not.
        if let ([version], Some(soname)) = (&compat.versions[..], &compat.soname)
            && !compat.names.contains(soname)
        {
            entries.push((soname.clone(), format!("{directory}/{MAIN_LIBRARY}{version}")));
        }
        file.content = cache::merge(Some(&file.content), &entries, ARCH);
    }
    if let Some((_, value)) = grants.env.iter_mut().find(|(name, _)| name == "LD_LIBRARY_PATH") {
        *value = format!("{directory}:{value}");
        grants.notes.push(format!("LD_LIBRARY_PATH is `{value}`"));
    }
}

/// A file of the image, read where the ELF readers look.
struct ImageFile<'a> {
    reader: &'a Reader,
    inode: Inode,
}

impl ReadAt for ImageFile<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.reader.read_at(&self.inode, offset, buf).map_err(io::Error::other)
    }

    fn size_bytes(&self) -> u64 {
        self.inode.size_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compat(versions: &[&str], note: Option<&str>) -> CudaCompat {
        CudaCompat {
            directory: "/usr/local/cuda-13.1/compat".into(),
            names: vec!["libcuda.so.1".into()],
            versions: versions.iter().map(|version| (*version).to_owned()).collect(),
            soname: Some("libcuda.so.1".into()),
            note: note.map(|text| Ok(text.to_owned())),
        }
    }

    fn host(driver: Option<&str>, cuda: Option<&str>) -> Inventory {
        Inventory {
            driver_version: driver.map(str::to_owned),
            cuda_version: cuda.map(str::to_owned),
            ..Inventory::default()
        }
    }

    #[test]
    fn the_rule_of_the_toolkit() {
        let note = r#"{"Format": 1, "CUDA Version": "13.1", "Driver": [535, 550, 580], "Device": [7, 8]}"#;
        let open = r#"{"CUDA Version": "12.4"}"#;
        let check =
            |versions: &[&str], note: Option<&str>, host: &Inventory, expected: Result<&str, &str>| {
                let compat = compat(versions, note);
                let found = decide(&compat, host, ForwardCompat::Auto).map(|(_, why)| why);
                assert_eq!(found.as_deref().map_err(String::as_str), expected, "{versions:?}");
            };
        let ours = host(Some("550.54.15"), None);
        check(&["590.44.01"], None, &ours, Ok("they are newer than the host's driver, 550.54.15"));
        check(&["550.90.07"], None, &ours, Err("550.90.07 is not newer than the host's driver, 550.54.15"));
        // As numbers, and not as text.
        let old = host(Some("99.1"), None);
        check(&["535.1.2"], None, &old, Ok("they are newer than the host's driver, 99.1"));
        check(
            &["590.44.01"],
            Some(note),
            &ours,
            Ok("they bring CUDA 13.1 to driver 550.54.15, which has 12.4"),
        );
        check(
            &["590.44.01"],
            Some(note),
            &host(Some("565.57.01"), None),
            Err("they are made for the drivers 535, 550, 580, and the host's is 565.57.01"),
        );
        check(
            &["590.44.01"],
            Some(note),
            &host(Some("580.95.05"), Some("13.1")),
            Err("they have CUDA 13.1, and the host's driver 580.95.05 has 13.1"),
        );
        check(
            &["1.1"],
            Some(open),
            &ours,
            Err("they have CUDA 12.4, and the host's driver 550.54.15 has 12.4"),
        );
        check(
            &["1.1"],
            Some(open),
            &host(Some("9999.1"), None),
            Err("the CUDA of the host's driver 9999.1 is not known"),
        );
        check(&["1.1"], Some("{}"), &ours, Err("their note has no CUDA version"));
        check(
            &["1.1"],
            Some("["),
            &ours,
            Err(
                "their note cannot be read: it is not what NVIDIA writes (EOF while parsing a list at line 1 column 1)",
            ),
        );
        check(&["1.1"], None, &host(None, None), Err("the version of the host's driver is not known"));
        check(&[], None, &ours, Err("there is no libcuda.so.*.* in it"));
        check(&["1.1", "1.2"], None, &ours, Err("there is more than one libcuda in it (1.1, 1.2)"));
        let always = compat(&["1.1"], Some("["));
        assert!(decide(&always, &host(None, None), ForwardCompat::Always).is_ok());
        assert!(decide(&compat(&[], None), &ours, ForwardCompat::Always).is_err());
    }

    #[test]
    fn variables_of_nvidia_switch_it_off() {
        let check = |line: &str, expected: bool| {
            assert_eq!(is_cuda_compat_disabled(&[line.to_owned()]), expected, "{line}");
        };
        check("NVIDIA_DISABLE_CUDA_COMPAT=1", true);
        check("NVIDIA_DISABLE_FORWARD_COMPATIBILITY=true", true);
        check("NVIDIA_DISABLE_CUDA_COMPAT=0", false);
        check("NVIDIA_DISABLE_CUDA_COMPAT=", false);
        check("NVIDIA_DISABLE_REQUIRE=1", false);
    }
}
