//! From an image whose blobs are at hand to a run file in the store, under its names.

use crate::base::Digest;
use crate::base::sizes::human_size;
use crate::convert;
use crate::oci::{ImageConfig, Platform};
use crate::reference::ImageRef;
use crate::store::{ImageKey, LayerSet, RefRecord, Store};

use super::Session;
use crate::cli::failure::Failure;
use crate::cli::term;

/// Converts `set` unless its run file is there, and gives it `names`, which mean `top` in their registry. Without names
/// it stays as an image that has none.
pub(super) fn publish(
    set: &LayerSet,
    names: &[ImageRef],
    top: Option<Digest>,
    store: &Store,
    session: &Session,
    quiet: bool,
) -> Result<RefRecord, Failure> {
    let record = RefRecord { top, ..convert(set, store, session, quiet)? };
    name(&record, names, store)?;
    Ok(record)
}

/// Converts `set` unless its run file is there.
pub(super) fn convert(
    set: &LayerSet,
    store: &Store,
    session: &Session,
    quiet: bool,
) -> Result<RefRecord, Failure> {
    let options = session.convert_options();
    let key = ImageKey::new(&set.manifest_digest, convert::WRITER_VERSION, &options.compressor.to_string());
    if !store.has_image(&key) {
        let writer = store.image_writer(&key);
        let report = convert::convert(set, writer.path(), &options)?;
        writer.publish()?;
        if !quiet {
            term::note(&format_args!(
                "Converted: {} layers, {} entries, {} to {}",
                set.layers.len(),
                report.entries,
                human_size(report.tar_bytes),
                human_size(report.sif_bytes)
            ));
        }
    }
    record(set, store, key)
}

/// Gives an image its names, or keeps it without one.
pub(super) fn name(record: &RefRecord, names: &[ImageRef], store: &Store) -> Result<(), Failure> {
    for name in names {
        store.set_name(&name.to_string(), record)?;
    }
    if names.is_empty() {
        store.keep_nameless(record)?;
    }
    Ok(())
}

fn record(set: &LayerSet, store: &Store, key: ImageKey) -> Result<RefRecord, Failure> {
    let config = ImageConfig::parse(&set.config).map_err(|error| {
        Failure::new(format!("the image config of `{}` is not valid: {error}", set.name), None)
    })?;
    let path = store.image_path(&key);
    let size_bytes = std::fs::metadata(&path)
        .map_err(|error| Failure::new(format!("cannot read `{}`: {error}", path.display()), None))?
        .len();
    Ok(RefRecord {
        manifest: set.manifest_digest,
        config: Digest::of(&set.config),
        image: Some(key),
        platform: Platform {
            os: config.os,
            architecture: config.architecture,
            variant: config.variant,
            ..Platform::default()
        },
        created: config.created,
        size_bytes,
        top: None,
    })
}
