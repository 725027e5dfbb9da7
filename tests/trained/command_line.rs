//! The command line: backfills, dry runs, formats, logs, help; and that any SQL file runs when pasted.

use datafusion::prelude::SessionContext;
use intentcast::config::Config;
use intentcast::score::models::Models;
use intentcast::sql_files::SqlFiles;
use intentcast::workspace::{Access, Workspace};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use crate::support::lakes;
use crate::support::shop::{QUICK, contents, done, night, query, refused, run_column, shop, shop_with_a_night};

fn command(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_intentcast")).args(QUICK).args(arguments).output().unwrap()
}

fn dry_run(lake: &str, output: &str, date: &str) -> Value {
    let arguments = ["nightly", "--lake", lake, "--output", output, "--date", date, "--dry-run", "--format", "json"];
    serde_json::from_str(&done(&arguments)).unwrap()
}

#[test]
fn a_dry_run_predicts_the_night_and_writes_nothing() {
    let (_own, lake, output) = shop();
    let before = contents(&output);
    let first = dry_run(&lake, &output, "2026-02-21");
    assert_eq!(contents(&output), before);
    assert_eq!((first["nothing_to_do"].as_bool(), first["seconds_predicted"].as_f64()), (Some(false), None));
    assert!(first["plans"]["intent_scores"].as_str().unwrap().contains("ScoreExec"), "{first}");

    let published = night(&lake, &output, "2026-02-21");
    for figure in ["files_read", "bytes_read", "units_built", "units_kept", "files_skipped", "bytes_skipped"] {
        assert_eq!(first["read"][figure], published["read"][figure], "{figure}");
    }
    assert_eq!(dry_run(&lake, &output, "2026-02-21")["nothing_to_do"], true);
    let next = dry_run(&lake, &output, "2026-02-22");
    assert_eq!(next["predicted_from"], "2026-02-21");
    assert!(next["seconds_predicted"].as_f64().unwrap() > 0.0 && next["bytes_written_predicted"].as_u64().unwrap() > 0);
    let text = done(&["nightly", "--lake", &lake, "--output", &output, "--date", "2026-02-22", "--dry-run"]);
    assert!(text.contains("predicted from the night of 2026-02-21") && text.contains("user_features"), "{text}");

    std::fs::write(format!("{lake}/events/dt=2026-02-21/bad.parquet"), "no parquet").unwrap();
    let refused = command(&["nightly", "--lake", &lake, "--output", &output, "--date", "2026-02-22", "--dry-run"]);
    assert_eq!(refused.status.code(), Some(3), "what the night would refuse, the dry run refuses");
}

