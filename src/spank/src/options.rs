//! The options of the plugin, and the command line of slipway that they stand for. Pure.

use std::collections::BTreeMap;

/// What an option asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// The image: a name, or the path of a file.
    Image,
    /// Binds: `SOURCE[:TARGET[:FLAGS]]`, several with commas.
    Mounts,
    /// Variables: `NAME[=VALUE]`, several with commas.
    Env,
    /// The working directory.
    Workdir,
    /// The root can be written to, or not.
    Writable,
    /// The GPUs, as `slipway run --gpus` takes them.
    Gpus,
    /// The set of defaults.
    Profile,
    /// The caller's home is mounted, or not.
    Home,
    /// The caller is root inside, or not.
    Root,
    /// The image's ENTRYPOINT runs the command, or not.
    Entrypoint,
    /// Namespaces of the container's own: `net`, `ipc`, `uts`.
    Unshare,
    /// Further flags of `slipway run`, split at blanks.
    Flags,
    /// Taken without effect.
    Nothing,
    /// What this plugin does not do; the words say what does.
    Refused(&'static str),
}

/// One option of `srun` and `sbatch`.
#[derive(Debug)]
pub(crate) struct Choice {
    /// Its name, without the dashes.
    pub(crate) name: &'static str,
    /// What its argument is; `None` for a switch.
    pub(crate) argument: Option<&'static str>,
    /// One line of help.
    pub(crate) usage: &'static str,
    /// What it asks for.
    pub(crate) key: Key,
    /// What a switch says.
    pub(crate) value: &'static str,
}

const fn valued(name: &'static str, argument: &'static str, usage: &'static str, key: Key) -> Choice {
    Choice { name, argument: Some(argument), usage, key, value: "" }
}

const fn switch(name: &'static str, usage: &'static str, key: Key, value: &'static str) -> Choice {
    Choice { name, argument: None, usage, key, value }
}

/// Our own names.
pub(crate) static OWN: &[Choice] = &[
    valued("slipway-image", "IMAGE", "run the task in this image: a name, or a .sif file", Key::Image),
    valued("slipway-mounts", "SRC[:DST[:FLAGS]],...", "bind host paths", Key::Mounts),
    valued("slipway-env", "NAME[=VALUE],...", "set variables, or keep the host's", Key::Env),
    valued("slipway-workdir", "DIR", "working directory in the container", Key::Workdir),
    switch("slipway-writable", "let the root be written to, in memory", Key::Writable, "yes"),
    valued("slipway-gpus", "GPUS", "GPUs: job, all, none, a number, or device=...", Key::Gpus),
    valued("slipway-profile", "NAME", "set of defaults: hpc or docker", Key::Profile),
    switch("slipway-no-home", "do not mount the home directory", Key::Home, "no"),
    switch("slipway-root", "be root in the container", Key::Root, "yes"),
    switch("slipway-entrypoint", "run the command by the image's ENTRYPOINT", Key::Entrypoint, "yes"),
    valued("slipway-flags", "FLAGS", "further flags of slipway run", Key::Flags),
];

const NO_NAMES: &str = "containers that outlive a step are not made here; \
     `slipway run -d --name NAME` and `slipway exec NAME` do that within a job";
const NO_SAVE: &str =
    "a step's root is not saved; `slipway commit` makes an image of a container, and a bind keeps files";

/// Those of pyxis, for scripts that use it.
pub(crate) static PYXIS: &[Choice] = &[
    valued("container-image", "[USER@][REGISTRY#]IMAGE[:TAG]|PATH", "run the task in this image", Key::Image),
    valued("container-mounts", "SRC:DST[:FLAGS][,SRC:DST...]", "bind host paths", Key::Mounts),
    valued("container-workdir", "PATH", "working directory in the container", Key::Workdir),
    valued("container-name", "NAME", "not supported", Key::Refused(NO_NAMES)),
    valued("container-save", "PATH", "not supported", Key::Refused(NO_SAVE)),
    switch("container-mount-home", "mount the home directory", Key::Home, "yes"),
    switch("no-container-mount-home", "do not mount the home directory", Key::Home, "no"),
    switch("container-remap-root", "be root in the container", Key::Root, "yes"),
    switch("no-container-remap-root", "be yourself in the container", Key::Root, "no"),
    switch("container-entrypoint", "run the command by the image's ENTRYPOINT", Key::Entrypoint, "yes"),
    switch("no-container-entrypoint", "run the command itself", Key::Entrypoint, "no"),
    switch("container-entrypoint-log", "the entrypoint's output is always shown", Key::Nothing, ""),
    switch("container-writable", "let the root be written to", Key::Writable, "yes"),
    switch("container-readonly", "let nothing be written to the root", Key::Writable, "no"),
    valued("container-env", "NAME[,NAME...]", "variables whose host values win", Key::Env),
    valued("container-unshare", "NAMESPACE[,...]", "net, ipc or uts of the container's own", Key::Unshare),
];

/// The options that were given, the later value of each.
pub(crate) type Given = BTreeMap<Key, String>;

