//! One request of any method to a registry, with a token where it asks for one. Judging the answer is the caller's.

use std::io::{self, Read};

use crate::base::ReadAt as _;
use crate::sys::file::ReadFile;

use super::auth::Access;
use super::client::{Client, MAX_REDIRECTS, Refused, Watch, refusal, wants_token};
use super::error::RegistryError;
use super::transport::{Body, Method, Response};
use super::url::Url;

/// A request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exchange<'a> {
    pub(super) access: Access<'a>,
    /// What it is for, in words.
    pub(super) what: &'a str,
    pub(super) method: Method,
    pub(super) url: &'a Url,
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) payload: Payload<'a>,
}

/// What a request carries; it can be sent again.
#[derive(Debug, Clone, Copy)]
pub(super) enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    /// A part of a file.
    Piece {
        file: &'a ReadFile,
        from_byte: u64,
        size_bytes: u64,
    },
}

/// An answer, and where it came from.
pub(super) struct Answered {
    pub(super) response: Response,
    pub(super) url: Url,
}

impl Answered {
    /// Where the answer's `Location` points.
    pub(super) fn location(&self) -> Option<Url> {
        self.url.join(self.response.header("location")?)
    }

    /// The answer as an error.
    pub(super) fn refused(mut self, client: &Client, one: &Exchange<'_>) -> RegistryError {
        let refused = Refused { repository: one.access.repository, what: one.what, is_blob: false };
        let error = refusal(&refused, self.url.authority(), &mut self.response);
        client.tokens.with_user(error, &one.access)
    }

    /// The answer is against the protocol.
    pub(super) fn misunderstood(&self, what: &str, found: &str) -> RegistryError {
        RegistryError::Protocol { host: self.url.authority().into(), what: what.into(), found: found.into() }
    }
}

impl Client {
    /// The address of a target on a registry.
    pub(super) fn url(&self, host: &str, target: &str) -> Url {
        Url::new(!self.is_plain_http(host), host, target)
    }

    /// Sends a request and gives the answer to it, whatever its status; a token is fetched or renewed once.
    pub(super) fn exchange(&self, one: &Exchange<'_>, watch: &Watch<'_>) -> Result<Answered, RegistryError> {
        let registry = self.url(one.access.host, "/v2/");
        let mut authorization = self.tokens.get(&one.access);
        let mut renewed = false;
        loop {
            let answered = self.send(one, &registry, authorization.as_deref(), watch)?;
            let by_registry = answered.url.origin() == registry.origin();
            if renewed || !by_registry || !wants_token(&answered.response) {
                return Ok(answered);
            }
            authorization = Some(self.authorize(&one.access, &registry, &answered.response)?);
            renewed = true;
        }
    }

    fn send(
        &self,
        one: &Exchange<'_>,
        registry: &Url,
        authorization: Option<&str>,
        watch: &Watch<'_>,
    ) -> Result<Answered, RegistryError> {
        let mut url = one.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut headers = one.headers.to_vec();
            // The token is the registry's alone.
            if url.origin() == registry.origin() {
                headers.extend(authorization.map(|value| ("authorization", value)));
            }
            let response = match one.payload {
                Payload::None => self.transport.send(one.method, &url, &headers, Body::None),
                Payload::Bytes(bytes) => self.transport.send(one.method, &url, &headers, Body::Bytes(bytes)),
                Payload::Piece { file, from_byte, size_bytes } => {
                    let mut reader = Piece { file, position: from_byte, end: from_byte + size_bytes, watch };
                    let body = Body::Stream { reader: &mut reader, size_bytes };
                    self.transport.send(one.method, &url, &headers, body)
                }
            };
            let response =
                response.map_err(|why| RegistryError::Unreachable { host: url.authority().into(), why })?;
            if !matches!(response.status, 307 | 308) {
                return Ok(Answered { response, url });
            }
            let next = response.header("location").and_then(|location| url.join(location));
            let Some(next) = next else { return Ok(Answered { response, url }) };
            self.check_scheme(one.what, url.authority(), &next, url.is_https())?;
            url = next;
        }
        let target = format!("one place after another, more than {MAX_REDIRECTS} times");
        Err(RegistryError::Redirect { host: registry.authority().into(), what: one.what.into(), target })
    }
}

/// A part of a file in order, telling how far it is.
struct Piece<'a> {
    file: &'a ReadFile,
    position: u64,
    end: u64,
    watch: &'a Watch<'a>,
}

impl Read for Piece<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.watch.is_stopped() {
            return Err(io::Error::other("another part of the push has failed"));
        }
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let length = left.min(buf.len());
        let count = self.file.read_at(&mut buf[..length], self.position)?;
        if count == 0 && length > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += count as u64;
        (self.watch.on_bytes)(self.position);
        Ok(count)
    }
}
