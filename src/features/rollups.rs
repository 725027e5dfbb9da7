//! Rollup units: the contribution of a set of event files to users' and items' days, computed once and stored.
//!
//! A unit is a set of event files of one month (at most 16 MiB), read by one run. Its outputs are stored under
//! `state/rollups/<fingerprint of SQL and settings>/units/<id>/`; a manifest, written last and only if absent, makes a
//! run's units count. A later run reuses every unit whose files are all unchanged and rolls up only files that no unit
//! covers: a late file becomes a unit of its own, and a changed or removed file invalidates its unit. Rows carry event day
//! and arrival day and merge exactly, so the assignment of files to units changes no feature.
//!
//! A lake's `events.sql` may join further raw tables: each unit reads them whole, and a change of them invalidates all units.

use arrow::datatypes::{DataType, SchemaRef};
use chrono::{Duration, NaiveDate};
use datafusion::prelude::SessionContext;
use object_store::{ObjectMeta, ObjectStoreExt};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::lake_days::{LakeDays, UnitDay};
use super::lake_source::{LakeSource, sibling};
use super::quarantine::OTHER_CURRENCY;
use super::rates::RateHistory;
use super::read_report::ReadReport;
use super::unit_outputs::{self, OUTPUTS};
use super::units::{
    LakeNow, OutputFile, Unit, UnitTables, choose_units, find_outdated, fingerprint_sources, group, list_output,
};
use super::{erased_users, functions, lake_days, rates, views};
use crate::config::{Config, Partition};
use crate::failure::{Failure, Result};
use crate::ids::{ContentHash, RunDate};
use crate::lake::{
    Lake, files_table, files_table::ListedFile, fingerprint, parquet_files, register_files, stores::Location,
};
use crate::sql_files::SqlFiles;

/// The units that a night reads.
#[derive(Debug)]
pub struct Rollups {
    pub(crate) units: Vec<Unit>,
    pub report: ReadReport,
    /// Folder of the stored units.
    location: Location,
    /// Folder of the units that belong to this session alone (see [`RollupPlan::build_into`]).
    session_location: Option<Location>,
    schemas: BTreeMap<&'static str, SchemaRef>,
    tables: UnitTables,
}

/// Stored units that a night of a date can use, and the event files that need new units, whose footers are checked. Making it
/// reads listings, manifests and those footers, and writes nothing.
#[derive(Debug)]
pub(crate) struct RollupPlan {
    stored: Rollups,
    /// The files of each unit to build.
    to_build: Vec<Vec<ListedFile>>,
}

impl RollupPlan {
    /// Compares the lake's event files before `run_date` with the stored units. Refuses the first file to build from that is
    /// damaged or does not fit.
    pub(crate) async fn open(ctx: &SessionContext, source: LakeSource<'_>, run_date: RunDate) -> Result<Self> {
        let LakeSource { config, sql, lake } = source;
        let output = Location::open(&config.output.uri, &config.s3)?;
        let location = output.folder(&format!("state/rollups/{}", state_fingerprint(config, sql)));
        let planning = planning_session(ctx, source, run_date).await?;
        let tables = UnitTables {
            joined: lake.joined_tables()?,
            rates: RateHistory::load(&planning, lake).await?,
            days_after_folder: (config.lake.partition != Partition::None).then(|| days_after_folder(config)),
        };
        let mut stored = Rollups {
            units: Vec::new(),
            report: ReadReport::default(),
            schemas: output_schemas(&planning, sql).await?,
            tables,
            location,
            session_location: None,
        };
        let uncovered = stored.load_units(&lake.event_files(run_date)).await?;
        let bytes = |files: &[ListedFile]| files.iter().map(|f| f.meta.size).sum::<u64>();
        stored.report.files_skipped = (lake.files("events").len() - uncovered.len()) as u64;
        stored.report.bytes_skipped = bytes(lake.files("events")) - bytes(&uncovered);
        stored.report.files_ignored = lake.ignored();
        let mut to_build = group(uncovered);
        for files in &mut to_build {
            *files = lake.check("events", std::mem::take(files)).await?;
        }
        Ok(Self { stored, to_build })
    }

