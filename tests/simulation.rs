//! The simulated lake has something to learn: order and content tell more than recency and frequency do.

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type};
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use intentcast::lake::stores::Location;
use intentcast::metrics::auc;
use intentcast::simulation::{self, SimulateOptions};

/// The truth's days, all with at least four weeks before and one after.
const DAYS: [u32; 6] = [35, 42, 49, 56, 63, 70];

/// Weights of a logistic regression on standardised columns, by plain gradient descent.
fn fit(x: &[Vec<f64>], y: &[bool]) -> Vec<f64> {
    let mut w = vec![0.0; x[0].len() + 1];
    for _ in 0..400 {
        let mut gradient = vec![0.0; w.len()];
        for (row, &label) in x.iter().zip(y) {
            let miss = 1.0 / (1.0 + (-score(&w, row)).exp()) - f64::from(u8::from(label));
            gradient[0] += miss;
            gradient[1..].iter_mut().zip(row).for_each(|(g, v)| *g += miss * v);
        }
        w.iter_mut().zip(&gradient).for_each(|(w, g)| *w -= 1.0 * g / x.len() as f64);
    }
    w
}

fn score(w: &[f64], row: &[f64]) -> f64 {
    w[0] + w[1..].iter().zip(row).map(|(a, b)| a * b).sum::<f64>()
}

/// AUC of a logistic regression in sample: as kind to the columns as can be.
pub fn auc_in_sample(mut x: Vec<Vec<f64>>, y: &[bool]) -> f64 {
    for c in 0..x[0].len() {
        let mean = x.iter().map(|r| r[c]).sum::<f64>() / x.len() as f64;
        let deviation = (x.iter().map(|r| (r[c] - mean).powi(2)).sum::<f64>() / x.len() as f64).sqrt().max(1e-9);
        x.iter_mut().for_each(|r| r[c] = (r[c] - mean) / deviation);
    }
    let w = fit(&x, y);
    auc(&x.iter().map(|r| score(&w, r)).collect::<Vec<_>>(), y).unwrap()
}

#[tokio::test]
async fn the_propensity_knows_more_than_recency_and_frequency() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().display().to_string();
    let start = chrono::NaiveDate::from_ymd_opt(2026, 1, 1).unwrap();
    let options = SimulateOptions { users: 3000, items: 60, days: 80, seed: 11, faults: false, start };
    let report = simulation::run(&Location::open(&root, &Default::default()).unwrap(), &options, false).await.unwrap();
    assert!(report.purchases > 500 && report.events > 50_000, "{report}");

    let ctx = SessionContext::new();
    for (name, folder) in [("events", "events"), ("truth", "truth/propensity"), ("users", "users")] {
        ctx.register_parquet(name, format!("{root}/{folder}/"), ParquetReadOptions::default()).await.unwrap();
    }
    let days = ctx.sql("SELECT count(DISTINCT as_of) FROM truth").await.unwrap().collect().await.unwrap();
    assert_eq!(
        days[0].column(0).as_primitive::<Int64Type>().value(0),
        i64::from(options.days),
        "a truth for every day"
    );

    let (mut x, mut y, mut truth) = (Vec::new(), Vec::new(), Vec::new());
    for day in DAYS {
        let t = start + chrono::Days::new(day.into());
        let sql = format!(
            "SELECT CAST(t.p_purchase_7d AS DOUBLE), \
               ln(1 + coalesce(date_part('epoch', TIMESTAMP '{t}') - date_part('epoch', max(e.ts) FILTER (WHERE e.ts < TIMESTAMP '{t}')), 9e6)), \
               ln(1 + coalesce(date_part('epoch', TIMESTAMP '{t}') - date_part('epoch', max(e.ts) FILTER (WHERE e.ts < TIMESTAMP '{t}' AND e.event_type = 'purchase')), 9e6)), \
               ln(CAST(1 + count(e.ts) FILTER (WHERE e.ts < TIMESTAMP '{t}' AND e.ts >= TIMESTAMP '{t}' - INTERVAL '7 days') AS DOUBLE)), \
               ln(CAST(1 + count(e.ts) FILTER (WHERE e.ts < TIMESTAMP '{t}' AND e.ts >= TIMESTAMP '{t}' - INTERVAL '28 days') AS DOUBLE)), \
               ln(CAST(1 + count(e.ts) FILTER (WHERE e.ts < TIMESTAMP '{t}' AND e.event_type = 'purchase') AS DOUBLE)), \
               count(e.ts) FILTER (WHERE e.ts >= TIMESTAMP '{t}' AND e.ts < TIMESTAMP '{t}' + INTERVAL '7 days' AND e.event_type = 'purchase' AND e.quantity > 0) \
             FROM truth t LEFT JOIN events e ON t.user_id = e.user_id WHERE t.as_of = DATE '{t}' GROUP BY t.user_id, t.p_purchase_7d"
        );
        for batch in ctx.sql(&sql).await.unwrap().collect().await.unwrap() {
            let columns: Vec<_> =
                (0..6).map(|c| batch.column(c).as_primitive::<Float64Type>().values().to_vec()).collect();
            let bought = batch.column(6).as_primitive::<Int64Type>().values();
            for (row, bought) in bought.iter().enumerate() {
                truth.push(columns[0][row]);
                x.push((1..6).map(|c| columns[c][row]).collect::<Vec<f64>>());
                y.push(*bought > 0);
            }
        }
    }
    let baseline = auc_in_sample(x, &y);
    let ceiling = auc(&truth, &y).unwrap();
    println!(
        "propensity {ceiling:.4}, recency-frequency {baseline:.4}, {} purchases",
        y.iter().filter(|b| **b).count()
    );
    assert!(ceiling >= baseline + 0.05, "propensity {ceiling}, recency-frequency {baseline}");
}
