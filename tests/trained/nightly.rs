//! The whole job from the command line: simulate, train, night, query; reruns, refusals, kills, and S3.

use arrow::array::StructArray;
use arrow::util::pretty::pretty_format_batches;
use datafusion::logical_expr::ident;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use intentcast::config::networks::Precision;
use intentcast::features::contract::FeatureContract;
use intentcast::lake::stores::Location;
use intentcast::model::bundle::Registry;
use intentcast::model::inputs::UserInputs;
use intentcast::score::contents::ContentStore;
use intentcast::tables::schemas::NIGHT_TABLES;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::approved::approve;
use crate::support::lakes;
use crate::support::published::{
    WITHOUT_ROWS, assert_equal_rows, assert_same_night, published, published_at, rows_visible,
};
use crate::support::shop::{
    ENCODER, QUICK, TRAINED_ON, UNDISTURBED, done, night, places, query, refused, run, shop, shop_with_a_night, upload,
};

const INTENT: &str = "SELECT * FROM intent ORDER BY user_id";

#[test]
fn a_night_publishes_every_table_and_a_rerun_changes_nothing() {
    let (_own, lake, output) = shop();
    let first = night(&lake, &output, "2026-02-21");
    assert_eq!(first["published"], true);
    for table in NIGHT_TABLES {
        let rows = first["table_rows"][table].as_i64().unwrap();
        assert_eq!(rows > 0, !WITHOUT_ROWS.contains(&table), "{table}: {first}");
    }
    let rows = query(&output, INTENT);
    assert_eq!(night(&lake, &output, "2026-02-21")["published"], false);
    assert_eq!(query(&output, INTENT), rows);
    let runs = query(&output, "SELECT count(*) AS n FROM runs");
    assert_eq!(runs, "n\n1\n");
}

/// Overwrites a file with other bytes and restores its time, so that a listing of the lake shows no change.
fn garble(path: &Path) {
    let was = std::fs::metadata(path).unwrap();
    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all(&vec![b'x'; was.len() as usize]).unwrap();
    file.set_modified(was.modified().unwrap()).unwrap();
}

/// Hashes the encoder's inputs of each user, from the checkpointed features of a night.
fn encoder_inputs(output: &str, date: &str) -> BTreeMap<String, u128> {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let place = Location::open(output, &Default::default()).unwrap();
        let card = Registry(place.folder("models")).resolve("").await.unwrap();
        let store = ContentStore::for_model(&place, &card, Precision::F32).unwrap();
        let contents = store.contents().await.unwrap();
        let ctx = SessionContext::new();
        let files = glob(&format!("{output}/state/features/{date}/*/user_features/*.parquet"));
        let rows = ctx.read_parquet(files, ParquetReadOptions::default()).await.unwrap();
        ctx.register_table("user_features", rows.into_view()).unwrap();
        let sql = format!("SELECT user_id, TIMESTAMP '{date}T00:00:00' AS as_of, recent FROM user_features");
        let mut inputs = BTreeMap::new();
        for batch in ctx.sql(&sql).await.unwrap().collect().await.unwrap() {
            let (features, none) = (StructArray::from(batch), FeatureContract(vec![]));
            let users = UserInputs::from_struct(&features, &none, card.intent.item_buckets, &contents).unwrap();
            inputs.extend(
                (0..users.user_ids.len()).map(|row| (users.user_ids[row].clone(), users.encoder_key(row, &contents))),
            );
        }
        inputs
    })
}

