//! The choice among an index's entries.

use crate::base::Hint;

use super::{Descriptor, Index, Platform};

/// Platforms that an error message lists before it only counts.
const SHOWN_PLATFORMS: usize = 16;

/// Why an index has nothing for a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChooseError {
    /// The list is empty.
    #[error("the index has no entries")]
    Empty,
    /// Only attestations, artifacts, or entries that cannot be read.
    #[error("the index holds no image for {wanted}, only {others} other entries{}", because(.unreadable))]
    NoImages {
        /// What was asked for.
        wanted: Box<Platform>,
        /// How many entries there are.
        others: usize,
        /// Why the first entry that cannot be read cannot.
        unreadable: Option<Box<str>>,
    },
    /// Images for other platforms.
    #[error("the image is not there for {wanted}, only for {}", list(.available))]
    NoMatch {
        /// What was asked for.
        wanted: Box<Platform>,
        /// What is there, each once, in the index's order.
        available: Vec<Platform>,
    },
}

impl Hint for ChooseError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoMatch { available, .. } => {
                Some(format!("ask for one that is there, such as `--platform {}`", available.first()?))
            }
            _ => None,
        }
    }
}

fn because(unreadable: &Option<Box<str>>) -> String {
    unreadable.as_ref().map(|reason| format!(", one of which cannot be read: {reason}")).unwrap_or_default()
}

fn list(available: &[Platform]) -> String {
    let mut words: Vec<String> = available.iter().take(SHOWN_PLATFORMS).map(Platform::to_string).collect();
    if available.len() > SHOWN_PLATFORMS {
        words.push(format!("{} more", available.len() - SHOWN_PLATFORMS));
    }
    words.join(", ")
}

/// The best entry for `wanted`. It may be an index again ([`Descriptor::is_index`]): fetch that and choose in it, at
/// most [`super::media::INDEX_DEPTH_LIMIT`] deep.
pub fn choose<'a>(index: &'a Index, wanted: &Platform) -> Result<&'a Descriptor, ChooseError> {
    if let Some(best) = candidates(index, wanted).first() {
        return Ok(best);
    }
    if index.manifests.is_empty() && index.unreadable.is_empty() {
        return Err(ChooseError::Empty);
    }
    let mut available: Vec<Platform> = Vec::new();
    for entry in index.manifests.iter().filter(|entry| entry.is_image_candidate()) {
        let platform = entry.platform.as_ref().map(Platform::normalized).unwrap_or_default();
        if !available.contains(&platform) {
            available.push(platform);
        }
    }
    if available.is_empty() {
        let others = index.manifests.len() + index.unreadable.len();
        let unreadable = index.unreadable.first().map(|reason| reason.as_str().into());
        return Err(ChooseError::NoImages { wanted: Box::new(wanted.normalized()), others, unreadable });
    }
    Err(ChooseError::NoMatch { wanted: Box::new(wanted.normalized()), available })
}

