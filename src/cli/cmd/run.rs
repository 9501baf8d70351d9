//! `slipway run`: from words to the workload.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::bundle::{self, EnvRequest, Request, Volume, parse_apptainer_binds, parse_docker_volume};
use crate::image::Image;
use crate::launch::{self, Context};
use crate::plan::{self, ImageSource, LaunchPlan};
use crate::squashfs::read::Reader;

use super::Session;
use super::locate;
use crate::cli::args::RunArgs;
use crate::cli::failure::Failure;
use crate::cli::term;

/// Becomes the workload, or says why not. Returns only for `--plan`.
pub(in crate::cli) fn run(args: &RunArgs, session: &Session) -> Result<(), Failure> {
    let (word, command) = args.words.split_first().ok_or_else(|| Failure::new("no image is named", None))?;
    let path = locate::run_file(word, session)?;
    let name = word.to_string_lossy().into_owned();
    let image = Image::open(&path)?;
    check_architecture(&image, &name)?;
    let plan = make_plan(args, command, session, &image, &name)?;
    if args.plan {
        return show(&plan, args.json);
    }
    let mut serve = session.serve_settings();
    serve.tuning.record_hot = args.record_hot;
    serve.tuning.hot_list = hot_list(&image.path, args, command, session);
    let context = Context { image_name: &name, serve, image: &image };
    let error = launch::apply(&plan, &context);
    let code = error.exit_code();
    Err(Failure::from(error).with_code(code))
}

fn make_plan(
    args: &RunArgs,
    command: &[OsString],
    session: &Session,
    image: &Image,
    name: &str,
) -> Result<LaunchPlan, Failure> {
    let reader = Reader::open(image.partition())?;
    let files = launch::image_files(&reader, name)?;
    let caller = launch::caller(&session.env);
    let grants = super::grants::for_run(args, session, image, &reader, name)?;
    let cwd = caller.cwd.as_deref().unwrap_or(Path::new("/"));
    let request = request(args, command, session, cwd)?;
    let bundle = bundle::build(&image.config.config, &files, &request, &caller, grants)?;
    let facts = launch::look_up(&plan::needed(&bundle)?, &reader, name)?;
    let source = ImageSource {
        path: image.path.clone(),
        offset_bytes: image.offset_bytes,
        size_bytes: image.size_bytes,
    };
    let plan = plan::make(&bundle, &source, &facts)?;
    plan::check(&plan)?;
    Ok(plan)
}

/// Where the hot list of an image and a program is: in the store for an image of the store, where it is made by itself,
/// and beside any other, where it is made on demand only.
fn hot_list(image: &Path, args: &RunArgs, command: &[OsString], session: &Session) -> Option<PathBuf> {
    /// Longest name of a program in a file name, in bytes.
    const MAX_PROGRAM_BYTES: usize = 64;
    let program = command.first().and_then(|word| Path::new(word).file_name()).unwrap_or_default();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._+-".contains(byte);
    let mut list = image.file_name()?.to_os_string();
    list.push(".");
    list.push(if !program.is_empty() && program.as_bytes().iter().all(plain) {
        program
    } else {
        "run".as_ref()
    });
    if list.len() > image.file_name()?.len() + MAX_PROGRAM_BYTES {
        return None;
    }
    let store = &session.settings.store.dir.value;
    if image.starts_with(store) {
        return Some(store.join("hot").join(list));
    }
    list.push(".hot");
    let beside = image.with_file_name(list);
    let cwd = std::env::current_dir().ok()?;
    (args.record_hot || beside.exists()).then(|| cwd.join(beside))
}

fn request(args: &RunArgs, command: &[OsString], session: &Session, cwd: &Path) -> Result<Request, Failure> {
    let mut volumes: Vec<Volume> = Vec::new();
    for text in &session.settings.run.binds.value {
        volumes.extend(parse_apptainer_binds(text, cwd)?);
    }
    for text in &args.bind {
        volumes.extend(parse_apptainer_binds(text, cwd)?);
    }
    for text in &args.volume {
        volumes.push(parse_docker_volume(text, cwd)?);
    }
    Ok(Request {
        entrypoint: args.entrypoint.clone(),
        args: command.to_vec(),
        env: args.env.iter().map(|text| env_request(text)).collect(),
        workdir: args.workdir.clone(),
        volumes,
        mount_home: session.settings.run.mount_home.value,
        mount_tmp: session.settings.run.mount_tmp.value,
    })
}

fn env_request(text: &OsStr) -> EnvRequest {
    let bytes = text.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => EnvRequest::Set(
            OsStr::from_bytes(&bytes[..at]).to_os_string(),
            OsStr::from_bytes(&bytes[at + 1..]).to_os_string(),
        ),
        None => EnvRequest::Inherit(text.to_os_string()),
    }
}

fn check_architecture(image: &Image, name: &str) -> Result<(), Failure> {
    let host = crate::oci::Platform::host();
    let Some(has) = &image.architecture else { return Ok(()) };
    if *has == host.architecture {
        return Ok(());
    }
    Err(Failure::new(
        format!("cannot run `{name}`: the image is for {has} and this host is {}", host.architecture),
        "get the image for this host: `slipway pull --platform` says which there are",
    ))
}

fn show(plan: &LaunchPlan, json: bool) -> Result<(), Failure> {
    if !json {
        return term::print(plan);
    }
    let text = serde_json::to_string_pretty(plan)
        .map_err(|error| Failure::new(format!("the plan cannot be shown as JSON: {error}"), None))?;
    term::print(&format_args!("{text}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_variables() {
        assert_eq!(env_request(OsStr::new("A=b=c")), EnvRequest::Set("A".into(), "b=c".into()));
        assert_eq!(env_request(OsStr::new("A=")), EnvRequest::Set("A".into(), "".into()));
        assert_eq!(env_request(OsStr::new("A")), EnvRequest::Inherit("A".into()));
    }
}
