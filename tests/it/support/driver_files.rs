//! What a workstation's driver has beside the libraries of a compute node, added to a built host: graphics, 32-bit
//! libraries, DRI nodes, and the nodes of RDMA. The libraries are ELF as far as it says what they are.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::host::Host;

/// Which of its tables of versions a library has.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Versions {
    /// What it asks of the C library.
    Needs(&'static str),
    /// What it has, as the C library.
    Has(&'static str),
}

/// The head of a 64-bit shared library with a SONAME and one symbol version.
pub(crate) fn library_64(soname: &str, versions: Versions) -> Vec<u8> {
    let machine: u16 = if std::env::consts::ARCH == "aarch64" { 183 } else { 62 };
    let (tag, version) = match versions {
        Versions::Needs(version) => (0x6fff_fffe_u64, version),
        Versions::Has(version) => (0x6fff_fffc, version),
    };
    let table_at = 64 + 2 * 56 + 4 * 16;
    let text_at = u32::try_from(soname.len()).unwrap() + 2;
    let table: Vec<u8> = match versions {
        Versions::Needs(_) => {
            let record = [1_u16, 1].map(u16::to_le_bytes).concat();
            [record, [0_u32, 16, 0, 0, 0, text_at, 0].map(u32::to_le_bytes).concat()].concat()
        }
        Versions::Has(_) => {
            let record = [1_u16, 0, 1, 1].map(u16::to_le_bytes).concat();
            [record, [0_u32, 20, 0, text_at, 0].map(u32::to_le_bytes).concat()].concat()
        }
    };
    let strings_at = table_at + table.len();
    let strings = format!("\0{soname}\0{version}\0");
    let size = (strings_at + strings.len()) as u64;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([3_u16, machine].map(u16::to_le_bytes).concat());
    file.resize(32, 0);
    file.extend(64_u64.to_le_bytes());
    file.resize(54, 0);
    file.extend([56_u16, 2].map(u16::to_le_bytes).concat());
    file.resize(64, 0);
    for (kind, at, bytes) in [(1_u32, 0_u64, size), (2, 176, 64)] {
        file.extend([kind, 4].map(u32::to_le_bytes).concat());
        file.extend([at, at, at, bytes, bytes, 8].map(u64::to_le_bytes).concat());
    }
    for (tag, value) in [(14, 1), (5, strings_at as u64), (tag, table_at as u64), (0, 0)] {
        file.extend([tag, value].map(u64::to_le_bytes).concat());
    }
    file.extend(table);
    file.extend(strings.as_bytes());
    file
}

/// The head of a 32-bit shared library for x86.
fn library_32(soname: &str) -> Vec<u8> {
    let strings_at = 52 + 2 * 32 + 3 * 8;
    let strings = format!("\0{soname}\0");
    let size = u32::try_from(strings_at + strings.len()).unwrap();
    let mut file = b"\x7fELF\x01\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([3_u16, 3].map(u16::to_le_bytes).concat());
    file.resize(28, 0);
    file.extend(52_u32.to_le_bytes());
    file.resize(42, 0);
    file.extend([32_u16, 2].map(u16::to_le_bytes).concat());
    file.resize(52, 0);
    for (kind, at, bytes) in [(1_u32, 0_u32, size), (2, 116, 24)] {
        file.extend([kind, at, at, at, bytes, bytes, 4, 4].map(u32::to_le_bytes).concat());
    }
    for (tag, value) in [(14_u32, 1_u32), (5, u32::try_from(strings_at).unwrap()), (0, 0)] {
        file.extend([tag, value].map(u32::to_le_bytes).concat());
    }
    file.extend(strings.as_bytes());
    // The first bytes of a file decide, and 64 of them are read.
    file.resize(file.len().max(64), 0);
    file
}

impl Host {
    /// A further library of the driver that needs so new a C library.
    pub(crate) fn add_library(&self, name: &str, soname: &str, needs: &'static str) {
        let place = format!("{}/{name}", self.library_directory().display());
        let place = self.path(place.trim_start_matches('/'));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, library_64(soname, Versions::Needs(needs))).unwrap();
    }

    /// A device node; without `mode` bits nobody may use it.
    pub(crate) fn add_node(&self, inside: &str, mode: u32) {
        self.write(inside, "");
        fs::set_permissions(self.path(inside), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// All that a driver for screens brings.
    pub(crate) fn add_graphics(&self) {
        let version = self.library_version();
        for (name, soname) in [
            (format!("libnvidia-allocator.so.{version}"), "libnvidia-allocator.so.1"),
            (format!("libnvoptix.so.{version}"), "libnvoptix.so.1"),
            (format!("libEGL_nvidia.so.{version}"), "libEGL_nvidia.so.0"),
            (format!("vdpau/libvdpau_nvidia.so.{version}"), "libvdpau_nvidia.so.1"),
            ("libnvidia-egl-gbm.so.1.1.9".into(), "libnvidia-egl-gbm.so.1"),
            ("libnvidia-egl-gbm.so.1.1.10".into(), "libnvidia-egl-gbm.so.1"),
            ("libnvidia-nvvm70.so.4".into(), "libnvidia-nvvm70.so.4"),
            // An old driver's own dispatchers, which are never given.
            (format!("libGL.so.{version}"), "libGL.so.1"),
            (format!("libEGL.so.{version}"), "libEGL.so.1"),
            (format!("libOpenCL.so.{version}"), "libOpenCL.so.1"),
        ] {
            self.add_library(&name, soname, "GLIBC_2.2.5");
        }
        let place = format!("usr/lib/i386-linux-gnu/libcuda.so.{version}");
        self.write(&place, "");
        fs::write(self.path(&place), library_32("libcuda.so.1")).unwrap();
        for name in [
            "OpenCL/vendors/nvidia.icd",
            "glvnd/egl_vendor.d/10_nvidia.json",
            "egl/egl_external_platform.d/15_nvidia_gbm.json",
            "vulkan/icd.d/nvidia_icd.json",
            "vulkan/implicit_layer.d/nvidia_layers.json",
            "nvidia/nvoptix.bin",
            "X11/xorg.conf.d/10-nvidia.conf",
        ] {
            self.write(&format!("usr/share/{name}"), &format!("host {name}\n"));
        }
        for name in ["nvidia-cuda-mps-control", "nvidia-imex-ctl"] {
            self.write(&format!("usr/bin/{name}"), "#!/bin/sh\n");
        }
        // The card that draws the console is another's: numbers of nodes follow none of the GPUs'.
        for (number, gpu) in self.scenario.gpu.iter().enumerate() {
            for name in [format!("card{}", number + 1), format!("renderD{}", number + 129)] {
                self.add_node(&format!("dev/dri/{name}"), 0o666);
                let address = &gpu.pci_address;
                self.write(&format!("sys/bus/pci/devices/{address}/drm/{name}/dev"), "226:1\n");
            }
        }
        self.add_node("dev/dri/card0", 0o666);
    }

    /// Cards of InfiniBand, GDRCopy, GPUDirect Storage and a channel to other nodes.
    pub(crate) fn add_rdma(&self) {
        for name in ["infiniband/uverbs0", "infiniband/rdma_cm", "gdrdrv", "nvidia-fs0", "nvidia-fs1"] {
            self.add_node(&format!("dev/{name}"), 0o666);
        }
        for name in ["infiniband/issm0", "infiniband/umad0"] {
            self.add_node(&format!("dev/{name}"), 0o666);
        }
        self.add_node("dev/infiniband/uverbs1", 0);
        self.add_node("dev/nvidia-caps-imex-channels/channel3", 0o666);
        self.add_node("dev/nvidia-caps-imex-channels/channel4", 0);
    }
}
