//! The night: lock → rollups → features → scores → tables → checks → commits → one `runs` row.
//!
//! In: a [`Workspace`] and a run date. Out: published tables and a [`NightReport`]. [`plan`] decides what the night does,
//! [`run`] executes that plan under the night's lock, [`look_back`] compares earlier nights with what happened since.
//!
//! Idempotent: a finished night is left alone when nothing changed. Resumable: features and scores are checkpointed under
//! the hash of everything that they follow from, so a second attempt starts where the first one stopped.

pub(crate) mod acceptance;
mod checkpoints;
mod look_back;
pub(crate) mod master_findings;
pub(crate) mod plan;

use datafusion::prelude::SessionContext;
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Arrival, Config, Retrain};
use crate::engine::scans::{self, ScanFigures};
use crate::failure::{Failure, Result};
use crate::features::erased_users::{ERASED_USER, ErasureRecord};
use crate::features::night_units;
use crate::features::objections::{self, Accept};
use crate::features::read_report::ReadReport;
use crate::features::rollups::Rollups;
use crate::features::{self, Scope, contract, functions, parts::Part, views};
use crate::ids::{ModelVersion, RunDate};
use crate::lake::{count_by_reason, parquet_files, stores::Location};
use crate::model::bundle::BundleCard;
use crate::progress;
use crate::publish::checks::{self, StagedNight, register_staged};
use crate::publish::drift;
use crate::publish::lock::{self, NightLock};
use crate::publish::night::{FaultPoint, NightCommit, StagedTables, commit_night};
use crate::publish::runs::{NIGHT_SQL, RunRecord, VisibleNight};
use crate::publish::suppressed::{self, Staging};
use crate::score::models::Models;
use crate::score::service::{ScoringService, encoder_states};
use crate::tables::schemas::NIGHT_TABLES;
use crate::tables::{materialise, write_files};
use crate::workspace::{Access, SharedTables, UserEvents, Workspace};
use checkpoints::{CheckpointedQuery, checkpoint_folder};
use look_back::LookBack;
use master_findings::MasterFindings;
use plan::{NightPlan, Stage, StageFigures, Survey};

/// Options of one night.
#[derive(Debug, Clone)]
pub(crate) struct NightOptions {
    pub(crate) run_date: RunDate,
    /// Gives up (exit 75) after this long; checkpoints serve the next attempt.
    pub(crate) deadline: Option<Duration>,
    pub(crate) fault: FaultPoint,
    /// Objections in spite of which the night is published.
    pub(crate) accept: Vec<Accept>,
}

/// Report of a night, for the summary and the `runs` row.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct NightReport {
    pub(crate) run_date: RunDate,
    pub(crate) generation: u64,
    pub(crate) model_version: String,
    pub(crate) read: ReadReport,
    /// Repeated keys, unknown items and unusual ids of master data, above zero.
    pub(crate) master_findings: MasterFindings,
    pub(crate) stages: BTreeMap<String, StageFigures>,
    pub(crate) table_rows: BTreeMap<String, i64>,
    pub(crate) table_paths: BTreeMap<String, String>,
    pub(crate) users_encoded: u64,
    pub(crate) users_kept: u64,
    /// Scans, rows and bytes of each table's files in the queries of the night, as far as they ran in this process.
    pub(crate) scans: BTreeMap<String, ScanFigures>,
    /// False where the same night was published before.
    pub(crate) published: bool,
}

/// Runs one night under its lock. Nights of one process share `models`: each version is loaded once for all of them.
pub(crate) async fn run(config: &Config, models: &Arc<Models>, options: &NightOptions) -> Result<NightReport> {
    let output = Location::open(&config.output.uri, &config.s3)?;
    let held = lock::acquire(&output, options.run_date, &config.lock).await?;
    let work = run_locked(config, models, options, &held);
    let done = match options.deadline {
        None => work.await,
        Some(limit) => tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(missed_deadline(options, limit))),
    };
    // A failed night releases its lock too, so that the next attempt need not wait for it to expire.
    let released = held.release().await;
    let report = done?;
    released?;
    Ok(report)
}

fn missed_deadline(options: &NightOptions, limit: Duration) -> Failure {
    let message = format!("the night of {} missed its deadline of {} s", options.run_date, limit.as_secs());
    Failure::transient(message).hint("run it again: finished stages are reused")
}

