//! Configuration files on a disk.

use std::io::Write as _;
use std::process::{Command, Stdio};

use slipway::base::Hostlist;
use slipway::config::{ConfigError, ConfigFile, Environment, Settings, Sources};

fn load(files: &[ConfigFile]) -> Result<Settings, ConfigError> {
    let env: Environment = [("HOME".into(), "/home/u".into())].into();
    Settings::load(&Sources { files, env: &env, flags: &[], place: None })
}

#[test]
fn files_that_are_not_there_are_skipped_unless_named() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (directory.path().join("a.toml"), directory.path().join("b.toml"));
    let none = load(&[ConfigFile::Optional(first.clone())]).unwrap();
    assert_eq!(none.convert.threads.value, 0);

    let error = load(&[ConfigFile::Required(first.clone())]).unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot read `{}`: ", first.display())), "{error}");

    std::fs::write(&first, "[convert]\nthreads = 1\nmax_entries = 10\n").unwrap();
    std::fs::write(&second, "convert.threads = 2\n").unwrap();
    let files = [ConfigFile::Optional(first), ConfigFile::Required(second.clone())];
    let both = load(&files).unwrap();
    assert_eq!((both.convert.threads.value, both.convert.max_entries.value), (2, 10));
    assert_eq!(both.convert.threads.origin.to_string(), format!("{}:1", second.display()));

    // A directory in its place, or what is no text, is not skipped.
    let error = load(&[ConfigFile::Optional(directory.path().into())]).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }), "{error}");
    std::fs::write(&second, b"\xff\xfe").unwrap();
    assert!(matches!(load(&files), Err(ConfigError::Read { .. })));
}

#[test]
fn explain_says_what_holds_on_a_node_and_what_it_stands_over() {
    let sandbox = super::support::sandbox::Sandbox::new();
    sandbox.make_directory("home/.config/slipway");
    sandbox.write(
        "home/.config/slipway/slipway.toml",
        "[fuse]\nthreads = 2\n[[nodes]]\nnames = \"gpu[001-128]\"\nfuse.threads = 8\n",
    );
    let explain = |args: &[&str]| sandbox.slipway(["config", "explain"].iter().chain(args)).run();
    let output = explain(&["fuse.threads", "--node", "gpu007"]);
    let file = "[DIR]/home/.config/slipway/slipway.toml";
    let expected = format!(
        "fuse.threads = 8\nfrom {file}:5 (nodes gpu[001-128])\nover {file}:2: 2\nover built-in default: 0\n"
    );
    assert_eq!(output.stdout, expected, "{output}");
    let output = sandbox
        .slipway(["config", "explain", "fuse.threads"])
        .env("SLURMD_NODENAME", "login1")
        .env("SLIPWAY_FUSE_THREADS", "3")
        .run();
    let expected = format!(
        "fuse.threads = 3\nfrom environment variable SLIPWAY_FUSE_THREADS\nover {file}:2: 2\nover built-in default: 0\n"
    );
    assert_eq!(output.stdout, expected, "{output}");
    let output = explain(&["fuse.thread"]);
    assert_eq!(
        output.stderr, "error: there is no key `fuse.thread`\n  hint: the nearest key is `fuse.threads`\n",
        "{output}"
    );
}

#[test]
fn host_lists_are_those_of_scontrol() {
    crate::need!(tool "scontrol");
    // A name behind the last bracket is left out: Slurm takes it from 23.02 on.
    // It wants a configuration for anything, and looks at nothing in it for this.
    let mut conf = tempfile::NamedTempFile::new().unwrap();
    conf.write_all(b"ClusterName=c\nSlurmctldHost=localhost\nNodeName=x\nPartitionName=p Nodes=ALL\n")
        .unwrap();
    let scontrol = |args: &[&str]| {
        let output = Command::new("scontrol")
            .args(args)
            .env("SLURM_CONF", conf.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    };
    for text in [
        "n1",
        "n[1-3]",
        "n[08-11]",
        "n[8-11]",
        "n[3,1,1]",
        "a[1-2]b[3-4]",
        "a[1-2][0-1]",
        "n[1-2] x",
        "n[001-010,100]",
        "a,b c",
        "n[2-1]",
        "n[a]",
        "n[0-65536]",
    ] {
        let theirs = scontrol(&["show", "hostnames", text]);
        let theirs = theirs.map(|lines| lines.lines().map(str::to_owned).collect::<Vec<_>>());
        let ours = Hostlist::parse(text).ok().map(|list| list.names());
        // What it refuses it prints nothing for, in some cases without an exit code.
        assert_eq!(ours.unwrap_or_default(), theirs.unwrap_or_default(), "{text}");
    }
    // With three groups this Slurm counts in another order.
    for text in ["r[1-2]n[01-03]g[0-1]", "a[1-2]b[3-4]c[5,7]"] {
        let theirs: std::collections::BTreeSet<String> =
            scontrol(&["show", "hostnames", text]).unwrap().lines().map(str::to_owned).collect();
        assert_eq!(
            Hostlist::parse(text).unwrap().names().into_iter().collect::<std::collections::BTreeSet<_>>(),
            theirs
        );
    }
    for names in ["n1,n2,n3", "n09,n10,n100", "n9,n10", "m1-ib,m2-ib", "a,b", "r1n1,r1n2"] {
        let theirs = scontrol(&["show", "hostlist", names]).unwrap();
        let ours: Hostlist = names.split(',').collect();
        assert_eq!(ours.to_string(), theirs.trim(), "{names}");
    }
}
