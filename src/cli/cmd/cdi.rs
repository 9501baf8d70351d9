//! `slipway cdi`, and the CDI devices of a run.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cdi::{self, DeviceName, HostFile, Index, MAX_SPEC_BYTES, MAX_SPECS, SPEC_DIRECTORIES};
use crate::gpu::cdi::Asked;
use crate::gpu::{self, Chosen, HostRoot, Inventory};
use crate::grants::Grants;
use crate::sys::process;

use super::{Session, gpus};
use crate::cli::args::{CdiCheckArgs, CdiFormat, CdiGenerateArgs, CdiListArgs};
use crate::cli::failure::Failure;
use crate::cli::{table, term};

/// The CDI devices of a run.
#[derive(Debug)]
pub(super) struct CdiGrants {
    /// What they need, without the loader's cache.
    pub(super) grants: Grants,
    /// GPUs are among them.
    pub(super) has_gpus: bool,
    /// Those of them that are the job's.
    pub(super) chosen: Chosen,
    /// The host's GPUs.
    pub(super) inventory: Inventory,
    /// The first name.
    pub(super) asked: String,
}

/// What the devices need; only those of the job where they are GPUs.
pub(super) fn for_run(names: &[DeviceName], session: &Session) -> Result<CdiGrants, Failure> {
    let index = read_index(session);
    let parts = index.resolve(names)?;
    let root = gpus::root(session);
    let mut grants = with_host(session, &root, |host| cdi::grants(&parts, host))?;
    let inventory = gpu::read_inventory(&root, &gpus::hints(session));
    let owned = gpus::owned(&gpus::job(session), &root, &inventory, gpu::Asked::InWords);
    let asked: Vec<Asked> = parts
        .iter()
        .filter_map(|part| {
            let name = part.device.as_ref()?;
            Some(Asked {
                words: format!("--device {name}"),
                is_all: name.device() == "all",
                nodes: cdi::nodes_of(part).map(Path::to_path_buf).collect(),
            })
        })
        .collect();
    let chosen = gpu::cdi::choose(&inventory, &owned, &asked, &root, &mut grants)?;
    let has_gpus = !chosen.is_empty() || names.iter().any(|name| name.kind().ends_with("/gpu"));
    let asked = names.first().map(ToString::to_string).unwrap_or_default();
    Ok(CdiGrants { grants, has_gpus, chosen, inventory, asked })
}

fn with_host<T>(session: &Session, root: &HostRoot, act: impl FnOnce(&cdi::Host<'_>) -> T) -> T {
    let look = |path: &Path| -> Option<HostFile> { gpu::cdi::look(root, path) };
    let params = gpu::cdi::read_params(root);
    act(&cdi::Host {
        look: &look,
        params: params.as_deref(),
        groups: &process::own_groups(),
        ignored_hooks: &session.settings.cdi.ignore_hooks.value,
    })
}

/// Every specification of this node. Directories that are not there have none.
fn read_index(session: &Session) -> Index {
    let mut index = Index::default();
    let further = &session.settings.cdi.spec_dirs.value;
    let directories = SPEC_DIRECTORIES.into_iter().chain(further.iter().map(String::as_str));
    for (weight, directory) in directories.enumerate() {
        for path in files_in(Path::new(directory)) {
            add(&mut index, path, weight);
        }
    }
    index
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let is_spec = |path: &PathBuf| path.extension().is_some_and(|end| end == "json" || end == "yaml");
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_spec).collect();
    paths.sort();
    paths.truncate(MAX_SPECS);
    paths
}

fn add(index: &mut Index, path: PathBuf, weight: usize) {
    let mut bytes = Vec::new();
    let read = fs::File::open(&path).and_then(|file| file.take(MAX_SPEC_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) => index.add(path, weight, &bytes),
        Err(error) => index.broken.push(cdi::Broken { path, reason: error.to_string() }),
    }
}