/// Adds what pyxis's variables say (`PYXIS_CONTAINER_IMAGE` and its like), where no option does.
pub(crate) fn add_variables(given: &mut Given, lookup: impl Fn(&str) -> Option<String>) {
    for choice in PYXIS.iter().filter(|choice| choice.argument.is_some()) {
        let name = format!("PYXIS_{}", choice.name.to_uppercase().replace('-', "_"));
        if let Some(value) = lookup(&name).filter(|value| !value.is_empty()) {
            given.entry(choice.key).or_insert(value);
        }
    }
}

/// Flags of a mount, in pyxis's words, that change nothing here: what they ask for is so anyway, or not for a user to say.
const IDLE_FLAGS: &[&str] = &[
    "rw",
    "bind",
    "rbind",
    "private",
    "rprivate",
    "slave",
    "rslave",
    "nosuid",
    "nodev",
    "x-create=auto",
    "x-create=dir",
    "x-create=file",
];

/// The words of `slipway` up to the command: `run`, flags, the image. `None` where no image was asked for.
///
/// `script` is the file that `sbatch` has put on the node, which the container must see at its place. The error is a
/// sentence for the user.
pub(crate) fn words(given: &Given, script: Option<&str>) -> Result<Option<Vec<String>>, String> {
    if let Some(Key::Refused(why)) = given.keys().find(|key| matches!(key, Key::Refused(_))) {
        return Err((*why).to_owned());
    }
    let Some(image) = given.get(&Key::Image) else {
        let others = given.keys().any(|key| *key != Key::Nothing);
        return if others { Err("no image was named: add --slipway-image=IMAGE".into()) } else { Ok(None) };
    };
    let mut words = vec!["run".to_owned()];
    let get = |key| given.get(&key).map(String::as_str);
    for mount in list(get(Key::Mounts)) {
        mount_words(mount, &mut words)?;
    }
    for variable in list(get(Key::Env)) {
        words.extend(["-e".to_owned(), variable.to_owned()]);
    }
    for (key, flag) in [(Key::Workdir, "-w"), (Key::Gpus, "--gpus"), (Key::Profile, "--profile")] {
        words.extend(get(key).into_iter().flat_map(|value| [flag.to_owned(), value.to_owned()]));
    }
    for (key, value, flag) in [
        (Key::Writable, "yes", "--writable-tmpfs"),
        (Key::Writable, "no", "--read-only"),
        (Key::Home, "no", "--no-home"),
        (Key::Root, "yes", "--fakeroot"),
    ] {
        if get(key) == Some(value) {
            words.push(flag.to_owned());
        }
    }
    if get(Key::Entrypoint) != Some("yes") {
        words.extend(["--entrypoint".to_owned(), String::new()]);
    }
    for namespace in list(get(Key::Unshare)) {
        words.push(match namespace {
            "net" => "--network=none".into(),
            "ipc" => "--ipc=private".into(),
            "uts" => "--hostname=container".into(),
            other => {
                return Err(format!(
                    "there is no namespace `{other}` to unshare: net, ipc and uts are known"
                ));
            }
        });
    }
    if let Some(script) = script {
        words.extend(["-v".to_owned(), format!("{script}:{script}:ro")]);
    }
    words.extend(get(Key::Flags).unwrap_or_default().split_whitespace().map(str::to_owned));
    words.push(image_of(image));
    Ok(Some(words))
}

