//! Persons are taken out of the lake's own files: plain ones, Delta tables, and buckets that keep versions.

use datafusion::prelude::{SessionContext, col, lit};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::support::s3::Action;
use crate::support::shop::{contents, done, refused, upload};
use crate::support::small_lake::SmallLake;

/// Rows of ten users, u1 to u10, as one file has them; the guest g7 became u7.
fn events(day: u32, file: &str, owner: &str) -> String {
    // Ten o'clock.
    let first = 1_767_225_600 + (day - 1) * 86_400 + 36_000;
    format!(
        "SELECT {owner} AS user_id, concat('{file}', {day}, '-', value) AS event_id, \
         arrow_cast(to_timestamp_seconds({first} + value), 'Timestamp(Microsecond, None)') AS ts, \
         'purchase' AS event_type, 'i1' AS item_id, value / 3.0 AS price, \
         [named_struct('key', value, 'word', concat('w', value))] AS extra FROM range(0, 1000)"
    )
}

const LOGIN: &str = "concat('u', value % 10 + 1)";

async fn shop() -> SmallLake {
    let lake = SmallLake::new();
    lake.write("events/dt=2026-01-05/a.parquet", &events(5, "a", LOGIN)).await;
    lake.write("events/dt=2026-01-05/b.parquet", &events(5, "b", "concat('x', value)")).await;
    lake.write("events/dt=2026-01-06/a.parquet", &events(6, "a", "CASE WHEN value = 7 THEN 'g7' ELSE 'u1' END")).await;
    lake.write("users/a.parquet", "SELECT 'g7' AS user_id, 'u7' AS canonical_user_id UNION ALL SELECT 'u1', NULL")
        .await;
    lake.write("erasures/a.parquet", "SELECT 'u7' AS user_id UNION ALL SELECT 'u77'").await;
    lake
}

