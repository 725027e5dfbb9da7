//! One value that holds what every verb works with, and the one builder of engine sessions.
//!
//! In: the resolved configuration and the process's models. Out: [`Workspace`], which lists the lake, loads the SQL files and
//! reads `runs` once, and opens every session: of the night and its parts, of dry runs, training, looking back and ad hoc
//! SQL. Functions, stores, memory limits, the cluster and scoring are installed here. Imports and trainings of flat tables have no
//! workspace, because they read neither a configured lake nor an output's state: they open a plain session of the engine.

pub(crate) mod descriptions;
pub(crate) mod one_user;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use datafusion::prelude::{DataFrame, SessionContext};
use std::collections::BTreeSet;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::cluster;
use crate::config::Config;
use crate::engine::{self, places, schemas};
use crate::failure::{Failure, Result};
use crate::features::added_features::OverlayFile;
use crate::features::erased_users::ErasedUsers;
use crate::features::lake_days::UnitDay;
use crate::features::rollups::{RollupPlan, Rollups};
use crate::features::{
    self, LakeSource, Scope, contract, functions, master, night_units, objections, rates, rollups, user_functions,
    views,
};
use crate::ids::RunDate;
use crate::lake::{self, Lake, stores::Location};
use crate::publish::earlier::EarlierNights;
use crate::publish::runs::{self, VisibleNight};
use crate::publish::{checks, readers};
use crate::score::models::{ContentWrites, Models};
use crate::score::operator;
use crate::sql_files::SqlFiles;
use crate::tables::rows_in_memory;
use crate::tables::schemas::{ERASURE, NIGHT_TABLES, RUNS};

use one_user::OneUserPlans;

/// The view of the events of a session's users.
const USER_EVENT: &str = "user_event";

/// Says whether a workspace may write below the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Missing rollups and content vectors are written below the output.
    ReadWrite,
    /// Nothing below the output changes: missing rollups are built in the spill folder, content vectors in memory, and both
    /// vanish with the workspace.
    ReadOnly,
}

/// Says where a session of a part of the users has their events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UserEvents {
    /// Each query reads them from the rollups.
    View,
    /// They are read once and kept in memory, divided by user, as far as they fit.
    Held,
}

/// Tables that several sessions of one date have in common.
#[derive(Debug, Default)]
pub(crate) struct SharedTables(Vec<(&'static str, Arc<dyn TableProvider>)>);

impl SharedTables {
    /// Takes tables of a session.
    pub(crate) async fn from_session(ctx: &SessionContext, names: &[&'static str]) -> Result<Self> {
        let mut tables = Vec::new();
        for name in names {
            tables.push((*name, ctx.table_provider(*name).await?));
        }
        Ok(Self(tables))
    }
}

/// Says what a session of a published night does where the night's rollups are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MissingRollups {
    /// Those of the lake as it is now are built for this workspace.
    Build,
    /// The days of items and users have no rows.
    LeaveOut,
}

/// A session that shows one published night.
pub(crate) struct NightSession {
    pub(crate) ctx: SessionContext,
    /// False where the days of items and users are unknown: there is no lake, and the night's state is gone.
    pub(crate) has_days: bool,
}

/// Configuration, lake, SQL files, output, models and visible nights of one verb or of one night of a backfill.
#[derive(Debug)]
pub struct Workspace {
    pub(crate) config: Config,
    pub(crate) sql: SqlFiles,
    pub(crate) models: Arc<Models>,
    access: Access,
    lake: Option<Lake>,
    output: Option<Location>,
    /// The nights that were visible when the workspace was opened, by date.
    nights: Vec<VisibleNight>,
    /// Carries settings, memory pool and cluster of all sessions, and no tables.
    engine: EngineSession,
    /// Holds the rollups of read-only sessions.
    scratch: OnceCell<TempDir>,
    master_checked: OnceCell<()>,
    /// The persons who were erased when the workspace was opened.
    erased: Arc<ErasedUsers>,
}

/// [`SessionContext`] without its unreadable `Debug` output.
struct EngineSession(SessionContext);

impl std::fmt::Debug for EngineSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EngineSession")
    }
}

