//! The one door to the HTTP client: blocking requests that follow no redirect, keep no cookie and decode no body.
//!
//! Redirects are the caller's, since only it knows which host may see the token.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use super::credentials::Secret;
use super::proxy::Proxies;
use super::trust::TrustSources;
use super::url::Url;

/// Connections to one host that are kept for the next request: those of several layers in parts.
const MAX_IDLE_CONNECTIONS: usize = 16;

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// To find and reach a host, TLS included.
    pub(super) connect: Duration,
    /// For the next bytes of an answer.
    pub(super) read: Duration,
}

/// The HTTP client; keeps connections open between requests and may be used by several threads.
pub(super) struct Transport {
    timeouts: Timeouts,
    trust: TrustSources,
    proxies: Proxies,
    agents: Mutex<HashMap<Key, ureq::Agent>>,
}

/// What agents differ by.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    /// By the proxy of the scheme.
    proxied: bool,
    https: bool,
    /// A host with certificates of its own.
    host: Option<String>,
}

/// The methods that registries know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
}

impl Method {
    fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
        }
    }
}

/// What is sent along.
pub(super) enum Body<'a> {
    None,
    Bytes(&'a [u8]),
    /// So many bytes of a reader.
    Stream {
        reader: &'a mut dyn Read,
        size_bytes: u64,
    },
}

impl Body<'_> {
    fn size_bytes(&self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::Stream { size_bytes, .. } => Some(*size_bytes),
        }
    }
}

/// An answer, whatever its status.
pub(super) struct Response {
    pub(super) status: u16,
    inner: ureq::http::response::Parts,
    body: ureq::Body,
}

/// Why a host gave no answer, or not all of it. The words follow "cannot reach `host`: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reach {
    /// The name is unknown.
    #[error("no such host")]
    NoSuchHost,
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// No network or no route.
    #[error("{why}")]
    NoRoute {
        /// The system's words.
        why: String,
    },
    /// Too slow to connect.
    #[error("no connection in time")]
    ConnectTimeout,
    /// Too slow to answer.
    #[error("no answer in time")]
    ReadTimeout,
    /// The certificate or the handshake is bad.
    #[error("no secure connection: {why}")]
    Tls {
        /// The TLS library's words.
        why: String,
    },
    /// The certificates to rest on cannot be used.
    #[error("{why}")]
    Trust {
        /// The file and what is wrong with it.
        why: String,
    },
    /// The proxy does not let the request through.
    #[error("{why}")]
    Proxy {
        /// The reason.
        why: String,
    },
    /// The connection ended too early.
    #[error("the connection broke: {why}")]
    Broken {
        /// The system's words.
        why: String,
    },
    /// The answer is not HTTP.
    #[error("the answer is not understood: {why}")]
    Protocol {
        /// The HTTP library's words.
        why: String,
    },
}

impl Reach {
    /// Whether another try may help at once.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::ReadTimeout | Self::Broken { .. })
    }

    /// Finds the reason in an error of a body's `read`.
    pub(super) fn of_read(error: io::Error) -> Self {
        classify(ureq::Error::from(error))
    }
}

impl Transport {
    pub(super) fn new(timeouts: Timeouts, trust: TrustSources, proxies: Proxies) -> Self {
        Self { timeouts, trust, proxies, agents: Mutex::default() }
    }

    /// The agent for a host: those that differ by nothing are one, so that they share their connections.
    fn agent(&self, url: &Url) -> Result<ureq::Agent, Reach> {
        let authority = url.authority();
        let own = url.is_https().then(|| self.trust.directory(authority)).flatten();
        let proxy = self.proxies.proxy_for(url);
        let key =
            Key { proxied: proxy.is_some(), https: url.is_https(), host: own.map(|_| authority.to_owned()) };
        // A panic elsewhere leaves the map whole: it is only read and inserted into.
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let agent = self.make_agent(&key, authority, proxy)?;
        agents.insert(key, agent.clone());
        Ok(agent)
    }

    fn make_agent(&self, key: &Key, authority: &str, proxy: Option<&Secret>) -> Result<ureq::Agent, Reach> {
        // The library's own words could quote the address, which may hold a password.
        let proxy = proxy.map(|proxy| ureq::Proxy::new(proxy.expose())).transpose().map_err(|_| {
            Reach::Proxy { why: "the address of the proxy in the environment is not valid".into() }
        })?;
        let timeouts = self.timeouts;
        let mut builder = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_idle_connections_per_host(MAX_IDLE_CONNECTIONS)
            .max_idle_connections(2 * MAX_IDLE_CONNECTIONS)
            .user_agent(concat!("slipway/", env!("CARGO_PKG_VERSION")))
            .proxy(proxy)
            .timeout_resolve(Some(timeouts.connect))
            .timeout_connect(Some(timeouts.connect))
            .timeout_per_read(Some(timeouts.read))
            .timeout_per_write(Some(timeouts.read));
        if key.https {
            builder = builder.tls_config(tls_config(&self.trust, authority)?);
        }
        Ok(builder.build().new_agent())
    }