    /// Reports what building would read; rows and bad rows are not known yet.
    pub(crate) fn report(&self) -> ReadReport {
        ReadReport {
            files_read: self.files().count() as u64,
            bytes_read: self.files().map(|f| f.meta.size).sum(),
            units_built: self.to_build.len() as u64,
            ..self.stored.report.clone()
        }
    }

    /// Returns the stored units alone: enough to plan queries with, not to answer them.
    pub(crate) fn stored(&self) -> &Rollups {
        &self.stored
    }

    /// Returns true where every event file is covered by a stored unit.
    pub(crate) fn is_complete(&self) -> bool {
        self.to_build.is_empty()
    }

    /// Returns the rows by day of the stored units, and of the files that need new ones, of which only the times are read: what a
    /// night would find, up to bad and repeated rows.
    pub(crate) async fn unit_days(
        &self,
        base: &SessionContext,
        source: LakeSource<'_>,
        run_date: RunDate,
    ) -> Result<Vec<UnitDay>> {
        let mut days = self.stored.unit_days();
        if !self.is_complete() {
            let ctx = sibling(base);
            functions::register(&ctx, source.config, run_date)?;
            source.lake.register_unit(&ctx, self.files().cloned().collect()).await?;
            views::register_one(&ctx, source.sql, "rollups/dated_events").await?;
            days.extend(lake_days::count_files(&ctx).await?);
        }
        Ok(days)
    }

    /// Hashes every source file behind the night, those of units to build included.
    pub(crate) fn input_fingerprint(&self) -> String {
        let to_build = self.files().map(|f| (f.meta.location.to_string(), fingerprint(&f.meta)));
        let stored = self.stored.units.iter().flat_map(|u| u.sources.clone());
        fingerprint_sources(&stored.chain(to_build).chain(self.stored.tables.fingerprints(None)).collect())
    }

    /// Builds the missing units below the output and makes them count for later runs.
    pub(crate) async fn build(
        self,
        ctx: &SessionContext,
        source: LakeSource<'_>,
        run_date: RunDate,
    ) -> Result<Rollups> {
        let location = self.stored.location.clone();
        let (rollups, built) = self.build_units(ctx, source, run_date).await?;
        if !built.is_empty() {
            let manifest = serde_json::to_vec(&built).map_err(Failure::bug)?;
            let name = format!("manifests/{}.json", ContentHash::from_bytes(&manifest).short());
            location.create(&name, manifest).await?;
        }
        Ok(rollups)
    }

    /// Builds the missing units in `folder` for one session; nothing below the output changes.
    pub(crate) async fn build_into(
        mut self,
        folder: Location,
        ctx: &SessionContext,
        source: LakeSource<'_>,
        run_date: RunDate,
    ) -> Result<Rollups> {
        self.stored.session_location = Some(folder);
        Ok(self.build_units(ctx, source, run_date).await?.0)
    }

    async fn build_units(
        self,
        ctx: &SessionContext,
        source: LakeSource<'_>,
        run_date: RunDate,
    ) -> Result<(Rollups, Vec<Unit>)> {
        let mut rollups = self.stored;
        if rollups.report.outdated.files > 0 {
            tracing::info!("{}", rollups.report.outdated);
        }
        let mut built = Vec::new();
        let mut judged: Option<JudgedUnit> = None;
        for files in self.to_build.into_iter().map(Some).chain([None]) {
            let (unit, next) = tokio::try_join!(
                async {
                    match judged.take() {
                        Some(unit) => Ok(Some(rollups.build(source, unit).await?)),
                        None => Ok(None),
                    }
                },
                async {
                    match files {
                        Some(files) => Ok(Some(JudgedUnit::read(ctx, source, run_date, files).await?)),
                        None => Ok::<_, Failure>(None),
                    }
                }
            )?;
            judged = next;
            built.extend(unit);
        }
        rollups.report.refuse_bad_share(source.config.lake.quarantine_share_max)?;
        rollups.refuse_mixed_currencies(source.config)?;
        Ok((rollups, built))
    }

    fn files(&self) -> impl Iterator<Item = &ListedFile> {
        self.to_build.iter().flatten()
    }
}

