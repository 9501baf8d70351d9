//! Tokens: a registry answers 401 and names a token server; that gives a bearer token for one repository.
//!
//! Tokens are never shown: they have no `Debug`, and no error carries one.

use std::collections::HashMap;
use std::fmt;
use std::io::Read as _;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

use super::challenge::Challenge;
use super::client::{Client, Refused, challenges, refusal};
use super::credentials::{Found, Login, Secret, base64_encode};
use super::error::RegistryError;
use super::transport::{Body, Method, Response};
use super::url::{Url, escaped, host_of, is_private_literal};

/// Largest answer of a token server, in bytes.
const MAX_TOKEN_BYTES: u64 = 1 << 20;
/// Who we are to an OAuth2 token server. Some know only this name.
const CLIENT_ID: &str = "docker";

/// What a token must allow at a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access<'a> {
    /// Host and port of the registry.
    pub(super) host: &'a str,
    /// The repository; empty for a login, which needs none.
    pub(super) repository: &'a str,
    /// Whether it is written to.
    pub(super) push: bool,
    /// Another repository, blobs of which are mounted.
    pub(super) from: Option<&'a str>,
}

impl<'a> Access<'a> {
    pub(super) fn pull(host: &'a str, repository: &'a str) -> Self {
        Self { host, repository, push: false, from: None }
    }

    fn scopes(&self) -> Vec<String> {
        let mut scopes = Vec::new();
        if !self.repository.is_empty() {
            let actions = if self.push { "pull,push" } else { "pull" };
            scopes.push(format!("repository:{}:{actions}", self.repository));
        }
        scopes.extend(self.from.map(|from| format!("repository:{from}:pull")));
        scopes
    }

    fn key(&self) -> (String, String) {
        (self.host.to_owned(), self.scopes().join(" "))
    }
}

/// The tokens of this process, by registry and scopes, as `Authorization` values.
#[derive(Default)]
pub(super) struct Tokens(Mutex<HashMap<(String, String), Token>>);

#[derive(Clone)]
struct Token {
    authorization: String,
    /// Whose it is.
    user: Option<String>,
}

impl Tokens {
    pub(super) fn get(&self, access: &Access<'_>) -> Option<String> {
        self.find(access).map(|token| token.authorization)
    }

    /// A refusal, with the user who was refused.
    pub(super) fn with_user(&self, error: RegistryError, access: &Access<'_>) -> RegistryError {
        match error {
            RegistryError::Denied { host, repository, status, message, user: None } => {
                let user = self.find(access).and_then(|token| token.user);
                RegistryError::Denied { host, repository, status, message, user }
            }
            error => error,
        }
    }

    fn find(&self, access: &Access<'_>) -> Option<Token> {
        // A panic elsewhere leaves the map whole: it is only read and inserted into.
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(&access.key()).cloned()
    }

    fn insert(&self, access: &Access<'_>, token: Token) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(access.key(), token);
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
    #[serde(default)]
    refresh_token: Option<String>,
}

/// A token, and perhaps one that is good for further ones.
pub(super) struct Granted {
    token: String,
    pub(super) refresh: Option<Secret>,
}

impl Client {
    /// Answers a challenge: fetches a token, keeps it, and returns the `Authorization` value.
    pub(super) fn authorize(
        &self,
        access: &Access<'_>,
        registry: &Url,
        challenged: &Response,
    ) -> Result<String, RegistryError> {
        let Found { login, trouble } = self.options.credentials.find(access.host, access.repository);
        let answered = self.answer(access, registry, challenged, login.as_ref());
        let authorization = match (answered, trouble) {
            // Nobody was let in, and somebody's login could not be read: that is the thing to say.
            (Err(RegistryError::Denied { .. }), Some(source)) if login.is_none() => {
                return Err(RegistryError::Credentials { host: access.host.into(), source });
            }
            (answered, _) => answered?,
        };
        let user = login.as_ref().map(|login| login.username().unwrap_or("<token>").to_owned());
        self.tokens.insert(access, Token { authorization: authorization.clone(), user });
        Ok(authorization)
    }

    fn answer(
        &self,
        access: &Access<'_>,
        registry: &Url,
        challenged: &Response,
        login: Option<&Login>,
    ) -> Result<String, RegistryError> {
        if let Some(Login::Bearer { token }) = login {
            return Ok(format!("Bearer {}", token.expose()));
        }
        let challenges = challenges(challenged);
        let bearer = challenges.iter().find(|one| one.scheme == "bearer" && one.get("realm").is_some());
        if let Some(bearer) = bearer {
            let granted = self.fetch_token(access, registry, bearer, login, false)?;
            return Ok(granted.authorization());
        }
        match login {
            Some(Login::Password { username, password })
                if challenges.iter().any(|one| one.scheme == "basic") && self.may_see_password(registry) =>
            {
                Ok(basic(username, password))
            }
            // A registry that knows only passwords lets nobody in without one.
            _ => Err(denied(access, access.host, challenged.status, login)),
        }
    }

