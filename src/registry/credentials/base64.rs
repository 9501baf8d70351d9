//! Base64 with padding (RFC 4648 §4), as login files have it.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes as text.
pub(in crate::registry) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for (at, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let letter = ALPHABET[usize::try_from(bits >> shift & 63).expect("six bits")];
            text.push(if at > chunk.len() { '=' } else { char::from(letter) });
        }
    }
    text
}

/// Text as bytes; `None` where it is no base64. The padding may be missing, and the letters may be those of URLs.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.trim().trim_end_matches('=');
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for at in 0..4 {
            let value = match chunk.get(at) {
                None => 0,
                Some(b'-') => 62,
                Some(b'_') => 63,
                Some(letter) => ALPHABET.iter().position(|one| one == letter)?,
            };
            bits = bits << 6 | u32::try_from(value).ok()?;
        }
        let whole = match chunk.len() {
            4 => 3,
            3 => 2,
            2 => 1,
            _ => return None,
        };
        bytes.extend_from_slice(&bits.to_be_bytes()[1..=whole]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_both_ways() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("$oauthtoken:a?>~", "JG9hdXRodG9rZW46YT8+fg=="),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(decode("Zm8").unwrap(), b"fo");
        assert_eq!(decode("YT8-fg").unwrap(), b"a?>~");
        for wrong in ["Z", "Zm9vY", "Zm 9", "ä", "Zm!v"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }
}
