//! What the hooks of NVIDIA's container toolkit are to do.
//!
//! They are written as `nvidia-cdi-hook NAME FLAGS`, `nvidia-ctk hook NAME FLAGS` in older files. None is executed: what
//! they change in a container's files, a launch without root brings about by other means.

use super::Hook;

/// Everything that the hooks of a specification want.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// `create-symlinks`: target and link.
    pub(super) links: Vec<(String, String)>,
    /// `update-ldcache`: directories in which the loader is to find libraries.
    pub(super) folders: Vec<String>,
    /// `disable-device-node-modification`.
    pub(super) masks_params: bool,
    /// `update-application-profile`.
    pub(super) makes_profile: bool,
    /// What has no effect here, and why.
    pub(super) notes: Vec<String>,
}

/// Adds what a hook wants, or returns the words by which it is known.
pub(super) fn read(hook: &Hook, wanted: &mut Wanted) -> Result<(), String> {
    let program = hook.path.rsplit('/').next().unwrap_or_default();
    let mut words = hook.args.iter().map(String::as_str).skip(1).peekable();
    let known = match program {
        "nvidia-cdi-hook" => true,
        "nvidia-ctk" => words.next() == Some("hook"),
        _ => false,
    };
    let name = words.next().unwrap_or_default();
    let unknown = || format!("{} {name}", hook.path).trim_end().to_owned();
    if !known {
        return Err(unknown());
    }
    let flags: Vec<&str> = words.collect();
    match name {
        "create-symlinks" => {
            for link in values(&flags, "link") {
                let (target, place) = link.split_once("::").ok_or_else(unknown)?;
                wanted.links.push((target.to_owned(), place.to_owned()));
            }
        }
        "update-ldcache" => {
            wanted
                .folders
                .extend(values(&flags, "folder").map(|folder| folder.trim_end_matches('/').to_owned()));
        }
        "disable-device-node-modification" | "update-nvidia-params" => wanted.masks_params = true,
        "update-application-profile" => wanted.makes_profile = true,
        // `gpu::grant_cuda_compat` does it for every container with a driver.
        "enable-cuda-compat" => {}
        "chmod" => wanted.notes.push(format!(
            "the hook chmod has no effect: directories that are made for `{}` can be entered by the caller",
            values(&flags, "path").collect::<Vec<_>>().join(", ")
        )),
        _ => return Err(unknown()),
    }
    Ok(())
}

/// The values of a flag that can be repeated, written `--flag value` or `--flag=value`.
fn values<'a>(flags: &'a [&'a str], name: &'a str) -> impl Iterator<Item = &'a str> {
    let next = flags.iter().skip(1).map(Some).chain([None]);
    flags.iter().zip(next).filter_map(move |(flag, next)| {
        let rest = flag.trim_start_matches('-').strip_prefix(name)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(value),
            None if rest.is_empty() && flag.starts_with('-') => next.copied(),
            None => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(line: &str) -> Hook {
        let args: Vec<String> = line.split(' ').map(String::from).collect();
        Hook { hook_name: "createContainer".into(), path: args[0].clone(), args, ..Hook::default() }
    }

    #[test]
    fn nvidias_hooks_are_understood_in_both_forms() {
        let mut wanted = Wanted::default();
        for line in [
            "/usr/bin/nvidia-cdi-hook create-symlinks --link libcuda.so.1::/usr/lib64/libcuda.so --link=../a::/b/c",
            "/usr/bin/nvidia-ctk hook update-ldcache --folder /usr/lib64 --folder=/usr/lib64/vdpau/",
            "/usr/bin/nvidia-cdi-hook disable-device-node-modification",
            "/usr/bin/nvidia-cdi-hook update-application-profile",
            "/usr/bin/nvidia-cdi-hook enable-cuda-compat --host-driver-version=550.54.15",
            "/usr/bin/nvidia-ctk hook chmod --mode 755 --path /dev/dri",
        ] {
            read(&hook(line), &mut wanted).unwrap();
        }
        let link = |target: &str, place: &str| (target.to_owned(), place.to_owned());
        assert_eq!(wanted.links, [link("libcuda.so.1", "/usr/lib64/libcuda.so"), link("../a", "/b/c")]);
        assert_eq!(wanted.folders, ["/usr/lib64", "/usr/lib64/vdpau"]);
        assert!(wanted.masks_params && wanted.makes_profile);
        assert_eq!(wanted.notes.len(), 1);
    }

    #[test]
    fn others_are_not() {
        for (line, expected) in [
            ("/usr/bin/vendor-hook", "/usr/bin/vendor-hook"),
            (
                "/usr/bin/nvidia-cdi-hook apply-cuda-memory-limits x",
                "/usr/bin/nvidia-cdi-hook apply-cuda-memory-limits",
            ),
            ("/usr/bin/nvidia-ctk runtime configure", "/usr/bin/nvidia-ctk configure"),
            ("/usr/bin/nvidia-cdi-hook create-symlinks --link x", "/usr/bin/nvidia-cdi-hook create-symlinks"),
        ] {
            assert_eq!(read(&hook(line), &mut Wanted::default()), Err(expected.to_owned()), "{line}");
        }
    }
}