#[test]
fn a_backfill_publishes_every_night_of_its_range_oldest_first() {
    let (_own, lake, output) = shop();
    let arguments = ["nightly", "--lake", &lake, "--output", &output, "--backfill", "2026-02-21..2026-02-23"];
    let ran = command(&[&arguments[..], &["--format", "json"]].concat());
    let (printed, logs) = (String::from_utf8(ran.stdout).unwrap(), String::from_utf8(ran.stderr).unwrap());
    assert!(ran.status.success(), "{logs}");
    let nights: Vec<Value> = printed.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let dates: Vec<&str> = nights.iter().map(|n| n["run_date"].as_str().unwrap()).collect();
    assert_eq!(dates, ["2026-02-21", "2026-02-22", "2026-02-23"]);
    assert_eq!(logs.matches("loaded model ").count(), 1, "one process, one model: {logs}");
    let encoded = |night: &Value| night["users_encoded"].as_u64().unwrap();
    assert!(nights[1..].iter().all(|night| encoded(night) < encoded(&nights[0])), "of each night alone: {printed}");
    let shown = query(&output, "SELECT DISTINCT run_date FROM intent_history ORDER BY run_date");
    assert_eq!(shown, "run_date\n2026-02-21\n2026-02-22\n2026-02-23\n");
    let wrong = command(&["nightly", "--lake", &lake, "--output", &output, "--backfill", "2026-02-23..2026-02-21"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn logs_are_json_lines_on_request_and_formats_are_valid() {
    let (_own, lake, output) = shop();
    let arguments = ["--log-format", "json", "nightly", "--lake", &lake, "--output", &output, "--date", "2026-02-21"];
    let ran = command(&arguments);
    let logs = String::from_utf8(ran.stderr).unwrap();
    let lines: Vec<Value> = logs.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let said = |what: &str| lines.iter().any(|l| l["fields"]["message"].as_str().is_some_and(|m| m.contains(what)));
    assert!(said("user_features:") && said("published as generation"), "{logs}");

    let sql = |format: &str, text: &str| done(&["sql", "--output", &output, "--format", format, "-c", text]);
    let one = "SELECT rank, count(*) AS users FROM recommendation WHERE rank = 1 GROUP BY rank";
    let line: Value = serde_json::from_str(sql("json", one).trim()).unwrap();
    assert_eq!(line["rank"], 1);
    assert_eq!(sql("csv", "SELECT user_id, p_view FROM intent WHERE p_view > 2"), "user_id,p_view\n");
    assert!(sql("table", one).starts_with("+------+"));
    assert!(done(&["models", "--output", &output]).contains("yes"));
    assert!(done(&["gc", "--output", &output, "--dry-run"]).starts_with("would remove 0 nights"));
}

#[test]
fn json_and_csv_print_data_only() {
    let (_own, lake, output) = shop();
    let night = ["nightly", "--lake", &lake, "--output", &output, "--date", "2026-02-21", "--format", "csv"];
    let planned = done(&[&night[..], &["--dry-run"]].concat());
    assert!(planned.starts_with("run_date,stage,seconds_predicted,"), "{planned}");
    assert!(planned.lines().skip(1).all(|line| line.starts_with("2026-02-21,")), "{planned}");
    let published = done(&night);
    assert_eq!(published.lines().next(), Some("table,rows,path"));
    assert!(published.lines().any(|line| line.starts_with("intent,")), "{published}");
    assert!(published.lines().all(|line| line.split(',').count() == 3), "{published}");
    assert_eq!(done(&night), "table,rows,path\n", "nothing changed");
}

#[test]
fn sql_builds_missing_rollups_without_writing_to_the_output() {
    let (_own, lake, output) = shop();
    std::fs::remove_dir_all(format!("{output}/state/rollups")).unwrap();
    let before = contents(&output);
    let spill = tempfile::tempdir().unwrap();
    let spill_setting = format!("engine.spill_folder={}", spill.path().display());
    let sum = "SELECT sum(events_lifetime) AS events FROM user_features";
    let sql = ["--set", &spill_setting, "sql", "--lake", &lake, "--output", &output, "--date", "2026-02-21"];
    let asked = [&sql[..], &["--format", "csv", "-c", sum]].concat();
    let ran = command(&asked);
    let (rows, logs) = (String::from_utf8(ran.stdout).unwrap(), String::from_utf8(ran.stderr).unwrap());
    assert!(ran.status.success(), "{logs}");
    assert_eq!(logs.matches("are not in the stored rollups; building them for this session only").count(), 1, "{logs}");
    assert_eq!(contents(&output), before);
    assert_eq!(std::fs::read_dir(spill.path()).unwrap().count(), 0, "the session's rollups vanish with it");
    assert!(!logs.contains('\u{1b}'), "no colour codes where standard error is no terminal: {logs:?}");

    assert_eq!(done(&[&asked[..], &["--refresh"]].concat()), rows);
    let stored = contents(&output);
    assert!(stored.len() > before.len());
    let again = command(&asked);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), rows);
    assert!(!String::from_utf8(again.stderr).unwrap().contains("building them"));
    assert_eq!(contents(&output), stored);

    // Rollups of one new day are read together with the stored ones.
    let later = ["sql", "--lake", &lake, "--output", &output, "--date", "2026-02-26", "--format", "csv", "-c", sum];
    let apart = done(&later);
    assert_eq!(done(&[&later[..], &["--refresh"]].concat()), apart);
}

#[test]
fn sql_explains_unknown_and_empty_tables() {
    let (_own, lake, output) = shop();
    let asked = |arguments: &[&str], query: &str| command(&[&["sql"], arguments, &["-c", query]].concat());
    let both = ["--lake", &lake, "--output", &output];
    let errors = |ran: &Output| String::from_utf8(ran.stderr.clone()).unwrap();
    let misspelt = asked(&both, "SELECT * FROM event");
    assert_eq!(misspelt.status.code(), Some(2));
    assert!(errors(&misspelt).contains("table `event` not found; did you mean `events`?"), "{}", errors(&misspelt));
    let no_lake = asked(&["--output", &output], "SELECT * FROM user_features");
    assert_eq!(no_lake.status.code(), Some(2));
    assert!(errors(&no_lake).contains("hint: pass --lake URI and --output URI"), "{}", errors(&no_lake));
    let empty = asked(&both, "SELECT * FROM intent");
    assert!(empty.status.success());
    assert!(errors(&empty).contains("`intent` is empty: no night is published yet"), "{}", errors(&empty));
    assert!(errors(&empty).contains("features are as of "), "{}", errors(&empty));
    assert!(String::from_utf8_lossy(&empty.stdout).contains("p_purchase"), "an empty table shows its columns");
}

#[test]
fn every_flag_has_help() {
    use clap::CommandFactory;
    fn check(command: &clap::Command) {
        for argument in command.get_arguments().filter(|a| !a.is_hide_set()) {
            assert!(argument.get_help().is_some(), "{} --{}", command.get_name(), argument.get_id());
        }
        command.get_subcommands().for_each(check);
    }
    let mut command = intentcast::commands::Cli::command();
    command.build();
    check(&command);
}

#[test]
fn every_verb_has_a_help_text() {
    use clap::CommandFactory;
    let all = String::from_utf8(command(&["--help"]).stdout).unwrap();
    let verbs = intentcast::commands::Cli::command();
    for verb in verbs.get_subcommands().map(clap::Command::get_name) {
        assert!(all.contains(verb), "{verb} in\n{all}");
        let help = command(&[verb, "--help"]);
        assert!(help.status.success());
        let text = String::from_utf8(help.stdout).unwrap();
        assert!(text.lines().next().unwrap().len() > 20, "{verb}: {text}");
    }
}

#[test]
fn planted_faults_are_found_row_by_row_and_file_by_file() {
    let (_own, lake, output) = shop();
    let listed: Value = serde_json::from_slice(&std::fs::read(format!("{lake}/faults.json")).unwrap()).unwrap();
    night(&lake, &output, "2026-02-21");
    let found =
        query(&output, "SELECT reason, count(*) AS rows, max(source_file) AS file FROM quarantine GROUP BY reason");
    assert_eq!(found.lines().count(), 1 + listed["rows"].as_array().unwrap().len(), "{found}");
    for planted in listed["rows"].as_array().unwrap() {
        let (reason, file) = (planted["reason"].as_str().unwrap(), planted["file"].as_str().unwrap());
        let line = found.lines().find(|l| l.starts_with(&format!("{reason},{},", planted["rows"]))).unwrap_or_default();
        assert!(line.ends_with(file), "{reason} of {file} in\n{found}");
    }
    // `runs` holds the same counts, for monitoring.
    let rows = query(&output, "SELECT rows_quarantined FROM runs");
    let reasons: BTreeMap<String, i64> =
        serde_json::from_value(run_column(&output, "quarantined_by_reason", "2026-02-21")).unwrap();
    assert!(run_column(&output, "master_findings", "2026-02-21").is_object());
    let planted = listed["rows"].as_array().unwrap().iter();
    let planted: BTreeMap<String, i64> =
        planted.map(|p| (p["reason"].as_str().unwrap().into(), p["rows"].as_i64().unwrap())).collect();
    assert_eq!(reasons, planted);
    assert_eq!(rows, format!("rows_quarantined\n{}\n", planted.values().sum::<i64>()));
    for planted in listed["files"].as_array().unwrap() {
        let bad = format!("{lake}/events/dt=2026-02-21/planted.parquet");
        std::fs::copy(Path::new(&lake).join(planted["file"].as_str().unwrap()), &bad).unwrap();
        let refused = command(&["nightly", "--lake", &lake, "--output", &output, "--date", "2026-02-22"]);
        assert_eq!(refused.status.code(), Some(3), "{planted}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains(&bad), "{planted}");
        std::fs::remove_file(bad).unwrap();
    }
    assert_eq!(query(&output, "SELECT count(DISTINCT run_date) AS nights FROM intent_history"), "nights\n1\n");
}

#[test]
fn a_file_whose_text_does_not_decode_is_named_with_its_column() {
    let (_own, lake, output) = shop();
    let items = format!("{lake}/items/part-00000.parquet");
    let whole = std::fs::read(&items).unwrap();
    let broken = "SELECT * EXCLUDE (title), CASE item_id WHEN 'i000001' THEN '@@@@' ELSE title END AS title FROM rows";
    lakes::break_text(Path::new(&items), broken);
    let night = ["nightly", "--lake", &lake, "--output", &output, "--date", "2026-02-21"];
    let asked =
        ["sql", "--lake", &lake, "--output", &output, "--date", "2026-02-21", "-c", "SELECT max(title) FROM items"];
    for arguments in [&night[..], &asked] {
        let errors = refused(arguments, 3);
        assert!(errors.contains(&format!("{items}: column title: ")), "{errors}");
    }
    std::fs::write(&items, whole).unwrap();
    let day = std::fs::read_dir(format!("{lake}/events/dt=2026-02-20")).unwrap().next().unwrap().unwrap().path();
    let broken =
        "SELECT * EXCLUDE (query), CASE event_type WHEN 'search' THEN '@@@@' ELSE query END AS query FROM rows";
    lakes::break_text(&day, broken);
    let errors = refused(&night, 3);
    assert!(errors.contains(&format!("{}: column query: ", day.display())), "{errors}");
    assert_eq!(query(&output, "SELECT count(*) AS n FROM runs"), "n\n0\n");
}

#[test]
fn a_newer_or_damaged_bundle_publishes_nothing() {
    let (_own, lake, output) = shop();
    let version = std::fs::read_to_string(format!("{output}/models/champion")).unwrap().trim().to_string();
    let [card, weights] = ["bundle.json", "weights.safetensors"].map(|f| format!("{output}/models/{version}/{f}"));
    let whole = [&card, &weights].map(|file| std::fs::read(file).unwrap());
    let mut sick = whole[1].clone();
    let last = sick.len() - 4;
    sick[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    let newer = String::from_utf8(whole[0].clone()).unwrap().replacen("\"format\": ", "\"format\": 9", 1);
    for (file, bytes, says) in [
        (&card, newer.as_bytes(), "which a newer intentcast wrote"),
        (&card, &whole[0][..whole[0].len() / 2], "bundle.json"),
        (&weights, &sick[..], "weights.safetensors"),
        (&weights, &whole[1][..whole[1].len() / 2], "weights.safetensors"),
    ] {
        let before = std::fs::read(file).unwrap();
        std::fs::write(file, bytes).unwrap();
        let errors = refused(&["nightly", "--lake", &lake, "--output", &output, "--date", "2026-02-21"], 6);
        assert!(errors.contains(&version) && errors.contains(says) && errors.contains("hint: "), "{says}: {errors}");
        assert_eq!(query(&output, "SELECT count(*) AS n FROM runs"), "n\n0\n", "{says}");
        std::fs::write(file, before).unwrap();
    }
    // A version whose write was interrupted has no card and does not count.
    std::fs::create_dir(format!("{output}/models/20260220-00000000")).unwrap();
    std::fs::copy(&weights, format!("{output}/models/20260220-00000000/weights.safetensors")).unwrap();
    assert!(!done(&["models", "--output", &output]).contains("20260220-00000000"));
    done(&["nightly", "--lake", &lake, "--output", &output, "--date", "2026-02-21"]);
}

#[test]
fn more_bad_rows_than_allowed_exit_4_and_publish_nothing() {
    let (_own, lake, output) = shop();
    let none_allowed = ["--set", "lake.quarantine_share_max=0", "nightly", "--lake", &lake, "--output", &output];
    let stopped = command(&[&none_allowed[..], &["--date", "2026-02-21"]].concat());
    let errors = String::from_utf8(stopped.stderr).unwrap();
    assert_eq!(stopped.status.code(), Some(4), "{errors}");
    assert!(errors.contains("null_time: ") && errors.contains("lake.quarantine_share_max = 0.00 %"), "{errors}");
    assert_eq!(query(&output, "SELECT count(*) AS n FROM runs"), "n\n0\n");
}

#[test]
fn a_lake_is_named_by_a_path_or_by_a_file_url() {
    let (_own, lake, _) = shop();
    let counted = |lake: &str| {
        let sql = "SELECT event_type, count(*) AS events FROM events GROUP BY event_type ORDER BY event_type";
        done(&["sql", "--lake", lake, "--format", "csv", "-c", sql])
    };
    let found = counted(&format!("file://{lake}"));
    assert!(found.starts_with("event_type,events\ncart,"), "{found}");
    assert_eq!(found, counted(&lake));
    assert_eq!(found, counted(&format!("{lake}/events/../../lake")));
}

#[tokio::test(flavor = "multi_thread")]
async fn any_sql_file_runs_when_pasted() {
    let (_own, lake, output) = tokio::task::spawn_blocking(shop_with_a_night).await.unwrap();
    let settings: Vec<(String, String)> = QUICK
        .chunks(2)
        .map(|pair| pair[1].split_once('=').unwrap())
        .chain([("lake.uri", lake.as_str()), ("output.uri", output.as_str())])
        .map(|(key, value)| (key.into(), value.into()))
        .collect();
    let config = Config::resolve(None, [], &settings).unwrap();
    let models = Arc::new(Models::new(&config).unwrap());
    let workspace = Workspace::open(&config, models, Access::ReadOnly).await.unwrap();
    let ctx: SessionContext = workspace.query_session(None).await.unwrap();
    let files = SqlFiles::load(&config).unwrap();
    let folders = ["rollups", "state", "features", "labels", "score", "tables", "checks", "views", "report"];
    for (folder, (name, text)) in folders.iter().flat_map(|folder| files.folder(folder).map(move |file| (folder, file)))
    {
        let rows = ctx.sql(text).await.unwrap_or_else(|e| panic!("sql/{folder}/{name}.sql: {e}"));
        rows.limit(0, Some(5)).unwrap().collect().await.unwrap_or_else(|e| panic!("sql/{folder}/{name}.sql: {e}"));
    }
}
