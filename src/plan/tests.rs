//! Plans as text, from recorded facts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::RelPath;
use crate::bundle::{self, Bundle, Caller, ImageFiles, Request, parse_docker_volume};
use crate::grants::{BindGrant, FileGrant, Grants, LibraryGrant, NodeGrant};
use crate::oci::RunConfig;

use super::{
    Facts, HostPath, ImagePath, ImageSource, LaunchPlan, PathKind, PlanError, check, make, needed,
    needed_below,
};

fn caller() -> Caller {
    Caller {
        uid: 1000,
        gid: 100,
        name: "ada".into(),
        group: "users".into(),
        home: Some("/home/ada".into()),
        cwd: Some("/scratch/run".into()),
        env: BTreeMap::new(),
        host_has: ["/dev/null", "/dev/pts", "/etc/hosts", "/tmp"].map(PathBuf::from).into(),
    }
}

fn bundle(volumes: &[&str], grants: Grants) -> Bundle {
    bundle_of(volumes, &caller(), grants)
}

fn bundle_of(volumes: &[&str], caller: &Caller, grants: Grants) -> Bundle {
    bundle_with(volumes, caller, grants, Request::default())
}

fn bundle_with(volumes: &[&str], caller: &Caller, grants: Grants, request: Request) -> Bundle {
    let config = RunConfig { cmd: vec!["true".into()], ..RunConfig::default() };
    let request = Request {
        volumes: volumes.iter().map(|text| parse_docker_volume(text, Path::new("/w")).unwrap()).collect(),
        mount_home: true,
        mount_tmp: true,
        ..request
    };
    bundle::build(&config, &ImageFiles::default(), &request, caller, grants).unwrap()
}

/// Every needed host path exists as what `files` says (else a directory), and the image has what `image` lists.
fn facts(
    bundle: &Bundle,
    files: &[&str],
    missing: &[&str],
    image: &[(&str, &str, Option<PathKind>)],
) -> Facts {
    let needed = needed(bundle).unwrap();
    let mut facts = Facts::default();
    for path in needed.image {
        let row = image.iter().find(|(name, ..)| *name == path.to_string());
        let (lands_at, kind) = row.map_or((path.clone(), None), |(_, lands, kind)| {
            (RelPath::parse(lands.as_bytes()).unwrap(), *kind)
        });
        facts.image.insert(path, ImagePath { lands_at, kind, blocked_by: None });
    }
    let below = needed_below(bundle, &facts).unwrap_or_default();
    for path in needed.host.into_iter().chain(below) {
        if missing.iter().any(|gone| path.starts_with(gone)) {
            continue;
        }
        let is_file = files.iter().any(|file| Path::new(file) == path);
        let kind = if is_file { PathKind::File } else { PathKind::Directory };
        facts.host.insert(path.clone(), HostPath { canonical: path, kind });
    }
    facts
}

const PLAIN: &str = r"  1  namespaces  user (uid 1000, gid 100), mount
  2  propagation slave on every mount
  3  image       /images/x.sif at byte 36864 (4096 bytes), 10 mount points added
  4  pivot       the image is /
  5  tmpfs       /dev mode 755, at most 1048576 bytes
  6  bind        /proc <- host directory /proc (rw, if it can be)
  7  bind        /sys <- host directory /sys (rw, if it can be)
  8  bind        /tmp <- host directory /tmp (rw, if it can be)
  9  bind        /in <- host directory /data/in (ro, by -v /data/in:/in:ro)
 10  tmpfs       /.slipway/run mode 755
 11  mkdir       /dev/pts
 12  terminals   /dev/pts of its own
 13  file        /dev/null mode 644, 0 bytes
 14  bind        /dev/null <- host file /dev/null (rw, if it can be)
 15  bind        /run/hosts <- host file /etc/hosts (ro, if it can be)
 16  bind        /home/ada <- host directory /home/ada (rw, if it can be)
 17  bind        /scratch/run <- host directory /scratch/run (rw, if it can be)
 18  mkdir       /.slipway/run/files
 19  file        /.slipway/run/files/etc-passwd mode 644, 34 bytes
 20  bind        /etc/passwd <- own file /.slipway/run/files/etc-passwd (rw)
 21  file        /.slipway/run/files/etc-group mode 644, 13 bytes
 22  bind        /etc/group <- own file /.slipway/run/files/etc-group (rw)
 23  link        /dev/fd -> /proc/self/fd
 24  link        /dev/stdin -> /proc/self/fd/0
 25  link        /dev/stdout -> /proc/self/fd/1
 26  link        /dev/stderr -> /proc/self/fd/2
 27  link        /dev/ptmx -> pts/ptmx
 28  link        /dev/core -> /proc/kcore
 29  detach      the host's tree
 30  privileges  no new ones
 31  cwd         /scratch/run
 32  exec        true (3 variables)
