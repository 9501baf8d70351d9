//! Template text to nodes.

use serde_json::Value;

/// Nodes inside nodes that are followed; nobody writes more by hand.
const DEPTH_LIMIT: usize = 50;

/// A piece of a template.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Print(Pipe),
    /// `if`, and with `with` the same that also moves the dot.
    If {
        pipe: Pipe,
        then: Vec<Node>,
        otherwise: Vec<Node>,
        with: bool,
    },
    Range {
        pipe: Pipe,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
}

/// Commands between `|`.
pub(super) type Pipe = Vec<Command>;
/// A function with its arguments, or one operand.
pub(super) type Command = Vec<Operand>;

/// One word of a command.
#[derive(Debug)]
pub(super) enum Operand {
    Dot,
    Root(Vec<String>),
    Field(Vec<String>),
    Literal(Value),
    Function(String),
    Inner(Pipe, Vec<String>),
}

/// Text or the inside of an action.
enum Piece<'a> {
    Text(&'a str),
    Action(&'a str),
}

/// How a list of nodes ended.
enum Close<'a> {
    Eof,
    Closed,
    /// `else`, perhaps with `if …` behind it.
    Else(&'a str),
}

pub(super) fn parse(text: &str) -> Result<Vec<Node>, String> {
    let pieces = pieces(text)?;
    let mut pieces = pieces.into_iter();
    match list(&mut pieces, 0)? {
        (nodes, Close::Eof) => Ok(nodes),
        (_, Close::Closed) => Err("unexpected {{end}}".into()),
        (_, Close::Else(_)) => Err("unexpected {{else}}".into()),
    }
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let end = end_of_action(after)?;
        let (action, behind) = (&after[..end], &after[end + 2..]);
        let (action, trims_left) = match action.strip_prefix("- ") {
            Some(inner) => (inner, true),
            None => (action, false),
        };
        let (action, trims_right) = match action.strip_suffix(" -") {
            Some(inner) => (inner, true),
            None => (action, false),
        };
        pieces.push(Piece::Text(if trims_left { before.trim_end() } else { before }));
        pieces.push(Piece::Action(action.trim()));
        rest = if trims_right { behind.trim_start() } else { behind };
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

/// Where the `}}` stands that ends the action, which is not one inside a string.
fn end_of_action(text: &str) -> Result<usize, String> {
    let mut quote = None;
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match quote {
            Some('"') if escaped => escaped = false,
            Some('"') if character == '\\' => escaped = true,
            Some(open) if open == character => quote = None,
            Some(_) => {}
            None if matches!(character, '"' | '`') => quote = Some(character),
            None if text[at..].starts_with("}}") => return Ok(at),
            None => {}
        }
    }
    Err(if quote.is_some() { "unterminated quoted string".into() } else { "unclosed action".into() })
}

fn list<'a>(
    pieces: &mut std::vec::IntoIter<Piece<'a>>,
    depth: usize,
) -> Result<(Vec<Node>, Close<'a>), String> {
    if depth > DEPTH_LIMIT {
        return Err("too many blocks inside one another".into());
    }
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        let action = match piece {
            Piece::Text("") => continue,
            Piece::Text(text) => {
                nodes.push(Node::Text(text.to_owned()));
                continue;
            }
            Piece::Action(action) => action,
        };
        let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((action, ""));
        match word {
            "end" => return Ok((nodes, Close::Closed)),
            "else" => return Ok((nodes, Close::Else(rest.trim()))),
            "if" | "with" => nodes.push(condition(rest, word == "with", pieces, depth)?),
            "range" => {
                let pipe = pipe_of(rest)?;
                let (body, end) = list(pieces, depth + 1)?;
                let otherwise = rest_of(end, pieces, depth)?;
                nodes.push(Node::Range { pipe, body, otherwise });
            }
            _ if action.starts_with("/*") && action.ends_with("*/") => {}
            _ => nodes.push(Node::Print(pipe_of(action)?)),
        }
    }
    Ok((nodes, Close::Eof))
}

fn condition<'a>(
    text: &str,
    with: bool,
    pieces: &mut std::vec::IntoIter<Piece<'a>>,
    depth: usize,
) -> Result<Node, String> {
    let pipe = pipe_of(text)?;
    let (then, end) = list(pieces, depth + 1)?;
    let otherwise = rest_of(end, pieces, depth)?;
    Ok(Node::If { pipe, then, otherwise, with })
}

