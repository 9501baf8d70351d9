//! From an image whose blobs are at hand to a run file in the store, under its names.

use crate::base::Digest;
use crate::convert::{self, ConvertError, Source};
use crate::oci::{ImageConfig, Platform};
use crate::reference::ImageRef;
use crate::registry::Arriving;
use crate::store::{ImageKey, LayerSet, RefRecord, Store};

use super::Session;
use crate::cli::args::ConversionArgs;
use crate::cli::failure::Failure;
use crate::cli::progress::Progress;

/// Converts `set` unless its run file is there, and gives it `names`, which mean `top` in their registry. Without names
/// it stays as an image that has none.
pub(super) fn publish(
    set: &LayerSet,
    names: &[ImageRef],
    top: Option<Digest>,
    store: &Store,
    session: &Session,
    args: &ConversionArgs,
    progress: &Progress,
) -> Result<RefRecord, Failure> {
    let record = RefRecord { top, ..convert(set, store, session, args, progress)? };
    name(&record, names, store)?;
    Ok(record)
}

/// Converts `set` unless its run file is there.
pub(super) fn convert(
    set: &LayerSet,
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

/// As [`convert`], for layers that may be on their way.
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
        let mut on_event = |event| progress.convert(event);
        let converted = convert::convert_arriving(source, &store.image_target(&key), &options, &mut on_event);
        let report = converted.map_err(|error| forget_damaged(error, store))?;
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

/// A stored layer that was damaged on disk must not spoil the next pull as well.
pub(super) fn forget_damaged(error: ConvertError, store: &Store) -> Failure {
    // If it cannot be removed, the error says all that matters.
    let is_mended = matches!(&error, ConvertError::Digest { layer, .. }
        if store.remove_if_damaged(&layer.digest).unwrap_or(false));
    let failure = Failure::from(error);
    if is_mended { failure.mended() } else { failure }
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
        platform: platform_of(&config),
        created: config.created.filter(|created| is_time(created)),
        size_bytes,
        top: None,
    })
}

/// The platform that a config names, normalised; unknown where it names none that has the form of one.
fn platform_of(config: &ImageConfig) -> Platform {
    let named = Platform {
        os: config.os.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        ..Platform::default()
    };
    Platform::parse(&named.to_string()).unwrap_or_default()
}

/// Whether a text is a time of RFC 3339: a config may hold anything there.
fn is_time(text: &str) -> bool {
    const LONGEST_BYTES: usize = 64;
    text.len() <= LONGEST_BYTES && text.parse::<jiff::Timestamp>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_holds_no_strange_words_of_a_config() {
        for (architecture, variant, expected) in [
            ("amd64", "null", "linux/amd64"),
            ("arm64", r#""v8""#, "linux/arm64"),
            ("x y/z", "null", "unknown/unknown"),
            ("", "null", "linux/unknown"),
            ("amd64", r#""a/b""#, "unknown/unknown"),
        ] {
            let raw = format!(r#"{{"os":"linux","architecture":"{architecture}","variant":{variant}}}"#);
            let platform = platform_of(&ImageConfig::parse(raw.as_bytes()).unwrap());
            assert_eq!(platform.to_string(), expected, "{raw}");
            assert!(Platform::parse(&platform.to_string()).is_ok(), "{raw}");
        }
        for (text, expected) in
            [("2024-01-02T03:04:05.123456789Z", true), ("yesterday", false), (&"0".repeat(70_000), false)]
        {
            assert_eq!(is_time(text), expected);
        }
    }
}
