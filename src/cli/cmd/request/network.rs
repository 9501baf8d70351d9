//! Network, host name, ports and the files that name hosts.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use crate::bundle::{NameServers, hosts, parse_host, resolv_conf};
use crate::config::Profile;
use crate::grants::FileGrant;

use super::super::{Session, with_home};
use super::Ground;
use crate::cli::args::RunArgs;
use crate::cli::failure::Failure;

/// Most bytes of the host's `/etc/hosts`, `/etc/resolv.conf` and docker's `config.json` that are read.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Digits of an id that are a host name, as docker has it.
const SHORT_ID: usize = 12;

/// What the flags come to.
#[derive(Debug)]
pub(super) struct Network {
    /// With nothing but a loopback.
    pub(super) is_private: bool,
    /// A host name of its own.
    pub(super) host_name: Option<String>,
    /// Files instead of the host's.
    pub(super) files: Vec<FileGrant>,
}

pub(super) fn choose(
    args: &RunArgs,
    ground: &Ground<'_>,
    warnings: &mut Vec<String>,
) -> Result<Network, Failure> {
    let isolation = &args.isolation;
    let is_docker = ground.profile == Profile::Docker;
    let is_private = is_private(args.network.as_deref(), warnings)?;
    if !is_private {
        isolation.publish.iter().try_for_each(|text| check_port(text))?;
    }
    let host_name = host_name(args, ground)?;
    let asked = NameServers {
        servers: isolation.dns.clone(),
        search: isolation.dns_search.clone(),
        options: isolation.dns_option.clone(),
    };
    let added: Vec<String> =
        isolation.add_host.iter().map(|text| parse_host(text)).collect::<Result<_, _>>()?;
    let mut files = Vec::new();
    let mut add = |target: &str, text: String| {
        files.push(FileGrant { target: target.into(), content: text.into_bytes(), mode: 0o644 });
    };
    // docker gives copies, so that they may be written to; else the host's own are shown unless a flag changes them.
    if is_docker || host_name.is_some() || !added.is_empty() {
        let of_host = if is_private { None } else { read("/etc/hosts") };
        add("/etc/hosts", hosts(of_host.as_deref(), host_name.as_deref(), &added));
    }
    if is_docker || asked != NameServers::default() {
        let of_host = if is_private { None } else { read("/etc/resolv.conf") };
        add("/etc/resolv.conf", resolv_conf(of_host.as_deref().unwrap_or_default(), &asked));
    }
    if let Some(name) = host_name.as_ref().filter(|_| is_docker) {
        add("/etc/hostname", format!("{name}\n"));
    }
    Ok(Network { is_private, host_name, files })
}

