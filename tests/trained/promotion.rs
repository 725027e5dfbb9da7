//! `intentcast promote`, `models rollback` and `models diff`.

use serde_json::Value;

use crate::support::shop::{challenger, champion, done, refused, shop};

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
