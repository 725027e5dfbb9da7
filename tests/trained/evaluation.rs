//! `intentcast evaluate`: past scores against the actual outcomes.

use intentcast::metrics::auc;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::support::clients::{self, Client};
use crate::support::lakes;
use crate::support::repository::root;
use crate::support::shop::{TRAINED_ON, contents, done, refused, shop};

fn evaluated(lake: &str, output: &str, more: &[&str]) -> Vec<Value> {
    let places = ["evaluate", "--lake", lake, "--output", output, "--format", "json"];
    let lines = done(&[&places[..], more].concat());
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The row of one intent of all users on one date.
fn row<'a>(rows: &'a [Value], date: &str, intent: &str) -> &'a Value {
    let found =
        rows.iter().find(|row| row["run_date"] == date && row["intent"] == intent && row["user_group"] == "all");
    found.unwrap()
}

/// Lines of a query as of a date, without the header.
fn csv(lake: &str, output: &str, date: &str, query: &str) -> Vec<String> {
    let places = ["sql", "--lake", lake, "--output", output, "--date", date, "--format", "csv", "-c", query];
    done(&places).lines().skip(1).map(str::to_string).collect()
}

#[test]
fn figures_are_those_of_scores_and_events_queried_apart() {
    let (_own, lake, output) = shop();
    let before = contents(&output);
    let intents = ["--date", TRAINED_ON, "--task", "intents", "--slices"];
    let rows = evaluated(&lake, &output, &intents);
    assert_eq!(contents(&output), before, "nothing is written");
    // Scores depend on the batch in the eighth digit, the draws of an interval do not.
    let again = evaluated(&lake, &output, &intents);
    let has_an_interval = |row: &Value| row["user_group"] == "all" && row["intent"] != "macro";
    for (row, again) in rows.iter().zip(&again).filter(|(row, _)| has_an_interval(row)) {
        for figure in ["users", "positives", "auc", "auc_low", "auc_high"] {
            let difference = row[figure].as_f64().unwrap() - again[figure].as_f64().unwrap();
            assert!(difference.abs() < 1e-3, "{figure}: {row}, {again}");
        }
    }

    let query = "SELECT user_id, score_intents(features)['p_cart'] FROM model_input WHERE events_lifetime > 0";
    let scores = csv(&lake, &output, TRAINED_ON, query);
    let scores: BTreeMap<String, f64> = scores
        .iter()
        .filter_map(|line| line.split_once(','))
        .map(|(user, score)| (user.to_string(), score.parse().unwrap()))
        .collect();
    // As of the end of the week, so that guests who logged in meanwhile are known.
    let query = "SELECT DISTINCT user_id FROM user_event WHERE event_type = 'cart' AND event_day >= DATE '2026-02-20'";
    let came: BTreeSet<String> = csv(&lake, &output, "2026-02-27", query).into_iter().collect();
    let cart = row(&rows, TRAINED_ON, "cart");
    assert_eq!(cart["users"], scores.len());
    let (probabilities, outcomes): (Vec<f64>, Vec<bool>) =
        scores.iter().map(|(user, score)| (*score, came.contains(user))).unzip();
    // A guest of the date counts under the login that it became: few users, and none without an outcome.
    let positives = outcomes.iter().filter(|&&outcome| outcome).count() as u64;
    assert!(cart["positives"].as_u64().unwrap() >= positives && positives > 0, "{cart}, {positives}");
    let difference = (cart["auc"].as_f64().unwrap() - auc(&probabilities, &outcomes).unwrap()).abs();
    assert!(difference < 0.05, "{cart}, {difference}");
    let mean = probabilities.iter().sum::<f64>() / probabilities.len() as f64;
    assert!((cart["mean_score"].as_f64().unwrap() - mean).abs() < 1e-5, "{cart}, {mean}");
    assert!(cart["auc_low"].as_f64().unwrap() < cart["auc"].as_f64().unwrap());
    assert_eq!(cart["in_training"], false);

    // The threshold is that of the training, the lift is the precision over the share of positives.
    let number = |row: &Value, figure: &str| row[figure].as_f64().unwrap();
    let champion = std::fs::read_to_string(format!("{output}/models/champion")).unwrap();
    let card = std::fs::read_to_string(format!("{output}/models/{}/bundle.json", champion.trim())).unwrap();
    let card: Value = serde_json::from_str(&card).unwrap();
    let threshold = number(cart, "threshold");
    assert_eq!(card["figures"]["threshold_f1_cart"], cart["threshold"]);
    let predicted = |score: &f64| *score > threshold;
    let correct = probabilities.iter().zip(&outcomes).filter(|(score, came)| predicted(score) == **came).count();
    let accuracy = correct as f64 / outcomes.len() as f64;
    assert!((number(cart, "accuracy_at_threshold") - accuracy).abs() < 0.03, "{cart}, {accuracy}");
    let hits = probabilities.iter().zip(&outcomes).filter(|(score, came)| predicted(score) && **came).count();
    let chosen = probabilities.iter().filter(|score| predicted(score)).count();
    let f1 = 2.0 * hits as f64 / (chosen as f64 + positives as f64);
    assert!((number(cart, "f1_at_threshold") - f1).abs() < 0.05, "{cart}, {f1}");
    let share = number(cart, "positives") / number(cart, "users");
    assert!((number(cart, "lift_top_10") - number(cart, "precision_top_10") / share).abs() < 1e-9, "{cart}");

    // Each intent counts alike in the mean of all, and each user in one group.
    let of_all: Vec<&Value> = rows.iter().filter(|row| has_an_interval(row)).collect();
    let mean = of_all.iter().map(|row| number(row, "log_loss")).sum::<f64>() / of_all.len() as f64;
    let all_intents = row(&rows, TRAINED_ON, "macro");
    assert!((number(all_intents, "log_loss") - mean).abs() < 1e-9 && all_intents["threshold"].is_null());
    for figure in ["users", "positives"] {
        let of_group = |group: &str| {
            let found = rows.iter().find(|row| row["intent"] == "cart" && row["user_group"] == group);
            found.map_or(0, |row| row[figure].as_u64().unwrap())
        };
        assert!(of_group("light") > 0 && of_group("heavy") > 0, "{rows:?}");
        assert_eq!(cart[figure], of_group("new") + of_group("light") + of_group("heavy"), "{figure}");
    }
}

