//! `slipway login` and `slipway logout`.

use crate::registry::{self, Kept, Login, Secret};

use super::Session;
use crate::cli::args::{LoginArgs, LogoutArgs};
use crate::cli::failure::Failure;
use crate::cli::term;

/// Longest password; some are keys in JSON.
const PASSWORD_LIMIT_BYTES: u64 = 1 << 20;

pub(in crate::cli) fn login(args: &LoginArgs, session: &Session) -> Result<(), Failure> {
    let key = registry::server_key(&args.server);
    let host = host_of(&key);
    let sources = session.credentials();
    let client = session.client();
    if args.username.is_none()
        && args.password.is_none()
        && !args.password_stdin
        && let Some(known) = sources.login_for(host)
    {
        term::note(&"Authenticating with existing credentials...");
        match client.try_login(host, &known) {
            Ok(_) => return term::print(&"Login Succeeded\n"),
            Err(error) if !term::input_is_terminal() => return Err(error.into()),
            Err(error) => term::note(&format_args!("{error}")),
        }
    }
    let login = typed(args, host)?;
    let login = client.try_login(host, &login)?;
    if let Kept::File(path) = registry::keep_login(&sources, &args.server, &login)? {
        term::note(&format_args!(
            "WARNING! Your credentials are stored unencrypted in '{}'.\n\
             Configure a credential helper to remove this warning. See\n\
             https://docs.docker.com/go/credential-store/\n",
            path.display()
        ));
    }
    term::print(&"Login Succeeded\n")
}

/// Name and password from flags, standard input or the terminal.
fn typed(args: &LoginArgs, host: &str) -> Result<Login, Failure> {
    let unreadable = |error| Failure::new(format!("cannot read the password: {error}"), None);
    if args.password_stdin && args.username.is_none() {
        return Err(Failure::new("must provide --username with --password-stdin", "add `-u NAME`"));
    }
    let needs_terminal = args.username.is_none() || (args.password.is_none() && !args.password_stdin);
    if needs_terminal && !term::input_is_terminal() {
        return Err(Failure::new(
            "cannot perform an interactive login from a non TTY device",
            "give the password by a pipe: `slipway login -u NAME --password-stdin SERVER < FILE`",
        ));
    }
    let username = match &args.username {
        Some(name) => name.clone(),
        None => term::ask(&format!("Username ({host}): "), false).map_err(unreadable)?,
    };
    let password = match &args.password {
        Some(password) => {
            term::note(&"WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
            password.0.clone()
        }
        None if args.password_stdin => {
            let text = term::read_input(PASSWORD_LIMIT_BYTES).map_err(unreadable)?;
            let text = text.strip_suffix('\n').unwrap_or(&text);
            text.strip_suffix('\r').unwrap_or(text).to_owned()
        }
        None => term::ask("Password: ", true).map_err(unreadable)?,
    };
    if username.is_empty() || password.is_empty() {
        return Err(Failure::new("username and password must not be empty", None));
    }
    Ok(Login::Password { username, password: Secret::new(password) })
}

pub(in crate::cli) fn logout(args: &LogoutArgs, session: &Session) -> Result<(), Failure> {
    let key = registry::server_key(&args.server);
    if registry::erase_login(&session.credentials(), &args.server)? {
        term::print(&format_args!("Removing login credentials for {key}\n"))
    } else {
        term::print(&format_args!("Not logged in to {key}\n"))
    }
}

/// The host of a key, which for Docker Hub is an address.
fn host_of(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}
