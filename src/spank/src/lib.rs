//! A Slurm plugin: `srun --slipway-image=IMAGE COMMAND` runs the command as `slipway run IMAGE -- COMMAND` would.
//!
//! It does nothing else: no namespace, no mount, no process, no thread. What it changes is the task's command, in the task's own
//! process, after which slurmstepd goes on as with any command (binding, TaskProlog, TMPDIR, exec).
//!
//! ```text
//! srun, sbatch ── slurm_spank_init: options ── slurm_spank_init_post_opt: are they sound?
//! slurmstepd   ── slurm_spank_init: options ── fork ── slurm_spank_task_init: a new beginning of the command
//! ```
//!
//! A line for `plugstack.conf`: `optional /usr/lib/slipway/libslipway_spank.so [slipway=PATH] [pyxis=1]`.

mod options;
mod slurm;

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int};
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use options::{Choice, Given, OWN, PYXIS};
use slurm::{Context, Handle};

/// By this variable slipway finds the beginning of its command line, under Slurm before 23.11 (`cli::task_words`).
const TASK_VARIABLE: &std::ffi::CStr = c"SLIPWAY_TASK";
/// Where slipway is if the plugin's line does not say.
const SLIPWAY: &str = "/usr/bin/slipway";
/// Numbers of pyxis's options come behind ours.
const PYXIS_FROM: c_int = 1000;

/// Slurm loads a plugin by these names (`slurm/spank.h`: SPANK_PLUGIN).
#[unsafe(no_mangle)]
pub static plugin_name: [u8; 8] = *b"slipway\0";
/// What kind of plugin it is.
#[unsafe(no_mangle)]
pub static plugin_type: [u8; 6] = *b"spank\0";
/// The version of Slurm that the plugin is for: the running one, which is asked when the plugin is loaded. A constant would need
/// a build for each version, and a wrong one with `required` stops every job of a cluster.
#[unsafe(no_mangle)]
pub static plugin_version: AtomicU32 = AtomicU32::new(0);
/// Our own version, of which Slurm takes no notice.
#[unsafe(no_mangle)]
pub static spank_plugin_version: u32 = 1;

/// The loader calls this before anyone looks at [`plugin_version`].
#[used]
#[unsafe(link_section = ".init_array")]
static ON_LOAD: extern "C" fn() = on_load;

extern "C" fn on_load() {
    if let Some(version) = slurm::running_version() {
        plugin_version.store(version, Ordering::Relaxed);
    }
}

/// What is known of this program's job.
struct State {
    given: Given,
    slipway: String,
    has_pyxis: bool,
    /// For tests: the callback that panics.
    panics_in: Option<String>,
}

static STATE: Mutex<State> =
    Mutex::new(State { given: BTreeMap::new(), slipway: String::new(), has_pyxis: false, panics_in: None });

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a callback so that neither an error nor a bug of ours ends the program that called.
fn fenced(name: &str, work: impl FnOnce() -> Result<(), String>) -> c_int {
    let work = std::panic::AssertUnwindSafe(|| {
        assert!(state().panics_in.as_deref() != Some(name), "asked to");
        work()
    });
    match catch_unwind(work) {
        Ok(Ok(())) => 0,
        Ok(Err(reason)) => {
            slurm::error(&format!("slipway: {reason}"));
            -1
        }
        Err(_) => {
            slurm::error(&format!(
                "slipway: the plugin has a bug ({name}); the job goes on without it where it can"
            ));
            -1
        }
    }
}

/// Makes the options known.
///
/// # Safety
///
/// Slurm calls it, with its handle and `argc` words of the plugin's line.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slurm_spank_init(handle: Handle, argc: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: the caller's word.
    let words = unsafe { slurm::strings(argc, argv) };
    let value = |name: &str| words.iter().rev().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    state().panics_in = value("panic_in").map(str::to_owned);
    fenced("init", || {
        let has_pyxis = {
            let mut state = state();
            state.given.clear();
            state.slipway = value("slipway").unwrap_or(SLIPWAY).to_owned();
            state.has_pyxis = value("pyxis").is_some_and(|value| ["1", "yes", "true"].contains(&value));
            state.has_pyxis
        };
        if slurm::context() == Context::Other {
            return Ok(());
        }
        let pyxis = if has_pyxis { PYXIS } else { &[] };
        for (number, choice) in (0..).zip(OWN).chain((PYXIS_FROM..).zip(pyxis)) {
            slurm::register(handle, (choice.name, choice.argument, choice.usage), number, on_option)?;
        }
        Ok(())
    });
    // A failure here would drain the node; without options nobody asks for anything.
    0
}

extern "C" fn on_option(number: c_int, argument: *const c_char, _remote: c_int) -> c_int {
    fenced("option", || {
        let Some(choice) = choice(number) else { return Ok(()) };
        let value = match choice.argument {
            None => choice.value.to_owned(),
            // SAFETY: Slurm gives a C string or null.
            Some(_) => unsafe { slurm::string(argument) }
                .ok_or_else(|| format!("the value of --{} is no text", choice.name))?,
        };
        state().given.insert(choice.key, value);
        Ok(())
    })
}

fn choice(number: c_int) -> Option<&'static Choice> {
    let (list, number) = if number < PYXIS_FROM { (OWN, number) } else { (PYXIS, number - PYXIS_FROM) };
    list.get(usize::try_from(number).ok()?)
}

/// What was given on the command line, and by pyxis's variables where that was not.
fn all_given(lookup: impl Fn(&str) -> Option<String>) -> Given {
    let state = state();
    let mut given = state.given.clone();
    if state.has_pyxis {
        options::add_variables(&mut given, lookup);
    }
    given
}

/// Says in `srun` and `sbatch` what cannot be done, before anything is started.
///
/// # Safety
///
/// Slurm calls it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slurm_spank_init_post_opt(
    _handle: Handle,
    _argc: c_int,
    _argv: *const *const c_char,
) -> c_int {
    fenced("init_post_opt", || {
        if !matches!(slurm::context(), Context::Local | Context::Allocator) {
            return Ok(());
        }
        #[expect(clippy::disallowed_methods, reason = "the job takes this program's environment with it")]
        let given = all_given(|name| std::env::var(name).ok());
        options::words(&given, None).map(drop)
    })
}

/// Gives the task's command its new beginning.
///
/// # Safety
///
/// Slurm calls it, in the process that becomes the task.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slurm_spank_task_init(
    handle: Handle,
    _argc: c_int,
    _argv: *const *const c_char,
) -> c_int {
    fenced("task_init", || {
        if slurm::context() != Context::Remote {
            return Ok(());
        }
        let given = all_given(|name| slurm::variable(handle, name));
        let command = slurm::command(handle)?;
        let script = if slurm::is_batch(handle) { command.program() } else { None };
        let Some(words) = options::words(&given, script.as_deref())? else { return Ok(()) };
        let slipway = state().slipway.clone();
        if !is_program(&slipway) {
            return Err(format!(
                "`{slipway}` is not on this node or cannot be executed; the administrator's line in plugstack.conf names it (slipway=PATH)"
            ));
        }
        let all: Vec<String> = std::iter::once(slipway).chain(words.iter().cloned()).collect();
        command.prepend(handle, &all, |program| {
            let words: Vec<String> = words.into_iter().chain([program.to_owned()]).collect();
            (TASK_VARIABLE, options::encode(std::process::id(), &words))
        })
    })
}

#[expect(clippy::disallowed_methods, reason = "the plugin has no other floor to ask")]
fn is_program(path: &str) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
