//! Refs: what an image name means here.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::Digest;
use crate::oci::Platform;

use super::tmp::{TmpPath, sync_parent};
use super::{ImageKey, Store, StoreError};

/// Version of the file form. Bump it with every change, and keep reading the older ones.
const REF_VERSION: u64 = 1;

/// Largest ref, in bytes.
const REF_LIMIT_BYTES: u64 = 64 << 10;

/// Longest escaped name that is used as a file name as it is; file systems take 255 bytes.
const NAME_LIMIT_BYTES: usize = 180;

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefRecord {
    /// Digest of the manifest that the name was resolved to.
    pub manifest: Digest,
    /// Digest of the image config: the image's id in Docker's listings.
    pub config: Digest,
    /// The run file, if there is one.
    pub image: Option<ImageKey>,
    /// The image's platform.
    #[serde(with = "platform_text")]
    pub platform: Platform,
    /// When the image was made, RFC 3339, as its config says.
    pub created: Option<String>,
    /// Length of the run file in bytes.
    pub size_bytes: u64,
    /// Digest of what the name stands for in its registry: of the index, where there is one. Not known for names that
    /// were given here. Files without it are of the same version: those who do not know it pass it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top: Option<Digest>,
}

/// Names with what they mean.
type NamedRecords = Vec<(String, RefRecord)>;

/// The file form.
#[derive(Serialize, Deserialize)]
struct RefFile {
    version: u64,
    name: String,
    record: RefRecord,
}

mod platform_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::oci::Platform;

    pub(super) fn serialize<S: Serializer>(platform: &Platform, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(platform)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Platform, D::Error> {
        Platform::parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

impl Store {
    /// Makes `name` mean `record`, whatever it meant before.
    pub fn set_ref(&self, name: &str, record: &RefRecord) -> Result<(), StoreError> {
        let target = self.ref_path(name);
        let file = RefFile { version: REF_VERSION, name: name.into(), record: record.clone() };
        let mut text = serde_json::to_vec_pretty(&file)
            .map_err(|source| StoreError::Ref { path: target.clone(), source })?;
        text.push(b'\n');
        // What could not be read again must not be written.
        let size_bytes = text.len() as u64;
        if size_bytes > REF_LIMIT_BYTES {
            return Err(StoreError::TooLarge { path: target, size_bytes, limit_bytes: REF_LIMIT_BYTES });
        }
        let tmp = TmpPath::new(&self.tmp_directory());
        let mut out = tmp.create()?;
        let written = out.write_all(&text).and_then(|()| out.sync_all());
        written.map_err(|error| StoreError::of("write", tmp.path(), error))?;
        tmp.publish_over(&target)
    }

    /// What `name` means; `None` if it means nothing here.
    pub fn get_ref(&self, name: &str) -> Result<Option<RefRecord>, StoreError> {
        let file = read_ref(&self.ref_path(name))?;
        // Two names could share a file only if their sha256 did; a file that somebody renamed means nothing.
        Ok(file.filter(|file| file.name == name).map(|file| file.record))
    }

    /// All names with what they mean, by name; one that cannot be read is an error.
    pub fn list_refs(&self) -> Result<NamedRecords, StoreError> {
        let (refs, unreadable) = self.readable_refs()?;
        unreadable.into_iter().next().map_or(Ok(refs), Err)
    }

    /// All names that can be read, by name, and what is wrong with the others. For showing; what removes things must
    /// know all names.
    pub fn readable_refs(&self) -> Result<(NamedRecords, Vec<StoreError>), StoreError> {
        let directory = self.root.join("refs");
        let (mut refs, mut unreadable) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&directory).map_err(|error| StoreError::of("list", &directory, error))? {
            let entry = entry.map_err(|error| StoreError::of("list", &directory, error))?;
            // Nothing of ours begins with a dot, but an NFS client's leftovers do. A ref may also be gone by now.
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            match read_ref(&entry.path()) {
                Ok(file) => refs.extend(file.map(|file| (file.name, file.record))),
                Err(error) => unreadable.push(error),
            }
        }
        refs.sort_by(|one, other| one.0.cmp(&other.0));
        Ok((refs, unreadable))
    }

    /// Makes `name` mean nothing; tells whether it meant something.
    pub fn remove_ref(&self, name: &str) -> Result<bool, StoreError> {
        let path = self.ref_path(name);
        match fs::remove_file(&path) {
            Ok(()) => sync_parent(&path).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::of("remove", &path, error)),
        }
    }

    fn ref_path(&self, name: &str) -> PathBuf {
        self.root.join("refs").join(escaped(name))
    }
}