#[test]
fn figures_of_recommendations_are_those_of_lists_and_events_queried_apart() {
    let (_own, lake, output) = shop();
    let rows = evaluated(&lake, &output, &["--date", TRAINED_ON, "--task", "recommendations"]);
    let lengths: Vec<u64> = rows.iter().map(|row| row["recommended"].as_u64().unwrap()).collect();
    assert_eq!(lengths, [5, 10, 20]);
    let pairs = |date: &str, query: &str| {
        let mut of_users: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in csv(&lake, &output, date, query) {
            let (user, item) = line.split_once(',').unwrap();
            of_users.entry(user.into()).or_default().push(item.into());
        }
        of_users
    };
    let query = "SELECT user_id, r['item_id'] FROM (SELECT m.user_id, unnest(recommend( \
                 score_intents(m.features)['taste'], latest_items(m.features), b.bought, 10)) AS r \
                 FROM model_input m LEFT JOIN user_bought b ON m.user_id = b.user_id \
                 WHERE m.events_lifetime > 0) ORDER BY user_id, r['rank']";
    let lists = pairs(TRAINED_ON, query);
    // As of the end of the week, so that guests who logged in meanwhile are known.
    let query = "SELECT DISTINCT user_id, item_id FROM user_event \
                 WHERE item_id IS NOT NULL AND event_day >= DATE '2026-02-20'";
    let wanted = pairs("2026-02-27", query);
    let [mut users, mut recall, mut ndcg, mut mrr] = [0.0; 4];
    for (user, list) in &lists {
        let Some(next) = wanted.get(user) else { continue };
        let discount = |place: usize| 1.0 / (place as f64 + 2.0).log2();
        let found: Vec<usize> = (0..list.len()).filter(|&place| next.contains(&list[place])).collect();
        users += 1.0;
        recall += found.len() as f64 / next.len() as f64;
        ndcg += found.iter().map(|&place| discount(place)).sum::<f64>()
            / (0..next.len().min(10)).map(discount).sum::<f64>();
        mrr += found.first().map_or(0.0, |&place| 1.0 / (place as f64 + 1.0));
    }
    // Guests of the date who logged in later count under another id here.
    let of_ten = &rows[1];
    assert!(users > 50.0 && of_ten["users"].as_f64().unwrap() < 1.1 * users, "{of_ten}, {users}");
    assert!(of_ten["users"].as_f64().unwrap() >= users && ndcg > 0.0, "{of_ten}, {users}");
    for (figure, expected) in [("recall", recall / users), ("ndcg", ndcg / users), ("mrr", mrr / users)] {
        let found = of_ten[figure].as_f64().unwrap();
        assert!((found - expected).abs() < 0.02, "{figure}: {found}, expected {expected}");
    }
    assert!(of_ten["ndcg_low"].as_f64() < of_ten["ndcg"].as_f64() && of_ten["in_training"] == false, "{of_ten}");
}

