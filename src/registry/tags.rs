//! All tags of a repository, page by page.

use std::io::Read as _;
use std::sync::atomic::AtomicBool;

use serde::Deserialize;

use crate::reference::ImageRef;

use super::auth::Access;
use super::client::{Client, Watch};
use super::error::RegistryError;
use super::exchange::{Exchange, Payload};
use super::transport::{Method, Reach};

/// Tags of one page; some registries refuse to give more.
const PAGE: &str = "1000";
/// Most bytes of a page.
const PAGE_LIMIT_BYTES: u64 = 4 << 20;
/// Pages that are followed: a registry must not keep a client for ever.
const PAGE_LIMIT: usize = 1000;

impl Client {
    /// The tags of the image's repository, in the registry's order.
    pub fn tags(&self, image: &ImageRef) -> Result<Vec<String>, RegistryError> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let (host, repository) = (image.registry_host(), image.path());
        let what = format!("the tags of `{}`", image.repository());
        let never = AtomicBool::new(false);
        let watch = Watch { on_bytes: &|_| {}, on_event: &|_| {}, stopped: &never };
        let mut url = self.url(host, &format!("/v2/{repository}/tags/list?n={PAGE}"));
        let mut tags = Vec::new();
        for _ in 0..PAGE_LIMIT {
            let one = Exchange {
                access: Access::pull(host, repository),
                what: &what,
                method: Method::Get,
                url: &url,
                headers: &[],
                payload: Payload::None,
            };
            let (page, next) = self.retry(&watch, || {
                let mut answered = self.exchange(&one, &watch)?;
                if answered.response.status != 200 {
                    return Err(answered.refused(self, &one));
                }
                let next = answered
                    .response
                    .header("link")
                    .and_then(next_of)
                    .and_then(|next| answered.url.join(next));
                let mut raw = Vec::new();
                let host = answered.url.authority().to_owned();
                answered
                    .response
                    .reader()
                    .take(PAGE_LIMIT_BYTES)
                    .read_to_end(&mut raw)
                    .map_err(|error| RegistryError::Unreachable { host, why: Reach::of_read(error) })?;
                let page: Page = serde_json::from_slice(&raw)
                    .map_err(|_| answered.misunderstood(&what, "something that is not a list of tags"))?;
                Ok((page, next))
            })?;
            tags.extend(page.tags.unwrap_or_default());
            match next {
                // Other pages are the registry's own as well, so that the token goes nowhere else.
                Some(next) if next.origin() == url.origin() => url = next,
                _ => break,
            }
        }
        Ok(tags)
    }
}

/// The target of `<…>; rel="next"` (RFC 8288).
fn next_of(link: &str) -> Option<&str> {
    link.split(',').find_map(|one| {
        let (target, parameters) = one.trim().strip_prefix('<')?.split_once('>')?;
        parameters.replace(['"', ' '], "").contains("rel=next").then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_next_page() {
        for (link, expected) in [
            (r#"</v2/a/tags/list?n=2&last=b>; rel="next""#, Some("/v2/a/tags/list?n=2&last=b")),
            (r#"</x>; rel="prev", </y>; rel=next"#, Some("/y")),
            (r#"</x>; rel="prev""#, None),
            ("nonsense", None),
        ] {
            assert_eq!(next_of(link), expected, "{link}");
        }
    }
}