";

const WITH_GPU: &str = r" 16  file        /dev/nvidia0 mode 644, 0 bytes
 17  bind        /dev/nvidia0 <- host file /dev/nvidia0 (rw)
 19  bind        /usr/bin/nvidia-smi <- host file /usr/bin/nvidia-smi (ro)
 20  mkdir       /.slipway/run/lib
 21  file        /.slipway/run/lib/libcuda.so.550 mode 644, 0 bytes
 22  bind        /.slipway/run/lib/libcuda.so.550 <- host file /opt/lib/libcuda.so.550 (ro)
 23  link        /.slipway/run/lib/libcuda.so.1 -> libcuda.so.550
 24  link        /.slipway/run/lib/libcuda.so -> libcuda.so.550
 30  file        /.slipway/run/files/etc-ld.so.cache mode 644, 48 bytes
 31  bind        /etc/ld.so.cache <- own file /.slipway/run/files/etc-ld.so.cache (rw)
note: GPU 0: granted by SLURM_STEP_GPUS
";

const FILES: [&str; 5] =
    ["/dev/null", "/etc/hosts", "/dev/nvidia0", "/opt/lib/libcuda.so.550", "/usr/bin/nvidia-smi"];

fn plan(bundle: &Bundle, facts: &Facts) -> Result<LaunchPlan, PlanError> {
    let image = ImageSource { path: "/images/x.sif".into(), offset_bytes: 36864, size_bytes: 4096 };
    let plan = make(bundle, &image, facts)?;
    check(&plan).expect("a made plan obeys the rules");
    Ok(plan)
}

#[test]
fn a_plain_container() {
    let bundle = bundle(&["/data/in:/in:ro"], Grants::default());
    let image = [
        ("dev", "dev", Some(PathKind::Directory)),
        ("etc/hosts", "run/hosts", None),
        ("etc/passwd", "etc/passwd", Some(PathKind::File)),
    ];
    let plan = plan(&bundle, &facts(&bundle, &FILES, &[], &image)).unwrap();
    assert_eq!(plan.to_string(), PLAIN);
}

#[test]
fn a_container_with_a_gpu() {
    let grants = Grants {
        hidden: Vec::new(),
        links: Vec::new(),
        nodes: vec![NodeGrant { source: "/dev/nvidia0".into(), target: "/dev/nvidia0".into() }],
        binds: vec![BindGrant {
            source: "/usr/bin/nvidia-smi".into(),
            target: "/usr/bin/nvidia-smi".into(),
            read_only: true,
            directory: false,
        }],
        libraries: vec![LibraryGrant {
            source: "/opt/lib/libcuda.so.550".into(),
            name: "libcuda.so.550".into(),
            links: vec!["libcuda.so.1".into(), "libcuda.so".into()],
        }],
        files: vec![FileGrant { target: "/etc/ld.so.cache".into(), content: vec![0; 48], mode: 0o644 }],
        env: Vec::new(),
        notes: vec!["GPU 0: granted by SLURM_STEP_GPUS".into()],
        reasons: BTreeMap::new(),
        troubles: Vec::new(),
    };
    let bundle = bundle(&[], grants);
    let plan = plan(&bundle, &facts(&bundle, &FILES, &[], &[])).unwrap();
    let text: String = plan
        .to_string()
        .lines()
        .filter(|line| {
            line.contains("nvidia") || line.contains("lib") || line.contains("ld.so") || line.contains("note")
        })
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(text, WITH_GPU);
}

