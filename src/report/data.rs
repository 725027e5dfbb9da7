//! Reads everything that a report shows from a night's session and its row of `runs`.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use datafusion::prelude::SessionContext;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::columns::Columns;
use crate::failure::{Failure, Result};
use crate::ids::RunDate;
use crate::metrics::drift::PSI_SHIFTED;
use crate::publish::runs::{NIGHT_SQL, VisibleNight};
use crate::sql_files::SqlFiles;
use crate::workspace::Workspace;

/// A view of `sql/report/`, with the columns that the page or the sheets read.
struct ReportView {
    name: &'static str,
    texts: &'static [&'static str],
    numbers: &'static [&'static str],
}

const fn view(name: &'static str, texts: &'static [&'static str], numbers: &'static [&'static str]) -> ReportView {
    ReportView { name, texts, numbers }
}

#[rustfmt::skip]
const VIEWS: [ReportView; 14] = [
    view("order_lines", &["item_id", "title", "category", "reason"], &[
        "order_quantity", "stock_out_risk", "days_of_cover", "on_hand", "on_order", "reorder_point", "safety_stock", "lead_time_days",
        "review_period_days", "service_level", "pack_size", "min_order_quantity", "demand_mean", "lead_time_demand_mean",
        "lead_time_demand_q05", "lead_time_demand_q10", "lead_time_demand_q25", "lead_time_demand_q50", "lead_time_demand_q75",
        "lead_time_demand_q90", "lead_time_demand_q95",
    ]),
    view("item_changes", &["item_id"], &[
        "demand_mean", "demand_before", "demand_change", "order_quantity", "order_quantity_before", "stock_out_risk",
    ]),
    view("shown_items", &["item_id"], &[]),
    view("shown_days", &["item_id", "day"], &["units"]),
    view("shown_promotions", &["item_id", "starts_on", "ends_on"], &[]),
    view("shown_stock_outs", &["item_id", "day"], &[]),
    view("shown_forecasts", &["item_id", "target_date"], &["mean", "q05", "q25", "q50", "q75", "q95"]),
    view("shown_earlier_forecasts", &["item_id", "target_date"], &["mean"]),
    view("total_days", &["day"], &["units", "forecast"]),
    view("segment_days", &["run_date", "segment"], &["users", "p_purchase_mean", "p_churn_mean", "expected_spend_mean"]),
    view("intent_days", &["run_date"], &[]),
    view(FUNNEL, &["week_from"], &["active_users", "viewing_users", "cart_users", "buying_users"]),
    view("quarantine_counts", &["view", "reason", "column_name"], &["rows"]),
    view("lake_days", &["day", "kind"], &[]),
];
const FUNNEL: &str = "funnel_weeks";

/// Everything that a report shows.
#[derive(Debug)]
pub(crate) struct Report {
    pub(super) night: VisibleNight,
    compared_date: Option<RunDate>,
    /// The visible nights up to the report's, oldest first.
    nights: Vec<VisibleNight>,
    output: String,
    horizon_days: u32,
    has_lake: bool,
    /// False where neither a lake nor the night's state has the days of items.
    has_days: bool,
    /// True where the night was made by the SQL that the formulas of the order sheet follow.
    pub(super) follows_formulas: bool,
    /// Rows of each view, by column.
    pub(super) views: BTreeMap<&'static str, Columns>,
}

impl Report {
    /// Reads the report of a visible night, by default the newest. Compares it with the night of `compared`, by default the one
    /// before.
    pub(crate) async fn read(
        workspace: &Workspace,
        run_date: Option<RunDate>,
        compared: Option<RunDate>,
    ) -> Result<Self> {
        let night = workspace.visible_night(run_date)?.clone();
        let run_date = night.run_date();
        let compared_date = match compared {
            Some(date) if date >= run_date => {
                return Err(Failure::usage(format!("--compare {date}: expected a night before {run_date}")));
            }
            Some(date) => {
                let night = workspace.visible_night(Some(date)).map_err(|failure| failure.at("--compare"))?;
                Some(night.run_date())
            }
            None => workspace.night_before(run_date).map(VisibleNight::run_date),
        };
        let session = workspace.night_session(&night, compared_date).await?;
        let has_lake = !workspace.config.lake.uri.is_empty();
        let mut views = BTreeMap::new();
        for view in &VIEWS {
            // Without the lake's users, a guest and the login that it became would count as two.
            if view.name == FUNNEL && !has_lake {
                continue;
            }
            views.insert(view.name, view.read(&session.ctx).await?);
        }
        let nights = workspace.nights().iter().filter(|night| night.run_date() <= run_date).cloned().collect();
        Ok(Self {
            compared_date,
            nights,
            output: workspace.config.output.uri.clone(),
            horizon_days: workspace.config.intents.horizon_days,
            has_lake,
            has_days: session.has_days,
            follows_formulas: follows_formulas(workspace, &night)?,
            views,
            night,
        })
    }

    /// Returns the report for machines: one object, with the rows of each view as objects.
    pub(crate) fn to_json(&self) -> Result<Value> {
        let mut object = self.facts()?;
        for (name, columns) in &self.views {
            object.insert((*name).into(), columns.rows().map(Value::Object).collect());
        }
        Ok(Value::Object(object))
    }

    /// Returns the run date.
    pub(crate) fn run_date(&self) -> RunDate {
        self.night.run_date()
    }

    /// Returns the number of items to order.
    pub(crate) fn orders(&self) -> Result<usize> {
        Ok(self.view("order_lines")?.rows().filter(is_order).count())
    }

    /// Returns the rows of a view.
    pub(super) fn view(&self, name: &str) -> Result<&Columns> {
        self.views.get(name).ok_or_else(|| Failure::bug(format!("the report has no view {name}")))
    }

    /// Replaces a column of a view.
    pub(super) fn replace(&mut self, view: &str, column: &str, values: Vec<Value>) {
        if let Some(columns) = self.views.get_mut(view) {
            columns.replace(column, values);
        }
    }

    /// Returns what the report says of the night itself.
    pub(super) fn facts(&self) -> Result<Map<String, Value>> {
        let run = serde_json::to_value(RunFacts::from_night(&self.night)).map_err(Failure::bug)?;
        let nights: Vec<Value> = self.nights.iter().rev().take(14).rev().map(night_facts).collect();
        let missing = self.view("lake_days")?.rows().filter(|row| row.get("kind") == Some(&json!("missing")));
        let missing: Vec<Value> = missing.filter_map(|row| row.get("day").cloned()).collect();
        let facts = json!({
            "run_date": self.night.run_date().to_string(),
            "compared_date": self.compared_date.map(|date| date.to_string()),
            "horizon_days": self.horizon_days,
            "drift_limit": PSI_SHIFTED,
            "output": self.output,
            "has_lake": self.has_lake,
            "has_days": self.has_days,
            "missing_days": missing,
            "run": run,
            "nights": nights,
        });
        match facts {
            Value::Object(facts) => Ok(facts),
            _ => Err(Failure::bug("the facts of a night are no object")),
        }
    }
}

/// Returns whether a night was made by this version's own `sql/tables/replenishment.sql`, and by no other SQL than now.
fn follows_formulas(workspace: &Workspace, night: &VisibleNight) -> Result<bool> {
    let (sql, name) = (&workspace.sql, "tables/replenishment");
    let is_same = night.run.sql_fingerprint.as_ref() == Some(&sql.fingerprint(&NIGHT_SQL));
    Ok(is_same && sql.get(name)? == SqlFiles::built_in(name)?)
}

/// Returns whether a line has something to order.
pub(super) fn is_order(line: &Map<String, Value>) -> bool {
    line.get("order_quantity").and_then(Value::as_f64) > Some(0.0)
}

/// The columns of `runs` that a report shows.
#[derive(Debug, serde::Serialize)]
struct RunFacts<'a> {
    generation: u64,
    made_visible_at: String,
    model_version: Option<String>,
    rows_read: Option<i64>,
    rows_quarantined: Option<i64>,
    quarantined_by_reason: &'a BTreeMap<String, i64>,
    drift: &'a Value,
    accuracy: &'a Value,
    note: Option<&'a str>,
}

impl<'a> RunFacts<'a> {
    fn from_night(night: &'a VisibleNight) -> Self {
        let run = &night.run;
        Self {
            generation: run.generation.0,
            made_visible_at: run.made_visible_at.to_rfc3339(),
            model_version: run.model_version.as_ref().map(ToString::to_string),
            rows_read: run.rows_read,
            rows_quarantined: run.rows_quarantined,
            quarantined_by_reason: &run.quarantined_by_reason,
            drift: &run.drift,
            accuracy: &run.accuracy,
            note: run.note.as_deref(),
        }
    }
}

fn night_facts(night: &VisibleNight) -> Value {
    json!({
        "run_date": night.run_date().to_string(),
        "rows_read": night.run.rows_read,
        "rows_quarantined": night.run.rows_quarantined,
        "seconds": night.run.stage_seconds(),
    })
}

impl ReportView {
    /// Reads the rows of the view; refuses one that lacks a column.
    async fn read(&self, ctx: &SessionContext) -> Result<Columns> {
        let place = format!("sql/report/{}.sql", self.name);
        self.read_rows(ctx).await.map_err(|failure| failure.at(place))
    }

    async fn read_rows(&self, ctx: &SessionContext) -> Result<Columns> {
        let view = ctx.table(self.name).await?;
        let schema = Arc::new(view.schema().as_arrow().clone());
        self.refuse_lacking(&schema)?;
        let mut batches = view.collect().await?;
        // The columns of a view without rows.
        batches.push(RecordBatch::new_empty(schema));
        Columns::from_batches(&batches)
    }

    fn refuse_lacking(&self, schema: &Schema) -> Result<()> {
        let texts = self.texts.iter().map(|name| (name, "a text or a date"));
        for (name, expected) in texts.chain(self.numbers.iter().map(|name| (name, "a number"))) {
            let found = schema.field_with_name(name).map(|field| field.data_type()).ok();
            let fits = match (found, expected) {
                (None, _) => false,
                (Some(DataType::Null), _) => true,
                (Some(kind), "a number") => kind.is_numeric(),
                (Some(kind), _) => !kind.is_numeric() && !kind.is_nested(),
            };
            if !fits {
                let got = found.map_or("no such column".to_string(), ToString::to_string);
                return Err(Failure::usage(format!("column {name}: expected {expected}, got {got}"))
                    .hint("a file in sql.folder replaces the built-in one; it needs the same columns"));
            }
        }
        Ok(())
    }
}
