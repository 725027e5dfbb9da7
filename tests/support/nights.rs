//! Small whole nights: staged tables for a few users and items, published as the nightly job publishes them.

use datafusion::prelude::SessionContext;
use intentcast::config::{ChecksConfig, Config, LockConfig, S3Config};
use intentcast::failure::Result;
use intentcast::ids::{Generation, RunDate};
use intentcast::lake::stores::Location;
use intentcast::model::targets::{BINARY, TARGETS};
use intentcast::publish::checks::{self, StagedNight};
use intentcast::publish::lock::{self, NightLock};
use intentcast::publish::night::{self, FaultPoint, NightCommit, StagedTables};
use intentcast::publish::runs::{self, RunRecord, VisibleNight};
use intentcast::sql_files::SqlFiles;
use intentcast::tables::write_files;

pub const QUICK: LockConfig = LockConfig { heartbeat_seconds: 1, expiry_seconds: 2 };

pub fn date(text: &str) -> RunDate {
    text.parse().unwrap()
}

pub fn memory(name: &str) -> Location {
    Location::open(&format!("memory://{name}/out"), &S3Config::default()).unwrap()
}

/// Returns the tables of a night of 4 users and 2 items; `p` is each user's purchase probability.
pub fn tables_of(p: f64) -> Vec<(&'static str, String)> {
    let users = "(VALUES ('u1'), ('u2'), ('u3'), ('u4')) AS u(user_id)";
    let scores = probabilities(p);
    vec![
        ("intent", format!("SELECT user_id, {scores}, 1.5 AS expected_units, 9.0 AS expected_spend, 0.1 AS anomaly_score, 'loyal' AS segment, 3 AS events_seen, TIMESTAMP '2026-02-28T12:00:00Z' AS last_seen_at, 'm1' AS model_version, false AS hold_out FROM {users}")),
        ("recommendation", format!("SELECT user_id, 1 AS rank, 'i1' AS item_id, 0.5 AS score FROM {users}")),
        ("demand", "SELECT item_id, DATE '2026-03-02' AS target_date, 2.0 AS mean, 0 AS q05, 0 AS q10, 1 AS q25, 2 AS q50, 3 AS q75, 4 AS q90, 5 AS q95, 2.0 AS model_mean FROM (VALUES ('i1'), ('i2')) AS i(item_id)".into()),
        ("demand_total", "SELECT level, '' AS category, DATE '2026-03-02' AS target_date, 4.0 AS mean, 4.0 AS model_mean, 0.0 AS intent_weight FROM (VALUES ('category'), ('total')) AS l(level)".into()),
        ("replenishment", "SELECT 'i1' AS item_id, 3 AS on_hand, 0 AS on_order, 2 AS lead_time_days, 1 AS review_period_days, 0.9 AS service_level, 12 AS pack_size, 0 AS min_order_quantity, 4.1 AS lead_time_demand_mean, 1 AS lead_time_demand_q05, 2 AS lead_time_demand_q10, 3 AS lead_time_demand_q25, 4 AS lead_time_demand_q50, 5 AS lead_time_demand_q75, 6 AS lead_time_demand_q90, 7 AS lead_time_demand_q95, 1 AS safety_stock, 5 AS reorder_point, 12 AS order_quantity, 0.5 AS stock_out_risk, 'position 3 is below 5' AS reason".into()),
        ("segment", "SELECT 'loyal' AS segment, 4 AS users, 0.2 AS p_purchase_mean, 0.2 AS p_churn_mean, 1.5 AS expected_units_mean, 9.0 AS expected_spend_mean, 0.1 AS anomaly_score_mean, 3.0 AS events_seen_mean".into()),
        ("lake_day", "SELECT DATE '2026-02-28' AS day, 12 AS rows_read, 12 AS events, 'open' AS kind".into()),
        ("intent_shadow", format!("SELECT user_id, {scores}, 1.5 AS expected_units, 9.0 AS expected_spend, 'm2' AS model_version FROM {users}")),
    ]
}

/// Selects `p` as the probability of every intent and of churn.
pub fn probabilities(p: f64) -> String {
    let columns = TARGETS[..BINARY].iter().map(|target| format!("CAST({p:?} AS DOUBLE) AS {}", target.output));
    columns.collect::<Vec<_>>().join(", ")
}

pub async fn stage(
    ctx: &SessionContext,
    output: &Location,
    held: &NightLock,
    tables: &[(&str, String)],
) -> StagedTables {
    let mut staged = StagedTables::new();
    for (table, sql) in tables {
        let rows = ctx.sql(sql).await.unwrap();
        let night: (RunDate, Generation) = (held.run_date, held.generation);
        let files = write_files::stage(ctx, rows, output, table, night).await.unwrap();
        staged.insert(table.to_string(), files);
    }
    staged
}

pub async fn check(ctx: &SessionContext, output: &Location, run_date: RunDate, staged: &StagedTables) -> Result<()> {
    let sql = SqlFiles::load(&Config::default()).unwrap();
    let feature_users = ctx.sql("SELECT * FROM (VALUES ('u1'), ('u2'), ('u3'), ('u4')) AS u(user_id)").await.unwrap();
    let nights = runs::visible_nights(output).await?;
    let previous = nights.iter().rfind(|night| night.run_date() < run_date);
    let folder_of = |_: &str| output;
    let subject = StagedNight { output, run_date, folder_of: &folder_of, staged, feature_users, previous };
    checks::check_night(ctx, &sql, subject, &ChecksConfig::default()).await
}

/// Locks the night, stages, checks, publishes and releases the lock.
pub async fn publish(output: &Location, night: &str, p: f64) -> Result<VisibleNight> {
    publish_until(output, night, p, &FaultPoint::default()).await
}

pub async fn publish_until(output: &Location, night: &str, p: f64, fault: &FaultPoint) -> Result<VisibleNight> {
    let ctx = SessionContext::new();
    let held = lock::acquire(output, date(night), &QUICK).await?;
    let staged = stage(&ctx, output, &held, &tables_of(p)).await;
    let published = async {
        check(&ctx, output, held.run_date, &staged).await?;
        let record = RunRecord::new(&held, format!("{night} {p}"));
        let visible = runs::visible_on(output, held.run_date).await?;
        let commit = NightCommit { output, held: &held, staged: &staged, visible: visible.as_ref(), fault };
        night::commit_night(commit, record).await
    };
    let published = published.await;
    held.release().await?;
    published
}

/// Returns (run_date, rows, mean p_purchase) of every visible night of `intent`.
pub async fn intents(output: &Location) -> Vec<(String, i64, f64)> {
    let ctx = SessionContext::new();
    let nights = runs::visible_nights(output).await.unwrap();
    intentcast::publish::readers::register_visible(&ctx, output, &nights).await.unwrap();
    let sql = "SELECT CAST(run_date AS VARCHAR) AS d, count(*) AS n, avg(p_purchase) AS p \
               FROM intent_history GROUP BY run_date ORDER BY 1";
    let mut found = Vec::new();
    for batch in ctx.sql(sql).await.unwrap().collect().await.unwrap() {
        use arrow::array::AsArray;
        let text = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8).unwrap();
        for row in 0..batch.num_rows() {
            let rows = batch.column(1).as_primitive::<arrow::datatypes::Int64Type>().value(row);
            let p = batch.column(2).as_primitive::<arrow::datatypes::Float64Type>().value(row);
            found.push((text.as_string::<i32>().value(row).to_string(), rows, p));
        }
    }
    found
}
