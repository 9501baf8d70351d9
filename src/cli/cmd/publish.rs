//! From an image whose blobs are at hand to a run file in the store, under its names.

use crate::base::Digest;
use crate::convert;
use crate::oci::{ImageConfig, Platform};
use crate::reference::ImageRef;
use crate::store::{ImageKey, LayerSet, RefRecord, Store};

use super::Session;
use crate::cli::args::ConversionArgs;
use crate::cli::failure::Failure;
use crate::cli::progress::Progress;

/// Converts `set` unless its run file is there, and gives it `names`.
pub(super) fn publish(
    set: &LayerSet,
    names: &[ImageRef],
    store: &Store,
    session: &Session,
    args: &ConversionArgs,
    progress: &Progress,
) -> Result<RefRecord, Failure> {
    let options = session.convert_options(args);
    let key = ImageKey::new(&set.manifest_digest, convert::WRITER_VERSION, &options.compressor.to_string());
    if !store.has_image(&key) {
        let writer = store.image_writer(&key);
        let mut on_event = |event| progress.convert(set, event);
        let report = convert::convert_with(set, writer.path(), &options, &mut on_event)?;
        writer.publish()?;
        progress.converted(set.layers.len(), &report);
    }
    let record = record(set, store, key)?;
    for name in names {
        store.set_ref(&name.to_string(), &record)?;
    }
    Ok(record)
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
    })
}
