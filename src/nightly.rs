//! The night: lock → rollups → features → scores → tables → checks → commits → one `runs` row.
//!
//! Idempotent: what a finished night published is left alone when nothing changed. Resumable: features and scores lie
//! under the hash of everything that they come from, so a second attempt starts where the first one died.

use datafusion::prelude::SessionContext;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster;
use crate::config::{Arrival, Config};
use crate::engine;
use crate::failure::{Failure, Result};
use crate::features::{self, Scope, contract, parts::Part, rollups::Rollups, views};
use crate::ids::RunDate;
use crate::lake::{self, Lake, parquet_files, stores::Location};
use crate::model::bundle::BundleCard;
use crate::progress;
use crate::publish::accuracy::LookBack;
use crate::publish::checks::{self, Subject, register_staged};
use crate::publish::drift;
use crate::publish::earlier::EarlierNights;
use crate::publish::lock::{self, Held};
use crate::publish::night::{FaultPoint, StagedTables, commit_night};
use crate::publish::runs::{self, RunRecord, VisibleNight};
use crate::score::{kept, models::Models, operator, torch_functions};
use crate::sql_files::SqlFiles;
use crate::tables::schemas::NIGHT_TABLES;
use crate::tables::{materialise, write_files};

/// How one night is run.
#[derive(Debug, Clone)]
pub struct NightOptions {
    pub run_date: RunDate,
    /// Gives up (exit 75) after this long; what was kept serves the next attempt.
    pub deadline: Option<Duration>,
    pub fault: FaultPoint,
}

/// Queries whose rows a night keeps under its manifest, in order: a second attempt reads what the first one left.
pub const KEPT_QUERIES: [&str; 3] = [USER_FEATURES, INTENT_SCORES, DEMAND_FORECASTS];
const USER_FEATURES: &str = "features/user_features";
const INTENT_SCORES: &str = "score/intent_scores";
const DEMAND_FORECASTS: &str = "score/demand_forecasts";

/// State that a night of many parts keeps once for all of them.
const GUEST_STATE: [&str; 2] = ["guest_day", "guest_event"];

/// Table name and folder of a kept query.
pub fn kept_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Seconds, rows and bytes of one stage.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Stage {
    pub seconds: f64,
    pub rows: u64,
    pub bytes: u64,
}

/// What a night did, for the summary and the `runs` row.
#[derive(Debug, Clone, Serialize)]
pub struct NightReport {
    pub run_date: RunDate,
    pub generation: u64,
    pub model_version: String,
    pub read: features::rollups::ReadReport,
    pub stages: BTreeMap<String, Stage>,
    pub table_rows: BTreeMap<String, i64>,
    pub table_paths: BTreeMap<String, String>,
    pub users_encoded: u64,
    pub users_kept: u64,
    /// False where the very same night was published before.
    pub published: bool,
}

/// Runs one night under its lock. Nights of one process share its `models`: each is loaded once for all of them.
pub async fn run(config: &Config, models: &Arc<Models>, options: &NightOptions) -> Result<NightReport> {
    let output = Location::open(&config.output.uri, &config.s3)?;
    let held = lock::acquire(&output, options.run_date, &config.lock).await?;
    // Rollups, contents, kept queries, tables, checks, look back, publishing; more where users come in parts.
    let bar =
        progress::bar(&format!("night of {}", options.run_date), 5 + (KEPT_QUERIES.len() + NIGHT_TABLES.len()) as u64);
    let stages = BTreeMap::new();
    let work = Night { config, models, options, output: &output, held: &held, stages, bar: bar.clone() }.run();
    let done = match options.deadline {
        None => work.await,
        Some(limit) => tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
            Err(Failure::passing(format!(
                "the night of {} missed its deadline of {} s",
                options.run_date,
                limit.as_secs()
            ))
            .hint("run it again: finished stages are kept"))
        }),
    };
    bar.finish_and_clear();
    // A failed night lets go of its lock too, so that the next attempt need not wait for it to expire.
    let released = held.release().await;
    let report = done?;
    released?;
    Ok(report)
}

struct Night<'a> {
    config: &'a Config,
    models: &'a Arc<Models>,
    options: &'a NightOptions,
    output: &'a Location,
    held: &'a Held,
    stages: BTreeMap<String, Stage>,
    bar: ProgressBar,
}

