//! Image names: text → [`ImageRef`], by the grammar and normalisation of Docker. Pure.
//!
//! ```text
//! reference = [docker://] [domain "/"] path [":" tag] ["@" digest]
//! path      = component *("/" component)            at most 255 bytes, without the domain
//! component = alnum *(separator alnum)              alnum a-z 0-9; separator . _ __ or hyphens
//! domain    = label *("." label) [":" port]  |  "[" IPv6 "]" [":" port]
//! ```
//!
//! The first part before a slash is a domain only if it is `localhost`, holds a dot, a colon or an upper-case letter;
//! everything else lies on Docker Hub, where a path of one component stands below `library/`. So `example.com` alone is
//! a repository of Docker Hub and `test.com:5000` its tag 5000, as with Docker.
//!
//! Stricter than Docker in two places where its reference could not be used later: a port is at most 65535, and a
//! bracketed address is a real IPv6 address. The grammar is distribution's `reference/reference.go`.

mod error;
mod grammar;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use crate::base::Digest;

pub use error::ReferenceError;

/// Domain of Docker Hub in names.
const HUB: &str = "docker.io";
/// The domain that old tools wrote for Docker Hub.
const HUB_LEGACY: &str = "index.docker.io";
/// The host that answers for Docker Hub.
const HUB_HOST: &str = "registry-1.docker.io";
/// Where Docker Hub keeps the images that are named by one word.
const HUB_OFFICIAL: &str = "library/";
/// Longest path in bytes, without the domain (`RepositoryNameTotalLengthMax`).
const MAX_PATH_BYTES: usize = 255;
/// Longest host name in bytes (RFC 1035), with room for a port.
const MAX_DOMAIN_BYTES: usize = 255 + 6;

/// A normalised reference: `docker.io/library/python:3.12`, perhaps with a digest.
///
/// ```
/// use slipway::reference::ImageRef;
/// let image = ImageRef::parse("python:3.12").unwrap();
/// assert_eq!(image.to_string(), "docker.io/library/python:3.12");
/// assert_eq!(image.familiar(), "python:3.12");
/// assert_eq!(image.registry_host(), "registry-1.docker.io");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ImageRef {
    /// Parses and normalises; adds `latest` where neither tag nor digest is given.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let name = text.strip_prefix("docker://").unwrap_or(text);
        if name.is_empty() {
            return Err(ReferenceError::Form { text: text.into() });
        }
        if let Some((scheme, rest)) = name.split_once("://") {
            return Err(ReferenceError::Scheme {
                text: text.into(),
                scheme: scheme.into(),
                without: rest.trim_end_matches('/').into(),
            });
        }
        if grammar::is_image_id(name) {
            return Err(ReferenceError::ImageId { text: name.into() });
        }
        let (name, digest) = match name.split_once('@') {
            Some((name, digest)) => (name, Some(parse_digest(text, digest)?)),
            None => (name, None),
        };
        let (domain, rest) = split_domain(name);
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        check_domain(text, domain)?;
        let path = match domain {
            HUB if !path.contains('/') => format!("{HUB_OFFICIAL}{path}"),
            _ => path.to_owned(),
        };
        check_path(text, &path)?;
        let tag = match tag {
            Some(tag) if grammar::is_tag(tag) => Some(tag.to_owned()),
            Some(tag) => return Err(ReferenceError::Tag { text: text.into(), tag: tag.into() }),
            None => digest.is_none().then(|| "latest".to_owned()),
        };
        Ok(Self { domain: domain.into(), path, tag, digest })
    }

    /// Registry domain, `docker.io` for Docker Hub.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Repository path, `library/python`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Host and perhaps port to connect to: `registry-1.docker.io` for Docker Hub, else the domain.
    #[must_use]
    pub fn registry_host(&self) -> &str {
        if self.domain == HUB { HUB_HOST } else { &self.domain }
    }

    /// What a registry is asked for: the digest if there is one, else the tag.
    #[must_use]
    pub fn manifest_reference(&self) -> String {
        match self.digest {
            Some(digest) => digest.to_string(),
            None => self.tag.clone().expect("parse gives every name a tag or a digest"),
        }
    }

    /// The same name pinned to a digest; the tag is kept for display.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// Domain and path, without tag and digest.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// Docker's short form, `python:3.12`; the canonical form where the short one would mean something else
    /// (`docker.io/localhost/x` would become an image of the host `localhost`).
    #[must_use]
    pub fn familiar(&self) -> String {
        let canonical = self.to_string();
        let Some(path) = canonical.strip_prefix("docker.io/") else { return canonical };
        let official = path.strip_prefix(HUB_OFFICIAL);
        [official, Some(path)]
            .into_iter()
            .flatten()
            .find(|short| Self::parse(short).as_ref() == Ok(self))
            .map_or_else(|| canonical.clone(), str::to_owned)
    }
}

impl fmt::Display for ImageRef {
    /// The canonical form, `docker.io/library/python:3.12`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for ImageRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

/// Domain and the rest; Docker Hub where the first part is no domain.
fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((HUB_LEGACY, rest)) => (HUB, rest),
        Some((first, rest)) if grammar::looks_like_domain(first) => (first, rest),
        _ => (HUB, name),
    }
}

fn check_domain(text: &str, domain: &str) -> Result<(), ReferenceError> {
    if domain.len() > MAX_DOMAIN_BYTES {
        return Err(ReferenceError::TooLong {
            what: "registry",
            length: domain.len(),
            limit: MAX_DOMAIN_BYTES,
        });
    }
    if !grammar::is_domain(domain) {
        return Err(ReferenceError::Domain { text: text.into(), domain: domain.into() });
    }
    Ok(())
}

/// The length comes last, as with Docker: a wrong letter is the more helpful message.
fn check_path(text: &str, path: &str) -> Result<(), ReferenceError> {
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(ReferenceError::UpperCase { text: text.into() });
    }
    if let Some(component) = path.split('/').find(|component| !grammar::is_component(component)) {
        return Err(ReferenceError::Component { text: text.into(), component: component.into() });
    }
    if path.len() > MAX_PATH_BYTES {
        return Err(ReferenceError::TooLong {
            what: "repository",
            length: path.len(),
            limit: MAX_PATH_BYTES,
        });
    }
    Ok(())
}

fn parse_digest(text: &str, digest: &str) -> Result<Digest, ReferenceError> {
    digest.parse().map_err(|source| ReferenceError::Digest { text: text.into(), source })
}
