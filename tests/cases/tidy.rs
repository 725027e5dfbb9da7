//! Reads the repository itself: file openings, SQL headers, open work, stray files, prose.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::repository::{files, find_files, read};

#[test]
fn every_source_file_says_what_it_is_for() {
    for path in files("src", "rs").into_iter().chain(files("tests", "rs")) {
        assert!(fs::read_to_string(&path).unwrap().starts_with("//! "), "{}: expected a //! opening", path.display());
    }
}

/// Allowed beginnings of the first line of a SQL file: its grain, the columns of raw files, or the meaning of a failing row.
const SQL_OPENINGS: [&str; 5] =
    ["one row per ", "one or more rows per ", "one row: ", "raw columns of ", "check (stops the night): one row "];

/// Returns the fault of a SQL file's first line, if it has one.
fn sql_opening_fault(folder: &str, text: &str) -> Option<String> {
    let Some(opening) = text.lines().next().and_then(|line| line.strip_prefix("-- ")) else {
        return Some("expected a comment on the first line".into());
    };
    if !SQL_OPENINGS.iter().any(|begin| opening.starts_with(begin)) {
        return Some(format!("expected a first line that begins with one of {SQL_OPENINGS:?}, got {opening:?}"));
    }
    let declares_columns = text.contains("CREATE TABLE");
    let expected = [
        ("raw columns of ", declares_columns, "a file with CREATE TABLE"),
        ("check (stops the night): ", folder == "checks", "a file below checks/"),
    ];
    let wrong = expected.iter().find(|(begin, wanted, _)| opening.starts_with(begin) != *wanted);
    wrong.map(|(begin, _, which)| format!("{begin:?} opens {which}, and nothing else does; got {opening:?}"))
}

#[test]
fn every_sql_file_states_its_grain() {
    for path in files("sql", "sql").into_iter().chain(files("docs", "sql")) {
        let text = fs::read_to_string(&path).unwrap();
        let folder = path.parent().and_then(Path::file_name).unwrap().to_string_lossy();
        if let Some(fault) = sql_opening_fault(&folder, &text) {
            panic!("{}: {fault}", path.display());
        }
    }
}

#[test]
fn a_sql_file_without_its_grain_is_found() {
    let good = [
        ("features", "-- one row per user_id: counts\nSELECT 1"),
        ("checks", "-- check (stops the night): one row per table\nSELECT 1"),
        ("shop", "-- raw columns of events\nCREATE TABLE raw_events (x INT)"),
    ];
    for (folder, text) in good {
        assert_eq!(sql_opening_fault(folder, text), None, "{text}");
    }
    let bad = [
        ("features", "SELECT 1"),
        ("features", "-- counts of users\nSELECT 1"),
        ("features", "-- check (stops the night): one row per table\nSELECT 1"),
        ("checks", "-- one row per table\nSELECT 1"),
        ("shop", "-- one row per line\nCREATE TABLE raw_events (x INT)"),
    ];
    for (folder, text) in bad {
        assert!(sql_opening_fault(folder, text).is_some(), "{text}");
    }
}

#[test]
fn no_source_file_marks_open_work() {
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["unimplemented", "!("].concat()];
    for path in files("src", "rs").into_iter().chain(files("sql", "sql")) {
        let text = fs::read_to_string(&path).unwrap();
        for mark in &marks {
            assert!(!text.contains(mark), "{}: {mark}", path.display());
        }
    }
}

#[test]
fn nothing_strays_at_the_top() {
    let expected = [
        ".cargo",
        ".ci",
        ".gitignore",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "Makefile",
        "README.md",
        "benches",
        "build.rs",
        "clippy.toml",
        "deny.toml",
        "docs",
        "infra",
        "jobs",
        "lab",
        "rust-toolchain.toml",
        "rustfmt.toml",
        "sql",
        "src",
        "tests",
    ];
    let root = env!("CARGO_MANIFEST_DIR");
    let tracked = std::process::Command::new("git").args(["-C", root, "ls-files"]).output();
    let names: std::collections::BTreeSet<String> = match tracked {
        Ok(listed) if listed.status.success() => {
            let text = String::from_utf8(listed.stdout).unwrap();
            text.lines().filter_map(|line| line.split('/').next().map(String::from)).collect()
        }
        // An unpacked archive has no git; it holds the packed files and what building adds.
        _ => {
            let ignored = read(".gitignore");
            let entries = fs::read_dir(root).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
            entries.filter(|name| !ignored.lines().any(|line| line.trim_matches('/') == name)).collect()
        }
    };
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(expected.contains(&name.as_str()), "{name} strays at the top level; give it a folder or list it here");
    }
}

