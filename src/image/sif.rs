//! A SIF: its primary partition and its config objects.

use crate::base::ReadAt;
use crate::oci::{ImageConfig, RunConfig};
use crate::sif::{self, Object, ObjectKind, Sif};

use super::{Contents, Format, FormatError, MAX_CONFIG_BYTES, Stretch, read_stretch, squashfs};

pub(super) const FORMAT: Format = Format { name: "SIF", matches: sif::is_sif, read };

fn read(file: &dyn ReadAt) -> Result<Contents, FormatError> {
    let sif = Sif::read(file)?;
    let primary = sif.primary()?;
    squashfs::check(file, primary.offset_bytes, primary.size_bytes)?;
    let architecture = match primary.kind {
        ObjectKind::Partition { architecture, .. } => sif::architecture_name(architecture),
        _ => None,
    };
    let (config, raw_config) = read_config(file, &sif)?;
    let own = |name| sif.find_raw(name).filter(|object| object.group == primary.group).map(stretch_of);
    Ok(Contents {
        offset_bytes: primary.offset_bytes,
        size_bytes: primary.size_bytes,
        config,
        raw_config,
        architecture: architecture.map(str::to_owned),
        sums: own(sif::SUMS),
        loader_cache: own(sif::LOADER_CACHE),
    })
}

/// Our object, else Apptainer's, which is the `config` part alone.
fn read_config(file: &dyn ReadAt, sif: &Sif) -> Result<(ImageConfig, Option<Vec<u8>>), FormatError> {
    if let Some(raw) = read_json(file, sif, sif::IMAGE_CONFIG)? {
        let config = ImageConfig::parse(&raw)
            .map_err(|source| FormatError::Config { name: sif::IMAGE_CONFIG, source })?;
        return Ok((config, Some(raw)));
    }
    let Some(raw) = read_json(file, sif, sif::OCI_CONFIG)? else { return Ok((ImageConfig::default(), None)) };
    let config: Option<RunConfig> = serde_json::from_slice(&raw)
        .map_err(|source| FormatError::Config { name: sif::OCI_CONFIG, source })?;
    Ok((ImageConfig { config: config.unwrap_or_default(), ..ImageConfig::default() }, None))
}

fn read_json(file: &dyn ReadAt, sif: &Sif, name: &'static str) -> Result<Option<Vec<u8>>, FormatError> {
    let Some(object) = sif.find_json(name) else { return Ok(None) };
    read_stretch(file, stretch_of(object), name, MAX_CONFIG_BYTES).map(Some)
}

fn stretch_of(object: &Object) -> Stretch {
    Stretch { offset_bytes: object.offset_bytes, size_bytes: object.size_bytes }
}
