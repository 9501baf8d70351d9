//! One blob on its way up: a session, its bytes, and where it goes on after a broken connection.

use crate::base::{Digest, ReadAt as _};
use crate::sys::file::ReadFile;

use super::client::Watch;
use super::error::RegistryError;
use super::exchange::{Answered, Exchange, Payload};
use super::push::Push;
use super::transport::Method;
use super::url::Url;

/// A blob up to this many bytes goes in the request that ends the session.
const SMALL_BYTES: u64 = 4 << 20;
/// Chunks where a proxy on the way takes no larger request.
const CHUNK_BYTES: u64 = 32 << 20;
/// A try that brought this many bytes counts as progress, and the tries are counted anew.
const PROGRESS_BYTES: u64 = 1 << 20;

/// An upload's unchanging parts.
pub(super) struct Upload<'a> {
    pub(super) push: &'a Push<'a>,
    pub(super) digest: Digest,
    pub(super) what: &'a str,
    pub(super) file: &'a ReadFile,
    pub(super) watch: &'a Watch<'a>,
}

/// How a session began.
enum Begun {
    /// It is over: the registry took the blob from this repository.
    Mounted(String),
    Session(Session),
}

/// A session of the registry.
struct Session {
    url: Url,
    /// Bytes that the registry has.
    offset: u64,
    /// Least length of a chunk but the last.
    min_chunk: u64,
}

/// How a try to send bytes ended.
enum Step {
    Sent,
    /// The request was too large.
    TooLarge,
    /// The registry does not know the session any more.
    Gone,
    /// Registry and client do not agree how far it is.
    Offset,
}

