//! Go templates, as far as `--format` uses them: fields, pipelines, `range`, `if`, and Docker's functions.
//!
//! ```text
//! {{.Repository}}:{{.Tag}}   {{json .Config.Env}}   {{range .RepoTags}}{{println .}}{{end}}   {{index .RepoDigests 0}}
//! ```
//!
//! A field with a capital letter that is not there is an error, as in a Go struct; one of a map (labels) is `<no value>`.

mod functions;
mod parse;

use serde_json::Value;

use parse::{Command, Node, Operand, Pipe};

/// Why a template is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template parsing error: `{template}`: {why}")]
pub(super) struct TemplateError {
    /// The template as given.
    template: String,
    /// What is wrong.
    why: String,
}

impl crate::base::Hint for TemplateError {
    fn hint(&self) -> Option<String> {
        Some("`--format json` shows every field".into())
    }
}

/// A parsed template.
#[derive(Debug)]
pub(super) struct Template {
    text: String,
    nodes: Vec<Node>,
}

/// What an evaluation knows.
#[derive(Clone, Copy)]
struct Scope<'a> {
    root: &'a Value,
    dot: &'a Value,
}

impl Template {
    /// Parses; `\t` and `\n` in the text are a tab and a line end, as docker's flag reads them.
    pub(super) fn parse(text: &str) -> Result<Self, TemplateError> {
        let unescaped = text.replace("\\t", "\t").replace("\\n", "\n");
        match parse::parse(&unescaped) {
            Ok(nodes) => Ok(Self { text: text.to_owned(), nodes }),
            Err(why) => Err(TemplateError { template: text.to_owned(), why }),
        }
    }

    /// The text for one object.
    pub(super) fn render(&self, value: &Value) -> Result<String, TemplateError> {
        let mut out = String::new();
        let scope = Scope { root: value, dot: value };
        render(&self.nodes, scope, &mut out)
            .map_err(|why| TemplateError { template: self.text.clone(), why })?;
        Ok(out)
    }

    /// The first field of each action, for the head of a table.
    pub(super) fn fields(&self) -> Vec<&str> {
        self.nodes.iter().filter_map(field_of).collect()
    }
}

fn field_of(node: &Node) -> Option<&str> {
    let Node::Print(pipe) = node else { return None };
    pipe.iter().flatten().find_map(|operand| match operand {
        Operand::Field(path) => path.last().map(String::as_str),
        _ => None,
    })
}

fn render(nodes: &[Node], scope: Scope<'_>, out: &mut String) -> Result<(), String> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(pipe) => out.push_str(&shown(evaluate(pipe, scope)?.as_ref())),
            Node::If { pipe, then, otherwise, with } => {
                let value = evaluate(pipe, scope)?;
                match value.filter(is_true) {
                    Some(value) if *with => render(then, Scope { dot: &value, ..scope }, out)?,
                    Some(_) => render(then, scope, out)?,
                    None => render(otherwise, scope, out)?,
                }
            }
            Node::Range { pipe, body, otherwise } => {
                let value = evaluate(pipe, scope)?.unwrap_or_default();
                let items: Vec<&Value> = match &value {
                    Value::Array(items) => items.iter().collect(),
                    Value::Object(map) => map.values().collect(),
                    Value::Null => Vec::new(),
                    _ => return Err("range can't iterate over a single value".into()),
                };
                if items.is_empty() {
                    render(otherwise, scope, out)?;
                }
                for item in items {
                    render(body, Scope { dot: item, ..scope }, out)?;
                }
            }
        }
    }
    Ok(())
}

/// The value of a pipeline; `None` for a map's key that is not there.
fn evaluate(pipe: &Pipe, scope: Scope<'_>) -> Result<Option<Value>, String> {
    let mut piped: Option<Option<Value>> = None;
    for command in pipe {
        piped = Some(run(command, scope, piped)?);
    }
    piped.ok_or_else(|| "missing value for command".into())
}

fn run(command: &Command, scope: Scope<'_>, piped: Option<Option<Value>>) -> Result<Option<Value>, String> {
    let (first, rest) = command.split_first().ok_or("missing value for command")?;
    if let Operand::Function(name) = first {
        let mut arguments = Vec::with_capacity(rest.len() + 1);
        for operand in rest {
            arguments.push(value_of(operand, scope)?.unwrap_or_default());
        }
        arguments.extend(piped.map(Option::unwrap_or_default));
        return functions::call(name, &arguments).map(Some);
    }
    if !rest.is_empty() || piped.is_some() {
        return Err("can't give argument to non-function".into());
    }
    value_of(first, scope)
}

