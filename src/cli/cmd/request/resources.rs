//! What a container may take: checked as docker does, and where the limits can be set.

use std::path::{Path, PathBuf};

use crate::bundle::Resources;
use crate::cli::args::ResourceArgs;
use crate::cli::failure::Failure;
use crate::launch;
use crate::plan;

/// docker takes no smaller limit of memory: no program starts in less.
const LEAST_MEMORY_BYTES: u64 = 6 << 20;

/// The limits that the flags ask for, and the control group below which they can be set, if there is one.
pub(super) fn choose(
    args: &ResourceArgs,
    warnings: &mut Vec<String>,
) -> Result<(Resources, Option<PathBuf>), Failure> {
    let resources = args.resources();
    check(&resources)?;
    if resources.is_empty() {
        return Ok((resources, None));
    }
    let group = match launch::delegated_group(Path::new("/"), &plan::controllers(&resources)) {
        Ok(parent) => {
            if resources.memory_bytes.is_some() && !launch::may_limit_swap(&parent) {
                warnings.push("memory is limited without swap, which this kernel does not count".into());
            }
            Some(parent)
        }
        Err(reason) => {
            warnings.push(format!(
                "limits of CPU, memory and processes are those of the job or session, since {reason}"
            ));
            None
        }
    };
    Ok((resources, group))
}

/// Numbers that contradict each other, which docker refuses, too.
fn check(resources: &Resources) -> Result<(), Failure> {
    let swap = resources.memory_swap_bytes.and_then(|both| u64::try_from(both).ok());
    match (resources.memory_bytes, swap) {
        (Some(memory), _) if memory < LEAST_MEMORY_BYTES => Err(Failure::new(
            format!("--memory {memory}: a limit of memory below 6 MiB lets no program start"),
            "give a size with its unit, as `--memory 512m`",
        )),
        (None, Some(_)) => Err(Failure::new(
            "--memory-swap needs --memory: it is the sum of memory and swap",
            "add `--memory`, or leave out `--memory-swap`",
        )),
        (Some(memory), Some(both)) if both < memory => Err(Failure::new(
            format!(
                "--memory-swap {both} is smaller than --memory {memory}: it is the sum of memory and swap"
            ),
            "give both the same size to have no swap",
        )),
        (Some(memory), _) if resources.memory_reservation_bytes.is_some_and(|kept| kept > memory) => {
            Err(Failure::new(
                format!("--memory-reservation is larger than --memory {memory}, within which it is"),
                "lower `--memory-reservation`",
            ))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_contradict_each_other_are_refused() {
        let gib = 1 << 30;
        let limits = |memory, swap, reservation| {
            let given = Resources {
                memory_bytes: memory,
                memory_swap_bytes: swap,
                memory_reservation_bytes: reservation,
                ..Resources::default()
            };
            let text = check(&given).err()?.to_string();
            Some(text.lines().next()?.trim_start_matches("error: ").to_owned())
        };
        for (memory, swap, reservation) in [
            (None, None, Some(gib)),
            (None, Some(-1), None),
            (Some(6 << 20), None, None),
            (Some(gib), Some(-1), Some(gib)),
            (Some(gib), Some(1 << 30), None),
        ] {
            assert_eq!(limits(memory, swap, reservation), None);
        }
        assert_eq!(
            limits(Some(512), None, None).as_deref(),
            Some("--memory 512: a limit of memory below 6 MiB lets no program start")
        );
        assert_eq!(
            limits(None, Some(1), None).as_deref(),
            Some("--memory-swap needs --memory: it is the sum of memory and swap")
        );
        assert_eq!(
            limits(Some(gib), Some(1), None).as_deref(),
            Some("--memory-swap 1 is smaller than --memory 1073741824: it is the sum of memory and swap")
        );
        assert_eq!(
            limits(Some(gib), None, Some(gib + 1)).as_deref(),
            Some("--memory-reservation is larger than --memory 1073741824, within which it is")
        );
    }
}