/// What follows a body: nothing, or an `else` branch.
fn rest_of<'a>(
    end: Close<'a>,
    pieces: &mut std::vec::IntoIter<Piece<'a>>,
    depth: usize,
) -> Result<Vec<Node>, String> {
    match end {
        Close::Closed => Ok(Vec::new()),
        Close::Else("") => match list(pieces, depth + 1)? {
            (nodes, Close::Closed) => Ok(nodes),
            (_, Close::Else(_)) => Err("unexpected {{else}}".into()),
            (_, Close::Eof) => Err("unexpected EOF: `end` is missing".into()),
        },
        Close::Else(more) => match more.split_once(char::is_whitespace) {
            Some(("if", rest)) => Ok(vec![condition(rest, false, pieces, depth + 1)?]),
            Some(("with", rest)) => Ok(vec![condition(rest, true, pieces, depth + 1)?]),
            _ => Err(format!("unexpected `{more}` behind else")),
        },
        Close::Eof => Err("unexpected EOF: `end` is missing".into()),
    }
}

fn pipe_of(text: &str) -> Result<Pipe, String> {
    let mut rest = text.trim();
    let pipe = pipe(&mut rest, 0)?;
    if rest.is_empty() { Ok(pipe) } else { Err(format!("unexpected `{rest}`")) }
}

fn pipe(rest: &mut &str, depth: usize) -> Result<Pipe, String> {
    if depth > DEPTH_LIMIT {
        return Err("too many parentheses inside one another".into());
    }
    let mut commands = Vec::new();
    let mut command = Vec::new();
    loop {
        *rest = rest.trim_start();
        let Some(first) = rest.chars().next() else { break };
        match first {
            ')' => break,
            '|' => {
                *rest = &rest[1..];
                if command.is_empty() {
                    return Err("missing value for command".into());
                }
                commands.push(std::mem::take(&mut command));
            }
            '(' => {
                *rest = &rest[1..];
                let inner = pipe(rest, depth + 1)?;
                *rest = rest.strip_prefix(')').ok_or("unclosed left paren")?;
                command.push(Operand::Inner(inner, path(rest)));
            }
            _ => command.push(operand(rest)?),
        }
    }
    if command.is_empty() {
        return Err("missing value for command".into());
    }
    commands.push(command);
    Ok(commands)
}

fn operand(rest: &mut &str) -> Result<Operand, String> {
    let text = *rest;
    if let Some(after) = text.strip_prefix('$') {
        *rest = after;
        return Ok(Operand::Root(path(rest)));
    }
    if let Some(after) = text.strip_prefix('.') {
        let path = path(rest);
        if path.is_empty() {
            *rest = after;
            return Ok(Operand::Dot);
        }
        return Ok(Operand::Field(path));
    }
    if let Some(after) = text.strip_prefix('`') {
        let (raw, after) = after.split_once('`').ok_or("unterminated raw quoted string")?;
        *rest = after;
        return Ok(Operand::Literal(raw.into()));
    }
    if text.starts_with('"') {
        return quoted(rest);
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').unwrap_or(text.len());
    let (word, after) = text.split_at(end);
    *rest = after;
    match word {
        "" => Err(format!("unexpected `{}`", text.chars().next().unwrap_or_default())),
        "true" | "false" => Ok(Operand::Literal((word == "true").into())),
        "nil" => Ok(Operand::Literal(Value::Null)),
        _ if word.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
            let number: i64 = word.parse().map_err(|_| format!("bad number `{word}`"))?;
            Ok(Operand::Literal(number.into()))
        }
        _ => Ok(Operand::Function(word.to_owned())),
    }
}

/// A Go string in double quotes; its escapes are those of JSON, as far as they are used.
fn quoted(rest: &mut &str) -> Result<Operand, String> {
    let text = *rest;
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    match stream.next() {
        Some(Ok(value)) => {
            *rest = &text[stream.byte_offset()..];
            Ok(Operand::Literal(value))
        }
        _ => Err("bad quoted string".into()),
    }
}

/// `.A.B` as its names, perhaps none.
fn path(rest: &mut &str) -> Vec<String> {
    let mut names = Vec::new();
    while let Some(after) = rest.strip_prefix('.') {
        let end = after.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(after.len());
        if end == 0 {
            break;
        }
        names.push(after[..end].to_owned());
        *rest = &after[end..];
    }
    names
}