fn list(value: Option<&str>) -> impl Iterator<Item = &str> {
    value.unwrap_or_default().split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// enroot writes a registry with `#` behind it, and a user before it, who is in the credentials' file here.
fn image_of(text: &str) -> String {
    let Some((registry, name)) = text.split_once('#') else { return text.to_owned() };
    let (scheme, registry) = match registry.split_once("://") {
        Some((scheme, registry)) => (format!("{scheme}://"), registry),
        None => (String::new(), registry),
    };
    let registry = registry.rsplit_once('@').map_or(registry, |(_, registry)| registry);
    format!("{scheme}{registry}/{name}")
}

fn mount_words(mount: &str, words: &mut Vec<String>) -> Result<(), String> {
    let mut parts = mount.splitn(3, ':');
    let source = parts.next().unwrap_or_default();
    let target = parts.next().filter(|target| !target.is_empty()).unwrap_or(source);
    let flags: Vec<&str> =
        parts.next().unwrap_or_default().split(['+', ',']).filter(|flag| !flag.is_empty()).collect();
    if let Some(flag) = flags.iter().find(|flag| **flag != "ro" && !IDLE_FLAGS.contains(flag)) {
        return Err(format!("the flag `{flag}` of the mount `{mount}` is not known: ro and rw are"));
    }
    match source {
        "" => return Err(format!("the mount `{mount}` names no path of the host")),
        "tmpfs" => words.extend(["--tmpfs".to_owned(), target.to_owned()]),
        "umount" => words.extend(["--no-mount".to_owned(), target.to_owned()]),
        _ => {
            let how = if flags.contains(&"ro") { ":ro" } else { "" };
            words.extend(["-v".to_owned(), format!("{source}:{target}{how}")]);
        }
    }
    Ok(())
}

/// The words as one variable: the number of the process that they are for, then each as `LENGTH:WORD`.
pub(crate) fn encode(pid: u32, words: &[String]) -> String {
    words.iter().fold(format!("{pid} "), |text, word| format!("{text}{}:{word}", word.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(given: &[(Key, &str)], script: Option<&str>) -> Result<Option<String>, String> {
        let given = given.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        words(&given, script).map(|words| words.map(|words| words.join(" ")))
    }

    #[test]
    fn options_become_flags() {
        assert_eq!(line(&[], None), Ok(None));
        assert_eq!(line(&[(Key::Nothing, "")], None), Ok(None));
        let check = |given: &[(Key, &str)], expected: &str| {
            let given: Vec<_> = given.iter().chain(&[(Key::Image, "x.sif")]).copied().collect();
            assert_eq!(line(&given, None).unwrap().unwrap(), expected);
        };
        check(&[], "run --entrypoint  x.sif");
        check(&[(Key::Entrypoint, "yes")], "run x.sif");
        check(
            &[
                (Key::Mounts, "/a:/b:ro,/c,tmpfs:/d,/e:/f:ro+x-create=dir,umount:/g"),
                (Key::Entrypoint, "yes"),
            ],
            "run -v /a:/b:ro -v /c:/c --tmpfs /d -v /e:/f:ro --no-mount /g x.sif",
        );
        check(
            &[
                (Key::Env, "A=1,B"),
                (Key::Workdir, "/w"),
                (Key::Gpus, "2"),
                (Key::Profile, "docker"),
                (Key::Writable, "yes"),
                (Key::Home, "no"),
                (Key::Root, "yes"),
                (Key::Unshare, "net,ipc,uts"),
                (Key::Flags, "--init  --pid=private"),
            ],
            "run -e A=1 -e B -w /w --gpus 2 --profile docker --writable-tmpfs --no-home --fakeroot --entrypoint  \
             --network=none --ipc=private --hostname=container --init --pid=private x.sif",
        );
        check(
            &[(Key::Writable, "no"), (Key::Home, "yes"), (Key::Root, "no")],
            "run --read-only --entrypoint  x.sif",
        );
        assert_eq!(
            line(&[(Key::Image, "i"), (Key::Entrypoint, "yes")], Some("/s/script")).unwrap().unwrap(),
            "run -v /s/script:/s/script:ro i"
        );
    }

    #[test]
    fn enroots_spelling_of_images_is_understood() {
        for (given, expected) in [
            ("nvcr.io#nvidia/pytorch:24.01-py3", "nvcr.io/nvidia/pytorch:24.01-py3"),
            ("me@registry:5000#a/b", "registry:5000/a/b"),
            ("docker://me@nvcr.io#nvidia/cuda", "docker://nvcr.io/nvidia/cuda"),
            ("ubuntu:22.04", "ubuntu:22.04"),
            ("./image.sqsh", "./image.sqsh"),
        ] {
            assert_eq!(image_of(given), expected);
        }
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        let fails = |given: &[(Key, &str)]| line(given, None).unwrap_err();
        assert_eq!(fails(&[(Key::Gpus, "1")]), "no image was named: add --slipway-image=IMAGE");
        assert!(fails(&[(Key::Image, "i"), (Key::Refused(NO_SAVE), "/x")]).contains("slipway commit"));
        assert_eq!(
            fails(&[(Key::Image, "i"), (Key::Mounts, "/a:/b:rx")]),
            "the flag `rx` of the mount `/a:/b:rx` is not known: ro and rw are"
        );
        assert_eq!(
            fails(&[(Key::Image, "i"), (Key::Mounts, ":/b")]),
            "the mount `:/b` names no path of the host"
        );
        assert_eq!(
            fails(&[(Key::Image, "i"), (Key::Unshare, "pid")]),
            "there is no namespace `pid` to unshare: net, ipc and uts are known"
        );
    }

    #[test]
    fn variables_stand_in_for_options() {
        let mut given = Given::from([(Key::Workdir, "/w".to_owned())]);
        add_variables(&mut given, |name| {
            let values = [
                ("PYXIS_CONTAINER_IMAGE", "i"),
                ("PYXIS_CONTAINER_WORKDIR", "/x"),
                ("PYXIS_CONTAINER_ENV", ""),
            ];
            values.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        });
        assert_eq!(words(&given, None).unwrap().unwrap().join(" "), "run -w /w --entrypoint  i");
    }

    #[test]
    fn names_are_unique_and_fit() {
        let mut names: Vec<_> = OWN.iter().chain(PYXIS).map(|choice| choice.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(names.iter().all(|name| name.len() <= 75), "SPANK_OPTION_MAXLEN");
    }

    #[test]
    fn words_are_encoded() {
        assert_eq!(encode(7, &["run".into(), String::new(), "a b".into()]), "7 3:run0:3:a b");
    }
}
