//! Compares earlier visible nights with outcomes that are known by now, for `runs`.
//!
//! Outcomes come from the labels' SQL, as training reads it at that night's date with labels that end tonight; forecasts
//! from the tables that the night published.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use serde_json::{Map, Value, json};

use crate::failure::Result;
use crate::features::{self, Scope, parts::Part, rollups::Rollups};
use crate::ids::RunDate;
use crate::metrics::{binary::BinaryMetrics, pinball};
use crate::model::targets::{AMOUNTS, INTENTS, TARGETS, Target, TargetKind};
use crate::publish::readers;
use crate::publish::runs::VisibleNight;
use crate::workspace::{SharedTables, UserEvents, Workspace};

/// A demand forecast is looked at once this many of its days have passed (or its horizon, where that is shorter).
const DEMAND_DAYS_MIN: u32 = 7;

const QUANTILES: [(&str, f64); 7] =
    [("q05", 0.05), ("q10", 0.10), ("q25", 0.25), ("q50", 0.50), ("q75", 0.75), ("q90", 0.90), ("q95", 0.95)];

/// Compares earlier nights with what happened since, from tonight's session.
pub(crate) struct LookBack<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) ctx: &'a SessionContext,
    pub(crate) rollups: &'a Rollups,
    pub(crate) tonight: RunDate,
}

