//! `nightly --dry-run`: what a night would read, keep and build, and what that would cost by the last night's figures.
//!
//! It refuses what the night would refuse (a damaged file, features that the model does not know) and writes nothing.
//! A lake that has no model yet can be looked at all the same; the answer then says that the night would be refused.

use datafusion::physical_plan::displayable;
use datafusion::prelude::SessionContext;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::config::Config;
use crate::engine;
use crate::failure::{Failure, FailureKind, Result};
use crate::features::{self, contract, rollups::Rollups, views};
use crate::ids::RunDate;
use crate::lake::{Lake, stores::Location};
use crate::nightly::{KEPT_QUERIES, NightInputs, Stage, kept_name};
use crate::publish::earlier::EarlierNights;
use crate::publish::runs::{self, RunRecord};
use crate::score::{models::Models, operator, torch_functions};
use crate::sql_files::SqlFiles;
use crate::tables::schemas::NIGHT_TABLES;

/// What a night would do.
#[derive(Debug, Clone, Serialize)]
pub struct DryRun {
    pub run_date: RunDate,
    /// None where there is no model yet.
    pub model_version: Option<String>,
    pub read: features::rollups::ReadReport,
    /// The generation of that date which readers see now.
    pub visible_generation: Option<u64>,
    /// The visible night came from the same inputs, SQL, model and settings: the night would leave it as it is.
    pub nothing_to_do: bool,
    /// The night whose figures the prediction goes by; none where none was published yet.
    pub predicted_from: Option<RunDate>,
    pub stages: Vec<StagePlan>,
    pub seconds_predicted: Option<f64>,
    pub bytes_written_predicted: Option<u64>,
    /// Physical plans of the queries whose results are kept, by name.
    pub plans: BTreeMap<String, String>,
}

/// One stage to come.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StagePlan {
    pub name: String,
    pub what: String,
    pub seconds_predicted: Option<f64>,
    pub rows_predicted: Option<u64>,
    pub bytes_predicted: Option<u64>,
}

/// Looks at lake, state, model and published nights, and decides.
pub async fn plan(config: &Config, run_date: RunDate) -> Result<DryRun> {
    let sql = SqlFiles::load(config)?;
    let lake = Lake::open(config, &sql).await?;
    let models = Arc::new(Models::new(config)?);
    let card = match models.card("").await {
        Ok(card) => Some(card),
        Err(failure) if failure.kind == FailureKind::Model && config.model.version.is_empty() => None,
        Err(failure) => return Err(failure),
    };
    let ctx = operator::install(&engine::session(config)?, Arc::clone(&models));
    let rollups = Rollups::plan(&ctx, config, &sql, &lake, run_date).await?;
    let output = Location::open(&config.output.uri, &config.s3)?;
    let nights = runs::visible_nights(&output).await?;
    let earlier = EarlierNights::before(run_date, &nights, config);
    earlier.register(&ctx, &output).await?;
    features::register(&ctx, config, &sql, &lake, &rollups, features::Scope::night(run_date)).await?;
    let found = contract::FeatureContract::of(ctx.table("user_features").await?.schema().as_arrow());
    if let Some(card) = &card {
        card.features.refuse_other(&found, &card.version)?;
        models.leave_contents(&ctx, card).await;
    }

    let visible = nights.iter().find(|n| n.run_date() == run_date);
    let functions = torch_functions::fingerprint(&ctx);
    let earlier = &earlier;
    let inputs = NightInputs { config, run_date, sql: &sql, lake: &lake, rollups: &rollups, functions, earlier };
    let manifest = card.as_ref().map(|card| inputs.manifest_hash(card));
    let unchanged = visible.is_some_and(|n| Some(&n.run.manifest_hash) == manifest.as_ref());
    let nothing_to_do = rollups.report.units_built == 0 && unchanged;
    let last = nights.iter().rfind(|n| n.run_date() <= run_date).or(nights.last()).map(|n| &n.run);
    let figures = last.map(stages_of).transpose()?.unwrap_or_default();
    let kept = match &manifest {
        Some(manifest) => kept_already(&output, run_date, manifest).await?,
        None => Vec::new(),
    };
    let stages = if nothing_to_do { Vec::new() } else { stages(&rollups, &figures, &kept) };
    Ok(DryRun {
        run_date,
        plans: match &card {
            Some(_) if !nothing_to_do => plans(&ctx, &sql).await?,
            _ => BTreeMap::new(),
        },
        model_version: card.map(|card| card.version),
        visible_generation: visible.map(|n| n.run.generation.0),
        nothing_to_do,
        predicted_from: last.map(|run| run.run_date),
        seconds_predicted: last.map(|_| stages.iter().filter_map(|s| s.seconds_predicted).sum()),
        bytes_written_predicted: last.map(|_| written(&stages)),
        read: rollups.report,
        stages,
    })
}

fn stages_of(run: &RunRecord) -> Result<BTreeMap<String, Stage>> {
    if run.stages.is_null() {
        return Ok(BTreeMap::new());
    }
    serde_json::from_value(run.stages.clone())
        .map_err(|e| Failure::bug(format!("runs.stages of {}: {e}", run.run_date)))
}

