//! The little of URLs that a registry needs: `http` and `https`, an authority without user, a target; and `Location`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest URL that is followed, in bytes. Presigned storage URLs reach about 3,000.
const MAX_URL_BYTES: usize = 16 * 1024;

/// An absolute URL. Its `Display` is for requests only: the query may hold a signature, so messages use [`Url::origin`].
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Url {
    is_https: bool,
    authority: String,
    target: String,
}

impl Url {
    /// A URL on a registry; `target` begins with a slash.
    pub(super) fn new(is_https: bool, authority: &str, target: &str) -> Self {
        Self { is_https, authority: authority.to_ascii_lowercase(), target: target.to_owned() }
    }

    /// Reads an absolute URL; `None` for other schemes, a user part, or bytes that a URL may not hold.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let is_https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let is_clean = text.len() <= MAX_URL_BYTES && rest.bytes().all(|byte| byte.is_ascii_graphic());
        if authority.is_empty() || authority.contains(['@', '\\']) || !is_clean {
            return None;
        }
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Some(Self { is_https, authority: authority.to_ascii_lowercase(), target })
    }

    /// Where a `Location` header points, seen from this URL (RFC 3986 §5, without dot segments).
    pub(super) fn join(&self, location: &str) -> Option<Self> {
        if location.contains("://") && !location.starts_with(['/', '?']) {
            return Self::parse(location);
        }
        let scheme = if self.is_https { "https" } else { "http" };
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{scheme}://{rest}"));
        }
        let path = self.target.split('?').next().unwrap_or_default();
        let base = match location.chars().next()? {
            '/' => "",
            '?' => path,
            _ => path.rfind('/').and_then(|slash| path.get(..=slash)).unwrap_or("/"),
        };
        Self::parse(&format!("{scheme}://{}{base}{location}", self.authority))
    }

    pub(super) fn is_https(&self) -> bool {
        self.is_https
    }

    /// Host and port as written, in lower case.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// Scheme and authority: what may be shown and compared.
    pub(super) fn origin(&self) -> String {
        format!("{}://{}", if self.is_https { "https" } else { "http" }, self.authority)
    }

    /// The URL with further query parameters; values are escaped here.
    pub(super) fn with_query(mut self, parameters: &[(&str, &str)]) -> Self {
        for (name, value) in parameters {
            self.target.push(if self.target.contains('?') { '&' } else { '?' });
            self.target.push_str(name);
            self.target.push('=');
            push_escaped(&mut self.target, value);
        }
        self
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.target)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({}/…)", self.origin())
    }
}

/// A value of a query or a form.
pub(super) fn escaped(value: &str) -> String {
    let mut text = String::new();
    push_escaped(&mut text, value);
    text
}

/// Escapes all but the unreserved characters of RFC 3986.
fn push_escaped(target: &mut String, value: &str) {
    use fmt::Write as _;
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            target.push(char::from(byte));
        } else {
            write!(target, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
}

/// The host of `host[:port]`, without the brackets of an IPv6 address.
pub(super) fn host_of(authority: &str) -> &str {
    if let Some(bracketed) = authority.strip_prefix('[') {
        return bracketed.split(']').next().unwrap_or_default();
    }
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

/// Whether the host is this machine: `localhost`, 127.0.0.0/8 or ::1. Names are not resolved.
pub(super) fn is_loopback(authority: &str) -> bool {
    let host = host_of(authority);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || host.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback())
}

/// Whether the host is a literal address that no public registry would send a client to: this machine, private or
/// link-local (169.254.169.254 hands out cloud credentials).
pub(super) fn is_private_literal(authority: &str) -> bool {
    match host_of(authority).parse() {
        Ok(IpAddr::V4(v4)) => {
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified()
        }
        Ok(IpAddr::V6(v6)) => {
            v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local() || v6.is_unicast_link_local()
        }
        Err(_) => is_loopback(authority),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_prints() {
        for (text, expected) in [
            ("https://Host.com/a/b?c=d", Some("https://host.com/a/b?c=d")),
            ("HTTP://h:5000", Some("http://h:5000/")),
            ("https://h?x=1", Some("https://h/?x=1")),
            ("https://[::1]:5/x#frag", Some("https://[::1]:5/x")),
            ("ftp://h/", None),
            ("https://user:pw@h/", None),
            ("https:///x", None),
            ("https://h/a b", None),
            ("https://h/\r\nX: y", None),
            ("/x", None),
        ] {
            assert_eq!(Url::parse(text).map(|url| url.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn joins_locations() {
        let base = Url::parse("https://h:1/v2/a/blobs/x?old=1").unwrap();
        for (location, expected) in [
            ("https://cdn/x?sig=a%2Fb&u=http://z", Some("https://cdn/x?sig=a%2Fb&u=http://z")),
            ("//cdn/x", Some("https://cdn/x")),
            ("/other?u=http://z", Some("https://h:1/other?u=http://z")),
            ("y", Some("https://h:1/v2/a/blobs/y")),
            ("?q", Some("https://h:1/v2/a/blobs/x?q")),
            ("", None),
            ("file:///etc/passwd", None),
        ] {
            assert_eq!(base.join(location).map(|url| url.to_string()).as_deref(), expected, "{location}");
        }
        assert_eq!(format!("{:?}", base.join("/x?sig=secret").unwrap()), "Url(https://h:1/…)");
    }

    #[test]
    fn escapes_query_values() {
        let url = Url::parse("https://auth/token?a=b").unwrap();
        assert_eq!(
            url.with_query(&[("scope", "repository:a/b:pull,push"), ("service", "x y")]).to_string(),
            "https://auth/token?a=b&scope=repository%3Aa%2Fb%3Apull%2Cpush&service=x%20y"
        );
    }

    #[test]
    fn knows_this_machine_and_private_addresses() {
        for (authority, loopback, private) in [
            ("localhost", true, true),
            ("LOCALHOST:5000", true, true),
            ("127.0.0.1:5000", true, true),
            ("127.255.1.2", true, true),
            ("[::1]:5000", true, true),
            ("10.0.0.1", false, true),
            ("169.254.169.254", false, true),
            ("[fe80::1]", false, true),
            ("8.8.8.8:443", false, false),
            ("localhost.example.com", false, false),
            ("127.0.0.1.example.com", false, false),
        ] {
            assert_eq!(
                (is_loopback(authority), is_private_literal(authority)),
                (loopback, private),
                "{authority}"
            );
        }
    }
}
