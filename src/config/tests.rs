use super::*;
use crate::base::{Hint as _, Origin};
use crate::squashfs::compress::Compressor;

fn env(pairs: &[(&str, &str)]) -> Environment {
    [("HOME", "/home/u")].iter().chain(pairs).map(|(name, value)| (name.into(), value.into())).collect()
}

fn merge(texts: &[&str], pairs: &[(&str, &str)], flags: &[FlagValue]) -> Result<Settings, ConfigError> {
    let paths = ["/etc/slipway.toml", "/home/u/slipway.toml"];
    let texts: Vec<_> =
        paths.into_iter().map(Path::new).zip(texts.iter().map(|text| (*text).to_owned())).collect();
    let sources = Sources { files: &[], env: &env(pairs), flags, place: None };
    Ok(Merge::default().all(&texts, &sources)?.settings)
}

#[test]
fn the_documented_file_is_the_built_in_one() {
    let text = include_str!("../../configs/slipway.toml");
    let documented = merge(&[text], &[], &[]).unwrap();
    let built_in = merge(&[], &[], &[]).unwrap();
    for key in KEYS {
        let (value, origin) = (key.show)(&documented);
        assert_eq!(value, (key.show)(&built_in).0, "{}", key.name);
        let Origin::File { line, .. } = origin else { panic!("`{}` is not in the file", key.name) };
        let name = key.name.split('.').nth(1).unwrap();
        assert!(text.lines().nth(line - 1).unwrap().starts_with(name), "{} at {line}", key.name);
    }
}

#[test]
fn later_layers_win_and_tell_where_they_are() {
    let system = "[store]\ndir = \"/scratch/$USER/slipway\"\nkeep_blobs = false\n[convert]\nthreads = 8\n";
    let user = "# mine\n[convert]\nthreads = 4\ncompression = \"gzip:9\"\n[fuse]\ncache = \"1GiB\"\n";
    let flags = [FlagValue { key: "registry.insecure", flag: "--insecure".into(), text: "a:5000, b".into() }];
    let variables = [
        ("USER", "u"),
        ("SLIPWAY_FUSE_CACHE", "64m"),
        ("SLIPWAY_PROFILE", "docker"),
        ("SLIPWAY_RUN_BINDS", ""),
    ];
    let settings = merge(&[system, user], &variables, &flags).unwrap();
    assert_eq!(settings.store.dir.value, Path::new("/scratch/u/slipway"));
    assert_eq!(settings.store.dir.origin.to_string(), "/etc/slipway.toml:2");
    assert_eq!(settings.convert.compression.value, Compressor::Gzip(9));
    assert_eq!(
        settings.show(),
        r#"store.dir = "/scratch/u/slipway"  # /etc/slipway.toml:2
store.keep_blobs = false  # /etc/slipway.toml:3
convert.compression = "gzip:9"  # /home/u/slipway.toml:4
convert.threads = 4  # /home/u/slipway.toml:3
convert.max_entries = 4000000  # built-in default
convert.max_bytes = "1TiB"  # built-in default
fuse.threads = 0  # built-in default
fuse.cache = "64MiB"  # environment variable SLIPWAY_FUSE_CACHE
fuse.no_open = "auto"  # built-in default
fuse.push = false  # built-in default
launch.linger = "auto"  # built-in default
launch.rootfs = "auto"  # built-in default
launch.unpack_dir = "auto"  # built-in default
launch.unpack_keep_hours = 24  # built-in default
registry.insecure = ["a:5000", "b"]  # flag --insecure
registry.mirrors = []  # built-in default
registry.connect_timeout_seconds = 10  # built-in default
registry.read_timeout_seconds = 60  # built-in default
registry.retries = 4  # built-in default
registry.parallel_layers = 3  # built-in default
registry.connections_per_layer = 4  # built-in default
run.profile = "docker"  # environment variable SLIPWAY_PROFILE
run.mount_home = true  # built-in default
run.mount_tmp = true  # built-in default
run.binds = []  # built-in default
gpu.default = "job"  # built-in default
gpu.nvml_timeout_seconds = 5  # built-in default
gpu.rdma = true  # built-in default
gpu.forward_compat = "auto"  # built-in default
gpu.driver_root = "auto"  # built-in default
gpu.device_root = "auto"  # built-in default
gpu.library_path = []  # built-in default
cdi.spec_dirs = []  # built-in default
cdi.ignore_hooks = []  # built-in default
"#
    );
    // What is shown can be read again.
    let again = merge(&[&settings.show()], &[], &[]).unwrap();
    let values = |settings: &Settings| KEYS.iter().map(|key| (key.show)(settings).0).collect::<Vec<_>>();
    assert_eq!(values(&again), values(&settings));
}