#[test]
fn a_new_picture_re_encodes_users_and_a_bad_one_is_ignored() {
    let (_own, lake, output) = shop();
    night(&lake, &output, "2026-02-21");
    let before = encoder_inputs(&output, "2026-02-21");
    // One picture vector is replaced, one has another length, one is not a number, one is removed.
    let change = "SELECT * EXCLUDE (image_vector), CASE item_id WHEN 'i000001' THEN array_reverse(image_vector) \
                  WHEN 'i000002' THEN arrow_cast([1.0, 2.0], 'List(Float32)') \
                  WHEN 'i000003' THEN arrow_cast(['NaN'], 'List(Float32)') \
                  WHEN 'i000004' THEN NULL ELSE image_vector END AS image_vector FROM rows";
    lakes::rewrite(Path::new(&format!("{lake}/items/part-00000.parquet")), change);
    let arguments = ["--lake", &lake, "--output", &output, "--date", "2026-02-21"];
    // These features are from this night: the night before had another manifest.
    let report = night(&lake, &output, "2026-02-21");
    let met = "SELECT DISTINCT user_id FROM (SELECT user_id, unnest(recent) AS event FROM user_features) \
               WHERE event['item_id'] IN ('i000001', 'i000002', 'i000003', 'i000004')";
    let printed = done(&[&["sql", "--format", "csv"], &arguments[..], &["-c", met]].concat());
    let met: BTreeSet<String> = printed.lines().skip(1).map(String::from).collect();
    assert!(met.len() > 10 && met.len() < before.len());
    assert_eq!(report["users_encoded"].as_u64(), Some(met.len() as u64));
    // Only the replaced vector is new to the store.
    assert_eq!(report["stages"]["contents"]["rows"], 1);
}

/// Returns the number of scans of each table in a night's queries.
fn scans(night: &Value) -> String {
    let tables = night["scans"].as_object().unwrap().iter();
    tables.map(|(table, read)| format!("{table} {}\n", read["scans"])).collect()
}

#[test]
fn the_second_night_reads_and_encodes_only_what_is_new() {
    let (_own, lake, output) = shop();
    let first = night(&lake, &output, "2026-02-21");
    // A reader that opens an old event file would find no Parquet in it.
    let old = glob(&format!("{lake}/events/dt=*/*.parquet"));
    let old: Vec<_> =
        old.iter().filter(|file| file.as_str() < format!("{lake}/events/dt=2026-02-21").as_str()).collect();
    assert!(old.len() > 40, "{old:?}");
    old.iter().for_each(|file| garble(Path::new(file)));
    let second = night(&lake, &output, "2026-02-22");
    let new = std::fs::metadata(format!("{lake}/events/dt=2026-02-21/part-00000.parquet")).unwrap().len();
    assert_eq!(second["read"]["bytes_read"].as_u64(), Some(new));
    assert_eq!(second["read"]["files_read"], 1);
    // Each event of the new file is read once, and no table more often than it was approved.
    assert_eq!(second["scans"]["events"]["rows"], second["read"]["rows_read"]);
    assert_eq!(second["scans"]["events"]["scans"], 1);
    approve("scans_of_a_second_night", &scans(&second));

    // Exactly the users whose inputs changed are encoded.
    let (before, now) = (encoder_inputs(&output, "2026-02-21"), encoder_inputs(&output, "2026-02-22"));
    let changed = now.iter().filter(|(user, key)| before.get(*user) != Some(key)).count() as u64;
    let count = |night: &Value, name: &str| night[name].as_u64().unwrap();
    assert_eq!(count(&first, "users_encoded") + count(&first, "users_kept"), before.len() as u64);
    assert_eq!(count(&second, "users_encoded"), changed);
    assert_eq!(count(&second, "users_kept"), now.len() as u64 - changed);
    assert!(changed > 0 && changed < now.len() as u64, "{changed} of {}", now.len());

    // Cached and new states give the same scores.
    let scores = "SELECT user_id, p_purchase FROM intent ORDER BY user_id";
    let kept = query(&output, scores);
    std::fs::remove_dir_all(format!("{output}/state/encoded")).unwrap();
    std::fs::remove_dir_all(format!("{output}/state/features")).unwrap();
    std::fs::remove_dir_all(format!("{output}/tables")).unwrap();
    let fresh = night(&lake, &output, "2026-02-22");
    assert_eq!(count(&fresh, "users_encoded") + count(&fresh, "users_kept"), now.len() as u64);
    assert!(count(&fresh, "users_encoded") > changed);
    assert_equal_rows(&query(&output, scores), &kept, "kept or fresh");

    // Without the stored rollups, the old files would have stopped the night.
    std::fs::remove_dir_all(format!("{output}/state/rollups")).unwrap();
    let stopped = refused(&["nightly", "--lake", &lake, "--output", &output, "--date", "2026-02-22"], 3);
    assert!(old.iter().any(|file| stopped.contains(file.as_str())), "{stopped}");
}

