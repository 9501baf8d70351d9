//! Why a registry did not give an image, in words. Addresses are shown without path and query: those may hold signatures.

use std::time::Duration;

use crate::base::sizes::human_size;
use crate::base::{Digest, Hint};
use crate::oci::{ChooseError, DocumentError, RootFsError};
use crate::store::StoreError;

use super::credentials::CredentialError;
use super::login::is_hub;
use super::transport::Reach;

/// Why a pull failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A host gives no answer.
    #[error("cannot reach `{host}`: {why}")]
    Unreachable {
        /// The registry, its token server or its storage.
        host: String,
        /// The reason.
        why: Reach,
    },
    /// The transfer ended early, and did so again after the allowed number of retries.
    #[error("the transfer of {what} from `{host}` broke off at {} of {}: {why}", human_size(*.done_bytes), human_size(*.size_bytes))]
    Interrupted {
        /// The blob.
        what: String,
        /// Who sent it.
        host: String,
        /// What arrived.
        done_bytes: u64,
        /// What should have.
        size_bytes: u64,
        /// The reason.
        why: Reach,
    },
    /// The repository is there, the tag or digest is not.
    #[error("`{host}` has no image {what}")]
    UnknownTag {
        /// The registry.
        host: String,
        /// What was asked for, as messages show it.
        what: String,
    },
    /// The repository is not there.
    #[error("`{host}` has no repository `{repository}`")]
    UnknownRepository {
        /// The registry.
        host: String,
        /// The repository.
        repository: String,
    },
    /// A part of the image is not there.
    #[error("`{host}` lists {what} in the image but does not have it")]
    MissingBlob {
        /// The registry.
        host: String,
        /// The blob.
        what: String,
    },
    /// 401 or 403. Registries answer so for repositories that do not exist, lest they tell which do.
    #[error("`{host}` gives no access{}: {} ({status}{message})", to_what(.repository), why_denied(.repository, .user))]
    Denied {
        /// The registry or its token server.
        host: String,
        /// The repository.
        repository: String,
        /// HTTP status.
        status: u16,
        /// The server's words after a colon, or nothing.
        message: String,
        /// Whose login was shown, if one was.
        user: Option<String>,
    },
    /// The registry wants a login, and where one may be could not be asked.
    #[error("`{host}` needs a login: {source}")]
    Credentials {
        /// The registry.
        host: String,
        /// Why that place was of no use.
        source: CredentialError,
    },
    /// Too many requests.
    #[error("`{host}` limits how many images may be pulled, and the limit is reached{}", wait_words(.retry_after))]
    RateLimited {
        /// The registry.
        host: String,
        /// What the server asks to wait.
        retry_after: Option<Duration>,
    },
    /// Any other status.
    #[error("`{host}` answered {status} to the request for {what}{message}")]
    Status {
        /// The server.
        host: String,
        /// What was asked for.
        what: String,
        /// HTTP status.
        status: u16,
        /// The server's words after a colon, or nothing.
        message: String,
    },
    /// An answer against the protocol.
    #[error("`{host}` answered the request for {what} with {found}")]
    Protocol {
        /// The server.
        host: String,
        /// What was asked for.
        what: String,
        /// What is wrong.
        found: String,
    },
    /// A redirect that is not followed.
    #[error("`{host}` sends the request for {what} on to {target}")]
    Redirect {
        /// Who redirects.
        host: String,
        /// What was asked for.
        what: String,
        /// Where to, and why that is refused.
        target: String,
    },
    /// A token server that a registry must not send its clients to.
    #[error("`{host}` names a token server that is not used: {why}")]
    Realm {
        /// The registry.
        host: String,
        /// The reason.
        why: String,
    },
    /// Content that is not what its name says.
    #[error("{what} from `{host}` is damaged: its digest is {found}, not {expected}")]
    WrongDigest {
        /// The object.
        what: String,
        /// Who sent it.
        host: String,
        /// The digest it was asked by.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// More or fewer bytes than promised.
    #[error("{what} from `{host}` has {found}, not the {expected_bytes} bytes that its manifest promises")]
    WrongSize {
        /// The object.
        what: String,
        /// Who sent it.
        host: String,
        /// The size in the manifest.
        expected_bytes: u64,
        /// What came, in words.
        found: String,
    },
    /// A document beyond the limit.
    #[error("{what} from `{host}` is larger than the limit of {}", human_size(*.limit_bytes))]
    TooLarge {
        /// The object.
        what: String,
        /// Who sent it.
        host: String,
        /// The limit.
        limit_bytes: u64,
    },
    /// A manifest or index that cannot be used.
    #[error("cannot use `{reference}`: {source}")]
    Document {
        /// The image.
        reference: String,
        /// The cause.
        source: DocumentError,
    },
    /// Nothing for the wanted platform.
    #[error("cannot use `{reference}`: {source}")]
    Platform {
        /// The image.
        reference: String,
        /// The cause.
        source: Box<ChooseError>,
    },
    /// Indexes within indexes without end.
    #[error("cannot use `{reference}`: its indexes are nested deeper than {limit}")]
    Nested {
        /// The image.
        reference: String,
        /// The limit.
        limit: usize,
    },
    /// A chart, a model, an SBOM.
    #[error("`{reference}` is not a container image but an artifact of type `{kind}`")]
    Artifact {
        /// The reference.
        reference: String,
        /// Its type.
        kind: String,
    },
    /// The image config is no JSON of that form.
    #[error("cannot use `{reference}`: its image config is not valid: {source}")]
    Config {
        /// The image.
        reference: String,
        /// The cause.
        source: serde_json::Error,
    },
    /// The image config does not belong to the layers.
    #[error("cannot use `{reference}`: {source}")]
    RootFs {
        /// The image.
        reference: String,
        /// The cause.
        source: RootFsError,
    },
    /// An image to push of which the store has not everything.
    #[error("cannot push `{reference}`: the store does not have {what}")]
    NotHere {
        /// The image.
        reference: String,
        /// What is missing.
        what: String,
    },
    /// The local store.
    #[error(transparent)]
    Store {
        /// The cause.
        #[from]
        source: StoreError,
    },
    /// Another part of the same pull failed; only seen between its threads.
    #[error("the pull was given up")]
    GivenUp,
}