#[test]
fn the_full_name_of_a_variable_wins_over_the_short_one() {
    let pairs = [("SLIPWAY_PROFILE", "docker"), ("SLIPWAY_RUN_PROFILE", "hpc")];
    assert_eq!(merge(&[], &pairs, &[]).unwrap().run.profile.value, Profile::Hpc);
}

#[test]
fn says_what_is_wrong_and_where() {
    let check = |text: &str, message: &str, hint: Option<&str>| {
        let error = merge(&[text], &[], &[]).unwrap_err();
        assert_eq!(error.to_string(), message, "{text}");
        assert_eq!(error.hint().as_deref(), hint, "{text}");
    };
    let nearest = |key: &str| Some(format!("the nearest key is `{key}`"));
    check(
        "[store]\n\nkeep_blob = true\n",
        "/etc/slipway.toml:3: there is no key `store.keep_blob`",
        nearest("store.keep_blobs").as_deref(),
    );
    check(
        "[registri]\ninsecure = []\n",
        "/etc/slipway.toml:1: there is no key `registri`",
        Some("`slipway config show` lists all keys"),
    );
    check(
        "keep_blobs = true\n",
        "/etc/slipway.toml:1: there is no key `keep_blobs`",
        nearest("store.keep_blobs").as_deref(),
    );
    check(
        "store.keep_blobs = \"yes\"\n",
        "/etc/slipway.toml:1: `store.keep_blobs` is true or false, not `\"yes\"`",
        None,
    );
    check(
        "[convert]\nthreads = -1\n",
        "/etc/slipway.toml:2: `convert.threads` is a whole number from 0 to 4294967295, not `-1`",
        None,
    );
    check(
        "[convert]\nthreads = 1.5\n",
        "/etc/slipway.toml:2: `convert.threads` is a whole number from 0 to 4294967295, not a number with a point",
        None,
    );
    check(
        "[registry]\ninsecure = [\"a\",\n 5]\n",
        "/etc/slipway.toml:2: `registry.insecure` is a list of strings, not a list with `5`",
        None,
    );
    check(
        "[launch]\nlinger = \"long\"\n",
        "/etc/slipway.toml:2: `launch.linger` is \"auto\" or a number of seconds, not `\"long\"`",
        None,
    );
    check(
        "[fuse]\nno_open = \"maybe\"\n",
        "/etc/slipway.toml:2: `fuse.no_open` is \"auto\", \"on\" or \"off\", not `\"maybe\"`",
        None,
    );
    check(
        "[store]\ndir = \"relative\"\n",
        "/etc/slipway.toml:2: `store.dir` is a path in quotes that begins with `/`, `~` or a variable, not `\"relative\"`",
        None,
    );
    check(
        "[store]\ndir = \"/x/$NOT_SET\"\n",
        "/etc/slipway.toml:2: `store.dir` needs the environment variable NOT_SET, which is not set",
        Some("set the variable, or give the value as SLIPWAY_STORE_DIR"),
    );
    check("[store]\n[store]\n", "/etc/slipway.toml:2: duplicate key", None);
    check("[store\n", "/etc/slipway.toml:1: unclosed table, expected `]`", None);
}

#[test]
fn a_variable_and_a_flag_are_named_in_errors() {
    let error = merge(&[], &[("SLIPWAY_CONVERT_THREADS", "many")], &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "environment variable SLIPWAY_CONVERT_THREADS: `convert.threads` is a whole number from 0 to 4294967295, not `many`"
    );
    let flag = FlagValue { key: "gpu.default", flag: "--gpus".into(), text: "some".into() };
    let error = merge(&[], &[], &[flag]).unwrap_err();
    assert_eq!(error.to_string(), "flag --gpus: `gpu.default` is \"job\", \"all\" or \"none\", not `some`");
    // Without HOME only the default of the store's place is lost.
    let bare = |env: &Environment| Settings::load(&Sources { files: &[], env, flags: &[], place: None });
    let error = bare(&Environment::new()).unwrap_err();
    assert!(matches!(error, ConfigError::Variable { key: "store.dir", .. }), "{error}");
    let env: Environment = [("SLIPWAY_STORE_DIR".into(), "/s".into())].into();
    assert_eq!(bare(&env).unwrap().store.dir.value, Path::new("/s"));
}