/// `cdi list`.
pub(in crate::cli) fn list(args: &CdiListArgs, session: &Session) -> Result<(), Failure> {
    let index = read_index(session);
    for file in &index.broken {
        term::warn(&format!("`{}` cannot be used: {}", file.path.display(), file.reason));
    }
    let listed = index.list();
    if args.json {
        let rows: Vec<_> = listed
            .iter()
            .map(|one| json!({ "name": one.name, "file": one.file, "conflict": one.conflict }))
            .collect();
        return term::print(&format_args!("{}\n", json!(rows)));
    }
    let mut lines = vec![vec!["DEVICE".to_owned(), "FILE".to_owned()]];
    lines.extend(listed.into_iter().map(|one| {
        let file = one.file.display();
        let place = match &one.conflict {
            Some(other) => format!("{file} and {}: it cannot be used", other.display()),
            None => file.to_string(),
        };
        vec![one.name, place]
    }));
    term::print(&table::columns(&lines))
}

/// `cdi check`.
pub(in crate::cli) fn check(args: &CdiCheckArgs, session: &Session) -> Result<(), Failure> {
    let index = match &args.file {
        Some(path) => {
            let mut index = Index::default();
            add(&mut index, path.clone(), 0);
            index
        }
        None => read_index(session),
    };
    let mut wrong: Vec<String> =
        index.broken.iter().map(|file| format!("`{}`: {}", file.path.display(), file.reason)).collect();
    let listed = index.list();
    let root = gpus::root(session);
    for one in &listed {
        let checked = DeviceName::parse(&one.name).and_then(|name| {
            let parts = index.resolve(&[name])?;
            with_host(session, &root, |host| cdi::grants(&parts, host))
        });
        match checked {
            Ok(_) => term::print(&format_args!("{}: can be used, by `{}`\n", one.name, one.file.display()))?,
            Err(error) => wrong.push(error.to_string()),
        }
    }
    match wrong.len() {
        0 => Ok(()),
        count => {
            term::print(&format_args!("{}\n", wrong.join("\n")))?;
            Err(Failure::new(
                format!("{count} of {} things are wrong", listed.len() + index.broken.len()),
                None,
            ))
        }
    }
}

/// `cdi generate`.
pub(in crate::cli) fn generate(args: &CdiGenerateArgs, session: &Session) -> Result<(), Failure> {
    let root = gpus::root(session);
    let hints = gpus::hints(session);
    let mut inventory = gpu::read_inventory(&root, &hints);
    if inventory.vendor.is_some()
        && let Some(words) = gpus::ask_nvml(session, &root, &hints, &mut inventory)
    {
        term::warn(&format!("the GPUs are known by the driver's files alone: {words}"));
    }
    let spec =
        gpu::cdi::spec(&inventory, &root).filter(|spec| !spec.devices.is_empty()).ok_or_else(|| {
            Failure::new(
                "there is no GPU on this node for which a CDI specification can be written",
                "`slipway gpus` shows what the node has",
            )
        })?;
    for finding in &inventory.findings {
        term::warn(finding);
    }
    if spec.container_edits.hooks.is_empty() {
        term::warn(
            "neither nvidia-cdi-hook nor nvidia-ctk is installed: the file has no hooks, and other engines find the \
             libraries only in images whose loader looks into the same directory",
        );
    }
    let by_name = args.output.as_ref().is_some_and(|path| path.extension().is_some_and(|end| end == "json"));
    let text = match args.format {
        Some(CdiFormat::Json) => spec.to_json(),
        None if by_name => spec.to_json(),
        _ => spec.to_yaml(),
    };
    match &args.output {
        Some(path) => write(path, &text)
            .map_err(|error| Failure::new(format!("cannot write `{}`: {error}", path.display()), None)),
        None => term::print(&text),
    }
}

/// A file that others read is there as a whole or not at all.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(name);
    let written = fs::File::create_new(&beside)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // The error itself says what was wrong.
        let _ = fs::remove_file(&beside);
    }
    written
}