fn value_of(operand: &Operand, scope: Scope<'_>) -> Result<Option<Value>, String> {
    match operand {
        Operand::Dot => Ok(Some(scope.dot.clone())),
        Operand::Root(path) => field(scope.root, path),
        Operand::Field(path) => field(scope.dot, path),
        Operand::Literal(value) => Ok(Some(value.clone())),
        Operand::Function(name) => functions::call(name, &[]).map(Some),
        Operand::Inner(pipe, path) => match evaluate(pipe, scope)? {
            Some(value) => field(&value, path),
            None => Ok(None),
        },
    }
}

fn field(value: &Value, path: &[String]) -> Result<Option<Value>, String> {
    let mut value = value;
    for name in path {
        let is_struct = name.starts_with(|letter: char| letter.is_ascii_uppercase());
        match value.get(name) {
            Some(found) => value = found,
            // A pointer or map that is empty in Go.
            None if value.is_null() || !is_struct => return Ok(None),
            None => return Err(format!("can't evaluate field {name}")),
        }
    }
    Ok(Some(value.clone()))
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// A value as Go prints it with `%v`.
fn shown(value: Option<&Value>) -> String {
    match value {
        None => "<no value>".into(),
        Some(Value::Null) => "<nil>".into(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            let items: Vec<String> = items.iter().map(|item| shown(Some(item))).collect();
            format!("[{}]", items.join(" "))
        }
        Some(Value::Object(map)) => {
            let items: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}:{}", shown(Some(value)))).collect();
            format!("map[{}]", items.join(" "))
        }
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(template: &str, expected: Result<&str, &str>) {
        let value = serde_json::json!({
            "Id": "sha256:ab", "Size": 12, "Tags": ["a:1", "b:2"], "None": null, "Empty": [],
            "Config": {"Labels": {"x.y": "z", "k": "v"}, "Cmd": ["sh", "-c"], "Tty": false},
        });
        let got = Template::parse(template).and_then(|template| template.render(&value));
        let got = got.map_err(|error| error.why);
        assert_eq!(got.as_deref().map_err(String::as_str), expected, "{template}");
    }

    #[test]
    fn evaluates_what_docker_users_write() {
        for (template, expected) in [
            ("plain", "plain"),
            ("{{.Id}}\\t{{.Size}}", "sha256:ab\t12"),
            ("{{ .Config.Cmd }} {{.None}} {{.Config.Labels}}", "[sh -c] <nil> map[k:v x.y:z]"),
            ("{{json .Config.Cmd}}", r#"["sh","-c"]"#),
            ("{{.Config.Cmd | json}}", r#"["sh","-c"]"#),
            ("{{range .Tags}}{{println .}}{{end}}", "a:1\nb:2\n"),
            ("{{range .Empty}}x{{else}}none{{end}}", "none"),
            ("{{range $.Tags -}}  {{.}},{{- end}}", "a:1,b:2,"),
            ("{{if .Config.Tty}}tty{{else if .Size}}size{{else}}no{{end}}", "size"),
            ("{{with .None}}x{{end}}{{with .Config}}{{.Tty}}{{end}}", "false"),
            ("{{index .Tags 1}} {{index .Config.Labels \"x.y\"}}", "b:2 z"),
            ("{{(index .Tags 0) | upper}}", "A:1"),
            ("{{join .Tags \", \"}} {{len .Tags}}", "a:1, b:2 2"),
            ("{{lower \"AbC\"}} {{title \"abc\"}} {{upper .Id}}", "abc Abc SHA256:AB"),
            ("{{printf \"%s=%d %v %q\" .Id .Size .Tags .Id}}", "sha256:ab=12 [a:1 b:2] \"sha256:ab\""),
            ("{{truncate .Id 6}}|{{pad \"a\" 1 2}}|{{index (split .Id \":\") 1}}", "sha256| a  |ab"),
            ("{{if eq .Size 12}}yes{{end}}{{if not .None}}!{{end}}", "yes!"),
            ("{{.Config.Labels.none}}", "<no value>"),
            ("{{/* said */}}x", "x"),
        ] {
            check(template, Ok(expected));
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (template, expected) in [
            ("{{.Nope}}", "can't evaluate field Nope"),
            ("{{.Id", "unclosed action"),
            ("{{range .Tags}}", "unexpected EOF: `end` is missing"),
            ("{{end}}", "unexpected {{end}}"),
            ("{{nope .Id}}", "function \"nope\" not defined"),
            ("{{index .Tags 7}}", "index out of range: 7"),
            ("{{.Id .Size}}", "can't give argument to non-function"),
            ("{{}}", "missing value for command"),
            ("{{\"x}}", "unterminated quoted string"),
            ("{{range .Id}}{{end}}", "range can't iterate over a single value"),
        ] {
            check(template, Err(expected));
        }
    }
}
