//! Platforms: normalisation, and which ones a host can run.

use std::fmt;

use serde::Deserialize;

use super::null_default;

/// `os/architecture[/variant]` in GOOS and GOARCH words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// GOOS.
    #[serde(default, deserialize_with = "null_default")]
    pub os: String,
    /// GOARCH.
    #[serde(default, deserialize_with = "null_default")]
    pub architecture: String,
    /// CPU variant.
    #[serde(default)]
    pub variant: Option<String>,
    /// Features that the image needs of the system; no Linux host offers any.
    #[serde(default, rename = "os.features", deserialize_with = "null_default")]
    pub os_features: Vec<String>,
}

/// Why a text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a platform of the form os/architecture[/variant], such as linux/amd64")]
pub struct PlatformError {
    /// The text, cut to a readable length.
    pub text: String,
}

impl crate::base::Hint for PlatformError {
    fn hint(&self) -> Option<String> {
        Some("write for example `--platform linux/arm64`".into())
    }
}

/// The architecture that this program was built for, in Go's word.
const HOST_ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else if cfg!(target_arch = "aarch64") {
    "arm64"
} else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
    "ppc64le"
} else if cfg!(target_arch = "s390x") {
    "s390x"
} else if cfg!(target_arch = "riscv64") {
    "riscv64"
} else if cfg!(target_arch = "loongarch64") {
    "loong64"
} else {
    "unknown"
};

/// Words of GOOS that may stand alone.
const SYSTEMS: [&str; 4] = ["linux", "windows", "darwin", "freebsd"];

impl Platform {
    /// Reads `linux/arm64/v8`, `linux/amd64`, or one word (`arm64`, `linux`), and normalises it.
    ///
    /// ```
    /// use slipway::oci::Platform;
    /// assert_eq!(Platform::parse("Linux/AArch64/v8").unwrap().to_string(), "linux/arm64");
    /// assert_eq!(Platform::parse("x86_64").unwrap().to_string(), "linux/amd64");
    /// ```
    pub fn parse(text: &str) -> Result<Self, PlatformError> {
        let words: Vec<&str> = text.split('/').collect();
        let sound = |word: &&str| {
            !word.is_empty()
                && word.len() <= 64
                && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        };
        if !words.iter().all(sound) {
            return Err(PlatformError { text: text.chars().take(100).collect() });
        }
        let host = Self::host();
        let platform = match words.as_slice() {
            [one]
                if SYSTEMS.contains(&one.to_ascii_lowercase().as_str())
                    || one.eq_ignore_ascii_case("macos") =>
            {
                Self { os: (*one).to_owned(), ..host }
            }
            [one] => Self { os: host.os, architecture: (*one).to_owned(), ..Self::default() },
            [os, architecture] => {
                Self { os: (*os).to_owned(), architecture: (*architecture).to_owned(), ..Self::default() }
            }
            [os, architecture, variant] => Self {
                os: (*os).to_owned(),
                architecture: (*architecture).to_owned(),
                variant: Some((*variant).to_owned()),
                ..Self::default()
            },
            _ => return Err(PlatformError { text: text.chars().take(100).collect() }),
        };
        Ok(platform.normalized())
    }

    /// The platform that this program was built for, at the architecture's baseline: the CPU of a login node must not
    /// decide for the whole cluster.
    #[must_use]
    pub fn host() -> Self {
        Self { os: "linux".into(), architecture: HOST_ARCHITECTURE.into(), ..Self::default() }
    }

    /// One spelling for each platform: lower case, Go's words, no variant where it is the architecture's baseline.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let os = self.os.to_ascii_lowercase();
        let given = self.architecture.to_ascii_lowercase();
        let variant = self.variant.as_deref().unwrap_or_default().to_ascii_lowercase();
        let (architecture, variant) = match given.as_str() {
            "aarch64" | "arm64" => match variant.as_str() {
                "" | "8" | "v8" | "8.0" | "v8.0" => ("arm64", String::new()),
                other => ("arm64", without_zero_minor(&with_v(other))),
            },
            "x86_64" | "x86-64" | "amd64" => match with_v(&variant).as_str() {
                "v1" => ("amd64", String::new()),
                other => ("amd64", other.to_owned()),
            },
            "i386" | "x86" => ("386", String::new()),
            "armhf" => ("arm", "v7".into()),
            "armel" => ("arm", "v6".into()),
            "arm" if variant.is_empty() => ("arm", "v7".into()),
            "arm" => ("arm", with_v(&variant)),
            other => (other, variant),
        };
        Self {
            os: if os == "macos" { "darwin".into() } else { os },
            architecture: architecture.into(),
            variant: (!variant.is_empty()).then_some(variant),
            os_features: self.os_features.clone(),
        }
    }

    /// What a host of this platform runs, best first; every item is normalised.
    #[must_use]
    pub fn runnable(&self) -> Vec<Self> {
        let wanted = self.normalized();
        let variant = wanted.variant.clone().unwrap_or_default();
        let mut list: Vec<(&str, String)> = Vec::new();
        match wanted.architecture.as_str() {
            "amd64" => {
                let level = variant.strip_prefix('v').and_then(|n| n.parse::<u8>().ok()).unwrap_or(1).min(9);
                list.extend((2..=level).rev().map(|n| ("amd64", format!("v{n}"))));
                list.extend([("amd64", String::new()), ("386", String::new())]);
            }
            "arm64" => {
                list.extend(arm64_levels(&variant).into_iter().map(|level| ("arm64", level)));
                list.extend(arm_levels(8).map(|level| ("arm", level)));
            }
            "arm" => {
                let level = variant.strip_prefix('v').and_then(|n| n.parse::<u8>().ok()).unwrap_or(7).min(8);
                list.extend(arm_levels(level).map(|level| ("arm", level)));
            }
            other => {
                list.push((other, variant.clone()));
                if !variant.is_empty() {
                    list.push((other, String::new()));
                }
            }
        }
        list.into_iter()
            .map(|(architecture, variant)| Self {
                os: wanted.os.clone(),
                architecture: architecture.into(),
                variant: (!variant.is_empty()).then_some(variant),
                os_features: Vec::new(),
            })
            .collect()
    }

    /// Whether neither system nor architecture is told.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.os.is_empty() && self.architecture.is_empty()
    }

    /// Whether this is the `unknown/unknown` of `BuildKit`'s attestations.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_unknown = |word: &str| if word.is_empty() { "unknown".to_owned() } else { word.to_owned() };
        write!(f, "{}/{}", or_unknown(&self.os), or_unknown(&self.architecture))?;
        match self.variant.as_deref() {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

impl std::str::FromStr for Platform {
    type Err = PlatformError;
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        Self::parse(text)
    }
}

