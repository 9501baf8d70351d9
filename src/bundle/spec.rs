//! The OCI runtime spec of a container.

use std::ffi::OsString;
use std::path::PathBuf;

use oci_spec::runtime::{
    LinuxBuilder, LinuxIdMappingBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, Mount,
    PosixRlimitBuilder, PosixRlimitType, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};

use super::user::User;
use super::{BundleError, Caller, Ipc, Limit, Request};

pub(super) fn build(
    request: &Request,
    caller: &Caller,
    user: &User,
    argv: &[OsString],
    env: &[OsString],
    cwd: PathBuf,
    mounts: Vec<Mount>,
) -> Result<Spec, BundleError> {
    let text =
        |words: &[OsString]| words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>();
    let (uid, gid) = (user.uid, user.gid);
    let map = |outside: u32, inside: u32| {
        LinuxIdMappingBuilder::default().host_id(outside).container_id(inside).size(1_u32).build()
    };
    let namespace = |kind: LinuxNamespaceType| LinuxNamespaceBuilder::default().typ(kind).build();
    let mut namespaces = vec![namespace(LinuxNamespaceType::User)?, namespace(LinuxNamespaceType::Mount)?];
    if request.private_network {
        namespaces.push(namespace(LinuxNamespaceType::Network)?);
    }
    if request.ipc != Ipc::Host {
        namespaces.push(namespace(LinuxNamespaceType::Ipc)?);
    }
    if request.private_pids {
        namespaces.push(namespace(LinuxNamespaceType::Pid)?);
    }
    if request.host_name.is_some() {
        namespaces.push(namespace(LinuxNamespaceType::Uts)?);
    }
    let process = ProcessBuilder::default()
        .terminal(false)
        .user(UserBuilder::default().uid(uid).gid(gid).build()?)
        .args(text(argv))
        .env(text(env))
        .cwd(cwd)
        .rlimits(request.limits.iter().filter_map(limit).collect::<Result<Vec<_>, _>>()?)
        .no_new_privileges(true)
        .build()?;
    let linux = LinuxBuilder::default()
        .uid_mappings(vec![map(caller.uid, uid)?])
        .gid_mappings(vec![map(caller.gid, gid)?])
        .namespaces(namespaces)
        .masked_paths(Vec::new())
        .readonly_paths(Vec::new())
        .build()?;
    let root = RootBuilder::default().path("rootfs").readonly(request.writable.is_none()).build()?;
    let spec =
        SpecBuilder::default().version("1.2.0").root(root).process(process).mounts(mounts).linux(linux);
    let spec = match &request.host_name {
        Some(name) => spec.hostname(name.clone()),
        None => spec.hostname(String::new()),
    };
    Ok(spec.build()?)
}

/// `None` for the few limits that the runtime spec's list lacks.
fn limit(limit: &Limit) -> Option<Result<oci_spec::runtime::PosixRlimit, oci_spec::OciSpecError>> {
    let kind: PosixRlimitType =
        serde_json::from_value(format!("RLIMIT_{}", limit.name.to_uppercase()).into()).ok()?;
    Some(PosixRlimitBuilder::default().typ(kind).soft(limit.soft).hard(limit.hard).build())
}
