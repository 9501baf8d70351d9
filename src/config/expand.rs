//! Variables in paths: `~`, `$NAME` and `${NAME}`, so that a site can write `/scratch/$USER/slipway`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Environment;

/// What the base directories of the XDG specification are where the environment does not say.
const XDG_DEFAULTS: [(&str, &str); 2] = [("XDG_DATA_HOME", ".local/share"), ("XDG_CONFIG_HOME", ".config")];

/// Expands a path; the error is the variable that is not set. Paths of the configuration are text.
pub(super) fn path(path: &Path, env: &Environment) -> Result<PathBuf, String> {
    match path.to_str() {
        Some(given) => text(given, env).map(PathBuf::from),
        None => Ok(path.into()),
    }
}

/// Expands a leading `~` and all variables. A dollar before anything else stays.
pub(super) fn text(text: &str, env: &Environment) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    if text == "~" || text.starts_with("~/") {
        out.push_str(&variable("HOME", env)?);
        rest = &text[1..];
    }
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let (name, behind) = match braced {
            Some((name, behind)) => (name, behind),
            None => after.split_at(
                after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len()),
            ),
        };
        if name.is_empty() {
            out.push('$');
            rest = after;
        } else {
            out.push_str(&variable(name, env)?);
            rest = behind;
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn variable(name: &str, env: &Environment) -> Result<String, String> {
    let value =
        env.get(&OsString::from(name)).and_then(|value| value.to_str()).filter(|value| !value.is_empty());
    if let Some(value) = value {
        return Ok(value.to_owned());
    }
    match XDG_DEFAULTS.into_iter().find(|(xdg, _)| *xdg == name) {
        Some((_, below)) => Ok(format!("{}/{below}", variable("HOME", env)?)),
        None => Err(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expands() {
        let env: Environment =
            [("HOME", "/home/u"), ("USER", "u"), ("EMPTY", "")].map(|(n, v)| (n.into(), v.into())).into();
        for (given, expected) in [
            ("/plain", Ok("/plain")),
            ("~", Ok("/home/u")),
            ("~/x", Ok("/home/u/x")),
            ("~other/x", Ok("~other/x")),
            ("/s/$USER/x", Ok("/s/u/x")),
            ("/s/${USER}x", Ok("/s/ux")),
            ("$XDG_DATA_HOME/slipway", Ok("/home/u/.local/share/slipway")),
            ("/a$/b$", Ok("/a$/b$")),
            ("/a${USER", Ok("/a${USER")),
            ("/$NOT", Err("NOT")),
            ("/$EMPTY", Err("EMPTY")),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(text(given, &env), expected, "{given}");
        }
        assert_eq!(text("$XDG_DATA_HOME/slipway", &Environment::new()), Err("HOME".into()));
    }
}
