//! Tokens: a registry answers 401 and names a token server; that gives a bearer token for one repository.
//!
//! Tokens are never shown: they have no `Debug`, and no error carries one.

use std::collections::HashMap;
use std::fmt;
use std::io::Read as _;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

use super::client::{Ask, Client, challenges, refusal};
use super::error::RegistryError;
use super::transport::Response;
use super::url::{Url, host_of, is_private_literal};

/// Largest answer of a token server, in bytes.
const MAX_TOKEN_BYTES: u64 = 1 << 20;

/// What is known of the user at a registry. The place where a login plugs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    /// Nobody.
    Anonymous,
}

/// The credentials for a registry.
fn credentials_for(_host: &str) -> Credentials {
    Credentials::Anonymous
}

/// The tokens of this process, by registry and repository, as `Authorization` values.
#[derive(Default)]
pub(super) struct Tokens(Mutex<HashMap<(String, String), String>>);

impl Tokens {
    pub(super) fn get(&self, host: &str, repository: &str) -> Option<String> {
        // A panic elsewhere leaves the map whole: it is only read and inserted into.
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(&(host.to_owned(), repository.to_owned())).cloned()
    }

    fn insert(&self, host: &str, repository: &str, authorization: String) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert((host.to_owned(), repository.to_owned()), authorization);
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(…)")
    }
}

/// What a token server answers; old ones call it `access_token`.
#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

impl Client {
    /// Answers a challenge: fetches a token, keeps it, and returns the `Authorization` value.
    pub(super) fn authorize(
        &self,
        ask: &Ask<'_>,
        registry: &Url,
        challenged: &Response,
    ) -> Result<String, RegistryError> {
        let Credentials::Anonymous = credentials_for(ask.host);
        let challenges = challenges(challenged);
        let bearer = challenges.iter().find(|one| one.scheme == "bearer");
        let Some((bearer, realm)) = bearer.and_then(|one| Some((one, one.get("realm")?))) else {
            // A registry that knows only passwords lets nobody in without one.
            return Err(denied(ask, ask.host, challenged.status));
        };
        let realm = self.check_realm(ask, registry, realm)?;
        let own_scope = format!("repository:{}:pull", ask.repository);
        let mut query = Vec::new();
        query.extend(bearer.get("service").map(|service| ("service", service)));
        // Some servers look only at the first scope, so the one that is needed comes first.
        query.push(("scope", own_scope.as_str()));
        query.extend(bearer.get("scope").filter(|asked| *asked != own_scope).map(|asked| ("scope", asked)));
        let authorization = format!("Bearer {}", self.fetch_token(ask, &realm.with_query(&query))?);
        self.tokens.insert(ask.host, ask.repository, authorization.clone());
        Ok(authorization)
    }

    /// A registry must not make its clients talk to the site's inner network or give up encryption.
    fn check_realm(&self, ask: &Ask<'_>, registry: &Url, realm: &str) -> Result<Url, RegistryError> {
        let refuse = |why: &str| RegistryError::Realm { host: ask.host.into(), why: why.into() };
        let url = Url::parse(realm).ok_or_else(|| refuse("its address is not an http or https URL"))?;
        let same_host = host_of(url.authority()) == host_of(registry.authority());
        if !url.is_https() && (registry.is_https() || !self.is_plain_http(url.authority())) {
            return Err(refuse(&format!("`{}` is not encrypted", url.origin())));
        }
        if is_private_literal(url.authority()) && !same_host && registry.is_https() {
            return Err(refuse(&format!("`{}` is a private address", url.origin())));
        }
        Ok(url)
    }

    fn fetch_token(&self, ask: &Ask<'_>, url: &Url) -> Result<String, RegistryError> {
        let host = url.authority();
        let mut response = self
            .transport
            .get(url, &[])
            .map_err(|why| RegistryError::Unreachable { host: host.into(), why })?;
        match response.status {
            200 => {}
            status @ (400 | 401 | 403 | 404) => return Err(denied(ask, host, status)),
            _ => return Err(refusal(&Ask { what: "a token", ..*ask }, host, &mut response)),
        }
        let protocol = |found: &str| RegistryError::Protocol {
            host: host.into(),
            what: "a token".into(),
            found: found.into(),
        };
        let mut body = Vec::new();
        response
            .reader()
            .take(MAX_TOKEN_BYTES)
            .read_to_end(&mut body)
            .map_err(|_| protocol("an answer that broke off"))?;
        // The parser's message could quote the token, so it is not shown.
        let answer: TokenAnswer =
            serde_json::from_slice(&body).map_err(|_| protocol("something that is not a token"))?;
        let token = answer.token.filter(|token| !token.is_empty()).or(answer.access_token);
        let is_clean =
            |token: &String| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        token.filter(is_clean).ok_or_else(|| protocol("no token"))
    }
}

fn denied(ask: &Ask<'_>, host: &str, status: u16) -> RegistryError {
    let (host, repository) = (host.to_owned(), ask.repository.to_owned());
    RegistryError::Denied { host, repository, status, message: String::new() }
}
