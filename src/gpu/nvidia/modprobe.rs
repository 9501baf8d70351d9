//! NVIDIA's own way to make device nodes without root: a setuid `nvidia-modprobe`, which sites may have.
//!
//! It is started in one case only: CUDA's node is missing, so that the container could not use the GPUs anyway.
#![expect(clippy::disallowed_methods, reason = "starts nvidia-modprobe")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::super::{Capabilities, HostRoot, Inventory};
use super::{nodes, troubles};

/// Where distributions have it; NixOS has setuid programs in a directory of their own.
const PLACES: [&str; 5] = ["/usr/bin", "/usr/sbin", "/sbin", "/bin", "/run/wrappers/bin"];
/// Loading the module takes well below a second; a broken driver can hold the program for ever.
const DEADLINE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

/// Where `/dev/nvidia-uvm` is missing and a setuid `nvidia-modprobe` exists, has that make the nodes and reads them
/// again. Says what was done; `None` if nothing was missing.
pub fn make_missing_nodes(root: &HostRoot, inventory: &mut Inventory) -> Option<String> {
    let is_complete = inventory.control_nodes.iter().any(|node| node == Path::new(nodes::UVM));
    if inventory.vendor.as_deref() != Some("nvidia") || inventory.is_undivided() || is_complete {
        return None;
    }
    // It makes nodes in /dev and nowhere else.
    let program = match root.device_root() {
        None => PLACES
            .iter()
            .map(|place| Path::new(place).join("nvidia-modprobe"))
            .find(|path| root.is_setuid_program(path)),
        Some(_) => None,
    };
    let Some(program) = program else {
        return Some("no setuid nvidia-modprobe is on this node to make what is missing".into());
    };
    let args = arguments(root, inventory);
    let words = format!("`{} {}`", program.display(), args.join(" "));
    let before = faults(root, inventory);
    let ended = run(&root.place(&program), &args);
    inventory.control_nodes = nodes::read_control_nodes(root);
    let after = faults(root, inventory);
    inventory.findings.retain(|finding| !before.contains(finding));
    inventory.findings.extend(after);
    if root.exists(Path::new(nodes::UVM)) {
        return Some(format!("{words} has made {}", nodes::UVM));
    }
    let end = ended.unwrap_or_else(|why| why);
    Some(format!("{words} has not made {} ({end})", nodes::UVM))
}

fn faults(root: &HostRoot, inventory: &Inventory) -> Vec<String> {
    let found = troubles::of_node(root, inventory, &Capabilities::default());
    found.iter().map(ToString::to_string).collect()
}

/// The GPUs without a node, or the first one, with whose node that of all GPUs is made; and CUDA's node.
fn arguments(root: &HostRoot, inventory: &Inventory) -> Vec<String> {
    let missing = inventory.gpus.iter().filter(|gpu| !root.exists(&gpu.node)).map(|gpu| gpu.minor);
    let mut minors: Vec<u32> = missing.collect();
    if minors.is_empty() {
        minors.push(inventory.gpus.first().map_or(0, |gpu| gpu.minor));
    }
    let mut args: Vec<String> =
        minors.iter().flat_map(|minor| ["-c".to_owned(), minor.to_string()]).collect();
    args.push("-u".into());
    args
}

fn run(program: &PathBuf, args: &[String]) -> Result<String, String> {
    let child = Command::new(program)
        .args(args)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.map_err(|error| error.to_string())?;
    match wait(&mut child) {
        Some(status) => Ok(status.to_string()),
        None => {
            // One that is stuck in the driver ends when that lets it go, and init collects it.
            let _ = child.kill();
            Err(format!("no end after {} s", DEADLINE.as_secs()))
        }
    }
}

fn wait(child: &mut Child) -> Option<ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < DEADLINE {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(PAUSE),
            Ok(status) => return status,
            Err(_) => return None,
        }
    }
    None
}
