//! Decides what a night does before it does anything: [`NightPlan`] names the stages in order, with what they read, what an
//! earlier attempt left, and what they would cost by the last night's figures.
//!
//! [`survey`] looks at lake, state, model and published nights and writes nothing; [`NightPlan::new`] decides from those
//! facts alone. `nightly --dry-run` prints the plan, the night executes it.

use datafusion::physical_plan::displayable;
use datafusion::prelude::SessionContext;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

use super::checkpoints::{CheckpointedQuery, checkpoint_folder};
use crate::config::Config;
use crate::failure::{Failure, FailureKind, Result};
use crate::features::contract::FeatureContract;
use crate::features::read_report::ReadReport;
use crate::features::rollups::RollupPlan;
use crate::features::{Scope, contract, functions, views};
use crate::ids::RunDate;
use crate::lake;
use crate::lake::stores::Location;
use crate::model::bundle::BundleCard;
use crate::publish::runs::{self, RunRecord, VisibleNight};
use crate::score::torch_functions;
use crate::sql_files::SqlFiles;
use crate::tables::schemas::NIGHT_TABLES;
use crate::workspace::Workspace;

/// One step of a night.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Builds the rollups of new event files.
    Rollups,
    /// Builds every user's features.
    UserFeatures,
    /// Encodes texts and pictures that the catalogue shows for the first time.
    Contents,
    /// Scores every user's intents.
    IntentScores,
    /// Scores every user's intents with another model, where the night has one.
    ShadowScores,
    /// Forecasts every item's demand.
    DemandForecasts,
    /// Writes the staged files of one published table.
    Table(&'static str),
    /// Checks the staged tables.
    Checks,
    /// Measures drift, and compares earlier nights with what happened since.
    LookBack,
    /// Takes numbers behind which there are few users out of the staged tables.
    Suppress,
    /// Commits all tables and makes the night visible.
    Publish,
}

impl Stage {
    /// Returns every stage in the order in which a night runs them.
    pub(crate) fn all() -> Vec<Stage> {
        let before = [
            Stage::Rollups,
            Stage::UserFeatures,
            Stage::Contents,
            Stage::IntentScores,
            Stage::ShadowScores,
            Stage::DemandForecasts,
        ];
        let after = [Stage::Checks, Stage::LookBack, Stage::Suppress, Stage::Publish];
        before.into_iter().chain(NIGHT_TABLES.into_iter().map(Stage::Table)).chain(after).collect()
    }

    /// Returns the name that progress, logs, `runs.stages` and `--format json` use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stage::Rollups => "rollups",
            Stage::UserFeatures => "user_features",
            Stage::Contents => "contents",
            Stage::IntentScores => "intent_scores",
            Stage::ShadowScores => "shadow_scores",
            Stage::DemandForecasts => "demand_forecasts",
            Stage::Table(table) => table,
            Stage::Checks => "checks",
            Stage::LookBack => "look_back",
            Stage::Suppress => "suppress",
            Stage::Publish => "publish",
        }
    }

    /// Returns the query whose rows this stage checkpoints, so that a second attempt reads them.
    fn checkpointed_query(self) -> Option<CheckpointedQuery> {
        match self {
            Stage::UserFeatures => Some(CheckpointedQuery::USER_FEATURES),
            Stage::IntentScores => Some(CheckpointedQuery::INTENT_SCORES),
            Stage::ShadowScores => Some(CheckpointedQuery::SHADOW_SCORES),
            Stage::DemandForecasts => Some(CheckpointedQuery::DEMAND_FORECASTS),
            _ => None,
        }
    }

    fn description(self) -> String {
        match self {
            Stage::Rollups => "build the rollups of new event files".into(),
            Stage::Contents => "encode new texts and pictures of the catalogue".into(),
            Stage::Table(table) => format!("sql/tables/{table}.sql"),
            Stage::Checks => "sql/checks/".into(),
            Stage::LookBack => "measure drift and the accuracy of earlier nights".into(),
            Stage::Suppress => "sql/suppressed/".into(),
            Stage::Publish => "commit the tables, then `runs`".into(),
            Stage::UserFeatures | Stage::IntentScores | Stage::ShadowScores | Stage::DemandForecasts => {
                self.checkpointed_query().map(CheckpointedQuery::place).unwrap_or_default()
            }
        }
    }
}

