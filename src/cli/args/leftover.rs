//! Flags of `docker run` and `apptainer run` that are taken so that a line which uses them runs, or refused in words that
//! say why: a table.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

/// What such a flag does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nothing, and nothing is missing: things are so already, or it is of no consequence here.
    AsIs,
    /// Nothing, which the user should know.
    Told(&'static str),
    /// The launch does not happen: what the user wants cannot be had, and what to do instead.
    Refused(&'static str, &'static str),
    /// As it is for these values, and refused for others.
    Only(&'static [&'static str], &'static str, &'static str),
}
use Verdict::{AsIs, Only, Refused, Told};

/// One flag.
struct Row {
    long: &'static str,
    has_value: bool,
    verdict: Verdict,
}

const fn row(long: &'static str, has_value: bool, verdict: Verdict) -> Row {
    Row { long, has_value, verdict }
}

const SAME_NETWORK: Verdict = Told("the network is the host's, with its addresses and names");
const NO_IO_LIMITS: Verdict = Told("the scheduler and the file system decide that");

/// Flags that have a short form too.
const SHORT: [(&str, char); 2] = [("publish-all", 'P'), ("quiet", 'q')];

/// Every such flag.
const ROWS: &[Row] = &[
    // docker: of no consequence
    row("annotation", true, AsIs),
    row("cgroupns", true, AsIs),
    row("expose", true, AsIs),
    row("isolation", true, AsIs),
    row("publish-all", false, AsIs),
    row("quiet", false, AsIs),
    row("userns", true, AsIs),
    // docker: told
    row("cgroup-parent", true, Told("a container stays in its caller's control group")),
    row(
        "device-cgroup-rule",
        true,
        Told("a device is inside if the caller may open it and it is named by --device"),
    ),
    row("ip", true, SAME_NETWORK),
    row("ip6", true, SAME_NETWORK),
    row("link-local-ip", true, SAME_NETWORK),
    row("mac-address", true, SAME_NETWORK),
    row("network-alias", true, SAME_NETWORK),
    row("net-alias", true, SAME_NETWORK),
    row("log-driver", true, Told("output is kept in Slipway's own log, which `slipway logs` shows")),
    row("log-opt", true, Told("output is kept in Slipway's own log, which `slipway logs` shows")),
    row("storage-opt", true, Told("a writable root may grow as far as the disk or memory that it is in")),
    row("memory-swappiness", true, Told("the kernel's setting for the node holds")),
    row("oom-kill-disable", false, Told("only an administrator can set it")),
    row("kernel-memory", true, Told("kernels do not have it any more")),
    row("cpu-rt-period", true, Told("only an administrator can set it")),
    row("cpu-rt-runtime", true, Told("only an administrator can set it")),
    row("blkio-weight", true, NO_IO_LIMITS),
    row("blkio-weight-device", true, NO_IO_LIMITS),
    row("device-read-bps", true, NO_IO_LIMITS),
    row("device-read-iops", true, NO_IO_LIMITS),
    row("device-write-bps", true, NO_IO_LIMITS),
    row("device-write-iops", true, NO_IO_LIMITS),
    // docker: refused
    row(
        "link",
        true,
        Refused(
            "there is no network between containers: they share the host's",
            "reach the other container at `localhost`, or name it with `--add-host NAME:127.0.0.1`",
        ),
    ),
    row(
        "sysctl",
        true,
        Refused(
            "kernel parameters are the host's, and only its administrator may set them",
            "leave it out, or ask an administrator",
        ),
    ),
    row("use-api-socket", false, Refused("there is no daemon and so no socket of one", "leave it out")),
    row(
        "volume-driver",
        true,
        Only(
            &["local"],
            "volumes are directories of this host",
            "leave it out, or bind a directory with `-v`",
        ),
    ),
    row(
        "restart",
        true,
        Only(
            &["no", ""],
            "there is no daemon that could start a container again",
            "let the scheduler do it (Slurm: `--requeue`)",
        ),
    ),
    // Apptainer: already so
    row("disable-cache", false, AsIs),
    row("no-eval", false, AsIs),
    row("no-init", false, AsIs),
    row("no-pid", false, AsIs),
    row("no-privs", false, AsIs),
    row("nvccli", false, AsIs),
    row("sharens", false, AsIs),
    row("no-tmp-sandbox", false, AsIs),
    row("underlay", false, AsIs),
    // Apptainer: refused
    row(
        "allow-setuid",
        false,
        Refused("set-user-ID programs have no effect without root", "be root inside with `--user 0`"),
    ),
    row(
        "keep-privs",
        false,
        Refused(
            "a container never has more rights than its caller",
            "give capabilities inside with `--cap-add`",
        ),
    ),
    row(
        "security",
        true,
        Refused(
            "labels of a security module are not set",
            "leave it out; `--security-opt seccomp=FILE` sets a filter",
        ),
    ),
    row(
        "apply-cgroups",
        true,
        Refused(
            "control groups are not read from a file",
            "use `--memory`, `--cpus`, `--pids-limit` or the scheduler's own limits",
        ),
    ),
    row(
        "fusemount",
        true,
        Refused("a FUSE program is not started from the host", "mount it before, and bind it with `-v`"),
    ),
    row("boot", false, Refused("no init system is started", "name the command to run")),
    row(
        "netns-path",
        true,
        Refused("a network of others cannot be joined without root", "use `--network host` or `none`"),
    ),
    row(
        "network-args",
        true,
        Refused("a network cannot be set up without root", "use `--network host` or `none`"),
    ),
    row(
        "app",
        true,
        Refused("apps of SCIF images are not known", "name the command by its path below `/scif`"),
    ),
    row(
        "passphrase",
        false,
        Refused("encrypted images cannot be read", "use an image that is not encrypted"),
    ),
    row("pem-path", true, Refused("encrypted images cannot be read", "use an image that is not encrypted")),
    row(
        "intel-hpu",
        false,
        Refused(
            "Gaudi cards are not known",
            "give the nodes by `--device /dev/accel` and the libraries by `-v`",
        ),
    ),
];

