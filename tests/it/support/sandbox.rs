//! A place for one test: a directory that the ordinary user can enter, with a home, a store and the program in it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::user::User;

/// How long a test waits for something that must come. Only a failing test waits that long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);
/// What a program gets as PATH: Debian's daemons are in the sbin directories.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The directory, removed with everything in it at the end.
///
/// ```text
/// DIR/            0755, the ordinary user's
///   bin/slipway   the program: the build directory may be closed to that user
///   home/         HOME, and the current directory of what is started; the store is below
/// ```
#[derive(Debug)]
pub(crate) struct Sandbox {
    directory: tempfile::TempDir,
    pub(crate) user: User,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let user = User::ordinary();
        // Not below TMPDIR, which may be closed to others; a short path, for sockets.
        let directory = tempfile::Builder::new().prefix("slipway-test.").tempdir_in("/tmp").unwrap();
        let sandbox = Self { directory, user };
        sandbox.allow(sandbox.directory.path(), 0o755);
        for name in ["bin", "home"] {
            sandbox.make_directory(name);
        }
        place(Path::new(env!("CARGO_BIN_EXE_slipway")), &sandbox.path("bin"));
        sandbox
    }

    /// A path below the sandbox.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.directory.path().join(relative)
    }

    /// The program's place.
    pub(crate) fn program(&self) -> PathBuf {
        self.path("bin/slipway")
    }

    /// A directory of the ordinary user's, with its parents.
    pub(crate) fn make_directory(&self, relative: &str) -> PathBuf {
        let mut path = self.path("");
        for name in Path::new(relative) {
            path.push(name);
            if std::fs::create_dir(&path).is_ok() {
                self.allow(&path, 0o755);
            }
        }
        assert!(path.is_dir(), "{} cannot be made", path.display());
        path
    }

    /// A file of the ordinary user's.
    pub(crate) fn write(&self, relative: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(relative);
        std::fs::write(&path, bytes).unwrap();
        self.allow(&path, 0o644);
        path
    }

    fn allow(&self, path: &Path, mode: u32) {
        self.user.give(path);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// `slipway …`, as the ordinary user, in the sandbox's home.
    pub(crate) fn slipway<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run<'_> {
        self.command(self.program(), args)
    }

    /// Any other program, in the same way.
    pub(crate) fn command<S: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = S>,
    ) -> Run<'_> {
        Run {
            sandbox: self,
            program: program.as_ref().to_owned(),
            args: args.into_iter().map(|arg| arg.as_ref().to_owned()).collect(),
            env: vec![
                ("HOME".into(), self.path("home").into()),
                ("USER".into(), self.user.name.clone().into()),
                ("PATH".into(), PATH.into()),
                ("LANG".into(), "C.UTF-8".into()),
            ],
            stdin: Stdin::Empty,
            cwd: self.path("home"),
        }
    }

    /// A script for `/bin/sh`, with `$SLIPWAY` as the program.
    pub(crate) fn shell(&self, script: &str) -> Run<'_> {
        self.command("/bin/sh", ["-euc", script]).env("SLIPWAY", self.program())
    }

    /// The text with this sandbox's path as `[DIR]`.
    pub(crate) fn normalise(&self, text: &str) -> String {
        text.replace(self.directory.path().to_str().unwrap(), "[DIR]")
    }

    /// Fails if a process runs the sandbox's program, a mount lies in the sandbox, or the store holds half an image. A
    /// server ends a moment after the container, so processes get some time.
    pub(crate) fn assert_nothing_left(&self) {
        let start = Instant::now();
        loop {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            assert!(start.elapsed() < DEADLINE, "still running: {left:?}");
            std::thread::sleep(PAUSE);
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let here = self.directory.path().to_str().unwrap();
        let left: Vec<_> = mounts.lines().filter(|line| line.contains(here)).collect();
        assert!(left.is_empty(), "still mounted: {left:?}");
        let left: Vec<_> = self.files().into_iter().filter(|path| is_temporary(path)).collect();
        assert!(left.is_empty(), "half-made files: {left:?}");
    }

    /// The processes that run the sandbox's program, with their names.
    pub(crate) fn processes(&self) -> Vec<(i32, String)> {
        processes_of(&self.program())
    }

    /// Every file below the home, relative to it.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let home = self.path("home");
        let mut found = Vec::new();
        let mut open = vec![home.clone()];
        while let Some(directory) = open.pop() {
            // The kernel's scratch directory of an overlay has mode 0, so that only root may look into it.
            let Ok(entries) = std::fs::read_dir(directory) else { continue };
            for entry in entries.flatten() {
                if entry.file_type().unwrap().is_dir() {
                    open.push(entry.path());
                } else {
                    found.push(entry.path().strip_prefix(&home).unwrap().to_owned());
                }
            }
        }
        found.sort();
        found
    }
}