/// All entries that may serve `wanted`, best first: by [`Platform::runnable`], then those that tell no platform, which
/// only their own content can. Among equals the index's order counts.
#[must_use]
pub fn candidates<'a>(index: &'a Index, wanted: &Platform) -> Vec<&'a Descriptor> {
    let preferred = wanted.runnable();
    let last = preferred.len();
    let rank = |entry: &Descriptor| match &entry.platform {
        None => Some(last),
        Some(platform) if platform.is_blank() => Some(last),
        Some(platform) if !platform.os_features.is_empty() => None,
        Some(platform) => {
            let platform = platform.normalized();
            preferred.iter().position(|one| *one == platform)
        }
    };
    let mut ranked: Vec<(usize, &Descriptor)> = index
        .manifests
        .iter()
        .filter(|entry| entry.is_image_candidate())
        .filter_map(|entry| Some((rank(entry)?, entry)))
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, entry)| entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Digest;
    use crate::oci::Document;

    fn index(entries: &[&str]) -> Index {
        let entries: Vec<String> = entries
            .iter()
            .enumerate()
            .map(|(n, extra)| {
                let digest = Digest::of(&[u8::try_from(n).unwrap()]);
                format!(r#"{{"digest":"{digest}","size":{n},{extra}}}"#)
            })
            .collect();
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
        let Document::Index(index) = Document::parse(text.as_bytes()).unwrap() else { panic!("no index") };
        index
    }

    fn on(platform: &str) -> String {
        let mut words = platform.split('/');
        let (os, arch) = (words.next().unwrap(), words.next().unwrap());
        let variant = words.next().map(|v| format!(r#","variant":"{v}""#)).unwrap_or_default();
        format!(
            r#""mediaType":"application/vnd.oci.image.manifest.v1+json","platform":{{"os":"{os}","architecture":"{arch}"{variant}}}"#
        )
    }

    fn check(entries: &[&str], wanted: &str, expected: Result<u64, &str>) {
        let index = index(entries);
        let found = choose(&index, &Platform::parse(wanted).unwrap());
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found.size_bytes, expected, "{wanted}"),
            (Err(error), Err(words)) => assert_eq!(error.to_string(), words),
            (found, _) => panic!("{wanted}: {found:?}"),
        }
    }

    #[test]
    fn chooses_by_preference() {
        let many = [
            on("linux/386"),
            on("linux/amd64"),
            on("linux/arm64/v8"),
            on("linux/arm/v6"),
            on("linux/amd64/v3"),
            on("linux/amd64"),
        ];
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        check(&many, "linux/amd64", Ok(1));
        check(&many, "linux/amd64/v3", Ok(4));
        check(&many, "linux/amd64/v4", Ok(4));
        check(&many, "linux/arm64", Ok(2));
        check(&many, "linux/arm64/v9", Ok(2));
        check(&many, "linux/arm/v7", Ok(3));
        check(&many[..1], "linux/amd64", Ok(0));
        check(
            &many,
            "linux/s390x",
            Err(
                "the image is not there for linux/s390x, only for linux/386, linux/amd64, linux/arm64, linux/arm/v6, linux/amd64/v3",
            ),
        );
    }

    #[test]
    fn skips_what_is_no_image() {
        let amd64 = on("linux/amd64");
        let attestation = on("unknown/unknown");
        let marked =
            format!(r#"{amd64},"annotations":{{"vnd.docker.reference.type":"attestation-manifest"}}"#);
        let artifact = format!(r#"{amd64},"artifactType":"application/spdx+json""#);
        let strange = amd64.replace("oci.image.manifest", "cncf.thing");
        let sbom = on("linux/");
        let config_type = format!(r#"{amd64},"artifactType":"application/vnd.oci.image.config.v1+json""#);
        let features = amd64.replace("}", r#","os.features":["x"]}"#);
        check(
            &[&attestation, &marked, &artifact, &strange, &sbom, &features, &config_type],
            "linux/amd64",
            Ok(6),
        );
        check(
            &[&attestation, &marked],
            "linux/amd64",
            Err("the index holds no image for linux/amd64, only 2 other entries"),
        );
        check(&[], "linux/amd64", Err("the index has no entries"));
    }

    #[test]
    fn no_platform_is_the_last_resort_and_an_index_may_be_chosen() {
        let (plain, amd64) = (r#""mediaType":"""#, on("linux/amd64"));
        let nested = r#""mediaType":"application/vnd.oci.image.index.v1+json""#;
        check(&[plain, &amd64], "linux/amd64", Ok(1));
        check(&[plain, &amd64], "linux/arm64", Ok(0));
        check(&[r#""platform":{"os":"","architecture":""}"#], "linux/arm64", Ok(0));
        let index = index(&[nested]);
        assert!(choose(&index, &Platform::host()).unwrap().is_index());
    }

    #[test]
    fn an_unreadable_entry_does_not_hide_the_others() {
        let sha512 = format!(r#"{{"digest":"sha512:{}","size":1}}"#, "0".repeat(128));
        let good = format!(r#"{{"digest":"{}","size":7}}"#, Digest::of(b""));
        let parse =
            |entries: &str| match Document::parse(format!(r#"{{"manifests":[{entries}]}}"#).as_bytes())
                .unwrap()
            {
                Document::Index(index) => index,
                Document::Manifest(_) => panic!("no index"),
            };
        let host = Platform::host();
        assert_eq!(choose(&parse(&format!("{sha512},{good}")), &host).unwrap().size_bytes, 7);
        let words =
            choose(&parse(&sha512), &Platform::parse("linux/arm64").unwrap()).unwrap_err().to_string();
        assert!(
            words.starts_with("the index holds no image for linux/arm64, only 1 other entries, one of which cannot be read: digest algorithm `sha512` is not supported"),
            "{words}"
        );
    }
}
