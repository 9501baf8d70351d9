//! Logins: against a registry with passwords, token servers that grant and refuse, helpers, and a site's own authority.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use slipway::base::Hint as _;
use slipway::oci::Platform;
use slipway::reference::ImageRef;
use slipway::registry::{Client, ClientOptions, CredentialSources, Login, RegistryError, Secret, pull};
use slipway::store::Store;

use crate::support::registry::{OciImage, Packing, Registry, Reply, WebServer, run};
use crate::support::sandbox::Sandbox;

/// What must never be seen.
const PLANTED: &str = "Planted-Secret-1";
/// Its line in a file of htpasswd, for the user `alice`.
const HTPASSWD: &str = "alice:$2y$05$abcdefghijklmnopqrstuuetkNBKVrOeRvHcN8CV.6KHUUmbuu/5q\n";

fn with_passwords(directory: &Path) -> Registry {
    let file = directory.join("htpasswd");
    std::fs::write(&file, HTPASSWD).unwrap();
    Registry::start_with(&format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display()), "")
}

fn image() -> OciImage {
    OciImage::new("amd64", &[(Packing::Gzip, b"content")])
}

fn push_as_alice(registry: &Registry, image: &OciImage, name: &str) {
    let source = format!("oci:{}:image", image.path().display());
    let target = format!("docker://{}/{name}", registry.host);
    let login = format!("alice:{PLANTED}");
    run("skopeo", &["copy", "--quiet", "--dest-tls-verify=false", "--dest-creds", &login, &source, &target]);
}

fn client(home: &Path) -> Client {
    let env: BTreeMap<OsString, OsString> = [("HOME".into(), home.into())].into();
    Client::new(ClientOptions {
        first_wait: Duration::from_millis(1),
        credentials: CredentialSources::from_env(&env),
        ..ClientOptions::default()
    })
}

fn pull_with(client: &Client, name: &str) -> Result<(), RegistryError> {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let platform = Platform::parse("linux/amd64").unwrap();
    pull(client, &ImageRef::parse(name).unwrap(), &platform, &store, &|_| {}).map(drop)
}

fn put(home: &Path, file: &str, text: &str) {
    let path = home.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// `alice` and the planted secret, as docker keeps them.
fn auth_of_alice() -> &'static str {
    "YWxpY2U6UGxhbnRlZC1TZWNyZXQtMQ=="
}

#[test]
fn a_password_opens_a_registry_and_is_nowhere_seen() {
    need!(registry, tool "skopeo");
    let directory = tempfile::tempdir().unwrap();
    let registry = with_passwords(directory.path());
    push_as_alice(&registry, &image(), "private:1");
    let host = &registry.host;
    let sandbox = Sandbox::new();
    let name = format!("{host}/private:1");
    let mut all = Vec::new();
    let mut note = |output: crate::support::sandbox::Output| {
        all.push(format!("{output}"));
        output
    };

    let refused = note(sandbox.slipway(["pull", &name]).run());
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains(&format!("log in with `slipway login {host}`")), "{refused}");

    let wrong =
        note(sandbox.slipway(["login", "-u", "alice", "--password-stdin", host]).stdin("wrong\n").run());
    assert_eq!(
        (wrong.code, wrong.stderr.lines().next().unwrap()),
        (
            Some(1),
            format!("error: `{host}` gives no access: it does not accept the login of `alice` (401)")
                .as_str()
        )
    );
    assert!(!sandbox.path("home/.docker/config.json").exists());

    let good = note(
        sandbox
            .slipway(["login", "-u", "alice", "--password-stdin", host])
            .stdin(format!("{PLANTED}\n"))
            .run(),
    );
    assert_eq!((good.code, good.stdout.as_str()), (Some(0), "Login Succeeded\n"), "{good}");
    assert!(good.stderr.starts_with(
        "WARNING! Your credentials are stored unencrypted in '[DIR]/home/.docker/config.json'.\n"
    ));
    let file = sandbox.path("home/.docker/config.json");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(auth_of_alice()), "{text}");

    assert_eq!(note(sandbox.slipway(["login", host]).run()).stdout, "Login Succeeded\n");
    // The image itself has no program and is for amd64; only its bytes matter.
    let pulled = note(sandbox.slipway(["pull", "--platform", "linux/amd64", &name]).run());
    assert_eq!(pulled.code, Some(0), "{pulled}");

    // A file that is broken behind the secret.
    let whole = std::fs::read_to_string(&file).unwrap();
    sandbox.write("home/.docker/config.json", &whole[..whole.len() - 3]);
    let broken = note(sandbox.slipway(["pull", &name]).run());
    assert!(broken.stderr.contains("needs a login: the login file"), "{broken}");
    sandbox.write("home/.docker/config.json", &whole);

    let out = note(sandbox.slipway(["logout", host]).run());
    assert_eq!(out.stdout, format!("Removing login credentials for {host}\n"));
    let out = note(sandbox.slipway(["logout", host]).run());
    assert_eq!(out.stdout, format!("Not logged in to {host}\n"));
    let warned = note(sandbox.slipway(["login", "-u", "alice", "-p", PLANTED, host]).run());
    assert!(warned.stderr.starts_with("WARNING! Using --password via the CLI is insecure."), "{warned}");
    for output in &all {
        assert!(!output.contains(PLANTED) && !output.contains(auth_of_alice()), "{output}");
    }
}

