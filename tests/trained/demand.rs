//! Demand: the mix of forecasts and purchase intents by the accuracy of earlier nights, sums that agree, the intents of earlier
//! nights as inputs, and the coverage of quantiles by demand pattern.

use datafusion::prelude::SessionContext;
use indicatif::ProgressBar;
use intentcast::config::{Config, DemandConfig, TrainConfig};
use intentcast::model::demand::{Calibration, DemandNetwork, DemandPattern, DemandShape, ItemHistory, RatePrior};
use intentcast::publish::lock;
use intentcast::training::datasets::{BlockRows, ItemBlocks, ItemColumns, ItemDatasets, ItemStatistics, LabelledItems};
use intentcast::training::demand::{self, DemandData};
use intentcast::training::fitting::Journal;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Gamma, Poisson};
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::{Device, nn};

use crate::support::nights::{self, QUICK, memory};
use crate::support::random_model;
use crate::support::shop::{TRAINED_ON, champion, contents, done, night_of_all, query, refused, run_column, shop};

/// Returns the numbers of a query over the published tables, row by row.
fn numbers(output: &str, sql: &str) -> Vec<Vec<f64>> {
    let text = query(output, sql);
    text.lines().skip(1).map(|line| line.split(',').map(|v| v.parse().unwrap_or(f64::NAN)).collect()).collect()
}

fn shown(lake: &str, output: &str, date: &str, sql: &str) -> Vec<String> {
    let places = ["--lake", lake, "--output", output, "--date", date];
    let text = done(&[&["sql"], &places[..], &["--format", "csv", "-c", sql]].concat());
    text.lines().skip(1).map(String::from).collect()
}

#[test]
fn forecasts_follow_intents_once_earlier_nights_support_it() {
    let (_own, lake, output) = shop();
    let totals = "SELECT max(intent_weight), min(intent_weight), sum(mean), sum(model_mean) FROM demand_total";
    // The outcomes of these four nights are known by the fifth.
    for date in ["2026-02-20", "2026-02-21", "2026-02-22", "2026-02-23"] {
        night_of_all(&lake, &output, date);
        let found = &numbers(&output, totals)[0];
        assert_eq!((found[0], found[1]), (0.0, 0.0), "{date}: nothing is known of intents yet");
        assert!((found[2] - found[3]).abs() < 1e-9, "{found:?}");
    }
    night_of_all(&lake, &output, "2026-03-02");
    let found = &numbers(&output, totals)[0];
    let weight = found[0];
    assert!(weight == found[1] && weight > 0.0 && weight <= 1.0, "{found:?}");
    assert!((found[2] - found[3]).abs() > 1e-3, "{found:?}");

    // The expected weight, computed from the tables of the four nights and the lake.
    let nights = "SELECT CAST(item_id AS VARCHAR), CAST(target_date AS VARCHAR), run_date, model_mean, intent_units \
                  FROM demand_history WHERE run_date < DATE '2026-02-24' AND intent_units IS NOT NULL";
    let days = "SELECT d.item_id, CAST(d.day AS VARCHAR), d.units, c.category FROM item_days d \
                LEFT JOIN item_category c ON c.item_id = d.item_id WHERE d.in_stock";
    let mut sold = BTreeMap::new();
    for line in shown(&lake, &output, "2026-03-02", days) {
        let parts: Vec<String> = line.split(',').map(String::from).collect();
        sold.insert((parts[0].clone(), parts[1].clone()), (parts[2].parse::<f64>().unwrap(), parts[3].clone()));
    }
    let mut sums: BTreeMap<(String, String), [f64; 3]> = BTreeMap::new();
    for line in query(&output, nights).lines().skip(1) {
        let parts: Vec<&str> = line.split(',').collect();
        if let Some((units, category)) = sold.get(&(parts[0].to_string(), parts[1].to_string())) {
            let sum = sums.entry((parts[2].to_string(), category.clone())).or_default();
            for (sum, value) in sum.iter_mut().zip([parts[3].parse().unwrap(), parts[4].parse().unwrap(), *units]) {
                *sum += value;
            }
        }
    }
    let over = |of: &dyn Fn(&[f64; 3]) -> f64| sums.values().map(of).sum::<f64>();
    let wanted = over(&|[m, i, u]| (u - m) * (i - m)) / over(&|[m, i, _]| (i - m) * (i - m));
    assert!((weight - wanted.clamp(0.0, 1.0)).abs() < 1e-6, "{weight} {wanted}");

    // The weight determines the total of each category, and an item's quantiles move with its mean.
    let categories = "SELECT sum(mean), sum(model_mean), sum(intent_units) FROM demand_total \
                      WHERE level = 'category' AND intent_units IS NOT NULL GROUP BY category";
    let categories = numbers(&output, categories);
    assert!(categories.len() > 3);
    for row in categories {
        assert!((row[0] - (1.0 - weight) * row[1] - weight * row[2]).abs() < 1e-6, "{row:?}");
    }
    let factors = "SELECT count(*) FROM (SELECT category, max(mean / model_mean) AS high, min(mean / model_mean) AS low \
                   FROM demand WHERE model_mean > 0 GROUP BY category) WHERE high - low > 1e-9";
    assert_eq!(numbers(&output, factors)[0][0], 0.0);

    let alone =
        ["--set", "privacy.k_min=1", "--set", "demand.reconcile_intents=false", "nightly", "--date", "2026-03-02"];
    done(&[&alone[..], &["--lake", &lake, "--output", &output]].concat());
    let found = &numbers(&output, totals)[0];
    assert!(found[0] == 0.0 && (found[2] - found[3]).abs() < 1e-9, "{found:?}");
}