#[test]
fn killed_while_publishing_a_rerun_equals_an_undisturbed_night() {
    for point in ["staged", "after-intent", "before-demand", "before-runs", "after-runs"] {
        let (_own, lake, output) = shop();
        let dying = ["nightly", "--lake", &lake, "--output", &output, "--date", "2026-02-21", "--die-at", point];
        assert!(!run(&dying).status.success(), "{point}");
        let visible = query(&output, "SELECT count(*) AS n FROM intent");
        assert!(point == "after-runs" || visible == "n\n0\n", "{point}: a half-published night was seen");
        // With a long expiry the dead owner's lock is held; with an expiry of two seconds the next run takes it over.
        let again = ["nightly", "--lake", &lake, "--output", &output, "--date", "2026-02-21"];
        let held = refused(&[&["--set", "lock.expiry_seconds=600"], &again[..]].concat(), 5);
        assert!(held.contains("expires"), "{held}");
        take_over(&again);
        assert_same_night(&published_at(&output), &UNDISTURBED, point);
    }
}

/// Runs a night whose owner died, as soon as its lock has expired.
fn take_over(night: &[&str]) {
    let arguments = [&["--set", "lock.expiry_seconds=2"], night].concat();
    let ran = loop {
        let ran = run(&arguments);
        if ran.status.code() != Some(5) {
            break ran;
        }
        std::thread::sleep(Duration::from_millis(300));
    };
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// Returns every file below a folder. Files may come and go meanwhile.
fn files(folder: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => folders.push(entry.path()),
                false => _ = found.insert(entry.path().display().to_string()),
            }
        }
    }
    found
}

/// Starts a night and kills it, as `kill -9` does, when a new file with `part` in its path appears below `output`.
fn kill_when_there_is(part: &str, night: &[&str], output: &str) {
    let before = files(output);
    let mut command = Command::new(env!("CARGO_BIN_EXE_intentcast"));
    let mut child = command.args(QUICK).args(night).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !files(output).difference(&before).any(|file| file.contains(part)) {
        assert!(child.try_wait().unwrap().is_none(), "{part}: the night ended before there was one");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9), "{part}: the night was to die");
}

/// Kills nights from the lock to the commits; the next attempt finds the unfinished work.
const MOMENTS: [&str; 7] = [
    "/state/lock/",
    "/unit_event",
    "/user_features/",
    "/intent_scores/",
    "/demand_forecasts/",
    "/tables/intent/",
    "/tables/demand/_delta_log/",
];

#[test]
fn killed_at_any_moment_a_rerun_equals_an_undisturbed_night() {
    for moment in MOMENTS {
        let (_own, lake, output) = shop();
        let night = ["nightly", "--lake", &lake, "--output", &output, "--date", "2026-02-21"];
        kill_when_there_is(moment, &night, &output);
        assert_eq!(rows_visible(&output, "intent"), 0, "{moment}: a half-published night was seen");
        take_over(&night);
        assert_same_night(&published_at(&output), &UNDISTURBED, moment);
        assert_eq!(rows_visible(&output, "runs"), 1, "{moment}");
    }
}

/// Returns every checkpointed feature row of a night, in user order.
async fn kept_features(output: &str) -> String {
    let rows = ["", "user_features-parts-3/0/", "user_features-parts-3/1/", "user_features-parts-3/2/"]
        .map(|part| format!("{output}/state/features/2026-02-21/*/{part}user_features/*.parquet"));
    let found = rows.into_iter().flat_map(|pattern| glob(&pattern)).collect::<Vec<_>>();
    let ctx = SessionContext::new();
    let rows = ctx.read_parquet(found, ParquetReadOptions::default()).await.unwrap();
    let rows = rows.sort_by(vec![ident("user_id")]).unwrap().collect().await.unwrap();
    pretty_format_batches(&rows).unwrap().to_string()
}

