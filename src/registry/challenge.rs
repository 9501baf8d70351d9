//! The `WWW-Authenticate` header (RFC 9110 §11.6.1): several challenges, quoted parameters with commas inside. Pure.

/// One challenge of a registry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Challenge {
    /// Scheme in lower case: `bearer`, `basic`.
    pub(super) scheme: String,
    /// Parameters, names in lower case.
    pub(super) parameters: Vec<(String, String)>,
}

impl Challenge {
    /// A parameter's value.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Reads all challenges of one header value. Never fails: what makes no sense is left out.
pub(super) fn parse_challenges(value: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = value;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = split_token(rest);
        if word.is_empty() {
            // A stray character (an `=` of a token68, say) is stepped over, so that the loop always advances.
            match rest.chars().next() {
                Some(stray) => rest = &rest[stray.len_utf8()..],
                None => return challenges,
            }
            continue;
        }
        match after.trim_start().strip_prefix('=') {
            Some(value) => {
                let (value, after) = split_value(value.trim_start());
                if let Some(challenge) = challenges.last_mut() {
                    challenge.parameters.push((word.to_ascii_lowercase(), value));
                }
                rest = after;
            }
            None => {
                challenges.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
                rest = after;
            }
        }
    }
}

/// Splits off a `token` of RFC 9110 §5.6.2, perhaps empty.
fn split_token(text: &str) -> (&str, &str) {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    text.split_at(text.bytes().position(|byte| !is_token(byte)).unwrap_or(text.len()))
}

/// Splits off a value: a quoted string with backslash escapes, or everything up to a comma or space (realms are
/// sometimes sent unquoted, though `/` and `:` are no token characters).
fn split_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(header: &str) -> String {
        let one = |challenge: &Challenge| {
            let parameters: Vec<String> =
                challenge.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("{}[{}]", challenge.scheme, parameters.join("; "))
        };
        parse_challenges(header).iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn reads_challenges() {
        for (header, expected) in [
            ("", ""),
            ("Basic realm=\"x\"", "basic[realm=x]"),
            (
                "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:a/b:pull,push\"",
                "bearer[realm=https://auth.docker.io/token; service=registry.docker.io; scope=repository:a/b:pull,push]",
            ),
            (
                "Basic realm=\"a, b\", Bearer realm=\"c\" , service = d",
                "basic[realm=a, b] bearer[realm=c; service=d]",
            ),
            (
                "Negotiate, BEARER Realm=https://h/t,service=s",
                "negotiate[] bearer[realm=https://h/t; service=s]",
            ),
            ("Bearer realm=\"a\\\"b\\\\c\"", "bearer[realm=a\"b\\c]"),
            ("Bearer realm=\"open", "bearer[realm=open]"),
            ("realm=\"orphan\"", ""),
            ("Negotiate abc==, Basic realm=x", "negotiate[abc==] basic[realm=x]"),
            (",,, ==\u{e4} Bearer", "bearer[]"),
        ] {
            assert_eq!(shown(header), expected, "{header}");
        }
    }

    #[test]
    fn finds_parameters() {
        let challenges = parse_challenges("Bearer realm=\"r\",error=\"insufficient_scope\"");
        assert_eq!(challenges[0].get("error"), Some("insufficient_scope"));
        assert_eq!(challenges[0].get("scope"), None);
    }
}