impl LookBack<'_> {
    /// Returns `{"intents": …, "churn": …, "demand": …}`, each where a night is old enough; null where none is.
    pub(crate) async fn figures(&self) -> Result<Value> {
        let nights = self.workspace.nights();
        let config = &self.workspace.config;
        let ago = |days: u32| self.tonight.plus_days(-i64::from(days));
        let on = |date: RunDate| nights.iter().find(|night| night.run_date() == date);
        let (horizon, churn) = (config.intents.horizon_days, config.intents.churn_days);
        let mut found = Map::new();
        if let Some(night) = on(ago(horizon)) {
            found.insert("intents".into(), self.intents(night).await?);
        }
        // As in training: nothing within the longer of the two.
        if let Some(night) = on(ago(churn.max(horizon))) {
            found.insert("churn".into(), self.churn(night).await?);
        }
        let ripe = ago(config.demand.horizon_days.min(DEMAND_DAYS_MIN));
        if let Some(night) = nights.iter().rfind(|night| night.run_date() <= ripe) {
            let demand = self.demand(night).await?;
            // A night may have been published without forecasts.
            if demand["item_days"] != 0 {
                found.insert("demand".into(), demand);
            }
        }
        Ok(if found.is_empty() { Value::Null } else { Value::Object(found) })
    }

    async fn intents(&self, night: &VisibleNight) -> Result<Value> {
        let targets: Vec<&Target> = TARGETS.iter().filter(|target| target.kind != TargetKind::Churn).collect();
        let predicted = targets.iter().map(|target| format!("i.{}", target.output));
        let observed = targets.iter().map(|target| format!("coalesce(l.{}, 0)", target.label));
        let sql = format!(
            "SELECT {} FROM intent_labels l RIGHT JOIN published i ON i.user_id = l.user_id",
            predicted.chain(observed).collect::<Vec<_>>().join(", ")
        );
        let mut intents = INTENTS.map(|_| BinaryMetrics::default());
        let mut sums = [(0.0, 0.0); AMOUNTS];
        let width = targets.len();
        self.read(night, ("intent", Part::ALL), &sql, |row| {
            for (k, figures) in intents.iter_mut().enumerate() {
                figures.add(row[k], row[k + width] > 0.5);
            }
            for (k, (predicted, observed)) in (INTENTS.len()..).zip(&mut sums) {
                *predicted += row[k];
                *observed += row[k + width];
            }
        })
        .await?;
        let users = intents[0].rows();
        let mut found = named(night, "users", users);
        for (target, figures) in targets.iter().zip(&intents) {
            found.insert(target.output.into(), of_binary(figures));
        }
        let mean = |sum: f64| sum / users.max(1) as f64;
        for (target, (predicted, observed)) in targets[INTENTS.len()..].iter().zip(sums) {
            let means = json!({"mean_predicted": mean(predicted), "mean_observed": mean(observed)});
            found.insert(target.output.into(), means);
        }
        Ok(found.into())
    }

    async fn churn(&self, night: &VisibleNight) -> Result<Value> {
        let sql = "SELECT i.p_churn, CASE WHEN l.user_id IS NULL THEN 1 ELSE 0 END \
                   FROM intent_labels l RIGHT JOIN published i ON i.user_id = l.user_id";
        let mut figures = BinaryMetrics::default();
        self.read(night, ("intent", Part::ALL), sql, |row| figures.add(row[0], row[1] > 0.5)).await?;
        let mut found = named(night, "users", figures.rows());
        found.insert("p_churn".into(), of_binary(&figures));
        Ok(found.into())
    }

    /// Days in stock that have passed: a day without stock hides its demand.
    async fn demand(&self, night: &VisibleNight) -> Result<Value> {
        let quantiles = QUANTILES.map(|(name, _)| format!("d.{name}")).join(", ");
        let sql = format!(
            "WITH outcomes AS (SELECT item_id, unnest(future_units) AS units, unnest(future_in_stock) AS in_stock, \
               unnest(range(CAST(array_length(future_units) AS BIGINT))) AS step FROM demand_labels) \
             SELECT o.units, {quantiles} FROM outcomes o \
             JOIN published d ON d.item_id = o.item_id AND d.target_date = run_date() + CAST(o.step AS INT) \
             WHERE o.in_stock > 0 AND d.target_date < labels_end()"
        );
        let (mut item_days, mut loss, mut covered) = (0u64, 0.0, 0u64);
        for items in features::item_parts(self.ctx, &self.workspace.config).await? {
            self.read(night, ("demand", items), &sql, |row| {
                item_days += 1;
                for ((name, level), &quantile) in QUANTILES.iter().zip(&row[1..]) {
                    loss += pinball(*level, quantile, row[0]) / QUANTILES.len() as f64;
                    covered += u64::from(*name == "q90" && row[0] <= quantile);
                }
            })
            .await?;
        }
        let mut found = named(night, "item_days", item_days);
        let cells = item_days.max(1) as f64;
        let passed =
            (self.tonight.0 - night.run_date().0).num_days().min(self.workspace.config.demand.horizon_days.into());
        found.insert("days".into(), passed.into());
        found.insert("pinball".into(), (loss / cells).into());
        found.insert("covered_q90".into(), (covered as f64 / cells).into());
        Ok(found.into())
    }

    /// Streams the numbers of a query over the labels as of `night`, of a part of the items, and its `table`, here `published`,
    /// row by row.
    async fn read(
        &self,
        night: &VisibleNight,
        (table, items): (&str, Part),
        sql: &str,
        mut each: impl FnMut(&[f64]),
    ) -> Result<()> {
        let scope = Scope { run_date: night.run_date(), labels_end: self.tonight, users: Part::ALL, items };
        let ctx =
            self.workspace.session_sharing(&SharedTables::default(), self.rollups, scope, UserEvents::View).await?;
        let output = self.workspace.output()?;
        readers::register_nights(&ctx, output, table, "published", std::slice::from_ref(night)).await?;
        let mut batches = ctx.sql(sql).await?.execute_stream().await?;
        while let Some(batch) = batches.try_next().await? {
            for_each_row(&batch, &mut each)?;
        }
        Ok(())
    }
}

fn for_each_row(batch: &RecordBatch, each: &mut impl FnMut(&[f64])) -> Result<()> {
    let columns = batch.columns().iter().map(|c| cast(c, &DataType::Float64)).collect::<Result<Vec<_>, _>>()?;
    let mut row = vec![0.0; columns.len()];
    for at in 0..batch.num_rows() {
        for (value, column) in row.iter_mut().zip(&columns) {
            *value = if column.is_valid(at) { column.as_primitive::<Float64Type>().value(at) } else { f64::NAN };
        }
        each(&row);
    }
    Ok(())
}

/// Returns the beginning of a night's figures: its date, its model and the number of rows that they count.
fn named(night: &VisibleNight, counted: &str, rows: u64) -> Map<String, Value> {
    let mut found = Map::new();
    found.insert("run_date".into(), night.run_date().to_string().into());
    found.insert("model_version".into(), json!(night.run.model_version));
    found.insert(counted.into(), rows.into());
    found
}

fn of_binary(figures: &BinaryMetrics) -> Value {
    json!({
        "auc": figures.auc(),
        "log_loss": figures.log_loss(),
        "brier": figures.brier(),
        "mean_predicted": figures.mean_predicted(),
        "share_observed": figures.share_observed(),
    })
}
