//! `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` for a container, made from the host's.

use crate::base::Hint;

/// Lines of `/etc/hosts` where the network has nothing but a loopback.
const LOOPBACK_HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// What flags say of name servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameServers {
    /// `--dns`.
    pub servers: Vec<String>,
    /// `--dns-search`.
    pub search: Vec<String>,
    /// `--dns-option`.
    pub options: Vec<String>,
}

/// Why an `--add-host` is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Not `NAME:ADDRESS`.
    #[error("`--add-host {text}` is not of the form NAME:ADDRESS")]
    Form {
        /// The text.
        text: String,
    },
    /// What should be an address is none.
    #[error("`--add-host {text}`: `{address}` is not an IP address")]
    Address {
        /// The text.
        text: String,
        /// The address.
        address: String,
    },
}

impl Hint for HostError {
    fn hint(&self) -> Option<String> {
        Some("write for example `--add-host db:10.0.0.5`".into())
    }
}

/// Reads `NAME:ADDRESS` or `NAME=ADDRESS` as a line of `/etc/hosts`. The host's own gateway is the host itself, since the
/// network is shared.
pub fn parse_host(text: &str) -> Result<String, HostError> {
    let form = || HostError::Form { text: text.into() };
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(form)?;
    let is_name = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control());
    if !is_name || address.is_empty() {
        return Err(form());
    }
    let address = match address {
        "host-gateway" => "127.0.0.1",
        address => address.trim_start_matches('[').trim_end_matches(']'),
    };
    address
        .parse::<core::net::IpAddr>()
        .map_err(|_| HostError::Address { text: text.into(), address: address.into() })?;
    Ok(format!("{address}\t{name}"))
}

/// `/etc/hosts`: the host's, or a loopback's, and behind it the container's own name and what was added.
#[must_use]
pub fn hosts(of_host: Option<&str>, own_name: Option<&str>, added: &[String]) -> String {
    let mut text = of_host.unwrap_or(LOOPBACK_HOSTS).to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let is_known =
        |name: &str| text.lines().any(|line| line.split_whitespace().skip(1).any(|word| word == name));
    // Programs look up their own host (MPI, Java) and wait long where that has no answer.
    let own = own_name.filter(|name| !is_known(name)).map(|name| format!("127.0.1.1\t{name}"));
    for line in own.iter().chain(added) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// `/etc/resolv.conf`: the host's, with each kind of line that a flag names replaced.
#[must_use]
pub fn resolv_conf(of_host: &str, asked: &NameServers) -> String {
    let is_replaced = |line: &str| match line.split_whitespace().next() {
        Some("nameserver") => !asked.servers.is_empty(),
        Some("search" | "domain") => !asked.search.is_empty(),
        Some("options") => !asked.options.is_empty(),
        _ => false,
    };
    let mut lines: Vec<String> =
        of_host.lines().filter(|line| !is_replaced(line)).map(str::to_owned).collect();
    lines.extend(asked.servers.iter().map(|server| format!("nameserver {server}")));
    // A single dot is docker's way to have no search list.
    if !asked.search.is_empty() && asked.search != ["."] {
        lines.push(format!("search {}", asked.search.join(" ")));
    }
    if !asked.options.is_empty() {
        lines.push(format!("options {}", asked.options.join(" ")));
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_added_hosts() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let found = parse_host(text).map_err(|error| error.to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{text}");
        };
        check("db:10.0.0.5", Ok("10.0.0.5\tdb"));
        check("db=10.0.0.5", Ok("10.0.0.5\tdb"));
        check("db:::1", Ok("::1\tdb"));
        check("db:[::1]", Ok("::1\tdb"));
        check("me:host-gateway", Ok("127.0.0.1\tme"));
        check("db", Err("`--add-host db` is not of the form NAME:ADDRESS"));
        check("a b:10.0.0.5", Err("`--add-host a b:10.0.0.5` is not of the form NAME:ADDRESS"));
        check("db:there", Err("`--add-host db:there`: `there` is not an IP address"));
    }

    #[test]
    fn makes_the_files() {
        assert_eq!(hosts(Some("127.0.0.1 localhost"), None, &[]), "127.0.0.1 localhost\n");
        assert_eq!(
            hosts(Some("127.0.0.1 localhost\n"), Some("box"), &["10.0.0.5\tdb".into()]),
            "127.0.0.1 localhost\n127.0.1.1\tbox\n10.0.0.5\tdb\n"
        );
        assert_eq!(hosts(Some("10.1.1.1 n1 box\n"), Some("box"), &[]), "10.1.1.1 n1 box\n");
        assert_eq!(hosts(None, None, &[]), LOOPBACK_HOSTS);
        let host = "# made by\nsearch a.example\nnameserver 10.0.0.1\noptions ndots:1\n";
        let asked = |servers: &[&str], search: &[&str], options: &[&str]| {
            let words = |list: &[&str]| list.iter().map(ToString::to_string).collect();
            resolv_conf(
                host,
                &NameServers { servers: words(servers), search: words(search), options: words(options) },
            )
        };
        assert_eq!(asked(&[], &[], &[]), host);
        assert_eq!(
            asked(&["1.1.1.1", "::1"], &["."], &["rotate"]),
            "# made by\nnameserver 1.1.1.1\nnameserver ::1\noptions rotate\n"
        );
        assert_eq!(
            asked(&[], &["b", "c"], &[]),
            "# made by\nnameserver 10.0.0.1\noptions ndots:1\nsearch b c\n"
        );
    }
}
