//! Files of hosts and images: programs, loader caches, configuration, Slurm's gres.conf.

use std::collections::BTreeMap;
use std::path::Component;

use slipway::cdi::{DeviceName, Host, HostFile, Index, Spec, grants};
use slipway::config::{ConfigFile, Environment, Settings, Sources};
use slipway::elf;
use slipway::elf::cache::{Cache, merge};
use slipway::gpu::MigMinors;
use slipway::sched::read_job;

use crate::scratch;

/// Any bytes are a program or library of 64 or 32 bits, or they are none; a SONAME is a name, a note is a part of the file, and
/// what it needs of a C library, or has as one, is a release or an error.
pub(crate) fn elf(data: &[u8]) {
    let machine = elf::machine(data);
    let _ = elf::interpreter(data);
    for object in [elf::shared_object(data), elf::shared_object_32(data)].into_iter().flatten() {
        assert!(machine.is_none_or(|machine| machine == object.machine), "{machine:?} {object:?}");
        assert!(object.soname.is_none_or(|name| !name.contains('/')));
    }
    let _ = (elf::versions::glibc_needed(data), elf::versions::glibc_defined(data));
    if let Ok(Some(text)) = elf::note(data, ".note.cuda.fwd_compatibility", "NVIDIA Corporation") {
        assert!(text.is_empty() || data.windows(text.len()).any(|part| part == text));
    }
}

/// Any bytes are a loader cache or an error. What is written is read again as the same; a merge keeps the order of the
/// loader and has what was added, and all of the image's that was not replaced.
pub(crate) fn ld_cache(data: &[u8]) {
    let added = [("libcuda.so.1".to_owned(), "/x/libcuda.so.1".to_owned())];
    let merged = Cache::parse(&merge(Some(data), &added, "x86_64")).expect("ours can be read");
    assert!(
        merged
            .entries
            .iter()
            .any(|entry| entry.soname == b"libcuda.so.1" && entry.path == b"/x/libcuda.so.1")
    );
    let Ok(mut cache) = Cache::parse(data) else { return assert_eq!(merged.entries.len(), 1) };
    assert_eq!(Cache::parse(&cache.to_bytes()).as_ref(), Ok(&cache));
    let flags = elf::cache::flags_for("x86_64").expect("known");
    let kept = |entry: &&elf::cache::Entry| entry.flags != flags || entry.soname != b"libcuda.so.1";
    assert_eq!(merged.entries.iter().filter(kept).count(), cache.entries.iter().filter(kept).count());
    cache.sort();
    let once = cache.entries.clone();
    cache.sort();
    assert_eq!(cache.entries, once);
}

/// Any file is a configuration or an error that names the file. What is shown of one that is taken is TOML, and taken
/// again it gives the same values.
pub(crate) fn config(data: &[u8]) {
    let env = Environment::from([("HOME".into(), "/home/x".into())]);
    let load = |content: &[u8]| {
        let path = scratch::file("slipway.toml", content);
        Settings::load(&Sources { files: &[ConfigFile::Required(path)], env: &env, flags: &[], place: None })
    };
    let settings = match load(data) {
        Ok(settings) => settings,
        Err(error) => return assert!(error.to_string().contains("slipway.toml"), "{error}"),
    };
    let values = |settings: &Settings| -> Vec<String> {
        let text = settings.show();
        text.lines().map(|line| line.rsplit_once("  # ").unwrap_or((line, "")).0.to_owned()).collect()
    };
    let shown = values(&settings);
    // A value that stands for "not set" has no form in TOML.
    let set: Vec<_> = shown.iter().filter(|line| toml_value(line)).cloned().collect();
    let again = load(set.join("\n").as_bytes()).unwrap_or_else(|error| panic!("{error}\n{}", set.join("\n")));
    assert_eq!(values(&again), shown);
}

fn toml_value(line: &str) -> bool {
    line.split_once(" = ")
        .is_some_and(|(_, value)| value.starts_with(['"', '[', 't', 'f']) || value.parse::<f64>().is_ok())
}

/// Any bytes are a specification of devices or an error. What is taken is written in both forms and taken again as the same,
/// each of its devices is found by its name, and what it needs has clean places inside.
pub(crate) fn cdi(data: &[u8]) {
    let spec = match Spec::parse(data) {
        Ok(spec) => spec,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert_eq!(Spec::parse(spec.to_json().as_bytes()).as_ref(), Ok(&spec));
    assert_eq!(Spec::parse(spec.to_yaml().as_bytes()).as_ref(), Ok(&spec), "{}", spec.to_yaml());
    let mut index = Index::default();
    index.add("/etc/cdi/x.yaml".into(), 0, data);
    let look = |path: &std::path::Path| {
        let is_library = path.to_string_lossy().contains(".so");
        Some(HostFile { is_directory: false, library: is_library.then(|| Some("libx.so.1".to_owned())) })
    };
    let host = Host { look: &look, params: Some("ModifyDeviceFiles: 1\n"), groups: &[1], ignored_hooks: &[] };
    for device in index.list() {
        let name = DeviceName::parse(&device.name).expect("a listed name is one");
        let parts = index.resolve(&[name]).expect("a listed device is there");
        let Ok(made) = grants(&parts, &host) else { continue };
        let targets =
            made.nodes.iter().map(|node| &node.target).chain(made.binds.iter().map(|bind| &bind.target));
        for target in targets {
            assert!(
                target.is_absolute() && target.components().all(|part| part != Component::ParentDir),
                "{}",
                target.display()
            );
        }
        assert!(made.libraries.iter().all(
            |library| !library.name.contains('/') && library.links.iter().all(|link| !link.contains('/'))
        ));
    }
}

/// Any text is a list of capability nodes. What is taken of it, written as the driver writes it, is taken again as the same.
pub(crate) fn mig_minors(data: &[u8]) {
    let minors = MigMinors::parse(&String::from_utf8_lossy(data));
    let of_all = [("config", minors.config), ("monitor", minors.monitor)];
    let mut text: String =
        of_all.iter().filter_map(|(name, minor)| Some(format!("{name} {}\n", (*minor)?))).collect();
    for ((gpu, instance, compute), minor) in &minors.instances {
        let compute = compute.map_or_else(String::new, |compute| format!("ci{compute}/"));
        text.push_str(&format!("gpu{gpu}/gi{instance}/{compute}access {minor}\n"));
    }
    assert_eq!(MigMinors::parse(&text), minors);
}

/// Any gres.conf gives the minors of this node's GPUs or says nothing; the words of a job never end the program.
pub(crate) fn gres(data: &[u8]) {
    scratch::file("gres.conf", data);
    let root = scratch::directory();
    let word = String::from_utf8_lossy(data).into_owned();
    let env: BTreeMap<_, _> = [
        ("SLURM_JOB_ID", "1"),
        ("SLURMD_NODENAME", "n03"),
        ("SLURM_CONF", "/slurm.conf"),
        ("SLURM_STEP_GPUS", &word),
        ("SLURM_PROCID", &word),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .into();
    let facts = read_job(&env, root);
    assert_eq!(facts.job_id.as_deref(), Some("1"));
    assert!(facts.gpus.minors.is_none_or(|minors| !minors.is_empty()));
}
