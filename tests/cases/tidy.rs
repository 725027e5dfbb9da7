//! Reads the repository itself: file openings, SQL headers, leftovers, documents, stray files.

use std::fs;
use std::path::{Path, PathBuf};

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let found = find_files(folder, extension);
    assert!(!found.is_empty(), "no .{extension} under {folder}");
    found
}

fn find_files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|e| e == extension) {
                found.push(entry);
            }
        }
    }
    found
}

#[test]
fn every_source_file_says_what_it_is_for() {
    for path in files("src", "rs").into_iter().chain(files("tests", "rs")) {
        assert!(fs::read_to_string(&path).unwrap().starts_with("//! "), "{}: expected a //! opening", path.display());
    }
}

/// How the first line of a SQL file may begin: with the grain, with the columns of raw files, or with what a failing row means.
const SQL_OPENINGS: [&str; 5] =
    ["one row per ", "one or more rows per ", "one row: ", "raw columns of ", "check (stops the night): one row "];

/// What is wrong with the first lines of a SQL file, if anything.
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
fn nothing_is_left_to_do_in_silence() {
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["unimplemented", "!("].concat()];
    for path in files("src", "rs").into_iter().chain(files("sql", "sql")) {
        let text = fs::read_to_string(&path).unwrap();
        for mark in &marks {
            assert!(!text.contains(mark), "{}: {mark}", path.display());
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// What a document shows as typed: lines of its code blocks, and code spans.
fn shown_commands(text: &str) -> Vec<String> {
    let mut shown = Vec::new();
    for (i, block) in text.split("```").enumerate() {
        match i % 2 {
            1 => shown.extend(block.lines().map(String::from)),
            _ => shown.extend(block.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " "))),
        }
    }
    shown
}

#[test]
fn commands_in_the_documents_exist() {
    use clap::CommandFactory;
    let mut command = intentcast::commands::Cli::command();
    command.build();
    let makefile = read("Makefile");
    let mut seen = 0;
    for document in documents() {
        for line in shown_commands(&read(&document)) {
            let words: Vec<&str> = line.split_whitespace().take_while(|w| !w.starts_with('#')).collect();
            // What stands before the verb comes in pairs.
            let flags = words.iter().skip(1).step_by(2).take_while(|w| w.starts_with("--")).count();
            let words = [words.get(..1).unwrap_or_default(), words.get(1 + 2 * flags..).unwrap_or_default()].concat();
            match words.as_slice() {
                ["make", verb, ..] => {
                    assert!(makefile.contains(&format!("\n{verb}:")), "{document}: `make {verb}`: no such verb");
                    seen += 1;
                }
                ["intentcast", verb, rest @ ..] if verb.starts_with(char::is_alphabetic) => {
                    let found = command.find_subcommand(verb);
                    let found = found.unwrap_or_else(|| panic!("{document}: `intentcast {verb}`: no such verb"));
                    // A query follows -c.
                    let rest = rest.iter().take_while(|word| **word != "-c");
                    for flag in rest.filter_map(|word| word.strip_prefix("--")) {
                        let flag = flag.split('=').next().unwrap_or(flag);
                        let known = found.get_arguments().any(|a| a.get_long() == Some(flag));
                        assert!(known, "{document}: `intentcast {verb} --{flag}`: no such flag");
                    }
                    seen += 1;
                }
                _ => {}
            }
        }
    }
    assert!(seen >= 40, "only {seen} commands found: is the search broken?");
}

/// The documents that people follow, by their paths; decisions say what was, not what is.
fn documents() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let below = |path: &PathBuf| path.strip_prefix(root).unwrap().display().to_string();
    let docs =
        files("docs", "md").iter().map(below).filter(|path| !path.starts_with("docs/decisions")).collect::<Vec<_>>();
    ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(String::from).into_iter().chain(docs).collect()
}

