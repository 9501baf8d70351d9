//! The image config document (image-spec `config.md`; Docker's `container.image.v1+json`).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::base::Digest;

use super::{null_default, without_bom};

/// An image config. `null` and absent mean the same everywhere.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ImageConfig {
    /// GOARCH word, such as `amd64`; may be empty (buildpacks).
    #[serde(default, deserialize_with = "null_default")]
    pub architecture: String,
    /// GOOS word, such as `linux`; may be empty.
    #[serde(default, deserialize_with = "null_default")]
    pub os: String,
    /// CPU variant, such as `v8`.
    #[serde(default)]
    pub variant: Option<String>,
    /// RFC 3339 time of creation.
    #[serde(default)]
    pub created: Option<String>,
    /// What `docker run` starts from.
    #[serde(default, deserialize_with = "null_default")]
    pub config: RunConfig,
    /// The layers' digests, uncompressed, base first.
    #[serde(default, deserialize_with = "null_default")]
    pub rootfs: RootFs,
}

/// The `rootfs` object.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct RootFs {
    /// Must be `layers`.
    #[serde(default, rename = "type", deserialize_with = "null_default")]
    pub kind: String,
    /// sha256 of each uncompressed layer tar, base first.
    #[serde(default, deserialize_with = "null_default")]
    pub diff_ids: Vec<Digest>,
}

/// Why a config's `rootfs` does not fit its image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootFsError {
    /// A type that the specification does not know, such as old Windows images had.
    #[error("the image config has a root file system of type `{kind}`, and only `layers` is known")]
    Kind {
        /// As written.
        kind: String,
    },
    /// A config of another image, or one that a broken tool wrote.
    #[error("the image config lists {listed} layers, but the image has {layers}")]
    Count {
        /// Number of diff ids.
        listed: usize,
        /// Number of layers.
        layers: usize,
    },
}

impl RootFs {
    /// The diff ids for an image of so many layers, if this config can belong to it.
    pub fn diff_ids_for(&self, layers: usize) -> Result<&[Digest], RootFsError> {
        if self.kind != "layers" {
            return Err(RootFsError::Kind { kind: self.kind.chars().take(40).collect() });
        }
        if self.diff_ids.len() != layers {
            return Err(RootFsError::Count { listed: self.diff_ids.len(), layers });
        }
        Ok(&self.diff_ids)
    }
}

/// The `config` object: the defaults of a run.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// `user`, `uid`, `user:group` or `uid:gid`.
    #[serde(default, deserialize_with = "null_default")]
    pub user: String,
    /// `NAME=value` lines.
    #[serde(default, deserialize_with = "null_default")]
    pub env: Vec<String>,
    /// Entrypoint words; a single string is read as one word.
    #[serde(default, deserialize_with = "words")]
    pub entrypoint: Vec<String>,
    /// Default arguments; a single string is read as one word.
    #[serde(default, deserialize_with = "words")]
    pub cmd: Vec<String>,
    /// Working directory.
    #[serde(default, deserialize_with = "null_default")]
    pub working_dir: String,
    /// Labels.
    #[serde(default, deserialize_with = "null_default")]
    pub labels: BTreeMap<String, String>,
    /// Mount points of anonymous volumes.
    #[serde(default, deserialize_with = "null_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// Ports, `80/tcp`.
    #[serde(default, deserialize_with = "null_default")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// Stop signal by name or number.
    #[serde(default, deserialize_with = "null_default")]
    pub stop_signal: String,
}

impl ImageConfig {
    /// Parses the raw document.
    pub fn parse(raw: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(without_bom(raw))
    }
}

fn words<'de, D: Deserializer<'de>>(de: D) -> Result<Vec<String>, D::Error> {
    use serde::de::Error as _;
    match serde_json::Value::deserialize(de)? {
        serde_json::Value::Null => Ok(Vec::new()),
        serde_json::Value::String(word) => Ok(vec![word]),
        list => serde_json::from_value::<Vec<String>>(list).map_err(D::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_absent_and_a_string_is_one_word() {
        let config = ImageConfig::parse(
            br#"{"architecture":"amd64","os":null,"config":{"Env":null,"Entrypoint":"/x","Cmd":["a"],"Labels":null}}"#,
        )
        .unwrap();
        assert_eq!(config.config.entrypoint, ["/x"]);
        assert_eq!(config.config.cmd, ["a"]);
        assert!(config.config.env.is_empty() && config.os.is_empty());
        assert!(ImageConfig::parse(br#"{"config":null}"#).unwrap().config.cmd.is_empty());
    }
}