#[test]
fn demand_figures_are_those_of_forecasts_and_sales_queried_apart() {
    let (own, lake, output) = shop();
    let rows = evaluated(&lake, &output, &["--date", "2026-02-13", "--task", "demand", "--slices"]);
    assert!(rows.iter().all(|row| row["intent"].is_null()));
    let of = |pattern: &str| rows.iter().find(|row| row["demand_pattern"] == pattern && row["category"] == "all");
    let all = of("all").unwrap();
    let parts: u64 = ["new", "dormant", "fast", "slow", "lumpy"].iter().filter_map(|p| of(p)?["days"].as_u64()).sum();
    assert_eq!(all["days"], parts);
    let categories: Vec<&Value> = rows.iter().filter(|row| row["category"] != "all").collect();
    assert!((2..20).contains(&categories.len()), "{} categories", categories.len());
    assert_eq!(all["days"], categories.iter().map(|row| row["days"].as_u64().unwrap()).sum::<u64>());
    assert!(categories.windows(2).all(|pair| pair[0]["units"].as_f64() >= pair[1]["units"].as_f64()));
    assert_eq!(all["in_training"], true);

    let lines = |date: &str, query: &str| -> Vec<Vec<String>> {
        let rows = csv(&lake, &output, date, query);
        rows.iter().map(|line| line.split(',').map(str::to_string).collect()).collect()
    };
    let sql = "SELECT item_id, DATE '2026-02-13' + CAST(f['step'] - 1 AS INT), f['mean'], f['q50'], f['q90'] FROM \
               (SELECT item_id, unnest(forecast_demand(history)) AS f FROM item_history) WHERE f['step'] >= 1";
    let number = |text: &String| text.parse::<f64>().unwrap();
    let forecasts: BTreeMap<(String, String), [f64; 3]> = lines("2026-02-13", sql)
        .iter()
        .map(|row| ((row[0].clone(), row[1].clone()), [2, 3, 4].map(|column| number(&row[column]))))
        .collect();
    // As of the lake's end, so that rows that arrived late count.
    let sql = "SELECT item_id, day, units FROM item_days \
               WHERE in_stock AND day >= DATE '2026-02-13' AND day < DATE '2026-02-27'";
    let [mut days, mut error, mut squared, mut covered, mut forecast, mut sold] = [0.0; 6];
    for row in lines("2026-03-03", sql) {
        let Some([mean, q50, q90]) = forecasts.get(&(row[0].clone(), row[1].clone())) else { continue };
        let units = number(&row[2]);
        days += 1.0;
        error += (units - q50).abs();
        squared += (units - mean).powi(2);
        covered += f64::from(u8::from(units <= *q90));
        forecast += mean;
        sold += units;
    }
    assert!(days > 100.0 && sold > 10.0, "{days} days, {sold} units");
    assert_eq!(all["days"].as_f64(), Some(days));
    let expected = [("units", sold), ("mae", error / days), ("mse", squared / days), ("bias", forecast / sold - 1.0)];
    for (figure, expected) in expected.into_iter().chain([("covered_q90", covered / days)]) {
        let found = all[figure].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-3 * expected.abs().max(1.0), "{figure}: {found}, expected {expected}");
    }
    assert!(all["pinball_low"].as_f64() < all["pinball"].as_f64());
    let weighted = 2.0 * all["pinball"].as_f64().unwrap() * days / sold;
    assert!((all["weighted_quantile_loss"].as_f64().unwrap() - weighted).abs() < 1e-9);

    let places = ["evaluate", "--lake", &lake, "--output", &output, "--task", "demand"];
    let errors = refused(&[&places[..], &["--date", TRAINED_ON]].concat(), 3);
    assert!(errors.contains("outcomes of 14 days are complete on 2026-03-06"), "{errors}");
    let shorter = ["--set", "demand.horizon_days=7"];
    let errors = refused(&[&shorter[..], &places, &["--date", "2026-02-13"]].concat(), 2);
    assert!(errors.contains("it predicts 14 days") && errors.contains("--set demand.horizon_days=14"), "{errors}");
    let page = own.path().join("demand.html");
    let more = ["--date", "2026-02-13", "--format", "csv", "--page", page.to_str().unwrap()];
    let table = done(&[&places[..], &more].concat());
    assert!(table.starts_with("run_date,model_version,in_training,demand_pattern,"), "{table}");
    looked_at("forecasts on a page", &page, 6, "The items that sold most");
    let folder = ["--date", "2026-02-13", "--page", own.path().to_str().unwrap()];
    assert!(refused(&[&places[..], &folder].concat(), 2).contains("it is a folder"));
}

