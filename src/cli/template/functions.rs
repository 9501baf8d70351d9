//! The functions of Go's `text/template` and of docker's that people use.

use serde_json::Value;

use super::{is_true, shown};

/// Calls a function by its name.
pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let all = || arguments.iter().map(|value| shown(Some(value))).collect::<Vec<_>>();
    let one = || match arguments {
        [one] => Ok(one),
        _ => Err(format!("wrong number of args for {name}: want 1 got {}", arguments.len())),
    };
    Ok(match name {
        "json" => one()?.to_string().into(),
        "upper" => shown(Some(one()?)).to_uppercase().into(),
        "lower" => shown(Some(one()?)).to_lowercase().into(),
        "title" => {
            let text = shown(Some(one()?));
            let mut letters = text.chars();
            letters.next().map(|first| first.to_uppercase().chain(letters).collect::<String>()).into()
        }
        "println" => format!("{}\n", all().join(" ")).into(),
        "print" => all().concat().into(),
        "printf" => printf(arguments)?.into(),
        "len" => match one()? {
            Value::String(text) => text.len().into(),
            Value::Array(items) => items.len().into(),
            Value::Object(map) => map.len().into(),
            Value::Null => 0.into(),
            _ => return Err("len of a single value".into()),
        },
        "index" => index(arguments)?,
        "join" => match arguments {
            [Value::Array(items), separator] => {
                let items: Vec<String> = items.iter().map(|item| shown(Some(item))).collect();
                items.join(&shown(Some(separator))).into()
            }
            [Value::Null, _] => "".into(),
            _ => return Err("join wants a list and a separator".into()),
        },
        "split" => match arguments {
            [Value::String(text), Value::String(separator)] => {
                text.split(separator.as_str()).map(Value::from).collect()
            }
            _ => return Err("split wants a text and a separator".into()),
        },
        "truncate" => match arguments {
            [text, length] => shown(Some(text)).chars().take(count(length)?).collect::<String>().into(),
            _ => return Err("truncate wants a text and a length".into()),
        },
        "pad" => match arguments {
            [text, before, after] => {
                let (before, after) = (" ".repeat(count(before)?), " ".repeat(count(after)?));
                format!("{before}{}{after}", shown(Some(text))).into()
            }
            _ => return Err("pad wants a text and two numbers".into()),
        },
        "eq" => match arguments {
            [first, rest @ ..] if !rest.is_empty() => rest.contains(first).into(),
            _ => return Err("eq wants two values".into()),
        },
        "ne" => match arguments {
            [first, second] => (first != second).into(),
            _ => return Err("ne wants two values".into()),
        },
        "not" => (!is_true(one()?)).into(),
        "and" => {
            arguments.iter().find(|value| !is_true(value)).or(arguments.last()).cloned().unwrap_or_default()
        }
        "or" => {
            arguments.iter().find(|value| is_true(value)).or(arguments.last()).cloned().unwrap_or_default()
        }
        _ => return Err(format!("function \"{name}\" not defined")),
    })
}

/// Most characters that a template may ask for at once.
const COUNT_LIMIT: usize = 10_000;

fn count(value: &Value) -> Result<usize, String> {
    let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
    count.filter(|count| *count <= COUNT_LIMIT).ok_or_else(|| format!("bad length {}", shown(Some(value))))
}

fn index(arguments: &[Value]) -> Result<Value, String> {
    let (first, keys) = arguments.split_first().ok_or("index wants a value")?;
    let mut value = first;
    for key in keys {
        value = match (value, key) {
            (Value::Array(items), Value::Number(number)) => number
                .as_u64()
                .and_then(|at| items.get(usize::try_from(at).ok()?))
                .ok_or_else(|| format!("index out of range: {number}"))?,
            // A map without the key gives what is empty.
            (Value::Object(map), Value::String(key)) => match map.get(key) {
                Some(found) => found,
                None => return Ok("".into()),
            },
            (Value::Null, Value::String(_)) => return Ok("".into()),
            _ => return Err(format!("can't index item of type {}", kind(value))),
        };
    }
    Ok(value.clone())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "map",
    }
}

/// `%s`, `%v`, `%d`, `%q` and `%%`.
fn printf(arguments: &[Value]) -> Result<String, String> {
    let (format, rest) = arguments.split_first().ok_or("printf wants a format")?;
    let mut values = rest.iter();
    let mut text = String::new();
    let format = shown(Some(format));
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        match letters.next() {
            Some('%') => text.push('%'),
            Some(verb @ ('s' | 'v' | 'd' | 'q')) => match values.next() {
                Some(value) if verb == 'q' => text.push_str(&Value::from(shown(Some(value))).to_string()),
                Some(value) => text.push_str(&shown(Some(value))),
                None => return Err("printf has too few values".into()),
            },
            other => {
                return Err(format!("printf does not know %{}", other.map(String::from).unwrap_or_default()));
            }
        }
    }
    Ok(text)
}
