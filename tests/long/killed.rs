//! A night that is killed at any moment and run again equals an undisturbed one, and readers never see half of it.

use futures::StreamExt;
use intentcast::config::S3Config;
use intentcast::lake::stores::Location;
use intentcast::publish::night::FaultPoint;
use intentcast::publish::runs;
use intentcast::tables::schemas::NIGHT_TABLES;
use std::time::Duration;

use crate::support::nights::{self, publish};
use crate::support::stopping_store::StoppingStore;

/// A little longer than the expiry of [`nights::QUICK`], so that the dead owner's lock can be taken over.
const EXPIRED: Duration = Duration::from_millis(2300);

fn first() -> (String, i64, f64) {
    ("2026-03-01".into(), 4, 0.2)
}

fn second() -> (String, i64, f64) {
    ("2026-03-02".into(), 4, 0.25)
}

/// Stops after write `n` of the second night, or of the first, which also creates the tables, when `bare`.
/// Returns whether the whole night was visible at that moment, and how many of its commits were in the tables.
async fn stopped_after(n: u64, bare: bool) -> (bool, usize) {
    let output = nights::memory(&format!("stopped-{bare}-{n}"));
    let before = if bare { vec![] } else { vec![first()] };
    if !bare {
        publish(&output, "2026-03-01", 0.2).await.unwrap();
    }
    let commits = async || {
        let listed = output.list().await.unwrap();
        listed.iter().filter(|m| m.location.as_ref().contains("_delta_log/")).count()
    };
    let commits_before = commits().await;
    let (dying, store) = StoppingStore::over(&output, n);
    tokio::select! {
        _ = store.stopped() => {}
        result = publish(&dying, "2026-03-02", 0.25) => panic!("write {n}: expected to stop, got {result:?}"),
    }
    let whole: Vec<_> = before.iter().cloned().chain([second()]).collect();
    let seen = nights::intents(&output).await;
    assert!(seen == before || seen == whole, "after write {n}: {seen:?}");
    let landed = commits().await - commits_before;

    tokio::time::sleep(EXPIRED).await;
    publish(&output, "2026-03-02", 0.25).await.unwrap_or_else(|f| panic!("after write {n}: {f}"));
    assert_eq!(nights::intents(&output).await, whole, "after write {n}");
    assert_eq!(runs::history(&output).await.unwrap().len(), whole.len(), "after write {n}: one row a night");
    (seen == whole, landed)
}

async fn stopped_after_every_write(bare: bool) {
    let output = nights::memory(&format!("counted-{bare}"));
    if !bare {
        publish(&output, "2026-03-01", 0.2).await.unwrap();
    }
    let (counting, store) = StoppingStore::over(&output, u64::MAX);
    publish(&counting, "2026-03-02", 0.25).await.unwrap();
    let all = store.writes();
    let outcomes: Vec<_> = futures::stream::iter(1..=all)
        .map(|n| tokio::spawn(stopped_after(n, bare)))
        .buffered(64)
        .map(|joined| joined.unwrap())
        .collect()
        .await;
    // The stops cover every case: each number of finished commits occurs, and only the row in `runs` makes the night visible.
    let landed: Vec<usize> = outcomes.iter().map(|o| o.1).collect();
    let last = landed[landed.len() - 1];
    let commits = NIGHT_TABLES.len() + 1;
    assert_eq!(last, if bare { 2 * commits } else { commits }, "tables and runs, created first when bare: {landed:?}");
    assert!((0..=last).all(|count| landed.contains(&count)), "{landed:?}");
    assert!(outcomes.iter().all(|(visible, landed)| *visible == (*landed == last)), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_after_any_write_of_a_night() {
    stopped_after_every_write(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_after_any_write_of_the_very_first_night() {
    stopped_after_every_write(true).await;
}

/// Runs as the child of the test below: publishes a night and dies at the point that stdin names. Does nothing without one.
#[test]
#[ignore = "runs in a child process of another test"]
fn child_that_dies() {
    let line = std::io::read_to_string(std::io::stdin()).unwrap();
    let Some((folder, point)) = line.split_once('\n') else { return };
    let output = Location::open(folder, &S3Config::default()).unwrap();
    let fault = FaultPoint(Some(point.into()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(nights::publish_until(&output, "2026-03-02", 0.25, &fault)).unwrap();
}

/// Kills real processes on local files at a few points; the tests above cover all points.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_leaves_whole_nights_only() {
    let points = ["staged", "after-intent", "before-runs", "after-runs"];
    assert!(points.iter().all(|point| FaultPoint::names().contains(&point.to_string())));
    futures::future::join_all(points.map(|point| tokio::spawn(died_at(point))))
        .await
        .into_iter()
        .for_each(|joined| joined.unwrap());
}

async fn died_at(point: &'static str) {
    use std::io::Write;
    let folder = tempfile::tempdir().unwrap();
    let uri = folder.path().display().to_string();
    let output = Location::open(&uri, &S3Config::default()).unwrap();
    publish(&output, "2026-03-01", 0.2).await.unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "long::killed::child_that_dies", "--ignored", "--nocapture"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(format!("{uri}\n{point}").as_bytes()).unwrap();
    let died = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&died), Some(6), "{point}: the child was to abort");

    let whole = vec![first(), second()];
    let expected = if point == "after-runs" { whole.clone() } else { vec![first()] };
    assert_eq!(nights::intents(&output).await, expected, "{point}: readers see whole nights only");
    tokio::time::sleep(EXPIRED).await;
    publish(&output, "2026-03-02", 0.25).await.unwrap();
    assert_eq!(nights::intents(&output).await, whole, "{point}");
    assert_eq!(runs::history(&output).await.unwrap().len(), 2, "{point}: one row a night");
}
