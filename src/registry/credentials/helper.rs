//! Docker's credential helpers: programs `docker-credential-NAME` that speak JSON over pipes.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use super::{CredentialError, Login, Secret};

/// Most bytes of an answer that are read.
const ANSWER_LIMIT_BYTES: u64 = 1 << 20;
/// Characters of a helper's words that are shown.
const SHOWN_CHARS: usize = 200;
/// What helpers say when they do not know a registry (docker-credential-helpers, `credentials/error.go`).
const NOT_FOUND: [&str; 2] = ["credentials not found in native keychain", "no credentials server URL"];
/// The user name that marks an identity token.
const TOKEN_USER: &str = "<token>";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default, rename = "ServerURL")]
    server_url: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks the helper `name` for a login; `None` if it knows none.
pub(super) fn get(name: &str, server: &str) -> Result<Option<Login>, CredentialError> {
    let (answer, good) = ask(name, "get", server, server.as_bytes())?;
    if !good {
        let words = shown(&answer);
        if NOT_FOUND.iter().any(|known| words.contains(known)) {
            return Ok(None);
        }
        return Err(failed(name, "get", server, words));
    }
    // The answer holds the secret, so nothing of it is shown.
    let answer: Answer = serde_json::from_slice(&answer)
        .map_err(|_| failed(name, "get", server, "its answer is not understood".into()))?;
    if answer.secret.is_empty() {
        return Ok(None);
    }
    let secret = Secret::new(answer.secret);
    Ok(Some(if answer.username == TOKEN_USER {
        Login::Identity { username: String::new(), token: secret }
    } else {
        Login::Password { username: answer.username, password: secret }
    }))
}

/// Gives a login to the helper.
pub(super) fn store(name: &str, server: &str, login: &Login) -> Result<(), CredentialError> {
    let (username, secret) = match login {
        Login::Password { username, password } => (username.as_str(), password),
        Login::Identity { token, .. } | Login::Bearer { token } => (TOKEN_USER, token),
    };
    let request =
        Answer { server_url: server.into(), username: username.into(), secret: secret.expose().into() };
    let request = serde_json::to_vec(&request).expect("three texts are JSON");
    let (answer, good) = ask(name, "store", server, &request)?;
    if good { Ok(()) } else { Err(failed(name, "store", server, without(&shown(&answer), secret))) }
}

/// Makes the helper forget a login; tells whether it had one.
pub(super) fn erase(name: &str, server: &str) -> Result<bool, CredentialError> {
    let (answer, good) = ask(name, "erase", server, server.as_bytes())?;
    let words = shown(&answer);
    match good {
        true => Ok(true),
        false if NOT_FOUND.iter().any(|known| words.contains(known)) => Ok(false),
        false => Err(failed(name, "erase", server, words)),
    }
}

fn program(name: &str) -> String {
    format!("docker-credential-{name}")
}

/// One exchange: what it printed, and whether it succeeded.
fn ask(
    name: &str,
    verb: &'static str,
    server: &str,
    request: &[u8],
) -> Result<(Vec<u8>, bool), CredentialError> {
    let start =
        |source| CredentialError::HelperStart { program: program(name), server: server.into(), source };
    if name.contains('/') {
        // A name, not a path: a file of somebody else must not choose what runs.
        return Err(start(std::io::Error::new(std::io::ErrorKind::InvalidInput, "its name holds a slash")));
    }
    let mut child = Command::new(program(name))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(start)?;
    let answer = talk(&mut child, request);
    let status = child.wait();
    match (answer, status) {
        (Ok(answer), Ok(status)) => Ok((answer, status.success())),
        (Err(error), _) | (_, Err(error)) => Err(failed(name, verb, server, error.to_string())),
    }
}

fn talk(child: &mut Child, request: &[u8]) -> std::io::Result<Vec<u8>> {
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(request) {
            // A helper that has failed already says why on its output.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    let mut answer = Vec::new();
    if let Some(output) = child.stdout.take() {
        output.take(ANSWER_LIMIT_BYTES).read_to_end(&mut answer)?;
    }
    Ok(answer)
}

fn failed(name: &str, verb: &'static str, server: &str, why: String) -> CredentialError {
    let why = if why.is_empty() { "it does not say why".into() } else { why };
    CredentialError::Helper { program: program(name), verb, server: server.into(), why }
}

fn shown(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    text.trim().chars().filter(|c| !c.is_control()).take(SHOWN_CHARS).collect()
}

/// A helper may repeat what it was given.
fn without(words: &str, secret: &Secret) -> String {
    if secret.expose().is_empty() { words.into() } else { words.replace(secret.expose(), "…") }
}
