//! `slipway run`: from words to the workload.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::bundle::{self, EnvRequest, Request, Volume, parse_apptainer_binds, parse_docker_volume};
use crate::config::Profile;
use crate::image::Image;
use crate::launch::{self, Context};
use crate::plan::{self, ImageSource, LaunchPlan};
use crate::squashfs::read::Reader;

use super::Session;
use super::{containers, locate};
use crate::cli::args::RunArgs;
use crate::cli::failure::Failure;
use crate::cli::term;

/// An opened image and the plan for it.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) name: String,
    pub(super) image: Image,
    pub(super) plan: LaunchPlan,
}

impl Prepared {
    /// What applying the plan needs beside it.
    pub(super) fn context(&self, session: &Session) -> Context<'_> {
        Context {
            image_name: &self.name,
            serve: session.serve_settings(),
            image: &self.image,
            warn: term::warn,
        }
    }
}

/// Becomes the workload, or says why not. Returns for `--plan` and `--detach`.
pub(in crate::cli) fn run(args: &RunArgs, session: &Session) -> Result<(), Failure> {
    let prepared = prepare(args, session, None)?;
    if args.plan {
        return show(&prepared.plan, args.json);
    }
    for warning in &prepared.plan.warnings {
        term::warn(warning);
    }
    if args.keep.is_kept() {
        return containers::run_kept(args, &prepared, session);
    }
    let error = launch::apply(&prepared.plan, &prepared.context(session));
    let code = error.exit_code();
    Err(Failure::from(error).with_code(code))
}

/// Everything before the launch. The image's file is looked up by the first word, unless it is known.
pub(super) fn prepare(args: &RunArgs, session: &Session, known: Option<&Path>) -> Result<Prepared, Failure> {
    let (word, command) = args.words.split_first().ok_or_else(|| Failure::new("no image is named", None))?;
    if word.as_encoded_bytes().starts_with(b"-") {
        return Err(Failure::new(
            format!("unknown flag `{}`", word.to_string_lossy()),
            "`slipway run --help` lists the flags; those of the command come behind the image",
        ));
    }
    let path = match known {
        Some(path) => path.to_path_buf(),
        None => locate::run_file(word, session)?,
    };
    let name = word.to_string_lossy().into_owned();
    let image = Image::open(&path)?;
    check_architecture(&image, &name)?;
    let plan = make_plan(args, command, session, &image, &name)?;
    Ok(Prepared { name, image, plan })
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
    let request = request(args, command, session, caller.cwd.as_deref())?;
    let bundle = bundle::build(&image.config.config, &files, &request, &caller, grants)?;
    let facts = launch::look_up(&bundle, &reader, name)?;
    let source = ImageSource {
        path: image.path.clone(),
        offset_bytes: image.offset_bytes,
        size_bytes: image.size_bytes,
    };
    let plan = plan::make(&bundle, &source, &facts)?;
    plan::check(&plan)?;
    Ok(plan)
}

fn request(
    args: &RunArgs,
    command: &[OsString],
    session: &Session,
    cwd: Option<&Path>,
) -> Result<Request, Failure> {
    let settings = &session.settings.run;
    if settings.profile.value == Profile::Docker {
        return Err(Failure::new(
            format!("the profile `docker` does not exist yet; it is set by {}", settings.profile.origin),
            "use the profile `hpc`, which is the default",
        ));
    }
    let mut volumes: Vec<Volume> = Vec::new();
    for text in &settings.binds.value {
        let binds = parse_apptainer_binds(text, Path::new("/"))?;
        let with_origin = |bind: Volume| {
            let asked =
                format!("{} (run.binds, {})", bind.asked.trim_start_matches("-B "), settings.binds.origin);
            Volume { asked, ..bind }
        };
        volumes.extend(binds.into_iter().map(with_origin));
    }
    for text in &args.bind {
        volumes.extend(parse_apptainer_binds(as_text("-B", text)?, Path::new(""))?);
    }
    for text in &args.volume {
        volumes.push(parse_docker_volume(as_text("-v", text)?, Path::new(""))?);
    }
    for volume in volumes.iter_mut().filter(|volume| volume.source.is_relative()) {
        // The directory may be gone, and then no other place may be taken for it.
        let cwd = cwd.ok_or_else(|| {
            Failure::new(
                format!("cannot bind `{}`: the current directory does not exist any more", volume.asked),
                "change to another directory, or give an absolute path",
            )
        })?;
        volume.source = cwd.join(&volume.source);
    }
    Ok(Request {
        entrypoint: args.entrypoint.clone(),
        args: command.to_vec(),
        env: args.env.iter().map(|text| env_request(text)).collect(),
        workdir: args.workdir.clone(),
        volumes,
        mount_home: settings.mount_home.value,
        mount_tmp: settings.mount_tmp.value,
    })
}

/// A bind as text: its parts are separated by characters, and the plan shows it.
fn as_text<'a>(flag: &str, text: &'a OsStr) -> Result<&'a str, Failure> {
    text.to_str().ok_or_else(|| {
        Failure::new(
            format!("`{flag} {}` is not UTF-8", text.to_string_lossy()),
            "bind a directory above it whose name is UTF-8",
        )
    })
}

pub(super) fn env_request(text: &OsStr) -> EnvRequest {
    use std::os::unix::ffi::OsStrExt as _;
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
