//! The keeper's own life. It holds the user namespace and a mount of the image, and no other mount; it has one thread, no
//! fd of its caller, and no child.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::fuse::{DONE, GRAFT, MAX_MESSAGE_BYTES, Synthetic, SyntheticKind, encode_points};
use crate::sys::access::Wanted;
use crate::sys::ns::{IdMap, Isolation, SingleThreaded};
use crate::sys::{Errno, Result, access, file, mount, ns, process, socket};

use super::PATIENCE;
use super::join::USER;
use super::wishes::Wishes;
use crate::launch::apply::mount_served;
use crate::launch::server::Settled;
use crate::launch::stop_for_test;

/// Most lines of which the first word has not come yet. More wait in the kernel.
const MAX_LINES: usize = 512;

/// What a keeper is given.
#[derive(Debug)]
pub(super) struct Post<'a> {
    /// Where containers knock.
    pub(super) listener: OwnedFd,
    /// The line to the server.
    pub(super) control: OwnedFd,
    /// The directory of the place,
    pub(super) directory: BorrowedFd<'a>,
    /// and its name there.
    pub(super) name: String,
    /// The user namespace to join; without one a new one is made.
    pub(super) user: Option<OwnedFd>,
    /// Ends the keeper with its own end.
    pub(super) leash: Option<OwnedFd>,
    /// The maps of a new user namespace.
    pub(super) ids: Option<IdMap>,
    /// How many threads the server has: more where the job has more CPUs than the caller was bound to.
    pub(super) settled: Settled,
    /// How long to stay when the last container has ended.
    pub(super) linger: Duration,
    /// Mount points that the server has from the start.
    pub(super) known: Vec<Synthetic>,
    /// The caller may be bound to some of the job's CPUs.
    pub(super) use_every_cpu: bool,
}

/// Keeps. `first` is the line of whoever started this. The exit status is for nobody.
pub(super) fn keep(post: &Post<'_>, first: OwnedFd) -> i32 {
    process::forget_command_line();
    process::set_name(c"slipway-keeper");
    process::ignore_signals();
    stop_for_test("keeper-begins");
    match Keeper::new(post, first) {
        Ok(mut keeper) => i32::from(keeper.stay().is_err()),
        // Everyone who waits sees the line closed, and starts alone, in which it learns why that does not work.
        Err(_) => {
            leave(post);
            1
        }
    }
}

/// Takes the place away, so that nobody else knocks.
fn leave(post: &Post<'_>) {
    // The next who makes a keeper would do the same.
    let _ = file::remove_from(post.directory, &post.name);
}

#[derive(Debug)]
struct Keeper<'a> {
    post: &'a Post<'a>,
    user: OwnedFd,
    /// Mount points that the server has.
    known: BTreeSet<(Vec<u8>, bool)>,
    /// The wishes that were met last: the ranks of a step have all the same.
    met: Vec<u8>,
    /// Who has connected and not spoken yet.
    lines: Vec<OwnedFd>,
    /// Processes that became a container.
    containers: Vec<OwnedFd>,
    /// Since when there has been none.
    idle_since: Instant,
    /// There is no room for another fd; looked at again when a container has ended.
    is_full: bool,
}

impl<'a> Keeper<'a> {
    fn new(post: &'a Post<'a>, first: OwnedFd) -> Result<Self> {
        let mut kept = vec![post.listener.as_fd(), post.control.as_fd(), post.directory, first.as_fd()];
        kept.extend(post.user.iter().chain(&post.leash).map(|fd| fd.as_fd()));
        process::keep_only_fds(&kept)?;
        process::use_every_fd();
        let mut threads = post.settled.threads;
        if post.use_every_cpu {
            process::use_every_cpu();
            threads = post.settled.threads_now();
        }
        let witness = SingleThreaded::witness().ok_or(Errno::EINVAL)?;
        match &post.user {
            Some(user) => ns::join_user_and_unshare_mount(&witness, user, Isolation::default())?,
            None => {
                ns::unshare_user_and_mount(&witness, Isolation::default())?;
                ns::write_id_maps(post.ids.as_ref().ok_or(Errno::EINVAL)?)?;
            }
        }
        let user = ns::own_user_namespace()?;
        mount::make_all_slave()?;
        let place = mount_served(threads, &post.control)?;
        match mount::keep_only(place) {
            // On an initramfs root there is no pivot. Then the host's mounts stay here too, as slaves of the host's.
            Err(Errno::EINVAL) => process::change_directory(place)?,
            other => other?,
        }
        // A kernel that cannot copy a mount (before 5.2) has nothing to hand out.
        drop(mount::copy(Path::new("."))?);
        stop_for_test("keeper-mounted");
        socket::set_patience(&post.control, PATIENCE)?;
        let known = post.known.iter().map(key).collect();
        Ok(Self {
            post,
            user,
            known,
            met: Vec::new(),
            lines: vec![first],
            containers: Vec::new(),
            idle_since: Instant::now(),
            is_full: false,
        })
    }