#[test]
fn a_shop_may_want_intents_alone() {
    let (own, lake, _) = shop();
    let output = own.path().join("intents-alone").display().to_string();
    let places = ["--lake", &lake, "--output", &output, "--date"];
    let alone = ["--set", "demand.enabled=false"];
    let small =
        ["train.epochs_max=1", "train.refit_epochs=0", "train.as_of_dates=2", "model.width=16", "intents.trees=false"];
    let small: Vec<&str> = small.iter().flat_map(|setting| ["--set", setting]).collect();
    done(&[&alone[..], &small, &["train"], &places, &[TRAINED_ON]].concat());
    let card = champion(&output);
    let card = std::fs::read_to_string(format!("{output}/models/{card}/bundle.json")).unwrap();
    assert!(!card.contains("pinball"), "{card}");

    let refused_night = refused(&[&["nightly"], &places[..], &["2026-02-21"]].concat(), 6);
    assert!(refused_night.contains("it forecasts no demand") && refused_night.contains("demand.enabled=false"));
    assert!(!contents(&output).keys().any(|file| file.starts_with("./tables/")), "nothing is published");
    for date in ["2026-02-21", "2026-03-02"] {
        done(&[&alone[..], &["nightly"], &places, &[date]].concat());
        let rows = "SELECT (SELECT count(*) FROM demand) AS a, (SELECT count(*) FROM demand_total) AS b, \
                    (SELECT count(*) FROM replenishment) AS c, (SELECT count(*) FROM intent) > 0 AS d, \
                    (SELECT count(*) FROM recommendation) > 0 AS e";
        assert_eq!(query(&output, rows).lines().nth(1), Some("0,0,0,true,true"));
        let note =
            query(&output, &format!("SELECT note FROM runs WHERE run_date = DATE '{date}' AND note IS NOT NULL"));
        assert!(note.contains("demand.enabled = false: demand, demand_total and replenishment have no rows"), "{note}");
    }
    let accuracy = run_column(&output, "accuracy", "2026-03-02").to_string();
    assert!(!accuracy.contains("demand"), "nothing was forecast: {accuracy}");
    done(&[&alone[..], &["report"], &places, &["2026-03-02"]].concat());
    let sql = "SELECT forecast_demand(history) FROM item_history";
    for asked in [&["sql", "-c", sql][..], &["evaluate", "--task", "demand"]] {
        let errors = refused(&[&alone[..], asked, &places, &["2026-02-21"]].concat(), 6);
        assert!(errors.contains("it forecasts no demand"), "{errors}");
    }
}

