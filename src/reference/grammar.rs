//! The small words of the grammar. ASCII only: Docker's `\w` is `[0-9A-Za-z_]`.

use core::net::Ipv6Addr;

/// Longest tag in bytes.
const MAX_TAG_BYTES: usize = 128;

/// 64 lower-case hex digits are an image's id, never a name.
pub(super) fn is_image_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether the part before the first slash names a registry.
pub(super) fn looks_like_domain(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// A host name, IPv4 or bracketed IPv6 address, with an optional port.
pub(super) fn is_domain(text: &str) -> bool {
    if let Some(bracketed) = text.strip_prefix('[') {
        let Some((address, port)) = bracketed.split_once(']') else { return false };
        // A zone or an embedded IPv4 address is not in the grammar, though the address parser takes the latter.
        return address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':')
            && address.parse::<Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

/// `[a-z0-9]+` runs joined by one dot, one or two underscores, or any number of hyphens.
pub(super) fn is_component(text: &str) -> bool {
    let is_alnum = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !is_alnum(first) || !is_alnum(last) {
        return false;
    }
    bytes.split(|&byte| is_alnum(byte)).all(|separator| match separator {
        [] | b"." | b"_" | b"__" => true,
        hyphens => hyphens.iter().all(|&byte| byte == b'-'),
    })
}

/// A word character, then at most 127 word characters, dots and hyphens.
pub(super) fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = text.as_bytes();
    bytes.len() <= MAX_TAG_BYTES
        && bytes.first().is_some_and(|&first| is_word(first))
        && bytes.iter().all(|&byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_port(digits: &str) -> bool {
    digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok_and(|port| port > 0)
}