/// Warns of a model that was trained on persons who were erased since, or refuses it (`erase.retrain`).
async fn warn_of_erased(workspace: &Workspace, version: &str) -> Result<()> {
    let record = ErasureRecord::read(workspace.output()?).await?;
    if !record.is_some_and(|record| record.models.contains(version)) {
        return Ok(());
    }
    let message = format!("model {version} was trained on days of persons who were erased since");
    let hint = "`intentcast train` makes a model without them";
    match workspace.config.erase.retrain {
        Retrain::Warn => {
            tracing::warn!("{message}; {hint}");
            Ok(())
        }
        Retrain::Refuse => Err(Failure::model(format!("{message} (erase.retrain = \"refuse\")")).hint(hint)),
    }
}

/// Says that training is due, where the newest day that a model has learnt from is long ago.
fn note_due_training(labels_end: &str, run_date: RunDate, due_days: u32) -> Option<String> {
    let days = (run_date.0 - labels_end.parse::<RunDate>().ok()?.0).num_days();
    (days > i64::from(due_days)).then(|| {
        format!(
            "training is due: the model has learnt from events before {labels_end}, {days} days before this night \
             (train.due_days = {due_days})"
        )
    })
}

async fn run_locked(
    config: &Config,
    models: &Arc<Models>,
    options: &NightOptions,
    held: &NightLock,
) -> Result<NightReport> {
    let run_date = options.run_date;
    // Without a model nothing else is worth doing.
    let service = models.service("").await?;
    if config.demand.enabled {
        service.card.require_demand()?;
    }
    let workspace = Workspace::open(config, Arc::clone(models), Access::ReadWrite).await?;
    warn_of_erased(&workspace, &service.card.version).await?;
    let (survey, planning) = plan::survey(&workspace, run_date).await?;
    let plan = NightPlan::new(&survey)?;
    if plan.nothing_to_do {
        tracing::info!("{run_date}: nothing changed since it was published; leaving it as it is");
        return new_report(&workspace, held, &plan, &service);
    }
    let shadow = match &plan.shadow_version {
        Some(version) => {
            warn_of_erased(&workspace, version).await?;
            Some(models.service(version).await?)
        }
        None => None,
    };
    let bar = progress::bar(&format!("night of {run_date}"), plan.stages.len() as u64);
    let mut stages = StageLog { figures: BTreeMap::new(), bar: bar.clone() };
    let report = new_report(&workspace, held, &plan, &service)?;
    let Survey { rollups, visible, .. } = survey;

    let clock = stages.begin(Stage::Rollups.name());
    let is_complete = rollups.is_complete();
    let rollups = workspace.build_rollups(rollups, run_date).await?;
    stages.end(Stage::Rollups.name(), clock, rollups.report.rows_read, rollups.report.bytes_read);
    let ctx = match is_complete {
        true => planning,
        false => workspace.session_as_of(&rollups, Scope::night(run_date)).await?,
    };
    functions::register_shadow_version(&ctx, plan.shadow_version.as_deref());
    let objections = acceptance::find_objections(&workspace, &rollups.unit_days(), run_date).await?;
    let accepted = acceptance::stop_unless_accepted(&objections, &options.accept)?;
    let missing = objections::note_missing_days(&rollups, run_date);
    let master_findings = master_findings::count(&ctx).await?;
    let unstitched = master_findings::note_unstitched(&master_findings, config);
    let due = note_due_training(&service.card.labels_end, run_date, config.train.due_days);
    let without_demand = (!config.demand.enabled)
        .then(|| "demand.enabled = false: demand, demand_total and replenishment have no rows".to_string());
    let named = &config.promotion.shadow_version;
    let without_shadow = (!named.is_empty() && shadow.is_none()).then(|| {
        let own = &service.card.version;
        format!("promotion.shadow_version = {named}: no model to compare with {own}, so intent_shadow has no rows")
    });
    if let Some(due) = &due {
        tracing::warn!("{due}");
    }
    let checkpoints = checkpoint_folder(workspace.output()?, run_date, plan.manifest_hash()?);
    let night = Night {
        staging: Staging::new(workspace.output()?, &checkpoints, config.privacy.k_min),
        checkpoints,
        report: NightReport { read: rollups.report.clone(), master_findings, ..report },
        workspace: &workspace,
        options,
        held,
        card: &service.card,
        service: &service,
        shadow: shadow.as_ref(),
        rollups: &rollups,
        ctx,
        stages,
        staged: StagedTables::new(),
        notes: [accepted, missing, unstitched, due, without_demand, without_shadow].into_iter().flatten().collect(),
        drift: Value::Null,
        accuracy: Value::Null,
    };
    let done = night.execute(&plan, visible.as_ref()).await;
    bar.finish_and_clear();
    done
}