impl RegistryError {
    /// Whether the same request may succeed a moment later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { why, .. } | Self::Interrupted { why, .. } => why.is_transient(),
            Self::RateLimited { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 499 | 500 | 502 | 503 | 504 | 522),
            _ => false,
        }
    }
}

impl Hint for RegistryError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unreachable { why, .. } | Self::Interrupted { why, .. } => return hint_for(why),
            Self::UnknownTag { .. } => "check the tag; tags are case sensitive".into(),
            Self::UnknownRepository { repository, host } => {
                format!("check the spelling of `{repository}`, and that `{host}` is the registry meant")
            }
            Self::Denied { repository, .. } if repository.is_empty() => {
                "check the user name and the password; many registries want a token in place of the password".into()
            }
            Self::Denied { user: Some(_), .. } => {
                "check the spelling of the name, and that this user may use the repository".into()
            }
            Self::Denied { host, .. } => {
                let host = if is_hub(host) { "" } else { host };
                let command = format!("slipway login {host}");
                format!("check the spelling of the name; for a private image, log in with `{}`", command.trim_end())
            }
            Self::Credentials { source, .. } => return source.hint(),
            Self::NotHere { .. } => {
                "pull or load it again with `store.keep_blobs = true`, which keeps what a push needs".into()
            }
            Self::RateLimited { .. } => "try later, or pull from a mirror; limits count all nodes behind one address".into(),
            Self::Status { status: 500.., .. } => "the server has a problem of its own; try again later".into(),
            Self::WrongDigest { .. } | Self::WrongSize { .. } => {
                "nothing was kept; if it happens again, the registry or a proxy on the way holds a damaged copy".into()
            }
            Self::Document { source, .. } => return source.hint(),
            Self::Platform { source, .. } => return source.hint(),
            Self::Store { source } => return source.hint(),
            _ => return None,
        };
        Some(hint)
    }
}

fn hint_for(why: &Reach) -> Option<String> {
    let hint = match why {
        Reach::NoSuchHost => {
            "check the registry's name; compute nodes often have no name service for the outside, so pull on a login node"
        }
        Reach::Refused => "check the port, and that the registry is running",
        Reach::NoRoute { .. } | Reach::ConnectTimeout => {
            "pull on a node that reaches the network, or set HTTPS_PROXY; `registry.connect_timeout_seconds` says how long is waited"
        }
        Reach::Tls { .. } => {
            "if its certificate is of the site's own authority, point SSL_CERT_FILE to that, or put it into `~/.config/containers/certs.d/HOST/ca.crt`; if the registry speaks plain http, list it in `registry.insecure` of slipway.toml"
        }
        Reach::Proxy { .. } => "check HTTPS_PROXY and HTTP_PROXY, or name the registry in NO_PROXY",
        Reach::Trust { .. } => "mend that file, or point SSL_CERT_FILE to another",
        Reach::ReadTimeout => "try again; `registry.read_timeout_seconds` says how long is waited",
        Reach::Broken { .. } => "try again; what has arrived of finished layers is kept",
        Reach::Protocol { .. } => "check that this is the address of a registry",
    };
    Some(hint.into())
}

fn wait_words(retry_after: &Option<Duration>) -> String {
    retry_after.map(|wait| format!("; it asks to wait {} s", wait.as_secs())).unwrap_or_default()
}

fn to_what(repository: &str) -> String {
    if repository.is_empty() { String::new() } else { format!(" to `{repository}`") }
}

fn why_denied(repository: &str, user: &Option<String>) -> String {
    match user {
        Some(user) if repository.is_empty() => format!("it does not accept the login of `{user}`"),
        None if repository.is_empty() => "it needs a login".into(),
        Some(user) => format!("it does not exist there, or the login of `{user}` does not allow it"),
        None => "it does not exist there, or it needs a login".into(),
    }
}
