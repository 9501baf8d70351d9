//! Holds the imports of `src/` to the tables of `src/ARCHITECTURE.md`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

struct Module {
    floor: u32,
    pure: bool,
    beside: Vec<String>,
}

/// The rows of the table below the heading `title`, as trimmed cells.
fn table(title: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(Path::new(ROOT).join("src/ARCHITECTURE.md")).unwrap();
    let section = text.split(&format!("## {title}\n")).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

fn modules() -> BTreeMap<String, Module> {
    let rows = table("Code map");
    let module = |cells: &Vec<String>| {
        let beside = cells[3].split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        let module =
            Module { floor: cells[1].parse().unwrap(), pure: cells[2] == "pure", beside: beside.collect() };
        (cells[0].trim_matches('`').to_owned(), module)
    };
    rows.iter().map(module).collect()
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![Path::new(ROOT).join("src")];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // A crate of its own, loaded into Slurm's programs.
                if !path.ends_with("spank") {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(Path::new(ROOT).join("src")).unwrap().to_path_buf(), text));
            }
        }
    }
    found
}

/// The code without the unit tests at its end and without comments.
fn code(text: &str) -> String {
    let end =
        text.find("\nmod tests {").and_then(|at| text[..at].rfind("\n#[cfg(test)]")).unwrap_or(text.len());
    let text = &text[..end];
    text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

fn is_test(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "tests" || stem == "testing")
        || path.components().any(|part| part.as_os_str() == "tests")
}

#[test]
fn imports_go_down() {
    let modules = modules();
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let own = path.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        let Some(module) = modules.get(&own) else {
            if !["lib.rs", "main.rs"].contains(&own.as_str()) {
                wrong.push(format!("{}: `{own}` is not in the code map", path.display()));
            }
            continue;
        };
        for part in code(&text).split("crate::").skip(1) {
            let name: String = part.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            let Some(other) = modules.get(&name) else { continue };
            let allowed = name == own || other.floor < module.floor || module.beside.contains(&name);
            if !allowed {
                wrong.push(format!("{}: uses `{name}` (floor {})", path.display(), other.floor));
            }
        }
    }
    assert!(wrong.is_empty(), "imports against ARCHITECTURE.md:\n{}", wrong.join("\n"));
}

#[test]
fn pure_modules_touch_nothing() {
    let modules = modules();
    let mut wrong = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| !is_test(path)) {
        let own = path.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        if modules.get(&own).is_some_and(|module| module.pure) {
            for word in
                ["std::fs", "std::net", "std::env::", "std::process", "SystemTime::now", "Instant::now"]
            {
                if code(&text).contains(word) {
                    wrong.push(format!("{}: `{word}`", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "pure modules that touch the world:\n{}", wrong.join("\n"));
}

#[test]
fn each_package_has_one_door() {
    let manifest = std::fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).unwrap();
    let wanted = manifest.split("[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let rows = table("Outside packages");
    let mut doors: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for cells in &rows {
        let places = cells[1].split(',').map(|place| place.trim().trim_matches('`').to_owned());
        for package in cells[0].split(',') {
            doors.insert(package.trim().trim_matches('`').to_owned(), places.clone().collect());
        }
    }
    let mut wrong = Vec::new();
    for line in wanted.lines().filter(|line| line.contains('=')) {
        let package = line.split(['=', ' ']).next().unwrap();
        let Some(places) = doors.get(package) else {
            wrong.push(format!("`{package}` has no row in ARCHITECTURE.md"));
            continue;
        };
        if places.iter().any(|place| place == "everywhere") {
            continue;
        }
        let name = format!("{}::", package.replace('-', "_"));
        for (path, text) in sources().into_iter().filter(|(path, _)| !is_test(path)) {
            let here = path.to_string_lossy();
            let open = places.iter().any(|place| here.starts_with(place.as_str()));
            let code = code(&text);
            let names_it = code.match_indices(&name).any(|(at, _)| {
                !code[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':')
            });
            if names_it && !open {
                wrong.push(format!("{here}: names `{package}`, whose door is {}", places.join(", ")));
            }
        }
    }
    assert!(wrong.is_empty(), "packages against ARCHITECTURE.md:\n{}", wrong.join("\n"));
}
