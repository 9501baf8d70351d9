//! From an image whose blobs are at hand to a run file in the store, under its names.

use crate::base::Digest;
use crate::convert::{self, Source};
use crate::oci::{ImageConfig, Platform};
use crate::reference::ImageRef;
use crate::registry::Arriving;
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
    let source = Source {
        manifest_digest: set.manifest_digest,
        config: &set.config,
        layer_count: set.layers.len(),
        layer: &mut |index| set.layers.get(index).cloned(),
    };
    let key = make_run_file(source, store, session, args, progress)?;
    let record = record(set, store, key)?;
    for name in names {
        store.set_ref(&name.to_string(), &record)?;
    }
    Ok(record)
}

/// As [`publish`], for layers that may be on their way, and without a name.
pub(super) fn make_run_file(
    source: Source<'_>,
    store: &Store,
    session: &Session,
    args: &ConversionArgs,
    progress: &Progress,
) -> Result<ImageKey, Failure> {
    let options = session.convert_options(args);
    let key =
        ImageKey::new(&source.manifest_digest, convert::WRITER_VERSION, &options.compressor.to_string());
    if !store.has_image(&key) {
        let layer_count = source.layer_count;
        let writer = store.image_writer(&key);
        let mut on_event = |event| progress.convert(event);
        let report = convert::convert_arriving(source, writer.path(), &options, &mut on_event)?;
        writer.publish()?;
        progress.converted(layer_count, &report);
    }
    Ok(key)
}

/// An image that a pull is bringing, as a source of a conversion.
pub(super) fn with_arriving<T>(arriving: &Arriving<'_>, convert: impl FnOnce(Source<'_>) -> T) -> T {
    convert(Source {
        manifest_digest: arriving.manifest_digest,
        config: arriving.config,
        layer_count: arriving.layer_count(),
        layer: &mut |index| arriving.layer(index),
    })
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
