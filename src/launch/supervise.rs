//! A process that stands before another: it passes on what it is sent, reaps what is orphaned, and ends as the other ends.

use std::os::fd::AsFd as _;

use crate::sys::process::{self, Child, End};
use crate::sys::signals::{self, SignalWatch};
use crate::sys::{Errno, access, pidfd};

/// Exit status where nobody can tell how the other has ended, as Docker has it after a crash.
const UNKNOWN: i32 = 255;

/// Looks after `child` until it has ended. `watch` was made before the fork, so that no signal is lost between.
///
/// What a terminal sends goes to every process of its group, so the other has it already and gets it once.
#[must_use]
pub fn supervise(watch: &SignalWatch, child: Child) -> End {
    loop {
        loop {
            match process::reap_any() {
                Ok(Some((who, end))) if who == child => return end,
                // An orphan that was adopted.
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(Errno::ECHILD) => return End::Exited(UNKNOWN),
                Err(_) => break,
            }
        }
        // A failure is looked into by the next turn.
        let _ = access::wait_any([Some(watch.as_fd())], None);
        while let Some(caught) = watch.next() {
            if caught.number != signals::CHILD && !caught.from_kernel {
                // ESRCH: it has just ended, which the next turn sees.
                let _ = pidfd::send_signal(child.as_raw(), caught.number);
            }
        }
    }
}