fn new_report(
    workspace: &Workspace,
    held: &NightLock,
    plan: &NightPlan,
    service: &ScoringService,
) -> Result<NightReport> {
    let mut table_paths = BTreeMap::new();
    for table in NIGHT_TABLES {
        let place = write_files::table_location(workspace.output()?, table);
        table_paths.insert(table.into(), place.display(&place.prefix));
    }
    Ok(NightReport {
        run_date: plan.run_date,
        generation: held.generation.0,
        model_version: service.card.version.clone(),
        read: plan.read.clone(),
        master_findings: MasterFindings::new(),
        stages: BTreeMap::new(),
        table_rows: BTreeMap::new(),
        table_paths,
        users_encoded: 0,
        users_kept: 0,
        scans: BTreeMap::new(),
        published: false,
    })
}

/// Measures stages and moves the progress bar.
struct StageLog {
    figures: BTreeMap<String, StageFigures>,
    bar: ProgressBar,
}

impl StageLog {
    /// Shows what is being done and starts its clock.
    fn begin(&self, name: &str) -> Instant {
        self.bar.set_message(name.to_string());
        Instant::now()
    }

    /// Adds to a stage's figures: the parts of a stage sum up.
    fn end(&mut self, name: &str, since: Instant, rows: u64, bytes: u64) {
        let seconds = since.elapsed().as_secs_f64();
        tracing::info!("{name}: {rows} rows, {bytes} bytes, {seconds:.1} s");
        self.bar.inc(1);
        let figures = self.figures.entry(name.into()).or_default();
        figures.seconds += seconds;
        figures.rows += rows;
        figures.bytes += bytes;
    }
}

/// A night whose rollups are built.
struct Night<'a> {
    workspace: &'a Workspace,
    options: &'a NightOptions,
    held: &'a NightLock,
    card: &'a BundleCard,
    service: &'a ScoringService,
    /// Scores a second time, into `intent_shadow`.
    shadow: Option<&'a ScoringService>,
    rollups: &'a Rollups,
    /// The session of the whole night; parts have sessions of their own.
    ctx: SessionContext,
    /// Folder with the rows of checkpointed queries.
    checkpoints: Location,
    staging: Staging,
    stages: StageLog,
    report: NightReport,
    staged: StagedTables,
    /// Sentences for `runs.note`.
    notes: Vec<String>,
    drift: Value,
    accuracy: Value,
}

