//! A linter for finished plans: what must hold for any plan, whoever made it.

use std::path::Path;

use crate::base::{Hint, is_below};
use crate::bundle::HOST_DIRECTORY;

use super::{LaunchPlan, Op};

/// A broken rule of a plan: a bug of ours, never the user's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("internal: the launch plan is wrong at step {step}: {rule}")]
pub struct Flaw {
    /// Number of the step, from 1.
    pub step: usize,
    /// The rule that it breaks.
    pub rule: &'static str,
}

impl Hint for Flaw {
    fn hint(&self) -> Option<String> {
        Some("report it with the output of `slipway run --plan`".into())
    }
}

/// Checks a plan; the first broken rule is the error.
pub fn check(plan: &LaunchPlan) -> Result<(), Flaw> {
    let mut stage = Stage::Outside;
    let mut no_new_privileges = false;
    // Every mount so far, and whether it is a tmpfs of ours.
    let mut mounts: Vec<(&Path, bool)> = Vec::new();
    let last = plan.ops.len();
    for (index, op) in plan.ops.iter().enumerate() {
        let step = index + 1;
        let demand = |holds: bool, rule: &'static str| if holds { Ok(()) } else { Err(Flaw { step, rule }) };
        let in_tmpfs = |path: &Path| {
            let above = mounts.iter().filter(|(place, _)| is_below(path, place) && *path != **place);
            above.max_by_key(|(place, _)| place.components().count()).is_some_and(|(_, is_tmpfs)| *is_tmpfs)
        };
        match op {
            Op::NewNamespaces { .. } => {
                demand(stage == Stage::Outside && index == 0, "the namespaces come first")?;
                stage = Stage::InNamespaces;
            }
            Op::SlavePropagation => {
                demand(stage == Stage::InNamespaces, "propagation is cut right after the namespaces")?;
                stage = Stage::Private;
            }
            Op::MountImage { .. } | Op::MountDirectory { .. } => {
                demand(stage == Stage::Private, "nothing is mounted before propagation is cut")?;
                stage = Stage::ImageMounted;
            }
            Op::ControlGroup { .. } => {
                demand(stage == Stage::ImageMounted, "the group is entered after the file server has left")?;
            }
            Op::PivotRoot => {
                demand(stage == Stage::ImageMounted, "the image is mounted before the pivot")?;
                stage = Stage::Building;
            }
            Op::Tmpfs { target, .. } => {
                demand(stage == Stage::Building, "mounts lie between the pivot and the detach")?;
                demand(is_clean(target), "a target is absolute, clean and not the root")?;
                mounts.push((target, true));
            }
            Op::Terminals { target } | Op::MessageQueues { target } | Op::ProcessFiles { target } => {
                demand(stage == Stage::Building, "mounts lie between the pivot and the detach")?;
                demand(is_clean(target), "a target is absolute, clean and not the root")?;
                mounts.push((target, false));
            }
            Op::Bind { target, source, from_run, .. } => {
                demand(stage == Stage::Building, "mounts lie between the pivot and the detach")?;
                demand(is_clean(target), "a target is absolute, clean and not the root")?;
                demand(
                    !is_below(target, Path::new(HOST_DIRECTORY)),
                    "nothing is bound into the host's tree",
                )?;
                demand(source.is_absolute(), "a source is absolute")?;
                demand(!from_run || in_tmpfs(source), "a source of ours lies in a tmpfs of ours")?;
                mounts.push((target, false));
            }
            Op::MakeDirectory { target } | Op::MakeFile { target, .. } | Op::MakeLink { target, .. } => {
                demand(stage == Stage::Building, "files are made between the pivot and the detach")?;
                demand(in_tmpfs(target), "files are made only in a tmpfs of ours")?;
            }
            Op::DetachHost => {
                demand(stage == Stage::Building, "the host is detached once, after the pivot")?;
                stage = Stage::Closed;
            }
            Op::Console | Op::Init => {
                demand(stage == Stage::Closed, "the terminal is made after all mounts")?;
            }
            Op::HostName { .. } | Op::LoopbackUp => {
                demand(stage != Stage::Outside, "namespaces are changed after they are made")?;
            }
            Op::Limit { .. } | Op::Umask { .. } | Op::OomScore { .. } => {
                demand(stage == Stage::Closed, "limits are set after all mounts")?;
            }
            Op::LimitCapabilities { .. } => {
                demand(stage == Stage::Closed, "capabilities are dropped after the last mount")?;
            }
            Op::NoNewPrivileges => no_new_privileges = true,
            Op::FilterCalls { .. } => {
                demand(no_new_privileges, "calls are filtered after no new privileges")?;
            }
            Op::ChangeDirectory { .. } => {
                demand(stage == Stage::Closed, "the directory is entered after the detach")?
            }
            Op::Exec { argv, .. } => {
                demand(step == last && stage == Stage::Closed, "exec is the last step, after the detach")?;
                demand(no_new_privileges, "no new privileges before exec")?;
                demand(!argv.is_empty(), "exec has a command")?;
                stage = Stage::Done;
            }
        }
    }
    if stage == Stage::Done { Ok(()) } else { Err(Flaw { step: last, rule: "a plan ends with exec" }) }
}

