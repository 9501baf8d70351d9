//! Login files of all kinds, in a directory of the test.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, text: &str) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn sources(&self, more: &[(&str, &str)]) -> CredentialSources {
        let mut env: BTreeMap<OsString, OsString> =
            more.iter().map(|(name, value)| (name.into(), value.into())).collect();
        env.insert("HOME".into(), self.0.path().into());
        CredentialSources::from_env(&env)
    }

    fn find(&self, host: &str, repository: &str) -> String {
        shown(&self.sources(&[]).find(host, repository))
    }
}

fn shown(found: &Found) -> String {
    let login = match &found.login {
        None => "nobody".into(),
        Some(Login::Password { username, password }) => format!("{username}:{}", password.expose()),
        Some(Login::Identity { username, token }) => format!("{username} identity {}", token.expose()),
        Some(Login::Bearer { token }) => format!("bearer {}", token.expose()),
    };
    match &found.trouble {
        None => login,
        Some(trouble) => format!("{login}; {trouble}"),
    }
}

fn auth(pair: &str) -> String {
    format!(r#"{{"auth":"{}"}}"#, base64::encode(pair.as_bytes()))
}

#[test]
fn entries_are_found_by_host_address_and_prefix() {
    let home = Home::new();
    home.put(
        ".docker/config.json",
        &format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{},"https://old.example/v1/":{},"h:5000":{},"h:5000/team/deep":{},"id":{{"auth":"{}","identitytoken":"t"}},"reg":{{"registrytoken":"r"}},"plain":{{"username":"u","password":"p"}},"empty":{{}}}}}}"#,
            auth("hub:1"),
            auth("old:2"),
            auth("wide:3"),
            auth("deep:4"),
            base64::encode(b"00000000-0000-0000-0000-000000000000:")
        ),
    );
    for (host, repository, expected) in [
        ("registry-1.docker.io", "library/python", "hub:1"),
        ("old.example", "x", "old:2"),
        ("h:5000", "x/y", "wide:3"),
        ("h:5000", "team/deep/z", "deep:4"),
        ("h:5000", "team/deeper", "wide:3"),
        ("h", "x", "nobody"),
        ("id", "x", "00000000-0000-0000-0000-000000000000 identity t"),
        ("reg", "x", "bearer r"),
        ("plain", "x", "u:p"),
        ("empty", "x", "nobody"),
    ] {
        assert_eq!(home.find(host, repository), expected, "{host}/{repository}");
    }
}