/// Seconds, rows and bytes of one stage.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct StageFigures {
    pub(crate) seconds: f64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// Facts about lake, state, model and published nights that a plan follows from.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) run_date: RunDate,
    /// None where no model was trained yet.
    pub(crate) model: Option<BundleCard>,
    /// The model that scores a second time.
    pub(crate) shadow: Option<BundleCard>,
    pub(crate) rollups: RollupPlan,
    /// The visible night of this date.
    pub(crate) visible: Option<VisibleNight>,
    /// The latest visible night up to this date, else the latest of all: its figures predict this one's.
    pub(crate) last: Option<RunRecord>,
    /// Hash of everything that the night's rows follow from; none without a model.
    pub(crate) manifest_hash: Option<String>,
    /// Names of checkpoints that an attempt with this manifest left complete.
    pub(crate) checkpoints: Vec<&'static str>,
}

/// Looks at everything a plan needs and refuses what the night would refuse: a damaged file (exit 3), features that a model
/// does not know (exit 6). The session is as of `run_date`, over the stored rollups.
pub(crate) async fn survey(workspace: &Workspace, run_date: RunDate) -> Result<(Survey, SessionContext)> {
    let model = match workspace.models.card("").await {
        Ok(card) => Some(card),
        Err(failure) if failure.kind == FailureKind::Model && workspace.config.model.version.is_empty() => None,
        Err(failure) => return Err(failure),
    };
    let shadow = match &model {
        Some(card) => workspace.models.shadow_card(card).await?,
        None => None,
    };
    let rollups = workspace.plan_rollups(run_date).await?;
    let ctx = workspace.session_as_of(rollups.stored(), Scope::night(run_date)).await?;
    functions::register_shadow_version(&ctx, shadow.as_ref().map(|card| card.version.as_str()));
    if let Some(card) = &model
        && workspace.config.demand.enabled
    {
        card.require_demand()?;
    }
    let models: Vec<&BundleCard> = model.iter().chain(&shadow).collect();
    for card in models.iter().copied() {
        let features = FeatureContract::from_schema(ctx.table("user_features").await?.schema().as_arrow());
        card.features.refuse_different(&features, &card.version)?;
        for (setting, trained, configured) in card.other_horizons(&workspace.config.intents) {
            tracing::warn!(
                "model {}: its probabilities are of {trained} days (intents.{setting} of its training), but intents.{setting} is \
                 {configured}",
                card.version
            );
        }
    }
    let manifest_hash = match models.as_slice() {
        [] => None,
        scoring => Some(manifest_hash(workspace, &rollups, &torch_functions::fingerprint(&ctx), scoring, run_date)?),
    };
    let checkpoints = match &manifest_hash {
        Some(manifest) => find_checkpoints(workspace.output()?, run_date, manifest).await?,
        None => Vec::new(),
    };
    let nights = workspace.nights();
    let last = nights.iter().rfind(|night| night.run_date() <= run_date).or(nights.last());
    let survey = Survey {
        run_date,
        model,
        shadow,
        rollups,
        visible: workspace.night(run_date).cloned(),
        last: last.map(|night| night.run.clone()),
        manifest_hash,
        checkpoints,
    };
    Ok((survey, ctx))
}

/// Hashes everything that a night's rows follow from: two nights of one hash (date, files, earlier nights, SQL, settings,
/// models, users' functions) have the same rows.
fn manifest_hash(
    workspace: &Workspace,
    rollups: &RollupPlan,
    functions: &str,
    models: &[&BundleCard],
    run_date: RunDate,
) -> Result<String> {
    // All tables but events are read whole every night; event files count through the rollups.
    let lake = workspace.lake()?;
    let masters = lake.tables().filter(|table| *table != "events").flat_map(|table| lake.files(table));
    let masters: Vec<String> = masters.map(|file| lake::fingerprint(&file.meta)).collect();
    let mut weights = Vec::new();
    for model in models {
        weights.push(format!("{} {}", model.version, model.scoring_hash()?));
    }
    let folders = ["lakes", "master", "rollups", "state", "features", "score", "tables", "suppressed", "checks"];
    Ok(runs::manifest_hash([
        run_date.to_string().as_str(),
        &workspace.sql.fingerprint(&folders),
        &rollups.input_fingerprint(),
        &workspace.earlier_nights(run_date).fingerprint(),
        &masters.concat(),
        &weights.join(", "),
        &settings_of_rows(&workspace.config)?,
        functions,
    ]))
}

/// The settings that change rows of a night.
fn settings_of_rows(config: &Config) -> Result<String> {
    serde_json::to_string(&(
        &config.lake,
        &config.privacy,
        &config.features,
        &config.intents,
        &config.demand,
        &config.recommendation,
        &config.replenishment,
        &config.segment,
    ))
    .map_err(Failure::bug)
}

