//! The side of a container: asks a keeper, or makes one and asks that.

use std::os::fd::OwnedFd;

use crate::plan::{LaunchPlan, Op};
use crate::sys::ns::SingleThreaded;
use crate::sys::{Result, pidfd, process, socket};

use super::elect::{self, Elected, Places};
use super::serve::{self, Post};
use super::wishes::Wishes;
use super::{DIRECTORY, Names, PATIENCE};
use crate::launch::Context;
use crate::launch::server;
use crate::launch::stop_for_test;

/// Longest answer of a keeper, in bytes.
const ANSWER_BYTES: usize = 64;
/// What a new keeper says to one of the same scope: it wants the user namespace.
pub(super) const USER: &[u8] = b"user\0";
/// Programs above a process with whose end the job, or the user's stay in it, ends.
const LEASHES: [&str; 2] = ["slurmstepd", "salloc"];

/// What a keeper has handed out.
#[derive(Debug)]
pub(in crate::launch) struct Joined {
    /// The user namespace.
    pub(in crate::launch) user: OwnedFd,
    /// A copy of the image's mount, not attached yet.
    pub(in crate::launch) image: OwnedFd,
}

/// Asks the keepers that there are, and makes one if the sharing says so. `None`: the container starts alone.
pub(in crate::launch) fn enter(
    witness: &SingleThreaded,
    plan: &LaunchPlan,
    context: &Context<'_>,
) -> Option<Joined> {
    let sharing = &context.sharing;
    let is_served = plan.ops.iter().any(|op| matches!(op, Op::MountImage { .. }));
    if sharing.scopes.is_empty() || !is_served {
        return None;
    }
    // So that a keeper sees the container's end. A kernel without pidfds (before 5.3) has no keepers.
    let own = [pidfd::own_handle().ok()?];
    let names = Names::new(sharing, plan, context.image)?.all;
    let wishes = Wishes::of(plan).encode();
    if let Some(places) = elect::open(&sharing.root.join(DIRECTORY)) {
        for name in &names {
            if let Ok(line) = places.connect(name) {
                // A keeper that was just ending has closed the line: the next one is asked, or made.
                match ask(&line, &wishes, &own) {
                    Some(Answer::Joined(joined)) => return Some(joined),
                    Some(Answer::Refused) => return None,
                    None => {}
                }
            }
        }
    }
    sharing.lead?;
    let places = elect::make(&sharing.root)?;
    let line = match places.elect(names.first()?).ok()? {
        Elected::Follow(line) => line,
        Elected::Lead { listener, sibling } => {
            let name = names.into_iter().next()?;
            lead(witness, plan, context, Seat { places, name, listener, sibling }).ok()?
        }
    };
    match ask(&line, &wishes, &own)? {
        Answer::Joined(joined) => Some(joined),
        Answer::Refused => None,
    }
}

#[derive(Debug)]
enum Answer {
    Joined(Joined),
    Refused,
}

/// `None` if the keeper is gone or has no time.
fn ask(line: &OwnedFd, wishes: &[u8], own: &[OwnedFd]) -> Option<Answer> {
    socket::set_patience(line, PATIENCE).ok()?;
    socket::send(line, wishes, own).ok()?;
    let (_, fds) = socket::receive(line, ANSWER_BYTES).ok()??;
    match <[OwnedFd; 2]>::try_from(fds) {
        Ok([user, image]) => Some(Answer::Joined(Joined { user, image })),
        Err(_) => Some(Answer::Refused),
    }
}

/// What an election has given this process.
#[derive(Debug)]
struct Seat {
    places: Places,
    name: String,
    listener: OwnedFd,
    sibling: Option<OwnedFd>,
}

/// Starts server and keeper. Gives a line to the keeper, as if it had been connected.
fn lead(witness: &SingleThreaded, plan: &LaunchPlan, context: &Context<'_>, seat: Seat) -> Result<OwnedFd> {
    stop_for_test("keeper-elected");
    let (line, first) = socket::pair()?;
    let (control, servers) = socket::pair()?;
    let user = seat.sibling.and_then(|line| user_of(&line));
    let in_job = context.sharing.scopes.iter().any(|scope| scope.job.is_some());
    let leash = if in_job { pidfd::ancestor_named(&LEASHES) } else { None };
    let settled = context.serve.settle();
    let view = server::View::of(plan);
    let mut first = Some(first);
    let mut serve_image = || {
        if in_job {
            process::use_every_cpu();
        }
        server::serve(&servers, &view, context, settled, server::Client::Keeper)
    };
    let post = Post {
        listener: seat.listener,
        control,
        directory: seat.places.fd(),
        name: seat.name,
        user,
        leash,
        ids: plan.ops.iter().find_map(server::id_map),
        settled,
        linger: context.sharing.lead.unwrap_or_default(),
        known: view.points(),
        use_every_cpu: in_job,
    };
    process::spawn_each_detached(
        witness,
        &mut [&mut serve_image, &mut || first.take().map_or(1, |first| serve::keep(&post, first))],
    )?;
    Ok(line)
}

/// The user namespace of a keeper of the same scope.
fn user_of(line: &OwnedFd) -> Option<OwnedFd> {
    socket::set_patience(line, PATIENCE).ok()?;
    socket::send(line, USER, &[]).ok()?;
    let (_, fds) = socket::receive(line, ANSWER_BYTES).ok()??;
    fds.into_iter().next()
}