/// Reads the stored units of a folder of rollups, in the order in which they were written.
pub(super) async fn read_manifests(location: &Location) -> Result<Vec<Unit>> {
    let mut found: Vec<Unit> = Vec::new();
    let mut manifests = location.folder("manifests").list().await?;
    manifests.sort_by_key(|manifest| manifest.last_modified);
    for manifest in manifests {
        found.extend(read_manifest(location, &manifest).await?);
    }
    Ok(found)
}

/// Reads the units that one manifest names.
pub(super) async fn read_manifest(location: &Location, manifest: &ObjectMeta) -> Result<Vec<Unit>> {
    let bytes = location.store.get(&manifest.location).await?.bytes().await?;
    serde_json::from_slice(&bytes).map_err(|e| {
        Failure::input(format!("{}: damaged state manifest: {e}", location.display(&manifest.location)))
            .hint("delete this manifest; its units are then rolled up again")
    })
}

impl Rollups {
    /// Makes the rollups of given stored units, for a session that reads no lake.
    pub(super) async fn over_units(
        ctx: &SessionContext,
        source: LakeSource<'_>,
        location: Location,
        units: Vec<Unit>,
        run_date: RunDate,
    ) -> Result<Self> {
        let planning = planning_session(ctx, source, run_date).await?;
        Ok(Self {
            units,
            report: ReadReport::default(),
            schemas: output_schemas(&planning, source.sql).await?,
            tables: UnitTables::default(),
            location,
            session_location: None,
        })
    }

    /// Returns the name of the folder below `state/rollups/` that holds the stored units.
    pub(super) fn folder_name(&self) -> String {
        self.location.prefix.filename().unwrap_or_default().to_string()
    }

    /// Loads the stored units whose files and tables are all there unchanged; returns the files that none covers.
    async fn load_units(&mut self, files: &[ListedFile]) -> Result<Vec<ListedFile>> {
        let files_now = files.iter().map(|f| (f.meta.location.to_string(), fingerprint(&f.meta))).collect();
        let now = LakeNow { files: files_now, tables: &self.tables };
        let found = read_manifests(&self.location).await?;
        self.units = choose_units(&found, &now);
        let covered: HashSet<&str> = self.units.iter().flat_map(|u| u.sources.keys().map(String::as_str)).collect();
        let uncovered: Vec<ListedFile> =
            files.iter().filter(|f| !covered.contains(f.meta.location.as_ref())).cloned().collect();
        self.report.outdated = find_outdated(&found, &uncovered, &now);
        self.report.units_kept = self.units.len() as u64;
        Ok(uncovered)
    }

    /// Builds a unit from its judged rows and adds it to the others.
    async fn build(&mut self, source: LakeSource<'_>, judged: JudgedUnit) -> Result<Unit> {
        let LakeSource { config, sql, .. } = source;
        let JudgedUnit { ctx, files, in_memory } = &judged;
        let sources: BTreeMap<String, String> =
            files.iter().map(|f| (f.meta.location.to_string(), fingerprint(&f.meta))).collect();
        let (first_dt, last_dt) = (files.iter().filter_map(|f| f.dt).min(), files.iter().filter_map(|f| f.dt).max());
        let tables = self.tables.fingerprints(last_dt);
        let id = fingerprint_sources(&sources.clone().into_iter().chain(tables.clone()).collect());
        self.report.files_read += files.len() as u64;
        self.report.bytes_read += files.iter().map(|f| f.meta.size).sum::<u64>();
        self.register_known_ids(ctx, config, first_dt, last_dt).await?;

        let mut unit = Unit {
            id,
            first_dt,
            last_dt,
            sources,
            tables,
            outputs: BTreeMap::new(),
            rows: 0,
            quarantined: BTreeMap::new(),
            currencies: BTreeMap::new(),
            days: Vec::new(),
            of_this_session: self.session_location.is_some(),
        };
        let folder = self.folder(&unit)?.folder(&format!("units/{}", unit.id));
        let written = match unit_outputs::write(ctx, config, sql, &folder, *in_memory).await {
            Ok(written) => written,
            Err(failure) => return Err(name_unreadable(source.lake, failure, files).await?),
        };
        unit.rows = written.iter().filter(|o| o.has_event_rows()).flat_map(|o| &o.files).map(|f| f.rows as u64).sum();
        for output in written {
            let files = output.files.into_iter().map(|f| OutputFile { name: f.path, bytes: f.bytes as u64 });
            unit.outputs.insert(output.name.into(), files.collect());
        }
        unit.currencies = count_rows(ctx, CURRENCIES_SQL).await?.into_iter().collect();
        unit.days = lake_days::count_unit(ctx).await?;
        for (reason, rows) in count_rows(ctx, REASONS_SQL).await? {
            *self.report.quarantined.entry(reason.clone()).or_default() += rows;
            unit.quarantined.insert(reason, rows);
        }
        self.report.rows_read += unit.rows;
        self.report.units_built += 1;
        self.units.push(unit.clone());
        Ok(unit)
    }

