//! One request to a registry: the right scheme, a token where it asks for one, its redirects, and its refusals in words.

use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use serde::Deserialize;

use crate::base::Digest;
use crate::oci::media;

use super::auth::{Access, Tokens};
use super::challenge::{Challenge, parse_challenges};
use super::credentials::CredentialSources;
use super::error::RegistryError;
use super::proxy::Proxies;
use super::pull::PullEvent;
use super::transport::{Body, Method, Response, Timeouts, Transport};
use super::trust::TrustSources;
use super::url::{Url, host_of, is_loopback, is_private_literal};

/// Redirects that one request follows.
pub(super) const MAX_REDIRECTS: usize = 5;
/// Longest wait before a retry, also where a server asks for more: a job that waits longer should fail and say so.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// How long a waiting thread takes to see that another one has failed.
const WAIT_STEP: Duration = Duration::from_millis(100);
/// Bytes of an error body that are read.
const MAX_ERROR_BYTES: u64 = 64 * 1024;
/// Characters of a server's message that are shown.
const MAX_MESSAGE_CHARS: usize = 200;

/// What a [`Client`] may do and how long it waits.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Registries (`host` or `host:port`) besides this machine itself that are spoken to by plain http.
    pub insecure: Vec<String>,
    /// To find and reach a host.
    pub connect_timeout: Duration,
    /// For the next bytes of an answer.
    pub read_timeout: Duration,
    /// Further tries after a broken connection, an overloaded server or a rate limit.
    pub retries: u32,
    /// Wait before the first retry; it doubles each time.
    pub first_wait: Duration,
    /// Layers fetched at once.
    pub parallel_layers: usize,
    /// Connections for one large layer, where the server knows ranges; 1 means that none is cut into parts.
    pub connections_per_layer: usize,
    /// Bytes of a part. A layer of fewer than eight parts is not cut.
    pub part_bytes: u64,
    /// Where logins are looked for, once a registry asks for one.
    pub credentials: CredentialSources,
    /// Where certificates are looked for.
    pub trust: TrustSources,
    /// Which requests go by a proxy.
    pub proxies: Proxies,
    /// Other places to pull from, `REGISTRY=HOST[/PATH]`.
    pub mirrors: Vec<String>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(60),
            retries: 4,
            first_wait: Duration::from_millis(500),
            parallel_layers: 3,
            connections_per_layer: 4,
            part_bytes: 8 << 20,
            credentials: CredentialSources::default(),
            trust: TrustSources::default(),
            proxies: Proxies::default(),
            mirrors: Vec::new(),
        }
    }
}

/// A client for any number of registries. It keeps connections and tokens, and may be used by several threads.
#[derive(Debug)]
pub struct Client {
    pub(super) transport: Transport,
    pub(super) options: ClientOptions,
    pub(super) tokens: Tokens,
}

/// What a transfer tells while it runs, and whether it should end.
pub(super) struct Watch<'a> {
    /// Bytes so far.
    pub(super) on_bytes: &'a dyn Fn(u64),
    /// Told of waits.
    pub(super) on_event: &'a (dyn Fn(PullEvent) + Sync),
    /// Set when another part of the same pull has failed.
    pub(super) stopped: &'a AtomicBool,
}

impl Watch<'_> {
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// A GET that a registry should answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    /// Host and port of the registry.
    pub(super) host: &'a str,
    /// The repository's path.
    pub(super) repository: &'a str,
    /// What the request is for, in words.
    pub(super) what: &'a str,
    /// Where it goes.
    pub(super) place: &'a Place,
    /// Begin at this byte.
    pub(super) from_byte: u64,
}

/// Where a request goes.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// A manifest or index of the repository, by tag or digest.
    Manifest(String),
    /// A blob of the repository.
    Blob(Digest),
    /// A blob that lies somewhere else (foreign layers); no token goes there.
    Foreign(Url),
}

/// A good answer (200 or 206) and who gave it.
pub(super) struct Answer {
    pub(super) response: Response,
    /// The host that answered after all redirects.
    pub(super) host: String,
}

impl Client {
    /// Makes a client; nothing is sent.
    #[must_use]
    pub fn new(options: ClientOptions) -> Self {
        let timeouts = Timeouts { connect: options.connect_timeout, read: options.read_timeout };
        Self {
            transport: Transport::new(timeouts, options.trust.clone(), options.proxies.clone()),
            options,
            tokens: Tokens::default(),
        }
    }

    /// Whether plain http may be spoken with this host: itself, or where the configuration says so.
    pub(super) fn is_plain_http(&self, authority: &str) -> bool {
        let listed = |entry: &String| {
            entry.eq_ignore_ascii_case(authority) || entry.eq_ignore_ascii_case(host_of(authority))
        };
        let is_named = is_loopback(authority) || self.options.insecure.iter().any(listed);
        is_named && self.options.trust.directory(authority).is_none()
    }

