//! `intentcast promote`, `models rollback` and `models diff`; nights that score with a challenger, too.

use intentcast::model::targets::TARGETS;
use serde_json::Value;

use crate::support::published::{assert_equal_rows, rows_visible};
use crate::support::shop::{challenger, champion, done, night_with, query, refused, run, shop};

/// The decisions on record, oldest first: decision, version, champion before.
fn decisions(output: &str) -> Vec<(String, String, Option<String>)> {
    let mut files: Vec<_> =
        std::fs::read_dir(format!("{output}/models/promotions")).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let read = |path: &std::path::PathBuf| {
        let record: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let text = |key: &str| record[key].as_str().map(String::from);
        (text("decision").unwrap(), text("version").unwrap(), text("champion_before"))
    };
    files.iter().map(read).collect()
}

#[test]
fn a_better_model_becomes_champion_and_an_equal_one_does_not() {
    let (_own, lake, output) = shop();
    // Predicts far too many purchases.
    let (good, bad) = challenger(&output, |card| card["blend"]["purchase"]["intercept"] = 4.into());
    let promote = |version: &str| ["promote", version, "--lake", &lake, "--output", &output].map(String::from).to_vec();
    let run = |version: &str| done(&promote(version).iter().map(String::as_str).collect::<Vec<_>>());
    let stopped =
        |version: &str, code: i32| refused(&promote(version).iter().map(String::as_str).collect::<Vec<_>>(), code);

    assert!(run(&good).contains("is the champion already"));
    let errors = stopped(&bad, 4);
    assert!(
        errors.contains("not promoted: log_loss_purchase is not better") && errors.contains("ece_purchase is worse"),
        "{errors}"
    );
    assert_eq!(champion(&output), good);

    done(&["promote", &bad, "--force", "--output", &output]);
    assert_eq!(champion(&output), bad);
    let table = run(&good);
    assert!(table.contains("outcomes of the days from 2026-02-23 on") && table.contains("| better "), "{table}");
    let churn = table.lines().find(|line| line.contains("log_loss_churn")).unwrap();
    assert!(churn.ends_with("| not judged |"), "known four weeks later: {table}");
    assert_eq!(champion(&output), good);

    let record = |decision: &str, version: &str, before: Option<&str>| {
        (decision.to_string(), version.to_string(), before.map(String::from))
    };
    let mut expected = vec![
        record("first", &good, None),
        record("refused", &bad, Some(&good)),
        record("forced", &bad, Some(&good)),
        record("promoted", &good, Some(&bad)),
    ];
    assert_eq!(decisions(&output), expected);
    assert!(done(&["models", "rollback", "--output", &output]).contains(&format!("champion: {bad}, as before {good}")));
    assert_eq!(champion(&output), bad);
    expected.push(record("rolled_back", &bad, Some(&good)));
    assert_eq!(decisions(&output), expected);

    let differences = done(&["models", "diff", &good, &bad, "--output", &output, "--format", "csv"]);
    let parts: Vec<&str> = differences.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
    assert_eq!(parts, ["blend.purchase"], "{differences}");
    let figure = ["--set", "promotion.better=auc"];
    let errors = refused(&[&figure[..], &["promote", &good, "--lake", &lake, "--output", &output]].concat(), 2);
    assert!(errors.contains("expected pinball, or a figure and a target, got auc"), "{errors}");
    assert!(stopped("no-such-version", 6).contains("no such model"));
}

#[test]
fn a_model_is_not_judged_by_outcomes_that_it_has_learnt_from() {
    let (_own, lake, output) = shop();
    let (good, late) = challenger(&output, |card| {
        card["labels_end"] = "2026-02-27".into();
        card["figures"]["auc_test_purchase"] = 0.99.into();
    });
    let places = ["--lake", &lake, "--output", &output];
    // The newest model by what it has learnt from.
    let errors = refused(&[&["promote", "newest"], &places[..]].concat(), 4);
    assert!(errors.contains(&late) && errors.contains("complete on 2026-03-06"), "{errors}");
    assert!(errors.contains("--force promotes without judging"), "{errors}");
    assert_eq!(champion(&output), good);
    let differences = done(&["models", "diff", &good, &late, "--output", &output, "--format", "csv"]);
    assert!(differences.contains("figure.auc_test_purchase") && differences.contains("labels_end,"), "{differences}");

    // Without a champion, a model has to be better than its baselines, which needs no outcomes.
    std::fs::remove_file(format!("{output}/models/champion")).unwrap();
    let errors = refused(&["models", "rollback", "--output", &output], 3);
    assert!(errors.contains("there is no champion"), "{errors}");
    let card = format!("{output}/models/{late}/bundle.json");
    let text = std::fs::read_to_string(&card).unwrap();
    let mut figures: Value = serde_json::from_str(&text).unwrap();
    figures["figures"]["auc_test_purchase_recency_frequency"] = 0.995.into();
    std::fs::write(&card, figures.to_string()).unwrap();
    let errors = refused(&[&["promote", &late], &places[..]].concat(), 4);
    assert!(errors.contains("auc_purchase is not better"), "{errors}");
    done(&["promote", &late, "--force", "--output", &output]);
    let errors = refused(&["models", "rollback", "--output", &output], 3);
    assert!(errors.contains("no champion before"), "{errors}");
}