#[test]
fn places_are_asked_in_order() {
    let home = Home::new();
    let file = |pair: &str| format!(r#"{{"auths":{{"h":{}}}}}"#, auth(pair));
    home.put(
        ".config/enroot/.credentials",
        "machine other login a password b\nmachine h\n  login $oauthtoken\n  password key",
    );
    assert_eq!(home.find("h", "x"), "$oauthtoken:key");
    home.put("run/containers/auth.json", &file("podman:run"));
    let run = home.path("run").display().to_string();
    assert_eq!(shown(&home.sources(&[("XDG_RUNTIME_DIR", &run)]).find("h", "x")), "podman:run");
    home.put(".config/containers/auth.json", &file("podman:1"));
    assert_eq!(shown(&home.sources(&[("XDG_RUNTIME_DIR", &run)]).find("h", "x")), "podman:1");
    home.put(".docker/config.json", &file("docker:1"));
    assert_eq!(home.find("h", "x"), "docker:1");
    home.put("else/config.json", &file("moved:1"));
    let moved = home.path("else").display().to_string();
    assert_eq!(shown(&home.sources(&[("DOCKER_CONFIG", &moved)]).find("h", "x")), "moved:1");
    home.put("explicit.json", &file("explicit:1"));
    let explicit = home.path("explicit.json").display().to_string();
    assert_eq!(shown(&home.sources(&[("REGISTRY_AUTH_FILE", &explicit)]).find("h", "x")), "explicit:1");
    let inline = [("DOCKER_AUTH_CONFIG", file("inline:1")), ("REGISTRY_AUTH_FILE", explicit)];
    let inline: Vec<(&str, &str)> = inline.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(shown(&home.sources(&inline).find("h", "x")), "inline:1");
}

/// Planted secrets are in no message, whatever is wrong with the file.
#[test]
fn what_is_wrong_is_said_without_secrets() {
    let home = Home::new();
    let path = home.path(".docker/config.json").display().to_string();
    for (text, expected) in [
        (
            "{\"auths\": {\"h\": {\"auth\": \"PLANTED",
            "the login file `PATH` is not valid: no JSON at line 1, column 33",
        ),
        ("[\"PLANTED\"]", "the login file `PATH` is not valid: it is no JSON object"),
        (
            r#"{"auths":{"h":{"auth":"PLANTED!"}}}"#,
            "the login for `h` in `PATH` is not valid: `auth` is no base64",
        ),
        (
            r#"{"auths":{"h":{"auth":"UExBTlRFRA=="}}}"#,
            "the login for `h` in `PATH` is not valid: `auth` has no colon between name and password",
        ),
        (
            r#"{"auths":{"h":{"auth":"OlBMQU5URUQ="}}}"#,
            "the login for `h` in `PATH` is not valid: `auth` has no user name",
        ),
    ] {
        home.put(".docker/config.json", text);
        assert_eq!(home.find("h", "x").replace(&path, "PATH"), format!("nobody; {expected}"));
    }
    home.put(".docker/config.json", &format!(r#"{{"auths":{{"h":{}}}}}"#, auth("u:PLANTED")));
    let sources = home.sources(&[("DOCKER_AUTH_CONFIG", "PLANTED")]);
    let debug = format!("{sources:?} {:?}", sources.find("h", "x"));
    assert!(!debug.contains("PLANTED") && debug.contains("Secret(…)"), "{debug}");
    home.put(".docker/config.json", "{}");
    home.put(".config/enroot/.credentials", "machine h login u password $(PLANTED)");
    let words = home.find("h", "x");
    assert!(words.contains("shell command") && !words.contains("PLANTED"), "{words}");
}

#[test]
fn a_login_is_kept_beside_what_is_unknown() {
    let home = Home::new();
    home.put(
        "real/config.json",
        "{\"HttpHeaders\":{\"X\":\"y\"},\"unknown\":[1],\"auths\":{\"other\":{\"auth\":\"bzpw\"}}}",
    );
    fs::create_dir_all(home.path(".docker")).unwrap();
    std::os::unix::fs::symlink("../real/config.json", home.path(".docker/config.json")).unwrap();
    let sources = home.sources(&[]);
    let login = Login::Password { username: "u".into(), password: Secret::new("p:q") };
    assert_eq!(keep_login(&sources, "h:5000", &login).unwrap(), Kept::File(home.path(".docker/config.json")));
    assert!(home.path(".docker/config.json").is_symlink());
    let mode = fs::metadata(home.path("real/config.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(
        fs::read_to_string(home.path("real/config.json")).unwrap(),
        "{\n\t\"HttpHeaders\": {\n\t\t\"X\": \"y\"\n\t},\n\t\"auths\": {\n\t\t\"h:5000\": {\n\t\t\t\"auth\": \"dTpwOnE=\"\n\t\t},\n\t\t\"other\": {\n\t\t\t\"auth\": \"bzpw\"\n\t\t}\n\t},\n\t\"unknown\": [\n\t\t1\n\t]\n}"
    );
    assert_eq!(home.find("h:5000", "x"), "u:p:q");
    let identity = Login::Identity { username: "u".into(), token: Secret::new("t") };
    keep_login(&sources, "docker.io", &identity).unwrap();
    assert_eq!(home.find("registry-1.docker.io", "x"), "u identity t");
    assert!(erase_login(&sources, "h:5000").unwrap() && !erase_login(&sources, "h:5000").unwrap());
    assert!(erase_login(&sources, "").unwrap());
    assert_eq!((home.find("h:5000", "x"), home.find("other", "x")), ("nobody".into(), "o:p".into()));
    assert_eq!(fs::read_dir(home.path("real")).unwrap().count(), 1);
}

#[test]
fn a_helper_that_is_not_there_is_trouble_only() {
    let home = Home::new();
    home.put(
        ".docker/config.json",
        &format!(r#"{{"credsStore":"no-such-helper","auths":{{"h":{}}}}}"#, auth("u:p")),
    );
    let words = home.find("h", "x");
    assert!(
        words.starts_with("nobody; the login for `h` is with the helper `docker-credential-no-such-helper`, which cannot be started"),
        "{words}"
    );
    home.put(".docker/config.json", r#"{"credHelpers":{"h":"../../bin/sh"}}"#);
    assert!(home.find("h", "x").contains("its name holds a slash"));
}

#[test]
fn servers_have_one_key() {
    for (server, expected) in [
        ("", "https://index.docker.io/v1/"),
        ("docker.io", "https://index.docker.io/v1/"),
        ("https://index.docker.io/v1/", "https://index.docker.io/v1/"),
        ("https://h:5000/v2/", "h:5000"),
        ("nvcr.io", "nvcr.io"),
    ] {
        assert_eq!(server_key(server), expected, "{server}");
    }
}
