//! Listings as docker prints them: columns for the eye, a template, or JSON lines.

use serde_json::Value;

use super::template::{Template, TemplateError};

/// Docker's writer makes no column narrower than this, the gap included…
const MIN_WIDTH_CHARS: usize = 10;
/// …and puts so many spaces between columns.
const GAP_CHARS: usize = 3;

/// Cells in columns, the last of which is not filled up.
pub(super) fn columns(lines: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for line in lines {
        for (at, cell) in line.iter().enumerate().take(line.len().saturating_sub(1)) {
            let width = (cell.chars().count() + GAP_CHARS).max(MIN_WIDTH_CHARS);
            match widths.get_mut(at) {
                Some(known) => *known = width.max(*known),
                None => widths.push(width),
            }
        }
    }
    let mut text = String::new();
    for line in lines {
        for (at, cell) in line.iter().enumerate() {
            text.push_str(cell);
            let is_last = at + 1 == line.len();
            let width = if is_last { 0 } else { widths.get(at).copied().unwrap_or_default() };
            text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
        }
        text.push('\n');
    }
    text
}

/// Rows by `--format`: `json` for a line of JSON each, `table TEMPLATE` with a head, else the template for each row.
/// `titles` are the head's words for fields.
pub(super) fn formatted(
    format: &str,
    rows: &[Value],
    titles: &[(&str, &str)],
) -> Result<String, TemplateError> {
    if format == "json" {
        return Ok(rows.iter().map(|row| format!("{row}\n")).collect());
    }
    let Some(format) = format.strip_prefix("table").map(str::trim_start) else {
        let template = Template::parse(format)?;
        let lines = rows.iter().map(|row| template.render(row).map(|line| format!("{line}\n")));
        return lines.collect();
    };
    let template = Template::parse(format)?;
    let cells = |line: String| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
    let heads: Vec<String> = template
        .fields()
        .into_iter()
        .map(|field| {
            titles.iter().find(|(name, _)| *name == field).map_or(field, |(_, title)| title).to_owned()
        })
        .collect();
    let mut lines = vec![heads];
    for row in rows {
        lines.push(cells(template.render(row)?));
    }
    Ok(columns(&lines))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_up_as_docker_does() {
        let line = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            columns(&[line(&["REPOSITORY", "TAG", "SIZE"]), line(&["python", "3.12", "1GB"])]),
            "REPOSITORY   TAG       SIZE\npython       3.12      1GB\n"
        );
    }

    #[test]
    fn formats_rows() {
        let rows = [json!({"ID": "1", "Tag": "x"}), json!({"ID": "2", "Tag": "y"})];
        let titles = [("ID", "IMAGE ID"), ("Tag", "TAG")];
        for (format, expected) in [
            ("json", "{\"ID\":\"1\",\"Tag\":\"x\"}\n{\"ID\":\"2\",\"Tag\":\"y\"}\n"),
            ("{{.ID}}-{{.Tag}}", "1-x\n2-y\n"),
            ("table {{.ID}}\\t{{.Tag}}", "IMAGE ID   TAG\n1          x\n2          y\n"),
        ] {
            assert_eq!(formatted(format, &rows, &titles).unwrap(), expected, "{format}");
        }
    }
}