async fn find_checkpoints(output: &Location, run_date: RunDate, manifest_hash: &str) -> Result<Vec<&'static str>> {
    let mut found = Vec::new();
    for stage in Stage::all().into_iter().filter(|stage| stage.checkpointed_query().is_some()) {
        let folder = checkpoint_folder(output, run_date, manifest_hash).folder(stage.name());
        if folder.read_if_there("done").await?.is_some() {
            found.push(stage.name());
        }
    }
    Ok(found)
}

/// Plan of a night: its stages and what they read, reuse and cost.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct NightPlan {
    pub(crate) run_date: RunDate,
    /// None where there is no model yet: the night would be refused.
    pub(crate) model_version: Option<String>,
    /// The model that scores a second time, into `intent_shadow`.
    pub(crate) shadow_version: Option<String>,
    pub(crate) read: ReadReport,
    /// Hash of everything that the night's rows follow from; none without a model.
    #[serde(skip)]
    pub(crate) manifest_hash: Option<String>,
    /// The generation of that date which readers see now.
    pub(crate) visible_generation: Option<u64>,
    /// The visible night came from the same inputs, SQL, model and settings: the night leaves it as it is.
    pub(crate) nothing_to_do: bool,
    /// The night whose figures the prediction is based on; none where no night was published yet.
    pub(crate) predicted_from: Option<RunDate>,
    pub(crate) stages: Vec<StagePlan>,
    pub(crate) seconds_predicted: Option<f64>,
    pub(crate) bytes_written_predicted: Option<u64>,
}

/// One stage to come.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct StagePlan {
    #[serde(skip)]
    pub(crate) stage: Stage,
    pub(crate) name: &'static str,
    pub(crate) what: String,
    pub(crate) seconds_predicted: Option<f64>,
    pub(crate) rows_predicted: Option<u64>,
    pub(crate) bytes_predicted: Option<u64>,
}

impl NightPlan {
    /// Returns the manifest's hash; a plan without a model has none and is never executed.
    pub(crate) fn manifest_hash(&self) -> Result<&str> {
        self.manifest_hash.as_deref().ok_or_else(|| Failure::bug("a night without a manifest"))
    }

    /// Decides from the facts alone.
    pub(crate) fn new(survey: &Survey) -> Result<Self> {
        let visible = survey.visible.as_ref();
        // The manifest names every source file, so units that are missing change nothing.
        let nothing_to_do =
            visible.is_some_and(|night| Some(&night.run.manifest_hash) == survey.manifest_hash.as_ref());
        let figures = survey.last.as_ref().map(figures_by_stage).transpose()?.unwrap_or_default();
        let read = survey.rollups.report();
        let stages = match nothing_to_do {
            true => Vec::new(),
            false => plan_stages(&read, &figures, &survey.checkpoints),
        };
        let has_prediction = survey.last.is_some();
        Ok(Self {
            run_date: survey.run_date,
            model_version: survey.model.as_ref().map(|card| card.version.clone()),
            shadow_version: survey.shadow.as_ref().map(|card| card.version.clone()),
            manifest_hash: survey.manifest_hash.clone(),
            visible_generation: visible.map(|night| night.run.generation.0),
            nothing_to_do,
            predicted_from: survey.last.as_ref().map(|run| run.run_date),
            seconds_predicted: has_prediction.then(|| stages.iter().filter_map(|s| s.seconds_predicted).sum()),
            bytes_written_predicted: has_prediction.then(|| bytes_written(&stages)),
            read,
            stages,
        })
    }
}

fn figures_by_stage(run: &RunRecord) -> Result<BTreeMap<String, StageFigures>> {
    if run.stages.is_null() {
        return Ok(BTreeMap::new());
    }
    serde_json::from_value(run.stages.clone())
        .map_err(|e| Failure::bug(format!("runs.stages of {}: {e}", run.run_date)))
}

