use super::*;

/// A directory with the files of a machine.
fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn status(list: &str) -> String {
    format!("Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t{list}\nMems_allowed_list:\t0\n")
}

#[test]
fn counts_cpus() {
    let check = |list: &str, files: &[(&str, &str)], expected: (u32, Option<u64>, u32)| {
        let status = status(list);
        let mut all = vec![("proc/self/status", status.as_str())];
        all.extend(files);
        let cpus = cpu::read(machine(&all).path());
        assert_eq!((cpus.affinity, cpus.quota_milli, cpus.allowed()), expected, "{list} {files:?}");
    };
    check("0-7,16-23", &[], (16, None, 16));
    check("0-2047", &[], (2048, None, 2048));
    check("", &[], (1, None, 1));
    // Version 2: the tightest group on the way up counts, and half a CPU is one thread.
    let v2 = ("proc/self/cgroup", "0::/slurm/job_1/step_0\n");
    check("0-7", &[v2, ("sys/fs/cgroup/slurm/job_1/cpu.max", "250000 100000\n")], (8, Some(2500), 3));
    check(
        "0-7",
        &[
            v2,
            ("sys/fs/cgroup/slurm/job_1/step_0/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/slurm/cpu.max", "50000 100000\n"),
            ("sys/fs/cgroup/slurm/job_1/cpu.max", "400000 100000\n"),
        ],
        (8, Some(500), 1),
    );
    check("0-1", &[v2, ("sys/fs/cgroup/slurm/cpu.max", "1600000 100000\n")], (2, Some(16_000), 2));
    check("0-1", &[v2, ("sys/fs/cgroup/cpu.max", "nonsense\n")], (2, None, 2));
    check("0-1", &[v2, ("sys/fs/cgroup/cpu.max", "1 0\n")], (2, None, 2));
    // Version 1, mounted under the joined name or the single one.
    let v1 = ("proc/self/cgroup", "5:cpuset:/x\n4:cpu,cpuacct:/job\n0::/\n");
    for mount in ["cpu,cpuacct", "cpu"] {
        let (quota, period) = (
            format!("sys/fs/cgroup/{mount}/job/cpu.cfs_quota_us"),
            format!("sys/fs/cgroup/{mount}/job/cpu.cfs_period_us"),
        );
        check("0-7", &[v1, (&quota, "300000\n"), (&period, "100000\n")], (8, Some(3000), 3));
        check("0-7", &[v1, (&quota, "-1\n"), (&period, "100000\n")], (8, None, 8));
    }
}

#[test]
fn reads_a_machine_and_keeps_it_as_json() {
    let status = status("0-3");
    let root = machine(&[
        ("proc/self/status", &status),
        ("proc/sys/kernel/osrelease", "5.14.0-503.el9.x86_64\n"),
        ("proc/sys/kernel/hostname", "node7\n"),
        ("proc/sys/kernel/random/boot_id", "abc\n"),
        ("proc/sys/user/max_user_namespaces", "0\n"),
        ("dev/fuse", ""),
    ]);
    let facts = HostFacts::read(root.path());
    assert_eq!((facts.kernel.major, facts.kernel.minor), (5, 14));
    assert_eq!((facts.hostname.as_str(), facts.boot_id.as_str()), ("node7", "abc"));
    assert_eq!(facts.userns.max_user_namespaces, Some(0));
    assert_eq!((facts.userns.unprivileged_userns_clone, facts.userns.apparmor_restrict), (None, None));
    assert_eq!(facts.fuse, FuseDevice::Opens);
    assert!(facts.memory.total_bytes >= facts.memory.available_bytes && facts.memory.available_bytes > 0);
    let json = serde_json::to_string(&facts).unwrap();
    assert_eq!(serde_json::from_str::<HostFacts>(&json).unwrap(), facts);

    let nothing = HostFacts::read(machine(&[]).path());
    assert_eq!((nothing.kernel.major, nothing.cpus.allowed(), nothing.fuse), (0, 1, FuseDevice::Missing));
}

#[test]
fn reads_this_machine() {
    let facts = LaunchFacts::read(Path::new("/"));
    assert!(facts.kernel.is_at_least(3, 0), "{facts:?}");
    assert!(facts.cpus.allowed() >= 1);
}
