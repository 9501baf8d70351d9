//! A login tried out: the registry, or its token server, must accept it.

use std::sync::atomic::AtomicBool;

use super::auth::{Access, basic, denied};
use super::client::{Client, Refused, Watch, challenges, refusal};
use super::credentials::Login;
use super::error::RegistryError;
use super::transport::{Body, Method, Response};
use super::url::Url;

/// The host that answers for Docker Hub.
const HUB_HOST: &str = "registry-1.docker.io";

/// Whether a host is one of Docker Hub.
pub(super) fn is_hub(host: &str) -> bool {
    host == "docker.io" || host.ends_with(".docker.io")
}

impl Client {
    /// Shows a login to the registry `host` and returns what should be kept of it: a refresh token, where the token
    /// server gives one, is better than a password.
    pub fn try_login(&self, host: &str, login: &Login) -> Result<Login, RegistryError> {
        let host = if is_hub(host) { HUB_HOST } else { host };
        let access = Access { host, repository: "", push: false, from: None };
        let never = AtomicBool::new(false);
        let watch = Watch { on_bytes: &|_| {}, on_event: &|_| {}, stopped: &never };
        self.retry(&watch, || self.try_once(&access, login))
    }

    fn try_once(&self, access: &Access<'_>, login: &Login) -> Result<Login, RegistryError> {
        let url = self.url(access.host, "/v2/");
        let mut first = self.ping(&url, None)?;
        match first.status {
            // Nobody is asked for a login here.
            200 => return Ok(login.clone()),
            401 => {}
            _ => return Err(self.strange(&url, &mut first)),
        }
        let challenges = challenges(&first);
        let bearer = challenges.iter().find(|one| one.scheme == "bearer" && one.get("realm").is_some());
        let (authorization, kept) = match (bearer, login) {
            (Some(bearer), _) => {
                let granted = self.fetch_token(access, &url, bearer, Some(login), true)?;
                let kept = match (&granted.refresh, login.username()) {
                    (Some(token), Some(username)) => {
                        Login::Identity { username: username.into(), token: token.clone() }
                    }
                    _ => login.clone(),
                };
                (granted.authorization(), kept)
            }
            (None, Login::Password { username, password }) => (basic(username, password), login.clone()),
            (None, _) => return Err(denied(access, access.host, first.status, Some(login))),
        };
        let mut second = self.ping(&url, Some(&authorization))?;
        match second.status {
            200 => Ok(kept),
            401 | 403 => Err(denied(access, access.host, second.status, Some(login))),
            _ => Err(self.strange(&url, &mut second)),
        }
    }

    fn ping(&self, url: &Url, authorization: Option<&str>) -> Result<Response, RegistryError> {
        let headers: Vec<_> = authorization.map(|value| ("authorization", value)).into_iter().collect();
        self.transport
            .send(Method::Get, url, &headers, Body::None)
            .map_err(|why| RegistryError::Unreachable { host: url.authority().into(), why })
    }

    fn strange(&self, url: &Url, response: &mut Response) -> RegistryError {
        let refused = Refused { repository: "", what: "its greeting", is_blob: false };
        refusal(&refused, url.authority(), response)
    }
}
