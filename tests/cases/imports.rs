//! Reads the imports of the source: rooms import only from the left, and files of a room do not import one another in a
//! circle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms in the order of the flow: each may import only from the rooms before it (src/lib.rs says the same).
const ROOMS: [&str; 24] = [
    "failure",
    "panics",
    "progress",
    "ids",
    "config",
    "sql_files",
    "lake",
    "features",
    "metrics",
    "model",
    "score",
    "engine",
    "tables",
    "publish",
    "cluster",
    "workspace",
    "nightly",
    "training",
    "evaluation",
    "simulation",
    "importing",
    "report",
    "serving",
    "commands",
];

/// Rooms next to the night. They meet through tables, so they do not import one another.
const SIDE_ROOMS: [&str; 6] = ["training", "evaluation", "simulation", "importing", "report", "serving"];

/// Intended imports against the flow: from, to, reason.
const EXCEPTIONS: [(&str, &str, &str); 1] =
    [("features", "tables", "rollup units are files, and there is one way to write files")];

/// A module path below `crate`, such as ["model", "demand"].
type Module = Vec<String>;

fn source_files() -> BTreeMap<Module, PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut modules = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|e| e == "rs") {
                let below = entry.strip_prefix(&root).unwrap().with_extension("");
                let mut module: Module = below.iter().map(|part| part.to_str().unwrap().to_string()).collect();
                if module.last().is_some_and(|name| name == "mod") {
                    module.pop();
                }
                if !["lib", "main"].contains(&module[0].as_str()) {
                    modules.insert(module, entry);
                }
            }
        }
    }
    modules
}

/// Returns the code without comments and without the unit tests, which end a file.
fn without_tests(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let begins_tests = |pair: &[&str]| {
        pair[0].trim() == "#[cfg(test)]" && pair[1].contains("mod ") && pair[1].trim_end().ends_with('{')
    };
    let end = lines.windows(2).position(begins_tests).unwrap_or(lines.len());
    lines[..end].join("\n")
}

/// Returns the paths that code names outside comments: those of `use` with groups expanded, and those elsewhere.
fn named_paths(text: &str) -> Vec<String> {
    let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let mut paths = Vec::new();
    let mut rest = String::new();
    for statement in code.join("\n").split_inclusive(';') {
        let found = statement.rfind("use ").filter(|&at| {
            let before = statement[..at].trim_end_matches([' ', '\n']);
            let before = before.strip_suffix("pub").or(before.strip_suffix("pub(crate)")).unwrap_or(before);
            before.trim_end().is_empty() || before.trim_end().ends_with(['{', '}', ']', '\n'])
        });
        match found {
            Some(at) if statement.ends_with(';') => {
                rest += &statement[..at];
                expand(statement[at + "use ".len()..].trim_end_matches(';'), &mut paths);
            }
            _ => rest += statement,
        }
    }
    let is_path = |c: char| c.is_alphanumeric() || "_:$".contains(c);
    for word in rest.split(|c| !is_path(c)).filter(|word| word.contains("::")) {
        paths.push(word.trim_matches(':').to_string());
    }
    paths
}