fn glob(pattern: &str) -> Vec<String> {
    let listed = Command::new("sh").arg("-c").arg(format!("ls {pattern} 2>/dev/null")).output().unwrap();
    String::from_utf8(listed.stdout).unwrap().lines().map(String::from).collect()
}

#[tokio::test]
async fn users_in_parts_give_the_same_night_and_finished_parts_stay() {
    let (_own, _lake, output) = shop_with_a_night();
    let (features, intents) = (kept_features(&output).await, query(&output, INTENT));
    assert!(features.lines().count() > 100);

    let (_own, lake, output) = shop();
    let night = ["nightly", "--lake", &lake, "--output", &output, "--date", "2026-02-21"];
    let arguments = [&["--set", "engine.user_parts=3"], &night[..]].concat();
    done(&arguments);
    assert_eq!(kept_features(&output).await, features);
    assert_equal_rows(&query(&output, INTENT), &intents, "in parts");

    // The night died in its last part.
    let kept = format!("{output}/state/features/2026-02-21/*/user_features-parts-3");
    let part = |number: u32| glob(&format!("{kept}/{number}/user_features/*"));
    let whole = part(0);
    std::fs::remove_file(part(2).iter().find(|file| file.ends_with("/done")).unwrap()).unwrap();
    std::fs::remove_dir_all(format!("{output}/tables")).unwrap();
    done(&arguments);
    assert_eq!(part(0), whole);
    assert_eq!(kept_features(&output).await, features);
}

#[test]
fn items_in_parts_make_the_same_night() {
    let forecasts = |output: &str| query(output, "SELECT * FROM demand ORDER BY item_id, target_date");
    let (_own, lake, output) = shop();
    let (_other, _, cut) = shop();
    let champion = |output: &str| std::fs::read_to_string(format!("{output}/models/champion")).unwrap();
    let version = champion(&cut);
    std::fs::remove_dir_all(format!("{cut}/models")).unwrap();
    let encoder = format!("model.text_encoder={ENCODER}");
    let train = ["train", "--lake", &lake, "--output", &cut, "--date", TRAINED_ON];
    done(&[&["--set", &encoder, "--set", "engine.item_parts=4"], &train[..]].concat());
    assert_eq!(champion(&cut), version, "the same items teach the same");
    let cut_night = |parts: &str, date: &str| {
        let setting = format!("engine.item_parts={parts}");
        done(&["--set", &setting, "nightly", "--lake", &lake, "--output", &cut, "--date", date]);
        assert_equal_rows(&forecasts(&cut), &forecasts(&output), &format!("{date} in {parts} parts"));
    };
    night(&lake, &output, "2026-02-21");
    cut_night("4", "2026-02-21");
    let kept = format!("{cut}/state/features/2026-02-21/*/demand_forecasts-parts-4");
    let whole = glob(&format!("{kept}/0/demand_forecasts/*"));
    assert!(whole.len() > 1 && glob(&format!("{kept}/*/demand_forecasts/*.parquet")).len() >= 3, "{whole:?}");
    // The night died in its last part; the next attempt may have another number of parts.
    for parts in ["4", "2", "1"] {
        for done in glob(&format!("{kept}/3/demand_forecasts/done")) {
            std::fs::remove_file(done).unwrap();
        }
        std::fs::remove_dir_all(format!("{cut}/tables")).unwrap();
        cut_night(parts, "2026-02-21");
        assert_eq!(glob(&format!("{kept}/0/demand_forecasts/*")), whole, "{parts}");
    }
    // The second night reads the intents that the first one published.
    night(&lake, &output, "2026-02-22");
    cut_night("4", "2026-02-22");
}

#[test]
fn a_night_without_items_has_no_forecasts_in_any_parts() {
    let (_own, lake, output) = shop();
    for day in glob(&format!("{lake}/events/*/*.parquet")) {
        lakes::rewrite(Path::new(&day), "SELECT * REPLACE (CAST(NULL AS VARCHAR) AS item_id) FROM rows");
    }
    for (date, parts) in [("2026-02-21", "3"), ("2026-02-22", "1")] {
        let setting = format!("engine.item_parts={parts}");
        done(&["--set", &setting, "nightly", "--lake", &lake, "--output", &output, "--date", date]);
        assert_eq!(rows_visible(&output, "demand"), 0, "{parts}");
    }
    assert_eq!(rows_visible(&output, "runs"), 2);
}

