//! The types of values: how each is read from TOML, from a variable or flag, and printed as TOML.

use std::fmt;
use std::path::PathBuf;

use crate::base::sizes::parse_size;
use crate::squashfs::compress::Compressor;

/// A value of a file, with TOML's types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Raw {
    Bool(bool),
    Integer(u64),
    Text(String),
    List(Vec<Raw>),
    /// Something that no key takes, by the name of its type.
    Other(String),
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "`{value}`"),
            Self::Integer(value) => write!(f, "`{value}`"),
            Self::Text(text) => write!(f, "`{}`", quoted(text)),
            Self::List(items) => {
                f.write_str("a list")?;
                let other = items.iter().find(|item| !matches!(item, Self::Text(_)));
                other.map_or(Ok(()), |item| write!(f, " with {item}"))
            }
            Self::Other(kind) => f.write_str(kind),
        }
    }
}

/// A type that a key may have.
pub(super) trait Value: Sized {
    /// What a user should write, for messages.
    const EXPECTED: &'static str;
    /// From a file.
    fn from_raw(raw: &Raw) -> Option<Self>;
    /// From a variable or flag.
    fn from_text(text: &str) -> Option<Self>;
    /// As TOML.
    fn to_toml(&self) -> String;
}

impl Value for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_raw(raw: &Raw) -> Option<Self> {
        if let Raw::Bool(value) = raw { Some(*value) } else { None }
    }

    fn from_text(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        }
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

impl Value for u64 {
    const EXPECTED: &'static str = "a whole number that is not negative";