#[test]
fn a_history_holds_the_intents_of_earlier_nights_only() {
    let (_own, lake, output) = shop();
    for date in ["2026-02-21", "2026-02-23", "2026-02-26"] {
        night_of_all(&lake, &output, date);
    }
    // Its model was trained on later data, so a later night must not read it.
    night_of_all(&lake, &output, "2026-02-12");
    let known = |date: &str| {
        let sql = "SELECT day, count(*), count(intent_units) FROM item_days \
                   WHERE intent_units IS NOT NULL AND day >= DATE '2026-01-01' GROUP BY day ORDER BY day";
        shown(&lake, &output, date, sql).iter().map(|line| line[..10].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(known("2026-02-21"), Vec::<String>::new());
    assert_eq!(known("2026-02-23"), ["2026-02-21", "2026-02-22"]);
    assert_eq!(known("2026-02-27").len(), 6, "from 2026-02-21 on, without a gap");
    // Two nights forecast 2026-02-24; the later one counts.
    let of_day = shown(
        &lake,
        &output,
        "2026-02-26",
        "SELECT round(sum(intent_units), 6) FROM item_days WHERE day = DATE '2026-02-24'",
    );
    let published = "SELECT round(sum(intent_units), 6) FROM demand_history \
                     WHERE target_date = DATE '2026-02-24' AND run_date = DATE '2026-02-23'";
    let published = query(&output, published);
    assert_eq!(of_day[0].parse::<f64>().unwrap(), published.lines().nth(1).unwrap().parse::<f64>().unwrap());

    // A rerun with the same earlier nights changes nothing; with another earlier night it publishes again.
    assert_eq!(night_of_all(&lake, &output, "2026-02-26")["published"], false);
    night_of_all(&lake, &output, "2026-02-24");
    assert_eq!(night_of_all(&lake, &output, "2026-02-26")["published"], true);
    assert_eq!(night_of_all(&lake, &output, "2026-02-26")["published"], false);
}

#[test]
fn a_network_trained_among_nights_reads_their_intents() {
    let (_own, lake, output) = shop();
    let places = ["--lake", &lake, "--output", &output];
    // The shop has too few days for the default.
    let settings = ["demand.history_days=28", "demand.horizon_days=7", "intents.churn_days=7"];
    let short = settings.map(|setting| ["--set", setting]).concat();
    let trained = |date: &str, more: &[&str]| {
        let printed = done(&[&short[..], more, &["train"], &places, &["--date", date]].concat());
        let version = printed.split_whitespace().nth(1).unwrap().to_string();
        done(&["promote", "--output", &output, "--force", &version]);
        let card = std::fs::read(format!("{output}/models/{version}/bundle.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&card).unwrap()["demand"]["intents"].as_bool().unwrap()
    };
    assert!(!trained("2026-02-03", &[]), "there was no night");
    for date in ["2026-02-03", "2026-02-10", "2026-02-17"] {
        done(&[&short[..], &["nightly"], &places, &["--date", date]].concat());
    }
    assert!(!trained("2026-03-01", &["--set", "demand.intent_inputs=false"]));
    // The dates are spread over the lake, and the nights are as old as the newest of them.
    let calibrated = ["--set", "demand.calibration_dates=0"];
    assert!(trained("2026-03-01", &calibrated), "nights had forecast a sixth of the histories' days");

    let fields =
        ["item_id", "category", "content", "first_date", "units", "price", "promoted", "in_stock", "views", "carts"];
    let rest = ["promoted_future", "price_future", "days_since_first_seen", "lead_time_days"];
    let same = |fields: &[&str]| fields.iter().map(|f| format!("'{f}', history['{f}']")).collect::<Vec<_>>().join(", ");
    let told = format!(
        "named_struct({}, 'intent_units', array_repeat(9.0, cardinality(history['units'])), {})",
        same(&fields),
        same(&rest)
    );
    let sql = format!(
        "WITH f AS (SELECT forecast_demand(history)[2]['mean'] AS own, forecast_demand({told})[2]['mean'] AS other \
         FROM item_history) SELECT count(*), sum(CASE WHEN abs(own - other) > 1e-4 THEN 1 ELSE 0 END) FROM f"
    );
    let command = [&short[..], &["sql"], &places, &["--date", "2026-03-01", "--format", "csv", "-c", &sql]].concat();
    let counts = done(&command);
    let counts: Vec<usize> = counts.lines().nth(1).unwrap().split(',').map(|n| n.parse().unwrap()).collect();
    assert!(counts[1] * 2 > counts[0] && counts[0] > 20, "forecasts that follow the promises: {counts:?}");
}

#[tokio::test]
async fn sums_that_differ_stop_the_night() {
    let output = memory("sums");
    let ctx = SessionContext::new();
    let held = lock::acquire(&output, nights::date("2026-03-01"), &QUICK).await.unwrap();
    let with_total = |sql: &str| {
        let mut tables = nights::tables_of(0.2);
        tables.iter_mut().find(|(table, _)| *table == "demand_total").unwrap().1 = sql.to_string();
        tables
    };
    let rows = |mean: &str, rest: &str| {
        format!(
            "SELECT level, '' AS category, DATE '2026-03-02' AS target_date, {mean} AS mean {rest} \
             FROM (VALUES ('category'), ('total')) AS l(level)"
        )
    };
    let reconciled = ", 2.0 AS model_mean, 6.0 AS intent_units, 0.5 AS intent_weight";
    let alone = ", 4.0 AS model_mean, 0.0 AS intent_weight";
    for (sql, fault) in [
        (rows("4.0", alone), None),
        (rows("4.0", reconciled), None),
        (
            rows("CASE level WHEN 'total' THEN 5.0 ELSE 4.0 END", alone),
            Some("demand of total: expected the sum of its items"),
        ),
        (rows("CASE level WHEN 'total' THEN 4.0 ELSE 3.0 END", alone), Some("demand of category: expected the sum")),
        (rows("4.0", &reconciled.replace("0.5", "0.75")), Some("expected network and intents, reconciled, 5")),
        (format!("{} WHERE level = 'total'", rows("4.0", alone)), Some("demand of category: expected the sum")),
        (format!("{0} UNION ALL {0}", rows("4.0", alone)), Some("expected the sum of its items, 4.0, got 8.0")),
        (rows("CAST('NaN' AS DOUBLE)", alone), Some("demand of total")),
    ] {
        let staged = nights::stage(&ctx, &output, &held, &with_total(&sql)).await;
        match (nights::check(&ctx, &output, held.run_date, &staged).await, fault) {
            (Ok(()), None) => {}
            (Err(failure), Some(fault)) => {
                assert_eq!(failure.kind.exit_code(), 4);
                assert!(failure.message.contains(fault), "{sql}\n{failure}");
            }
            (found, _) => panic!("{sql}: expected {fault:?}, got {found:?}"),
        }
    }
    held.release().await.unwrap();
}

const HORIZON_DAYS: usize = 7;
const HISTORY_DAYS: usize = 56;

/// Demand pattern of an item. Sales are drawn from it, so the truth is known.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Several units a day, more on two days of the week.
    Daily,
    /// A unit now and then.
    Single,
    /// Many units now and then.
    Bulk,
    /// Seen for a few days only.
    Young,
    /// No sale in the history; some sell again.
    Asleep,
}

/// Draws `count` items of each kind as of one date, with the days after it. Ids begin with `of`.
fn drawn(of: &str, count: usize, rng: &mut ChaCha8Rng) -> LabelledItems {
    let mut set = LabelledItems::default();
    for kind in [Kind::Daily, Kind::Single, Kind::Bulk, Kind::Young, Kind::Asleep] {
        for number in 0..count {
            let seen = if matches!(kind, Kind::Young) { rng.random_range(1..14) } else { HISTORY_DAYS };
            let rate = match kind {
                Kind::Daily => rng.random_range(2.0..15.0),
                Kind::Single => rng.random_range(0.03..0.4),
                Kind::Bulk => rng.random_range(0.05..0.3),
                Kind::Young => Gamma::new(1.0, 0.5).unwrap().sample(rng) + 1e-6,
                Kind::Asleep => {
                    if rng.random_bool(0.1) {
                        0.3
                    } else {
                        1e-6
                    }
                }
            };
            let first_day = 20_000;
            let mut day = |at: usize| -> f64 {
                let busy = if (first_day + at as i64 + 3) % 7 >= 5 { 1.6 } else { 1.0 };
                match kind {
                    Kind::Daily => {
                        Poisson::new(rate * busy * Gamma::new(5.0, 0.2).unwrap().sample(rng)).unwrap().sample(rng)
                    }
                    Kind::Asleep if at < seen => 0.0,
                    Kind::Single | Kind::Young | Kind::Asleep => Poisson::new(rate).unwrap().sample(rng),
                    Kind::Bulk if rng.random_bool(rate) => {
                        1.0 + Poisson::new(Gamma::new(0.6, 8.0).unwrap().sample(rng) + 1e-9).unwrap().sample(rng)
                    }
                    Kind::Bulk => 0.0,
                }
            };
            let units: Vec<f64> = (0..seen + HORIZON_DAYS).map(&mut day).collect();
            let mut item = ItemHistory::default();
            (item.item_id, item.first_day) = (format!("{of}-{kind:?}-{number}"), first_day);
            (item.units, item.price) = (units[..seen].to_vec(), vec![1.0; seen]);
            (item.promoted, item.in_stock) = (vec![false; seen], vec![true; seen]);
            (item.views, item.carts) = (vec![0.0; seen], vec![0.0; seen]);
            (item.days_since_first_seen, item.lead_time_days) = (seen as i64, 7);
            set.items.push(item);
            set.units.push(units[seen..].to_vec());
            set.in_stock.push(vec![true; HORIZON_DAYS]);
        }
    }
    set
}

#[test]
fn quantiles_cover_sales_at_their_level_for_each_item_speed() {
    let mut rng = ChaCha8Rng::seed_from_u64(31);
    let sizes = DemandConfig {
        horizon_days: HORIZON_DAYS as u32,
        history_days: HISTORY_DAYS as u32,
        history_days_min: 14,
        ..DemandConfig::default()
    };
    let mut drawn = |of: &str, count: usize| ItemColumns::from_items(&drawn(of, count, &mut rng), &sizes).unwrap();
    let held = |items: ItemColumns| Arc::new(ItemBlocks::in_memory(items).unwrap());
    let new = drawn("d", 300);
    let new = held(new.take(&new.rows_with_pattern(|pattern| pattern == DemandPattern::New)).unwrap());
    let items = ItemDatasets {
        train: held(drawn("a", 400)),
        calibration: held(drawn("c", 300)),
        test: held(drawn("b", 300)),
        new_before_test: Arc::clone(&new),
        new_newest: new,
    };
    let shape = DemandShape {
        width: 16,
        horizon_days: HORIZON_DAYS as i64,
        history_days: HISTORY_DAYS as i64,
        ..random_model::demand_shape()
    };
    tch::manual_seed(4);
    let mut store = nn::VarStore::new(Device::Cpu);
    let mut network = DemandNetwork::new(&store.root(), &shape);
    let train = TrainConfig { epochs_max: 8, ..TrainConfig::default() };
    let settings = Config { train, ..Config::default() };
    let bar = ProgressBar::hidden();
    let statistics = ItemStatistics::from_blocks(&items.train).unwrap();
    assert_eq!((statistics.content_dims, statistics.intent_days_share), (0, 0.0));
    let data = DemandData { items: &items, statistics: &statistics };
    let figures = demand::train(&mut network, &mut store, data, &settings, &mut Journal::disabled(), &bar).unwrap();
    for (name, value) in figures.iter().filter(|(name, _)| name.contains("_test")) {
        println!("{name} {value:.4}");
    }
    println!("{:?} {:?} {:?}", network.shape.prior, network.shape.blend, network.shape.calibration);
    // Items of quantiles have trees too, which forecast about as well as the network.
    let pinball = |member: &str| figures[&format!("pinball_test{member}")];
    assert!(pinball("") < 1.02 * pinball("_network").min(pinball("_trees")), "{figures:?}");
    assert!(pinball("_trees") < 0.8 * pinball("_seasonal_naive"), "{figures:?}");
    // Rates of new items were drawn from a Gamma distribution with a mean of one unit in two days.
    let RatePrior { units, days, spread } = network.shape.prior;
    assert!((0.6..1.6).contains(&units) && (1.2..3.2).contains(&days), "{units} in {days} days");
    assert!(spread < 0.2, "days of one differ as Poisson sales do: {spread}");
    // One dormant item in ten sells 0.3 units a day again, and some slow items have sold nothing so far.
    let RatePrior { units, days, .. } = network.shape.dormant_prior;
    assert!((0.015..0.06).contains(&(units / days)), "{units} in {days} days");
    for speed in DemandPattern::ALL.map(DemandPattern::name) {
        assert!(figures[&format!("items_test_{speed}")] >= 150.0, "{speed}");
        let ratio = figures[&format!("forecast_to_sold_test_{speed}")];
        // Only 30 of 300 dormant items sell again, and few new items account for most of their sales.
        let most = if ["dormant", "new"].contains(&speed) { 1.8 } else { 1.15 };
        assert!((1.0 / most..most).contains(&ratio), "{speed}: {ratio} of what was sold was forecast");
        for (name, level) in [("q90", 0.9), ("q10_q90", 0.8)] {
            for span in ["", "lead_time_"] {
                let below = |end: &str| figures[&format!("coverage_without_ties_test_{span}{name}_{speed}{end}")];
                let within = |end: &str| figures[&format!("coverage_test_{span}{name}_{speed}{end}")];
                // The intervals include the sampling error of the tested items. As many items calibrated the quantiles, and
                // their error adds to it; and all of twenty checks must hold (Bonferroni: 3.02 deviations for 1.96).
                let wider = 2f64.sqrt() * 3.02 / 1.96;
                let low = below("") - (below("") - below("_low")) * wider;
                let high = within("") + (within("_high") - within("")) * wider;
                assert!(low <= level && level <= high, "{span}{name} of {speed} items: {low} to {high}");
            }
        }
    }
}

/// A bundle that was written before intents, priors and calibration existed still loads.
#[test]
fn an_older_bundle_forecasts_without_the_newer_input() {
    let older = r#"{"network": "gru", "width": 8, "layers": 1, "horizon_days": 5, "history_days": 28,
                    "history_days_min": 2, "slow_units_per_day": 0.0}"#;
    let shape: DemandShape = serde_json::from_str(older).unwrap();
    assert!(!shape.intents && shape.calibration == Calibration::default());
    let store = nn::VarStore::new(Device::Cpu);
    let network = DemandNetwork::new(&store.root(), &shape);
    let mut item = ItemHistory::default();
    (item.units, item.price) = (vec![2.0; 9], vec![1.0; 9]);
    (item.promoted, item.in_stock) = (vec![false; 9], vec![true; 9]);
    (item.views, item.carts) = (vec![0.0; 9], vec![0.0; 9]);
    (item.days_since_first_seen, item.lead_time_days) = (9, 3);
    let mut with_intents = item.clone();
    with_intents.intent_units = vec![5.0; 9];
    let forecasts = network.forecast(&[item, with_intents], Device::Cpu).unwrap();
    let both = forecasts[0].daily.iter().flatten().zip(forecasts[1].daily.iter().flatten());
    assert!(both.into_iter().all(|(a, b)| (a - b).abs() < 1e-5), "{forecasts:?}");
}
