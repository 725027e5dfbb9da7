//! Runs sql/tables/replenishment.sql over given stock and forecasts, without a lake or a model.

use datafusion::prelude::SessionContext;
use intentcast::config::Config;
use intentcast::features::functions;
use intentcast::sql_files::SqlFiles;

/// Levels of the quantiles of a forecast.
pub const LEVELS: [f64; 7] = [0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95];

/// Stock and lead-time forecast of one item.
#[derive(Debug, Clone)]
pub struct Item {
    pub on_hand: f64,
    pub on_order: f64,
    pub lead_time_days: f64,
    pub pack_size: f64,
    pub min_order_quantity: f64,
    pub service_level: f64,
    pub mean: f64,
    pub quantiles: [f64; 7],
}

/// Numbers of an item's line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    pub reorder_point: f64,
    pub order_quantity: f64,
    pub stock_out_risk: f64,
}

/// Returns the line of each item, in their order.
pub async fn lines(items: &[Item], review_period_days: u32) -> Vec<Line> {
    let ctx = SessionContext::new();
    let mut config = Config::default();
    config.replenishment.review_period_days = review_period_days;
    functions::register(&ctx, &config, "2026-03-01".parse().unwrap()).unwrap();
    let rows = items.iter().enumerate().map(|(at, item)| {
        let stock = [item.on_hand, item.on_order, item.lead_time_days, item.pack_size, item.min_order_quantity];
        let numbers = stock.iter().chain([&item.service_level, &item.mean]).chain(&item.quantiles);
        let numbers: Vec<String> = numbers.map(|number| format!("{number:?}")).collect();
        format!("('{:06}', {})", at, numbers.join(", "))
    });
    let given = format!(
        "CREATE TABLE given AS SELECT * FROM (VALUES {}) AS v(item_id, on_hand, on_order, lead_time_days, pack_size, \
         min_order_quantity, service_level, mean, q05, q10, q25, q50, q75, q90, q95)",
        rows.collect::<Vec<_>>().join(", ")
    );
    let views = [
        "CREATE VIEW inventory AS SELECT item_id, run_date() AS as_of, CAST(on_hand AS BIGINT) AS on_hand, \
         CAST(on_order AS BIGINT) AS on_order, CAST(lead_time_days AS BIGINT) AS lead_time_days, \
         CAST(pack_size AS BIGINT) AS pack_size, CAST(min_order_quantity AS BIGINT) AS min_order_quantity, service_level \
         FROM given",
        "CREATE VIEW demand_forecasts AS SELECT item_id, 0 AS step, mean, q05, q10, q25, q50, q75, q90, q95 FROM given",
        // No forecast was moved towards the intents.
        "CREATE VIEW demand AS SELECT item_id, 1.0 AS mean, 1.0 AS model_mean FROM given",
    ];
    for statement in [given.as_str()].into_iter().chain(views) {
        ctx.sql(statement).await.unwrap().collect().await.unwrap();
    }
    let sql = SqlFiles::load(&Config::default()).unwrap().get("tables/replenishment").unwrap().to_string();
    let query = format!(
        "WITH lines AS ({sql}) SELECT reorder_point, order_quantity, stock_out_risk FROM lines ORDER BY item_id"
    );
    let batches = ctx.sql(&query).await.unwrap().collect().await.unwrap();
    let mut lines = Vec::new();
    for batch in batches {
        let column =
            |at: usize| batch.column(at).as_any().downcast_ref::<arrow::array::Float64Array>().unwrap().clone();
        let columns = [0, 1, 2].map(column);
        for row in 0..batch.num_rows() {
            let [reorder_point, order_quantity, stock_out_risk] = [0, 1, 2].map(|at| columns[at].value(row));
            lines.push(Line { reorder_point, order_quantity, stock_out_risk });
        }
    }
    assert_eq!(lines.len(), items.len());
    lines
}
