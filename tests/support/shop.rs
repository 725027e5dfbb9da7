//! A simulated shop with a small trained model, and functions that run the binary on it.

use intentcast::lake::stores::Location;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::LazyLock;

use super::published::{Published, published_at};
use super::s3::S3Server;
use super::{canaries, lakes};

/// Settings of a small model that trains in seconds.
pub const QUICK: [&str; 16] = [
    "--set",
    "model.width=16",
    "--set",
    "model.layers=1",
    "--set",
    "train.epochs_max=2",
    "--set",
    "train.as_of_dates=2",
    "--set",
    "demand.as_of_dates=2",
    "--set",
    "demand.horizon_days=14",
    "--set",
    "lock.heartbeat_seconds=1",
    "--set",
    "lock.expiry_seconds=8",
];
/// A text encoder of random weights, small enough for tests.
pub const ENCODER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/text/minilm");
/// The date as of which the shop's model was trained.
pub const TRAINED_ON: &str = "2026-02-20";

/// Runs the binary with the settings of [`QUICK`].
pub fn run(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_intentcast")).args(QUICK).args(arguments).output().unwrap();
    canaries::refuse_persons(arguments, &String::from_utf8_lossy(&output.stderr));
    output
}

/// Runs a verb that must succeed; returns its standard output.
pub fn done(arguments: &[&str]) -> String {
    let output = run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {:?}\n{errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a verb that must fail with `code`; returns its standard error.
pub fn refused(arguments: &[&str], code: i32) -> String {
    let output = run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{errors}");
    errors
}

/// Returns path and content hash of every file below a folder.
pub fn contents(folder: &str) -> BTreeMap<String, String> {
    let listed = Command::new("sh").arg("-c").arg(format!("cd {folder} && find . -type f | xargs sha256sum")).output();
    let text = String::from_utf8(listed.unwrap().stdout).unwrap();
    text.lines().map(|l| l.split_once("  ").unwrap()).map(|(hash, name)| (name.into(), hash.into())).collect()
}

/// A lake and a model, made once for all tests; each test copies them.
static SHOP: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let shop = tempfile::tempdir().unwrap();
    let (lake, output) = places(shop.path());
    // With bad rows, so that every table of a night has rows.
    let size = ["--users", "300", "--items", "30", "--days", "60", "--seed", "5", "--faults"];
    done(&[&["simulate", "--to", &lake][..], &size].concat());
    let encoder = format!("model.text_encoder={ENCODER}");
    done(&["--set", &encoder, "train", "--lake", &lake, "--output", &output, "--date", TRAINED_ON]);
    shop
});

/// Returns the URIs of lake and output below a folder.
pub fn places(folder: &Path) -> (String, String) {
    (folder.join("lake").display().to_string(), folder.join("out").display().to_string())
}

/// Copies the shop; returns the folder, which owns the copy, and the URIs of lake and output.
pub fn shop() -> (tempfile::TempDir, String, String) {
    let own = tempfile::tempdir().unwrap();
    lakes::copy(&SHOP.path().join("."), own.path());
    let (lake, output) = places(own.path());
    (own, lake, output)
}

/// The night of [`shop_with_a_night`].
pub const FIRST_NIGHT: &str = "2026-02-21";

static SHOP_WITH_A_NIGHT: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let (own, lake, output) = shop();
    night(&lake, &output, FIRST_NIGHT);
    own
});

/// Copies the shop with the published night of [`FIRST_NIGHT`], for tests that need one and look at no report of it. The files of the
/// lake are linked, because a copy would be another file to the stored rollups: tests add files to it and change none.
pub fn shop_with_a_night() -> (tempfile::TempDir, String, String) {
    let own = tempfile::tempdir().unwrap();
    let (lake, output) = places(own.path());
    let (shops_lake, shops_output) = places(SHOP_WITH_A_NIGHT.path());
    let linked = Command::new("cp").args(["-al", &shops_lake, &lake]).status().unwrap();
    assert!(linked.success(), "{shops_lake} to {lake}");
    lakes::copy(Path::new(&shops_output), Path::new(&output));
    (own, lake, output)
}

/// Runs a night; returns its JSON report.
pub fn night(lake: &str, output: &str, date: &str) -> Value {
    night_with(&[], lake, output, date)
}

/// Runs a night that publishes the intents behind each item, however few users they are of.
pub fn night_of_all(lake: &str, output: &str, date: &str) -> Value {
    night_with(&["--set", "privacy.k_min=1"], lake, output, date)
}

/// Runs a night with flags before the verb; returns its JSON report.
pub fn night_with(settings: &[&str], lake: &str, output: &str, date: &str) -> Value {
    let verb = ["nightly", "--lake", lake, "--output", output, "--date", date, "--format", "json"];
    serde_json::from_str(done(&[settings, &verb].concat()).trim()).unwrap()
}

/// Queries the published tables; returns CSV.
pub fn query(output: &str, query: &str) -> String {
    done(&["sql", "--output", output, "--format", "csv", "-c", query])
}

/// Copies the champion under another version and edits the copy's card. Returns both versions.
pub fn challenger(output: &str, edit: impl Fn(&mut Value)) -> (String, String) {
    let models = Path::new(output).join("models");
    let champion = champion(output);
    let copy = "20260220-00000000".to_string();
    lakes::copy(&models.join(&champion), &models.join(&copy));
    let card = models.join(&copy).join("bundle.json");
    let text = std::fs::read_to_string(&card).unwrap().replace(&champion, &copy);
    let mut changed: Value = serde_json::from_str(&text).unwrap();
    edit(&mut changed);
    std::fs::write(&card, changed.to_string()).unwrap();
    (champion, copy)
}

/// Returns the version of the champion.
pub fn champion(output: &str) -> String {
    std::fs::read_to_string(format!("{output}/models/champion")).unwrap().trim().to_string()
}

/// Tables of an undisturbed night of [`FIRST_NIGHT`] in one process on local files.
pub static UNDISTURBED: LazyLock<Published> = LazyLock::new(|| published_at(&places(SHOP_WITH_A_NIGHT.path()).1));

/// Returns the numbers of a query's only row.
pub fn numbers(arguments: &[&str], sql: &str) -> Vec<f64> {
    let printed = done(&[&["sql", "--format", "csv"], arguments, &["-c", sql]].concat());
    printed.lines().nth(1).unwrap().split(',').map(|n| n.parse().unwrap()).collect()
}

/// Returns a JSON column of the newest row of `runs` for a date.
pub fn run_column(output: &str, column: &str, date: &str) -> Value {
    let sql = format!(
        "SELECT replace({column}, '\"', '''') AS value FROM runs WHERE run_date = DATE '{date}' \
         ORDER BY generation DESC LIMIT 1"
    );
    let printed = query(output, &sql);
    let text = printed.lines().nth(1).unwrap().trim_matches('"').replace('\'', "\"");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Starts an S3 server that holds `lake` and `output` as s3://shop/lake and s3://shop/out.
pub fn upload(lake: &str, output: &str) -> S3Server {
    let server = S3Server::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for (folder, uri) in [(lake, "s3://shop/lake"), (output, "s3://shop/out")] {
            let from = Location::open(folder, &server.config()).unwrap();
            let to = server.location(uri);
            for object in from.list().await.unwrap() {
                let name = format!("/{}", object.location);
                let name = name.strip_prefix(&format!("{folder}/")).unwrap().to_string();
                to.write(&name, from.read(&name).await.unwrap()).await.unwrap();
            }
        }
    });
    server
}
