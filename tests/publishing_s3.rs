//! The same publishing on a real S3 protocol: conditional puts decide, and the rows equal those of local files.

use intentcast::failure::FailureKind;
use intentcast::publish::lock;
use intentcast::publish::runs;

use crate::support::nights::{self, QUICK, date, publish};
use crate::support::s3::S3Server;

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
fn the_command_line_takes_the_servers_settings() {
    let flags = S3Server::start().flags();
    let arguments: Vec<&str> = ["doctor"].into_iter().chain(flags.iter().map(String::as_str)).collect();
    assert!(crate::intentcast(&arguments).status.success());
}