#[test]
fn rollback_shows_the_night_before() {
    let (_own, lake, output) = shop_with_a_night();
    let before = query(&output, INTENT);
    night(&lake, &output, "2026-02-22");
    assert_ne!(query(&output, INTENT), before);
    done(&["rollback", "--output", &output, "--date", "2026-02-22"]);
    assert_eq!(query(&output, INTENT), before);
}

#[test]
fn refusals_have_their_exit_codes_and_publish_nothing() {
    let (own, lake, output) = shop();
    let (_, nowhere) = places(own.path().join("nowhere").as_path());
    let arguments = ["nightly", "--lake", &lake, "--date", "2026-02-21", "--output"];
    let no_model = refused(&[&arguments[..], &[&nowhere]].concat(), 6);
    assert!(no_model.contains("intentcast train"), "{no_model}");

    let bad = format!("{lake}/events/dt=2026-02-20/zz.parquet");
    std::fs::write(&bad, "no parquet").unwrap();
    let input = refused(&[&arguments[..], &[&output]].concat(), 3);
    assert!(input.contains(&bad), "{input}");
    std::fs::remove_file(bad).unwrap();

    let sql = own.path().join("sql/features");
    std::fs::create_dir_all(&sql).unwrap();
    let text = std::fs::read_to_string("sql/features/user_features.sql").unwrap();
    std::fs::write(sql.join("user_features.sql"), text.replace("AS reviews_90d", "AS reviews_of_90d")).unwrap();
    let folder = format!("sql.folder={}", own.path().join("sql").display());
    let model = refused(&[&["--set", &folder][..], &arguments, &[&output]].concat(), 6);
    assert!(model.contains("reviews_90d is missing") && model.contains("reviews_of_90d is new"), "{model}");
    let late = refused(&[&arguments[..], &[&output, "--deadline", "0"]].concat(), 75);
    assert!(late.contains("deadline"), "{late}");
    assert_eq!(query(&output, "SELECT count(*) AS n FROM intent"), "n\n0\n");
}

#[test]
fn a_feature_file_with_several_rows_of_a_user_is_refused() {
    let (own, lake, output) = shop();
    let features = own.path().join("sql/features");
    std::fs::create_dir_all(&features).unwrap();
    // A text, which is no input of the model, so that the night gets as far as the rows.
    let each_event = "-- one row per event\nSELECT user_id, event_type AS seen FROM user_event";
    std::fs::write(features.join("user_feature_seen.sql"), each_event).unwrap();
    let folder = format!("sql.folder={}", own.path().join("sql").display());
    let at = ["--lake", &lake, "--output", &output, "--date"];
    let message_of = |verb: &str, more: &[&str]| refused(&[&["--set", &folder, verb][..], &at, more].concat(), 2);
    for message in [
        message_of("nightly", &["2026-02-21"]),
        message_of("train", &[TRAINED_ON]),
        message_of("sql", &["2026-02-21", "-c", "SELECT count(*) FROM model_input"]),
    ] {
        assert!(
            message.contains("sql/features/user_feature_seen.sql: expected one row per user_id, got several for "),
            "{message}"
        );
        assert!(message.contains("hint: aggregate the columns and end the query with GROUP BY user_id"), "{message}");
    }
    // The file itself can be looked at.
    let look = ["2026-02-21", "-c", "SELECT user_id FROM user_feature_seen GROUP BY user_id HAVING count(*) > 1"];
    done(&[&["--set", &folder, "sql"][..], &at, &look].concat());
}

#[test]
fn the_night_on_s3_has_the_rows_of_the_night_on_local_files() {
    let (_own, lake, output) = shop();
    let server = upload(&lake, &output);
    let flags = server.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let remote = |arguments: &[&str]| done(&[&flags[..], arguments].concat());
    remote(&["nightly", "--lake", "s3://shop/lake", "--output", "s3://shop/out", "--date", "2026-02-21"]);
    assert_same_night(&published(&server.location("s3://shop/out")), &UNDISTURBED, "S3");
}