/// Names of the queries that an attempt which died has left whole.
async fn kept_already(output: &Location, run_date: RunDate, manifest: &str) -> Result<Vec<&'static str>> {
    let mut kept = Vec::new();
    for path in KEPT_QUERIES {
        let folder = output.folder(&format!("state/features/{run_date}/{manifest}/{}", kept_name(path)));
        if folder.read_if_there("done").await?.is_some() {
            kept.push(kept_name(path));
        }
    }
    Ok(kept)
}

/// The stages in the night's order. Reading scales with the bytes to read; the rest is taken to cost what it cost last.
fn stages(rollups: &Rollups, figures: &BTreeMap<String, Stage>, kept: &[&str]) -> Vec<StagePlan> {
    let read = &rollups.report;
    let of_bytes = |f: &Stage| (f.bytes > 0).then(|| f.seconds * read.bytes_read as f64 / f.bytes as f64);
    let mut stages = vec![StagePlan {
        name: "rollups".into(),
        what: format!(
            "read {} new files into {} units; keep {} units; skip {} files",
            read.files_read, read.units_built, read.units_kept, read.files_skipped
        ),
        seconds_predicted: if read.bytes_read == 0 { Some(0.0) } else { figures.get("rollups").and_then(of_bytes) },
        rows_predicted: None,
        bytes_predicted: Some(read.bytes_read),
    }];
    let kept_queries = KEPT_QUERIES.map(|path| (kept_name(path), format!("sql/{path}.sql")));
    let tables = NIGHT_TABLES.map(|table| (table, format!("sql/tables/{table}.sql")));
    let rest = [
        ("checks", "sql/checks/".into()),
        ("look_back", "drift, and how earlier nights did".into()),
        ("publish", "commit tables, then runs".into()),
    ];
    let contents = [("contents", "vectors of what is shown for the first time".to_string())];
    for (name, what) in contents.into_iter().chain(kept_queries).chain(tables).chain(rest) {
        let done = kept.contains(&name);
        let figure = figures.get(name);
        stages.push(StagePlan {
            name: name.into(),
            what: if done { "kept from an earlier attempt".into() } else { what },
            seconds_predicted: if done { Some(0.0) } else { figure.map(|f| f.seconds) },
            rows_predicted: figure.map(|f| f.rows),
            bytes_predicted: figure.map(|f| f.bytes),
        });
    }
    stages
}

/// Bytes of what the night writes; the first stage's are bytes that it reads.
fn written(stages: &[StagePlan]) -> u64 {
    stages.iter().skip(1).filter_map(|s| s.bytes_predicted).sum()
}

async fn plans(ctx: &SessionContext, sql: &SqlFiles) -> Result<BTreeMap<String, String>> {
    contract::register_model_input(ctx).await?;
    views::register_one(ctx, sql, "score/anomaly").await?;
    let mut plans = BTreeMap::new();
    for path in KEPT_QUERIES {
        let query = ctx.sql(sql.get(path)?).await.map_err(|e| Failure::from(e).at(format!("sql/{path}.sql")))?;
        let plan = query.create_physical_plan().await.map_err(|e| Failure::from(e).at(format!("sql/{path}.sql")))?;
        plans.insert(kept_name(path).into(), displayable(plan.as_ref()).indent(false).to_string());
    }
    Ok(plans)
}

impl fmt::Display for DryRun {
    /// Lines for people; the plans are in the JSON form only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = &self.read;
        writeln!(
            f,
            "night of {}: reads {} new event files ({} bytes) into {} units; keeps {} units; skips {} files ({} bytes)",
            self.run_date,
            read.files_read,
            read.bytes_read,
            read.units_built,
            read.units_kept,
            read.files_skipped,
            read.bytes_skipped
        )?;
        match &self.model_version {
            Some(version) => writeln!(f, "model {version}")?,
            None => writeln!(f, "no model yet: the night would be refused (exit 6); run `intentcast train` first")?,
        }
        match (self.visible_generation, self.nothing_to_do) {
            (Some(generation), true) => writeln!(f, "visible now: generation {generation}; nothing changed, it stays")?,
            (Some(generation), false) => writeln!(f, "visible now: generation {generation}, to be replaced")?,
            (None, _) => writeln!(f, "not published yet")?,
        }
        for stage in &self.stages {
            let seconds = stage.seconds_predicted.map_or("?".into(), |s| format!("{s:.1}"));
            writeln!(f, "  {:<17} {seconds:>8} s  {}", stage.name, stage.what)?;
        }
        match (self.predicted_from, self.seconds_predicted, self.bytes_written_predicted) {
            (Some(night), Some(seconds), Some(bytes)) if !self.nothing_to_do => {
                writeln!(f, "predicted by the night of {night}: {seconds:.0} s, {bytes} bytes written")
            }
            (None, ..) => writeln!(f, "no night was published yet, so there is nothing to predict seconds by"),
            _ => Ok(()),
        }
    }
}