fn with_v(variant: &str) -> String {
    if variant.starts_with(|first: char| first.is_ascii_digit()) {
        format!("v{variant}")
    } else {
        variant.into()
    }
}

fn without_zero_minor(variant: &str) -> String {
    variant.strip_suffix(".0").unwrap_or(variant).to_owned()
}

/// The 64-bit ARM levels that a CPU of `variant` runs. Arm v9.0 grew from v8.5, so v9.x runs v8.(x+5) and below.
fn arm64_levels(variant: &str) -> Vec<String> {
    let mut levels = Vec::new();
    let number = variant.strip_prefix('v').unwrap_or("8");
    let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
    let (Ok(major), Ok(minor)) = (major.parse::<u8>(), minor.parse::<u8>()) else {
        return vec![variant.to_owned(), String::new()];
    };
    let mut minor = minor.min(9);
    if major >= 9 {
        levels.extend((1..=minor).rev().map(|minor| format!("v9.{minor}")));
        levels.push("v9".into());
        minor = (minor + 5).min(9);
    }
    levels.extend((1..=minor).rev().map(|minor| format!("v8.{minor}")));
    levels.push(String::new());
    levels
}

fn arm_levels(highest: u8) -> impl Iterator<Item = String> {
    (5..=highest).rev().map(|level| format!("v{level}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises() {
        for (text, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86-64/v1", "linux/amd64"),
            ("linux/amd64/3", "linux/amd64/v3"),
            ("LINUX/ARM64/8.0", "linux/arm64"),
            ("linux/arm64/9", "linux/arm64/v9"),
            ("linux/arm64/v9.0", "linux/arm64/v9"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("macos/arm64", "darwin/arm64"),
            ("linux/ppc64le/power9", "linux/ppc64le/power9"),
            ("arm64", "linux/arm64"),
        ] {
            assert_eq!(Platform::parse(text).unwrap().to_string(), expected, "{text}");
        }
        assert_eq!(Platform::parse("linux").unwrap(), Platform::host());
        for bad in ["", "/", "linux/", "a/b/c/d", "linux/am d64", "linux/äh"] {
            assert!(Platform::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_what_a_host_runs() {
        let check = |text: &str, expected: &str| {
            let list: Vec<String> = Platform::parse(text)
                .unwrap()
                .runnable()
                .iter()
                .map(|p| p.to_string().replace("linux/", ""))
                .collect();
            assert_eq!(list.join(" "), expected, "{text}");
        };
        check("linux/amd64", "amd64 386");
        check("linux/amd64/v3", "amd64/v3 amd64/v2 amd64 386");
        check("linux/386", "386");
        check("linux/arm64", "arm64 arm/v8 arm/v7 arm/v6 arm/v5");
        check("linux/arm64/v8.2", "arm64/v8.2 arm64/v8.1 arm64 arm/v8 arm/v7 arm/v6 arm/v5");
        check(
            "linux/arm64/v9.1",
            "arm64/v9.1 arm64/v9 arm64/v8.6 arm64/v8.5 arm64/v8.4 arm64/v8.3 arm64/v8.2 arm64/v8.1 arm64 arm/v8 arm/v7 arm/v6 arm/v5",
        );
        check("linux/arm64/vx", "arm64/vx arm64 arm/v8 arm/v7 arm/v6 arm/v5");
        check("linux/arm", "arm/v7 arm/v6 arm/v5");
        check("linux/ppc64le/power9", "ppc64le/power9 ppc64le");
        check("linux/s390x", "s390x");
    }
}