fn read_ref(path: &Path) -> Result<Option<RefFile>, StoreError> {
    #[derive(Deserialize)]
    struct Version {
        version: u64,
    }
    let size_bytes = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(|error| StoreError::of("read", path, error))?.len(),
    };
    if size_bytes > REF_LIMIT_BYTES {
        return Err(StoreError::TooLarge { path: path.into(), size_bytes, limit_bytes: REF_LIMIT_BYTES });
    }
    let raw = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        raw => raw.map_err(|error| StoreError::of("read", path, error))?,
    };
    let wrong = |source| StoreError::Ref { path: path.into(), source };
    let Version { version } = serde_json::from_slice(&raw).map_err(wrong)?;
    if version != REF_VERSION {
        return Err(StoreError::RefVersion { path: path.into(), version, known: REF_VERSION });
    }
    serde_json::from_slice(&raw).map(Some).map_err(wrong)
}

/// A name as a file name: everything but lower-case letters, digits, `-`, `_` and inner dots becomes `%` and two hex
/// digits (upper case too, since some file systems do not tell cases apart). A long name ends in its sha256.
fn escaped(name: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => text.push(char::from(byte)),
            b'.' if at > 0 => text.push('.'),
            other => write!(text, "%{other:02x}").expect("writing to a String cannot fail"),
        }
    }
    if text.len() > NAME_LIMIT_BYTES {
        text.truncate(NAME_LIMIT_BYTES - 66);
        text = format!("{text}~{}", Digest::of(name.as_bytes()).hex());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        for (name, expected) in [
            ("docker.io/library/python:3.12", "docker.io%2flibrary%2fpython%3a3.12"),
            ("a:Tag", "a%3a%54ag"),
            ("..", "%2e."),
            ("", ""),
            ("ä%~", "%c3%a4%25%7e"),
        ] {
            assert_eq!(escaped(name), expected);
        }
        let (long, longer) = ("x/".repeat(100), "x/".repeat(101));
        assert_ne!(escaped(&long), escaped(&longer));
        assert!(escaped(&longer).len() <= NAME_LIMIT_BYTES && escaped(&long).contains('~'));
    }

    fn record() -> RefRecord {
        RefRecord {
            manifest: Digest::of(b"manifest"),
            config: Digest::of(b"config"),
            image: Some(ImageKey::new(&Digest::of(b"manifest"), 1, "zstd")),
            platform: Platform::parse("linux/arm64").unwrap(),
            created: Some("2024-01-02T03:04:05Z".into()),
            size_bytes: 4096,
            top: None,
        }
    }

    /// The file form of version 1. It must be readable for ever.
    const GOLDEN_1: &str = r#"{
  "version": 1,
  "name": "docker.io/library/a:1",
  "record": {
    "manifest": "sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f",
    "config": "sha256:b79606fb3afea5bd1609ed40b622142f1c98125abcfe89a76a661b0e8e343910",
    "image": "05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f-1-zstd",
    "platform": "linux/arm64",
    "created": "2024-01-02T03:04:05Z",
    "size_bytes": 4096
  }
}
"#;

    #[test]
    fn the_file_form_stays() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let name = "docker.io/library/a:1";
        let path = store.ref_path(name);
        fs::write(&path, GOLDEN_1).unwrap();
        let read = store.get_ref(name).unwrap().unwrap();
        store.set_ref(name, &read).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), GOLDEN_1);
        assert_eq!(read, record());

        fs::write(&path, GOLDEN_1.replace("\"version\": 1", "\"version\": 2")).unwrap();
        let error = store.get_ref(name).unwrap_err();
        assert!(matches!(error, StoreError::RefVersion { version: 2, .. }), "{error}");
        fs::write(&path, "{").unwrap();
        assert!(matches!(store.get_ref(name), Err(StoreError::Ref { .. })));
        fs::write(&path, GOLDEN_1.replace("-1-zstd", "-1-../x")).unwrap();
        assert!(matches!(store.get_ref(name), Err(StoreError::Ref { .. })));
    }

    #[test]
    fn a_broken_ref_hides_no_other() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        store.set_ref("good", &record()).unwrap();
        let long = RefRecord { created: Some("0".repeat(70_000)), ..record() };
        assert!(matches!(store.set_ref("long", &long), Err(StoreError::TooLarge { .. })));
        assert_eq!(store.get_ref("long").unwrap(), None);
        fs::write(store.ref_path("broken"), "{").unwrap();
        let (refs, unreadable) = store.readable_refs().unwrap();
        assert_eq!(refs, [("good".to_owned(), record())]);
        assert!(matches!(unreadable.as_slice(), [StoreError::Ref { .. }]));
        assert!(matches!(store.list_refs(), Err(StoreError::Ref { .. })));
    }

    #[test]
    fn a_name_means_its_last_record() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        assert_eq!(store.get_ref("b").unwrap(), None);
        let changed = RefRecord { image: None, created: None, ..record() };
        store.set_ref("b", &record()).unwrap();
        store.set_ref("b", &changed).unwrap();
        store.set_ref("a/B", &record()).unwrap();
        assert_eq!(store.list_refs().unwrap(), [("a/B".to_owned(), record()), ("b".to_owned(), changed)]);
        assert!(store.remove_ref("b").unwrap() && !store.remove_ref("b").unwrap());
        assert_eq!(store.list_refs().unwrap().len(), 1);
        assert_eq!(fs::read_dir(root.path().join("tmp")).unwrap().count(), 0);
    }
}