impl Workspace {
    /// Opens what the configuration names. Without `lake.uri` or `output.uri` there is no lake or output; callers that need one
    /// call [`Self::lake`] or [`Self::output`], which then fail with the setting's name.
    pub async fn open(config: &Config, models: Arc<Models>, access: Access) -> Result<Self> {
        let sql = SqlFiles::load(config)?;
        let lake = match config.lake.uri.as_str() {
            "" => None,
            _ => Some(Lake::open(config, &sql).await?),
        };
        let output = match config.output.uri.as_str() {
            "" => None,
            uri => Some(Location::open(uri, &config.s3)?),
        };
        let nights = match &output {
            Some(output) => runs::visible_nights(output).await?,
            None => Vec::new(),
        };
        let erased = match &output {
            Some(output) => Arc::new(ErasedUsers::read(output).await?),
            None => Arc::default(),
        };
        let engine = EngineSession(cluster::connect(engine::session(config)?, config, &models)?);
        Ok(Self {
            config: config.clone(),
            sql,
            models,
            access,
            lake,
            output,
            nights,
            engine,
            scratch: OnceCell::new(),
            master_checked: OnceCell::new(),
            erased,
        })
    }

    /// Returns the lake; fails (exit 2) where none is configured.
    pub(crate) fn lake(&self) -> Result<&Lake> {
        self.lake.as_ref().ok_or_else(|| not_configured("lake"))
    }

    /// Returns the output; fails (exit 2) where none is configured.
    pub(crate) fn output(&self) -> Result<&Location> {
        self.output.as_ref().ok_or_else(|| not_configured("output"))
    }

    /// Returns the visible nights, by date.
    pub(crate) fn nights(&self) -> &[VisibleNight] {
        &self.nights
    }

    /// Returns the visible night of one date.
    pub(crate) fn night(&self, run_date: RunDate) -> Option<&VisibleNight> {
        self.nights.iter().find(|night| night.run_date() == run_date)
    }

    /// Returns the visible night of a date, by default the newest one; refuses another date (exit 2) with those that are visible.
    pub(crate) fn visible_night(&self, date: Option<RunDate>) -> Result<&VisibleNight> {
        let found = match date {
            Some(date) => self.night(date),
            None => self.nights.last(),
        };
        found.ok_or_else(|| {
            let newest: Vec<String> = self.nights.iter().rev().take(10).map(|n| n.run_date().to_string()).collect();
            match (date, newest.is_empty()) {
                (Some(date), false) => Failure::usage(format!("night {date}: not visible"))
                    .hint(format!("visible nights, the newest first: {}", newest.join(", "))),
                _ => Failure::usage("no night is visible")
                    .hint("`intentcast nightly --date D` publishes one; --output names its output"),
            }
        })
    }

    /// Returns the earlier nights whose published demand a night of `run_date` reads.
    pub(crate) fn earlier_nights(&self, run_date: RunDate) -> EarlierNights {
        EarlierNights::before(run_date, &self.nights, &self.config)
    }

    /// Opens an empty session with the engine's settings, shared memory, the cluster and scoring.
    pub fn session(&self) -> SessionContext {
        let content_writes = match self.access {
            Access::ReadWrite => ContentWrites::Output,
            Access::ReadOnly => ContentWrites::SessionOnly,
        };
        let ctx = operator::install(&features::sibling(&self.engine.0), Arc::clone(&self.models), content_writes);
        self.erased.register(&ctx);
        ctx
    }

    /// Returns the persons who were erased when the workspace was opened.
    pub(crate) fn erased(&self) -> &Arc<ErasedUsers> {
        &self.erased
    }

    /// Reads which ids of the lake's users belong together, also those of erased persons: pairs of an id and the login that it became.
    pub(crate) async fn connected_ids(&self) -> Result<Vec<(String, String)>> {
        let ctx = self.session();
        Arc::new(ErasedUsers::default()).register(&ctx);
        let sql = "SELECT DISTINCT user_id, canonical_user_id FROM user_rows \
                   WHERE canonical_user_id IS NOT NULL AND canonical_user_id <> user_id";
        self.pairs_of_master(&ctx, &["master/checked_users", "master/user_rows"], sql).await
    }