    /// Registers `known_event_ids`: ids of stored events on days that the new files may touch.
    async fn register_known_ids(
        &self,
        ctx: &SessionContext,
        config: &Config,
        first_dt: Option<NaiveDate>,
        last_dt: Option<NaiveDate>,
    ) -> Result<()> {
        let margin = days_after_folder(config);
        let by_day = matches!(config.lake.partition, Partition::EventDateUtc | Partition::EventDateLocal);
        let near = |u: &&Unit| match (first_dt, last_dt, u.first_dt, u.last_dt) {
            (Some(from), Some(to), Some(first), Some(last)) if by_day => first <= to + margin && last >= from - margin,
            _ => true,
        };
        let units: Vec<Unit> = self.units.iter().filter(near).cloned().collect();
        self.register_output(ctx, "kept_event", "unit_event", &units)?;
        let days = match (first_dt, last_dt) {
            (Some(from), Some(to)) if by_day => {
                format!("AND event_day BETWEEN DATE '{}' AND DATE '{}'", from - margin, to + margin)
            }
            _ => String::new(),
        };
        let known = format!("SELECT DISTINCT event_id, event_day FROM kept_event WHERE event_id IS NOT NULL {days}");
        ctx.register_table("known_event_ids", ctx.sql(&known).await?.into_view())?;
        Ok(())
    }

    /// Returns the folder that holds a unit's outputs.
    fn folder(&self, unit: &Unit) -> Result<&Location> {
        match unit.of_this_session {
            true => self.session_location.as_ref().ok_or_else(|| Failure::bug("a session's unit without its folder")),
            false => Ok(&self.location),
        }
    }

    /// Registers one output of `units` as table `name`.
    fn register_output(&self, ctx: &SessionContext, name: &str, output: &str, units: &[Unit]) -> Result<()> {
        self.register_rows(ctx, name, output, units)?;
        // Units hold erased persons until their erasure has reached them.
        erased_users::leave_out(ctx, name)
    }

    fn register_rows(&self, ctx: &SessionContext, name: &str, output: &str, units: &[Unit]) -> Result<()> {
        let schema = &self.schemas[output];
        let (of_session, stored): (Vec<&Unit>, Vec<&Unit>) = units.iter().partition(|unit| unit.of_this_session);
        let Some(session_location) = self.session_location.as_ref().filter(|_| !of_session.is_empty()) else {
            let files = list_output(&self.location, &stored, output);
            return register_files(ctx, name, &self.location, Arc::clone(schema), files);
        };
        let new_rows = list_output(session_location, &of_session, output);
        let new_rows = ctx.read_table(files_table(ctx, session_location, Arc::clone(schema), new_rows)?)?;
        let stored = list_output(&self.location, &stored, output);
        let stored = ctx.read_table(files_table(ctx, &self.location, Arc::clone(schema), stored)?)?;
        ctx.register_table(name, stored.union(new_rows)?.into_view())?;
        Ok(())
    }

