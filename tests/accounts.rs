//! What a night accounts for: purchase intents added up by item.

use crate::nightly::{done, night, query, shop};

/// The numbers of the one row that a query gives.
fn numbers(arguments: &[&str], sql: &str) -> Vec<f64> {
    let printed = done(&[&["sql", "--format", "csv"], arguments, &["-c", sql]].concat());
    printed.lines().nth(1).unwrap().split(',').map(|n| n.parse().unwrap()).collect()
}

fn near(left: f64, right: f64) -> bool {
    (left - right).abs() <= 1e-6 * right.abs().max(1.0)
}

#[test]
fn intent_units_share_out_every_purchase_probability() {
    let (_own, lake, output) = shop();
    night(&lake, &output, "2026-02-21");
    let of = |sql: &str| numbers(&["--output", &output], sql);
    let total = of("SELECT (SELECT sum(intent_units) FROM demand), (SELECT sum(p_purchase) FROM intent \
                    WHERE user_id IN (SELECT user_id FROM recommendation))");
    assert!(total[0] > 1.0 && near(total[0], total[1]), "{total:?}");
    // Intents look 7 days ahead, the forecasts of this shop 14.
    let spread = of("SELECT count(*) FILTER (WHERE intent_units IS NULL AND target_date < DATE '2026-02-28'), \
                       count(*) FILTER (WHERE intent_units IS NOT NULL AND target_date >= DATE '2026-02-28'), count(*) FROM demand");
    assert!(spread[..2] == [0.0, 0.0] && spread[2] > 14.0, "{spread:?}");
    let by_item = of(
        "WITH affinity AS (SELECT r.item_id, i.p_purchase * exp(r.score - max(r.score) OVER (PARTITION BY r.user_id)) \
                        / sum(exp(r.score)) OVER (PARTITION BY r.user_id) * exp(max(r.score) OVER (PARTITION BY r.user_id)) AS units \
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
