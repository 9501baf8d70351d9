//! Hosts with GPUs that are not NVIDIA's: sysfs and device nodes.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde::Deserialize;

use super::host::Host;

/// A device with a node in `/dev/dri` or `/dev/accel`.
#[derive(Debug, Deserialize)]
pub(crate) struct Device {
    /// Name of its driver's module.
    pub(crate) driver: String,
    /// `1002:74A1`, as sysfs writes it.
    pub(crate) pci_id: String,
    pub(crate) pci_address: String,
    /// Number of its first render node or accelerator node.
    pub(crate) minor: u32,
    pub(crate) product: Option<String>,
    pub(crate) unique_id: Option<u64>,
    /// The compiler's number of the architecture; without it the compute driver does not know the device.
    pub(crate) gfx_target_version: Option<u32>,
    pub(crate) memory_bytes: Option<u64>,
    /// Into how many parts it is divided, each with a render node; the first has the device's own.
    #[serde(default = "one")]
    pub(crate) partitions: u32,
    /// Directories `tile0`, …
    #[serde(default)]
    pub(crate) tiles: u32,
    /// Nobody may use its node, and the compute driver hides it, as in a device cgroup.
    #[serde(default)]
    pub(crate) denied: bool,
}

fn one() -> u32 {
    1
}

/// Writes the devices of a scenario, with a console's (a card without a render node) before them.
pub(super) fn write(host: &Host) {
    let devices = &host.scenario.device;
    if devices.is_empty() {
        return;
    }
    host.write("sys/class/drm/card0/device/uevent", "DRIVER=ast\nPCI_ID=1A03:2000\n");
    node(host, "dri/card0", false);
    for (module, version) in &host.scenario.modules {
        host.write(&format!("sys/module/{module}/version"), &format!("{version}\n"));
    }
    if devices.iter().any(|device| device.gfx_target_version.is_some()) {
        node(host, "kfd", false);
        for cpu in 0..2 {
            host.write(&format!("{KFD}/{cpu}/gpu_id"), "0\n");
            host.write(&format!("{KFD}/{cpu}/properties"), "cpu_cores_count 96\nsimd_count 0\n");
        }
    }
    let (mut card, mut kfd) = (1, 2);
    for device in devices {
        if matches!(device.driver.as_str(), "habanalabs" | "intel_vpu") {
            write_accelerator(host, device);
            continue;
        }
        for partition in 0..device.partitions {
            write_render_node(host, device, partition, card);
            card += 1;
            if device.gfx_target_version.is_some() {
                write_kfd(host, device, partition, kfd);
                kfd += 1;
            }
        }
    }
}

const KFD: &str = "sys/class/kfd/kfd/topology/nodes";

fn node(host: &Host, name: &str, denied: bool) {
    let name = format!("dev/{name}");
    host.write(&name, "");
    let mode = if denied { 0 } else { 0o666 };
    fs::set_permissions(host.path(&name), fs::Permissions::from_mode(mode)).unwrap();
}

fn uevent(device: &Device) -> String {
    format!(
        "DRIVER={}\nPCI_CLASS=38000\nPCI_ID={}\nPCI_SLOT_NAME={}\n",
        device.driver, device.pci_id, device.pci_address
    )
}

fn write_accelerator(host: &Host, device: &Device) {
    let minor = device.minor;
    node(host, &format!("accel/accel{minor}"), device.denied);
    node(host, &format!("accel/accel_controlD{minor}"), device.denied);
    host.write(&format!("sys/class/accel/accel{minor}/device/uevent"), &uevent(device));
    host.write(&format!("sys/class/accel/accel_controlD{minor}/device/uevent"), &uevent(device));
}

fn write_render_node(host: &Host, device: &Device, partition: u32, card: u32) {
    let minor = device.minor + partition;
    let place = format!("sys/class/drm/renderD{minor}/device");
    let text = match partition {
        0 => uevent(device),
        _ => "DRIVER=amdgpu_xcp_drv\nMODALIAS=platform:amdgpu_xcp\n".into(),
    };
    host.write(&format!("{place}/uevent"), &text);
    for name in [format!("card{card}"), format!("renderD{minor}")] {
        fs::create_dir_all(host.path(&format!("{place}/drm/{name}"))).unwrap();
        node(host, &format!("dri/{name}"), device.denied);
    }
    if let (0, Some(product)) = (partition, &device.product) {
        host.write(&format!("{place}/product_name"), &format!("{product}\n"));
    }
    for tile in 0..device.tiles {
        fs::create_dir_all(host.path(&format!("{place}/tile{tile}"))).unwrap();
    }
}

fn write_kfd(host: &Host, device: &Device, partition: u32, number: u32) {
    let place = format!("{KFD}/{number}");
    if device.denied {
        fs::create_dir_all(host.path(&place)).unwrap();
        return;
    }
    let address = device.pci_address.replace([':', '.'], " ");
    let parts: Vec<u64> = address.split(' ').map(|part| u64::from_str_radix(part, 16).unwrap()).collect();
    let [domain, bus, slot, function] = parts[..] else { panic!("{address}") };
    let location = u64::from(partition) << 28 | bus << 8 | slot << 3 | function;
    let mut text = String::from("cpu_cores_count 0\nsimd_count 304\n");
    for (key, value) in [
        ("gfx_target_version", u64::from(device.gfx_target_version.unwrap())),
        ("location_id", location),
        ("domain", domain),
        ("drm_render_minor", u64::from(device.minor + partition)),
        ("unique_id", device.unique_id.unwrap_or_default()),
    ] {
        writeln!(text, "{key} {value}").unwrap();
    }
    host.write(&format!("{place}/gpu_id"), &format!("{}\n", 50_000 + number));
    host.write(&format!("{place}/properties"), &text);
    if let Some(bytes) = device.memory_bytes {
        let bytes = bytes / u64::from(device.partitions);
        host.write(
            &format!("{place}/mem_banks/0/properties"),
            &format!("heap_type 1\nsize_in_bytes {bytes}\nflags 0\n"),
        );
    }
}
