//! The ordinary user. Root hides bugs of a rootless tool, so what root's tests start becomes somebody else.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// The account that `scripts/test` makes.
const TEST_USER: &str = "slipway-test";
/// Where there is no such account: the kernel's overflow id, `nobody` everywhere.
const NOBODY: u32 = 65534;

/// Who runs the programs of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    /// Account name, or the uid as text.
    pub(crate) name: String,
    /// User id.
    pub(crate) uid: u32,
    /// Group id.
    pub(crate) gid: u32,
}

impl User {
    /// The test account if this process is root, else whoever runs it.
    pub(crate) fn ordinary() -> Self {
        let me = nix::unistd::getuid();
        if !me.is_root() {
            let name = nix::unistd::User::from_uid(me).ok().flatten().map(|user| user.name);
            let gid = nix::unistd::getgid().as_raw();
            return Self { name: name.unwrap_or_else(|| me.to_string()), uid: me.as_raw(), gid };
        }
        match nix::unistd::User::from_name(TEST_USER) {
            Ok(Some(user)) => Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() },
            _ => Self { name: "nobody".into(), uid: NOBODY, gid: NOBODY },
        }
    }

    /// A command that will run as this user, with an empty environment.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear();
        if nix::unistd::getuid().is_root() {
            // std drops the supplementary groups too when root sets a uid.
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Gives a file or directory to this user.
    pub(crate) fn give(&self, path: &Path) {
        if nix::unistd::getuid().is_root() {
            std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid)).unwrap();
        }
    }
}