#[test]
fn what_a_login_needs_is_said() {
    let sandbox = Sandbox::new();
    for (args, expected) in [
        (&["login", "h"][..], "error: cannot perform an interactive login from a non TTY device"),
        (&["login", "--password-stdin", "h"], "error: must provide --username with --password-stdin"),
        (&["login", "-u", "a", "--password-stdin", "h"], "error: username and password must not be empty"),
    ] {
        let output = sandbox.slipway(args).run();
        assert_eq!((output.code, output.stderr.lines().next()), (Some(1), Some(expected)), "{output}");
    }
}

/// A token server in front of a registry of one image: it wants `authorization`, or a form with a refresh token.
fn guarded(
    image: &OciImage,
    grant: impl Fn(&crate::support::registry::Seen) -> Reply + Send + 'static,
) -> (WebServer, WebServer) {
    let tokens = WebServer::start(grant);
    let realm = format!("http://{}/token", tokens.host);
    let (manifest, config, layer) =
        (image.blob(image.manifest), image.blob(image.config), image.blob(image.layers[0]));
    let (config_path, layer_path) =
        (format!("/v2/x/blobs/{}", image.config), format!("/v2/x/blobs/{}", image.layers[0]));
    let server = WebServer::start(move |request| {
        if request.headers.get("authorization").map(String::as_str) != Some("Bearer granted") {
            let challenge = format!("Bearer realm=\"{realm}\",service=\"s\"");
            return Reply::status(401).with("www-authenticate", &challenge);
        }
        match request.target.as_str() {
            "/v2/" => Reply::ok(b"{}"),
            "/v2/x/manifests/tag" => Reply::ok(&manifest),
            target if target == config_path => Reply::ok(&config),
            target if target == layer_path => Reply::ok(&layer),
            _ => Reply::status(404),
        }
    });
    (server, tokens)
}

