//! Independent programs that open what we made: Chromium by playwright-core, LibreOffice, and the server's clients.

use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::repository::root;

/// Program or file that a test needs on this machine.
pub enum Client<'a> {
    Program(&'a str),
    File(&'a Path),
}

/// Returns whether the browser and the spreadsheet program are here (see [`all_here`]).
pub fn are_here(test: &str) -> bool {
    let stamp = root().join(".clients/stamp");
    all_here(
        test,
        &[Client::Program("chromium"), Client::Program("localc"), Client::Program("node"), Client::File(&stamp)],
    )
}

/// Returns false where a client is missing and may be: not as root, and not with `CI=true`. Says so once for each test.
#[allow(clippy::disallowed_methods)] // no setting of the job
#[allow(clippy::explicit_write)] // the test harness shows eprintln only where a test fails
pub fn all_here(test: &str, wanted: &[Client<'_>]) -> bool {
    let has = |command: &str| {
        let found = Command::new("sh").args(["-c", &format!("command -v {command}")]).stdout(Stdio::null()).status();
        found.unwrap().success()
    };
    let missing = wanted.iter().filter_map(|client| match client {
        Client::Program(command) => (!has(command)).then(|| (*command).to_string()),
        Client::File(path) => (!path.exists()).then(|| path.display().to_string()),
    });
    let missing: Vec<String> = missing.collect();
    let user = Command::new("id").arg("-u").output().unwrap();
    let is_root = user.stdout.starts_with(b"0\n");
    let is_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    match Use::decide(&missing, is_root, is_ci) {
        Use::Run => true,
        Use::Fail(missing) => panic!("missing: {missing}\nhint: run infra/setup/clients.sh"),
        Use::Skip(missing) => {
            static SKIPPED: AtomicUsize = AtomicUsize::new(0);
            let skipped = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
            let line =
                format!("SKIPPED {test} ({skipped} by now): missing {missing}; hint: run infra/setup/clients.sh");
            writeln!(std::io::stderr(), "{line}").unwrap();
            false
        }
    }
}

/// A test's choice, with the names of the clients that are missing.
#[derive(Debug, PartialEq, Eq)]
enum Use {
    Run,
    Skip(String),
    Fail(String),
}

impl Use {
    /// Decides: root and CI can install every client, so that one that is missing there is a failure.
    fn decide(missing: &[String], is_root: bool, is_ci: bool) -> Self {
        match (missing.is_empty(), is_root || is_ci) {
            (true, _) => Self::Run,
            (false, true) => Self::Fail(missing.join(", ")),
            (false, false) => Self::Skip(missing.join(", ")),
        }
    }
}

#[test]
fn a_missing_client_fails_as_root_or_in_ci_and_else_skips() {
    let missing = ["psql".to_string(), "openssl".to_string()];
    let names = || "psql, openssl".to_string();
    for (is_root, is_ci) in [(true, false), (false, true), (true, true)] {
        assert_eq!(Use::decide(&missing, is_root, is_ci), Use::Fail(names()));
        assert_eq!(Use::decide(&[], is_root, is_ci), Use::Run);
    }
    assert_eq!(Use::decide(&missing, false, false), Use::Skip(names()));
    assert_eq!(Use::decide(&[], false, false), Use::Run);
}

/// Opens a report's page in Chromium; returns what it saw (tests/support/open_report.mjs).
pub fn open_page(page: &Path) -> Value {
    let script = root().join("tests/support/open_report.mjs");
    run(Command::new("node").arg(script).arg(format!("file://{}", page.display())))
}

/// Opens the page of an evaluation in Chromium; returns what it saw (tests/support/open_evaluation.mjs).
pub fn open_evaluation(page: &Path) -> Value {
    let script = root().join("tests/support/open_evaluation.mjs");
    run(Command::new("node").arg(script).arg(format!("file://{}", page.display())))
}

/// Uses the page of a support agent in Chromium; returns what it saw (tests/support/open_agent.mjs).
pub fn open_agent(page: &str, user: &str) -> Value {
    run(Command::new("node").arg(root().join("tests/support/open_agent.mjs")).args([page, user]))
}

/// Edits cells of a workbook's first sheet and lets LibreOffice compute it; returns the rows of each sheet, by name.
pub fn recalculate(workbook: &Path, edits: &[(String, f64)]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let script = root().join("tests/support/recalculate.py");
    let edits = edits.iter().map(|(cell, number)| format!("{cell}={number}"));
    run(Command::new("python3").arg(script).arg(workbook).arg(folder.path()).args(edits))
}

/// Runs a program that must succeed; returns the JSON that it prints.
pub fn run(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {errors}"))
}
