//! Figures that a night reports: purchase intents summed by item, drift since training, the accuracy of earlier nights.

use serde_json::Value;
use std::path::Path;

use crate::support::lakes::write;
use crate::support::shop::{done, night, night_of_all, numbers, query, run_column, shop, shop_with_a_night};

fn near(left: f64, right: f64) -> bool {
    (left - right).abs() <= 1e-6 * right.abs().max(1.0)
}

#[test]
fn intent_units_share_out_every_purchase_probability() {
    let (_own, lake, output) = shop();
    night_of_all(&lake, &output, "2026-02-21");
    let of = |sql: &str| numbers(&["--output", &output], sql);
    let total = of("SELECT (SELECT sum(intent_units) FROM demand), (SELECT sum(p_purchase) FROM intent \
                    WHERE user_id IN (SELECT user_id FROM recommendation))");
    assert!(total[0] > 1.0 && near(total[0], total[1]), "{total:?}");
    // Intents look 7 days ahead, the forecasts of this shop 14.
    let spread = of("SELECT count(*) FILTER (WHERE intent_units IS NULL AND target_date < DATE '2026-02-28'), \
                       count(*) FILTER (WHERE intent_units IS NOT NULL AND target_date >= DATE '2026-02-28'), \
                       count(*) FROM demand");
    assert!(spread[..2] == [0.0, 0.0] && spread[2] > 14.0, "{spread:?}");
    let by_item = of(
        "WITH affinity AS (SELECT r.item_id, i.p_purchase * exp(r.score - max(r.score) OVER (PARTITION BY r.user_id)) \
                        / sum(exp(r.score)) OVER (PARTITION BY r.user_id) \
                          * exp(max(r.score) OVER (PARTITION BY r.user_id)) AS units \
                        FROM recommendation r JOIN intent i ON i.user_id = r.user_id), \
                      wanted AS (SELECT item_id, sum(units) AS units FROM affinity GROUP BY item_id), \
                      told AS (SELECT item_id, sum(intent_units) AS units FROM demand GROUP BY item_id) \
                      SELECT max(abs(t.units - coalesce(w.units, 0))), count(w.item_id), count(DISTINCT t.units) \
                      FROM told t LEFT JOIN wanted w ON w.item_id = t.item_id",
    );
    assert!(by_item[0] < 1e-6 && by_item[1] > 10.0 && by_item[2] > 10.0, "{by_item:?}");
    let shape = of("SELECT max(abs(d.intent_units * t.mean - t.units * d.mean)) FROM demand d JOIN \
                      (SELECT item_id, sum(mean) AS mean, sum(intent_units) AS units FROM demand \
                       WHERE target_date < DATE '2026-02-28' GROUP BY item_id) t ON t.item_id = d.item_id");
    assert!(shape[0] < 1e-6, "days in proportion to the forecast means: {shape:?}");
}

#[test]
fn a_night_reports_the_accuracy_of_earlier_nights() {
    let (_own, lake, output) = shop_with_a_night();
    assert_eq!(run_column(&output, "accuracy", "2026-02-21"), Value::Null);
    night(&lake, &output, "2026-02-22");
    assert_eq!(run_column(&output, "accuracy", "2026-02-22"), Value::Null, "six days are missing");
    // Churn has a horizon of a week too, so that all outcomes of the first night are known.
    let churn = ["--set", "intents.churn_days=7"];
    let week = ["nightly", "--lake", &lake, "--output", &output, "--date", "2026-02-28"];
    done(&[&churn[..], &week].concat());
    let accuracy = run_column(&output, "accuracy", "2026-02-28");
    for part in ["intents", "churn", "demand"] {
        assert_eq!(accuracy[part]["run_date"], "2026-02-21", "{accuracy}");
    }

    let of = |sql: &str| numbers(&["--lake", &lake, "--output", &output, "--date", "2026-02-28"], sql);
    let person = |table: &str| {
        format!(
            "(SELECT coalesce(u.canonical_user_id, t.user_id) AS person, t.* \
             FROM {table} t LEFT JOIN users u ON u.user_id = t.user_id)"
        )
    };
    let (intents, events) = (person("intent_history"), person("events"));
    let known = "e.ts >= TIMESTAMP '2026-02-21T00:00:00Z' AND e.ts < TIMESTAMP '2026-02-28T00:00:00Z' \
                 AND e.arrived_at < TIMESTAMP '2026-02-28T00:00:00Z'";
    let own = of(&format!(
        "WITH did AS (SELECT person, \
           max(CASE WHEN event_type = 'purchase' AND quantity > 0 THEN 1.0 ELSE 0.0 END) AS bought, \
           sum(CASE WHEN event_type = 'purchase' AND quantity > 0 THEN quantity ELSE 0 END) AS units \
           FROM {events} e WHERE {known} GROUP BY person) \
         SELECT count(*), avg(power(i.p_purchase - coalesce(d.bought, 0.0), 2)), avg(i.p_purchase), \
           avg(coalesce(d.bought, 0.0)), \
           avg(coalesce(d.units, 0)), avg(CASE WHEN d.person IS NULL THEN 1.0 ELSE 0.0 END) \
         FROM {intents} i LEFT JOIN did d ON d.person = i.person WHERE i.run_date = DATE '2026-02-21'"
    ));
    let (intents, churn) = (&accuracy["intents"], &accuracy["churn"]["p_churn"]);
    let purchase = &intents["p_purchase"];
    let theirs = [
        &intents["users"],
        &purchase["brier"],
        &purchase["mean_predicted"],
        &purchase["share_observed"],
        &intents["expected_units"]["mean_observed"],
        &churn["share_observed"],
    ];
    for (own, theirs) in own.iter().zip(theirs) {
        assert!(near(theirs.as_f64().unwrap(), *own), "{own} {theirs} in {accuracy}");
    }
    assert!(own[3] > 0.0 && own[5] > 0.0, "some bought, some left: {own:?}");
    assert!((0.0..=1.0).contains(&purchase["auc"].as_f64().unwrap()), "{accuracy}");

    let demand = &accuracy["demand"];
    let own = of("SELECT count(*), avg(CASE WHEN d.units <= f.q90 THEN 1.0 ELSE 0.0 END) \
                  FROM demand_history f JOIN item_days d ON d.item_id = f.item_id AND d.day = f.target_date \
                  WHERE f.run_date = DATE '2026-02-21' AND d.in_stock");
    assert_eq!((demand["days"].as_i64(), demand["item_days"].as_f64()), (Some(7), Some(own[0])), "{accuracy}");
    assert!(near(demand["covered_q90"].as_f64().unwrap(), own[1]), "{own:?} in {accuracy}");
    assert!(demand["pinball"].as_f64().unwrap() > 0.0, "{accuracy}");
}

