//! The YAML of specifications, as the value of JSON that it stands for. The one door to `saphyr-parser`.
//!
//! Anchors are refused: nothing that writes such files makes them, and with them a short text can be a huge value.

use std::borrow::Cow;
use std::fmt::Write as _;

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};

/// Deepest nesting; a specification has 6 levels.
const MAX_DEPTH: usize = 16;

/// Reads one document.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut reader = Reader { parser: Parser::new_from_str(text) };
    let mut document = None;
    loop {
        match reader.next()? {
            Event::StreamEnd => return document.ok_or_else(|| "it is empty".into()),
            Event::StreamStart | Event::Nothing | Event::DocumentStart(_) | Event::DocumentEnd => {}
            event if document.is_none() => document = Some(reader.value(event, 0)?),
            _ => return Err("it has a second document".into()),
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Event<'a>, String> {
        match self.parser.next_event() {
            Some(Ok((event, _))) => Ok(event),
            Some(Err(error)) => Err(error.to_string()),
            None => Ok(Event::StreamEnd),
        }
    }

    fn value(&mut self, event: Event<'a>, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err(format!("it is nested more than {MAX_DEPTH} deep"));
        }
        match event {
            Event::Scalar(text, style, 0, tag) => Ok(scalar(&text, style, tag.is_some())),
            Event::SequenceStart(0, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        Event::SequenceEnd => return Ok(Value::Array(items)),
                        event => items.push(self.value(event, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(0, _) => {
                let mut fields = Map::new();
                loop {
                    let key = match self.next()? {
                        Event::MappingEnd => return Ok(Value::Object(fields)),
                        Event::Scalar(key, _, 0, _) => key,
                        _ => return Err("a key is no word".into()),
                    };
                    let event = self.next()?;
                    let value = self.value(event, depth + 1)?;
                    if fields.insert(key.clone().into_owned(), value).is_some() {
                        return Err(format!("the key `{}` is there twice", key.escape_debug()));
                    }
                }
            }
            Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..) | Event::Alias(_) => {
                Err("it has an anchor".into())
            }
            _ => Err("it ends early".into()),
        }
    }
}

/// A word without quotes may be a number or another constant. Octal numbers are as in YAML 1.1, which the tools of other
/// engines read.
fn scalar(text: &str, style: ScalarStyle, is_tagged: bool) -> Value {
    let as_text = || Value::String(text.to_owned());
    if style != ScalarStyle::Plain || is_tagged {
        return as_text();
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let octal = text.strip_prefix("0o").or_else(|| text.strip_prefix('0').filter(|rest| !rest.is_empty()));
    let number = match octal {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            i64::from_str_radix(digits, 8).ok()
        }
        Some(_) => text.strip_prefix("0x").and_then(|digits| i64::from_str_radix(digits, 16).ok()),
        None if text.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        None => None,
    };
    number.map_or_else(as_text, |number| Value::Number(Number::from(number)))
}

/// Writes a value: mappings and sequences as blocks, strings in quotes where they could be something else.
pub(super) fn write(value: &Value) -> String {
    let mut text = String::from("---\n");
    write_block(&mut text, value, 0);
    text
}

fn write_block(text: &mut String, value: &Value, indent: usize) {
    let space = "  ".repeat(indent);
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                write_field(text, &format!("{space}{}:", quoted(key)), value, indent + 1);
            }
        }
        Value::Array(items) => {
            for item in items {
                if is_block(item) {
                    // The first line of what is inside stands behind the dash.
                    let mut inner = String::new();
                    write_block(&mut inner, item, indent + 1);
                    text.push_str(&space);
                    text.push_str("- ");
                    text.push_str(inner.trim_start_matches(' '));
                } else {
                    write_field(text, &format!("{space}-"), item, indent + 1);
                }
            }
        }
        other => {
            text.push_str(&flat(other));
            text.push('\n');
        }
    }
}

fn write_field(text: &mut String, start: &str, value: &Value, indent: usize) {
    text.push_str(start);
    if is_block(value) {
        text.push('\n');
        write_block(text, value, indent);
    } else {
        text.push(' ');
        text.push_str(&flat(value));
        text.push('\n');
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

fn flat(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => quoted(text),
        Value::Object(_) => "{}".into(),
        Value::Array(_) => "[]".into(),
        other => other.to_string().into(),
    }
}

/// Without quotes only what no reader can take for anything but a string.
fn quoted(text: &str) -> Cow<'_, str> {
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-=+@".contains(&byte))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str());
    if is_plain {
        return text.into();
    }
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            letter if letter == ' ' || letter.is_ascii_graphic() => out.push(letter),
            letter => write!(out, "\\U{:08X}", u32::from(letter)).unwrap_or_default(),
        }
    }
    out.push('"');
    out.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_what_tools_write() {
        let check = |text: &str, expected: Result<Value, &str>| {
            assert_eq!(
                parse(text).as_ref().map_err(String::as_str),
                expected.as_ref().map_err(|text| *text),
                "{text}"
            );
        };
        check(
            "a: 1\nb: [x, \"1\", -2, 0o17, 017, 0x1f, 0, 1.5]",
            Ok(json!({"a": 1, "b": ["x", "1", -2, 15, 15, 31, 0, "1.5"]})),
        );
        check("- a: b\n  c: ~\n- {}\n# end", Ok(json!([{"a": "b", "c": null}, {}])));
        check("a: &x 1\nb: *x", Err("it has an anchor"));
        check("a: 1\na: 2", Err("the key `a` is there twice"));
        check("a\n---\nb", Err("it has a second document"));
        check("", Err("it is empty"));
        check(&"[".repeat(100), Err("it is nested more than 16 deep"));
    }
}
