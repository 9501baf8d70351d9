//! From words of a user and an image's own links to the list of steps.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use slipway::bundle::{
    self, Bundle, Caller, Identity, ImageFiles, Request, WritableRoot, parse_docker_volume,
};
use slipway::grants::Grants;
use slipway::launch::look_up;
use slipway::oci::RunConfig;
use slipway::plan::{self, Facts, HostPath, ImageSource, PathKind};
use slipway::squashfs::compress::Compressor;
use slipway::squashfs::read::Reader;

use crate::layers::{self, testing};
use crate::squashfs;

const NAMES: [&str; 12] =
    ["a", "b", "dev", "tmp", "proc", "sys", "etc", ".slipway", "run", "host", "..", "very/deep/place"];

fn any_path(u: &mut Unstructured<'_>) -> Result<String> {
    let names: Vec<&str> =
        (0..u.int_in_range(1..=3)?).map(|_| u.choose(&NAMES).copied()).collect::<Result<_>>()?;
    Ok(format!("/{}", names.join("/")))
}

fn any_bundle(u: &mut Unstructured<'_>) -> Result<Option<Bundle>> {
    let mut volumes = Vec::new();
    for _ in 0..u.int_in_range(0..=5)? {
        let options = *u.choose(&["", ":ro", ":rw"])?;
        let text = format!("{}:{}{options}", any_path(u)?, any_path(u)?);
        volumes.extend(parse_docker_volume(&text, Path::new("/w")));
    }
    let writable = u.choose(&[None, Some(WritableRoot::Memory { size_bytes: None })])?.clone();
    let request = Request {
        volumes,
        mount_home: u.arbitrary()?,
        mount_tmp: u.arbitrary()?,
        hide_cwd: u.arbitrary()?,
        workdir: if u.arbitrary()? { Some(any_path(u)?.into()) } else { None },
        identity: u.choose(&[Identity::Caller, Identity::Root])?.clone(),
        writable,
        private_network: u.arbitrary()?,
        host_name: if u.arbitrary()? { Some("h".into()) } else { None },
        ..Request::default()
    };
    let caller = Caller {
        uid: 1000,
        gid: 100,
        name: "ada".into(),
        group: "users".into(),
        home: Some(any_path(u)?.into()),
        cwd: Some(any_path(u)?.into()),
        env: BTreeMap::new(),
        host_has: ["/dev/null", "/dev/pts", "/etc/hosts", "/tmp"].map(PathBuf::from).into(),
    };
    let config = RunConfig { cmd: vec!["true".into()], ..RunConfig::default() };
    Ok(bundle::build(&config, &ImageFiles::default(), &request, &caller, Grants::default()).ok())
}

fn any_kind(u: &mut Unstructured<'_>) -> Result<PathKind> {
    u.choose(&[PathKind::Directory, PathKind::File]).copied()
}

/// An image of few files, most of them links to the places that a launch needs.
fn any_image(u: &mut Unstructured<'_>) -> Result<Option<Reader>> {
    let mut members = Vec::new();
    for _ in 0..u.int_in_range(0..=8)? {
        let path = any_path(u)?;
        members.push(match u.int_in_range(0..=4)? {
            0 => testing::dir(path),
            1 => testing::file(path, ""),
            _ => testing::symlink(path, any_path(u)?),
        });
    }
    let Ok((tree, contents)) = layers::merged(&[&testing::archive(&members)], false) else { return Ok(None) };
    let (image, _) = squashfs::write(&tree, &contents.0, Compressor::None);
    Ok(Reader::open(Arc::new(image)).ok())
}

/// What the image and this host say, with some of the host's paths gone, out of reach, or of the other kind.
fn any_facts(u: &mut Unstructured<'_>, bundle: &Bundle, image: &Reader) -> Result<Option<Facts>> {
    let Ok(mut facts) = look_up(bundle, image, "fuzz") else { return Ok(None) };
    let needed = plan::needed(bundle).expect("it was looked up");
    let below = plan::needed_below(bundle, &facts).unwrap_or_default();
    for path in needed.host.into_iter().chain(below) {
        facts.host.remove(&path);
        match u.int_in_range(0..=7)? {
            0 => {}
            1 => drop(facts.unreachable.insert(path, "permission denied".into())),
            _ => drop(facts.host.insert(path.clone(), HostPath { canonical: path, kind: any_kind(u)? })),
        }
    }
    Ok(Some(facts))
}

/// Whatever is asked for and wherever the image's links lead: a plan that is made keeps every rule of the linter, and can be
/// shown.
pub(crate) fn plan(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let Ok(Some(bundle)) = any_bundle(&mut u) else { return };
    let Ok(Some(image)) = any_image(&mut u) else { return };
    let Ok(Some(facts)) = any_facts(&mut u, &bundle, &image) else { return };
    let image = ImageSource { path: "/images/x.sif".into(), offset_bytes: 0, size_bytes: 4096 };
    if let Ok(plan) = plan::make(&bundle, &image, &facts) {
        if let Err(flaw) = plan::check(&plan) {
            panic!("{flaw}: {plan}");
        }
        assert!(!plan.to_string().is_empty());
    }
}