    /// Until nobody is left, the server has gone, or the job has ended.
    fn stay(&mut self) -> Result<()> {
        loop {
            let left = self.is_idle().then(|| self.post.linger.saturating_sub(self.idle_since.elapsed()));
            if left == Some(Duration::ZERO) && self.may_leave()? {
                return Ok(());
            }
            let is_listening = !self.is_full && self.lines.len() < MAX_LINES;
            let ends = [Some(&self.post.control), self.post.leash.as_ref()];
            let fixed = ends.into_iter().flatten().count();
            let mut fds: Vec<BorrowedFd<'_>> = ends.into_iter().flatten().map(|fd| fd.as_fd()).collect();
            fds.extend(self.lines.iter().chain(&self.containers).map(|fd| fd.as_fd()));
            if is_listening {
                fds.push(self.post.listener.as_fd());
            }
            let wanted: Vec<_> = fds.iter().map(|fd| Wanted { fd: *fd, read: true, write: false }).collect();
            let ready = access::wait_ready(&wanted, left)?;
            let mut ready = ready.into_iter().map(|ready| ready.read);
            if ready.by_ref().take(fixed).fold(false, |any, one| any | one) {
                // The server says nothing of itself but its last words.
                leave(self.post);
                return Ok(());
            }
            let speaking: Vec<bool> = ready.by_ref().take(self.lines.len()).collect();
            let ended: Vec<bool> = ready.by_ref().take(self.containers.len()).collect();
            self.forget(&ended);
            self.hear(&speaking);
            if ready.next() == Some(true) {
                self.accept();
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.containers.is_empty() && self.lines.is_empty()
    }

    /// Takes the place away under the lock, unless somebody has knocked: who elects afterwards finds no place, and who did
    /// before has connected.
    fn may_leave(&mut self) -> Result<bool> {
        file::lock(self.post.directory, file::Sharing::Alone)?;
        self.accept();
        let may = self.lines.is_empty();
        stop_for_test("keeper-leaves");
        if may {
            leave(self.post);
        }
        file::unlock(self.post.directory)?;
        Ok(may)
    }

    fn accept(&mut self) {
        while self.lines.len() < MAX_LINES {
            match socket::accept(&self.post.listener) {
                Ok(line) => self.lines.push(line),
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => return,
                Err(_) => {
                    self.is_full = true;
                    return;
                }
            }
        }
    }

    fn forget(&mut self, ended: &[bool]) {
        let had = self.containers.len();
        let mut ended = ended.iter();
        self.containers.retain(|_| ended.next() != Some(&true));
        if self.containers.len() < had {
            self.is_full = false;
            if self.containers.is_empty() {
                self.idle_since = Instant::now();
                // Nothing is mounted on those names any more, so the kernel may forget them.
                self.met.clear();
            }
        }
    }

    /// Answers who has spoken, and closes the line.
    fn hear(&mut self, speaking: &[bool]) {
        let mut speaking = speaking.iter();
        let (heard, silent) =
            std::mem::take(&mut self.lines).into_iter().partition(|_| speaking.next() == Some(&true));
        self.lines = silent;
        for line in heard {
            // Who is gone needs no answer, and who gets none starts alone.
            let _ = self.answer(&line);
            self.is_full = false;
        }
    }

    fn answer(&mut self, line: &OwnedFd) -> Result<()> {
        let Some((message, fds)) = socket::try_receive(line, MAX_MESSAGE_BYTES)? else { return Ok(()) };
        if message == USER {
            return socket::send(line, DONE, &[self.copy_of_user()?]);
        }
        let Some(container) = fds.into_iter().next() else {
            return socket::send(line, b"not understood", &[]);
        };
        if message != self.met {
            let Some(wishes) = Wishes::decode(&message) else {
                return socket::send(line, b"not understood", &[]);
            };
            if !self.graft(wishes.points)? {
                return socket::send(line, b"no room", &[]);
            }
            for place in &wishes.places {
                // What it is, and whether it is there, is for who mounts.
                let _ = fs::symlink_metadata(place.as_path());
            }
            self.met = message;
        }
        let image = mount::copy(Path::new("."))?;
        // Before the answer: once that is there the container may have ended already.
        self.containers.push(container);
        stop_for_test("keeper-answers");
        socket::send(line, DONE, &[self.copy_of_user()?, image])
    }

    fn copy_of_user(&self) -> Result<OwnedFd> {
        self.user.try_clone().map_err(|_| Errno::EMFILE)
    }

    /// Has the server add the points that it does not have. False if it cannot.
    fn graft(&mut self, points: Vec<Synthetic>) -> Result<bool> {
        let new: Vec<Synthetic> =
            points.into_iter().filter(|point| !self.known.contains(&key(point))).collect();
        if new.is_empty() {
            return Ok(true);
        }
        let message = [GRAFT, &encode_points(&new)].concat();
        socket::send(&self.post.control, &message, &[])?;
        let answer = socket::receive(&self.post.control, MAX_MESSAGE_BYTES)?;
        let has_them = answer.is_some_and(|(text, _)| text == DONE);
        if has_them {
            self.known.extend(new.iter().map(key));
        }
        Ok(has_them)
    }
}

fn key(point: &Synthetic) -> (Vec<u8>, bool) {
    (point.path.as_bytes().to_vec(), point.kind == SyntheticKind::Directory)
}