/// Adds the paths of a `use` tree: `a::{b, c::d}` gives `a::b` and `a::c::d`.
fn expand(tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((prefix, group)) = tree.split_once('{') else {
        paths.extend(tree.split_whitespace().next().map(String::from));
        return;
    };
    let group = group.strip_suffix('}').unwrap_or(group);
    let mut depth = 0;
    let mut start = 0;
    for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !group[start..at].trim().is_empty() {
                    expand(&format!("{prefix}{}", group[start..at].trim()), paths);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// Returns the file that a path leads to from the module that names it; `None` for paths outside the crate.
fn target(files: &BTreeMap<Module, PathBuf>, from: &Module, path: &str) -> Option<Module> {
    let mut names: VecDeque<&str> = path.split("::").collect();
    let mut module = match names[0] {
        "crate" => Module::new(),
        "super" | "self" => from.clone(),
        child if files.contains_key(&[from.clone(), vec![child.into()]].concat()) => from.clone(),
        _ => return None,
    };
    while let Some(name) = names.pop_front() {
        match name {
            "crate" | "self" => {}
            "super" => {
                module.pop();
            }
            name => {
                let child = [module.clone(), vec![name.into()]].concat();
                if !files.contains_key(&child) {
                    break;
                }
                module = child;
            }
        }
    }
    files.contains_key(&module).then_some(module)
}

/// Returns the rooms that a file imports by `crate::…`.
fn rooms(text: &str) -> Vec<String> {
    let paths = named_paths(text).into_iter();
    paths.filter_map(|path| path.strip_prefix("crate::").map(|rest| rest.split("::").next().unwrap().into())).collect()
}

/// Returns the shortest circle of imports through a file, from the file back to itself; `None` if there is none.
fn circle<'a>(imports: &'a BTreeMap<Module, BTreeSet<Module>>, start: &'a Module) -> Option<Vec<&'a Module>> {
    let mut previous: BTreeMap<&Module, &Module> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(module) = queue.pop_front() {
        for next in imports.get(module).into_iter().flatten() {
            if next == start {
                let mut files = vec![start, module];
                while let Some(before) = previous.get(files[files.len() - 1]) {
                    files.push(before);
                }
                files.reverse();
                return Some(files);
            }
            if !previous.contains_key(next) {
                previous.insert(next, module);
                queue.push_back(next);
            }
        }
    }
    None
}

#[test]
fn rooms_import_only_from_the_left() {
    let files = source_files();
    let place = |room: &str| ROOMS.iter().position(|r| *r == room);
    for room in ROOMS {
        assert!(files.keys().any(|module| module[0] == room), "src has no room {room}");
    }
    let mut used = BTreeSet::new();
    for (module, path) in &files {
        let room = module[0].as_str();
        let from = place(room).unwrap_or_else(|| panic!("{}: add the room to tests/cases/imports.rs", path.display()));
        for import in rooms(&fs::read_to_string(path).unwrap()) {
            let to = place(&import).unwrap_or_else(|| panic!("{}: no room crate::{import}", path.display()));
            if let Some(at) = EXCEPTIONS.iter().position(|(f, t, _)| (*f, *t) == (room, import.as_str())) {
                used.insert(at);
                continue;
            }
            let between_sides = SIDE_ROOMS.contains(&room) && SIDE_ROOMS.contains(&import.as_str()) && room != import;
            assert!(to <= from && !between_sides, "{}: {room} imports {import}, against the flow", path.display());
        }
    }
    assert_eq!(used.len(), EXCEPTIONS.len(), "remove the exceptions that no file needs: used are {used:?}");
}

#[test]
fn files_of_a_room_do_not_import_in_circles() {
    let files = source_files();
    let mut imports: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (module, path) in &files {
        let text = without_tests(&fs::read_to_string(path).unwrap());
        let targets = named_paths(&text).into_iter().filter_map(|path| target(&files, module, &path));
        imports.insert(module.clone(), targets.filter(|to| to[0] == module[0] && to != module).collect());
    }
    let mut circles = Vec::new();
    for module in files.keys() {
        if let Some(found) = circle(&imports, module) {
            let names: Vec<String> = found.iter().map(|module| module.join("/")).collect();
            circles.push(names.join(" → "));
        }
    }
    assert!(circles.is_empty(), "{} files are in circles: {circles:#?}", circles.len());
}

#[test]
fn grouped_and_inline_paths_are_found() {
    let text = "use crate::{commands, lake::{self, stores::{A, B}}, score::c};\n// use crate::features;\npub use inner::D;\n\
                fn f() {\n    use super::e as g;\n    let a = crate::tables::y(); let b = other_crate::no;\n}\n";
    let expected = [
        "crate::commands",
        "crate::lake::self",
        "crate::lake::stores::A",
        "crate::lake::stores::B",
        "crate::score::c",
        "inner::D",
        "super::e",
        "crate::tables::y",
        "other_crate::no",
    ];
    assert_eq!(named_paths(text), expected);
    assert_eq!(rooms(text), ["commands", "lake", "lake", "lake", "score", "tables"]);
}

#[test]
fn circles_of_two_and_more_files_are_found() {
    let module = |name: &str| vec![name.to_string()];
    let edges = [("a", "b"), ("b", "c"), ("c", "a"), ("d", "a"), ("e", "f"), ("f", "e")];
    let mut imports: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (from, to) in edges {
        imports.entry(module(from)).or_default().insert(module(to));
    }
    let names = |start: &str| {
        circle(&imports, &module(start)).map(|found| found.into_iter().flatten().cloned().collect::<String>())
    };
    assert_eq!(names("a").as_deref(), Some("abca"));
    assert_eq!(names("d"), None);
    assert_eq!(names("f").as_deref(), Some("fef"));
}
