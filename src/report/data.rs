//! Reads everything that a report shows from a night's session and its row of `runs`.

use arrow::array::RecordBatch;
use datafusion::prelude::SessionContext;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::columns::Columns;
use crate::failure::{Failure, Result};
use crate::ids::RunDate;
use crate::publish::runs::VisibleNight;
use crate::workspace::Workspace;

/// Views of `sql/report/` that need only published tables.
const OF_TABLES: [&str; 8] = [
    "order_lines",
    "item_changes",
    "shown_items",
    "shown_forecasts",
    "shown_earlier_forecasts",
    "segment_days",
    "intent_days",
    "quarantine_counts",
];
/// The other views, which also need the days of items and users.
const OF_DAYS: [&str; 6] =
    ["shown_days", "shown_promotions", "shown_stock_outs", "total_days", "funnel_weeks", "lake_days"];

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
    /// Rows of each view, by column.
    pub(super) views: BTreeMap<&'static str, Columns>,
}

impl Report {
    /// Reads the report of a visible night. Compares it with the night of `compared`, by default the one before.
    pub(crate) async fn read(workspace: &Workspace, run_date: RunDate, compared: Option<RunDate>) -> Result<Self> {
        let night = visible(workspace, run_date)?.clone();
        let compared_date = match compared {
            Some(date) if date == run_date => {
                return Err(Failure::usage(format!("--compare {date}: expected another night than --date")));
            }
            Some(date) => Some(visible(workspace, date)?.run_date()),
            None => workspace.night_before(run_date).map(VisibleNight::run_date),
        };
        let session = workspace.night_session(&night, compared_date).await?;
        let has_lake = !workspace.config.lake.uri.is_empty();
        let mut views = BTreeMap::new();
        for name in OF_TABLES.into_iter().chain(OF_DAYS) {
            views.insert(name, Columns::from_batches(&read_view(&session.ctx, name).await?)?);
        }
        let nights = workspace.nights().iter().filter(|night| night.run_date() <= run_date).cloned().collect();
        Ok(Self {
            compared_date,
            nights,
            output: workspace.config.output.uri.clone(),
            horizon_days: workspace.config.intents.horizon_days,
            has_lake,
            has_days: session.has_days,
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

    /// Returns the number of items to order.
    pub(crate) fn orders(&self) -> Result<usize> {
        let quantities = self.view("order_lines")?.numbers("order_quantity");
        Ok(quantities.filter(|quantity| quantity.is_some_and(|units| units > 0.0)).count())
    }

    /// Returns the rows of a view.
    pub(super) fn view(&self, name: &str) -> Result<&Columns> {
        self.views.get(name).ok_or_else(|| Failure::bug(format!("the report has no view {name}")))
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
    let stages = night.run.stages.as_object();
    let seconds = stages.map(|stages| stages.values().filter_map(|stage| stage["seconds"].as_f64()).sum::<f64>());
    json!({
        "run_date": night.run_date().to_string(),
        "rows_read": night.run.rows_read,
        "rows_quarantined": night.run.rows_quarantined,
        "seconds": seconds,
    })
}

/// Returns the visible night of a date; refuses another date (exit 2) with those that are visible.
fn visible(workspace: &Workspace, date: RunDate) -> Result<&VisibleNight> {
    workspace.night(date).ok_or_else(|| {
        let newest: Vec<String> =
            workspace.nights().iter().rev().take(10).map(|night| night.run_date().to_string()).collect();
        let hint = match newest.is_empty() {
            true => "no night is visible; `intentcast nightly --date D` publishes one".to_string(),
            false => format!("visible nights, the newest first: {}", newest.join(", ")),
        };
        Failure::usage(format!("night {date}: not visible")).hint(hint)
    })
}

/// Reads a view of `sql/report/`.
async fn read_view(ctx: &SessionContext, name: &str) -> Result<Vec<RecordBatch>> {
    let rows = async {
        let view = ctx.table(name).await?;
        let schema = Arc::new(view.schema().as_arrow().clone());
        let mut batches = view.collect().await?;
        // The columns of a view without rows.
        batches.push(RecordBatch::new_empty(schema));
        Ok::<_, Failure>(batches)
    };
    rows.await.map_err(|failure| failure.at(format!("sql/report/{name}.sql")))
}