/// Whose procfs it is makes no difference: the driver's files are in each.
#[test]
fn a_part_of_proc_is_hidden_but_for_what_is_granted() {
    const HIDDEN: &str = "/proc/driver/nvidia/capabilities";
    let access = format!("{HIDDEN}/gpu0/mig/gi1/access");
    for private_pids in [false, true] {
        let grant = BindGrant {
            source: access.clone().into(),
            target: access.clone().into(),
            read_only: true,
            directory: false,
        };
        let grants = Grants { hidden: vec![HIDDEN.into()], binds: vec![grant], ..Grants::default() };
        let request = Request { private_pids, ..Request::default() };
        let bundle = bundle_with(&[], &caller(), grants, request);
        let plan = plan(&bundle, &facts(&bundle, &[&access, "/dev/null", "/etc/hosts"], &[], &[])).unwrap();
        let text = plan.to_string();
        let steps = text.lines().filter(|line| line.contains("driver"));
        let steps: Vec<&str> = steps.map(|line| line.get(5..).unwrap()).collect();
        assert_eq!(
            steps,
            [
                "tmpfs       /proc/driver/nvidia/capabilities mode 755, at most 1048576 bytes",
                "mkdir       /proc/driver/nvidia/capabilities/gpu0",
                "mkdir       /proc/driver/nvidia/capabilities/gpu0/mig",
                "mkdir       /proc/driver/nvidia/capabilities/gpu0/mig/gi1",
                "file        /proc/driver/nvidia/capabilities/gpu0/mig/gi1/access mode 644, 0 bytes",
                "bind        /proc/driver/nvidia/capabilities/gpu0/mig/gi1/access <- host file \
                 /proc/driver/nvidia/capabilities/gpu0/mig/gi1/access (ro)",
            ]
        );
    }
}

#[test]
fn what_cannot_be_bound_is_said_before_anything_is_done() {
    let error = |volume: &str, files: &[&str], missing: &[&str], image: &[(&str, &str, Option<PathKind>)]| {
        let bundle = bundle(&[volume], Grants::default());
        plan(&bundle, &facts(&bundle, files, missing, image)).unwrap_err().to_string()
    };
    assert_eq!(
        error("/gone:/in", &FILES, &["/gone"], &[]),
        "cannot bind `-v /gone:/in`: `/gone` does not exist on this host"
    );
    assert_eq!(
        error("/data:/in", &FILES, &[], &[("in", "in", Some(PathKind::File))]),
        "cannot bind `-v /data:/in`: the source is a directory but `/in` in the image is a file"
    );
    assert_eq!(
        error("/data:/tmp/deep", &FILES, &["/tmp/deep"], &[]),
        "cannot bind `-v /data:/tmp/deep`: `/tmp/deep` does not exist in `/tmp`, which is the host's"
    );
}

#[test]
fn what_is_ours_is_left_out_with_a_note() {
    let bundle = bundle(&[], Grants::default());
    let plan =
        plan(&bundle, &facts(&bundle, &FILES, &["/home/ada"], &[("tmp", "tmp", Some(PathKind::File))]))
            .unwrap();
    assert_eq!(
        plan.notes,
        [
            "left out: cannot bind `/tmp`: the source is a directory but `/tmp` in the image is a file",
            "left out: cannot bind `/home/ada`: `/home/ada` does not exist on this host"
        ]
    );
}

