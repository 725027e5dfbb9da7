//! Compares results with the simulated truth: purchase probabilities, recommendations, demand, reorder points, anomalies.

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use intentcast::lake::stores::Location;
use intentcast::metrics::{auc, pinball};
use intentcast::publish::{readers, runs};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::LazyLock;

use crate::support::regression::auc_in_sample;

/// Date of the training, before the first night.
const TRAINED_ON: &str = "2026-04-20";
/// Settings of a model that trains in a minute or two.
const MODEST: [&str; 12] = [
    "--set",
    "model.width=32",
    "--set",
    "model.layers=1",
    "--set",
    "train.batch_rows=64",
    "--set",
    "train.epochs_max=5",
    "--set",
    "train.as_of_dates=8",
    "--set",
    "demand.as_of_dates=8",
];
const NIGHTS: [&str; 4] = ["2026-04-20", "2026-04-28", "2026-05-06", "2026-05-14"];

/// Users with a planted anomaly before the last night.
const PLANTED: usize = 90;

struct Shop {
    _folder: tempfile::TempDir,
    lake: String,
    output: String,
}

/// One lake, one model and four nights for all tests of this file.
static SHOP: LazyLock<Shop> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (lake, output) = (path("lake"), path("out"));
    done(&["simulate", "--to", &lake, "--users", "4000", "--items", "48", "--days", "142", "--seed", "17"]);
    let places = ["--lake", &lake, "--output", &output];
    plant(&lake);
    done(&[&["train"], &places[..], &["--date", TRAINED_ON]].concat());
    let version = std::fs::read_to_string(path("out/models/champion")).unwrap();
    let card = std::fs::read_to_string(path(&format!("out/models/{}/bundle.json", version.trim()))).unwrap();
    let card: serde_json::Value = serde_json::from_str(&card).unwrap();
    assert!(card["demand_trees_hash"].is_string(), "its nights forecast with trees too");
    for night in NIGHTS {
        done(&[&["nightly"], &places[..], &["--date", night]].concat());
    }
    Shop { _folder: folder, lake, output }
});