/// Selects every user's scores and their model.
fn all_scores(column: impl Fn(&str) -> String, from: &str) -> String {
    let names = TARGETS.iter().map(|target| target.output).chain(["model_version"]);
    let columns: Vec<String> = names.map(column).collect();
    format!("SELECT user_id, {} FROM {from} ORDER BY user_id", columns.join(", "))
}

#[test]
fn a_night_scores_with_a_challenger_too() {
    let (_own, lake, output) = shop();
    // Was trained later, and predicts far too many purchases.
    let (good, other) = challenger(&output, |card| {
        card["labels_end"] = "2026-02-21".into();
        card["blend"]["purchase"]["intercept"] = 4.into();
    });
    let setting = |version: &str| format!("promotion.shadow_version={version}");
    let night = |version: &str, date: &str| night_with(&["--set", &setting(version)], &lake, &output, date);
    let places = ["--lake", &lake, "--output", &output];
    let intents = "SELECT * FROM intent ORDER BY user_id";

    let alone = run(&[&["nightly", "--date", "2026-02-21"], &places[..]].concat());
    let log = String::from_utf8_lossy(&alone.stderr);
    assert!(alone.status.success() && !log.contains(&other), "no other model is loaded: {log}");
    assert_eq!(rows_visible(&output, "intent_shadow"), 0);
    let without = query(&output, intents);

    let named = setting(&other);
    let plan = done(&[&["--set", &named, "nightly", "--dry-run", "--date", "2026-02-21"], &places[..]].concat());
    assert!(plan.contains(&format!("shadow model {other}")) && plan.contains("shadow_scores"), "{plan}");
    let both = night(&other, "2026-02-21");
    assert!(both["published"] == true && both["model_version"] == good.as_str(), "{both}");
    assert_equal_rows(&query(&output, intents), &without, "the night's own scores");
    assert_eq!(night(&other, "2026-02-21")["published"], false);
    let published = query(&output, &all_scores(|name| name.into(), "intent_shadow"));
    assert_eq!(published.lines().count(), without.lines().count());
    assert_eq!(published.matches(&other).count(), without.lines().count() - 1);
    let scored = format!("(SELECT user_id, score_intents(features, '{other}') AS scores FROM model_input)");
    let scored = all_scores(|name| format!("scores['{name}'] AS {name}"), &scored);
    let asked = ["sql", "--date", "2026-02-21", "--format", "csv", "-c", &scored];
    assert_equal_rows(&published, &done(&[&asked[..], &places].concat()), "score_intents");

    // The newest one is the same; the night's own model is not scored twice.
    assert_eq!(night("newest", "2026-02-22")["table_rows"]["intent_shadow"], rows_visible(&output, "intent"));
    assert_eq!(night(&good, "2026-02-23")["table_rows"]["intent_shadow"], 0);
    let note = query(&output, "SELECT note FROM runs WHERE run_date = DATE '2026-02-23'");
    assert!(note.contains(&format!("promotion.shadow_version = {good}: no model to compare with {good}")), "{note}");

    let view = concat!(env!("CARGO_MANIFEST_DIR"), "/sql/views/shadow_outcomes.sql");
    let judged = done(&[&["sql", "--date", "2026-03-01", "--format", "csv", "-f", view], &places[..]].concat());
    let judged: Vec<Vec<&str>> = judged.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let dates: Vec<&str> = judged.iter().map(|row| row[0]).collect();
    assert_eq!(dates, ["2026-02-21", "2026-02-22"]);
    for row in &judged {
        let [users, buyers, of_champion, of_challenger] = [3, 4, 5, 6].map(|at| row[at].parse::<f64>().unwrap());
        assert_eq!(row[1..3], [good.as_str(), other.as_str()]);
        assert!(0.0 < buyers && buyers < users && of_champion < of_challenger, "{row:?}");
    }
}

#[test]
fn a_challenger_that_does_not_fit_stops_the_night() {
    let (_own, lake, output) = shop();
    let (_, other) = challenger(&output, |card| drop(card["features"].as_array_mut().unwrap().pop()));
    let stopped = |version: &str| {
        let setting = format!("promotion.shadow_version={version}");
        let night = ["--set", &setting, "nightly", "--lake", &lake, "--output", &output, "--date", "2026-02-21"];
        refused(&night, 6)
    };
    let unknown = stopped("no-such-version");
    assert!(unknown.contains("promotion.shadow_version: ") && unknown.contains("no such model"), "{unknown}");
    let unfit = stopped(&other);
    assert!(unfit.contains(&format!("model {other} was trained on other features")), "{unfit}");
    std::fs::remove_dir_all(format!("{output}/models/{other}")).unwrap();
    challenger(&output, |_| ());
    std::fs::write(format!("{output}/models/{other}/weights.safetensors"), "damaged").unwrap();
    let damaged = stopped(&other);
    assert!(damaged.contains(&other) && damaged.contains("checksum mismatch"), "{damaged}");
    assert_eq!(query(&output, "SELECT count(*) AS n FROM runs"), "n\n0\n");
}