/// The processes that run a program, with their names.
pub(crate) fn processes_of(program: &Path) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if std::fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == program) {
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.push((pid, name.trim().to_owned()));
        }
    }
    found
}

/// Puts a program of the build into a directory that the ordinary user can enter: the build directory may be closed to it,
/// as root's home is.
pub(crate) fn place(program: &Path, directory: &Path) -> PathBuf {
    let copy = directory.join(program.file_name().unwrap());
    // A link costs nothing, where both lie on one file system.
    if !copy.exists() && std::fs::hard_link(program, &copy).is_err() {
        std::fs::copy(program, &copy).unwrap();
    }
    copy
}

/// What only exists while something is being made: files below the store's `tmp`, and any target's unfinished sibling.
fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    path.components().any(|part| part.as_os_str() == "tmp")
        || name.starts_with(".tmp")
        || name.ends_with(".tmp")
}

/// A program about to be started.
#[derive(Debug)]
#[must_use]
pub(crate) struct Run<'a> {
    sandbox: &'a Sandbox,
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdin: Stdin,
    cwd: PathBuf,
}

#[derive(Debug)]
enum Stdin {
    Empty,
    Bytes(Vec<u8>),
    /// The test writes, through the child's own handle.
    Open,
}

impl Run<'_> {
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Bytes for standard input, which is empty otherwise.
    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Stdin::Bytes(bytes.into());
        self
    }

    /// Standard input that the test writes to, through the handle of the child.
    pub(crate) fn stdin_open(mut self) -> Self {
        self.stdin = Stdin::Open;
        self
    }

    pub(crate) fn cwd(mut self, path: impl Into<PathBuf>) -> Self {
        self.cwd = path.into();
        self
    }

    /// Starts it with pipes.
    pub(crate) fn spawn(self) -> Child {
        let stdin = if matches!(self.stdin, Stdin::Empty) { Stdio::null() } else { Stdio::piped() };
        let mut child = self
            .sandbox
            .user
            .command(&self.program)
            .args(&self.args)
            .envs(self.env)
            .current_dir(&self.cwd)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {:?}: {error}", self.program));
        if let Stdin::Bytes(bytes) = self.stdin {
            let mut pipe = child.stdin.take().unwrap();
            // Off this thread: a program may write before it has read everything, or not read at all.
            std::thread::spawn(move || drop(pipe.write_all(&bytes)));
        }
        child
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Output {
        let sandbox = self.sandbox;
        let output = self.spawn().wait_with_output().unwrap();
        Output {
            code: output.status.code(),
            signal: output.status.signal(),
            stdout: sandbox.normalise(&String::from_utf8_lossy(&output.stdout)),
            stderr: sandbox.normalise(&String::from_utf8_lossy(&output.stderr)),
        }
    }

    /// Runs it to its end, which must be a good one, and gives its standard output.
    #[track_caller]
    pub(crate) fn succeed(self) -> String {
        let shown = format!("{:?}", self.args);
        let output = self.run();
        assert_eq!(output.code, Some(0), "{shown}: {output}");
        output.stdout
    }
}

/// How a program ended and what it said, with the sandbox's path as `[DIR]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => writeln!(f, "exit code {code}")?,
            (None, Some(signal)) => writeln!(f, "signal {signal}")?,
            (None, None) => writeln!(f, "no exit status")?,
        }
        write!(f, "---- stdout\n{}---- stderr\n{}", self.stdout, self.stderr)
    }
}

/// Waits until `ready` says so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < DEADLINE, "{what}: still not so after {} s", DEADLINE.as_secs());
        std::thread::sleep(PAUSE);
    }
}