fn read(path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(MAX_FILE_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn is_private(network: Option<&str>, warnings: &mut Vec<String>) -> Result<bool, Failure> {
    match network {
        None | Some("host" | "default") => Ok(false),
        Some("none") => Ok(true),
        Some("bridge") => {
            warnings.push("there is no bridge without root: the network is the host's".into());
            Ok(false)
        }
        Some(other) => Err(Failure::new(
            format!("there is no network `{other}`: without root there are `host` and `none`"),
            "leave `--network` out to use the host's",
        )),
    }
}

/// The name that the container has for itself; `None` is the host's.
fn host_name(args: &RunArgs, ground: &Ground<'_>) -> Result<Option<String>, Failure> {
    let is_hosts = match args.isolation.uts.as_deref() {
        Some("host") => true,
        None | Some("" | "private") => false,
        Some(other) => {
            return Err(Failure::new(
                format!("cannot have `--uts {other}`: there are `host` and `private`"),
                "leave it out",
            ));
        }
    };
    let named = args.hostname.is_some() || args.isolation.domainname.is_some();
    if is_hosts && named {
        return Err(Failure::new(
            "`--uts host` is the host's name, and another was given",
            "leave `--uts host` out, or `--hostname` and `--domainname`",
        ));
    }
    let of_id = || ground.id.and_then(|id| id.get(..SHORT_ID)).map(str::to_owned);
    let of_host = || read("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned());
    let is_private = args.isolation.uts.as_deref().is_some_and(|mode| mode == "private");
    let name = match &args.hostname {
        _ if is_hosts => None,
        Some(name) => Some(name.clone()),
        None if ground.profile == Profile::Docker => of_id(),
        None if named || is_private => of_host(),
        None => None,
    };
    /// Longest name that the kernel takes (__NEW_UTS_LEN, linux/utsname.h).
    const MAX_BYTES: usize = 64;
    for text in name.iter().chain(&args.isolation.domainname) {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if text.is_empty() || text.len() > MAX_BYTES || !text.bytes().all(is_plain) {
            return Err(Failure::new(
                format!("`{text}` cannot be the name of a host"),
                "use at most 64 letters, digits, dots and hyphens",
            ));
        }
    }
    Ok(name)
}

/// `-p [ADDRESS:][OUTSIDE:]INSIDE[/PROTOCOL]`: outside and inside are one network, so the ports must be the same.
fn check_port(text: &str) -> Result<(), Failure> {
    let bad = || {
        Failure::new(
            format!("`-p {text}` names no port"),
            "write `-p 8080:8080`, or the same ports as ranges",
        )
    };
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if !matches!(protocol, "tcp" | "udp" | "sctp") {
        return Err(bad());
    }
    // An IPv6 address stands in brackets and has colons of its own.
    let ports = ports.rsplit_once("]:").map_or(ports, |(_, ports)| ports);
    let parts: Vec<&str> = ports.split(':').collect();
    let (outside, inside) = match parts.as_slice() {
        [inside] => ("", *inside),
        [.., outside, inside] => (*outside, *inside),
        [] => return Err(bad()),
    };
    let number = |word: &str| word.parse::<u16>().ok().filter(|port| *port > 0);
    let range = |word: &str| {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        number(first).zip(number(last)).filter(|(first, last)| first <= last)
    };
    let inside_range = range(inside).ok_or_else(bad)?;
    // An address alone before the colon, or nothing, leaves the choice to us.
    let outside_range = if outside.is_empty() || outside.contains('.') {
        inside_range
    } else {
        range(outside).ok_or_else(bad)?
    };
    if outside_range == inside_range {
        return Ok(());
    }
    Err(Failure::new(
        format!(
            "cannot have `-p {text}`: the network is the host's, where port {inside} is port {inside} and not {outside}"
        ),
        "let the program listen on the port that you want outside, and name that one twice",
    ))
}

/// Proxies that docker's client puts into every container, by `proxies.default` of its configuration. A file that cannot
/// be read or understood has none: logins complain about it.
pub(super) fn proxies(session: &Session) -> Vec<(String, String)> {
    const KEYS: [(&str, &str); 5] = [
        ("httpProxy", "HTTP_PROXY"),
        ("httpsProxy", "HTTPS_PROXY"),
        ("noProxy", "NO_PROXY"),
        ("ftpProxy", "FTP_PROXY"),
        ("allProxy", "ALL_PROXY"),
    ];
    let env = with_home(&session.env);
    let value = |name: &str| env.get(std::ffi::OsStr::new(name)).filter(|value| !value.is_empty());
    let directory = value("DOCKER_CONFIG").map(|path| Path::new(path).to_owned());
    let directory = directory.or_else(|| Some(Path::new(value("HOME")?).join(".docker")));
    let text = directory.and_then(|directory| read(&directory.join("config.json").to_string_lossy()));
    let config: serde_json::Value = serde_json::from_str(&text.unwrap_or_default()).unwrap_or_default();
    let proxies = config.get("proxies").and_then(|proxies| proxies.get("default"));
    let found = KEYS.iter().filter_map(|(key, name)| {
        let value = proxies?.get(key)?.as_str().filter(|value| !value.is_empty())?;
        Some([(*name).to_owned(), name.to_ascii_lowercase()].map(|name| (name, value.to_owned())))
    });
    found.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_must_be_the_same_on_both_sides() {
        let check = |text: &str, expected: Result<(), &str>| {
            let found = check_port(text).map_err(|failure| failure.to_string());
            let first = found.as_ref().map_err(|text| text.lines().next().unwrap_or_default());
            assert_eq!(first.copied(), expected, "{text}");
        };
        for text in [
            "8080",
            "8080:8080",
            "127.0.0.1:80:80",
            "127.0.0.1::80",
            "[::1]:80:80",
            "53:53/udp",
            "8000-8010:8000-8010",
        ] {
            check(text, Ok(()));
        }
        check(
            "8080:80",
            Err(
                "error: cannot have `-p 8080:80`: the network is the host's, where port 80 is port 80 and not 8080",
            ),
        );
        check("x:80", Err("error: `-p x:80` names no port"));
        check("80:80/icmp", Err("error: `-p 80:80/icmp` names no port"));
        check("0", Err("error: `-p 0` names no port"));
        check("", Err("error: `-p ` names no port"));
        check("9-8", Err("error: `-p 9-8` names no port"));
    }
}
