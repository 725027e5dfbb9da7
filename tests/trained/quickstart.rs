//! Runs the commands that the documents show: the quickstart from its first block to its last, then the runbook in its shop.
//!
//! A comment before a block says what to do with it: `<!-- run -->`, or `<!-- file: NAME -->` for a file to write.
//! All other blocks of commands are listed in [`NOT_RUN`], each with the reason.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::support::lakes;
use crate::support::pages::{blocks, check_sessions, follow};
use crate::support::server::{Server, clients_are_here, python};

/// Blocks of commands that no test runs as they are: document (empty: all), how the block begins (empty: all), why.
const NOT_RUN: [(&str, &str, &str); 21] = [
    ("", "make ", "would build, or run this suite again"),
    ("", "cargo ", "would run this suite again"),
    ("README.md", "intentcast train", "needs a bucket; tests/trained/nightly.rs runs the same on S3"),
    ("docs/quickstart.md", "git clone", "the binary under test is built already"),
    ("docs/runbook.md", "intentcast train", "the quickstart trains"),
    ("docs/howto/add-feature.md", "intentcast sql", "needs the reader's feature; tests/cases/features.rs adds two"),
    ("docs/howto/lake.md", "", "tests/cases/importing.rs follows this page with the files that it shows"),
    (
        "docs/howto/lake-analytics-export.md",
        "",
        "tests/cases/analytics_export.rs follows this page with a made-up export",
    ),
    ("docs/howto/public-data.md", "", "needs a publisher's files; tests/cases/importing.rs imports made-up ones"),
    ("docs/howto/s3.md", "", "needs a bucket; tests/trained/nightly.rs runs nights on S3"),
    ("docs/howto/serve.md", "", "a server runs until it is stopped; tests/trained/serve.rs starts several"),
    ("docs/howto/sql-sessions.md", "intentcast", "a server runs until it is stopped; a test below starts it"),
    ("docs/howto/report.md", "", "needs a bucket; the quickstart writes a report"),
    ("docs/howto/cron.md", "crontab", "would replace the crontab; tests/cases/documents.rs parses its entries"),
    ("docs/howto/cron.md", "intentcast models", "the runbook's blocks promote a model"),
    ("docs/howto/upgrade.md", "", "needs two versions"),
    ("docs/howto/encoder.md", "", "downloads weights; tests/trained/text.rs uses a small encoder"),
    ("docs/howto/gpu.md", "", "needs a GPU"),
    ("docs/models/language.md", "", "needs a pretrained encoder; tests/trained/text.rs trains and calls small ones"),
    ("docs/models/tables.md", "", "needs the reader's table; tests/trained/tables.rs trains on made-up ones"),
    ("docs/models/vision.md", "", "needs pictures and weights; tests/trained/image.rs trains and calls small ones"),
];

/// Beginnings of a line of commands.
const COMMANDS: [&str; 4] = ["intentcast ", "make ", "cargo ", "crontab "];

/// The shop that the quickstart makes, and the output of each of its blocks.
struct Shop {
    folder: tempfile::TempDir,
    printed: Vec<String>,
}

static SHOP: LazyLock<Shop> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let printed = follow("docs/quickstart.md", folder.path(), str::to_string);
    Shop { folder, printed }
});

#[test]
fn the_quickstart_leads_to_two_published_nights() {
    let all = SHOP.printed.concat();
    assert!(all.contains("model 20260401-"), "{all}");
    for night in ["night of 2026-04-01 published", "night of 2026-04-02 published"] {
        assert!(all.contains(night), "expected {night} in\n{all}");
    }
    assert!(all.contains("read 1 files"), "the second night reads one file\n{all}");
    let demand = fs::read_to_string(SHOP.folder.path().join("demand.csv")).unwrap();
    assert!(demand.starts_with("item_id,target_date,mean,q50,q90\n") && demand.lines().count() > 40 * 14, "{demand}");
}

#[test]
fn the_runbook_works_in_the_shop_of_the_quickstart() {
    let folder = tempfile::tempdir().unwrap();
    lakes::copy(&SHOP.folder.path().join("."), folder.path());
    let version = fs::read_to_string(folder.path().join("out/models/champion")).unwrap();
    let fill = |text: &str| {
        let places = text.replace("--lake LAKE --output OUT", "--config shop.toml").replace("OUT", "out");
        let dates =
            places.replace("2026-03-01..2026-03-14", "2026-04-01..2026-04-02").replace("2026-03-14", "2026-04-02");
        dates.replace("--date D", "--date 2026-04-02").replace("VERSION", version.trim())
    };
    let printed = follow("docs/runbook.md", folder.path(), fill);
    assert!(
        printed.concat().contains("visible now: 2026-04-02 generation 1"),
        "the rollback shows the generation before\n{printed:?}"
    );
    let printed = follow("docs/howto/erase.md", folder.path(), str::to_string);
    assert!(
        printed[0].contains("/tables/intent/") && printed[1].ends_with("\n0 files hold one of the ids\n"),
        "{printed:?}"
    );
}

#[test]
fn the_sessions_of_the_documents_print_what_they_show() {
    if !clients_are_here("the_sessions_of_the_documents_print_what_they_show") {
        return;
    }
    let folder = SHOP.folder.path();
    let path = |name: &str| folder.join(name).display().to_string();
    let server =
        Server::start(&[], &["--config", &path("shop.toml"), "--lake", &path("lake"), "--output", &path("out")]);
    let run = |program: &str, text: &str| {
        let text = text
            .replace("-h localhost", &format!("-X -h localhost -p {}", server.pg))
            .replace("localhost/shop", &format!("localhost:{}/shop", server.pg))
            .replace("localhost:32010", &format!("localhost:{}", server.flight));
        let mut command = match program {
            "python" => Command::new(python()),
            program => Command::new(program),
        };
        let ran = command.args(["-c", &text]).current_dir(folder).output().unwrap();
        let errors = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{text}\n{errors}");
        String::from_utf8(ran.stdout).unwrap()
    };
    check_sessions("docs/howto/sql-sessions.md", run);
}

/// Returns the documents that show commands: the README, and docs/ without decisions and generated references.
fn documents() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found: Vec<PathBuf> = vec!["README.md".into(), "CONTRIBUTING.md".into()];
    for folder in ["docs", "docs/howto", "docs/models"] {
        let entries = fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        let pages = entries.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
        found.extend(pages.map(|path| path.strip_prefix(root).unwrap().to_path_buf()));
    }
    found.sort();
    found.iter().map(|path| path.display().to_string()).collect()
}

#[test]
fn commands_are_run_or_listed_with_a_reason() {
    let (mut unlisted, mut used) = (Vec::new(), Vec::new());
    for document in documents() {
        for block in blocks(&document) {
            let command = |line: &str| COMMANDS.iter().any(|command| line.trim_start().starts_with(command));
            if !block.text.lines().any(command) || !block.mark.is_empty() {
                continue;
            }
            let begins = block.text.trim_start();
            let listed = |page: &str, start: &str| (page.is_empty() || page == document) && begins.starts_with(start);
            match NOT_RUN.iter().find(|(page, start, _)| listed(page, start)) {
                Some(entry) => used.push(entry),
                None => unlisted.push(format!("{document}: {}", begins.lines().next().unwrap_or_default())),
            }
        }
    }
    assert!(unlisted.is_empty(), "neither marked `run` nor listed in NOT_RUN: {unlisted:#?}");
    let idle: Vec<_> = NOT_RUN.iter().filter(|entry| !used.contains(entry)).collect();
    assert!(idle.is_empty(), "no block begins like this: {idle:?}");
}