    /// Reads the lake's erasures: ids, each with the time of its request as text where there is one.
    pub(crate) async fn requested_erasures(&self) -> Result<Vec<(String, String)>> {
        let sql = "SELECT user_id, coalesce(CAST(requested_at AS VARCHAR), '') FROM erasures";
        self.pairs_of_master(&self.session(), &["master/erasures"], sql).await
    }

    /// Runs a query of two columns of text over views of the lake's master data, each after the ones that it reads.
    async fn pairs_of_master(&self, ctx: &SessionContext, files: &[&str], sql: &str) -> Result<Vec<(String, String)>> {
        let today = RunDate(chrono::Utc::now().date_naive());
        functions::register(ctx, &self.config, today)?;
        self.lake()?.register(ctx, today).await?;
        for file in files {
            views::register_one(ctx, &self.sql, file).await?;
        }
        text_pairs(ctx, sql).await
    }

    /// Plans which rollups a night of `run_date` reuses and builds. Writes nothing.
    pub(crate) async fn plan_rollups(&self, run_date: RunDate) -> Result<RollupPlan> {
        RollupPlan::open(&self.session(), self.source()?, run_date).await
    }

    /// Counts the rows by day that a night over planned rollups would find. Writes nothing.
    pub(crate) async fn unit_days(&self, plan: &RollupPlan, run_date: RunDate) -> Result<Vec<UnitDay>> {
        plan.unit_days(&self.session(), self.source()?, run_date).await
    }

    /// Builds the rollups that a plan lacks: below the output, or, read-only, for this workspace alone.
    pub(crate) async fn build_rollups(&self, plan: RollupPlan, run_date: RunDate) -> Result<Rollups> {
        if self.access == Access::ReadWrite || plan.is_complete() {
            return plan.build(&self.session(), self.source()?, run_date).await;
        }
        let report = plan.report();
        tracing::info!(
            "rollups: {} event files ({} bytes) are not in the stored rollups; building them for this session only",
            report.files_read,
            report.bytes_read
        );
        // Executors of a cluster do not see this machine's spill folder.
        let local = engine::session(&self.config)?;
        self.erased.register(&local);
        plan.build_into(self.scratch_folder().await?, &local, self.source()?, run_date).await
    }

    /// Plans and builds the rollups as of `run_date`, and warns of what a night would object to.
    pub async fn rollups(&self, run_date: RunDate) -> Result<Rollups> {
        let rollups = self.build_rollups(self.plan_rollups(run_date).await?, run_date).await?;
        objections::warn(&self.config, &rollups, run_date);
        Ok(rollups)
    }

    /// Opens a session with functions and the lake, state, feature and label views of `scope`.
    pub async fn session_as_of(&self, rollups: &Rollups, scope: Scope) -> Result<SessionContext> {
        let ctx = self.session();
        self.earlier_nights(scope.run_date).register(&ctx, self.output()?).await?;
        features::register(&ctx, self.source()?, rollups, scope).await?;
        self.check_master(&ctx).await?;
        Ok(ctx)
    }

    /// Checks users, items, inventory, promotions and erasures, once for all sessions: they read the same files.
    async fn check_master(&self, ctx: &SessionContext) -> Result<()> {
        self.master_checked.get_or_try_init(|| master::check(ctx, &self.config)).await?;
        Ok(())
    }

    /// Opens a session like [`Self::session_as_of`] that shares some tables with other sessions of the same date.
    pub(crate) async fn session_sharing(
        &self,
        shared: &SharedTables,
        rollups: &Rollups,
        scope: Scope,
        events: UserEvents,
    ) -> Result<SessionContext> {
        let ctx = self.session();
        for (name, table) in &shared.0 {
            ctx.register_table(*name, Arc::clone(table))?;
        }
        features::register_state(&ctx, self.source()?, rollups, scope).await?;
        if events == UserEvents::Held {
            let query = ctx.table(USER_EVENT).await?;
            if let Some(held) = rows_in_memory::hold_hashed(&ctx, query, "user_id", self.held_bytes_max()).await? {
                ctx.deregister_table(USER_EVENT)?;
                ctx.register_table(USER_EVENT, Arc::new(held))?;
            }
        }
        features::register_features(&ctx, self.source()?).await?;
        Ok(ctx)
    }