#[test]
fn a_filter_over_scores_scores_each_row_once() {
    let (_own, lake, output) = shop();
    let plan = done(&[
        "sql",
        "--lake",
        &lake,
        "--output",
        &output,
        "--date",
        "2026-02-21",
        "--format",
        "csv",
        "-c",
        "EXPLAIN SELECT s['p_purchase'] FROM (SELECT user_id, score_intents(features) AS s FROM model_input) \
         WHERE s['p_purchase'] > 0.9 AND s['p_churn'] < 0.5",
    ]);
    assert_eq!(plan.matches("ScoreExec").count(), 1, "{plan}");
    assert!(plan.contains("weights="), "{plan}");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let own = tempfile::tempdir().unwrap();
    let digest = |name: &str| {
        let to = own.path().join(name).display().to_string();
        done(&["simulate", "--to", &to, "--users", "60", "--items", "12", "--days", "10", "--seed", "9", "--faults"]);
        let listed =
            Command::new("sh").arg("-c").arg(format!("cd {to} && find . -type f | sort | xargs sha256sum")).output();
        String::from_utf8(listed.unwrap().stdout).unwrap()
    };
    let first = digest("a");
    assert!(first.lines().count() > 15, "{first}");
    assert_eq!(first, digest("b"));
}

#[test]
fn a_stale_lake_stops_the_night_unless_accepted() {
    let (_own, lake, output) = shop();
    let places = ["--lake", &lake, "--output", &output, "--date", "2026-03-08"];
    // Nothing is rolled up of the days after the training yet.
    let unread = run(&[&["nightly"], &places[..], &["--dry-run"]].concat());
    let log = String::from_utf8_lossy(&unread.stderr).into_owned();
    assert!(log.contains("the night would stop (exit 4): newest event is 6 days old"), "{log}");
    let stopped = refused(&[&["nightly"], &places[..]].concat(), 4);
    assert!(stopped.contains("newest event is 6 days old (2026-03-01; lake.freshness_days_max = 3)"), "{stopped}");
    let plan = run(&[&["nightly"], &places[..], &["--dry-run"]].concat());
    let log = String::from_utf8_lossy(&plan.stderr).into_owned();
    assert!(
        plan.status.success() && log.contains("the night would stop (exit 4): newest event is 6 days old"),
        "{log}"
    );
    done(&[&["nightly"], &places[..], &["--accept", "freshness"]].concat());
    let note = query(&output, "SELECT note FROM runs");
    assert!(note.contains("accepted: newest event is 6 days old"), "{note}");
}

#[test]
fn a_half_loaded_day_stops_the_night_unless_accepted() {
    let (_own, lake, output) = shop();
    let day = Path::new(&lake).join("events/dt=2026-02-24");
    let file = std::fs::read_dir(day).unwrap().next().unwrap().unwrap().path();
    lakes::rewrite(&file, "SELECT * FROM rows LIMIT 5");
    let places = ["--lake", &lake, "--output", &output, "--date", "2026-02-26"];
    let stopped = refused(&[&["nightly"], &places[..]].concat(), 4);
    assert!(stopped.contains("2026-02-24 has ") && stopped.contains("may be only partly loaded"), "{stopped}");
    assert!(stopped.contains("--accept volume"), "{stopped}");
    done(&[&["nightly"], &places[..], &["--accept", "volume"]].concat());
}