impl Upload<'_> {
    /// Brings the blob up; the repository that it was mounted from, if it was.
    pub(super) fn run(&self) -> Result<Option<String>, RegistryError> {
        let client = self.push.client;
        let mount = self.push.mounts.get(&self.digest).map(String::as_str);
        let begun = client.retry(self.watch, || match mount {
            // Whoever may not read there is asked for a plain session.
            Some(from) => self.begin(Some(from)).or_else(|error| match error {
                RegistryError::Denied { .. } => self.begin(None),
                error => Err(error),
            }),
            None => self.begin(None),
        })?;
        let session = match begun {
            Begun::Mounted(from) => return Ok(Some(from)),
            Begun::Session(session) => session,
        };
        if self.file.size_bytes() <= SMALL_BYTES {
            self.send_small(session)?;
        } else {
            self.send_large(session)?;
        }
        Ok(None)
    }

    fn begin(&self, mount: Option<&str>) -> Result<Begun, RegistryError> {
        let target = format!("/v2/{}/blobs/uploads/", self.push.image.path());
        let mut url = self.push.client.url(self.push.image.registry_host(), &target);
        if let Some(from) = mount {
            url = url.with_query(&[("mount", &self.digest.to_string()), ("from", from)]);
        }
        let one = Exchange {
            access: self.push.access(mount),
            what: self.what,
            method: Method::Post,
            url: &url,
            headers: &[],
            payload: Payload::Bytes(&[]),
        };
        let answered = self.push.client.exchange(&one, self.watch)?;
        match (answered.response.status, mount) {
            (201, Some(from)) => Ok(Begun::Mounted(from.to_owned())),
            (202, _) => {
                let min_chunk = answered.response.header("oci-chunk-min-length");
                let min_chunk = min_chunk.and_then(|text| text.trim().parse().ok()).unwrap_or_default();
                Ok(Begun::Session(Session { url: self.next(&answered, None)?, offset: 0, min_chunk }))
            }
            _ => Err(answered.refused(self.push.client, &one)),
        }
    }

    fn begin_again(&self) -> Result<Session, RegistryError> {
        match self.push.client.retry(self.watch, || self.begin(None))? {
            Begun::Session(session) => Ok(session),
            Begun::Mounted(_) => unreachable!("only a request with `mount` is answered so"),
        }
    }

    /// Where the session goes on: its address may change with each answer, and its query must be kept.
    fn next(&self, answered: &Answered, before: Option<&Url>) -> Result<Url, RegistryError> {
        let Some(url) = answered.location().or_else(|| before.cloned()) else {
            return Err(answered.misunderstood(self.what, "no address to send it to"));
        };
        let client = self.push.client;
        client.check_scheme(self.what, answered.url.authority(), &url, answered.url.is_https())?;
        Ok(url)
    }

    fn exchange<'a>(
        &'a self,
        method: Method,
        url: &'a Url,
        headers: &'a [(&'a str, &'a str)],
        payload: Payload<'a>,
    ) -> Exchange<'a> {
        Exchange { access: self.push.access(None), what: self.what, method, url, headers, payload }
    }

    fn send_small(&self, session: Session) -> Result<(), RegistryError> {
        let mut session = Some(session);
        self.push.client.retry(self.watch, || {
            // A session that has failed is not used again: the blob is small.
            let session = match session.take() {
                Some(session) => session,
                None => self.begin_again()?,
            };
            let size_bytes = self.file.size_bytes();
            self.finish(&session.url, Payload::Piece { file: self.file, from_byte: 0, size_bytes })
        })
    }

    /// Ends the session with what is left of the blob.
    fn finish(&self, url: &Url, payload: Payload<'_>) -> Result<(), RegistryError> {
        let url = url.clone().with_query(&[("digest", &self.digest.to_string())]);
        let headers = [("content-type", "application/octet-stream")];
        let one = self.exchange(Method::Put, &url, &headers, payload);
        let answered = self.push.client.exchange(&one, self.watch)?;
        match answered.response.status {
            200 | 201 | 204 => Ok(()),
            _ => Err(answered.refused(self.push.client, &one)),
        }
    }

    fn send_large(&self, mut session: Session) -> Result<(), RegistryError> {
        let size_bytes = self.file.size_bytes();
        let (mut chunk, mut tries) = (u64::MAX, 0);
        while session.offset < size_bytes {
            let before = session.offset;
            let step = match self.send_chunk(&mut session, chunk) {
                Ok(step) => step,
                Err(error) => {
                    self.push.client.wait_after(error, tries, self.watch)?;
                    tries += 1;
                    Step::Offset
                }
            };
            match step {
                Step::Sent => {}
                Step::Offset if self.ask_offset(&mut session)? => {}
                Step::TooLarge if chunk == u64::MAX => {
                    chunk = CHUNK_BYTES.max(session.min_chunk);
                    session = self.begin_again()?;
                }
                Step::TooLarge | Step::Gone | Step::Offset => {
                    let what = self.what.to_owned();
                    let host = session.url.authority().to_owned();
                    if tries >= self.push.client.options.retries {
                        let message = format!(": {}", step.words());
                        return Err(RegistryError::Status { host, what, status: step.status(), message });
                    }
                    tries += 1;
                    session = self.begin_again()?;
                    continue;
                }
            }
            if session.offset.saturating_sub(before) >= PROGRESS_BYTES {
                tries = 0;
            }
        }
        self.push.client.retry(self.watch, || self.finish(&session.url, Payload::Bytes(&[])))
    }

    /// Sends the next bytes, at most `chunk` of them.
    fn send_chunk(&self, session: &mut Session, chunk: u64) -> Result<Step, RegistryError> {
        let (from_byte, end) = (session.offset, self.file.size_bytes());
        let size_bytes = chunk.min(end - from_byte);
        let range = format!("{from_byte}-{}", from_byte + size_bytes - 1);
        let mut headers = vec![("content-type", "application/octet-stream")];
        // All in one piece goes as Docker sends it; some registries know chunks only by the specification.
        if size_bytes != end {
            headers.push(("content-range", &range));
        }
        let url = session.url.clone();
        let payload = Payload::Piece { file: self.file, from_byte, size_bytes };
        let one = self.exchange(Method::Patch, &url, &headers, payload);
        let answered = self.push.client.exchange(&one, self.watch)?;
        match answered.response.status {
            200 | 202 | 204 => {
                session.url = self.next(&answered, Some(&url))?;
                let told = answered.response.header("range").and_then(offset_of);
                session.offset = told.unwrap_or(from_byte + size_bytes).min(end);
                Ok(if session.offset == from_byte { Step::Offset } else { Step::Sent })
            }
            404 | 410 => Ok(Step::Gone),
            413 => Ok(Step::TooLarge),
            416 => Ok(Step::Offset),
            _ => Err(answered.refused(self.push.client, &one)),
        }
    }

    /// Asks how far the registry is; false if it does not say.
    fn ask_offset(&self, session: &mut Session) -> Result<bool, RegistryError> {
        self.push.client.retry(self.watch, || {
            let url = session.url.clone();
            let one = self.exchange(Method::Get, &url, &[], Payload::None);
            let answered = self.push.client.exchange(&one, self.watch)?;
            match answered.response.status {
                200 | 202 | 204 => {
                    let Some(offset) = answered.response.header("range").and_then(offset_of) else {
                        return Ok(false);
                    };
                    if offset > self.file.size_bytes() {
                        return Ok(false);
                    }
                    session.url = self.next(&answered, Some(&url))?;
                    session.offset = offset;
                    Ok(true)
                }
                404 | 405 | 410 => Ok(false),
                _ => Err(answered.refused(self.push.client, &one)),
            }
        })
    }
}

impl Step {
    fn status(&self) -> u16 {
        match self {
            Self::TooLarge => 413,
            Self::Gone => 404,
            Self::Sent | Self::Offset => 416,
        }
    }

    fn words(&self) -> &'static str {
        match self {
            Self::TooLarge => "it takes no request of that size",
            Self::Gone => "it forgot the upload",
            Self::Sent | Self::Offset => "it does not say how far the upload is",
        }
    }
}

/// The offset behind `0-N`, with or without `bytes=`. An empty upload is told as `0-0`.
fn offset_of(range: &str) -> Option<u64> {
    let range = range.trim();
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let end: u64 = range.strip_prefix("0-")?.parse().ok()?;
    if end == 0 { Some(0) } else { end.checked_add(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_how_far_an_upload_is() {
        for (range, expected) in [
            ("0-0", Some(0)),
            ("0-9", Some(10)),
            ("bytes=0-9", Some(10)),
            ("1-9", None),
            ("", None),
            ("0-18446744073709551615", None),
        ] {
            assert_eq!(offset_of(range), expected, "{range}");
        }
    }
}