#[test]
fn links_of_the_image_decide_where_mounts_lie() {
    let lines = |plan: &LaunchPlan, word: &str| {
        let text = plan.to_string();
        text.lines().filter(|line| line.contains(word)).map(|line| line[5..].to_owned()).collect::<Vec<_>>()
    };
    let directory = Some(PathKind::Directory);

    // Two names of one place: what was asked wins, and a parent comes before what lies in it.
    let bundled = bundle(&["/data/etc:/var/run/etc", "/data/run:/run"], Grants::default());
    let image = [("var/run/etc", "run/etc", None), ("run", "run", directory), ("home/ada", "tmp", directory)];
    let made = plan(&bundled, &facts(&bundled, &FILES, &[], &image)).unwrap();
    assert_eq!(
        lines(&made, "/data/"),
        [
            "bind        /run <- host directory /data/run (rw, by -v /data/run:/run)",
            "bind        /run/etc <- host directory /data/etc (rw, by -v /data/etc:/var/run/etc)",
        ]
    );
    assert_eq!(made.notes, ["`/home/ada` is not mounted: in this image it is `/tmp`, where `/tmp` is"]);

    // The image may have `/dev` elsewhere; everything below goes with it.
    let bundled = bundle(&[], Grants::default());
    let made = plan(&bundled, &facts(&bundled, &FILES, &[], &[("dev", "sub/dev", None)])).unwrap();
    assert_eq!(
        lines(&made, "null"),
        [
            "file        /sub/dev/null mode 644, 0 bytes",
            "bind        /sub/dev/null <- host file /dev/null (rw, if it can be)",
        ]
    );
    assert_eq!(lines(&made, "fd -> "), ["link        /sub/dev/fd -> /proc/self/fd"]);

    // Our own place is nobody's; the host's tree neither.
    let error = |image: &[(&str, &str, Option<PathKind>)]| {
        let bundled = bundle(&["/data:/x"], Grants::default());
        plan(&bundled, &facts(&bundled, &FILES, &[], image)).unwrap_err().to_string()
    };
    assert_eq!(
        error(&[(".slipway/run", "etc/run", None)]),
        "the image has a link or file on the way to `/.slipway/run`, which is Slipway's own place"
    );
    assert_eq!(
        error(&[("x", ".slipway/host", None)]),
        "cannot bind `-v /data:/x`: in this image that place is `/.slipway/host`, where nothing can be mounted"
    );
    assert!(error(&[("x", "", directory)]).contains("in this image that place is `/`"));
    assert!(error(&[("x", ".slipway/run/files", None)]).contains("where nothing can be mounted"));
    let bundled = bundle(&[], Grants::default());
    let made = plan(&bundled, &facts(&bundled, &FILES, &[], &[("home/ada", ".slipway/run", None)])).unwrap();
    assert_eq!(
        made.notes,
        [
            "left out: cannot bind `/home/ada`: in this image that place is `/.slipway/run`, where nothing can be mounted"
        ]
    );

    // Neither are they where the caller's home is called so, as in a container that was started inside of one.
    let at_home = Caller { home: Some("/.slipway/run".into()), ..caller() };
    let bundled = bundle_of(&[], &at_home, Grants::default());
    let made = plan(&bundled, &facts(&bundled, &FILES, &[], &[])).unwrap();
    assert_eq!(lines(&made, "/.slipway/run ")[0], "tmpfs       /.slipway/run mode 755");
    assert!(
        made.notes
            .contains(&"left out: `/.slipway/run`, since Slipway's own files lie in `/.slipway`".to_owned()),
        "{:?}",
        made.notes
    );

    // Our own files do not follow the image there.
    let bundled = bundle(&[], Grants::default());
    let image = [("etc/passwd", "dev", None)];
    let made = plan(&bundled, &facts(&bundled, &FILES, &[], &image)).unwrap();
    assert_eq!(made.notes, ["`/etc/passwd` is not made: in this image it is `/dev`, where `/dev` is"]);
    let image = [("etc/passwd", ".slipway/host/etc/passwd", None), ("etc/group", "", None)];
    let made = plan(&bundled, &facts(&bundled, &FILES, &[], &image)).unwrap();
    assert_eq!(
        made.notes,
        [
            "left out: cannot bind `/etc/passwd`: in this image that place is `/.slipway/host/etc/passwd`, where \
             nothing can be mounted",
            "left out: cannot bind `/etc/group`: in this image that place is `/`, where nothing can be mounted"
        ]
    );
}

#[test]
fn what_the_user_mounts_stays_the_users() {
    let bundled = bundle(&["/etc/hosts:/etc/passwd", "/data/dev:/dev"], Grants::default());
    let made = plan(&bundled, &facts(&bundled, &FILES, &[], &[])).unwrap();
    assert!(made.notes.contains(&"`/etc/passwd` is the one of `-v /etc/hosts:/etc/passwd`".to_owned()));
    assert!(!made.to_string().contains("link "), "{made}");

    let bundled = bundle(&["/etc/hosts:/dev/stdin", "/etc/hosts:/dev/shm/x"], Grants::default());
    let error = plan(&bundled, &facts(&bundled, &FILES, &["/dev/shm/x"], &[]));
    // Nothing of the host's /dev/shm is made; the image's caller has none here, so the file lies in our tmpfs.
    let made = error.unwrap().to_string();
    assert!(made.contains("file        /dev/stdin") && !made.contains("link        /dev/stdin"), "{made}");
}

#[test]
fn only_root_is_limited() {
    let config = RunConfig { cmd: vec!["true".into()], ..RunConfig::default() };
    let root = Caller { uid: 0, gid: 0, ..caller() };
    let bundled =
        bundle::build(&config, &ImageFiles::default(), &Request::default(), &root, Grants::default())
            .unwrap();
    let made = plan(&bundled, &facts(&bundled, &FILES, &[], &[])).unwrap();
    assert!(made.ops.iter().any(|op| matches!(op, super::Op::LimitCapabilities { .. })));
}
