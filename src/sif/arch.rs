//! Architectures: two digits in the header and in a partition's descriptor, GOARCH words elsewhere.

/// The words in the order of their numbers; number 0 means unknown.
const NAMES: [&str; 14] = [
    "unknown", "386", "amd64", "arm", "arm64", "ppc64", "ppc64le", "mips", "mipsle", "mips64", "mips64le",
    "s390x", "riscv64", "loong64",
];

/// The three bytes of a GOARCH word; an unknown word gives those of "unknown".
#[must_use]
pub fn architecture_code(name: &str) -> [u8; 3] {
    let number = NAMES.iter().position(|known| *known == name).unwrap_or(0);
    let [tens, ones] = [number / 10, number % 10].map(|digit| b"0123456789"[digit]);
    [tens, ones, 0]
}

/// The GOARCH word of three bytes from a file; `None` for "unknown" and for numbers that nobody has given out.
#[must_use]
pub fn architecture_name(code: [u8; 3]) -> Option<&'static str> {
    NAMES.into_iter().skip(1).find(|name| architecture_code(name) == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_agree() {
        for (name, code) in [("386", b"01\0"), ("amd64", b"02\0"), ("arm64", b"04\0"), ("loong64", b"13\0")] {
            assert_eq!(architecture_code(name), *code);
            assert_eq!(architecture_name(*code), Some(name));
        }
        assert_eq!(architecture_code("sparc"), *b"00\0");
        for code in [*b"00\0", *b"14\0", *b"2\0\0", [0; 3], [0xff; 3]] {
            assert_eq!(architecture_name(code), None);
        }
    }
}
