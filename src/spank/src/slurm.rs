//! Slurm's side: its functions, found in the program that has loaded this plugin. All unsafe code of the plugin is here and in
//! the callbacks' signatures.
//!
//! Nothing is linked: `srun`, `sbatch` and `slurmstepd` have these names in libslurmfull, and a plugin that is built without
//! Slurm's headers runs under each of its versions. The interface (`slurm/spank.h`) has only grown since 2008.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr;

/// `spank_t`.
pub(crate) type Handle = *mut c_void;

/// `S_JOB_STEPID` and `S_JOB_ARGV` of `enum spank_item`.
const JOB_STEPID: c_int = 3;
const JOB_ARGV: c_int = 9;
/// The step that runs the script of `sbatch` (`slurm/slurm.h`: SLURM_BATCH_SCRIPT).
const BATCH_STEP: u32 = 0xffff_fffb;
/// Most bytes of a variable that is read.
const VARIABLE_BYTES: usize = 64 * 1024;
/// Most words of a task's command.
const MAX_WORDS: usize = 1 << 16;

/// Which program has loaded the plugin (`enum spank_context`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Context {
    /// `srun`.
    Local,
    /// `slurmstepd`.
    Remote,
    /// `sbatch` and `salloc`.
    Allocator,
    /// Another, where there is nothing to do.
    Other,
}

/// `struct spank_option`. Slurm copies it.
#[repr(C)]
struct SpankOption {
    name: *const c_char,
    argument: *const c_char,
    usage: *const c_char,
    has_argument: c_int,
    value: c_int,
    callback: OptionCallback,
}

/// Called with the number of an option and its argument.
pub(crate) type OptionCallback = extern "C" fn(c_int, *const c_char, c_int) -> c_int;

/// A function of the running program, by name.
///
/// # Safety
///
/// `F` must be the pointer type of the function with that name.
unsafe fn function<F: Copy>(name: &CStr) -> Option<F> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: the name is a C string; dlsym only looks it up.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    // SAFETY: not null, so it is the address of that function, and the caller vouches for its type.
    (!found.is_null()).then(|| unsafe { std::mem::transmute_copy::<*mut c_void, F>(&found) })
}

/// Plugins that one or the other installation has beside libslurmfull; to load one runs nothing of it.
const NEIGHBOURS: [&str; 6] =
    ["hash_k12.so", "auth_munge.so", "auth_slurm.so", "auth_none.so", "cgroup_v2.so", "select_cons_tres.so"];

/// The number of the running Slurm's version, as its plugins have it (`SLURM_VERSION_NUMBER`): that of a plugin beside its
/// library. Its own `slurm_api_version` counts otherwise (38.0.0 for 22.05).
#[must_use]
pub(crate) fn running_version() -> Option<u32> {
    let mut found = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: the address is a function of libslurmfull or null; `found` has room for the answer.
    let is_found = unsafe {
        let inside = libc::dlsym(libc::RTLD_DEFAULT, c"slurm_spank_log".as_ptr());
        !inside.is_null() && libc::dladdr(inside, found.as_mut_ptr()) != 0
    };
    if !is_found {
        return None;
    }
    // SAFETY: all zeros is valid, and dladdr has filled it; its strings live as long as the library.
    let library = unsafe { string(found.assume_init().dli_fname) }?;
    let library = std::fs::canonicalize(library).ok()?;
    NEIGHBOURS.iter().find_map(|name| version_of(library.with_file_name(name).to_str()?))
}

/// The version that a plugin says it is for.
fn version_of(path: &str) -> Option<u32> {
    let path = CString::new(path).ok()?;
    // SAFETY: the path is a C string; Slurm's plugins have no constructors.
    let plugin = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
    if plugin.is_null() {
        return None;
    }
    // SAFETY: a live handle and a C string.
    let number: *const u32 = unsafe { libc::dlsym(plugin, c"plugin_version".as_ptr()) }.cast_const().cast();
    // SAFETY: not null, so it is the plugin's `const unsigned int`.
    let version = (!number.is_null()).then(|| unsafe { *number });
    // SAFETY: the handle is not used again.
    unsafe { libc::dlclose(plugin) };
    version
}