/// Predicts each stage: reading scales with the bytes to read, the rest costs what it cost last.
fn plan_stages(
    read: &ReadReport,
    figures: &BTreeMap<String, StageFigures>,
    checkpoints: &[&'static str],
) -> Vec<StagePlan> {
    Stage::all()
        .into_iter()
        .map(|stage| {
            let last = figures.get(stage.name());
            let planned = StagePlan {
                stage,
                name: stage.name(),
                what: stage.description(),
                seconds_predicted: last.map(|f| f.seconds),
                rows_predicted: last.map(|f| f.rows),
                bytes_predicted: last.map(|f| f.bytes),
            };
            match stage {
                Stage::Rollups => plan_rollup_stage(planned, read, last),
                _ if checkpoints.contains(&stage.name()) => StagePlan {
                    what: "reuse an earlier attempt's rows".into(),
                    seconds_predicted: Some(0.0),
                    ..planned
                },
                _ => planned,
            }
        })
        .collect()
}

fn plan_rollup_stage(planned: StagePlan, read: &ReadReport, last: Option<&StageFigures>) -> StagePlan {
    let by_bytes = |f: &StageFigures| (f.bytes > 0).then(|| f.seconds * read.bytes_read as f64 / f.bytes as f64);
    StagePlan {
        what: format!(
            "read {} new files into {} units; reuse {} units; skip {} files",
            read.files_read, read.units_built, read.units_kept, read.files_skipped
        ),
        seconds_predicted: if read.bytes_read == 0 { Some(0.0) } else { last.and_then(by_bytes) },
        rows_predicted: None,
        bytes_predicted: Some(read.bytes_read),
        ..planned
    }
}

/// Sums the bytes that stages write; those of the rollups stage are bytes that it reads.
fn bytes_written(stages: &[StagePlan]) -> u64 {
    stages.iter().filter(|s| s.stage != Stage::Rollups).filter_map(|s| s.bytes_predicted).sum()
}

/// Returns the physical plans of the checkpointed queries, by stage name. Plans only: no row is read.
pub(crate) async fn physical_plans(ctx: &SessionContext, sql: &SqlFiles) -> Result<BTreeMap<String, String>> {
    contract::register_model_input(ctx).await?;
    views::register_one(ctx, sql, "score/anomaly").await?;
    let mut plans = BTreeMap::new();
    for stage in Stage::all() {
        let Some(query) = stage.checkpointed_query() else { continue };
        let planned = query.plan(ctx, sql).await?;
        let plan = planned.create_physical_plan().await.map_err(|e| Failure::from(e).at(query.place()))?;
        plans.insert(stage.name().into(), displayable(plan.as_ref()).indent(false).to_string());
    }
    Ok(plans)
}

impl fmt::Display for NightPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = &self.read;
        writeln!(
            f,
            "night of {}: reads {} new event files ({} bytes) into {} units; reuses {} units; skips {} files ({} bytes)",
            self.run_date,
            read.files_read,
            read.bytes_read,
            read.units_built,
            read.units_kept,
            read.files_skipped,
            read.bytes_skipped
        )?;
        if read.outdated.files > 0 {
            writeln!(f, "{}", read.outdated)?;
        }
        if !read.files_ignored.is_empty() {
            writeln!(f, "ignores objects that are no data: {}", lake::count_by_reason(&read.files_ignored))?;
        }
        match &self.model_version {
            Some(version) => writeln!(f, "model {version}")?,
            None => writeln!(f, "no model yet: the night would be refused (exit 6); run `intentcast train` first")?,
        }
        if let Some(version) = &self.shadow_version {
            writeln!(f, "shadow model {version}: its scores go to intent_shadow")?;
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
                writeln!(f, "predicted from the night of {night}: {seconds:.0} s, {bytes} bytes written")
            }
            (None, ..) => writeln!(f, "no night was published yet, so there are no figures to predict from"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stage_names_are_distinct() {
        let names: std::collections::BTreeSet<&str> = Stage::all().into_iter().map(Stage::name).collect();
        assert_eq!(names.len(), Stage::all().len());
    }

    #[test]
    fn a_checkpoint_is_named_like_its_stage() {
        let named = Stage::all().into_iter().filter_map(|stage| Some((stage.name(), stage.checkpointed_query()?)));
        let named: Vec<_> = named.collect();
        assert!(named.len() == 4 && named.iter().all(|(name, query)| query.name() == *name), "{named:?}");
    }

    #[test]
    fn a_checkpoint_costs_nothing_and_reading_scales_with_bytes() {
        let read = ReadReport { bytes_read: 50, ..ReadReport::default() };
        let cost = |seconds, bytes| StageFigures { seconds, rows: 1, bytes };
        let figures = BTreeMap::from([
            ("rollups".to_string(), cost(10.0, 100)),
            ("user_features".to_string(), cost(4.0, 7)),
            ("intent_scores".to_string(), cost(3.0, 5)),
        ]);
        let stages = plan_stages(&read, &figures, &["user_features"]);
        let seconds = |stage: Stage| stages.iter().find(|s| s.stage == stage).and_then(|s| s.seconds_predicted);
        assert_eq!(seconds(Stage::Rollups), Some(5.0));
        assert_eq!(seconds(Stage::UserFeatures), Some(0.0));
        assert_eq!(seconds(Stage::IntentScores), Some(3.0));
        assert_eq!(seconds(Stage::Checks), None);
        assert_eq!(bytes_written(&stages), 12);
    }
}
