//! `slipway run`: from words to the workload.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::bundle;
use crate::config::Profile;
use crate::image::Image;
use crate::launch::{self, Context, ServeSettings, Sharing};
use crate::mpi;
use crate::oci::Platform;
use crate::plan::{self, Explanation, ImageSource, LaunchPlan};
use crate::runtime::{self, Container};
use crate::squashfs::read::Reader;
use crate::unpack::Lease;

use super::request::{Ground, Kept};
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
    /// The container's id, where it was needed before the container is made.
    pub(super) id: Option<String>,
    /// Names of the volumes that were made for this container alone.
    pub(super) volumes: Vec<String>,
    /// The container stays when it has ended, though nobody watches it.
    pub(super) stays: bool,
    explanation: Explanation,
    serve: ServeSettings,
    sharing: Sharing,
    root: RootChoice,
    lease: Option<Lease>,
}

/// How a container is started.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way<'a> {
    /// `run`.
    Run,
    /// `create`.
    Create,
    /// `start`: the container as it is kept.
    Again(&'a Container),
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

impl Prepared {
    /// The directories of the volumes that were made for this container alone.
    pub(super) fn volume_paths(&self, session: &Session) -> Result<Vec<PathBuf>, Failure> {
        let of_name = |name: &String| -> Result<Option<PathBuf>, Failure> {
            Ok(session.store()?.volume(name)?.data.parent().map(Path::to_path_buf))
        };
        Ok(self.volumes.iter().map(of_name).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }
}

/// Becomes the workload, or says why not. Returns for `--plan` and `--detach`.
pub(in crate::cli) fn run(args: &RunArgs, session: &Session) -> Result<(), Failure> {
    if args.json && !(args.plan || args.files.explain) {
        return Err(Failure::new(
            "`--json` says how to print, and nothing is printed",
            "give `--plan` or `--explain` too",
        ));
    }
    let mut prepared = prepare(args, session, Way::Run)?;
    if args.tty && args.keep.detach {
        prepared.plan.add_console();
    }
    if args.plan {
        return show(&prepared.plan, args.json);
    }
    if args.files.explain {
        return show(&prepared.explanation, args.json);
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
pub(super) fn prepare(args: &RunArgs, session: &Session, way: Way<'_>) -> Result<Prepared, Failure> {
    let (word, command) = args.words.split_first().ok_or_else(|| Failure::new("no image is named", None))?;
    if word.as_encoded_bytes().starts_with(b"-") {
        return Err(Failure::new(
            format!("unknown flag `{}`", word.to_string_lossy()),
            "`slipway run --help` lists the flags; those of the command come behind the image",
        ));
    }
    let platform = args.files.platform.as_deref();
    let path = match way {
        Way::Again(container) => container.record.image_path.clone(),
        Way::Run | Way::Create => locate::run_file(word, session, args.files.pull, platform)?,
    };
    let name = word.to_string_lossy().into_owned();
    let image = Image::open(&path)?;
    check_architecture(&image, &name)?;
    if let Some(text) = platform {
        check_platform(&image, &name, &Platform::parse(text)?)?;
    }
    let root = RootChoice::of(args, session, &image)?;
    let made = make_plan(args, command, session, &image, &name, way)?;
    let Made { plan, explanation, id, volumes, stays } = made;
    let mut plan = root.applied_to(plan);
    plan::check(&plan)?;
    let sharing = root.sharing(sharing::sharing(args, session));
    if args.plan {
        plan.notes.extend(sharing.describe(&plan, &image));
    }
    let mut serve = session.serve_settings();
    serve.tuning.record_hot = args.record_hot;
    serve.tuning.hot_list = hot::list(&image.path, args, command, session);
    Ok(Prepared { name, image, plan, id, volumes, stays, explanation, serve, sharing, root, lease: None })
}

/// A plan, and what else was decided on the way.
#[derive(Debug)]
struct Made {
    plan: LaunchPlan,
    explanation: Explanation,
    id: Option<String>,
    volumes: Vec<String>,
    stays: bool,
}

fn make_plan(
    args: &RunArgs,
    command: &[OsString],
    session: &Session,
    image: &Image,
    name: &str,
    way: Way<'_>,
) -> Result<Made, Failure> {
    let reader = Reader::open(image.partition())?;
    let files = launch::image_files(&reader, name)?;
    let caller = launch::caller(&session.env);
    let mut grants = super::grants::Ask { args, session, image, reader: &reader, name }.for_run()?;
    let profile = request::profile(args, session);
    let is_docker = profile == Profile::Docker;
    // Without the job's variables a rank finds nobody anyway.
    if !is_docker && !args.cleanenv {
        grants.append(mpi::grants(&session.env));
    }
    // In the docker profile the root of what others can find is kept until it is removed.
    let is_named = args.keep.name.is_some() && !args.rm;
    let is_kept = is_docker && (args.keep.detach || is_named || !matches!(way, Way::Run));
    let id = match way {
        Way::Again(container) => Some(container.record.id.clone()),
        _ if is_docker => Some(runtime::new_id()?),
        _ => None,
    };
    let ground = Ground {
        session,
        profile,
        cwd: caller.cwd.as_deref(),
        image: &image.config.config,
        id: id.as_deref(),
    };
    let mut request = request::request(args, command, &ground)?;
    let volumes = match way {
        // They were made with the container.
        Way::Again(container) => request::keep_again(&mut request, &ground, &container.record.volumes)?,
        _ => {
            let kept = if is_kept && !args.plan && !args.files.explain { Kept::Yes } else { Kept::No };
            request::keep_volumes(&mut request, &ground, &reader, kept)?
        }
    };
    let bundle = bundle::build(&image.config.config, &files, &request, &caller, grants)?;
    let facts = launch::look_up(&bundle, &reader, name)?;
    let source = ImageSource {
        path: image.path.clone(),
        offset_bytes: image.offset_bytes,
        size_bytes: image.size_bytes,
    };
    let plan = plan::make(&bundle, &source, &facts)?;
    let explanation = plan::explain(&bundle, &plan);
    Ok(Made { plan, explanation, id, volumes, stays: is_kept && !args.keep.detach })
}

/// The platform that was asked for, which must be this host's: nothing is emulated.
fn check_platform(image: &Image, name: &str, asked: &Platform) -> Result<(), Failure> {
    let has = image.architecture.clone().unwrap_or_else(|| Platform::host().architecture);
    if asked.architecture == has {
        return Ok(());
    }
    Err(Failure::new(
        format!("cannot run `{name}` as `--platform {}`: the image is for {has}", asked.architecture),
        "leave `--platform` out, or get the image with `slipway pull --platform`",
    ))
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

fn show<T: fmt::Display + serde::Serialize>(what: &T, json: bool) -> Result<(), Failure> {
    if !json {
        return term::print(what);
    }
    let text = serde_json::to_string_pretty(what)
        .map_err(|error| Failure::new(format!("it cannot be shown as JSON: {error}"), None))?;
    term::print(&format_args!("{text}\n"))
}