impl Night<'_> {
    /// Executes the stages after the rollups, in the plan's order.
    async fn execute(mut self, plan: &NightPlan, visible: Option<&VisibleNight>) -> Result<NightReport> {
        for planned in &plan.stages {
            let clock = self.stages.begin(planned.name);
            match planned.stage {
                Stage::Rollups => {}
                Stage::UserFeatures => self.build_user_features().await?,
                Stage::Contents => {
                    // Before anything is scored, so that executors of a cluster find everything in the output.
                    let run_date = Some(self.options.run_date);
                    let mut added = 0;
                    for scoring in [Some(self.service), self.shadow].into_iter().flatten() {
                        added += self.workspace.models.refresh_contents(&self.ctx, &scoring.card, run_date).await?;
                    }
                    self.stages.end(planned.name, clock, added as u64, 0);
                }
                Stage::IntentScores => self.score_intents().await?,
                Stage::ShadowScores => self.score_shadow().await?,
                Stage::DemandForecasts => self.forecast_demand().await?,
                Stage::Table(table) => self.stage_table(table).await?,
                Stage::Checks => {
                    self.check().await?;
                    self.stages.end(planned.name, clock, 0, 0);
                }
                Stage::LookBack => {
                    self.look_back().await?;
                    self.stages.end(planned.name, clock, 0, 0);
                }
                Stage::Suppress => {
                    let (run_date, generation) = (self.held.run_date, self.held.generation);
                    let (sql, folders) = (&self.workspace.sql, (&self.staging, &self.checkpoints));
                    suppressed::suppress(&self.ctx, sql, folders, (run_date, generation), &mut self.staged).await?;
                    self.stages.end(planned.name, clock, 0, 0);
                }
                Stage::Publish => {
                    let record = self.run_record(plan)?;
                    let (run_date, generation) = (self.held.run_date, self.held.generation);
                    night_units::write(self.workspace.output()?, self.rollups, run_date, generation).await?;
                    let (output, fault) = (self.workspace.output()?, &self.options.fault);
                    let commit = NightCommit { output, held: self.held, staged: &self.staged, visible, fault };
                    let night = commit_night(commit, record).await?;
                    self.stages.end(planned.name, clock, 0, 0);
                    tracing::info!("{}: published as generation {}", night.run_date(), night.run.generation);
                }
            }
        }
        for (table, files) in &self.staged {
            self.report.table_rows.insert(table.clone(), files.iter().map(|f| f.rows).sum());
        }
        let scans = scans::figures(&self.ctx);
        Ok(NightReport { stages: self.stages.figures, scans, published: true, ..self.report })
    }

    /// Builds the features of all users, one part of them after another, so that memory does not grow with the users. Each
    /// part is a checkpoint: a second attempt continues with the part in which the first one stopped.
    async fn build_user_features(&mut self) -> Result<()> {
        let night = Scope::night(self.options.run_date);
        self.stages.bar.inc_length(CheckpointedQuery::GUEST_STATE.len() as u64);
        for query in CheckpointedQuery::GUEST_STATE {
            self.run_checkpointed(&self.ctx.clone(), query, &self.checkpoints.clone()).await?;
        }
        let parts = Part::for_night(&self.workspace.config, self.rollups);
        let scopes: Vec<Scope> = parts.into_iter().map(|users| Scope { users, ..night }).collect();
        let guests = CheckpointedQuery::GUEST_STATE.map(CheckpointedQuery::name);
        let done = format!("{}/done", CheckpointedQuery::USER_FEATURES.name());
        let shared = match self.checkpoints.read_if_there(&done).await? {
            // An earlier attempt finished them: no part reads items.
            Some(_) => SharedTables::from_session(&self.ctx, &guests).await?,
            None => self.workspace.shared_by_users(&self.ctx, &guests).await?,
        };
        self.run_in_parts(CheckpointedQuery::USER_FEATURES, &scopes, &shared).await
    }

    /// Scores intents, and counts how many users needed the encoder.
    async fn score_intents(&mut self) -> Result<()> {
        contract::register_model_input(&self.ctx).await?;
        views::register_one(&self.ctx, &self.workspace.sql, "score/anomaly").await?;
        // The service has counted the process's earlier nights too.
        let encoded_before = self.service.counters.get(|c| &c.users_encoded);
        let kept_before = self.service.counters.get(|c| &c.users_kept);
        self.score_by(self.service, CheckpointedQuery::INTENT_SCORES).await?;
        self.report.users_encoded = self.service.counters.get(|c| &c.users_encoded) - encoded_before;
        self.report.users_kept = self.service.counters.get(|c| &c.users_kept) - kept_before;
        Ok(())
    }

    /// Scores the same users with another model, where the night has one.
    async fn score_shadow(&mut self) -> Result<()> {
        match self.shadow {
            Some(shadow) => self.score_by(shadow, CheckpointedQuery::SHADOW_SCORES).await,
            None => self.leave_out(CheckpointedQuery::SHADOW_SCORES).await,
        }
    }

    /// Runs a query of scores with the encoder states that earlier nights cached.
    async fn score_by(&mut self, service: &ScoringService, query: CheckpointedQuery) -> Result<()> {
        let (output, run_date, weights) = (self.workspace.output()?, self.options.run_date, &service.card.weights_hash);
        service.add_states(encoder_states::load(output, weights, run_date).await?);
        self.run_checkpointed(&self.ctx.clone(), query, &self.checkpoints.clone()).await?;
        encoder_states::save(output, weights, run_date, service.take_used_states()).await
    }

    /// Forecasts the demand of all items, part by part.
    async fn forecast_demand(&mut self) -> Result<()> {
        if !self.workspace.config.demand.enabled {
            return self.leave_out(CheckpointedQuery::DEMAND_FORECASTS).await;
        }
        let night = Scope::night(self.options.run_date);
        let parts = features::item_parts(&self.ctx, &self.workspace.config).await?;
        let scopes: Vec<Scope> = parts.into_iter().map(|items| Scope { items, ..night }).collect();
        if scopes.len() == 1 {
            let (ctx, checkpoints) = (self.ctx.clone(), self.checkpoints.clone());
            return self.run_checkpointed(&ctx, CheckpointedQuery::DEMAND_FORECASTS, &checkpoints).await;
        }
        let shared = SharedTables::from_session(&self.ctx, &[features::EARLIER_DEMAND]).await?;
        self.run_in_parts(CheckpointedQuery::DEMAND_FORECASTS, &scopes, &shared).await
    }

    /// Registers the rows of a query that are not wanted: none.
    async fn leave_out(&mut self, query: CheckpointedQuery) -> Result<()> {
        let (name, clock) = (query.name(), self.stages.begin(query.name()));
        let planned = query.plan(&self.ctx, &self.workspace.sql).await?;
        let schema = parquet_files::plain(planned.schema().as_arrow());
        materialise::register_rows(&self.ctx, name, &self.checkpoints.folder(name), schema, Vec::new())?;
        self.stages.end(name, clock, 0, 0);
        Ok(())
    }

    /// Runs a query for each scope in a session of its own that has the `shared` tables.
    async fn run_in_parts(&mut self, query: CheckpointedQuery, scopes: &[Scope], shared: &SharedTables) -> Result<()> {
        let (ctx, checkpoints) = (self.ctx.clone(), self.checkpoints.clone());
        self.stages.bar.inc_length(scopes.len() as u64 - 1);
        let name = query.name();
        let (all, folders) = match scopes.len() {
            1 => (checkpoints.folder(name), vec![checkpoints.clone()]),
            parts => {
                let all = checkpoints.folder(&format!("{name}-parts-{parts}"));
                let folders = (0..parts).map(|number| all.folder(&number.to_string())).collect();
                (all, folders)
            }
        };
        for (folder, &scope) in folders.iter().zip(scopes) {
            let is_done = folder.folder(name).read_if_there("done").await?.is_some();
            // Holding the part's events is work of the stage.
            let clock = self.stages.begin(name);
            let events = match query == CheckpointedQuery::USER_FEATURES && !is_done {
                true => UserEvents::Held,
                false => UserEvents::View,
            };
            let part = self.workspace.session_sharing(shared, self.rollups, scope, events).await?;
            self.run_checkpointed_since(clock, &part, query, folder).await?;
        }
        let planned = query.plan(&ctx, &self.workspace.sql).await?;
        let schema = parquet_files::plain(planned.schema().as_arrow());
        if !materialise::reuse(&ctx, name, Arc::clone(&schema), &all).await? {
            // No part had a row.
            materialise::register_rows(&ctx, name, &all, schema, Vec::new())?;
        }
        checkpoints.write(&format!("{name}/done"), Vec::new()).await?;
        Ok(())
    }

    /// Runs a query once for this manifest; a later attempt of the same night reads the rows that it left.
    async fn run_checkpointed(
        &mut self,
        ctx: &SessionContext,
        query: CheckpointedQuery,
        checkpoints: &Location,
    ) -> Result<()> {
        let clock = self.stages.begin(query.name());
        self.run_checkpointed_since(clock, ctx, query, checkpoints).await
    }

    /// Like [`Self::run_checkpointed`], with what was done for the query since `clock`.
    async fn run_checkpointed_since(
        &mut self,
        clock: Instant,
        ctx: &SessionContext,
        query: CheckpointedQuery,
        checkpoints: &Location,
    ) -> Result<()> {
        let name = query.name();
        let planned = query.plan(ctx, &self.workspace.sql).await?;
        let folder = checkpoints.folder(name);
        if folder.read_if_there("done").await?.is_some() {
            let schema = parquet_files::plain(planned.schema().as_arrow());
            if materialise::reuse(ctx, name, schema, &folder).await? {
                tracing::info!("{name}: reused from an earlier attempt");
                self.stages.bar.inc(1);
                return Ok(());
            }
        }
        // Files of an attempt that died would be read twice.
        folder.delete(folder.list().await?.into_iter().map(|m| m.location).collect()).await?;
        if query == CheckpointedQuery::USER_FEATURES {
            self.workspace.check_added_features(ctx).await?;
        }
        let done = materialise::materialise(ctx, name, planned, &folder).await.map_err(|f| f.at(query.place()))?;
        folder.write("done", Vec::new()).await?;
        self.stages.end(name, clock, done.rows, done.bytes);
        Ok(())
    }

    /// Writes the files of one published table; later tables read it as it was staged.
    async fn stage_table(&mut self, table: &'static str) -> Result<()> {
        if self.staged.is_empty() {
            for view in ["score/segments", "score/intent_weight"] {
                views::register_one(&self.ctx, &self.workspace.sql, view).await?;
            }
        }
        let clock = self.stages.begin(table);
        let (ctx, output) = (&self.ctx, self.staging.of(table));
        let place = format!("sql/tables/{table}.sql");
        let query = ctx.sql(self.workspace.sql.get(&format!("tables/{table}"))?).await;
        let query = query.map_err(|e| Failure::from(e).at(&place))?;
        let tag = (self.options.run_date, self.held.generation);
        let files = write_files::stage(ctx, query, output, table, tag).await.map_err(|f| f.at(&place))?;
        register_staged(ctx, output, table, &files).await?;
        let (rows, bytes) = files.iter().fold((0, 0), |(rows, bytes), f| (rows + f.rows, bytes + f.bytes));
        self.stages.end(table, clock, rows as u64, bytes as u64);
        self.staged.insert(table.into(), files);
        Ok(())
    }

    async fn check(&self) -> Result<()> {
        let feature_users = self.ctx.sql("SELECT user_id FROM user_features").await?;
        let run_date = self.options.run_date;
        let (output, previous) = (self.workspace.output()?, self.workspace.night_before(run_date));
        let folder_of = |table: &str| self.staging.of(table);
        let subject =
            StagedNight { output, run_date, folder_of: &folder_of, staged: &self.staged, feature_users, previous };
        checks::check_night(&self.ctx, &self.workspace.sql, subject, &self.workspace.config.checks).await
    }

    async fn look_back(&mut self) -> Result<()> {
        self.drift = drift::measure(&self.ctx, self.card).await?;
        let tonight = self.options.run_date;
        let back = LookBack { workspace: self.workspace, ctx: &self.ctx, rollups: self.rollups, tonight };
        self.accuracy = back.figures().await?;
        Ok(())
    }

    fn run_record(&self, plan: &NightPlan) -> Result<RunRecord> {
        let mut record = RunRecord::new(self.held, plan.manifest_hash()?.to_string());
        record.model_version = Some(ModelVersion(self.card.version.clone()));
        record.sql_fingerprint = Some(self.workspace.sql.fingerprint(&NIGHT_SQL));
        record.input_fingerprint = Some(self.rollups.input_fingerprint());
        let units = &self.rollups.units;
        let mut reasons: BTreeMap<String, i64> = BTreeMap::new();
        for (reason, rows) in units.iter().flat_map(|u| &u.quarantined) {
            *reasons.entry(reason.clone()).or_default() += *rows as i64;
        }
        record.rows_read = Some(units.iter().map(|u| u.rows).sum::<u64>() as i64);
        let bad = reasons.iter().filter(|(reason, _)| *reason != ERASED_USER);
        record.rows_quarantined = Some(bad.map(|(_, rows)| rows).sum());
        record.quarantined_by_reason = reasons;
        record.master_findings = self.report.master_findings.clone();
        record.arrival_mode = Some(
            match self.workspace.config.lake.arrival {
                Arrival::Column => "arrival column",
                Arrival::IngestDate => "ingest date",
                Arrival::None => "event time only",
            }
            .into(),
        );
        record.stages = serde_json::to_value(&self.stages.figures).map_err(Failure::bug)?;
        record.drift = self.drift.clone();
        record.accuracy = self.accuracy.clone();
        let ignored = &self.rollups.report.files_ignored;
        let ignored = (!ignored.is_empty())
            .then(|| format!("ignored objects of the lake that are no data: {}", count_by_reason(ignored)));
        let notes: Vec<String> = self.notes.iter().cloned().chain(ignored).collect();
        record.note = (!notes.is_empty()).then(|| notes.join("; "));
        Ok(record)
    }
}