/// The flags of the table that were given, with their values.
#[derive(Debug, Default)]
pub(in crate::cli) struct LeftoverArgs {
    given: Vec<(usize, String)>,
}

/// A flag that cannot be taken, or `None`, and what should be said of the others.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Judged {
    /// The first that is refused: what and why, and what to do.
    pub(in crate::cli) refused: Option<(String, &'static str)>,
    /// A line for each that has no effect.
    pub(in crate::cli) told: Vec<String>,
}

impl LeftoverArgs {
    /// What comes of them.
    pub(in crate::cli) fn judge(&self) -> Judged {
        let mut judged = Judged::default();
        let mut refuse = |flag: &str, value: &str, why: &str, hint| {
            let text = if value.is_empty() { flag.to_owned() } else { format!("{flag} {value}") };
            judged.refused.get_or_insert((format!("cannot have `{text}`: {why}"), hint));
        };
        let mut told: Vec<String> = Vec::new();
        for (place, value) in &self.given {
            let Some(row) = ROWS.get(*place) else { continue };
            let flag = format!("--{}", row.long);
            match row.verdict {
                AsIs => {}
                Told(why) => told.push(format!("`{flag}` has no effect: {why}")),
                Refused(why, hint) => refuse(&flag, value, why, hint),
                Only(values, ..) if values.contains(&value.as_str()) => {}
                Only(_, why, hint) => refuse(&flag, value, why, hint),
            }
        }
        told.dedup();
        judged.told = told;
        judged
    }
}

impl Args for LeftoverArgs {
    fn augment_args(command: Command) -> Command {
        ROWS.iter().fold(command, |command, row| {
            let arg = Arg::new(row.long).long(row.long).hide(true);
            let short = SHORT.iter().find(|(long, _)| *long == row.long).map(|(_, short)| *short);
            let arg = if let Some(short) = short { arg.short(short) } else { arg };
            command.arg(if row.has_value {
                arg.action(ArgAction::Append).num_args(1)
            } else {
                // docker's flags of this kind take `=true` and `=false` too.
                arg.action(ArgAction::Append)
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true")
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for LeftoverArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Vec::new();
        for (place, row) in ROWS.iter().enumerate() {
            for value in matches.get_many::<String>(row.long).into_iter().flatten() {
                match (row.has_value, value.as_str()) {
                    (false, "false") => {}
                    (false, _) => given.push((place, String::new())),
                    (true, value) => given.push((place, value.to_owned())),
                }
            }
        }
        Ok(Self { given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(words: &[&str]) -> Judged {
        let command = LeftoverArgs::augment_args(Command::new("x"));
        let matches = command.try_get_matches_from([&["x"], words].concat()).unwrap();
        LeftoverArgs::from_arg_matches(&matches).unwrap().judge()
    }

    #[test]
    fn each_flag_is_taken_told_or_refused() {
        for row in ROWS {
            let flag = format!("--{}", row.long);
            let words: &[&str] = if row.has_value { &[&flag, "x"] } else { &[&flag] };
            let judged = judge(words);
            let (told, refused) = (judged.told.len(), judged.refused.is_some());
            match row.verdict {
                AsIs => assert_eq!((told, refused), (0, false), "{flag}"),
                Told(why) => {
                    assert_eq!(judged.told, [format!("`{flag}` has no effect: {why}")]);
                    assert!(!refused, "{flag}");
                }
                Refused(..) | Only(..) => assert!(refused, "{flag}"),
            }
        }
    }

    #[test]
    fn values_decide_where_they_can() {
        assert_eq!(judge(&["--restart", "no"]), Judged::default());
        assert_eq!(
            judge(&["--restart=no", "--volume-driver", "local", "--oom-kill-disable=false"]),
            Judged::default()
        );
        let (message, hint) = judge(&["--restart", "on-failure:3"]).refused.unwrap();
        assert_eq!(
            message,
            "cannot have `--restart on-failure:3`: there is no daemon that could start a container again"
        );
        assert_eq!(hint, "let the scheduler do it (Slurm: `--requeue`)");
        assert_eq!(judge(&["--ip", "1.2.3.4", "--ip", "1.2.3.5"]).told.len(), 1);
    }
}