fn granted() -> Reply {
    Reply::ok(br#"{"token":"granted"}"#)
}

#[test]
fn a_token_server_sees_the_password_and_the_registry_does_not() {
    let image = image();
    let basic = format!("Basic {}", auth_of_alice());
    let (server, tokens) = guarded(&image, move |request| {
        if request.headers.get("authorization") == Some(&basic) { granted() } else { Reply::status(401) }
    });
    let home = tempfile::tempdir().unwrap();
    let name = format!("{}/x:tag", server.host);
    let anonymous = pull_with(&client(home.path()), &name).unwrap_err();
    assert!(anonymous.hint().unwrap().contains("slipway login"), "{anonymous}");
    put(
        home.path(),
        ".config/containers/auth.json",
        &format!(r#"{{"auths":{{"{}/x":{{"auth":"{}"}}}}}}"#, server.host, auth_of_alice()),
    );
    pull_with(&client(home.path()), &name).unwrap();
    assert_eq!(tokens.seen().last().unwrap().target, "/token?service=s&scope=repository%3Ax%3Apull");
    for seen in server.seen() {
        assert!(seen.headers.get("authorization").is_none_or(|value| value == "Bearer granted"));
    }
    put(
        home.path(),
        ".config/containers/auth.json",
        &format!(r#"{{"auths":{{"{}":{{"auth":"bm9ib2R5Ong="}}}}}}"#, server.host),
    );
    assert_eq!(
        pull_with(&client(home.path()), &name).unwrap_err().to_string(),
        format!(
            "`{}` gives no access to `x`: it does not exist there, or the login of `nobody` does not allow it (401)",
            tokens.host
        )
    );
}

#[test]
fn an_identity_token_goes_in_a_form_and_else_as_a_password() {
    for knows_forms in [true, false] {
        let image = image();
        let (server, tokens) = guarded(&image, move |request| match request.method.as_str() {
            "POST" if !knows_forms => Reply::status(404),
            "POST" => {
                let form = String::from_utf8(request.body.clone()).unwrap();
                let expected = "grant_type=refresh_token&client_id=docker&service=s&scope=repository%3Ax%3Apull&refresh_token=Planted-Secret-1";
                if form == expected {
                    Reply::ok(br#"{"access_token":"granted"}"#)
                } else {
                    Reply::status(400)
                }
            }
            // `<token>` and the token.
            _ if request
                .headers
                .get("authorization")
                .is_some_and(|value| value == "Basic PHRva2VuPjpQbGFudGVkLVNlY3JldC0x") =>
            {
                granted()
            }
            _ => Reply::status(401),
        });
        let home = tempfile::tempdir().unwrap();
        put(
            home.path(),
            ".docker/config.json",
            &format!(r#"{{"auths":{{"{}":{{"identitytoken":"{PLANTED}"}}}}}}"#, server.host),
        );
        pull_with(&client(home.path()), &format!("{}/x:tag", server.host)).unwrap();
        let methods: Vec<String> = tokens.seen().into_iter().map(|seen| seen.method).collect();
        assert_eq!(methods, if knows_forms { vec!["POST"] } else { vec!["POST", "GET"] });
        for seen in tokens.seen() {
            assert!(!seen.target.contains(PLANTED), "{seen:?}");
        }
    }
}

#[test]
fn a_login_keeps_the_refresh_token_that_the_server_gives() {
    let (server, tokens) = guarded(&image(), |request| {
        if request.headers.contains_key("authorization") {
            Reply::ok(br#"{"token":"granted","refresh_token":"better"}"#)
        } else {
            Reply::status(401)
        }
    });
    let home = tempfile::tempdir().unwrap();
    let login = Login::Password { username: "alice".into(), password: Secret::new(PLANTED) };
    let kept = client(home.path()).try_login(&server.host, &login).unwrap();
    assert_eq!(kept, Login::Identity { username: "alice".into(), token: Secret::new("better") });
    assert_eq!(tokens.seen()[0].target, "/token?account=alice&client_id=docker&offline_token=true&service=s");
}

/// A helper of the test: it notes its arguments and input.
fn write_helper(sandbox: &Sandbox, get: &str) {
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {0}/helper.args\ncase $1 in\nget) {get};;\nstore) cat > {0}/helper.stored;;\nerase) cat >/dev/null;;\nesac\n",
        sandbox.path("home").display()
    );
    let path = sandbox.write("bin/docker-credential-test", script);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn helpers_are_asked_by_pipes() {
    need!(registry, tool "skopeo");
    let directory = tempfile::tempdir().unwrap();
    let registry = with_passwords(directory.path());
    push_as_alice(&registry, &image(), "private:1");
    let sandbox = Sandbox::new();
    let host = &registry.host;
    let name = format!("{host}/private:1");
    let path = format!("{}:{}", sandbox.path("bin").display(), crate::support::sandbox::PATH);
    sandbox.make_directory("home/.docker");
    sandbox.write("home/.docker/config.json", r#"{"credsStore":"test","proxies":{"a":"b"}}"#);

    write_helper(
        &sandbox,
        &format!("cat >/dev/null; echo '{{\"Username\":\"alice\",\"Secret\":\"{PLANTED}\"}}'"),
    );
    let pulled = sandbox.slipway(["pull", "-q", "--platform", "linux/amd64", &name]).env("PATH", &path).run();
    assert_eq!(pulled.code, Some(0), "{pulled}");
    let login = sandbox
        .slipway(["login", "-u", "alice", "--password-stdin", host])
        .stdin(PLANTED)
        .env("PATH", &path)
        .run();
    assert_eq!((login.code, login.stderr.as_str()), (Some(0), ""), "{login}");
    assert_eq!(
        std::fs::read_to_string(sandbox.path("home/helper.stored")).unwrap(),
        format!(r#"{{"ServerURL":"{host}","Username":"alice","Secret":"{PLANTED}"}}"#)
    );
    let file = std::fs::read_to_string(sandbox.path("home/.docker/config.json")).unwrap();
    assert!(!file.contains(PLANTED) && !file.contains(auth_of_alice()) && file.contains("proxies"), "{file}");
    let args = std::fs::read_to_string(sandbox.path("home/helper.args")).unwrap();
    assert!(args.starts_with("get\n") && args.ends_with("store\n") && !args.contains(PLANTED), "{args}");

    // One that knows nothing is no trouble, one that fails is named where nobody gets in without a login.
    write_helper(&sandbox, "echo 'credentials not found in native keychain'; exit 1");
    let refused = sandbox.slipway(["pull", &name]).env("PATH", &path).run();
    assert!(refused.stderr.contains("gives no access to `private`"), "{refused}");
    write_helper(&sandbox, "echo 'the vault is sealed'; exit 1");
    let refused = sandbox.slipway(["pull", &name]).env("PATH", &path).run();
    assert_eq!(
        refused.stderr.lines().find(|line| line.starts_with("error: ")).unwrap(),
        format!(
            "error: `{host}` needs a login: the helper `docker-credential-test` failed to get the login for `{host}`: the vault is sealed"
        )
    );
    std::fs::remove_file(sandbox.path("bin/docker-credential-test")).unwrap();
    let refused = sandbox.slipway(["pull", &name]).env("PATH", &path).run();
    assert!(refused.stderr.contains("`docker-credential-test`, which cannot be started"), "{refused}");
}

/// A registry with TLS of an authority of the test's own, whose certificate is returned.
fn with_tls(directory: &Path) -> (Registry, String) {
    let at = |name: &str| directory.join(name).display().to_string();
    std::fs::write(directory.join("ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let authority = ["req", "-x509", "-days", "2", "-subj", "/CN=authority of the test"];
    let (ca, ca_key, cert, cert_key, request) =
        (at("ca.crt"), at("ca.key"), at("cert"), at("key"), at("request"));
    run("openssl", &[&authority[..], &key, &["-keyout", &ca_key, "-out", &ca]].concat());
    run(
        "openssl",
        &[&["req", "-subj", "/CN=registry"][..], &key, &["-keyout", &cert_key, "-out", &request]].concat(),
    );
    run(
        "openssl",
        &[
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            &request,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
            "-out",
            &cert,
            "-extfile",
            &at("ext"),
        ],
    );
    let registry =
        Registry::start_with("", &format!("  tls:\n    certificate: {cert}\n    key: {cert_key}\n"));
    (registry, std::fs::read_to_string(ca).unwrap())
}

#[test]
fn a_sites_own_authority_is_trusted_where_it_is_named() {
    need!(registry, tool "skopeo", tool "openssl");
    let directory = tempfile::tempdir().unwrap();
    let (registry, ca) = with_tls(directory.path());
    registry.push(&image(), "tls:1");
    let sandbox = Sandbox::new();
    let name = format!("{}/tls:1", registry.host);
    let place = format!("home/.config/containers/certs.d/{}", registry.host);
    sandbox.make_directory(&place);
    let pull = || sandbox.slipway(["pull", "-q", "--platform", "linux/amd64", &name]);

    let unknown = pull().run();
    assert!(unknown.stderr.contains("no secure connection: "), "{unknown}");
    assert!(unknown.stderr.contains("point SSL_CERT_FILE"), "{unknown}");
    let bundle = sandbox.write("home/bundle.pem", &ca);
    assert_eq!(pull().env("SSL_CERT_FILE", &bundle).run().code, Some(0));
    let missing = pull().env("SSL_CERT_FILE", "/nonexistent").run();
    assert!(missing.stderr.contains("cannot read `/nonexistent`"), "{missing}");
    sandbox.write(&format!("{place}/ca.crt"), &ca);
    std::fs::remove_dir_all(sandbox.path("home/.local")).unwrap();
    let pulled = pull().run();
    assert_eq!(pulled.code, Some(0), "{pulled}");
}
