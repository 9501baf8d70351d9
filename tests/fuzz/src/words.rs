//! Words that people write: names of images, and the values of flags.

use std::path::Path;

use slipway::base::idset::parse_ids;
use slipway::base::sizes::{human_size, parse_size};
use slipway::base::{Digest, RelPath};
use slipway::bundle::{
    Limit, parse_apptainer_binds, parse_docker_mount, parse_docker_tmpfs, parse_docker_volume, parse_env_file,
};
use slipway::gpu::{Capabilities, GpuRequest, Selection};
use slipway::oci::Platform;
use slipway::reference::ImageRef;
use slipway::squashfs::compress::Compressor;

/// A name that is taken is printed in a form that means the same image, long and short, and its parts make its request.
pub(crate) fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let image = match ImageRef::parse(text) {
        Ok(image) => image,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert_eq!(ImageRef::parse(&image.to_string()).as_ref(), Ok(&image));
    assert_eq!(ImageRef::parse(&image.familiar()).as_ref(), Ok(&image), "{}", image.familiar());
    assert!(image.tag().is_some() || image.digest().is_some());
    assert!(image.path().len() <= 255 && !image.domain().is_empty() && !image.registry_host().is_empty());
    // They become parts of a URL and of a path in the store.
    for part in [image.path(), image.domain(), &image.manifest_reference(), &image.repository()] {
        assert!(!part.contains(['?', '#', ' ', '\\', '\n', '%']), "{part}");
        assert!(part.split('/').all(|name| !matches!(name, "" | "." | "..")), "{part}");
    }
    let digest = Digest::of(b"");
    assert_eq!(image.with_digest(digest).digest(), Some(digest));
}

/// Each grammar takes the text or says why not. A path inside an image stays inside and is clean; what is printed is read
/// again as the same.
pub(crate) fn words(data: &[u8]) {
    if let Ok(path) = RelPath::parse(data) {
        assert!(path.components().all(|name| !matches!(name, b"" | b"." | b"..")));
        assert_eq!(RelPath::parse(path.as_bytes()).as_ref(), Ok(&path));
        assert!(path.as_bytes().len() <= 4096 && path.starts_with(&RelPath::root()));
        assert!(path.is_root() || path.parent().is_some_and(|parent| path.starts_with(&parent)));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(request) = GpuRequest::parse(text) {
        if let Selection::Devices(devices) = &request.selection {
            assert!(!devices.is_empty() && devices.iter().all(|device| !device.is_empty()));
            if devices.iter().any(|device| device.contains(['"', '\n', '='])) {
                return;
            }
        }
        let shown = match &request.selection {
            Selection::Devices(_) => format!("\"{}\"", request.selection),
            other => other.to_string(),
        };
        let again = GpuRequest::parse(&shown).map(|again| again.selection);
        assert_eq!(again.as_ref().ok(), Some(&request.selection), "{shown}");
    }
    let _ = Capabilities::parse(text);
    let cwd = Path::new("/w");
    let volumes = parse_docker_volume(text, cwd).into_iter();
    for volume in volumes.chain(parse_apptainer_binds(text, cwd).into_iter().flatten()) {
        assert!(volume.target.is_absolute() && volume.source.is_absolute(), "{volume:?}");
    }
    let _ = (parse_docker_mount(text), parse_docker_tmpfs(text), parse_env_file("f", text));
    if let Ok(limit) = Limit::parse(text) {
        assert!(limit.soft <= limit.hard);
    }
    if let Ok(compressor) = text.parse::<Compressor>() {
        assert_eq!(compressor.to_string().parse(), Ok(compressor));
    }
    if let Ok(platform) = Platform::parse(text) {
        let shown = platform.to_string();
        // A variant may get a letter in front, and words have a limit.
        if shown.split('/').all(|word| word.len() <= 64) {
            assert_eq!(Platform::parse(&shown).map(|again| again.to_string()), Ok(shown));
        }
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Some(ids) = parse_ids(text) {
        assert!(!ids.is_empty() && ids.len() <= 65_536);
    }
    if let Some(bytes) = parse_size(text) {
        assert!(!human_size(bytes).is_empty());
    }
}