#[test]
fn the_files_of_a_user() {
    let files = |pairs: &[(&str, &str)]| format!("{:?}", default_files(&env(pairs)));
    assert_eq!(
        files(&[]),
        r#"[Optional("/etc/slipway/slipway.toml"), Optional("/home/u/.config/slipway/slipway.toml")]"#
    );
    assert!(files(&[("XDG_CONFIG_HOME", "/c")]).contains("\"/c/slipway/slipway.toml\""));
    assert_eq!(default_files(&Environment::new()).len(), 1);
}

/// A site's file with records.
const SITE: &str = r#"
[run]
binds = ["/site"]
profile = "hpc"

[[nodesets]]
name = "big"
nodes = "gpu[005-008]"

[[nodes]]
names = "gpu[001-004],big"
run.binds = ["/nvme"]

[[nodes]]
names = "gpu008"
gpu.default = "all"

[[partitions]]
names = "interactive,debug"
run.profile = "docker"
run.binds = ["/debug"]
"#;

fn at(text: &str, node: &str, partition: Option<&str>) -> Result<Settings, ConfigError> {
    let place = Place { node: Some(node.into()), partition: partition.map(str::to_owned) };
    let sources = Sources { files: &[], env: &env(&[]), flags: &[], place: Some(&place) };
    Ok(Merge::default().all(&[(Path::new("/etc/slipway.toml"), text.to_owned())], &sources)?.settings)
}

#[test]
fn records_hold_on_their_nodes_and_partitions() {
    for (node, partition, binds, profile, gpus) in [
        ("login1", None, "/site", Profile::Hpc, GpuDefault::Job),
        ("login1", Some("debug"), "/debug", Profile::Docker, GpuDefault::Job),
        ("gpu002", None, "/nvme", Profile::Hpc, GpuDefault::Job),
        ("gpu2", None, "/site", Profile::Hpc, GpuDefault::Job),
        ("gpu006", Some("interactive"), "/nvme", Profile::Docker, GpuDefault::Job),
        ("gpu008", Some("batch"), "/nvme", Profile::Hpc, GpuDefault::All),
    ] {
        let settings = at(SITE, node, partition).unwrap();
        let found = (settings.run.binds.value, settings.run.profile.value, settings.gpu.default.value);
        assert_eq!(found, (vec![binds.to_owned()], profile, gpus), "{node} {partition:?}");
    }
    let all = at("[[nodes]]\nnames = \"ALL\"\nfuse.threads = 3\n", "any", None).unwrap();
    assert_eq!(all.fuse.threads.value, 3);
    assert_eq!(all.fuse.threads.origin.to_string(), "/etc/slipway.toml:3");
}

#[test]
fn records_say_what_is_wrong_and_where() {
    for (text, message, hint) in [
        (
            "[[nodes]]\nnames = \"gpu[1-\"\n",
            "/etc/slipway.toml:2: `gpu[1-` is no list of nodes: position 4: the bracket is not closed",
            "write names as Slurm does: `gpu[001-128],login1`",
        ),
        (
            "\n[[nodes]]\nrun.binds = []\n",
            "/etc/slipway.toml:2: `[[nodes]]` needs `names`, a text with names",
            "write `[[nodes]]` and below it `names = \"gpu[001-128]\"`",
        ),
        (
            "[partitions]\nnames = \"a\"\n",
            "/etc/slipway.toml:1: `partitions` is a list of tables, each under `[[partitions]]`",
            "write `[[partitions]]` and below it `names = \"gpu[001-128]\"`",
        ),
        (
            // A record of other nodes is read, too.
            "[[nodes]]\nnames = \"x\"\nrun.bind = []\n",
            "/etc/slipway.toml:3: there is no key `run.bind`",
            "the nearest key is `run.binds`",
        ),
        (
            "[[nodesets]]\nname = \"a\"\nnodes = \"b\"\nfeature = \"c\"\n",
            "/etc/slipway.toml:4: there is no key `nodesets.feature`",
            "`slipway config show` lists all keys",
        ),
    ] {
        let error = at(text, "n", None).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(error.hint().as_deref(), Some(hint), "{text}");
    }
}

#[test]
fn the_place_is_the_schedulers_else_the_hosts() {
    let slurm = env(&[("SLURMD_NODENAME", "n7"), ("SLURM_JOB_PARTITION", "gpu")]);
    assert_eq!(Place::here(&slurm), Place { node: Some("n7".into()), partition: Some("gpu".into()) });
    let bare = Place::here(&env(&[]));
    assert!(bare.node.is_some_and(|name| !name.is_empty() && !name.contains('.')));
    assert_eq!(bare.partition, None);
}