fn arguments<'a>(places: &'a [String; 2], more: &[&'a str]) -> Vec<&'a str> {
    [&["erase", "--lake", &places[0], "--output", &places[1], "--rewrite-lake"], more].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_leaves_the_files_and_all_others_stay() {
    let lake = shop().await;
    let places = lake.places();
    let others = "SELECT event_id, user_id, ts, price, _file FROM events WHERE user_id NOT IN ('u7', 'g7') ORDER BY event_id, user_id";
    let before = lake.rows(&[], others);
    assert_eq!(before.len(), 3000 - 101);
    let files = contents(&places[0]);
    let planned = done(&arguments(&places, &["--user", "u7", "--dry-run"]));
    assert!(planned.contains("would erase 2 ids: g7, u7\n"), "{planned}");
    // 100 events and one of the guest, a row of users, a row of erasures.
    assert!(planned.contains("would go from the lake: 103 rows in 4 files"), "{planned}");
    assert_eq!(contents(&places[0]), files);

    let printed = done(&arguments(&places, &["--user", "g7"]));
    assert!(printed.contains("gone from the lake: 103 rows in 4 files"), "{printed}");
    assert_eq!(lake.rows(&[], others), before);
    let after = contents(&places[0]);
    let changed: Vec<&str> =
        files.iter().filter(|(name, hash)| after[*name] != **hash).map(|(n, _)| n.as_str()).collect();
    let b = changed.iter().any(|name| name.ends_with("b.parquet"));
    assert!(changed.len() == 4 && !b && after.len() == files.len(), "{changed:?}");
    let again = done(&arguments(&places, &["--user", "g7", "--dry-run"]));
    assert!(again.contains("would go from the lake: 0 rows in 0 files"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_stay_for_the_hours_of_grace() {
    let lake = shop().await;
    let places = lake.places();
    let files = contents(&places[0]);
    let wait = ["--set", "erase.grace_hours=1"];
    let said = refused(&[&wait, &arguments(&places, &["--user", "u7"])[..]].concat(), 75);
    assert!(said.contains("2 ids are hidden") && said.contains("erase.grace_hours"), "{said}");
    assert_eq!(contents(&places[0]), files);
    assert_eq!(
        lake.rows(&[], "SELECT count(*) FROM user_event WHERE user_id IN ('u7', 'g7')"),
        ["0"],
        "hidden already"
    );
    // A person whose hours are over goes, while another one waits.
    let record = Path::new(&places[1]).join("state/erasure/people.json");
    let text = std::fs::read_to_string(&record).unwrap();
    let mut people: serde_json::Value = serde_json::from_str(&text).unwrap();
    for person in people["people"].as_object_mut().unwrap().values_mut() {
        person["noted_at"] = "2026-01-01T00:00:00Z".into();
    }
    std::fs::write(&record, people.to_string()).unwrap();
    let said = refused(&[&wait, &arguments(&places, &["--user", "x1"])[..]].concat(), 75);
    assert!(said.contains("1 ids are hidden"), "{said}");
    let left = "SELECT count(*) FROM raw_events WHERE user_id IN ('u7', 'g7')";
    assert_eq!(lake.rows(&[], left), ["0"]);
    assert_eq!(lake.rows(&[], "SELECT count(*) FROM raw_events WHERE user_id = 'x1'"), ["1"]);
    done(&arguments(&places, &["--user", "x1"]));
    assert_eq!(lake.rows(&[], "SELECT count(*) FROM raw_events WHERE user_id = 'x1'"), ["0"]);
}

const TO_DELTA: &str = "
import sys, duckdb, deltalake, shutil
for folder, by in (('events', ['country']), ('users', None), ('erasures', None)):
    path = sys.argv[1] + '/' + folder
    columns = \"* EXCLUDE (extra), CASE WHEN user_id < 'u5' THEN 'a b/c' END AS country\" if by else '*'
    duckdb.sql(f\"CREATE TABLE {folder} AS SELECT {columns} FROM read_parquet('{path}/**/*.parquet', hive_partitioning=false)\")
    shutil.rmtree(path)
    deltalake.write_deltalake(path, duckdb.table(folder), partition_by=by)
# Retires files that still have everyone.
deltalake.DeltaTable(sys.argv[1] + '/events').delete(\"user_id = 'u3'\")
";

const READ_DELTA: &str = "
import sys
from deltalake import DeltaTable, QueryBuilder
table = DeltaTable(sys.argv[1] + '/events')
assert table.history()[0]['operation'] == 'DELETE', table.history()
sql = 'SELECT event_id, user_id, ts, price, country FROM events ORDER BY event_id, user_id'
for batch in QueryBuilder().register('events', table).execute(sql):
    columns = [batch.column(at).to_pylist() for at in range(5)]
    for row in zip(*columns): print(*row)
";

fn python(script: &str, folder: &str) -> String {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let ran = Command::new(python).args(["-c", script, folder]).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

/// Returns the data files of a folder that hold a person, whether a log names them or not.
async fn files_with(folder: &Path, id: &str) -> usize {
    let ctx = SessionContext::new();
    let mut found = 0;
    for file in contents(folder.to_str().unwrap()).keys().filter(|name| name.ends_with(".parquet")) {
        let path = folder.join(file).display().to_string();
        let rows = ctx.read_parquet(path, Default::default()).await.unwrap();
        let count = rows.filter(col("user_id").eq(lit(id))).unwrap().count().await.unwrap();
        found += usize::from(count > 0);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_table_is_changed_by_a_commit() {
    let lake = shop().await;
    let places = lake.places();
    python(TO_DELTA, &places[0]);
    let before = python(READ_DELTA, &places[0]);
    let rows = events(5, "c", LOGIN);
    let events = Path::new(&places[0]).join("events");
    assert!(files_with(&events, "u7").await > 0);
    let commits = || std::fs::read_dir(events.join("_delta_log")).unwrap().count();
    let there = commits();
    let settings = ["--set", "lake.partition=none"];
    let printed = done(&[&settings, &arguments(&places, &["--user", "u7", "--user", "u1"])[..]].concat());
    assert!(printed.contains("gone from the lake: "), "{printed}");
    let is_other = |line: &&str| !["u7", "g7", "u1"].contains(&line.split(' ').nth(1).unwrap());
    let others: Vec<&str> = before.lines().filter(is_other).collect();
    assert_eq!(python(READ_DELTA, &places[0]).lines().collect::<Vec<_>>(), others);
    assert_eq!(commits(), there + 1);
    // Retired files, also those that others had retired, are removed where they hold the persons.
    for id in ["u7", "g7", "u1"] {
        assert_eq!(files_with(&events, id).await, 0, "{id}");
    }
    // So are those that no log entry names, unless a write that is under way may be about to commit them.
    let (orphan, changes) = (events.join("orphan.parquet"), events.join("_change_data/cdc.parquet"));
    std::fs::create_dir_all(changes.parent().unwrap()).unwrap();
    let hold = |file: &Path| file.strip_prefix(&places[0]).unwrap().display().to_string();
    for file in [&orphan, &changes] {
        lake.write(&hold(file), &rows).await;
    }
    lake.write("events/other.parquet", &format!("SELECT * FROM ({rows}) AS e WHERE user_id NOT IN ('u1', 'u7')")).await;
    let again = [&settings, &arguments(&places, &["--user", "u7"])[..]].concat();
    let said = refused(&again, 75);
    assert!(said.contains("and so does 1 other: a write may be under way"), "{said}");
    assert!(orphan.exists() && changes.exists());
    for file in [&orphan, &changes] {
        let hours_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
        std::fs::File::options().write(true).open(file).unwrap().set_modified(hours_ago).unwrap();
    }
    done(&again);
    assert!(!orphan.exists() && !changes.exists() && events.join("other.parquet").exists());
    assert_eq!(commits(), there + 1);
    // Such a table takes no deletion.
    let log = events.join("_delta_log");
    let first = std::fs::read_to_string(log.join("00000000000000000000.json")).unwrap();
    let metadata = first.lines().find(|line| line.contains("\"metaData\"")).unwrap();
    let only = metadata.replace("\"configuration\":{}", "\"configuration\":{\"delta.appendOnly\":\"true\"}");
    assert_ne!(only, metadata);
    std::fs::write(log.join(format!("{:020}.json", commits())), only).unwrap();
    let files = contents(&places[0]);
    let said = refused(&[&settings, &arguments(&places, &["--user", "u2"])[..]].concat(), 3);
    assert!(said.contains("events/"), "{said}");
    let named: BTreeMap<_, _> = contents(&places[0]).into_iter().filter(|(name, _)| files.contains_key(name)).collect();
    assert_eq!(named, files);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_keeps_versions_is_named_until_they_are_gone() {
    let lake = shop().await;
    let [from, output] = lake.places();
    std::fs::create_dir_all(&output).unwrap();
    let server = tokio::task::spawn_blocking(move || upload(&from, &output)).await.unwrap();
    server.keep_versions();
    let places = ["s3://shop/lake".to_string(), "s3://shop/out".to_string()];
    let flags = server.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let command = [&flags, &arguments(&places, &["--user", "u7"])[..]].concat();
    server.deny(Action::Write, "shop/lake/events/dt=2026-01-06");
    let said = refused(&command, 2);
    assert!(said.contains("s3://shop/lake/events/dt=2026-01-06/a.parquet"), "{said}");
    server.deny(Action::Write, "none");
    for _ in 0..2 {
        let said = refused(&command, 4);
        assert!(said.contains("s3://shop/lake: the bucket keeps 4 older versions"), "{said}");
    }
    server.drop_versions();
    assert!(done(&command).contains("gone from the lake: 0 rows in 0 files"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_says_which_columns_hold_users() {
    let lake = SmallLake::new();
    let rows = events(5, "a", "concat(value % 10 + 13080, '.0')").replace("user_id", "\"Customer\"");
    lake.write("events/dt=2026-01-05/a.parquet", &rows).await;
    let sql = lake.folder().join("sql/lakes/own");
    std::fs::create_dir_all(&sql).unwrap();
    let raw = "CREATE TABLE raw_events (\"Customer\" VARCHAR, event_id VARCHAR, ts TIMESTAMP(6), item_id VARCHAR, price DOUBLE)";
    let view = "SELECT event_id, regexp_replace(\"Customer\", '[.]0$', '') AS user_id, CAST(NULL AS VARCHAR) AS session_id, ts, \
                CAST(NULL AS TIMESTAMP(6)) AS arrived_at, 'purchase' AS event_type, item_id, CAST(NULL AS VARCHAR) AS query, \
                CAST(NULL AS BIGINT) AS dwell_ms, CAST(NULL AS BIGINT) AS quantity, price, CAST(NULL AS VARCHAR) AS currency, \
                CAST(NULL AS BIGINT) AS rating, CAST(NULL AS VARCHAR) AS text, _file, _dt FROM raw_events";
    std::fs::write(sql.join("raw_events.sql"), raw).unwrap();
    std::fs::write(sql.join("events.sql"), view).unwrap();
    let folder = format!("sql.folder={}", lake.folder().join("sql").display());
    let places = lake.places();
    let settings = ["--set", &folder, "--set", "lake.name=own"];
    let command = [&settings, &arguments(&places, &["--user", "13085"])[..]].concat();
    let files = contents(&places[0]);
    let said = refused(&command, 2);
    assert!(said.contains("sql/lakes/own/raw_events.sql") && said.contains("REFERENCES users"), "{said}");
    assert_eq!(contents(&places[0]), files);
    std::fs::write(sql.join("raw_events.sql"), raw.replace("VARCHAR, event_id", "VARCHAR REFERENCES users, event_id"))
        .unwrap();
    assert!(done(&command).contains("gone from the lake: 100 rows in 1 files"));
    let left = "SELECT count(*), count(DISTINCT user_id) FROM events";
    assert_eq!(lake.rows(&[&folder, "lake.name=own"], left), ["900,9"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_rewritten_is_refused_before_anything_changes() {
    let lake = shop().await;
    let places = lake.places();
    let at = |name: &str| Path::new(&places[0]).join(name);
    let refused_with = |arguments: &[&str], code: i32, parts: &[&str]| {
        let files = contents(&places[0]);
        let said = refused(&arguments_of(&places, arguments), code);
        assert!(parts.iter().all(|part| said.contains(part)), "{parts:?}\n{said}");
        assert_eq!(contents(&places[0]), files, "{said}");
    };
    // Another one's id ends like a number without decimals.
    lake.write("events/dt=2026-01-06/like.parquet", &events(6, "c", "'u8.0'")).await;
    refused_with(&["--user", "u8"], 2, &["followed by `.0`"]);
    std::fs::remove_file(at("events/dt=2026-01-06/like.parquet")).unwrap();
    // Readers of a summary, and of a link.
    std::fs::write(at("events/_metadata"), "PAR1").unwrap();
    refused_with(&["--user", "u8"], 3, &["events/_metadata", "row groups"]);
    std::fs::remove_file(at("events/_metadata")).unwrap();
    let real = lake.folder().join("elsewhere.parquet");
    std::fs::rename(at("events/dt=2026-01-05/a.parquet"), &real).unwrap();
    std::os::unix::fs::symlink(&real, at("events/dt=2026-01-05/a.parquet")).unwrap();
    refused_with(&["--user", "u8"], 3, &["a.parquet", "found a link"]);
    std::fs::remove_file(at("events/dt=2026-01-05/a.parquet")).unwrap();
    std::fs::rename(&real, at("events/dt=2026-01-05/a.parquet")).unwrap();
    // A view that shows a person whom no declared column has.
    let sql = lake.folder().join("sql/lakes/own");
    std::fs::create_dir_all(&sql).unwrap();
    std::fs::write(sql.join("raw_users.sql"), "CREATE TABLE raw_users (who VARCHAR, consent BOOLEAN)").unwrap();
    let users = "SELECT who AS user_id, CAST(NULL AS VARCHAR) AS canonical_user_id, CAST(NULL AS TIMESTAMP(6)) AS signed_up_at, \
                 CAST(NULL AS VARCHAR) AS country, consent, CAST(NULL AS BOOLEAN) AS excluded, _file FROM raw_users";
    std::fs::write(sql.join("users.sql"), users).unwrap();
    lake.write("users/a.parquet", "SELECT 'u8' AS who, true AS consent").await;
    let folder = format!("sql.folder={}", lake.folder().join("sql").display());
    let own = ["--set", folder.as_str(), "--set", "lake.name=own", "--user", "u8"];
    refused_with(&own, 2, &["raw_users.sql", "REFERENCES users"]);
    std::fs::write(sql.join("raw_users.sql"), "CREATE TABLE raw_users (who VARCHAR REFERENCES users, consent BOOLEAN)")
        .unwrap();
    // Checksums of a file's old bytes go with them.
    std::fs::write(at("events/dt=2026-01-05/.a.parquet.crc"), "crc").unwrap();
    assert!(done(&arguments_of(&places, &own)).contains("gone from the lake: 101 rows in 2 files"));
    assert!(!at("events/dt=2026-01-05/.a.parquet.crc").exists());
}

/// Puts settings in front of the verb.
fn arguments_of<'a>(places: &'a [String; 2], more: &[&'a str]) -> Vec<&'a str> {
    let settings = more.iter().rposition(|argument| argument.contains('=')).map_or(0, |last| last + 1);
    [&more[..settings], &arguments(places, &more[settings..])].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_only_folders_have_are_refused() {
    let lake = SmallLake::new();
    let rows = events(5, "a", LOGIN).replace("concat('u', value % 10 + 1) AS user_id, ", "");
    lake.write("events/dt=2026-01-05/user_id=u7/a.parquet", &rows).await;
    let places = lake.places();
    let said = refused(&arguments(&places, &["--user", "u7"]), 3);
    assert!(said.contains("user_id=u7/a.parquet") && said.contains("found 0 in the file's own columns"), "{said}");
}