    fn from_raw(raw: &Raw) -> Option<Self> {
        if let Raw::Integer(value) = raw { Some(*value) } else { None }
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

impl Value for u32 {
    const EXPECTED: &'static str = "a whole number from 0 to 4294967295";

    fn from_raw(raw: &Raw) -> Option<Self> {
        u64::from_raw(raw)?.try_into().ok()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

impl Value for PathBuf {
    const EXPECTED: &'static str = "a path in quotes that begins with `/`, `~` or a variable";

    fn from_raw(raw: &Raw) -> Option<Self> {
        if let Raw::Text(text) = raw { Self::from_text(text) } else { None }
    }

    fn from_text(text: &str) -> Option<Self> {
        text.starts_with(['/', '~', '$']).then(|| text.into())
    }

    fn to_toml(&self) -> String {
        quoted(&self.to_string_lossy())
    }
}

impl Value for Vec<String> {
    const EXPECTED: &'static str = "a list of strings";

    fn from_raw(raw: &Raw) -> Option<Self> {
        let Raw::List(items) = raw else { return None };
        items.iter().map(|item| if let Raw::Text(text) = item { Some(text.clone()) } else { None }).collect()
    }

    /// Items between commas.
    fn from_text(text: &str) -> Option<Self> {
        Some(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
    }

    fn to_toml(&self) -> String {
        format!("[{}]", self.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", "))
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(
    /// Bytes.
    pub u64,
);

impl Value for Size {
    const EXPECTED: &'static str = "a size such as \"256MiB\", or a number of bytes";

    fn from_raw(raw: &Raw) -> Option<Self> {
        match raw {
            Raw::Integer(bytes) => Some(Self(*bytes)),
            Raw::Text(text) => Self::from_text(text),
            _ => None,
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        parse_size(text).map(Self)
    }

    /// In the largest unit that loses nothing.
    fn to_toml(&self) -> String {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        let fits = |(shift, _): &(u32, &str)| self.0 > 0 && self.0.trailing_zeros() >= *shift;
        match units.into_iter().find(fits) {
            Some((shift, unit)) => quoted(&format!("{}{unit}", self.0 >> shift)),
            None => self.0.to_string(),
        }
    }
}

impl Value for Compressor {
    const EXPECTED: &'static str = Self::EXPECTED;

    fn from_raw(raw: &Raw) -> Option<Self> {
        if let Raw::Text(text) = raw { Self::from_text(text) } else { None }
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn to_toml(&self) -> String {
        quoted(&self.to_string())
    }
}

/// An enum of words: the words, once.
macro_rules! words {
    ($type:ident, $expected:literal, $($word:literal => $variant:ident),+) => {
        impl $type {
            /// The word that a configuration file has for it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl Value for $type {
            const EXPECTED: &'static str = $expected;

            fn from_raw(raw: &Raw) -> Option<Self> {
                if let Raw::Text(text) = raw { Self::from_text(text) } else { None }
            }

            fn from_text(text: &str) -> Option<Self> {
                match text {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }

            fn to_toml(&self) -> String {
                quoted(self.as_str())
            }
        }
    };
}

/// Whether OPEN is answered with ENOSYS, so that the kernel stops asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoOpen {
    /// Where the kernel is known to be good (`host::no_open_is_safe`).
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

words!(NoOpen, "\"auto\", \"on\" or \"off\"", "auto" => Auto, "on" => On, "off" => Off);

/// How long a keeper stays when the last container has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linger {
    /// A minute in a batch script or an allocation's shell; elsewhere none is made.
    Auto,
    /// So many seconds wherever later starts can use it; 0 makes none.
    Seconds(u32),
}

impl Value for Linger {
    const EXPECTED: &'static str = "\"auto\" or a number of seconds";

    fn from_raw(raw: &Raw) -> Option<Self> {
        match raw {
            Raw::Integer(seconds) => u32::try_from(*seconds).ok().map(Self::Seconds),
            Raw::Text(text) => Self::from_text(text),
            _ => None,
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            seconds => seconds.parse().ok().map(Self::Seconds),
        }
    }

    fn to_toml(&self) -> String {
        match self {
            Self::Auto => quoted("auto"),
            Self::Seconds(seconds) => seconds.to_string(),
        }
    }
}

/// How an image becomes the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootFs {
    /// Served where `/dev/fuse` can be opened, else unpacked.
    Auto,
    /// Served by our own file server.
    Fuse,
    /// Unpacked to a directory of the node.
    Unpack,
}

words!(RootFs, "\"auto\", \"fuse\" or \"unpack\"", "auto" => Auto, "fuse" => Fuse, "unpack" => Unpack);

/// A directory, or one that is chosen on each node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeDirectory {
    /// Chosen on the node.
    Auto,
    /// This one.
    Path(PathBuf),
}

impl Value for NodeDirectory {
    const EXPECTED: &'static str = "\"auto\" or a path in quotes that begins with `/`, `~` or a variable";

    fn from_raw(raw: &Raw) -> Option<Self> {
        if let Raw::Text(text) = raw { Self::from_text(text) } else { None }
    }

    fn from_text(text: &str) -> Option<Self> {
        if text == "auto" { Some(Self::Auto) } else { PathBuf::from_text(text).map(Self::Path) }
    }

    fn to_toml(&self) -> String {
        match self {
            Self::Auto => quoted("auto"),
            Self::Path(path) => path.to_toml(),
        }
    }
}

/// A set of defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// What users of a cluster expect.
    #[default]
    Hpc,
    /// What users of Docker expect.
    Docker,
}

words!(Profile, "\"hpc\" or \"docker\"", "hpc" => Hpc, "docker" => Docker);

/// Which GPUs a container gets where no flag says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuDefault {
    /// Those of the job.
    Job,
    /// All that the caller may use.
    All,
    /// None.
    None,
}

/// When an image's own CUDA driver libraries are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardCompat {
    /// Where they are newer than the host's driver and made for it.
    Auto,
    /// Never.
    Off,
    /// Wherever an image has some.
    Always,
}

words!(ForwardCompat, "\"auto\", \"off\" or \"always\"", "auto" => Auto, "off" => Off, "always" => Always);

words!(GpuDefault, "\"job\", \"all\" or \"none\"", "job" => Job, "all" => All, "none" => None);

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control.is_control() => {
                write!(out, "\\u{:04X}", u32::from(control)).expect("writing to a String cannot fail");
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_print_without_loss() {
        for (bytes, expected) in
            [(0, "0"), (1000, "1000"), (1024, "\"1KiB\""), (256 << 20, "\"256MiB\""), (3 << 30, "\"3GiB\"")]
        {
            assert_eq!(Size(bytes).to_toml(), expected);
        }
    }

    #[test]
    fn compressors_have_levels() {
        for (text, expected) in [
            ("zstd:1", Some("\"zstd:1\"")),
            ("zstd", Some("\"zstd:3\"")),
            ("zstd:19", Some("\"zstd:19\"")),
            ("zstd:20", None),
            ("zstd:0", None),
            ("zstd:", None),
            ("gzip", Some("\"gzip:6\"")),
            ("gzip:10", None),
            ("xz", None),
        ] {
            assert_eq!(Compressor::from_text(text).map(|one| one.to_toml()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn strings_are_escaped() {
        assert_eq!(quoted("a\"b\\c\nd\u{e9}"), "\"a\\\"b\\\\c\\u000Ad\u{e9}\"");
    }
}