    /// Sends one request and waits for the head of the answer.
    pub(super) fn send(
        &self,
        method: Method,
        url: &Url,
        headers: &[(&str, &str)],
        body: Body<'_>,
    ) -> Result<Response, Reach> {
        let agent = self.agent(url)?;
        let mut request = ureq::http::Request::builder().method(method.word()).uri(url.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(size_bytes) = body.size_bytes() {
            // Without it a stream would be sent in chunks, which storage behind registries refuses.
            request = request.header("content-length", size_bytes);
        }
        let misbuilt = |error: ureq::http::Error| Reach::Protocol { why: error.to_string() };
        let answer = match body {
            Body::None => agent.run(request.body(()).map_err(misbuilt)?),
            Body::Bytes(bytes) => agent.run(request.body(bytes).map_err(misbuilt)?),
            Body::Stream { reader, .. } => {
                agent.run(request.body(ureq::SendBody::from_reader(reader)).map_err(misbuilt)?)
            }
        };
        let (inner, body) = answer.map_err(classify)?.into_parts();
        Ok(Response { status: inner.status.as_u16(), inner, body })
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}

impl Response {
    /// A header's first value, if it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers.get(name)?.to_str().ok()
    }

    /// All values of a header that may be repeated.
    pub(super) fn headers<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.inner.headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
    }

    /// The announced length in bytes.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.header("content-length")?.trim().parse().ok()
    }

    /// The body. Its errors become words by [`Reach::of_read`].
    pub(super) fn reader(&mut self) -> impl Read + '_ {
        self.body.as_reader()
    }
}

/// The certificates of a host, parsed.
fn tls_config(trust: &TrustSources, authority: &str) -> Result<TlsConfig, Reach> {
    let wrong = |why: String| Reach::Trust { why };
    let trust = trust.read(authority).map_err(wrong)?;
    let roots: Vec<Certificate<'static>> =
        trust.authorities.iter().flat_map(|pem| certificates(pem)).collect();
    let roots = if roots.is_empty() { RootCerts::WebPki } else { RootCerts::new_with_certs(&roots) };
    let client = match &trust.client {
        Some((certificate, key)) => {
            let key = PrivateKey::from_pem(key)
                .map_err(|_| wrong(format!("the client's key for `{authority}` is not valid")))?;
            Some(ClientCert::new_with_certs(&certificates(certificate), key))
        }
        None => None,
    };
    Ok(TlsConfig::builder().root_certs(roots).client_cert(client).build())
}

/// What is no certificate in such a file is passed over, as other programs do.
fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    let item = |item| if let Ok(PemItem::Certificate(one)) = item { Some(one) } else { None };
    parse_pem(pem).filter_map(item).collect()
}

/// The library's errors in the terms of a user. Timeouts hide inside I/O errors of a body.
fn classify(error: ureq::Error) -> Reach {
    match error {
        ureq::Error::HostNotFound => Reach::NoSuchHost,
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => Reach::ConnectTimeout,
        ureq::Error::Timeout(_) => Reach::ReadTimeout,
        ureq::Error::Io(error) => classify_io(&error),
        ureq::Error::Rustls(error) => Reach::Tls { why: error.to_string() },
        ureq::Error::Tls(why) => Reach::Tls { why: why.to_owned() },
        ureq::Error::ConnectProxyFailed(why) => {
            Reach::Proxy { why: format!("the proxy refuses: {}", why.trim()) }
        }
        ureq::Error::ConnectionFailed => Reach::NoRoute { why: "no address of the host answers".to_owned() },
        other => Reach::Protocol { why: other.to_string() },
    }
}

fn classify_io(error: &io::Error) -> Reach {
    let why = error.to_string();
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Reach::Refused,
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::AddrNotAvailable => Reach::NoRoute { why },
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Reach::ReadTimeout,
        // The handshake's errors arrive wrapped, and this is the only mark that they keep.
        io::ErrorKind::InvalidData => Reach::Tls { why },
        // The standard library gives a failed look-up no kind of its own, only this text.
        _ if why.starts_with("failed to lookup address") => Reach::NoSuchHost,
        _ => Reach::Broken { why },
    }
}

#[cfg(test)]
mod tests {
    use std::net::ToSocketAddrs as _;

    use super::*;

    /// The look-up is known by its text alone, so a change of that text must be seen.
    #[test]
    fn a_failed_look_up_is_told_apart() {
        // No resolver asks anybody for a label of more than 63 bytes.
        let error = ("x".repeat(80).as_str(), 80).to_socket_addrs().unwrap_err();
        assert_eq!(classify_io(&error), Reach::NoSuchHost, "{error}");
        assert_eq!(classify_io(&io::ErrorKind::ConnectionRefused.into()), Reach::Refused);
    }
}
