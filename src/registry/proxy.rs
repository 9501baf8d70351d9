//! Which proxy a request takes: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in either case, read as Go's
//! programs read them, so that what holds for docker and podman holds here.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::IpAddr;

use super::credentials::Secret;
use super::url::{Url, host_of, is_loopback};

/// The proxies of a user. The default knows none.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// Addresses may hold a password.
    https: Option<Secret>,
    http: Option<Secret>,
    /// Hosts that are reached without.
    exceptions: Vec<String>,
}

impl Proxies {
    /// The proxies that this environment names.
    #[must_use]
    pub fn from_env(env: &BTreeMap<OsString, OsString>) -> Self {
        let value = |name: &str| {
            let found = [name.to_owned(), name.to_ascii_lowercase()]
                .iter()
                .find_map(|name| env.get(OsStr::new(name)).filter(|value| !value.is_empty()).cloned());
            found.map(|value| value.to_string_lossy().into_owned())
        };
        let all = value("ALL_PROXY");
        let proxy =
            |name: &str| value(name).or_else(|| all.clone()).map(|text| Secret::new(with_scheme(text)));
        let exceptions = value("NO_PROXY").unwrap_or_default();
        Self {
            https: proxy("HTTPS_PROXY"),
            http: proxy("HTTP_PROXY"),
            exceptions: exceptions
                .split(',')
                .map(|word| word.trim().to_ascii_lowercase())
                .filter(|word| !word.is_empty())
                .collect(),
        }
    }

    /// The proxy for a request; this machine itself is never reached by one.
    pub(super) fn proxy_for(&self, url: &Url) -> Option<&Secret> {
        let proxy = if url.is_https() { &self.https } else { &self.http };
        let authority = url.authority();
        if is_loopback(authority) || self.exceptions.iter().any(|one| is_excepted(one, authority)) {
            return None;
        }
        proxy.as_ref()
    }
}

fn with_scheme(text: String) -> String {
    if text.contains("://") { text } else { format!("http://{text}") }
}

/// Whether one word of `NO_PROXY` means a host: `*`, an address, a network, or a domain with all below it. A port, where
/// one is given, must be that of the request.
fn is_excepted(word: &str, authority: &str) -> bool {
    if word == "*" {
        return true;
    }
    let host = host_of(authority);
    if let Some((network, bits)) = word.split_once('/') {
        return match (network.parse(), bits.parse(), host.parse()) {
            (Ok(network), Ok(bits), Ok(host)) => is_in_network(network, bits, host),
            _ => false,
        };
    }
    let port = authority.get(host.len()..).and_then(|rest| rest.rsplit_once(':')).map(|(_, port)| port);
    let (name, wanted_port) = match word.rsplit_once(':') {
        // An IPv6 address has colons of its own.
        Some((name, port)) if word.parse::<IpAddr>().is_err() && port.parse::<u16>().is_ok() => {
            (name, Some(port))
        }
        _ => (word, None),
    };
    if wanted_port.is_some() && wanted_port != port {
        return false;
    }
    let name = name.trim_start_matches("*.").trim_matches(['[', ']']);
    // `.example.com` means what is below it, `example.com` also itself.
    match name.strip_prefix('.') {
        Some(below) => is_below(host, below),
        None => host == name || is_below(host, name),
    }
}

fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

fn is_in_network(network: IpAddr, bits: u32, host: IpAddr) -> bool {
    let same = |network: u128, host: u128, width: u32| {
        bits <= width && (bits == 0 || (network ^ host) >> (width - bits) == 0)
    };
    match (network, host) {
        (IpAddr::V4(network), IpAddr::V4(host)) => same(network.to_bits().into(), host.to_bits().into(), 32),
        (IpAddr::V6(network), IpAddr::V6(host)) => same(network.to_bits(), host.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(env: &[(&str, &str)]) -> Proxies {
        Proxies::from_env(&env.iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    #[test]
    fn a_request_takes_the_proxy_of_its_scheme() {
        let env =
            [("https_proxy", "proxy:3128"), ("HTTP_PROXY", "http://u:PLANTED@other"), ("NO_PROXY", "x")];
        let proxies = proxies(&env);
        for (url, expected) in [
            ("https://registry/", Some("http://proxy:3128")),
            ("http://registry/", Some("http://u:PLANTED@other")),
            ("https://x/", None),
            ("http://127.0.0.1:5000/", None),
            ("http://localhost/", None),
        ] {
            let found = proxies.proxy_for(&Url::parse(url).unwrap());
            assert_eq!(found.map(Secret::expose), expected, "{url}");
        }
        assert!(!format!("{proxies:?}").contains("PLANTED"));
    }

    #[test]
    fn exceptions_are_read_as_go_reads_them() {
        for (word, authority, expected) in [
            ("*", "anything:1", true),
            ("example.com", "example.com:443", true),
            ("example.com", "sub.example.com", true),
            ("example.com", "badexample.com", false),
            (".example.com", "example.com", false),
            (".example.com", "a.example.com", true),
            ("*.example.com", "a.example.com", true),
            ("example.com:8443", "example.com:8443", true),
            ("example.com:8443", "example.com", false),
            ("10.0.0.0/8", "10.1.2.3:5000", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.0.0.0/8", "example.com", false),
            ("0.0.0.0/0", "11.1.2.3", true),
            ("10.0.0.0/99", "10.0.0.0", false),
            ("192.168.1.1", "192.168.1.1:80", true),
            ("fd00::/8", "[fd12::1]:5000", true),
            ("fd12::1", "[fd12::1]:5000", true),
        ] {
            assert_eq!(is_excepted(word, authority), expected, "{word} {authority}");
        }
    }
}
