//! `slipway run`: from words to the workload.

use std::ffi::OsString;

use crate::bundle;
use crate::image::Image;
use crate::launch::{self, Context};
use crate::plan::{self, ImageSource, LaunchPlan};
use crate::squashfs::read::Reader;

use super::{Session, hot, locate, request};
use crate::cli::args::RunArgs;
use crate::cli::failure::Failure;
use crate::cli::term;

/// Becomes the workload, or says why not. Returns only for `--plan`.
pub(in crate::cli) fn run(args: &RunArgs, session: &Session) -> Result<(), Failure> {
    let (word, command) = args.words.split_first().ok_or_else(|| Failure::new("no image is named", None))?;
    if word.as_encoded_bytes().starts_with(b"-") {
        return Err(Failure::new(
            format!("unknown flag `{}`", word.to_string_lossy()),
            "`slipway run --help` lists the flags; those of the command come behind the image",
        ));
    }
    let path = locate::run_file(word, session)?;
    let name = word.to_string_lossy().into_owned();
    let image = Image::open(&path)?;
    check_architecture(&image, &name)?;
    let plan = make_plan(args, command, session, &image, &name)?;
    if args.plan {
        return show(&plan, args.json);
    }
    for warning in &plan.warnings {
        term::warn(warning);
    }
    let mut serve = session.serve_settings();
    serve.tuning.record_hot = args.record_hot;
    serve.tuning.hot_list = hot::list(&image.path, args, command, session);
    let context = Context { image_name: &name, serve, image: &image, warn: term::warn };
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
    let request = request::request(args, command, session, caller.cwd.as_deref())?;
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