impl Night<'_> {
    async fn run(mut self) -> Result<NightReport> {
        let (config, date) = (self.config, self.options.run_date);
        let sql = SqlFiles::load(config)?;
        let service = self.models.service("").await?;
        let ctx = cluster::connect(engine::session(config)?, config, self.models)?;
        let ctx = operator::install(&ctx, Arc::clone(self.models));

        let clock = self.begin("rollups");
        let lake = Lake::open(config, &sql).await?;
        let rollups = Rollups::refresh(&ctx, config, &sql, &lake, date).await?;
        let read = rollups.report.clone();
        self.stage("rollups", clock, read.rows_read, read.bytes_read);
        let earlier = EarlierNights::before(date, &runs::visible_nights(self.output).await?, config);
        earlier.register(&ctx, self.output).await?;
        features::register(&ctx, config, &sql, &lake, &rollups, Scope::night(date)).await?;
        let features = contract::FeatureContract::of(ctx.table("user_features").await?.schema().as_arrow());
        service.card.features.refuse_other(&features, &service.card.version)?;

        let functions = torch_functions::fingerprint(&ctx);
        let earlier = &earlier;
        let inputs =
            NightInputs { config, run_date: date, sql: &sql, lake: &lake, rollups: &rollups, functions, earlier };
        let manifest = inputs.manifest_hash(&service.card);
        let mut report = NightReport {
            run_date: date,
            generation: self.held.generation.0,
            model_version: service.card.version.clone(),
            read,
            stages: BTreeMap::new(),
            table_rows: BTreeMap::new(),
            table_paths: BTreeMap::new(),
            users_encoded: 0,
            users_kept: 0,
            published: false,
        };
        for table in NIGHT_TABLES {
            let place = write_files::table_location(self.output, table);
            report.table_paths.insert(table.into(), place.display(&place.prefix));
        }
        if let Some(night) = runs::visible_on(self.output, date).await?
            && night.run.manifest_hash == manifest
        {
            tracing::info!("{date}: nothing changed since it was published; leaving it as it is");
            return Ok(report);
        }

        let scratch = self.output.folder(&format!("state/features/{date}/{manifest}"));
        self.user_features(&ctx, &inputs, &scratch).await?;
        contract::register_model_input(&ctx).await?;
        views::register_one(&ctx, &sql, "score/anomaly").await?;
        // Planning would see to it, too; here it has a line and a clock of its own.
        let clock = self.begin("contents");
        let added = self.models.refresh_contents(&ctx, &service.card, Some(date)).await?;
        self.stage("contents", clock, added as u64, 0);
        service.keep(kept::load(self.output, &service.card.weights_hash, date).await?);
        // The service has counted the process's earlier nights too.
        let users = || (service.counters.get(|c| &c.users_encoded), service.counters.get(|c| &c.users_kept));
        let before = users();
        self.kept_query(&ctx, &sql, INTENT_SCORES, &scratch).await?;
        self.demand_forecasts(&ctx, &inputs, &scratch).await?;
        (report.users_encoded, report.users_kept) = (users().0 - before.0, users().1 - before.1);
        kept::save(self.output, &service.card.weights_hash, date, service.take_used_states()).await?;

        views::register_one(&ctx, &sql, "score/segments").await?;
        views::register_one(&ctx, &sql, "score/intent_weight").await?;
        let staged = self.stage_tables(&ctx, &sql).await?;
        let clock = self.begin("checks");
        let feature_users = ctx.sql("SELECT user_id FROM user_features").await?;
        let subject = Subject { output: self.output, run_date: date, staged: &staged, feature_users };
        checks::check_night(&ctx, &sql, subject, &config.checks).await?;
        self.stage("checks", clock, 0, 0);

        let clock = self.begin("look_back");
        let drift = drift::of_night(&ctx, &service.card).await?;
        let (output, tonight) = (self.output, date);
        let (lake, rollups, models) = (&lake, &rollups, self.models);
        let back = LookBack { ctx: &ctx, config, sql: &sql, lake, rollups, models, output, tonight };
        let accuracy = back.figures().await?;
        self.stage("look_back", clock, 0, 0);

        let clock = self.begin("publish");
        let mut record = self.record(&report, &sql, rollups, manifest)?;
        (record.drift, record.accuracy) = (drift, accuracy);
        let night: VisibleNight = commit_night(self.output, self.held, &staged, record, &self.options.fault).await?;
        self.stage("publish", clock, 0, 0);
        tracing::info!("{date}: published as generation {}", night.run.generation);
        report.table_rows = staged.iter().map(|(t, files)| (t.clone(), files.iter().map(|f| f.rows).sum())).collect();
        report.stages = self.stages;
        report.published = true;
        Ok(report)
    }

    /// The features of all users, one part of them after another, so that memory does not grow with the users. Kept part
    /// by part: a second attempt goes on with the part that the first one died in.
    async fn user_features(&mut self, ctx: &SessionContext, of: &NightInputs<'_>, scratch: &Location) -> Result<()> {
        let night = Scope::night(of.run_date);
        let parts = Part::of_night(self.config, of.rollups);
        let scopes: Vec<Scope> = parts.into_iter().map(|users| Scope { users, ..night }).collect();
        if scopes.len() > 1 {
            self.bar.inc_length(GUEST_STATE.len() as u64);
            for guests in GUEST_STATE {
                self.kept_query(ctx, of.sql, &format!("state/{guests}"), scratch).await?;
            }
        }
        self.in_parts(ctx, of, USER_FEATURES, (&scopes, &GUEST_STATE), scratch).await
    }

    /// The forecasts of all items, likewise.
    async fn demand_forecasts(&mut self, ctx: &SessionContext, of: &NightInputs<'_>, scratch: &Location) -> Result<()> {
        let night = Scope::night(of.run_date);
        let parts = features::item_parts(ctx, self.config).await?;
        let scopes: Vec<Scope> = parts.into_iter().map(|items| Scope { items, ..night }).collect();
        self.in_parts(ctx, of, DEMAND_FORECASTS, (&scopes, &[features::EARLIER_DEMAND]), scratch).await
    }

    /// Runs a query of each part in a session of its own, which has some `tables` of the night's; where there is one part, in
    /// the night's.
    async fn in_parts(
        &mut self,
        ctx: &SessionContext,
        of: &NightInputs<'_>,
        path: &str,
        (scopes, tables): (&[Scope], &[&str]),
        scratch: &Location,
    ) -> Result<()> {
        if scopes.len() == 1 {
            return self.kept_query(ctx, of.sql, path, scratch).await;
        }
        self.bar.inc_length(scopes.len() as u64 - 1);
        let name = kept_name(path);
        let all = scratch.folder(&format!("{name}-parts-{}", scopes.len()));
        for (number, &scope) in scopes.iter().enumerate() {
            // A feature may call a text or table model in every part.
            let part = operator::install(&features::sibling(ctx), Arc::clone(self.models));
            for &table in tables {
                part.register_table(table, ctx.table_provider(table).await?)?;
            }
            features::register(&part, self.config, of.sql, of.lake, of.rollups, scope).await?;
            self.kept_query(&part, of.sql, path, &all.folder(&number.to_string())).await?;
        }
        let query = ctx.sql(of.sql.get(path)?).await?;
        let schema = parquet_files::plain(query.schema().as_arrow());
        if !materialise::reuse(ctx, name, Arc::clone(&schema), &all).await? {
            // No part had a row.
            lake::register_files(ctx, name, &all, schema, Vec::new())?;
        }
        scratch.write(&format!("{name}/done"), Vec::new()).await?;
        Ok(())
    }

    /// Runs a query once for this manifest; a later attempt of the same night reads what it left.
    async fn kept_query(&mut self, ctx: &SessionContext, sql: &SqlFiles, path: &str, scratch: &Location) -> Result<()> {
        let name = kept_name(path);
        let clock = self.begin(name);
        let query = ctx.sql(sql.get(path)?).await.map_err(|e| Failure::from(e).at(format!("sql/{path}.sql")))?;
        let folder = scratch.folder(name);
        if folder.read_if_there("done").await?.is_some() {
            let schema = parquet_files::plain(query.schema().as_arrow());
            if materialise::reuse(ctx, name, schema, &folder).await? {
                tracing::info!("{name}: kept from an earlier attempt");
                self.bar.inc(1);
                return Ok(());
            }
        }
        // Leftovers of an attempt that died would be read twice.
        folder.delete(folder.list().await?.into_iter().map(|m| m.location).collect()).await?;
        let done =
            materialise::materialise(ctx, name, query, &folder).await.map_err(|f| f.at(format!("sql/{path}.sql")))?;
        folder.write("done", Vec::new()).await?;
        self.stage(name, clock, done.rows, done.bytes);
        Ok(())
    }

    async fn stage_tables(&mut self, ctx: &SessionContext, sql: &SqlFiles) -> Result<StagedTables> {
        let mut staged = StagedTables::new();
        let tag = (self.options.run_date, self.held.generation);
        for table in NIGHT_TABLES {
            let clock = self.begin(table);
            let place = format!("sql/tables/{table}.sql");
            let query = ctx.sql(sql.get(&format!("tables/{table}"))?).await.map_err(|e| Failure::from(e).at(&place))?;
            let files = write_files::stage(ctx, query, self.output, table, tag).await.map_err(|f| f.at(&place))?;
            // Later tables read this one as it was staged.
            register_staged(ctx, self.output, table, &files).await?;
            let (rows, bytes) = files.iter().fold((0, 0), |(r, b), f| (r + f.rows, b + f.bytes));
            self.stage(table, clock, rows as u64, bytes as u64);
            staged.insert(table.into(), files);
        }
        Ok(staged)
    }

    /// Says what is being done; the stage's clock.
    fn begin(&self, name: &str) -> Instant {
        self.bar.set_message(name.to_string());
        Instant::now()
    }

    fn stage(&mut self, name: &str, since: Instant, rows: u64, bytes: u64) {
        let seconds = since.elapsed().as_secs_f64();
        tracing::info!("{name}: {rows} rows, {bytes} bytes, {seconds:.1} s");
        self.bar.inc(1);
        let stage = self.stages.entry(name.into()).or_default();
        *stage = Stage { seconds: stage.seconds + seconds, rows: stage.rows + rows, bytes: stage.bytes + bytes };
    }

    fn record(&self, report: &NightReport, sql: &SqlFiles, rollups: &Rollups, manifest: String) -> Result<RunRecord> {
        let mut record = RunRecord::new(self.held, manifest);
        record.model_version = Some(report.model_version.clone());
        record.sql_fingerprint = Some(sql.fingerprint(&["lakes", "rollups", "state", "features", "score", "tables"]));
        record.input_fingerprint = Some(rollups.input_fingerprint());
        let units = &rollups.units;
        let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
        for (reason, rows) in units.iter().flat_map(|u| &u.quarantined) {
            *reasons.entry(reason.clone()).or_default() += rows;
        }
        record.rows_read = Some(units.iter().map(|u| u.rows).sum::<u64>() as i64);
        record.rows_quarantined = Some(reasons.values().sum::<u64>() as i64);
        record.quarantined_by_reason = reasons.into_iter().map(|(r, n)| (r, n as i64)).collect();
        record.arrival_mode = Some(
            match self.config.lake.arrival {
                Arrival::Column => "arrival column",
                Arrival::IngestDate => "ingest date",
                Arrival::None => "event time only",
            }
            .into(),
        );
        record.stages = serde_json::to_value(&self.stages).map_err(Failure::bug)?;
        Ok(record)
    }
}