    /// Sends one GET, with a token where the registry asks for one, and follows redirects. One try.
    pub(super) fn ask(&self, ask: &Ask<'_>) -> Result<Answer, RegistryError> {
        self.ask_part(ask, None)
    }

    /// As [`Self::ask`], but for no more than the bytes up to `last_byte`.
    pub(super) fn ask_part(&self, ask: &Ask<'_>, last_byte: Option<u64>) -> Result<Answer, RegistryError> {
        let target = match ask.place {
            Place::Manifest(reference) => format!("/v2/{}/manifests/{reference}", ask.repository),
            Place::Blob(digest) => format!("/v2/{}/blobs/{digest}", ask.repository),
            Place::Foreign(url) => return self.ask_foreign(ask, url, last_byte),
        };
        let url = Url::new(!self.is_plain_http(ask.host), ask.host, &target);
        let access = Access::pull(ask.host, ask.repository);
        let mut authorization = self.tokens.get(&access);
        let mut renewed = false;
        loop {
            let (mut response, last) = self.follow(ask, last_byte, &url, authorization.as_deref())?;
            let by_registry = last.origin() == url.origin();
            if !renewed && by_registry && wants_token(&response) {
                // Tokens live for minutes, so this also happens in the middle of a long pull.
                authorization = Some(self.authorize(&access, &url, &response)?);
                renewed = true;
                continue;
            }
            return match response.status {
                200 | 206 => Ok(Answer { response, host: last.authority().to_owned() }),
                _ => {
                    let error = refusal(&Refused::of(ask), last.authority(), &mut response);
                    Err(self.tokens.with_user(error, &access))
                }
            };
        }
    }

    /// Like [`Self::ask`] for an address that a manifest names: never with a token, never into a private network.
    fn ask_foreign(&self, ask: &Ask<'_>, url: &Url, last_byte: Option<u64>) -> Result<Answer, RegistryError> {
        if is_private_literal(url.authority()) && host_of(url.authority()) != host_of(ask.host) {
            let target = format!("`{}`, a private address", url.origin());
            return Err(RegistryError::Redirect { host: ask.host.into(), what: ask.what.into(), target });
        }
        self.check_scheme(ask.what, ask.host, url, url.is_https())?;
        let (mut response, last) = self.follow(ask, last_byte, url, None)?;
        match response.status {
            200 | 206 => Ok(Answer { response, host: last.authority().to_owned() }),
            _ => Err(refusal(&Refused::of(ask), last.authority(), &mut response)),
        }
    }

    /// Follows redirects by hand: the token goes to the registry alone, since storage behind it refuses requests with
    /// a second authorization (S3 answers 400), and since it is nobody else's.
    fn follow(
        &self,
        ask: &Ask<'_>,
        last_byte: Option<u64>,
        first: &Url,
        authorization: Option<&str>,
    ) -> Result<(Response, Url), RegistryError> {
        let mut url = first.clone();
        let mut authorization = authorization;
        let accept = match ask.place {
            Place::Manifest(_) => Some(media::ACCEPTED_MANIFESTS.join(", ")),
            Place::Blob(_) | Place::Foreign(_) => None,
        };
        let range = match last_byte {
            Some(last_byte) => Some(format!("bytes={}-{last_byte}", ask.from_byte)),
            None => (ask.from_byte > 0).then(|| format!("bytes={}-", ask.from_byte)),
        };
        for _ in 0..=MAX_REDIRECTS {
            let mut headers = Vec::with_capacity(3);
            headers.extend(accept.as_deref().map(|accept| ("accept", accept)));
            headers.extend(range.as_deref().map(|range| ("range", range)));
            headers.extend(authorization.map(|value| ("authorization", value)));
            let response = self
                .transport
                .send(Method::Get, &url, &headers, Body::None)
                .map_err(|why| RegistryError::Unreachable { host: url.authority().into(), why })?;
            if !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
                return Ok((response, url));
            }
            let host = url.authority().to_owned();
            let Some(next) = response.header("location").and_then(|location| url.join(location)) else {
                let target = "an address that is missing or not understood".into();
                return Err(RegistryError::Redirect { host, what: ask.what.into(), target });
            };
            self.check_scheme(ask.what, &host, &next, url.is_https())?;
            if next.origin() != url.origin() {
                authorization = None;
            }
            url = next;
        }
        let target = format!("one place after another, more than {MAX_REDIRECTS} times");
        Err(RegistryError::Redirect { host: first.authority().into(), what: ask.what.into(), target })
    }

    /// Plain http is never reached from https, and otherwise only where it may be spoken.
    pub(super) fn check_scheme(
        &self,
        what: &str,
        host: &str,
        next: &Url,
        from_https: bool,
    ) -> Result<(), RegistryError> {
        if next.is_https() || (!from_https && self.is_plain_http(next.authority())) {
            return Ok(());
        }
        let target = format!("`{}`, which is not encrypted", next.origin());
        Err(RegistryError::Redirect { host: host.into(), what: what.into(), target })
    }

    /// Repeats `attempt` while its error is one that passes.
    pub(super) fn retry<T>(
        &self,
        watch: &Watch<'_>,
        mut attempt: impl FnMut() -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut tries = 0;
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(error) => self.wait_after(error, tries, watch)?,
            }
            tries += 1;
        }
    }

    /// Waits after failed try number `tries` (from 0); the error itself if there is nothing to wait for.
    pub(super) fn wait_after(
        &self,
        error: RegistryError,
        tries: u32,
        watch: &Watch<'_>,
    ) -> Result<(), RegistryError> {
        let Some(wait) = self.wait_time(&error, tries) else { return Err(error) };
        (watch.on_event)(PullEvent::Waiting { why: error.to_string(), wait });
        let mut left = wait;
        while !left.is_zero() {
            if watch.is_stopped() {
                return Err(RegistryError::GivenUp);
            }
            let step = left.min(WAIT_STEP);
            sleep(step);
            left -= step;
        }
        Ok(())
    }

    fn wait_time(&self, error: &RegistryError, tries: u32) -> Option<Duration> {
        if !error.is_transient() || tries >= self.options.retries {
            return None;
        }
        let own = self.options.first_wait.saturating_mul(1 << tries.min(16)).min(MAX_WAIT);
        match error {
            RegistryError::RateLimited { retry_after: Some(asked), .. } if *asked > MAX_WAIT => None,
            RegistryError::RateLimited { retry_after: Some(asked), .. } => Some(own.max(*asked)),
            _ => Some(own),
        }
    }
}

