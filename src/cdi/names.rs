//! Names: `vendor/class=device`.

use std::fmt;

use super::CdiError;

/// The full name of a device: `nvidia.com/gpu=0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceName {
    kind: String,
    device: String,
}

impl DeviceName {
    /// Whether a word of `--device` is meant as such a name, and not as a path.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        let before = text.split('=').next().unwrap_or_default();
        !text.starts_with(['/', '.']) && before.len() < text.len() && before.contains('/')
    }

    /// Reads `vendor/class=device`.
    pub fn parse(text: &str) -> Result<Self, CdiError> {
        let bad = |reason: String| CdiError::Name { text: text.to_owned(), reason };
        let (kind, device) = text.split_once('=').ok_or_else(|| bad("it has no `=`".into()))?;
        check_kind(kind).and_then(|()| check_device(device)).map_err(bad)?;
        Ok(Self { kind: kind.to_owned(), device: device.to_owned() })
    }

    /// `vendor/class`.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The name within its kind.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.device)
    }
}

/// `vendor/class`.
pub(super) fn check_kind(kind: &str) -> Result<(), String> {
    let (vendor, class) =
        kind.split_once('/').ok_or_else(|| format!("the kind `{kind}` is not of the form vendor/class"))?;
    check_word(vendor, "vendor", "_-.", |first| first.is_ascii_alphabetic())?;
    check_word(class, "class", "_-.", |first| first.is_ascii_alphabetic())
}

pub(super) fn check_device(device: &str) -> Result<(), String> {
    check_word(device, "device", "_-.:", |first| first.is_ascii_alphanumeric())
}

fn check_word(word: &str, what: &str, inner: &str, may_start: impl Fn(char) -> bool) -> Result<(), String> {
    let (Some(first), Some(last)) = (word.chars().next(), word.chars().next_back()) else {
        return Err(format!("the {what} is empty"));
    };
    let is_inner = |letter: char| letter.is_ascii_alphanumeric() || inner.contains(letter);
    match word.chars().find(|letter| !is_inner(*letter)) {
        Some(letter) => Err(format!("the {what} `{word}` has the character `{}`", letter.escape_debug())),
        None if !may_start(first) => Err(format!("the {what} `{word}` begins with `{first}`")),
        None if !last.is_ascii_alphanumeric() => Err(format!("the {what} `{word}` ends with `{last}`")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_three_parts() {
        let check = |text: &str, expected: Result<(&str, &str), &str>| {
            let read = DeviceName::parse(text).map_err(|error| error.to_string());
            let shown = read.as_ref().map(|name| (name.kind(), name.device())).map_err(String::as_str);
            assert_eq!(shown, expected, "{text}");
        };
        check("nvidia.com/gpu=0", Ok(("nvidia.com/gpu", "0")));
        check("nvidia.com/gpu=0:1", Ok(("nvidia.com/gpu", "0:1")));
        check("v/c.d=GPU-1", Ok(("v/c.d", "GPU-1")));
        check("v/c", Err("`v/c` is no name of a CDI device: it has no `=`"));
        check("v=c", Err("`v=c` is no name of a CDI device: the kind `v` is not of the form vendor/class"));
        check("v/c=", Err("`v/c=` is no name of a CDI device: the device is empty"));
        check("1/c=x", Err("`1/c=x` is no name of a CDI device: the vendor `1` begins with `1`"));
        check("v/c=a b", Err("`v/c=a b` is no name of a CDI device: the device `a b` has the character ` `"));
        check("v/c=a-", Err("`v/c=a-` is no name of a CDI device: the device `a-` ends with `-`"));
    }

    #[test]
    fn paths_are_not_meant() {
        for (text, expected) in [
            ("nvidia.com/gpu=all", true),
            ("/dev/a=b", false),
            ("/dev/fuse", false),
            ("fuse", false),
            ("a=b/c", false),
        ] {
            assert_eq!(DeviceName::is_meant(text), expected, "{text}");
        }
    }
}