#[test]
fn a_day_that_lost_rows_stops_the_night_unless_accepted() {
    let (_own, lake, output) = shop();
    let night = |date: &'static str| ["nightly", "--lake", &lake, "--output", &output, "--date", date];
    done(&night("2026-02-26"));
    let read = query(&output, "SELECT rows_read FROM lake_day WHERE day = DATE '2026-02-10' AND kind = 'open'");
    let day = Path::new(&lake).join("events/dt=2026-02-10");
    let file = std::fs::read_dir(day).unwrap().next().unwrap().unwrap().path();
    lakes::rewrite(&file, "SELECT * FROM rows OFFSET 1");
    let stopped = refused(&night("2026-02-27"), 4);
    let rows: u64 = read.lines().last().unwrap().trim().parse().unwrap();
    let lost = format!("2026-02-10 has {} rows, {rows} when the night of 2026-02-26 read it", rows - 1);
    assert!(stopped.contains(&lost) && stopped.contains("--accept volume"), "{stopped}");
    std::fs::remove_dir_all(Path::new(&output).join("state")).unwrap();
    let rebuilt = refused(&night("2026-02-27"), 4);
    assert!(rebuilt.contains(&lost), "the count survives the state: {rebuilt}");
    done(&[&night("2026-02-27")[..], &["--accept", "volume"]].concat());
    done(&night("2026-02-28"));
}

#[test]
fn missing_days_are_named_and_too_many_stop_the_night() {
    let (_own, lake, output) = shop();
    let gone = |days: std::ops::RangeInclusive<u32>| {
        for day in days {
            std::fs::remove_dir_all(Path::new(&lake).join(format!("events/dt=2026-02-{day:02}"))).unwrap();
        }
    };
    let places = ["nightly", "--lake", &lake, "--output", &output, "--date", "2026-02-26"];
    gone(10..=10);
    done(&places);
    let note = query(&output, "SELECT note FROM runs");
    assert!(note.contains("days without events, left out of demand histories: 2026-02-10"), "{note}");
    let kinds = query(&output, "SELECT day FROM lake_day WHERE kind = 'missing'");
    assert!(kinds.contains("2026-02-10"), "{kinds}");
    gone(11..=22);
    let stopped = refused(&places, 4);
    assert!(stopped.contains("have no event (lake.missing_day_share = 0.1): 2026-02-10 to 2026-02-22"), "{stopped}");
    done(&[&places[..], &["--accept", "missing-days"]].concat());
}

#[test]
fn a_share_of_the_users_is_held_out_by_their_ids() {
    let (_own, lake, output) = shop();
    let night = |salt: &str, date: &str| {
        let salt = format!("intents.hold_out_salt={salt}");
        let settings = ["--set", "intents.hold_out_share=0.3", "--set", &salt, "--set", "train.due_days=1"];
        done(&[&settings[..], &["nightly", "--lake", &lake, "--output", &output, "--date", date]].concat());
        query(&output, "SELECT user_id FROM intent WHERE hold_out ORDER BY user_id")
    };
    let (first, next, others) = (night("a", "2026-02-21"), night("a", "2026-02-22"), night("b", "2026-02-22"));
    let count = |users: &str| users.lines().count() as f64 - 1.0;
    assert!((60.0..120.0).contains(&count(&first)), "{}", count(&first));
    // Users who came since the first night may be among them.
    assert!(first.lines().all(|user| next.contains(user)), "the same ones every night");
    assert!(first != others && (60.0..120.0).contains(&count(&others)));

    let notes = query(&output, "SELECT note FROM runs WHERE kind = 'night' ORDER BY run_date");
    assert_eq!(notes.matches("training is due: the model has learnt from events before 2026-02-20, 2 days").count(), 2);
    assert_eq!(notes.matches("training is due").count(), 2, "{notes}");

    let view = concat!(env!("CARGO_MANIFEST_DIR"), "/sql/views/hold_out_outcomes.sql");
    let later = ["sql", "--lake", &lake, "--output", &output, "--date", "2026-02-28", "--format", "csv", "-f", view];
    let rows = done(&later);
    let rows: Vec<Vec<&str>> = rows.lines().skip(1).map(|row| row.split(',').collect()).collect();
    assert_eq!(rows.len(), 2, "one night, whose horizon has passed: {rows:?}");
    assert_eq!(rows[1][..3], ["2026-02-21", "true", &count(&first).to_string()]);
    for row in &rows {
        let number = |at: usize| row[at].parse::<f64>().unwrap();
        assert!(number(3) > 0.0 && (number(3) / number(2) - number(5)).abs() < 1e-9 && number(6) > 0.0, "{row:?}");
    }
}
