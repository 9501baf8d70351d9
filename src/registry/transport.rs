//! The one door to the HTTP client: a blocking GET that follows no redirect, keeps no cookie and decodes no body.
//!
//! Redirects are the caller's, since only it knows which host may see the token. Proxies are taken from the usual
//! environment variables (`HTTPS_PROXY`, `NO_PROXY`), but never for this machine itself.

use std::fmt;
use std::io::{self, Read};
use std::time::Duration;

use ureq::tls::{RootCerts, TlsConfig};

use super::url::{Url, is_loopback};

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
    direct: ureq::Agent,
    outward: ureq::Agent,
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
    pub(super) fn new(timeouts: Timeouts) -> Self {
        let builder = || {
            ureq::Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_idle_connections_per_host(MAX_IDLE_CONNECTIONS)
                .max_idle_connections(2 * MAX_IDLE_CONNECTIONS)
                .user_agent(concat!("slipway/", env!("CARGO_PKG_VERSION")))
                .timeout_resolve(Some(timeouts.connect))
                .timeout_connect(Some(timeouts.connect))
                .timeout_per_read(Some(timeouts.read))
                .timeout_per_write(Some(timeouts.read))
                // The place for a site's own certificate authority: `RootCerts::new_with_certs`.
                .tls_config(TlsConfig::builder().root_certs(RootCerts::WebPki).build())
        };
        let direct = builder().proxy(None).build().new_agent();
        Self { direct, outward: builder().build().new_agent() }
    }

    /// Sends one GET and waits for the head of the answer.
    pub(super) fn get(&self, url: &Url, headers: &[(&str, &str)]) -> Result<Response, Reach> {
        let agent = if is_loopback(url.authority()) { &self.direct } else { &self.outward };
        let mut request = agent.get(url.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (inner, body) = request.call().map_err(classify)?.into_parts();
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

/// The library's errors in the terms of a user. Timeouts hide inside I/O errors of a body.
fn classify(error: ureq::Error) -> Reach {
    match error {
        ureq::Error::HostNotFound => Reach::NoSuchHost,
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => Reach::ConnectTimeout,
        ureq::Error::Timeout(_) => Reach::ReadTimeout,
        ureq::Error::Io(error) => classify_io(&error),
        ureq::Error::Rustls(error) => Reach::Tls { why: error.to_string() },
        ureq::Error::Tls(why) => Reach::Tls { why: why.to_owned() },
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
