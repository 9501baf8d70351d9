//! The argument list: Docker's merge of ENTRYPOINT, CMD and the user's words (facts: moby `daemon/commit.go`).

use std::ffi::OsString;

use crate::oci::RunConfig;

use super::{BundleError, Request};

/// A user's entrypoint drops the image's CMD; a user's words replace CMD; an empty entrypoint removes the image's and
/// its CMD with it.
pub(super) fn merge(config: &RunConfig, request: &Request) -> Result<Vec<OsString>, BundleError> {
    let from_image = |words: &[String]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let mut argv = match &request.entrypoint {
        Some(word) if word.is_empty() => Vec::new(),
        Some(word) => vec![word.clone()],
        None => from_image(&config.entrypoint).into_iter().filter(|word| !word.is_empty()).collect(),
    };
    if !request.args.is_empty() {
        argv.extend(request.args.iter().cloned());
    } else if request.entrypoint.is_none() {
        argv.extend(from_image(&config.cmd));
    }
    if argv.is_empty() { Err(BundleError::NoCommand) } else { Ok(argv) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_as_docker_does() {
        let check = |image: (&[&str], &[&str]),
                     entrypoint: Option<&str>,
                     args: &[&str],
                     expected: Option<&[&str]>| {
            let words = |list: &[&str]| list.iter().map(ToString::to_string).collect();
            let config =
                RunConfig { entrypoint: words(image.0), cmd: words(image.1), ..RunConfig::default() };
            let request = Request {
                entrypoint: entrypoint.map(OsString::from),
                args: args.iter().map(OsString::from).collect(),
                ..Request::default()
            };
            let expected = expected.map(|list| list.iter().map(OsString::from).collect::<Vec<_>>());
            assert_eq!(merge(&config, &request).ok(), expected, "{image:?} {entrypoint:?} {args:?}");
        };
        check((&["e"], &["c"]), None, &[], Some(&["e", "c"]));
        check((&["e"], &["c"]), None, &["a"], Some(&["e", "a"]));
        check((&[], &["c"]), None, &["a"], Some(&["a"]));
        check((&["e"], &["c"]), Some("x"), &[], Some(&["x"]));
        check((&["e"], &["c"]), Some("x"), &["a"], Some(&["x", "a"]));
        check((&["e"], &["c"]), Some(""), &[], None);
        check((&["e"], &["c"]), Some(""), &["a"], Some(&["a"]));
        check((&[], &[]), None, &[], None);
        check((&[""], &["c"]), None, &[], Some(&["c"]));
    }
}