/// Words of a private dialect that confused readers. The `-` keeps them out of this file.
const DIALECT: [&str; 17] = [
    "a-new",
    "be-side",
    "who-ever",
    "of la-te",
    "told a-part",
    "as good as n-one",
    "an o-wn",
    "the like o-f",
    "can n-ot",
    "goes o-n",
    "me-nd",
    "me-nds",
    "me-nded",
    "me-nding",
    "li-es",
    "no-body",
    "some-body",
];

/// Number of times that a file may still use them. A count that is too high fails as well, so the list only shrinks.
const DIALECT_LEFT: [(&str, usize); 3] = [
    // A file of text models and its key, which released bundles hold.
    ("src/model/text/bundle.rs", 3),
    // A sentence of the fixtures' vocabulary.
    ("tests/fixtures/text/make.py", 1),
    ("tests/trained/text.rs", 1),
];

/// Counts the phrases of [`DIALECT`] among the words of a text, in any case.
fn count_dialect(text: &str) -> usize {
    let text = text.to_lowercase();
    let words: Vec<&str> =
        text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
    let count = |phrase: &str| {
        let phrase: Vec<&str> = phrase.split(' ').collect();
        words.windows(phrase.len()).filter(|window| *window == phrase).count()
    };
    DIALECT.iter().map(|phrase| count(&phrase.replace('-', ""))).sum()
}

#[test]
fn prose_is_plain_english() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kinds = ["rs", "sql", "md", "toml", "sh", "py", "crontab"];
    let mut paths: Vec<PathBuf> =
        ["Makefile", "README.md", "CHANGELOG.md", "CONTRIBUTING.md"].iter().map(|name| root.join(name)).collect();
    for folder in ["src", "sql", "docs", "jobs", "tests", "infra"] {
        for kind in kinds {
            paths.extend(find_files(folder, kind));
        }
    }
    let mut found = Vec::new();
    for path in paths {
        let count = count_dialect(&fs::read_to_string(&path).unwrap());
        if count > 0 {
            found.push((path.strip_prefix(root).unwrap().display().to_string(), count));
        }
    }
    found.sort();
    let allowed: Vec<(String, usize)> = DIALECT_LEFT.iter().map(|(path, count)| (path.to_string(), *count)).collect();
    let differs: Vec<_> = found.iter().filter(|file| !allowed.contains(file)).collect();
    let gone: Vec<_> = allowed.iter().filter(|file| !found.contains(file)).collect();
    assert!(differs.is_empty() && gone.is_empty(), "more or fewer than DIALECT_LEFT says: {differs:#?} {gone:#?}");
}

#[test]
fn dialect_is_counted_in_whole_words() {
    let [first, second] = [DIALECT[0].replace('-', ""), DIALECT[8].replace('-', "")];
    assert_eq!(
        count_dialect(&format!("{first}. {first}s, {}; {}", first.to_uppercase(), second.replace(' ', "\n"))),
        3
    );
}

/// Words that begin a doc comment as a fragment. It begins with a verb or a noun instead.
const FRAGMENTS: [&str; 8] = ["Of", "What", "Whether", "How", "Where", "Which", "Who", "Why"];

/// Returns the first lines of doc comments, and of their paragraphs, that begin with one of [`FRAGMENTS`].
fn fragments(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut in_paragraph = false;
    for line in text.lines() {
        let line = line.trim();
        let prose = line.strip_prefix("///").or(line.strip_prefix("//!")).map(str::trim);
        let begins = prose.and_then(|prose| prose.split(' ').next()).is_some_and(|word| FRAGMENTS.contains(&word));
        if begins && !in_paragraph {
            found.push(line);
        }
        in_paragraph = prose.is_some_and(|prose| !prose.is_empty());
    }
    found
}

#[test]
fn doc_comments_begin_with_a_verb_or_a_noun() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for path in ["src", "tests", "benches"].iter().flat_map(|folder| files(folder, "rs")) {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(fragments(&text), Vec::<&str>::new(), "{name}: begin with a verb or a noun");
    }
}

#[test]
fn fragments_are_found_at_the_beginning_of_paragraphs() {
    let bad = ["//! How it works.", "/// Of a user.", "/// Which one."];
    let text =
        format!("{}\n\n{}\n/// Where lines continue.\n///\n    {}\nfn f() {{}} // What else.", bad[0], bad[1], bad[2]);
    assert_eq!(fragments(&text), bad);
    assert_eq!(fragments("/// Offers.\n/// Whatever follows."), Vec::<&str>::new());
}