#[tokio::test]
async fn a_night_reports_features_that_drifted() {
    let (_own, lake, output) = shop_with_a_night();
    let before = run_column(&output, "drift", "2026-02-21");
    let of = |drift: &Value, name: &str| drift[name].as_f64().unwrap();
    let card = card(&output);
    assert_eq!(before.as_object().unwrap().len(), card["features"].as_array().unwrap().len());
    assert!(before.as_object().unwrap().values().all(|v| v.as_f64().unwrap() >= 0.0), "{before}");
    assert!(of(&before, "reviews_1d") < 0.1, "{before}");

    // On the day before the next night, every user writes a review.
    let rush = "SELECT concat('rush', value) AS event_id, \
                concat('u', lpad(CAST(value AS VARCHAR), 7, '0')) AS user_id, \
                TIMESTAMP '2026-02-21T12:00:00' AS ts, TIMESTAMP '2026-02-21T12:00:00' AS arrived_at, \
                'review' AS event_type, 'i000001' AS item_id FROM generate_series(0, 299)";
    write(Path::new(&lake), "events/dt=2026-02-21/rush.parquet", rush).await;
    // All scores change by more than the checks allow by default.
    let places = ["--lake", &lake, "--output", &output, "--date", "2026-02-22"];
    done(&[&["--set", "checks.change_share_max=100", "nightly"], &places[..]].concat());
    let after = run_column(&output, "drift", "2026-02-22");
    assert!(of(&after, "reviews_1d") > 0.25 && of(&after, "returns_90d") < 0.25, "{after}");
}

#[test]
fn a_model_without_deciles_scores_and_reports_no_drift() {
    let (_own, lake, output) = shop();
    let mut old = card(&output);
    old.as_object_mut().unwrap().remove("feature_deciles").unwrap();
    std::fs::write(card_path(&output), serde_json::to_vec(&old).unwrap()).unwrap();
    assert_eq!(night(&lake, &output, "2026-02-21")["published"], true);
    assert_eq!(run_column(&output, "drift", "2026-02-21"), Value::Null);
}

#[tokio::test]
async fn a_new_erasure_request_reruns_the_night() {
    let (_own, lake, output) = shop_with_a_night();
    let forgotten = query(&output, "SELECT min(user_id) AS id FROM intent").lines().nth(1).unwrap().to_string();
    let asked = format!("SELECT '{forgotten}' AS user_id, TIMESTAMP '2026-02-21T08:00:00' AS requested_at");
    write(Path::new(&lake), "erasures/asked.parquet", &asked).await;
    assert_eq!(night(&lake, &output, "2026-02-21")["published"], true);
    let left = query(&output, &format!("SELECT count(*) AS n FROM intent WHERE user_id = '{forgotten}'"));
    assert_eq!(left, "n\n0\n");
}

fn card_path(output: &str) -> std::path::PathBuf {
    let version = std::fs::read_to_string(format!("{output}/models/champion")).unwrap();
    Path::new(output).join("models").join(version.trim()).join("bundle.json")
}

fn card(output: &str) -> Value {
    serde_json::from_slice(&std::fs::read(card_path(output)).unwrap()).unwrap()
}