/// Plants anomalies on the day before the last night: users who repeat one kind of event a dozen times within minutes.
fn plant(lake: &str) {
    let (events, to) = (format!("{lake}/events/"), format!("{lake}/events/dt=2026-05-13/planted.parquet"));
    let sql = format!(
        "COPY (WITH own AS (SELECT *, row_number() OVER (PARTITION BY user_id ORDER BY ts) AS nth, \
               count(*) OVER (PARTITION BY user_id) AS seen FROM events WHERE item_id IS NOT NULL \
               AND user_id IS NOT NULL AND user_id NOT LIKE 'g%' AND ts < TIMESTAMP '2026-05-01T00:00:00Z'), \
             chosen AS (SELECT * FROM own WHERE nth = 1 AND seen >= 20 ORDER BY md5(user_id) LIMIT {PLANTED}), \
             numbered AS (SELECT *, row_number() OVER (ORDER BY user_id) AS kind FROM chosen) \
         SELECT concat(event_id, '-planted-', n.value) AS event_id, user_id, session_id, \
             arrow_cast(to_timestamp_seconds(1778666400 + n.value * 7), 'Timestamp(Microsecond, Some(\"UTC\"))') \
               AS ts, \
             arrow_cast(to_timestamp_seconds(1778668200), 'Timestamp(Microsecond, Some(\"UTC\"))') AS arrived_at, \
             CASE kind % 3 WHEN 0 THEN 'cart' WHEN 1 THEN 'favorite' ELSE 'review' END AS event_type, item_id \
         FROM numbered CROSS JOIN generate_series(1, 12) AS n(value)) TO '{to}' STORED AS PARQUET"
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    std::thread::spawn(move || {
        runtime.block_on(async {
            // Plain strings, as in the lake's other files, because a reader of all files merges their types.
            let plain = SessionConfig::new().set_bool("datafusion.execution.parquet.schema_force_view_types", false);
            let ctx = SessionContext::new_with_config(plain);
            ctx.register_parquet("events", events, ParquetReadOptions::default()).await.unwrap();
            ctx.sql(&sql).await.unwrap().collect().await.unwrap();
        })
    })
    .join()
    .unwrap();
}

fn done(arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_intentcast")).args(MODEST).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// Returns the numbers of a query over lake, truth and every published night, by column. In `met`, `intents` and `truth`, a
/// `person` is the last login of a user.
async fn numbers(sql: &str) -> Vec<Vec<f64>> {
    let shop = &*SHOP;
    let ctx = SessionContext::new();
    let folders = ["events", "users", "inventory"].map(|name| (name, name));
    for (name, folder) in [&folders[..], &[("propensity", "truth/propensity"), ("wanted", "truth/demand")]].concat() {
        let place = format!("{}/{folder}/", shop.lake);
        ctx.register_parquet(name, place, ParquetReadOptions::default()).await.unwrap();
    }
    let output = Location::open(&shop.output, &Default::default()).unwrap();
    let nights = runs::visible_nights(&output).await.unwrap();
    readers::register_visible(&ctx, &output, &nights).await.unwrap();
    for (view, of) in
        [("met", "events"), ("intents", "intent_history"), ("liked", "recommendation_history"), ("truth", "propensity")]
    {
        let named = format!(
            "SELECT t.*, coalesce(u.canonical_user_id, t.user_id) AS person \
             FROM {of} t LEFT JOIN users u ON u.user_id = t.user_id WHERE t.user_id IS NOT NULL"
        );
        ctx.register_table(view, ctx.sql(&named).await.unwrap().into_view()).unwrap();
    }
    let mut columns: Vec<Vec<f64>> = Vec::new();
    for batch in ctx.sql(sql).await.unwrap().collect().await.unwrap() {
        columns.resize(batch.num_columns(), Vec::new());
        for (column, array) in columns.iter_mut().zip(batch.columns()) {
            let array = cast(array, &DataType::Float64).unwrap();
            column.extend(array.as_primitive::<Float64Type>().iter().map(|v| v.unwrap_or(0.0)));
        }
    }
    columns
}

/// Returns a condition on `met`: the week from a night on.
fn week_after(night: &str) -> String {
    format!("ts >= TIMESTAMP '{night}' AND ts < TIMESTAMP '{night}' + INTERVAL '7 days'")
}

#[tokio::test(flavor = "multi_thread")]
async fn recommendations_beat_popularity() {
    let night = NIGHTS[0];
    let sql = format!(
        "WITH bought AS (SELECT DISTINCT person, item_id FROM met \
           WHERE event_type = 'purchase' AND ts < TIMESTAMP '{night}'), \
         visited AS (SELECT DISTINCT person, item_id FROM met \
           LEFT ANTI JOIN bought ON bought.person = met.person AND bought.item_id = met.item_id \
           WHERE item_id IS NOT NULL AND {}), \
         ours AS (SELECT person, item_id FROM liked WHERE run_date = DATE '{night}' AND rank <= 5), \
         popular AS (SELECT item_id FROM events WHERE item_id IS NOT NULL AND ts < TIMESTAMP '{night}' \
           AND ts >= TIMESTAMP '{night}' - INTERVAL '28 days' GROUP BY item_id ORDER BY count(*) DESC, item_id LIMIT 5) \
         SELECT count(*), count(o.item_id), count(p.item_id) FROM visited m \
         JOIN (SELECT DISTINCT person FROM ours) known ON known.person = m.person \
         LEFT JOIN ours o ON o.person = m.person AND o.item_id = m.item_id \
         LEFT JOIN popular p ON p.item_id = m.item_id",
        week_after(night)
    );
    let found = numbers(&sql).await;
    let (met, ours, popular) = (found[0][0], found[1][0] / found[0][0], found[2][0] / found[0][0]);
    println!("recall@5 over {met} user-item pairs of the week after: ours {ours:.3}, popularity {popular:.3}");
    assert!(met > 500.0 && ours > popular * 1.05, "{ours} {popular}");
}

#[tokio::test(flavor = "multi_thread")]
async fn published_demand_beats_seasonal_naive_after_training() {
    // The naive forecast knows last week's true demand, also during stock-outs; the product knew only sales.
    let night = NIGHTS[0];
    let sql = format!(
        "SELECT d.q05, d.q10, d.q25, d.q50, d.q75, d.q90, d.q95, w.units_wanted, n.units_wanted \
         FROM demand_history d JOIN wanted w ON w.item_id = d.item_id AND w.date = d.target_date \
         JOIN wanted n ON n.item_id = d.item_id AND n.date < DATE '{night}' AND n.date >= DATE '{night}' - 7 \
           AND date_part('dow', n.date) = date_part('dow', d.target_date) \
         WHERE d.run_date = DATE '{night}'"
    );
    let found = numbers(&sql).await;
    let cells = found[0].len();
    let (mut ours, mut naive) = (0.0, 0.0);
    for (quantiles, level) in found[..7].iter().zip([0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95]) {
        for ((&quantile, &wanted), &week_before) in quantiles.iter().zip(&found[7]).zip(&found[8]) {
            ours += pinball(level, quantile, wanted) / (cells * 7) as f64;
            naive += pinball(level, week_before, wanted) / (cells * 7) as f64;
        }
    }
    println!("pinball over {cells} days of items after training: ours {ours:.4}, seasonal naive {naive:.4}");
    assert!(cells > 40 * 28 && ours < 0.85 * naive, "{ours} {naive}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lead_times_without_stock_out_match_the_service_level() {
    let sql = "WITH level AS \
           (SELECT item_id, coalesce(max(service_level), 0.95) AS service_level FROM inventory GROUP BY item_id) \
         SELECT max(CAST(substr(r.item_id, 2) AS INT)), r.reorder_point, l.service_level, \
           sum(w.units_wanted) AS wanted, sum(w.rate) AS expected \
         FROM replenishment_history r JOIN level l ON l.item_id = r.item_id \
         JOIN wanted w ON w.item_id = r.item_id AND w.date >= r.run_date \
           AND date_part('epoch', w.date) < date_part('epoch', r.run_date) + r.lead_time_days * 86400 \
         GROUP BY r.run_date, r.item_id, r.reorder_point, l.service_level";
    let found = numbers(sql).await;
    let (items, points, levels, wanted) = (&found[0], &found[1], &found[2], &found[3]);
    let lead_times = points.len() as f64;
    let served = points.iter().zip(wanted).filter(|(point, wanted)| wanted <= point).count() as f64 / lead_times;
    let asked = levels.iter().sum::<f64>() / lead_times;
    // Lead times of one item overlap and share its forecast, so items are the sampled unit.
    let mut misses: BTreeMap<i64, f64> = BTreeMap::new();
    for row in 0..points.len() {
        *misses.entry(items[row] as i64).or_default() += f64::from(u8::from(wanted[row] <= points[row])) - levels[row];
    }
    let mean = (served - asked) * lead_times / misses.len() as f64;
    let of_items = misses.values().map(|miss| (miss - mean).powi(2)).sum::<f64>().sqrt() / lead_times;
    // A handful of misses underestimates the spread: four of 192 give two thirds of the spread of independent lead times at the
    // requested service level, and lead times of one item are not independent.
    let independent = (asked * (1.0 - asked) / lead_times).sqrt();
    let error = of_items.max(independent);
    println!(
        "{lead_times} lead times of {} items: asked {asked:.3}, served {served:.3}, sampling error {of_items:.3} \
         (were they independent: {independent:.3}); reorder points sum to {:.0}, demand {:.0}, expected {:.0}",
        misses.len(),
        points.iter().sum::<f64>(),
        wanted.iter().sum::<f64>(),
        found[4].iter().sum::<f64>()
    );
    assert!((served - asked).abs() <= 2.6 * error, "asked {asked}, served {served}, sampling error {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn purchase_auc_is_between_baseline_and_propensity() {
    let mut rows: [Vec<f64>; 8] = Default::default();
    for night in NIGHTS {
        let sql = format!(
            "WITH buyers AS (SELECT DISTINCT person FROM met WHERE event_type = 'purchase' AND quantity > 0 AND {}), \
             past AS (SELECT person, max(ts) AS last, max(ts) FILTER (WHERE event_type = 'purchase') AS bought, \
               count(*) FILTER (WHERE ts >= TIMESTAMP '{night}' - INTERVAL '7 days') AS week, \
               count(*) FILTER (WHERE ts >= TIMESTAMP '{night}' - INTERVAL '28 days') AS month, \
               count(*) FILTER (WHERE event_type = 'purchase') AS purchases \
               FROM met WHERE ts < TIMESTAMP '{night}' GROUP BY person), \
             ago AS (SELECT person, week, month, purchases, \
               date_part('epoch', TIMESTAMP '{night}') - date_part('epoch', last) AS last, \
               coalesce(date_part('epoch', TIMESTAMP '{night}') - date_part('epoch', bought), 1.2e7) AS bought FROM past) \
             SELECT i.p_purchase, t.p_purchase_7d, b.person IS NOT NULL, ln(1 + a.last), ln(1 + a.bought), \
               ln(CAST(1 + a.week AS DOUBLE)), ln(CAST(1 + a.month AS DOUBLE)), ln(CAST(1 + a.purchases AS DOUBLE)) \
             FROM intents i JOIN truth t ON t.person = i.person AND t.as_of = i.run_date \
             JOIN ago a ON a.person = i.person LEFT JOIN buyers b ON b.person = i.person \
             WHERE i.run_date = DATE '{night}'",
            week_after(night)
        );
        rows.iter_mut().zip(numbers(&sql).await).for_each(|(all, new)| all.extend(new));
    }
    let bought: Vec<bool> = rows[2].iter().map(|&b| b > 0.5).collect();
    let (ours, ceiling) = (auc(&rows[0], &bought).unwrap(), auc(&rows[1], &bought).unwrap());
    let columns = (0..bought.len()).map(|row| rows[3..].iter().map(|column| column[row]).collect()).collect();
    let naive = auc_in_sample(columns, &bought);
    println!(
        "AUC of a purchase within 7 days, {} users, {} buyers: recency and frequency {naive:.4}, ours {ours:.4}, \
         propensity {ceiling:.4}",
        bought.len(),
        bought.iter().filter(|b| **b).count()
    );
    assert!(bought.len() > 4 * 3_000, "{}", bought.len());
    assert!(naive + 0.01 < ours && ours < ceiling, "{naive} {ours} {ceiling}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_anomaly_score_beats_a_plain_z_score() {
    let night = NIGHTS[3];
    let sql = format!(
        "WITH day AS (SELECT person, date_trunc('day', ts) AS day, \
               count(*) AS n, max(CASE WHEN event_id LIKE '%-planted-%' THEN 1 ELSE 0 END) AS planted \
             FROM met WHERE ts < TIMESTAMP '{night}' AND ts >= TIMESTAMP '{night}' - INTERVAL '28 days' GROUP BY 1, 2), \
           own AS (SELECT person, \
               sum(CASE WHEN day = TIMESTAMP '{night}' - INTERVAL '1 day' THEN n ELSE 0 END) AS last, \
               sum(n) / 28.0 AS mean, \
               sqrt(greatest(sum(CAST(n AS DOUBLE) * n) / 28.0 - power(sum(n) / 28.0, 2), 0.01)) AS deviation, \
               max(planted) AS planted FROM day GROUP BY person) \
         SELECT i.anomaly_score, coalesce((o.last - o.mean) / o.deviation, 0.0), coalesce(o.planted, 0) \
         FROM intents i LEFT JOIN own o ON o.person = i.person WHERE i.run_date = DATE '{night}'"
    );
    let found = numbers(&sql).await;
    let planted: Vec<bool> = found[2].iter().map(|&p| p > 0.5).collect();
    let (ours, plain) = (auc(&found[0], &planted).unwrap(), auc(&found[1], &planted).unwrap());
    let count = planted.iter().filter(|p| **p).count();
    println!("AUC of {count} planted anomalies among {} users: ours {ours:.4}, z-score {plain:.4}", planted.len());
    assert!(count > 50 && ours > plain, "{ours} {plain}");
}