    /// Returns what the sessions of all parts of the users share: some tables of `ctx`, and what a user's events read of items,
    /// in memory.
    pub(crate) async fn shared_by_users(&self, ctx: &SessionContext, tables: &[&'static str]) -> Result<SharedTables> {
        let mut shared = SharedTables::from_session(ctx, tables).await?;
        let items = "item_contents";
        let query = ctx.table(items).await?;
        if let Some(held) = rows_in_memory::hold(ctx, query, self.held_bytes_max()).await? {
            shared.0.push((items, Arc::new(held)));
        }
        Ok(shared)
    }

    /// Returns how many bytes one table that is held in memory may take.
    fn held_bytes_max(&self) -> u64 {
        self.config.engine.memory_bytes_max / 2
    }

    /// Refuses a file of added user features that has several rows of a user in this session: each would repeat the user in
    /// `user_features`. Runs these files once more, for their users alone; without such files it runs nothing.
    pub(crate) async fn check_added_features(&self, ctx: &SessionContext) -> Result<()> {
        for file in OverlayFile::find(&self.sql) {
            let in_file = |failure: Failure| failure.at(file.place());
            let planned = ctx.sql(&file.count_sql()).await?.create_physical_plan().await;
            let counted = places::run(ctx, planned.map_err(|e| in_file(e.into()))?).await.map_err(in_file)?;
            file.refuse_repeated_users(&counted)?;
        }
        Ok(())
    }

    /// Opens a session in which any file under sql/ runs when pasted: lake, state, features and scores where a lake is
    /// configured, published tables where an output is. `date` is the value of `as_of()`: by default the latest published
    /// night, else the day after the newest event.
    pub async fn query_session(&self, date: Option<RunDate>) -> Result<SessionContext> {
        let ctx = self.bare_query_session(date).await?;
        schemas::divide(&ctx, self.schemas())?;
        Ok(ctx)
    }

    async fn bare_query_session(&self, date: Option<RunDate>) -> Result<SessionContext> {
        let ctx = self.session();
        if let Some(output) = &self.output {
            readers::register_visible(&ctx, output, &self.nights).await?;
        }
        user_functions::create(&ctx, &self.sql).await?;
        let Some(lake) = &self.lake else { return Ok(ctx) };
        lake.log_ignored();
        let date = self.query_date(lake, date);
        let Some(output) = &self.output else {
            features::functions::register(&ctx, &self.config, date)?;
            lake.register(&ctx, date).await?;
            rates::check(&ctx, lake).await?;
            features::register_repeats(&ctx, &self.sql, lake).await?;
            views::register(&ctx, &self.sql, &["master"]).await?;
            self.check_master(&ctx).await?;
            return Ok(ctx);
        };
        let rollups = self.rollups(date).await?;
        self.earlier_nights(date).register(&ctx, output).await?;
        features::register(&ctx, self.source()?, &rollups, Scope::night(date)).await?;
        self.check_master(&ctx).await?;
        contract::register_model_input(&ctx).await?;
        rollups::register_no_known_ids(&ctx).await?;
        rates::register_daily(&ctx, &self.sql, lake).await?;
        functions::register_compared_date(&ctx, self.night_before(date).map(VisibleNight::run_date));
        views::register(&ctx, &self.sql, &["rollups", "score", "report"]).await?;
        let users = ctx.sql("SELECT user_id FROM user_features").await?;
        checks::register_bounds(&ctx, output, self.night_before(date), users, &self.config.checks).await?;
        Ok(ctx)
    }

    /// Opens a session that shows a published night and the nights before it: their tables, the days of items and users that
    /// the night read, and the views of `sql/report/`. `compared` is the value of `compared_date()`.
    ///
    /// The days come from the state that the night left. With a lake the session also has its items, users, inventory and
    /// promotions; without one these views have no rows. A night that left no record of its state shows the days that the lake has now.
    pub(crate) async fn night_session(&self, night: &VisibleNight, compared: Option<RunDate>) -> Result<NightSession> {
        let session = self.open_night(night, compared, MissingRollups::Build).await?;
        views::register_one(&session.ctx, &self.sql, "features/scored_users").await?;
        views::register(&session.ctx, &self.sql, &["report"]).await?;
        Ok(session)
    }

    /// Opens a session like [`Self::night_session`] that also has features and `model_input`, divided into [`Self::schemas`]. It
    /// never builds rollups: features of a night whose state is gone count no event. Without a night all published tables are
    /// empty, and nothing else is there.
    pub(crate) async fn served_session(&self, night: Option<&VisibleNight>) -> Result<NightSession> {
        let Some(night) = night else {
            let ctx = self.session();
            readers::register_visible(&ctx, self.output()?, &[]).await?;
            user_functions::create(&ctx, &self.sql).await?;
            return Ok(NightSession { ctx, has_days: false });
        };
        let compared = self.night_before(night.run_date()).map(VisibleNight::run_date);
        let session = self.open_night(night, compared, MissingRollups::LeaveOut).await?;
        views::register(&session.ctx, &self.sql, &["features", "report"]).await?;
        contract::register_model_input(&session.ctx).await?;
        Ok(session)
    }

    /// Makes the plans of one user's features as of `run_date`, over the state that a night left; `served` is a session of
    /// [`Self::served_session`] for that night. Fails (exit 2) without a lake, which has the consents.
    pub(crate) async fn one_user_plans(
        &self,
        night: &VisibleNight,
        run_date: RunDate,
        served: &SessionContext,
    ) -> Result<OneUserPlans> {
        let (source, output) = (self.source()?, self.output()?);
        let left = night_units::open(&self.session(), source, output, (night.run_date(), night.run.generation)).await?;
        let rollups = left.ok_or_else(|| {
            Failure::input(format!("the state that the night of {} left is gone", night.run_date()))
                .hint("the next night leaves its own")
        })?;
        let ctx = self.session();
        self.earlier_nights(run_date).register(&ctx, output).await?;
        one_user::prepare(|| self.session(), source, &rollups, served, &ctx, run_date).await
    }

    /// Returns who became which login as of a date, as the view `stitched` of a night of that date has it.
    pub(crate) async fn stitched(&self, run_date: RunDate, served: &SessionContext) -> Result<DataFrame> {
        let ctx = self.session();
        functions::register(&ctx, &self.config, run_date)?;
        ctx.register_table("user_rows", served.table_provider("user_rows").await?)?;
        views::register_one(&ctx, &self.sql, "state/stitched").await?;
        Ok(ctx.table(one_user::STITCHED).await?)
    }

    /// Returns the schemas that clients see, and the tables that each may have.
    pub(crate) fn schemas(&self) -> Vec<(&'static str, BTreeSet<String>)> {
        let of_folders = |folders: &[&str]| -> BTreeSet<String> {
            folders.iter().flat_map(|folder| self.sql.folder(folder)).map(|(name, _)| name.into()).collect()
        };
        let published = NIGHT_TABLES.iter().flat_map(|table| [(*table).to_string(), format!("{table}_history")]);
        let mut features = of_folders(&["features", "state"]);
        features.insert("model_input".into());
        vec![
            ("tables", published.chain([ERASURE, RUNS].map(String::from)).collect()),
            ("features", features),
            ("lake", lake::VIEWS.map(String::from).into()),
            ("report", of_folders(&["report"])),
        ]
    }

    /// Returns whether the workspace has a lake.
    pub(crate) fn has_lake(&self) -> bool {
        self.lake.is_some()
    }

    /// Opens the published tables of a night and of those before it, and the state that it left.
    async fn open_night(
        &self,
        night: &VisibleNight,
        compared: Option<RunDate>,
        missing: MissingRollups,
    ) -> Result<NightSession> {
        let (ctx, run_date) = (self.session(), night.run_date());
        let output = self.output()?;
        let until: Vec<VisibleNight> = self.nights.iter().filter(|n| n.run_date() <= run_date).cloned().collect();
        readers::register_visible(&ctx, output, &until).await?;
        self.earlier_nights(run_date).register(&ctx, output).await?;
        let no_lake;
        let source = match &self.lake {
            Some(_) => self.source()?,
            None => {
                no_lake = Lake::without_files(&self.config, &self.sql).await?;
                LakeSource { config: &self.config, sql: &self.sql, lake: &no_lake }
            }
        };
        let left = night_units::open(&self.session(), source, output, (run_date, night.run.generation)).await?;
        let rollups = match (left, &self.lake, missing) {
            (Some(rollups), ..) => Some(rollups),
            (None, Some(_), MissingRollups::Build) => Some(self.rollups(run_date).await?),
            (None, _, MissingRollups::LeaveOut) => {
                tracing::warn!("the state that the night of {run_date} left is gone: its features count no event");
                None
            }
            (None, None, MissingRollups::Build) => None,
        };
        let has_days = rollups.is_some();
        let rollups = match rollups {
            Some(rollups) => rollups,
            None => night_units::without_units(&self.session(), source, output, run_date).await?,
        };
        features::register_state(&ctx, source, &rollups, Scope::night(run_date)).await?;
        functions::register_compared_date(&ctx, compared);
        if self.lake.is_some() {
            self.check_master(&ctx).await?;
        }
        Ok(NightSession { ctx, has_days })
    }

    /// Returns the latest visible night before a date.
    pub(crate) fn night_before(&self, run_date: RunDate) -> Option<&VisibleNight> {
        self.nights.iter().rfind(|night| night.run_date() < run_date)
    }

    fn query_date(&self, lake: &Lake, date: Option<RunDate>) -> RunDate {
        if let Some(date) = date {
            return date;
        }
        let newest_event_day = lake.newest_event_day();
        let (date, reason) = match (self.nights.last(), newest_event_day) {
            (Some(night), _) => (night.run_date(), "the latest published night"),
            (None, Some(day)) => (RunDate(day).plus_days(1), "the day after the newest event files"),
            (None, None) => (RunDate(chrono::Utc::now().date_naive()), "today"),
        };
        tracing::info!("features are as of {date}, {reason}; --date chooses another day");
        date
    }

    /// Returns the lake with the SQL and settings that turn it into features; fails (exit 2) where none is configured.
    pub(crate) fn source(&self) -> Result<LakeSource<'_>> {
        Ok(LakeSource { config: &self.config, sql: &self.sql, lake: self.lake()? })
    }

    async fn scratch_folder(&self) -> Result<Location> {
        let make = || async {
            let parent = self.config.engine.spill_path();
            let made = tempfile::Builder::new().prefix("intentcast-rollups-").tempdir_in(&parent);
            made.map_err(|e| Failure::transient(format!("{}: no folder for this session: {e}", parent.display())))
        };
        let folder = self.scratch.get_or_try_init(make).await?;
        Location::open(&folder.path().display().to_string(), &self.config.s3)
    }
}

/// Reads a query of two columns of text.
async fn text_pairs(ctx: &SessionContext, sql: &str) -> Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    for batch in ctx.sql(sql).await?.collect().await? {
        let [first, second] = [0, 1].map(|column| cast(batch.column(column), &DataType::Utf8));
        let (first, second) = (first?, second?);
        let rows = first.as_string::<i32>().iter().zip(second.as_string::<i32>());
        pairs.extend(rows.filter_map(|(first, second)| Some((first?.to_string(), second?.to_string()))));
    }
    Ok(pairs)
}

fn not_configured(what: &str) -> Failure {
    Failure::usage(format!("{what}.uri: expected a folder or s3://…, got nothing"))
        .hint(format!("pass --{what} URI, or set {what}.uri in the file of --config"))
}