#[test]
fn dates_that_a_model_has_learnt_from_are_marked_and_open_ones_refused() {
    let (_own, lake, output) = shop();
    let rows = evaluated(&lake, &output, &["--backfill", "2026-02-13..2026-02-20"]);
    let marks = ["2026-02-13", TRAINED_ON, "all"].map(|date| row(&rows, date, "purchase")["in_training"].clone());
    assert_eq!(marks, [true, false, true].map(Value::from));
    let users = |date: &str| row(&rows, date, "view")["users"].as_u64().unwrap();
    assert_eq!(users("all"), users("2026-02-13") + users(TRAINED_ON));
    // Churn is known four weeks later, which the lake does not hold.
    assert!(rows.iter().all(|row| row["intent"] != "churn"));

    let places = ["evaluate", "--lake", &lake, "--output", &output];
    let errors = refused(&[&places[..], &["--date", "2026-02-27"]].concat(), 3);
    assert!(errors.contains("complete on 2026-03-06") && errors.contains("the newest date is 2026-02-"), "{errors}");
    let shorter = ["--set", "intents.horizon_days=3"];
    let errors = refused(&[&shorter[..], &places, &["--date", TRAINED_ON]].concat(), 2);
    assert!(errors.contains("it predicts 7 days") && errors.contains("--set intents.horizon_days=7"), "{errors}");
    let errors = refused(&[&places[..], &["--date", TRAINED_ON, "--model", "no-such-version"]].concat(), 6);
    assert!(errors.contains("no such model"), "{errors}");
}

