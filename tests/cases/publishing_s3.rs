//! Publishing over the S3 protocol: conditional puts decide, and the rows equal those on local files.

use datafusion::prelude::SessionContext;
use intentcast::failure::FailureKind;
use intentcast::ids::Generation;
use intentcast::publish::lock;
use intentcast::publish::runs;
use intentcast::tables::write_files;
use std::process::Command;

use crate::support::lakes;
use crate::support::nights::{self, QUICK, date, publish};
use crate::support::s3::{Action, S3Server};

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_rivals_for_one_key_one_wins() {
    let server = S3Server::start();
    for round in 0..5 {
        let place = server.location("s3://lake/out");
        let tries = (0..50).map(|i| {
            let place = place.clone();
            tokio::spawn(async move { place.create(&format!("key-{round}"), format!("rival {i}")).await.unwrap() })
        });
        let won = futures::future::join_all(tries).await.into_iter().filter(|r| *r.as_ref().unwrap()).count();
        assert_eq!(won, 1, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nights_on_s3_equal_nights_on_local_files() {
    let server = S3Server::start();
    let folder = tempfile::tempdir().unwrap();
    let remote = server.location("s3://lake/some/out");
    let local =
        intentcast::lake::stores::Location::open(&folder.path().display().to_string(), &server.config()).unwrap();
    for output in [&remote, &local] {
        publish(output, "2026-03-01", 0.2).await.unwrap();
        publish(output, "2026-03-02", 0.25).await.unwrap();
        publish(output, "2026-03-02", 0.3).await.unwrap();
        runs::rollback(output, date("2026-03-02"), &QUICK).await.unwrap();
    }
    let rows = nights::intents(&remote).await;
    assert_eq!(rows, nights::intents(&local).await);
    assert_eq!(rows, [("2026-03-01".to_string(), 4, 0.2), ("2026-03-02".to_string(), 4, 0.25)]);
    assert!(server.bytes_read() > 0);
    assert!(server.keys().iter().any(|key| key.starts_with("lake/some/out/tables/intent/_delta_log/")));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_of_one_night_on_s3_one_wins_the_other_is_told_who() {
    let server = S3Server::start();
    let output = server.location("s3://lake/out");
    let first = lock::acquire(&output, date("2026-03-01"), &QUICK).await.unwrap();
    let second = publish(&output, "2026-03-01", 0.2).await.unwrap_err();
    assert_eq!(second.kind, FailureKind::Fenced);
    assert!(second.message.contains(&first.owner.host), "{second}");
    first.release().await.unwrap();
    publish(&output, "2026-03-01", 0.2).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_a_usage_failure() {
    let server = S3Server::start();
    let mut settings = server.config();
    settings.secret_access_key = "wrong".into();
    let place = intentcast::lake::stores::Location::open("s3://lake/out", &settings).unwrap();
    assert_eq!(place.read("any").await.unwrap_err().kind, FailureKind::Usage);
}

#[test]
fn a_profile_of_the_aws_files_gives_credentials() {
    let server = S3Server::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    let sections = [("default", "wrong"), ("night", "test-secret")];
    let text = sections
        .map(|(name, secret)| format!("[{name}]\naws_access_key_id = test-key\naws_secret_access_key = {secret}\n"));
    std::fs::write(&file, text.concat()).unwrap();
    let flags: Vec<String> =
        server.flags().chunks(2).filter(|f| !f[1].contains("access_key")).flatten().cloned().collect();
    let run = |profile: &[(&str, &str)], more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_intentcast"));
        command.env_clear().env("AWS_SHARED_CREDENTIALS_FILE", &file).envs(profile.iter().copied());
        command.args(["gc", "--output", "s3://lake/out", "--dry-run"]).args(&flags).args(more);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run(&[("AWS_PROFILE", "night")], &[]).0, Some(0));
    assert_eq!(run(&[], &["--set", "s3.profile=night"]).0, Some(0));
    assert_eq!(run(&[], &[]).0, Some(2), "the default profile's secret is wrong");
    let own = [("AWS_ACCESS_KEY_ID", "test-key"), ("AWS_SECRET_ACCESS_KEY", "test-secret")];
    assert_eq!(run(&own, &[]).0, Some(0), "the environment wins over the default profile");
    let (code, said) = run(&[("AWS_PROFILE", "unknown")], &[]);
    assert_eq!(code, Some(2));
    assert!(said.contains("unknown"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_store_request_is_a_usage_failure_everywhere() {
    let server = S3Server::start();
    let output = server.location("s3://lake/out");
    publish(&output, "2026-03-01", 0.2).await.unwrap();
    for (action, below) in [
        (Action::List, "lake/out/state/lock/"),
        (Action::Write, "lake/out/state/lock/"),
        (Action::Read, "lake/out/tables/runs/_delta_log/"),
        (Action::List, "lake/out/tables/intent/"),
        (Action::Write, "lake/out/tables/demand/_delta_log/"),
        (Action::Read, "lake/out/tables/intent/run_date="),
    ] {
        server.deny(action, below);
        let failure = publish(&output, "2026-03-02", 0.25).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Usage, "{action:?} below {below}: {failure}");
        assert!(failure.to_string().contains("hint: check the credentials"), "{action:?} below {below}: {failure}");
    }
    server.deny(Action::Write, "lake/out/tables/segment/run_date=");
    let ctx = SessionContext::new();
    let rows = ctx.sql("SELECT 'loyal' AS segment, 4 AS users").await.unwrap();
    let staged = write_files::stage(&ctx, rows, &output, "segment", (date("2026-03-02"), Generation(99))).await;
    assert_eq!(staged.unwrap_err().kind, FailureKind::Usage, "an operator's write");
    server.deny(Action::Delete, "lake/");
    let settings = intentcast::config::GcConfig { nights_kept: 1, orphan_age_hours: 0 };
    let plan = intentcast::publish::gc::plan(&output, &settings).await;
    assert_eq!(plan.unwrap_err().kind, FailureKind::Usage, "the probe of the store's clock cannot be deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_may_not_be_read_exits_2_and_says_why() {
    let server = S3Server::start();
    let folder = tempfile::tempdir().unwrap();
    let rows = [("e1", "u1", "2026-03-01 10:00:00", "view", "i1", "NULL", "NULL")];
    lakes::write(folder.path(), "e.parquet", &lakes::events(&rows)).await;
    let lake = server.location("s3://shop/lake");
    let bytes = std::fs::read(folder.path().join("e.parquet")).unwrap();
    lake.write("events/dt=2026-03-01/e.parquet", bytes).await.unwrap();
    let flags = server.flags();
    let query = ["sql", "--lake", "s3://shop/lake", "-c", "SELECT count(*) FROM events"];
    let arguments: Vec<&str> = query.into_iter().chain(flags.iter().map(String::as_str)).collect();
    let run = || tokio::task::block_in_place(|| crate::intentcast(&arguments));
    assert!(run().status.success(), "{}", String::from_utf8_lossy(&run().stderr));
    for action in [Action::List, Action::Read] {
        server.deny(action, "shop/lake/events/");
        let output = run();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{action:?}: {errors}");
        assert!(errors.contains("store refused access") && errors.contains("hint: "), "{action:?}: {errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn planning_a_gc_reads_each_commit_at_most_a_few_times() {
    let server = S3Server::start();
    let output = server.location("s3://lake/out");
    let settings = intentcast::config::GcConfig { nights_kept: 99, orphan_age_hours: 0 };
    let mut reads = Vec::new();
    for day in 1..=8 {
        publish(&output, &format!("2026-03-{day:02}"), 0.2).await.unwrap();
        if day % 4 == 0 {
            let before = server.reads();
            assert_eq!(intentcast::publish::gc::plan(&output, &settings).await.unwrap().orphan_files, []);
            reads.push(server.reads() - before);
        }
    }
    // Twice the nights read at most twice the commits; opening each night's version again would read four times as many.
    assert!(reads[1] <= reads[0] * 5 / 2, "object reads for 4 and 8 nights: {reads:?}");
}

#[test]
fn the_command_line_takes_s3_settings() {
    let flags = S3Server::start().flags();
    let arguments: Vec<&str> = ["doctor"].into_iter().chain(flags.iter().map(String::as_str)).collect();
    assert!(crate::intentcast(&arguments).status.success());
}