#[test]
fn files_that_the_documents_name_exist() {
    const FOLDERS: [&str; 9] = ["src/", "sql/", "jobs/", "lab/", "tests/", "benches/", "infra/", "docs/", "fixtures/"];
    // A folder below sql.folder that does not exist until users write functions of their own.
    const OWN: &str = "sql/functions";
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut seen, mut missing) = (0, Vec::new());
    for document in documents() {
        for line in shown_commands(&read(&document)) {
            for word in line.split(|c: char| c.is_whitespace() || "()[],;'\"".contains(c)) {
                let word = word.trim_end_matches(['.', ':', '/']);
                // A name in capitals or angle brackets, a star or three dots stand for some file.
                let stands_for = word.contains(['<', '*', '…', '{'])
                    || word
                        .split(['/', '.'])
                        .any(|part| part.len() > 2 && part.chars().all(|c| c.is_ascii_uppercase() || c == '_'));
                if !FOLDERS.iter().any(|folder| word.starts_with(folder)) || stands_for || word == OWN {
                    continue;
                }
                seen += 1;
                if !root.join(word).exists() {
                    missing.push(format!("{document}: {word}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "named, and not there: {missing:#?}");
    assert!(seen >= 100, "only {seen} files found: is the search broken?");
}

/// The text with each `{…}` (Airflow's templates, Python's names) filled in: a date where it says `ds`, else a path.
fn filled_in(text: &str) -> String {
    let (mut filled, mut inner, mut depth) = (String::new(), String::new(), 0);
    for c in text.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    filled += if inner.split_whitespace().any(|word| word == "ds") { "2026-03-01" } else { "/a/path" };
                    inner.clear();
                }
            }
            c if depth > 0 => inner.push(c),
            c => filled.push(c),
        }
    }
    filled
}

/// The words of every call of intentcast in a crontab or a DAG, what the shell fills in filled in.
fn scheduled_calls(text: &str) -> Vec<Vec<String>> {
    let text = filled_in(&text.replace("\\\n", " "));
    let text = text.replace("\"$(date +\\%F)\"", "2026-03-01").replace("\"$CONFIG\"", "/a/path");
    let mut calls = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        for (at, _) in line.match_indices("intentcast ") {
            // As the end of a longer word, such as a path, it is another program.
            if line[..at].ends_with(|c: char| !c.is_whitespace() && c != '"') {
                continue;
            }
            let call = line[at..].split([';', '&', '|', '"']).next().unwrap();
            calls.push(call.split_whitespace().map(String::from).collect());
        }
    }
    calls
}

#[test]
fn cron_and_airflow_calls_parse() {
    use clap::Parser;
    let mut verbs = Vec::new();
    for path in files("jobs/cron", "crontab").into_iter().chain(files("jobs/airflow", "py")) {
        for call in scheduled_calls(&fs::read_to_string(&path).unwrap()) {
            let parsed = intentcast::commands::Cli::try_parse_from(&call);
            let parsed = parsed.unwrap_or_else(|e| panic!("{}: {}\n{e}", path.display(), call.join(" ")));
            assert!(parsed.settings.config.is_some(), "{}: {call:?} reads no configuration", path.display());
            verbs.push(format!("{:?}", parsed.verb).split([' ', '{', '(']).next().unwrap().to_string());
        }
    }
    verbs.sort();
    assert_eq!(verbs, ["Gc", "Gc", "Nightly", "Nightly", "Train", "Train"], "is the search broken?");
}

#[test]
fn scheduled_calls_are_found_with_all_of_their_words() {
    let cron = "# intentcast is run here\nCONFIG=/etc/x\n0 5 * * 0 intentcast --config \"$CONFIG\" train --date \"$(date +\\%F)\" \
                && /opt/intentcast gc; intentcast gc --nope\n";
    let words = |call: &str| call.split(' ').map(String::from).collect::<Vec<_>>();
    assert_eq!(
        scheduled_calls(cron),
        [words("intentcast --config /a/path train --date 2026-03-01"), words("intentcast gc --nope")]
    );
    let python = "run(f\"intentcast --config {CONFIG} train --date {{{{ end | ds }}}}\", \"intentcast\")\n\
                  B = \"\"\"\nintentcast \\\n    gc\ncode=$?\n";
    assert_eq!(
        scheduled_calls(python),
        [words("intentcast --config /a/path train --date 2026-03-01"), words("intentcast gc")]
    );
}

#[test]
fn every_document_is_linked_from_the_index() {
    let index = read("docs/README.md");
    for path in files("docs", "md") {
        let below = path
            .strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs"))
            .unwrap()
            .to_str()
            .unwrap()
            .to_string();
        assert!(below == "README.md" || index.contains(&format!("({below})")), "docs/README.md does not link {below}");
    }
    for link in index.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
        let file = link.split('#').next().unwrap_or(link);
        assert!(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(file).exists(),
            "docs/README.md: dead link {link}"
        );
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
        // An unpacked archive has no git; what is there then is what was packed, and what building adds.
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

/// Words of a private dialect that readers stumbled over, `-` at a place that keeps this file from holding them.
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

/// How often a file may still use them; a count that is too high fails as well, so the list only shrinks.
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