    /// Fails (exit 3) where prices are in several currencies and `lake.currency` does not choose one: their sum means nothing.
    fn refuse_mixed_currencies(&self, config: &Config) -> Result<()> {
        let mut rows: BTreeMap<&str, u64> = BTreeMap::new();
        for (currency, count) in self.units.iter().flat_map(|unit| &unit.currencies) {
            *rows.entry(currency).or_default() += count;
        }
        if rows.len() < 2 || !config.lake.currency.is_empty() {
            return Ok(());
        }
        let counts: Vec<String> = rows.iter().map(|(currency, count)| format!("{currency} {count}")).collect();
        let most = rows.iter().rev().max_by_key(|(_, count)| **count).map_or("", |(currency, _)| currency);
        Err(Failure::input(format!(
            "{}: prices in {} currencies (rows: {}); nothing was stored",
            config.lake.uri,
            rows.len(),
            counts.join(", ")
        ))
        .hint(format!(
            "set `lake.currency = \"{most}\"`: rows in another currency are then quarantined as {OTHER_CURRENCY}, unless \
             the lake's view `rates` converts them"
        )))
    }

    /// Registers `unit_event`, `unit_user_day`, `unit_item_day` and `unit_quarantine` over all units.
    pub(crate) fn register(&self, ctx: &SessionContext) -> Result<()> {
        OUTPUTS.iter().try_for_each(|output| self.register_output(ctx, output, output, &self.units))
    }

    /// Returns the lake's days before `date`, as far as they had arrived before it.
    pub(crate) fn days_before(&self, date: RunDate) -> LakeDays {
        LakeDays::before(date, self.units.iter().flat_map(|unit| &unit.days))
    }

    /// Returns the rows by day of each unit.
    pub(crate) fn unit_days(&self) -> Vec<UnitDay> {
        self.units.iter().flat_map(|unit| &unit.days).copied().collect()
    }

    /// Hashes every source file behind the night.
    pub(crate) fn input_fingerprint(&self) -> String {
        let sources = self.units.iter().flat_map(|u| u.sources.clone());
        fingerprint_sources(&sources.chain(self.tables.fingerprints(None)).collect())
    }
}

/// Hashes everything but the files that rollups depend on: their SQL, the lake's SQL, and the settings and constants that change
/// rows. A test finds a setting that the SQL reads and this lacks.
fn state_fingerprint(config: &Config, sql: &SqlFiles) -> String {
    let lake = format!("lakes/{}", config.lake.name);
    let text = format!(
        "4\0{}\0{}\0{}\0{:?}\0{:?}\0{}\0{}\0{}\0{}\0{}",
        sql.fingerprint(&["rollups", "lakes/canonical", &lake]),
        config.lake.uri.trim_end_matches('/'),
        config.lake.time_zone,
        config.lake.partition,
        config.lake.arrival,
        config.lake.time_tolerance_hours,
        config.lake.first_date,
        config.lake.currency,
        functions::PRICE_MAX,
        config.privacy.mask_text,
    );
    ContentHash::from_bytes(text).short()
}

/// A unit to build, whose files were read.
struct JudgedUnit {
    ctx: SessionContext,
    files: Vec<ListedFile>,
    /// False where `judged_events` reads the files again.
    in_memory: bool,
}

impl JudgedUnit {
    /// Reads the files of a unit in a session of its own.
    async fn read(
        base: &SessionContext,
        source: LakeSource<'_>,
        run_date: RunDate,
        files: Vec<ListedFile>,
    ) -> Result<Self> {
        let LakeSource { config, sql, lake } = source;
        let ctx = sibling(base);
        functions::register(&ctx, config, run_date)?;
        lake.register_unit(&ctx, files.clone()).await?;
        rates::register_daily(&ctx, sql, lake).await?;
        views::register_one(&ctx, sql, "rollups/dated_events").await?;
        match unit_outputs::judge(&ctx, config, sql).await {
            Ok(in_memory) => Ok(Self { ctx, files, in_memory }),
            Err(failure) => Err(name_unreadable(lake, failure, &files).await?),
        }
    }
}

/// Names the file of a unit that could not be read, if one of them is the cause.
async fn name_unreadable(lake: &Lake, failure: Failure, files: &[ListedFile]) -> Result<Failure> {
    let events = files.iter().map(|file| ("events", file));
    Ok(lake.name_unreadable(failure, events.chain(lake.unit_table_files()?)).await)
}

/// Returns the days by which events may be before or after the date of their folder.
fn days_after_folder(config: &Config) -> Duration {
    Duration::days(2 + i64::from(config.lake.time_tolerance_hours) / 24)
}

