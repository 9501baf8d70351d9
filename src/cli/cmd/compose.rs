//! New images of the store, from a layer that is made here: `commit` and `import`.

use std::io::{self, Read, Write};

use serde_json::Value;

use crate::base::{Digest, Hasher};
use crate::oci::amend::{self, TopLayer};
use crate::reference::ImageRef;
use crate::store::Store;
use crate::tarlayer::GzipWriter;

use super::{Session, publish};
use crate::cli::args::{ConversionArgs, ProgressArgs, ProgressStyle};
use crate::cli::failure::Failure;
use crate::cli::progress::Progress;

/// Bytes per read.
const BUFFER_BYTES: usize = 256 << 10;

/// A layer in the store.
#[derive(Debug)]
pub(super) struct StoredLayer {
    pub(super) diff_id: Digest,
    pub(super) digest: Digest,
    pub(super) size_bytes: u64,
    pub(super) suffix: &'static str,
}

/// Stores a tar as a layer, compressed. `finish` says whether the whole of it has come; only then it is published.
pub(super) fn store_layer<R: Read>(
    store: &Store,
    mut tar: R,
    finish: impl FnOnce(R) -> Result<(), Failure>,
) -> Result<StoredLayer, Failure> {
    let failed = |error: io::Error| Failure::new(format!("cannot store the layer: {error}"), None);
    let mut out = GzipWriter::new(store.blob_writer(None, None)?);
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = match tar.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        hasher.update(bytes);
        out.write_all(bytes).map_err(failed)?;
    }
    finish(tar)?;
    let blob = out.finish().map_err(failed)?;
    let size_bytes = blob.written_bytes();
    let digest = blob.commit()?;
    Ok(StoredLayer { diff_id: hasher.finish(), digest, size_bytes, suffix: "+gzip" })
}

impl StoredLayer {
    pub(super) fn as_top(&self) -> TopLayer<'_> {
        TopLayer {
            diff_id: self.diff_id,
            digest: self.digest,
            size_bytes: self.size_bytes,
            suffix: self.suffix,
        }
    }
}

/// Publishes an image with the layers of `base` and one more, under a name or without one, and gives its id.
pub(super) fn publish_image(
    config: &Value,
    base: Option<&Value>,
    layer: &StoredLayer,
    name: Option<&ImageRef>,
    store: &Store,
    session: &Session,
) -> Result<Digest, Failure> {
    let config = to_bytes(config)?;
    let manifest = to_bytes(&amend::manifest(base, &config, &layer.as_top())?)?;
    let id = store.put_blob(&config)?;
    let manifest = store.put_blob(&manifest)?;
    let shown = name.map_or_else(|| id.to_string(), ImageRef::familiar);
    let set = store.layer_set(&shown, &manifest)?;
    let progress = ProgressArgs { progress: ProgressStyle::Plain, quiet: true };
    let args = ConversionArgs { compression: None, progress };
    let progress = Progress::new(&args.progress);
    publish::publish(
        &set,
        name.map(std::slice::from_ref).unwrap_or_default(),
        None,
        store,
        session,
        &args,
        &progress,
    )?;
    Ok(id)
}

/// A name for a new image.
pub(super) fn new_name(text: Option<&str>) -> Result<Option<ImageRef>, Failure> {
    let name = text.map(ImageRef::parse).transpose()?;
    match &name {
        Some(name) if name.digest().is_some() => Err(Failure::new(
            format!(
                "cannot name an image `{}`: a digest is not chosen but follows from the content",
                name.familiar()
            ),
            "leave out what follows the `@`",
        )),
        _ => Ok(name),
    }
}

fn to_bytes(value: &Value) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value)
        .map_err(|error| Failure::new(format!("a document cannot be written as JSON: {error}"), None))
}
