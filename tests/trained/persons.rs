//! Persons who may not be scored are in no model and no answer, and nothing of any person leaves the tables.

use arrow::util::display::array_value_to_string;
use intentcast::config::Config;
use serde_json::json;
use std::path::Path;
use std::process::Command;

use crate::support::lakes;
use crate::support::server::{Server, clients_are_here};
use crate::support::sessions::training_session;
use crate::support::shop::{QUICK, night, places, query, shop};

/// The last day of the shop's events before the night, and the night.
const DAY: &str = "2026-02-19";
const NIGHT: &str = "2026-02-20";
/// Day of a training whose labels end with the night.
const PAST: &str = "2026-02-10";

/// Three who may not be scored, and someone who may; each sees an item of their own.
const PLANTED: [&str; 4] = ["refuses", "staff", "forgotten", "agrees"];

/// Writes events of these persons on some days, and what they said.
async fn plant(lake: &Path) {
    for (day, at) in ["2026-01-20", "2026-02-05", "2026-02-12", DAY].iter().zip(0..) {
        let rows: Vec<String> = PLANTED
            .iter()
            .flat_map(|who| {
                ["view", "cart", "purchase", "search"].map(|kind| {
                    let item = if kind == "search" { "NULL".into() } else { format!("'only-{who}'") };
                    format!("('{who}', '{kind}', {item})")
                })
            })
            .collect();
        let sql = format!(
            "SELECT user_id, concat('planted-', {at}, '-', row_number() OVER (ORDER BY user_id, event_type)) AS event_id, \
             arrow_cast(TIMESTAMP '{day} 10:00:00', 'Timestamp(Microsecond, None)') AS ts, event_type, item_id, \
             arrow_cast(TIMESTAMP '{day} 10:00:00', 'Timestamp(Microsecond, None)') AS arrived_at, 2.5 AS price, \
             CASE WHEN event_type = 'search' THEN 'bitter melon' END AS query \
             FROM (VALUES {}) AS t(user_id, event_type, item_id)",
            rows.join(", ")
        );
        lakes::write(lake, &format!("events/dt={day}/planted.parquet"), &sql).await;
    }
    let users = "SELECT user_id, consent, excluded FROM (VALUES ('refuses', false, false), ('staff', true, true), \
                 ('forgotten', true, false), ('agrees', true, false)) AS t(user_id, consent, excluded)";
    lakes::write(lake, "users/planted.parquet", users).await;
    lakes::write(lake, "erasures/planted.parquet", "SELECT 'forgotten' AS user_id").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_be_scored_is_in_no_training_and_no_table() {
    let (_own, lake, output) = shop();
    plant(Path::new(&lake)).await;
    let settings = [("lake.uri".to_string(), lake.clone()), ("output.uri".into(), output.clone())];
    let config = Config::resolve(None, [], &settings).unwrap();
    let ctx = training_session(&config, PAST, NIGHT).await;
    let who = async |sql: &str| {
        let batches = ctx.sql(sql).await.unwrap().collect().await.unwrap();
        let rows = batches
            .iter()
            .flat_map(|batch| (0..batch.num_rows()).map(|row| array_value_to_string(batch.column(0), row).unwrap()));
        let mut found: Vec<String> =
            rows.filter(|value| PLANTED.iter().any(|planted| value.contains(planted))).collect();
        found.sort();
        found.dedup();
        found.join(" ")
    };
    // What trainings and evaluations read: features, labels and next items of those in user_features.
    let joined = "FROM user_features m LEFT JOIN intent_labels l ON m.user_id = l.user_id LEFT JOIN next_items n ON n.user_id = m.user_id";
    assert_eq!(who("SELECT user_id FROM user_features").await, "agrees");
    assert_eq!(who(&format!("SELECT m.user_id {joined} WHERE l.y_purchase > 0")).await, "agrees");
    assert_eq!(who(&format!("SELECT unnest(n.next_items) {joined}")).await, "only-agrees");

    tokio::task::spawn_blocking(move || {
        night(&lake, &output, NIGHT);
        let named = PLANTED.map(|planted| format!("'{planted}'")).join(", ");
        for table in ["intent", "recommendation"] {
            let sql = format!("SELECT DISTINCT user_id FROM {table} WHERE user_id IN ({named})");
            assert_eq!(query(&output, &sql), "user_id\nagrees\n", "{table}");
        }
        // Their segments count the others.
        let users = "SELECT sum(users) <= (SELECT count(*) FROM intent) AS fits FROM segment";
        assert_eq!(query(&output, users), "fits\ntrue\n");
        let server = Server::start(&[], &["--lake", &lake, "--output", &output]);
        let view = json!([{ "ts": format!("{NIGHT}T10:00:00Z"), "event_type": "view", "item_id": "only-agrees" }]);
        for who in PLANTED {
            let (stored, live) = (
                server.get(&format!("/v1/users/{who}/intents")).0,
                server.post(&format!("/v1/users/{who}/intents"), &view).0,
            );
            let expected = if who == "agrees" { (200, 200) } else { (404, 403) };
            assert_eq!((stored, live), expected, "{who}");
            let explained = server.get(&format!("/v1/users/{who}/explanation")).0;
            assert_eq!(explained, expected.0, "{who}");
        }
        if clients_are_here("who_may_not_be_scored_is_in_no_training_and_no_table") {
            refuse_left_out(&server);
        }
    })
    .await
    .unwrap();
}

/// Fails where SQL shows someone who may not be scored: in a view with ids or features, or explained.
fn refuse_left_out(server: &Server) {
    let views = "SELECT DISTINCT concat(table_schema, '.', table_name) FROM information_schema.columns \
        WHERE column_name IN ('user_id', 'features') AND table_schema IN ('tables', 'features', 'lake', 'report')";
    let views = server.rows(views);
    assert!(views.len() >= 12, "{views:?}");
    let mut showing = 0;
    for view in &views {
        let rows = server.rows(&format!("SELECT * FROM {view}"));
        let names = |row: &String, who: &str| row.split(|c: char| !c.is_alphanumeric()).any(|word| word == who);
        for who in &PLANTED[..3] {
            assert_eq!(rows.iter().find(|row| names(row, who)), None, "{who} in {view}");
        }
        showing += usize::from(rows.iter().any(|row| names(row, PLANTED[3])));
    }
    assert!(showing >= 6, "{} is in {showing} of {views:?}", PLANTED[3]);
    for (who, at) in PLANTED.iter().zip(0..) {
        let parts = server.rows(&format!("SELECT * FROM explain_user('{who}')"));
        assert_eq!(parts.is_empty(), at < 3, "{who}: {parts:?}");
    }
}

/// Something of a person in every column of the lake that can have it.
const CANARY: &str = "kanarienvogel";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_person_is_logged_or_written_outside_the_tables() {
    let own = tempfile::tempdir().unwrap();
    let (_copy, from, _) = shop();
    let (lake, output) = places(own.path());
    lakes::copy(Path::new(&from), Path::new(&lake));
    for day in ["2026-02-10", "2026-02-14", DAY] {
        let sql = format!(
            "SELECT '{CANARY}-u' AS user_id, concat('{CANARY}-e-{day}', value) AS event_id, '{CANARY}-s' AS session_id, \
             arrow_cast(TIMESTAMP '{day} 10:00:00', 'Timestamp(Microsecond, None)') AS ts, \
             arrow_cast(TIMESTAMP '{day} 10:00:00', 'Timestamp(Microsecond, None)') AS arrived_at, \
             CASE value WHEN 0 THEN 'search' WHEN 1 THEN 'review' WHEN 2 THEN 'purchase' ELSE 'view' END AS event_type, \
             CASE WHEN value > 0 THEN 'i000001' END AS item_id, CASE WHEN value = 3 THEN -1.0 ELSE 2.5 END AS price, \
             CASE WHEN value = 0 THEN '{CANARY} query' END AS query, CASE WHEN value = 1 THEN '{CANARY} review' END AS text, \
             5 AS rating FROM range(0, 5)"
        );
        lakes::write(Path::new(&lake), &format!("events/dt={day}/canary.parquet"), &sql).await;
    }
    let users =
        format!("SELECT '{CANARY}-g' AS user_id, '{CANARY}-u' AS canonical_user_id, '{CANARY}-land' AS country");
    lakes::write(Path::new(&lake), "users/canary.parquet", &users).await;
    tokio::task::spawn_blocking(move || watch(&lake, &output)).await.unwrap();
}

fn watch(lake: &str, output: &str) {
    let places = ["--lake", lake, "--output", output];
    let report = format!("{output}/report");
    for (arguments, code) in [
        (&["train", "--date", NIGHT][..], 0),
        (&["nightly", "--date", NIGHT, "--dry-run"], 0),
        (&["nightly", "--date", NIGHT], 0),
        (&["nightly", "--date", NIGHT, "--set", "engine.memory_bytes_max=1"], 2),
        (&["evaluate", "--date", "2026-02-12"], 0),
        (&["check"], 0),
        (&["why", "--date", NIGHT], 0),
        (&["models"], 0),
        (&["report", "--to", &report], 0),
        (&["gc", "--dry-run"], 0),
        (&["doctor"], 0),
    ] {
        let takes_places = !["doctor"].contains(&arguments[0]);
        let only_output = ["check", "why", "models", "gc", "report"].contains(&arguments[0]);
        let places = match (takes_places, only_output) {
            (false, _) => &[][..],
            (true, true) => &places[2..],
            (true, false) => &places[..],
        };
        let ran = Command::new(env!("CARGO_BIN_EXE_intentcast"))
            .args(QUICK)
            .args(arguments)
            .args(places)
            .env("RUST_LOG", "intentcast=trace")
            .output()
            .unwrap();
        let said = [ran.stdout, ran.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(ran.status.code(), Some(code), "{arguments:?}\n{said}");
        assert!(!said.to_lowercase().contains(CANARY), "{arguments:?}\n{said}");
    }
    assert_eq!(query(output, &format!("SELECT count(*) FROM intent WHERE user_id = '{CANARY}-u'")), "count(*)\n1\n");
    let server = Server::start(&[], &["--lake", lake, "--output", output]);
    assert_eq!(server.get(&format!("/v1/users/{CANARY}-u/intents")).0, 200);
    let event =
        json!([{ "ts": format!("{NIGHT}T10:00:00Z"), "event_type": "search", "query": format!("{CANARY} again") }]);
    assert_eq!(server.post(&format!("/v1/users/{CANARY}-u/intents"), &event).0, 200);
    let (_, wrong) = server.post(&format!("/v1/users/{CANARY}-u/intents"), &json!([{ "event_type": CANARY }]));
    assert!(wrong["detail"].is_string(), "{wrong}");
    let metrics = server.get("/metrics").1.to_string();
    let said = server.errors() + &metrics;
    assert!(!said.to_lowercase().contains(CANARY), "{said}");
    drop(server);
    // Tables and state have the persons; nothing else does.
    let found = Command::new("grep").args(["-rlai", CANARY, output]).output().unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    let outside = found.lines().filter(|file| {
        let below = file.trim_start_matches(output);
        !["/tables/", "/state/rollups/", "/state/features/"].iter().any(|folder| below.starts_with(folder))
    });
    assert_eq!(outside.collect::<Vec<_>>(), Vec::<&str>::new());
}