/// Opens a session that plans the SQL of units over no event files.
async fn planning_session(base: &SessionContext, source: LakeSource<'_>, run_date: RunDate) -> Result<SessionContext> {
    let LakeSource { config, sql, lake } = source;
    let ctx = sibling(base);
    functions::register(&ctx, config, run_date)?;
    lake.register_unit(&ctx, Vec::new()).await?;
    rates::register_daily(&ctx, sql, lake).await?;
    register_no_known_ids(&ctx).await?;
    Ok(ctx)
}

/// Returns the schemas of the outputs.
async fn output_schemas(ctx: &SessionContext, sql: &SqlFiles) -> Result<BTreeMap<&'static str, SchemaRef>> {
    views::register(ctx, sql, &["rollups"]).await?;
    let mut schemas = BTreeMap::new();
    for output in OUTPUTS {
        schemas.insert(output, parquet_files::plain(ctx.table(output).await?.schema().as_arrow()));
    }
    Ok(schemas)
}

/// Registers `known_event_ids` without rows, as for the first unit of a lake.
pub(crate) async fn register_no_known_ids(ctx: &SessionContext) -> Result<()> {
    let none = "SELECT CAST(NULL AS VARCHAR) AS event_id, CAST(NULL AS DATE) AS event_day WHERE false";
    ctx.register_table("known_event_ids", ctx.sql(none).await?.into_view())?;
    Ok(())
}

const REASONS_SQL: &str =
    "SELECT CAST(reason AS VARCHAR) AS reason, count(*) AS n FROM unit_quarantine GROUP BY reason ORDER BY reason";
const CURRENCIES_SQL: &str =
    "SELECT currency, count(*) AS n FROM unit_event WHERE currency IS NOT NULL GROUP BY currency ORDER BY currency";

/// Returns names and counts of a query with these two columns.
async fn count_rows(ctx: &SessionContext, sql: &str) -> Result<Vec<(String, u64)>> {
    use arrow::array::AsArray;
    let mut rows = Vec::new();
    for batch in ctx.sql(sql).await?.collect().await? {
        let names = arrow::compute::cast(batch.column(0), &DataType::Utf8)?;
        let counts = batch.column(1).as_primitive::<arrow::datatypes::Int64Type>();
        for (name, n) in names.as_string::<i32>().iter().zip(counts.values()) {
            rows.push((name.unwrap_or_default().to_string(), *n as u64));
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::execution::FunctionRegistry;

    /// Functions of settings that rollups may call, as [`state_fingerprint`] has their settings. `read_at` is the exception: it
    /// only decides which times are in the future.
    #[rustfmt::skip]
    const FINGERPRINTED: [&str; 8] = [
        "arrival_kind", "partition_kind", "time_tolerance", "lake_first_at", "lake_currency", "price_max", "read_at", "masks_texts",
    ];

    #[test]
    fn rollups_call_only_settings_of_their_fingerprint() {
        let ctx = SessionContext::new();
        functions::register(&ctx, &Config::default(), "2026-03-01".parse().unwrap()).unwrap();
        let is_value = |name: &str| {
            let function = ctx.udf(name).ok();
            function.is_some_and(|function| {
                let function: &dyn std::any::Any = function.inner().as_ref();
                function.is::<functions::Constant>()
            })
        };
        assert!(FINGERPRINTED.into_iter().all(is_value), "FINGERPRINTED has a name that is no value of the session");
        let sql = SqlFiles::load(&Config::default()).unwrap();
        let lakes = sql.folders("lakes").into_iter().map(|lake| format!("lakes/{lake}"));
        for folder in lakes.chain(["rollups".into()]) {
            for (file, text) in sql.folder(&folder) {
                let word = |c: char| c.is_alphanumeric() || c == '_';
                let called =
                    text.match_indices("()").filter_map(|(at, _)| text[..at].rsplit(|c: char| !word(c)).next());
                let missing: Vec<&str> =
                    called.filter(|name| is_value(name) && !FINGERPRINTED.contains(name)).collect();
                assert!(
                    missing.is_empty(),
                    "sql/{folder}/{file}.sql calls {missing:?}, but rollups of another value would be reused\n\
                     hint: add the setting to state_fingerprint, then the name to FINGERPRINTED"
                );
            }
        }
    }
}
