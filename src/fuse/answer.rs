//! A server's answers as bytes, without a kernel: what tests and fuzz targets talk to.

use std::io::IoSlice;

use super::Server;
use super::content::to_parts;
use super::serve::Answer;
use super::wire::{self, Request};

impl Server {
    /// The whole answer to a request as the kernel writes it, header included. `None` where the kernel waits for none, or
    /// if the bytes are no whole request.
    #[must_use]
    pub fn answer(&self, request: &[u8]) -> Option<Vec<u8>> {
        let request = Request::parse(request)?;
        let (mut body, mut pieces) = (Vec::new(), Vec::new());
        let (errno, parts) = match self.shared.answer(&request, &mut body, &mut pieces) {
            Ok(Answer::Silence) => return None,
            Ok(Answer::Reply) => (0, to_parts(&[], &body, &pieces)),
            Err(errno) => (-(errno as i32), Vec::<IoSlice<'_>>::new()),
        };
        let length = parts.iter().map(|part| part.len()).sum();
        let mut answer = wire::answer_header(request.unique, errno, length).to_vec();
        parts.iter().for_each(|part| answer.extend_from_slice(part));
        Some(answer)
    }
}