/// All challenges of an answer.
pub(super) fn challenges(response: &Response) -> Vec<Challenge> {
    response.headers("www-authenticate").flat_map(parse_challenges).collect()
}

/// 401, or the 403 of registries that answer so to a token of too little scope.
pub(super) fn wants_token(response: &Response) -> bool {
    response.status == 401
        || (response.status == 403
            && challenges(response).iter().any(|one| one.get("error") == Some("insufficient_scope")))
}

/// The error body of distribution-spec.
#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorItem>,
}

#[derive(Deserialize)]
struct ErrorItem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: Option<String>,
}

/// What was refused, for the words about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused<'a> {
    pub(super) repository: &'a str,
    pub(super) what: &'a str,
    /// A blob was asked for, so that 404 means that this is missing and not the image.
    pub(super) is_blob: bool,
}

impl<'a> Refused<'a> {
    fn of(ask: &Ask<'a>) -> Self {
        let is_blob = matches!(ask.place, Place::Blob(_) | Place::Foreign(_));
        Self { repository: ask.repository, what: ask.what, is_blob }
    }
}

/// A status other than success as an error.
pub(super) fn refusal(refused: &Refused<'_>, host: &str, response: &mut Response) -> RegistryError {
    let status = response.status;
    // Only the number form is read; with a date the usual waits serve as well.
    let retry_after = response.header("retry-after").and_then(|text| text.trim().parse().ok());
    let error = read_error(response);
    let (host, what) = (host.to_owned(), refused.what.to_owned());
    let repository = refused.repository.to_owned();
    let is_blob = refused.is_blob;
    let message = match error.message.as_deref().filter(|message| !message.is_empty()) {
        Some(message) => format!(": {}", clean(message)),
        None => String::new(),
    };
    match status {
        404 if error.code == "NAME_UNKNOWN" => RegistryError::UnknownRepository { host, repository },
        404 | 410 if is_blob => RegistryError::MissingBlob { host, what },
        404 => RegistryError::UnknownTag { host, what },
        401 | 403 => RegistryError::Denied { host, repository, status, message, user: None },
        429 => RegistryError::RateLimited { host, retry_after: retry_after.map(Duration::from_secs) },
        _ => RegistryError::Status { host, what, status, message },
    }
}

/// The first error that the body names; an empty one where it is no such document.
fn read_error(response: &mut Response) -> ErrorItem {
    let mut body = Vec::new();
    // A body that breaks off has nothing to add to the status.
    let _ = response.reader().take(MAX_ERROR_BYTES).read_to_end(&mut body);
    let parsed: Option<ErrorBody> = serde_json::from_slice(&body).ok();
    parsed
        .and_then(|body| body.errors.into_iter().next())
        .unwrap_or(ErrorItem { code: String::new(), message: None })
}

/// A server's words, safe and short enough for a terminal.
fn clean(message: &str) -> String {
    message.chars().filter(|character| !character.is_control()).take(MAX_MESSAGE_CHARS).collect()
}
