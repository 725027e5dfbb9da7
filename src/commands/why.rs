//! `intentcast why`: what a published night is made of, and what differs from the night before.

use arrow::array::{ArrayRef, StringArray};
use async_trait::async_trait;
use clap::Args;
use datafusion::prelude::SessionContext;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::command::{Command, Needs, Places};
use super::format::{self, Format};
use crate::config::Config;
use crate::failure::Result;
use crate::ids::RunDate;
use crate::metrics::drift::PSI_SHIFTED;
use crate::publish::readers;
use crate::publish::runs::RunRecord;
use crate::score::models::Models;
use crate::workspace::{Access, Workspace};

/// Stages that take a smaller share of the night are summed up.
const STAGE_SHARE_MIN: f64 = 0.03;
/// Shifted features that are named.
const FEATURES_MAX: usize = 5;

/// Explain a published night: inputs, SQL, model, seconds, oddities, each next to the night before.
#[derive(Debug, Args)]
pub struct Why {
    #[command(flatten)]
    places: Places,
    /// Explain the night of this date [default: the newest visible night].
    #[arg(long, value_name = "YYYY-MM-DD")]
    date: Option<RunDate>,
    /// Print in this format.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[async_trait(?Send)]
impl Command for Why {
    fn needs(&self) -> Needs<'_> {
        Needs::output(&self.places)
    }

    async fn run(&self, config: &Config) -> Result<()> {
        // The tables alone answer; a lake of the configuration may be out of reach.
        let mut config = config.clone();
        config.lake.uri.clear();
        let workspace = Workspace::open(&config, Arc::new(Models::new(&config)?), Access::ReadOnly).await?;
        let night = workspace.visible_night(self.date)?;
        let before = workspace.night_before(night.run_date());
        let mut facts = Facts::default();
        facts.add_run(&night.run, before.map(|night| &night.run));
        let ctx = workspace.session();
        let nights: Vec<_> = before.into_iter().chain([night]).cloned().collect();
        for table in ["intent", "demand", "replenishment"] {
            readers::register_nights(&ctx, workspace.output()?, table, table, &nights).await?;
        }
        for figure in FIGURES {
            let now = figure.read(&ctx, night.run_date()).await?;
            let earlier = match before {
                Some(before) => figure.read(&ctx, before.run_date()).await?,
                None => None,
            };
            facts.add("result", figure.name, now, earlier);
        }
        facts.print(self.format)
    }
}

/// A figure of the published tables.
struct Figure {
    name: &'static str,
    /// Query with one number; `{night}` is the run date.
    sql: &'static str,
}

const FIGURES: [Figure; 5] = [
    Figure { name: "users scored", sql: "SELECT count(*) FROM intent WHERE run_date = {night}" },
    Figure { name: "mean p_purchase", sql: "SELECT avg(p_purchase) FROM intent WHERE run_date = {night}" },
    Figure {
        name: "items with a forecast",
        sql: "SELECT count(DISTINCT item_id) FROM demand WHERE run_date = {night}",
    },
    Figure {
        name: "expected units, first 7 days",
        sql: "SELECT sum(mean) FROM demand WHERE run_date = {night} AND target_date < {night} + 7",
    },
    Figure {
        name: "items to order",
        sql: "SELECT count(*) FROM replenishment WHERE run_date = {night} AND order_quantity > 0",
    },
];

impl Figure {
    async fn read(&self, ctx: &SessionContext, night: RunDate) -> Result<Option<String>> {
        let sql = self.sql.replace("{night}", &format!("DATE '{night}'"));
        let rows = ctx.sql(&sql).await?.collect().await?;
        let Some(column) = rows.first().filter(|rows| rows.num_rows() == 1).map(|rows| Arc::clone(rows.column(0)))
        else {
            return Ok(None);
        };
        let number = arrow::compute::cast(&column, &arrow::datatypes::DataType::Float64)?;
        let number = arrow::array::AsArray::as_primitive::<arrow::datatypes::Float64Type>(&number);
        Ok(number.iter().next().flatten().map(short))
    }
}

/// Writes a number with four significant digits, whole numbers in full.
fn short(number: f64) -> String {
    if number == 0.0 || number.fract() == 0.0 {
        return number.to_string();
    }
    let scale = 10f64.powi(3 - number.abs().log10().floor() as i32);
    ((number * scale).round() / scale).to_string()
}

/// Returns the features that have shifted since training, with their stability index, the largest first.
fn shifted_features(run: &RunRecord) -> Vec<(&String, f64)> {
    let measured = run.drift.as_object().into_iter().flatten();
    let mut shifted: Vec<(&String, f64)> =
        measured.filter_map(|(name, value)| Some((name, value.as_f64()?))).filter(|(_, i)| *i > PSI_SHIFTED).collect();
    shifted.sort_by(|a, b| b.1.total_cmp(&a.1));
    shifted
}

/// Facts of a night, each with the same fact of the night before.
#[derive(Debug, Default)]
struct Facts(Vec<[Option<String>; 4]>);

impl Facts {
    fn add(&mut self, about: &str, fact: impl Into<String>, now: Option<String>, before: Option<String>) {
        self.0.push([Some(about.into()), Some(fact.into()), now, before]);
    }