#[test]
fn a_model_compared_with_its_copy_differs_by_nothing() {
    let (own, lake, output) = shop();
    let champion = std::fs::read_to_string(format!("{output}/models/champion")).unwrap();
    let (version, copy) = (champion.trim(), "20260220-00000000");
    lakes::copy(&Path::new(&output).join("models").join(version), &Path::new(&output).join("models").join(copy));
    let card = format!("{output}/models/{copy}/bundle.json");
    let text = std::fs::read_to_string(&card).unwrap().replace(version, copy);
    std::fs::write(&card, text).unwrap();
    let rows = evaluated(&lake, &output, &["--date", TRAINED_ON, "--against", copy]);
    let differences: Vec<&Value> = rows.iter().filter(|row| row["difference"].is_number()).collect();
    assert!(differences.len() >= 4 && differences.iter().any(|row| row["recommended"] == 20));
    for row in differences {
        for bound in ["difference", "difference_low", "difference_high"] {
            // Each service pools rows differently, which the eighth digit of a score shows.
            assert!(row[bound].as_f64().is_none_or(|value| value.abs() < 1e-3), "{row}");
        }
    }
    let on_that_date = ["evaluate", "--lake", &lake, "--output", &output, "--date", TRAINED_ON];
    let page = own.path().join("compared.html");
    let table = done(&[&on_that_date[..], &["--against", copy, "--page", page.to_str().unwrap()]].concat());
    looked_at("a_model_compared_with_its_copy_differs_by_nothing", &page, 4, "purchase: ");
    let unwritable = [&on_that_date[..], &["--page", "/nowhere/page.html"]].concat();
    assert!(refused(&unwritable, 2).contains("--page /nowhere/page.html"));
    assert!(
        table.contains("average_precision")
            && table.contains("0.0000 (0.0000 to 0.0000)")
            && !table.contains("-0.0000"),
        "{table}"
    );
    assert!(refused(&[&on_that_date[..], &["--against", version]].concat(), 2).contains("expected another version"));
    let csv = [&on_that_date[..], &["--format", "csv", "--against", copy]].concat();
    assert!(refused(&csv, 2).contains("--format json"));
}

/// Opens a page where a browser is here.
fn looked_at(test: &str, page: &Path, charts: u64, text: &str) {
    let stamp = root().join(".clients/stamp");
    let wanted = [Client::Program("chromium"), Client::Program("node"), Client::File(&stamp)];
    if !clients::all_here(test, &wanted) {
        return;
    }
    let seen = clients::open_evaluation(page);
    for nothing in ["errors", "requests", "violations", "overflows"] {
        assert_eq!(seen[nothing].as_array().unwrap().len(), 0, "{nothing}: {seen}");
    }
    assert!(seen["charts"].as_u64() >= Some(charts) && seen["drawn"] == seen["charts"], "{seen}");
    assert!(seen["headings"].to_string().contains(text), "{seen}");
}

#[test]
fn a_backtest_trains_at_each_date_and_promotes_nothing() {
    let (own, lake, output) = shop();
    let champion = std::fs::read_to_string(format!("{output}/models/champion")).unwrap();
    let page = own.path().join("backtest.html");
    let dates = "2026-02-13,2026-02-06";
    let more = ["--dates", dates, "--format", "json", "--page", page.to_str().unwrap()];
    // The shop is too young for forecasts at these dates.
    let small = ["--set", "train.epochs_max=1", "--set", "train.as_of_dates=3", "--set", "demand.enabled=false"];
    let places = ["backtest", "--lake", &lake, "--output", &output];
    let rows = || -> Vec<Value> {
        let lines = done(&[&small[..], &places, &more].concat());
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let first = rows();
    let purchase = |date: &str| row(&first, date, "purchase");
    let (older, newer, all) = (purchase("2026-02-06"), purchase("2026-02-13"), purchase("all"));
    assert_eq!(all["users"].as_u64(), Some(older["users"].as_u64().unwrap() + newer["users"].as_u64().unwrap()));
    for (row, day) in [(older, "20260206"), (newer, "20260213")] {
        // A model of each date, which has learnt nothing of later days.
        assert!(row["model_version"].as_str().unwrap().starts_with(day) && row["in_training"] == false, "{row}");
    }
    assert_eq!(all["model_version"], "of each date");
    assert_eq!(std::fs::read_to_string(format!("{output}/models/champion")).unwrap(), champion);
    looked_at("a_backtest_trains_at_each_date_and_promotes_nothing", &page, 4, "purchase: ");

    // The second run finds both models.
    let models = || std::fs::read_dir(format!("{output}/models")).unwrap().count();
    let before = models();
    let again = rows();
    assert_eq!((again.len(), models()), (first.len(), before));
    // Outcomes that are not complete are refused before anything is trained.
    let open = [&places[..], &["--dates", "2026-02-13,2026-02-27"]].concat();
    assert!(refused(&open, 3).contains("complete on 2026-03-06"));
    let nowhere = [&places[..], &["--dates", "2026-02-13", "--format", "csv"]].concat();
    assert!(refused(&nowhere, 2).contains("pass --task"));
}