    /// Passwords cross no wire in the clear but to this machine and where the configuration says so.
    fn may_see_password(&self, url: &Url) -> bool {
        url.is_https() || self.is_plain_http(url.authority())
    }

    /// A token for a challenge. With `offline`, one for further tokens is asked for too.
    pub(super) fn fetch_token(
        &self,
        access: &Access<'_>,
        registry: &Url,
        bearer: &Challenge,
        login: Option<&Login>,
        offline: bool,
    ) -> Result<Granted, RegistryError> {
        let realm = self.check_realm(access, registry, bearer.get("realm").unwrap_or_default())?;
        let mut scopes = access.scopes();
        // Some servers look only at the first scope, so the one that is needed comes first. A refresh token must not be
        // asked for more than that.
        if !access.repository.is_empty()
            && let Some(asked) = bearer.get("scope").map(str::to_owned)
            && !scopes.contains(&asked)
            && !matches!(login, Some(Login::Identity { .. }))
        {
            scopes.push(asked);
        }
        let service = bearer.get("service");
        let credentials = match login {
            Some(Login::Identity { username, token }) => {
                if let Some(granted) = self.refresh(access, &realm, service, &scopes, token)? {
                    return Ok(granted);
                }
                let username = if username.is_empty() { "<token>" } else { username };
                Some(basic(username, token))
            }
            Some(Login::Password { username, password }) => Some(basic(username, password)),
            _ => None,
        };
        let mut query = Vec::new();
        if offline {
            query.extend(login.and_then(Login::username).map(|name| ("account", name)));
            query.push(("client_id", CLIENT_ID));
            query.push(("offline_token", "true"));
        }
        query.extend(service.map(|service| ("service", service)));
        query.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
        let url = realm.with_query(&query);
        let headers: Vec<(&str, &str)> =
            credentials.as_deref().map(|value| ("authorization", value)).into_iter().collect();
        let response = self
            .transport
            .send(Method::Get, &url, &headers, Body::None)
            .map_err(|why| RegistryError::Unreachable { host: url.authority().into(), why })?;
        self.granted(access, url.authority(), response, login)
    }

    /// OAuth2's way: a refresh token in a form. `None` where the server does not know it.
    fn refresh(
        &self,
        access: &Access<'_>,
        realm: &Url,
        service: Option<&str>,
        scopes: &[String],
        token: &Secret,
    ) -> Result<Option<Granted>, RegistryError> {
        let mut form = format!("grant_type=refresh_token&client_id={CLIENT_ID}");
        let scope = scopes.join(" ");
        for (name, value) in
            [("service", service.unwrap_or_default()), ("scope", &scope), ("refresh_token", token.expose())]
        {
            if !value.is_empty() {
                for part in ["&", name, "=", &escaped(value)] {
                    form.push_str(part);
                }
            }
        }
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let response = self
            .transport
            .send(Method::Post, realm, &headers, Body::Bytes(form.as_bytes()))
            .map_err(|why| RegistryError::Unreachable { host: realm.authority().into(), why })?;
        if matches!(response.status, 404 | 405) {
            return Ok(None);
        }
        let login = Login::Identity { username: String::new(), token: token.clone() };
        self.granted(access, realm.authority(), response, Some(&login)).map(Some)
    }

    /// A registry must not make its clients talk to the site's inner network or give up encryption.
    fn check_realm(&self, access: &Access<'_>, registry: &Url, realm: &str) -> Result<Url, RegistryError> {
        let refuse = |why: &str| RegistryError::Realm { host: access.host.into(), why: why.into() };
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

    fn granted(
        &self,
        access: &Access<'_>,
        host: &str,
        mut response: Response,
        login: Option<&Login>,
    ) -> Result<Granted, RegistryError> {
        match response.status {
            200 => {}
            status @ (400 | 401 | 403 | 404) => return Err(denied(access, host, status, login)),
            _ => {
                let refused = Refused { repository: access.repository, what: "a token", is_blob: false };
                return Err(refusal(&refused, host, &mut response));
            }
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
        let token = token.filter(is_clean).ok_or_else(|| protocol("no token"))?;
        let refresh = answer.refresh_token.filter(|token| !token.is_empty()).map(Secret::new);
        Ok(Granted { token, refresh })
    }
}

impl Granted {
    /// The value of an `Authorization` header.
    pub(super) fn authorization(&self) -> String {
        format!("Bearer {}", self.token)
    }
}

/// The value of an `Authorization` header with name and password.
pub(super) fn basic(username: &str, password: &Secret) -> String {
    format!("Basic {}", base64_encode(format!("{username}:{}", password.expose()).as_bytes()))
}

/// A refusal; the user's name, but nothing else of the login, helps to see why.
pub(super) fn denied(access: &Access<'_>, host: &str, status: u16, login: Option<&Login>) -> RegistryError {
    RegistryError::Denied {
        host: host.to_owned(),
        repository: access.repository.to_owned(),
        status,
        message: String::new(),
        user: login.map(|login| login.username().unwrap_or("<token>").to_owned()),
    }
}
