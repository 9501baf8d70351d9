//! What of the driver's libraries an image can load: the loader refuses one that needs a newer glibc than the image has.

use crate::elf::versions::GlibcVersion;

use super::{Capability, Chosen, GpuError, Inventory, vendor_of};

/// What every image has that has glibc at all: nothing is looked up for libraries that need no more (RHEL 7).
const OLDEST: GlibcVersion = GlibcVersion { major: 2, minor: 17 };

/// What an image offers to the driver's libraries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImageOffer {
    /// Its glibc, if it has one whose version is known; without it no library is left out.
    pub glibc: Option<GlibcVersion>,
    /// Whether it can load programs of 32 bits.
    pub has_loader_32: bool,
}

/// Whether libraries that are wanted need so new a glibc that an image may lack it.
#[must_use]
pub fn needs_glibc_known(inventory: &Inventory, chosen: &Chosen) -> bool {
    let files = &inventory.files;
    let wanted = files.libraries.iter().filter(|library| chosen.capabilities.include_library(library));
    wanted.filter_map(|library| files.glibc_needs.get(&library.name)).any(|need| *need > OLDEST)
}

/// Takes out of the inventory what the image cannot load, with notes that say so. It is an error where nothing works
/// without such a library.
pub fn fit_to_image(
    inventory: &mut Inventory,
    chosen: &mut Chosen,
    offer: &ImageOffer,
) -> Result<(), GpuError> {
    let vendor = vendor_of(inventory);
    let files = &mut inventory.files;
    if !chosen.capabilities.include(Capability::Compat32) {
        files.libraries_32.clear();
    } else if !offer.has_loader_32 && !files.libraries_32.is_empty() {
        files.libraries_32.clear();
        chosen.notes.push(
            "32-bit libraries are not inside: the image has no loader for them (/lib/ld-linux.so.2)".into(),
        );
    }
    let Some(has) = offer.glibc else { return Ok(()) };
    let mut refused = None;
    files.libraries.retain(|library| {
        let need = files.glibc_needs.get(&library.name).filter(|need| **need > has);
        let Some(need) = need.filter(|_| chosen.capabilities.include_library(library)) else { return true };
        let name = &library.name;
        if vendor.is_some_and(|vendor| vendor.is_essential(name)) {
            refused.get_or_insert_with(|| GpuError::GlibcTooOld { library: name.clone(), needs: *need, has });
        }
        chosen.notes.push(format!("`{name}` is not inside: it needs glibc {need}, and the image has {has}"));
        false
    });
    refused.map_or(Ok(()), Err)
}