    fn add_run(&mut self, run: &RunRecord, before: Option<&RunRecord>) {
        let mut add = |about: &str, fact: &str, value: &dyn Fn(&RunRecord) -> Option<String>| {
            self.add(about, fact, value(run), before.and_then(value));
        };
        add("night", "run date", &|run| Some(run.run_date.to_string()));
        add("night", "generation", &|run| Some(run.generation.to_string()));
        add("night", "published", &|run| Some(run.made_visible_at.format("%Y-%m-%d %H:%M:%S UTC").to_string()));
        add("model", "version", &|run| run.model_version.as_ref().map(ToString::to_string));
        add("sql", "fingerprint", &|run| run.sql_fingerprint.clone());
        add("input", "fingerprint", &|run| run.input_fingerprint.clone());
        add("input", "event rows read", &|run| run.rows_read.map(|rows| rows.to_string()));
        add("input", "bad rows", &|run| run.rows_quarantined.map(|rows| rows.to_string()));
        add("input", "arrival times", &|run| run.arrival_mode.clone());
        self.add_counts(
            "input",
            "bad rows: ",
            &run.quarantined_by_reason,
            before.map(|run| &run.quarantined_by_reason),
        );
        let findings = |run: &RunRecord| -> BTreeMap<String, i64> {
            let by_view = run.master_findings.iter();
            by_view
                .flat_map(|(view, found)| found.iter().map(move |(name, n)| (format!("{view}: {name}"), *n)))
                .collect()
        };
        self.add_counts("input", "", &findings(run), before.map(findings).as_ref());
        self.add_stages(run, before);
        self.add_oddities(run, before);
    }

    fn add_counts(
        &mut self,
        about: &str,
        prefix: &str,
        now: &BTreeMap<String, i64>,
        before: Option<&BTreeMap<String, i64>>,
    ) {
        let names: BTreeSet<&String> = now.keys().chain(before.into_iter().flatten().map(|(name, _)| name)).collect();
        for name in names {
            let count = |counts: &BTreeMap<String, i64>| counts.get(name).copied().unwrap_or(0).to_string();
            self.add(about, format!("{prefix}{name}"), Some(count(now)), before.map(count));
        }
    }

    /// Adds the seconds of the longest stages and of all.
    fn add_stages(&mut self, run: &RunRecord, before: Option<&RunRecord>) {
        let total = run.stage_seconds();
        self.add("seconds", "all stages", total.map(short), before.and_then(RunRecord::stage_seconds).map(short));
        let seconds = |run: &RunRecord, stage: &str| run.stages[stage]["seconds"].as_f64();
        let mut stages: Vec<(&String, f64)> = match run.stages.as_object() {
            Some(stages) => stages.keys().filter_map(|name| Some((name, seconds(run, name)?))).collect(),
            None => Vec::new(),
        };
        stages.sort_by(|a, b| b.1.total_cmp(&a.1));
        let least = total.unwrap_or(0.0) * STAGE_SHARE_MIN;
        for (name, taken) in stages.into_iter().filter(|(_, taken)| *taken >= least) {
            let earlier = before.and_then(|run| seconds(run, name));
            self.add("seconds", name.as_str(), Some(short(taken)), earlier.map(short));
        }
    }

    /// Adds the note, shifted features and the accuracy of earlier nights.
    fn add_oddities(&mut self, run: &RunRecord, before: Option<&RunRecord>) {
        let note = |run: &RunRecord| run.note.clone();
        if run.note.is_some() || before.is_some_and(|run| run.note.is_some()) {
            self.add("odd", "note", note(run), before.and_then(note));
        }
        let count = |run: &RunRecord| run.drift.is_object().then(|| shifted_features(run).len().to_string());
        self.add("odd", "features that have shifted since training", count(run), before.and_then(count));
        for (name, value) in shifted_features(run).into_iter().take(FEATURES_MAX) {
            let earlier = before.and_then(|run| run.drift[name].as_f64());
            self.add("odd", format!("stability index: {name}"), Some(short(value)), earlier.map(short));
        }
        let Value::Object(accuracy) = &run.accuracy else { return };
        for (task, figures) in accuracy {
            let judged = figures["run_date"].as_str().unwrap_or_default();
            for (name, value) in figures.as_object().into_iter().flatten() {
                let number = value.as_f64().or_else(|| value["auc"].as_f64());
                let name = if value.is_object() { format!("{name}: auc") } else { name.clone() };
                if let Some(number) = number {
                    self.add("accuracy", format!("{task} of {judged}: {name}"), Some(short(number)), None);
                }
            }
        }
    }

    fn print(&self, format: Format) -> Result<()> {
        let column =
            |at: usize| -> ArrayRef { Arc::new(self.0.iter().map(|fact| fact[at].clone()).collect::<StringArray>()) };
        let has_before = self.0.iter().any(|[.., before]| before.is_some());
        let changed = self.0.iter().map(|[about, _, now, before]| {
            // These differ every night.
            let is_compared = has_before && !matches!(about.as_deref(), Some("night" | "seconds" | "accuracy"));
            (is_compared && now != before).then_some("changed")
        });
        let changed: ArrayRef = Arc::new(changed.collect::<StringArray>());
        format::print_columns(
            &[
                ("about", column(0)),
                ("fact", column(1)),
                ("night", column(2)),
                ("night_before", column(3)),
                ("change", changed),
            ],
            format,
        )
    }
}
