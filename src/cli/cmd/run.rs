//! `slipway run`: from words to the workload.

use std::ffi::OsString;
use std::path::Path;

use crate::bundle;
use crate::image::Image;
use crate::launch::{self, Context, ServeSettings, Sharing};
use crate::plan::{self, ImageSource, LaunchPlan};
use crate::squashfs::read::Reader;
use crate::unpack::Lease;

use super::rootfs::RootChoice;
use super::{Session, containers, hot, locate, request, sharing};
use crate::cli::args::RunArgs;
use crate::cli::failure::Failure;
use crate::cli::term;

/// Everything that a launch needs.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) name: String,
    pub(super) image: Image,
    pub(super) plan: LaunchPlan,
    serve: ServeSettings,
    sharing: Sharing,
    root: RootChoice,
    lease: Option<Lease>,
}

impl Prepared {
    /// Sees to it that the root is there. Before that a launch cannot be applied, and a plan can be shown.
    pub(super) fn make_ready(&mut self) -> Result<(), Failure> {
        self.lease = self.root.take(&self.image, &self.name)?;
        Ok(())
    }

    /// What applying the plan needs beside it.
    pub(super) fn context(&self) -> Context<'_> {
        Context {
            image_name: &self.name,
            serve: self.serve.clone(),
            image: &self.image,
            lease: self.lease.as_ref().map(Lease::fd),
            warn: term::warn,
            sharing: self.sharing.clone(),
            console: None,
        }
    }
}

/// Becomes the workload, or says why not. Returns for `--plan` and `--detach`.
pub(in crate::cli) fn run(args: &RunArgs, session: &Session) -> Result<(), Failure> {
    let mut prepared = prepare(args, session, None)?;
    if args.tty && args.keep.detach {
        prepared.plan.add_console();
    }
    if args.plan {
        return show(&prepared.plan, args.json);
    }
    for warning in &prepared.plan.warnings {
        term::warn(warning);
    }
    if args.tty && !args.keep.detach && !term::input_is_terminal() {
        term::warn("there is no terminal: `-t` is left out");
    }
    prepared.make_ready()?;
    if args.keep.is_kept() {
        return containers::run_kept(args, &mut prepared, session);
    }
    let error = launch::apply(&prepared.plan, &prepared.context());
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
    let root = RootChoice::of(args, session, &image)?;
    let mut plan = root.applied_to(make_plan(args, command, session, &image, &name)?);
    plan::check(&plan)?;
    let sharing = root.sharing(sharing::sharing(args, session));
    if args.plan {
        plan.notes.extend(sharing.describe(&plan, &image));
    }
    let mut serve = session.serve_settings();
    serve.tuning.record_hot = args.record_hot;
    serve.tuning.hot_list = hot::list(&image.path, args, command, session);
    Ok(Prepared { name, image, plan, serve, sharing, root, lease: None })
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
    let request = request::request(args, command, session, caller.cwd.as_deref())?;
    let bundle = bundle::build(&image.config.config, &files, &request, &caller, grants)?;
    let facts = launch::look_up(&bundle, &reader, name)?;
    let source = ImageSource {
        path: image.path.clone(),
        offset_bytes: image.offset_bytes,
        size_bytes: image.size_bytes,
    };
    Ok(plan::make(&bundle, &source, &facts)?)
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
