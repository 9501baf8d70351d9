//! What the kernel driver says in procfs and sysfs: version and GPUs. Reading these wakes no GPU.

use std::path::Path;

use super::super::inventory::{canonical_address, number_gpus};
use super::super::{Gpu, HostRoot};

pub(super) const GPUS: &str = "/proc/driver/nvidia/gpus";

/// The loaded driver.
pub(super) struct Driver {
    pub(super) version: Option<String>,
    pub(super) gpus: Vec<Gpu>,
    pub(super) findings: Vec<String>,
}

/// `None` without a driver. A node file alone counts as one: sandboxes show nothing else.
pub(super) fn read_driver(root: &HostRoot) -> Option<Driver> {
    let signs = ["/sys/module/nvidia", "/proc/driver/nvidia", "/dev/nvidiactl"];
    if !signs.iter().any(|sign| root.exists(Path::new(sign))) {
        return None;
    }
    let version = root
        .read("/sys/module/nvidia/version")
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
        .or_else(|| parse_version(&root.read("/proc/driver/nvidia/version")?));
    let mut driver = Driver { version, gpus: Vec::new(), findings: Vec::new() };
    for name in root.list(Path::new(GPUS)) {
        let facts = root.read(&format!("{GPUS}/{name}/information")).unwrap_or_default();
        match parse_information(&facts, &name) {
            Ok(gpu) => driver.gpus.push(gpu),
            Err(finding) => driver.findings.push(finding),
        }
    }
    number_gpus(&mut driver.gpus);
    Some(driver)
}

/// The version in `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar …`; the open flavour has other
/// words before it.
fn parse_version(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("NVRM version:"))?;
    let is_version =
        |word: &&str| word.contains('.') && word.split('.').all(|part| part.parse::<u32>().is_ok());
    line.split_whitespace().find(is_version).map(str::to_owned)
}

/// One `gpus/<address>/information`, or the finding why the GPU cannot be used.
fn parse_information(text: &str, address: &str) -> Result<Gpu, String> {
    let value = |key: &str| {
        let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
        pairs
            .find(|(name, _)| name.trim() == key)
            .map(|(_, value)| value.trim())
            .filter(|value| !value.is_empty())
    };
    if value("GPU Excluded").is_some_and(|value| value.eq_ignore_ascii_case("yes")) {
        return Err(format!("GPU {address} is excluded by the driver's configuration"));
    }
    let minor: u32 = value("Device Minor")
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("GPU {address} has no device minor in {GPUS}/{address}/information"))?;
    // Until a GPU has been used once since the driver was loaded, its UUID reads `GPU-????????-…`.
    let uuid = value("GPU UUID").filter(|uuid| !uuid.contains('?'));
    Ok(Gpu {
        name: value("Model").map(str::to_owned),
        uuid: uuid.map(str::to_owned),
        pci_address: canonical_address(value("Bus Location").unwrap_or(address)),
        minor,
        node: format!("/dev/nvidia{minor}").into(),
        ..Gpu::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_line_of_both_flavours() {
        let check = |line: &str, expected: Option<&str>| assert_eq!(parse_version(line).as_deref(), expected);
        check(
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version: 12.2.0\n",
            Some("550.54.15"),
        );
        check(
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (root@x)\n",
            Some("580.95.05"),
        );
        check("GCC version: 12.2.0\n", None);
    }

    #[test]
    fn information_of_a_gpu() {
        let text = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 210\nGPU UUID: \t GPU-3faa\nBus Location: \t 0000:1B:00.0\n\
                    Device Minor: \t 3\nGPU Excluded:\t No\n";
        let gpu = parse_information(text, "0000:1b:00.0").unwrap();
        assert_eq!(
            (gpu.name.as_deref(), gpu.uuid.as_deref(), gpu.pci_address.as_deref(), gpu.minor),
            (Some("NVIDIA H100 80GB HBM3"), Some("GPU-3faa"), Some("0000:1b:00.0"), 3)
        );
        let unused = text.replace("GPU-3faa", "GPU-????????-????");
        assert_eq!(parse_information(&unused, "0000:1b:00.0").unwrap().uuid, None);
        let refuse = |text: &str, expected: &str| {
            assert_eq!(parse_information(text, "0000:1b:00.0").unwrap_err(), expected);
        };
        refuse(
            &text.replace("\t No", "\t Yes"),
            "GPU 0000:1b:00.0 is excluded by the driver's configuration",
        );
        refuse(
            "",
            "GPU 0000:1b:00.0 has no device minor in /proc/driver/nvidia/gpus/0000:1b:00.0/information",
        );
    }
}
