use proptest::prelude::*;

use super::*;
use crate::base::Hint as _;
use crate::base::digest::DigestError;

const HEX: &str = "a9561eb1b190625c9adb5a9513e72c4dedafc1cb2d4c5236c9a6957ec7dfd5a9";

fn canonical(text: &str) -> String {
    ImageRef::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
}

#[test]
fn normalises_as_docker_does() {
    let pinned = format!("continuumio/anaconda3:2020.11@sha256:{HEX}");
    for (text, expected) in [
        ("python", "docker.io/library/python:latest"),
        ("python:3.12", "docker.io/library/python:3.12"),
        ("library/python", "docker.io/library/python:latest"),
        ("docker.io/python", "docker.io/library/python:latest"),
        ("index.docker.io/python", "docker.io/library/python:latest"),
        ("docker://python:3.12", "docker.io/library/python:3.12"),
        ("bitnami/redis", "docker.io/bitnami/redis:latest"),
        ("docker.io/a/b/c", "docker.io/a/b/c:latest"),
        ("nvcr.io/nvidia/pytorch:25.01-py3", "nvcr.io/nvidia/pytorch:25.01-py3"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x/y:t", "localhost:5000/x/y:t"),
        ("localhost", "docker.io/library/localhost:latest"),
        ("example.com", "docker.io/library/example.com:latest"),
        ("test.com:5000", "docker.io/library/test.com:5000"),
        ("test:5000/uri", "test:5000/uri:latest"),
        ("test:5000/uri:tag", "test:5000/uri:tag"),
        ("Foo/bar", "Foo/bar:latest"),
        ("LOCALDOMAIN/x", "LOCALDOMAIN/x:latest"),
        ("xn--n3h.com/repo:18080", "xn--n3h.com/repo:18080"),
        ("127.0.0.1:443/x", "127.0.0.1:443/x:latest"),
        ("[::1]:5000/repo", "[::1]:5000/repo:latest"),
        ("[2001:db8::1]/repo", "[2001:db8::1]/repo:latest"),
        ("a_b/c__d/e---f", "docker.io/a_b/c__d/e---f:latest"),
        ("foo.bar/x:_TAG.1-2", "foo.bar/x:_TAG.1-2"),
        ("a1.b-c_d", "docker.io/library/a1.b-c_d:latest"),
        (&format!("docker.io/library/{HEX}"), &format!("docker.io/library/{HEX}:latest")),
        (&format!("{HEX}:tag"), &format!("docker.io/library/{HEX}:tag")),
        (&format!("python@sha256:{HEX}"), &format!("docker.io/library/python@sha256:{HEX}")),
        (&pinned, &format!("docker.io/{pinned}")),
    ] {
        assert_eq!(canonical(text), expected, "{text}");
        assert_eq!(canonical(expected), expected, "{expected}");
    }
}

#[test]
fn prints_the_familiar_form() {
    for (text, expected) in [
        ("docker.io/library/python:3.12", "python:3.12"),
        ("bitnami/redis", "bitnami/redis:latest"),
        ("docker.io/library/a/b", "library/a/b:latest"),
        ("nvcr.io/nvidia/cuda:12", "nvcr.io/nvidia/cuda:12"),
        ("docker.io/localhost/x:1", "docker.io/localhost/x:1"),
        ("docker.io/foo.com/x", "docker.io/foo.com/x:latest"),
        ("docker.io/docker.io/x", "docker.io/docker.io/x:latest"),
    ] {
        assert_eq!(ImageRef::parse(text).unwrap().familiar(), expected, "{text}");
    }
    let by_digest = format!("docker.io/library/{HEX}@sha256:{HEX}");
    assert_eq!(ImageRef::parse(&by_digest).unwrap().familiar(), format!("{HEX}@sha256:{HEX}"));
}

#[test]
fn says_what_is_wrong() {
    for (text, expected) in [
        ("", "`` is not an image name"),
        ("docker://", "`docker://` is not an image name"),
        ("https://ghcr.io/a/b", "`https://ghcr.io/a/b` is not an image name: it begins with `https://`"),
        ("docker://docker://a", "`docker://docker://a` is not an image name: it begins with `docker://`"),
        ("Python", "`Python` is not an image name: the repository must be lower case"),
        ("ghcr.io/Owner/x:T", "`ghcr.io/Owner/x:T` is not an image name: the repository must be lower case"),
        ("a:b:c", "tag `b:c` may hold only letters"),
        ("a:", "tag `` may hold only letters"),
        ("a:-b", "tag `-b` may hold only letters"),
        ("a:\u{e4}", "tag `\u{e4}` may hold only letters"),
        ("host.com/b:c/d", "tag `c/d` may hold only letters"),
        ("-a", "`-a` is not lower-case letters"),
        (HEX, &format!("`{HEX}` is an image ID, not an image name")),
        ("a@sha256:00", "`sha256:00` is not a digest"),
        ("a@sha512:00", "digest algorithm `sha512` is not supported"),
        ("a@", "`` is not a digest"),
        ("-host.com/a", "`-host.com` is not a registry host"),
        ("a.-b/c", "`a.-b` is not a registry host"),
        ("host:port/c", "`host:port` is not a registry host"),
        ("host.com:70000/c", "`host.com:70000` is not a registry host"),
        ("host.com:/c", "`host.com:` is not a registry host"),
        ("[::1/c", "`[::1` is not a registry host"),
        ("[fe80::1%25en0]/c", "`[fe80::1%25en0]` is not a registry host"),
        ("[::ffff:1.2.3.4]/c", "is not a registry host"),
        ("[:::]/c", "`[:::]` is not a registry host"),
        ("\u{e4}.com/a", "is not a registry host"),
    ] {
        let error = ImageRef::parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    for text in [
        "a//b",
        "/a",
        "a/",
        "a/b/",
        "a..b",
        "a._b",
        "a___b",
        "a.",
        "_a",
        "a b",
        " a",
        "a\n",
        "host.com/-a",
        "ä",
    ] {
        assert!(matches!(ImageRef::parse(text), Err(ReferenceError::Component { .. })), "{text:?}");
    }
}

#[test]
fn limits_lengths() {
    let path = |bytes: usize| format!("host.com/{}", "a".repeat(bytes));
    assert!(ImageRef::parse(&path(255)).is_ok());
    assert_eq!(
        ImageRef::parse(&path(256)),
        Err(ReferenceError::TooLong { what: "repository", length: 256, limit: 255 })
    );
    assert!(ImageRef::parse(&"a".repeat(247)).is_ok(), "library/ counts");
    assert!(ImageRef::parse(&"a".repeat(248)).is_err(), "library/ counts");
    assert!(ImageRef::parse(&format!("a:{}", "t".repeat(128))).is_ok());
    assert!(ImageRef::parse(&format!("a:{}", "t".repeat(129))).is_err());
    assert!(ImageRef::parse(&format!("{}.com/a", "h".repeat(300))).is_err());
}

#[test]
fn hints_say_what_to_write() {
    let hint = |text: &str| ImageRef::parse(text).unwrap_err().hint().unwrap_or_default();
    assert_eq!(hint("https://ghcr.io/a/b/"), "write `ghcr.io/a/b` without the scheme");
    assert_eq!(hint("Python:Tag"), "write `python:Tag`");
    assert_eq!(hint("ghcr.io/Owner/Repo:Tag"), "write `ghcr.io/owner/repo:Tag`");
    assert_eq!(hint("a@sha512:00"), "name the image by its sha256 digest or by a tag");
}

#[test]
fn answers_for_the_registry() {
    let digest: Digest = format!("sha256:{HEX}").parse().unwrap();
    let image = ImageRef::parse("ghcr.io/a/b:1").unwrap();
    assert_eq!((image.registry_host(), image.manifest_reference().as_str()), ("ghcr.io", "1"));
    let pinned = image.with_digest(digest);
    assert_eq!(pinned.to_string(), format!("ghcr.io/a/b:1@sha256:{HEX}"));
    assert_eq!(pinned.manifest_reference(), digest.to_string());
    assert_eq!(pinned.repository(), "ghcr.io/a/b");
    assert!(matches!(
        ImageRef::parse("a@md5:00"),
        Err(ReferenceError::Digest { source: DigestError::Algorithm { .. }, .. })
    ));
}

/// Names by the grammar itself, domain and all.
fn any_name() -> impl Strategy<Value = String> {
    let domain = prop_oneof![
        Just(String::new()),
        "[a-zA-Z0-9]{1,8}\\.[a-z]{2,3}/",
        "localhost:[1-9][0-9]{0,3}/",
        "[A-Z][a-z]{0,3}/",
        Just("[2001:db8::1]:5000/".to_owned()),
    ];
    let path = "[a-z0-9]{1,6}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,5}){0,3}";
    let tag = prop_oneof![Just(String::new()), ":[A-Za-z0-9_][A-Za-z0-9_.-]{0,12}"];
    let digest = prop_oneof![Just(String::new()), "@sha256:[0-9a-f]{64}"];
    (domain, path, tag, digest).prop_map(|(domain, path, tag, digest)| format!("{domain}{path}{tag}{digest}"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_printed_form_parses_to_the_same(name in any_name()) {
        let parsed = ImageRef::parse(&name);
        // Only a first part that looks like a domain and is none may be refused: `a.a_a/a`.
        prop_assume!(!matches!(parsed, Err(ReferenceError::Domain { .. })));
        let image = parsed.unwrap();
        prop_assert_eq!(ImageRef::parse(&image.to_string()), Ok(image.clone()));
        prop_assert_eq!(ImageRef::parse(&image.familiar()), Ok(image));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,80}") {
        if let Ok(image) = ImageRef::parse(&text) {
            prop_assert_eq!(ImageRef::parse(&image.to_string()), Ok(image));
        } else if let Err(error) = ImageRef::parse(&text) {
            let _shown = (error.to_string(), error.hint());
        }
    }
}
