//! Who uses a GPU: user, job and container of a process, by what procfs and our own records say.

use std::os::unix::fs::MetadataExt as _;

use super::super::Session;
use super::super::containers;

/// What is known of a process besides its number.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct User {
    /// Name, else number, of its user.
    pub(super) user: Option<String>,
    /// The Slurm job (`123`, `123.0` in a step).
    pub(super) job: Option<String>,
    /// Name of our container, or the short id of another engine's.
    pub(super) container: Option<String>,
    /// The kernel's short name of it.
    pub(super) command: Option<String>,
}

/// The processes inside of our own containers that run.
pub(super) fn containers(session: &Session) -> Vec<(String, Vec<i32>)> {
    // Records that cannot be read name nobody.
    let all = containers::shelf(session).list().unwrap_or_default();
    let running = all.into_iter().filter(|container| container.is_running());
    running.map(|container| (container.record.name.clone(), container.processes())).collect()
}

/// What procfs says of a process; one that has ended is nobody's.
pub(super) fn read_user(pid: u32, containers: &[(String, Vec<i32>)]) -> User {
    let directory = std::path::PathBuf::from(format!("/proc/{pid}"));
    let Ok(facts) = std::fs::metadata(&directory) else { return User::default() };
    let text = |name: &str| std::fs::read_to_string(directory.join(name)).ok();
    let (job, foreign) = text("cgroup").map(|groups| parse_groups(&groups)).unwrap_or_default();
    let own = containers.iter().find(|(_, inside)| i32::try_from(pid).is_ok_and(|pid| inside.contains(&pid)));
    User {
        user: Some(user_name(facts.uid())),
        job,
        container: own.map(|(name, _)| name.clone()).or(foreign),
        command: text("comm").map(|name| name.trim_end().to_owned()),
    }
}

fn user_name(uid: u32) -> String {
    let id = uid.to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = users.lines().find(|line| line.split(':').nth(2) == Some(&id));
    line.and_then(|line| line.split(':').next()).map_or(id, str::to_owned)
}

/// Job and container in the lines of `/proc/PID/cgroup`: Slurm's `…/job_123/step_0/…`, and the ids of 64 digits that
/// docker, podman and Kubernetes name groups by.
fn parse_groups(text: &str) -> (Option<String>, Option<String>) {
    let (mut job, mut container) = (None, None);
    for path in text.lines().filter_map(|line| line.splitn(3, ':').nth(2)) {
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            if let Some(id) = part.strip_prefix("job_").filter(|id| is_number(id)) {
                let step = parts.peek().and_then(|next| next.strip_prefix("step_"));
                job.get_or_insert(step.map_or_else(|| id.to_owned(), |step| format!("{id}.{step}")));
            }
            let id = part.trim_end_matches(".scope").rsplit('-').next().unwrap_or_default();
            if id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                container = id.get(..12).map(str::to_owned);
            }
        }
    }
    (job, container)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_name_jobs_and_containers() {
        let id = "0123456789ab0123456789ab0123456789ab0123456789ab0123456789abcdef";
        let check = |text: &str, job: Option<&str>, container: Option<&str>| {
            let (found, inside) = parse_groups(text);
            assert_eq!((found.as_deref(), inside.as_deref()), (job, container), "{text}");
        };
        check("0::/system.slice/slurmstepd.scope/job_12/step_0/user/task_0\n", Some("12.0"), None);
        check("5:devices:/slurm/uid_1000/job_7/step_batch\n1:name=systemd:/\n", Some("7.batch"), None);
        check("4:memory:/slurm/uid_1000/job_7\n", Some("7"), None);
        check(&format!("0::/system.slice/docker-{id}.scope\n"), None, Some("0123456789ab"));
        check(&format!("3:cpu:/docker/{id}\n"), None, Some("0123456789ab"));
        check("0::/user.slice/user-1000.slice/session-3.scope\n", None, None);
        check("0::/job_x/\nnonsense\n", None, None);
    }
}