/// Says something to the user, in `srun` and in a task, or to the log.
pub(crate) fn error(text: &str) {
    let Ok(text) = CString::new(text.replace('\0', " ")) else { return };
    // SAFETY: `void slurm_error(const char *, ...)`.
    let Some(call) = (unsafe { function::<unsafe extern "C" fn(*const c_char, ...)>(c"slurm_error") }) else {
        return;
    };
    // SAFETY: the format takes one C string.
    unsafe { call(c"%s".as_ptr(), text.as_ptr()) };
}

/// Where the plugin runs.
#[must_use]
pub(crate) fn context() -> Context {
    // SAFETY: `spank_context_t spank_context(void)`, an enum.
    let call = unsafe { function::<unsafe extern "C" fn() -> c_uint>(c"spank_context") };
    // SAFETY: it takes nothing.
    match call.map(|call| unsafe { call() }) {
        Some(1) => Context::Local,
        Some(2) => Context::Remote,
        Some(3) => Context::Allocator,
        _ => Context::Other,
    }
}

/// Makes an option known. `number` comes back with it.
pub(crate) fn register(
    handle: Handle,
    (name, argument, usage): (&str, Option<&str>, &str),
    number: c_int,
    callback: OptionCallback,
) -> Result<(), String> {
    let failed = || format!("the option --{name} cannot be registered");
    let text = |text: &str| CString::new(text).map_err(|_| failed());
    let (c_name, c_argument, c_usage) = (text(name)?, argument.map(text).transpose()?, text(usage)?);
    let option = SpankOption {
        name: c_name.as_ptr(),
        argument: c_argument.as_ref().map_or(ptr::null(), |argument| argument.as_ptr()),
        usage: c_usage.as_ptr(),
        has_argument: c_int::from(argument.is_some()),
        value: number,
        callback,
    };
    // SAFETY: `spank_err_t spank_option_register(spank_t, struct spank_option *)`.
    let call = unsafe {
        function::<unsafe extern "C" fn(Handle, *const SpankOption) -> c_int>(c"spank_option_register")
    };
    // SAFETY: the handle is the one that Slurm gave for this call, the option and its strings live until it returns.
    match call.map(|call| unsafe { call(handle, &raw const option) }) {
        Some(0) => Ok(()),
        _ => Err(failed()),
    }
}

/// The words of an `argc`, `argv` pair; those that are no UTF-8 are left out.
///
/// # Safety
///
/// `argv` must have `argc` C strings.
pub(crate) unsafe fn strings(argc: c_int, argv: *const *const c_char) -> Vec<String> {
    let count = usize::try_from(argc).unwrap_or(0);
    // SAFETY: the caller vouches for so many entries, and for each being a C string.
    (0..count).filter_map(|place| unsafe { string(*argv.add(place)) }).collect()
}

/// A C string as text.
///
/// # Safety
///
/// It must be null or a C string.
pub(crate) unsafe fn string(text: *const c_char) -> Option<String> {
    // SAFETY: not null, so it is a C string by the caller's word.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_str().ok().map(str::to_owned))?
}

/// Whether this step runs the script of `sbatch`.
#[must_use]
pub(crate) fn is_batch(handle: Handle) -> bool {
    let mut step = 0u32;
    get_item()
        // SAFETY: S_JOB_STEPID takes a `uint32_t *`.
        .is_some_and(|call| unsafe { call(handle, JOB_STEPID, &raw mut step) } == 0 && step == BATCH_STEP)
}

/// The task's command.
#[derive(Debug)]
pub(crate) struct Command {
    argv: *mut *mut c_char,
}

/// The command of the task in whose process this is called.
pub(crate) fn command(handle: Handle) -> Result<Command, String> {
    let (mut argc, mut argv): (c_int, *mut *mut c_char) = (0, ptr::null_mut());
    let call = get_item().ok_or("this Slurm has no spank_get_item")?;
    // SAFETY: S_JOB_ARGV takes an `int *` and a `char ***`.
    let code = unsafe { call(handle, JOB_ARGV, &raw mut argc, &raw mut argv) };
    if code != 0
        || argv.is_null()
        || !usize::try_from(argc).is_ok_and(|count| (1..MAX_WORDS).contains(&count))
    {
        return Err("Slurm does not tell the task's command".into());
    }
    Ok(Command { argv })
}