#[derive(PartialEq, Eq)]
enum Stage {
    Outside,
    InNamespaces,
    Private,
    ImageMounted,
    Building,
    Closed,
    Done,
}

fn is_clean(path: &Path) -> bool {
    use std::path::Component;
    path.is_absolute()
        && path.components().nth(1).is_some()
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_each_broken_rule() {
        let make_dir = |path: &str| Op::MakeDirectory { target: path.into() };
        let tmpfs = |path: &str| Op::Tmpfs { target: path.into(), mode: 0o755, size_bytes: None };
        let exec = || Op::Exec { argv: vec!["true".into()], env: Vec::new() };
        let image = || Op::MountImage {
            image: super::super::ImageSource { path: "/x.sif".into(), offset_bytes: 0, size_bytes: 1 },
            mount_points: Vec::new(),
            upper: None,
        };
        let namespaces = || Op::NewNamespaces {
            uid: 1,
            gid: 1,
            uid_inside: 1,
            gid_inside: 1,
            network: false,
            host_name: false,
            ipc: false,
            pid: false,
        };
        let head = || vec![namespaces(), Op::SlavePropagation, image(), Op::PivotRoot];
        let tail = || vec![Op::DetachHost, Op::NoNewPrivileges, exec()];
        let with = |middle: Vec<Op>| [head(), middle, tail()].concat();
        let check = |ops: Vec<Op>, expected: Option<(usize, &str)>| {
            let found = check(&LaunchPlan { ops, notes: Vec::new(), warnings: Vec::new() }).err();
            assert_eq!(found.as_ref().map(|flaw| (flaw.step, flaw.rule)), expected);
        };
        check(with(vec![tmpfs("/dev"), make_dir("/dev/x")]), None);
        check(with(vec![make_dir("/dev/x")]), Some((5, "files are made only in a tmpfs of ours")));
        check(
            with(vec![tmpfs("/dev"), make_dir("/devil")]),
            Some((6, "files are made only in a tmpfs of ours")),
        );
        check(with(vec![tmpfs("/")]), Some((5, "a target is absolute, clean and not the root")));
        check(with(vec![tmpfs("/a/../b")]), Some((5, "a target is absolute, clean and not the root")));
        check(vec![Op::SlavePropagation], Some((1, "propagation is cut right after the namespaces")));
        check(head(), Some((4, "a plan ends with exec")));
        check([head(), vec![Op::DetachHost, exec()]].concat(), Some((6, "no new privileges before exec")));
        check(
            [head(), tail(), vec![tmpfs("/x")]].concat(),
            Some((7, "exec is the last step, after the detach")),
        );
    }
}
