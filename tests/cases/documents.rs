//! Reads the documents and schedules: commands and files that they name exist, and the index links every document.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::repository::{files, read};

/// Returns the text that a document shows as code: the lines of code blocks, and code spans.
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
            // Flags before the verb come in pairs with their values.
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

/// Returns the paths of the documents that people follow. Decisions are left out: they describe the past.
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
    // A folder below sql.folder that exists only where users write their own functions.
    const OWN: &str = "sql/functions";
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut seen, mut missing) = (0, Vec::new());
    for document in documents() {
        for line in shown_commands(&read(&document)) {
            for word in line.split(|c: char| c.is_whitespace() || "()[],;'\"".contains(c)) {
                let word = word.trim_end_matches(['.', ':', '/']);
                // A name in capitals or angle brackets, a star or three dots is a placeholder.
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

/// Replaces each `{…}` (Airflow's templates, Python's names): with a date where it contains `ds`, else with a path.
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

/// Returns the words of every call of intentcast in a crontab or a DAG, with the shell's variables replaced.
fn scheduled_calls(text: &str) -> Vec<Vec<String>> {
    let text = filled_in(&text.replace("\\\n", " "));
    let text = text.replace("\"$(date +\\%F)\"", "2026-03-01").replace("\"$CONFIG\"", "/a/path");
    let mut calls = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        for (at, _) in line.match_indices("intentcast ") {
            // The end of a longer word, such as a path, is another program.
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
    let expected = ["Gc", "Gc", "Nightly", "Nightly", "Promote", "Promote", "Report", "Report", "Train", "Train"];
    assert_eq!(verbs, expected, "is the search broken?");
}

/// Runs shell commands of a schedule with a program in the place of intentcast, whose verbs end with these exit codes. Returns the exit
/// code and the verbs that ran.
fn scheduled(commands: &str, promote: i32, train: i32) -> (Option<i32>, String) {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("intentcast");
    let verbs = folder.path().join("verbs");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *promote*) echo promote >>{0}; exit {promote};; *) echo train >>{0}; exit {train};; esac\n",
        verbs.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", folder.path().display());
    let status = Command::new("sh").args(["-c", commands]).env("PATH", path).status().unwrap();
    (status.code(), fs::read_to_string(&verbs).unwrap().replace('\n', " "))
}

#[test]
fn the_weekly_jobs_train_whatever_becomes_of_last_weeks_model() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crontab = fs::read_to_string(root.join("jobs/cron/intentcast.crontab")).unwrap();
    let entry = crontab.lines().find(|line| line.contains("promote newest") && !line.starts_with('#')).unwrap();
    let entry = entry.split_whitespace().skip(5).collect::<Vec<_>>().join(" ").replace("\\%", "%");
    for (promote, train, expected) in [(0, 0, 0), (4, 0, 0), (6, 0, 6), (75, 0, 75), (0, 3, 3), (4, 70, 70), (75, 3, 3)]
    {
        let (code, verbs) = scheduled(&entry, promote, train);
        assert_eq!((code, verbs.as_str()), (Some(expected), "promote train "), "promote {promote}, train {train}");
    }
    let dag = filled_in(&fs::read_to_string(root.join("jobs/airflow/intentcast_training.py")).unwrap());
    let judged = dag.lines().find(|line| line.contains("promote newest ||")).unwrap();
    let judged = judged.split('"').nth(1).unwrap();
    for (promote, succeeds) in [(0, true), (4, true), (6, false), (75, false)] {
        assert_eq!(scheduled(judged, promote, 0).0 == Some(0), succeeds, "{promote}: {judged}");
    }
    assert!(dag.contains("trigger_rule=\"all_done\""), "Airflow trains too");
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
fn pages_are_short_enough_to_be_read() {
    let lines = |page: &String| read(page).lines().count();
    let pages: Vec<String> = documents().into_iter().filter(|page| page.starts_with("docs/")).collect();
    let (models, others): (Vec<String>, Vec<String>) = pages.into_iter().partition(|p| p.starts_with("docs/models/"));
    let all_models: usize = models.iter().map(lines).sum();
    assert!(!models.is_empty() && all_models <= 900, "docs/models has {all_models} lines, at most 900 in all");
    let written = others.iter().filter(|page| !page.starts_with("docs/reference/"));
    let long: Vec<(&String, usize)> =
        written.map(|page| (page, lines(page))).filter(|(_, lines)| *lines > 200).collect();
    assert!(others.len() > 10 && long.is_empty(), "more than 200 lines: {long:?}");
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