impl Command {
    /// Its program, as it was typed.
    #[must_use]
    pub(crate) fn program(&self) -> Option<String> {
        // SAFETY: Slurm gave at least one entry.
        unsafe { string(*self.argv) }
    }

    /// Puts words before it. `later` is what older versions of Slurm need: a variable by which slipway finds the words, since
    /// there the command keeps its length and only its program can be another.
    pub(crate) fn prepend(
        &self,
        handle: Handle,
        words: &[String],
        later: impl FnOnce(&str) -> (&'static CStr, String),
    ) -> Result<(), String> {
        let texts: Result<Vec<CString>, _> = words.iter().map(|word| CString::new(word.as_str())).collect();
        let texts = texts.map_err(|_| "an option holds a NUL byte")?;
        type Prepend = unsafe extern "C" fn(Handle, c_int, *const *const c_char) -> c_int;
        // SAFETY: `spank_err_t spank_prepend_task_argv(spank_t, int, const char *[])`, since 23.11.
        if let Some(call) = unsafe { function::<Prepend>(c"spank_prepend_task_argv") } {
            let pointers: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
            let count = c_int::try_from(pointers.len()).map_err(|_| "the options are too long")?;
            // SAFETY: so many C strings, which live until it returns; Slurm copies them.
            return match unsafe { call(handle, count, pointers.as_ptr()) } {
                0 => Ok(()),
                code => Err(format!("Slurm does not take the command's new beginning (error {code})")),
            };
        }
        let (Some(slipway), Some(program)) = (texts.first(), self.program()) else {
            return Err("the task's command is no text".into());
        };
        let (name, value) = later(&program);
        set_variable(handle, name, &value)?;
        // SAFETY: strdup copies a C string. It is never freed: this process executes it or ends.
        let slipway = unsafe { libc::strdup(slipway.as_ptr()) };
        if slipway.is_null() {
            return Err("no memory".into());
        }
        // SAFETY: the first of `argc` entries of this process's own copy of the command, which slurmstepd executes next.
        unsafe { *self.argv = slipway };
        Ok(())
    }
}

type GetItem = unsafe extern "C" fn(Handle, c_int, ...) -> c_int;

fn get_item() -> Option<GetItem> {
    // SAFETY: `spank_err_t spank_get_item(spank_t, spank_item_t, ...)`.
    unsafe { function::<GetItem>(c"spank_get_item") }
}

/// A variable of the job.
#[must_use]
pub(crate) fn variable(handle: Handle, name: &str) -> Option<String> {
    let name = CString::new(name).ok()?;
    let mut room = vec![0u8; VARIABLE_BYTES];
    type Get = unsafe extern "C" fn(Handle, *const c_char, *mut c_char, c_int) -> c_int;
    // SAFETY: `spank_err_t spank_getenv(spank_t, const char *, char *, int)`.
    let call = unsafe { function::<Get>(c"spank_getenv") }?;
    let length = c_int::try_from(room.len()).ok()?;
    // SAFETY: so many bytes may be written to the room.
    let code = unsafe { call(handle, name.as_ptr(), room.as_mut_ptr().cast(), length) };
    let text = CStr::from_bytes_until_nul(&room).ok()?;
    (code == 0).then(|| text.to_str().ok().map(str::to_owned))?
}

fn set_variable(handle: Handle, name: &CStr, value: &str) -> Result<(), String> {
    let failed = || format!("Slurm does not take the variable {}", name.to_string_lossy());
    let value = CString::new(value).map_err(|_| failed())?;
    type Set = unsafe extern "C" fn(Handle, *const c_char, *const c_char, c_int) -> c_int;
    // SAFETY: `spank_err_t spank_setenv(spank_t, const char *, const char *, int)`.
    let call = unsafe { function::<Set>(c"spank_setenv") }.ok_or_else(failed)?;
    // SAFETY: two C strings, which Slurm copies.
    match unsafe { call(handle, name.as_ptr(), value.as_ptr(), 1) } {
        0 => Ok(()),
        _ => Err(failed()),
    }
}