/// Everything but the model that a night's rows follow from.
pub struct NightInputs<'a> {
    pub config: &'a Config,
    pub run_date: RunDate,
    pub sql: &'a SqlFiles,
    pub lake: &'a Lake,
    pub rollups: &'a Rollups,
    /// What users' functions are, modules included.
    pub functions: String,
    /// Nights whose published demand this one reads.
    pub earlier: &'a EarlierNights,
}

impl NightInputs<'_> {
    /// Two nights of one hash have the same rows: date, files, earlier nights, SQL, settings and model are the same.
    pub fn manifest_hash(&self, model: &BundleCard) -> String {
        // Users, stock, promotions and erasures are read whole every night; the events' files are the rollups'.
        let masters = lake::VIEWS[1..].iter().flat_map(|view| self.lake.files(view));
        let masters: Vec<String> = masters.map(|file| lake::fingerprint(&file.meta)).collect();
        let folders = ["lakes", "rollups", "state", "features", "score", "tables", "checks"];
        let config = self.config;
        let settings = serde_json::to_string(&(
            &config.lake,
            &config.features,
            &config.intents,
            &config.demand,
            &config.recommendation,
            &config.replenishment,
            &config.segment,
        ))
        .unwrap_or_default();
        runs::manifest_hash([
            self.run_date.to_string().as_str(),
            &self.sql.fingerprint(&folders),
            &self.rollups.input_fingerprint(),
            &self.earlier.fingerprint(),
            &masters.concat(),
            &model.version,
            &model.weights_hash,
            &settings,
            &self.functions,
        ])
    }
}
