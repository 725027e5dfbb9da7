//! Rollup units: the contribution of a set of event files to users' and items' days, computed once and stored.
//!
//! A unit is a set of event files of one month (at most [`UNIT_BYTES_MAX`]), read by one run. Its outputs are stored under
//! `state/rollups/<fingerprint of SQL and settings>/units/<id>/`; a manifest, written last and only if absent, makes a
//! run's units count. A later run reuses every unit whose files are all unchanged and rolls up only files that no unit
//! covers: a late file becomes a unit of its own, and a changed or removed file invalidates its unit. Rows carry event day
//! and arrival day and merge exactly, so the assignment of files to units changes no feature.

use arrow::datatypes::{DataType, SchemaRef};
use chrono::{Datelike, Duration, NaiveDate};
use datafusion::prelude::SessionContext;
use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::lake_source::{LakeSource, sibling};
use super::quarantine::OTHER_CURRENCY;
use super::{functions, views};
use crate::config::{Config, Partition};
use crate::failure::{Failure, Result};
use crate::ids::{ContentHash, RunDate};
use crate::lake::{files_table, files_table::ListedFile, fingerprint, parquet_files, register_files, stores::Location};
use crate::sql_files::SqlFiles;
use crate::tables::materialise;

/// Source bytes above which a month is split into several units; bounds the memory of one rollup's sort.
const UNIT_BYTES_MAX: u64 = 32 << 20;

/// The outputs of a unit, by the SQL file that makes each.
const OUTPUTS: [&str; 4] = ["unit_event", "unit_quarantine", "unit_user_day", "unit_item_day"];

/// One stored unit: its source files with fingerprints, its outputs with their sizes, and its counts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Unit {
    pub(crate) id: String,
    pub(crate) first_dt: Option<NaiveDate>,
    pub(crate) last_dt: Option<NaiveDate>,
    /// Path and fingerprint of each source file.
    pub(crate) sources: BTreeMap<String, String>,
    /// The files of each output.
    pub(crate) outputs: BTreeMap<String, Vec<OutputFile>>,
    pub(crate) rows: u64,
    pub(crate) quarantined: BTreeMap<String, u64>,
    /// Good rows with a price, by currency; rows without a currency are not counted.
    #[serde(default)]
    pub(crate) currencies: BTreeMap<String, u64>,
    /// True for a unit that was built for one read-only session and is not stored below the output.
    #[serde(skip)]
    of_this_session: bool,
}

/// One file of a unit, named relative to the unit's folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OutputFile {
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

/// Counts of what a night read and skipped.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ReadReport {
    pub files_read: u64,
    pub bytes_read: u64,
    pub(crate) files_skipped: u64,
    pub(crate) bytes_skipped: u64,
    /// Objects below the folders of the lake's views that are no data, by reason.
    pub(crate) files_ignored: BTreeMap<String, u64>,
    pub rows_read: u64,
    pub(crate) units_built: u64,
    pub units_kept: u64,
    /// Bad rows of the newly read files, by reason.
    pub quarantined: BTreeMap<String, u64>,
}

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
        let mut stored = Rollups {
            units: Vec::new(),
            report: ReadReport::default(),
            schemas: output_schemas(ctx, source, run_date).await?,
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

    /// Hashes every source file behind the night, those of units to build included.
    pub(crate) fn input_fingerprint(&self) -> String {
        let to_build = self.files().map(|f| (f.meta.location.to_string(), fingerprint(&f.meta)));
        let stored = self.stored.units.iter().flat_map(|u| u.sources.clone());
        fingerprint_sources(&stored.chain(to_build).collect())
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
        let mut built = Vec::new();
        for files in self.to_build {
            let unit = rollups.build(ctx, source, run_date, files).await?;
            rollups.units.push(unit.clone());
            built.push(unit);
        }
        rollups.report.refuse_bad_share(source.config.lake.quarantine_share_max)?;
        rollups.refuse_mixed_currencies(source.config)?;
        Ok((rollups, built))
    }

    fn files(&self) -> impl Iterator<Item = &ListedFile> {
        self.to_build.iter().flatten()
    }
}

impl ReadReport {
    /// Fails (exit 4) where more than `share_max` of the newly read rows are bad.
    fn refuse_bad_share(&self, share_max: f64) -> Result<()> {
        let foreign = self.quarantined.get(OTHER_CURRENCY).copied().unwrap_or_default();
        let mut bad: u64 = self.quarantined.values().sum();
        // Such rows are normal in a shop that also sells abroad; where they are the majority, the setting is wrong.
        if 2 * foreign <= self.rows_read {
            bad -= foreign;
        }
        let share = bad as f64 / self.rows_read.max(1) as f64;
        if share <= share_max {
            return Ok(());
        }
        let reasons: Vec<String> = self.quarantined.iter().map(|(reason, rows)| format!("{reason}: {rows}")).collect();
        Err(Failure::check(format!(
            "{:.2} % of {} newly read rows are bad ({}), more than lake.quarantine_share_max = {:.2} %; nothing was stored",
            share * 100.0,
            self.rows_read,
            reasons.join(", "),
            share_max * 100.0
        ))
        .hint("fix the files or raise the share, then run the same command again"))
    }
}

impl Rollups {
    /// Loads the stored units whose files are all there unchanged; returns the files that none covers.
    async fn load_units(&mut self, files: &[ListedFile]) -> Result<Vec<ListedFile>> {
        let now: HashMap<String, String> =
            files.iter().map(|f| (f.meta.location.to_string(), fingerprint(&f.meta))).collect();
        let mut found: Vec<Unit> = Vec::new();
        for manifest in self.location.folder("manifests").list().await? {
            let bytes = self.location.store.get(&manifest.location).await?.bytes().await?;
            let units: Vec<Unit> = serde_json::from_slice(&bytes).map_err(|e| {
                Failure::input(format!("{}: damaged state manifest: {e}", self.location.display(&manifest.location)))
                    .hint("delete this manifest; its units are then rolled up again")
            })?;
            found.extend(units);
        }
        self.units = choose_units(found, &now);
        let covered: HashSet<&str> = self.units.iter().flat_map(|u| u.sources.keys().map(String::as_str)).collect();
        let uncovered = files.iter().filter(|f| !covered.contains(f.meta.location.as_ref())).cloned().collect();
        self.report.units_kept = self.units.len() as u64;
        Ok(uncovered)
    }

    async fn build(
        &mut self,
        base: &SessionContext,
        source: LakeSource<'_>,
        run_date: RunDate,
        files: Vec<ListedFile>,
    ) -> Result<Unit> {
        let LakeSource { config, sql, lake } = source;
        let sources: BTreeMap<String, String> =
            files.iter().map(|f| (f.meta.location.to_string(), fingerprint(&f.meta))).collect();
        let id = ContentHash::from_bytes(format!("{sources:?}")).short();
        let (first_dt, last_dt) = (files.iter().filter_map(|f| f.dt).min(), files.iter().filter_map(|f| f.dt).max());
        self.report.files_read += files.len() as u64;
        self.report.bytes_read += files.iter().map(|f| f.meta.size).sum::<u64>();

        let ctx = sibling(base);
        functions::register(&ctx, config, run_date)?;
        lake.register_view(&ctx, "events", files.clone()).await?;
        self.register_known_ids(&ctx, config, first_dt, last_dt).await?;
        let checked = ctx.sql(sql.get("rollups/checked_events")?).await.map_err(|e| at("checked_events", e))?;
        ctx.register_table("checked_events", checked.into_view())?;

        let mut unit = Unit {
            id,
            first_dt,
            last_dt,
            sources,
            outputs: BTreeMap::new(),
            rows: 0,
            quarantined: BTreeMap::new(),
            currencies: BTreeMap::new(),
            of_this_session: self.session_location.is_some(),
        };
        for output in OUTPUTS {
            let rows = ctx.sql(sql.get(&format!("rollups/{output}"))?).await.map_err(|e| at(output, e))?;
            let folder = self.folder(&unit)?.folder(&format!("units/{}", unit.id));
            let written = materialise::write(&ctx, output, rows, &folder).await;
            let written = match written {
                Err(failure) => {
                    let failure = failure.at(format!("sql/rollups/{output}.sql"));
                    return Err(lake.name_unreadable(failure, files.iter().map(|file| ("events", file))).await);
                }
                Ok((_, written)) => written,
            };
            let count: u64 = written.iter().map(|f| f.rows as u64).sum();
            let written = written.into_iter().map(|f| OutputFile { name: f.path, bytes: f.bytes as u64 });
            unit.outputs.insert(output.into(), written.collect());
            if output != "unit_user_day" && output != "unit_item_day" {
                unit.rows += count;
                self.register_output(&ctx, output, output, std::slice::from_ref(&unit))?;
            }
        }
        unit.currencies = count_rows(&ctx, CURRENCIES_SQL).await?.into_iter().collect();
        for (reason, rows) in count_rows(&ctx, REASONS_SQL).await? {
            *self.report.quarantined.entry(reason.clone()).or_default() += rows;
            unit.quarantined.insert(reason, rows);
        }
        self.report.rows_read += unit.rows;
        self.report.units_built += 1;
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
        let margin = Duration::days(2 + i64::from(config.lake.time_tolerance_hours) / 24);
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
            "set `lake.currency = \"{most}\"`: rows in another currency are then quarantined as {OTHER_CURRENCY}; or convert \
             the prices in the lake's events.sql"
        )))
    }

    /// Registers `unit_event`, `unit_user_day`, `unit_item_day` and `unit_quarantine` over all units.
    pub(crate) fn register(&self, ctx: &SessionContext) -> Result<()> {
        OUTPUTS.iter().try_for_each(|output| self.register_output(ctx, output, output, &self.units))
    }

    /// Hashes every source file behind the night.
    pub(crate) fn input_fingerprint(&self) -> String {
        fingerprint_sources(&self.units.iter().flat_map(|u| u.sources.clone()).collect())
    }
}

/// Chooses stored units whose files are all there unchanged, so that no file is covered twice; `now` gives each file's path and
/// fingerprint. The unit of most files wins: a night of an earlier date leaves a unit of a part of another unit's files, and
/// later nights must read what they read before, whatever the order in which the store lists the manifests.
fn choose_units(mut found: Vec<Unit>, now: &HashMap<String, String>) -> Vec<Unit> {
    found.sort_by(|a, b| b.sources.len().cmp(&a.sources.len()).then_with(|| a.id.cmp(&b.id)));
    let mut covered: HashSet<String> = HashSet::new();
    let mut chosen = Vec::new();
    for unit in found {
        let is_whole = unit.sources.iter().all(|(path, tag)| now.get(path) == Some(tag));
        if is_whole && unit.sources.keys().all(|path| !covered.contains(path)) {
            covered.extend(unit.sources.keys().cloned());
            chosen.push(unit);
        }
    }
    chosen
}

fn fingerprint_sources(sources: &BTreeMap<String, String>) -> String {
    ContentHash::from_bytes(format!("{sources:?}")).short()
}

fn list_output(location: &Location, units: &[&Unit], output: &str) -> Vec<ListedFile> {
    let mut listed = Vec::new();
    for unit in units {
        for file in unit.outputs.get(output).into_iter().flatten() {
            let path = location.path(&format!("units/{}/{}", unit.id, file.name));
            listed.push(parquet_files::listed(location, path, file.bytes, unit.last_dt));
        }
    }
    listed
}

fn at(output: &str, error: datafusion::error::DataFusionError) -> Failure {
    Failure::from(error).at(format!("sql/rollups/{output}.sql"))
}

/// Hashes everything but the files that rollups depend on: their SQL, the lake's SQL, and the settings and constants that change
/// rows. A test finds a setting that the SQL reads and this lacks.
fn state_fingerprint(config: &Config, sql: &SqlFiles) -> String {
    let lake = format!("lakes/{}", config.lake.name);
    let text = format!(
        "3\0{}\0{}\0{}\0{:?}\0{:?}\0{}\0{}\0{}\0{}",
        sql.fingerprint(&["rollups", "lakes/canonical", &lake]),
        config.lake.uri.trim_end_matches('/'),
        config.lake.time_zone,
        config.lake.partition,
        config.lake.arrival,
        config.lake.time_tolerance_hours,
        config.lake.first_date,
        config.lake.currency,
        functions::PRICE_MAX,
    );
    ContentHash::from_bytes(text).short()
}

/// Groups files by month in date order, split at [`UNIT_BYTES_MAX`].
fn group(mut files: Vec<ListedFile>) -> Vec<Vec<ListedFile>> {
    files.sort_by(|a, b| (a.dt, &a.meta.location).cmp(&(b.dt, &b.meta.location)));
    let month = |f: &ListedFile| f.dt.map(|d| (d.year(), d.month()));
    let mut groups: Vec<Vec<ListedFile>> = Vec::new();
    let mut bytes = 0;
    for file in files {
        let fits = bytes + file.meta.size <= UNIT_BYTES_MAX;
        match groups.last_mut() {
            Some(group) if fits && group.last().map(month) == Some(month(&file)) => {
                bytes += file.meta.size;
                group.push(file);
            }
            _ => {
                bytes = file.meta.size;
                groups.push(vec![file]);
            }
        }
    }
    groups
}

/// Plans the outputs' SQL over no files and returns their schemas.
async fn output_schemas(
    base: &SessionContext,
    source: LakeSource<'_>,
    run_date: RunDate,
) -> Result<BTreeMap<&'static str, SchemaRef>> {
    let LakeSource { config, sql, lake } = source;
    let ctx = sibling(base);
    functions::register(&ctx, config, run_date)?;
    lake.register_view(&ctx, "events", Vec::new()).await?;
    register_no_known_ids(&ctx).await?;
    views::register(&ctx, sql, &["rollups"]).await?;
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

    fn unit(days: std::ops::Range<u32>) -> Unit {
        Unit {
            id: format!("{days:?}"),
            first_dt: None,
            last_dt: None,
            sources: days.map(|day| (format!("dt={day}"), "tag".to_string())).collect(),
            outputs: BTreeMap::new(),
            rows: 0,
            quarantined: BTreeMap::new(),
            currencies: BTreeMap::new(),
            of_this_session: false,
        }
    }

    /// Functions of settings that rollups may call, as [`state_fingerprint`] has their settings. `read_at` is the exception: it
    /// only decides which times are in the future.
    const FINGERPRINTED: [&str; 7] =
        ["arrival_kind", "partition_kind", "time_tolerance", "lake_first_at", "lake_currency", "price_max", "read_at"];

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

    #[test]
    fn units_of_a_backfilled_date_never_replace_larger_ones() {
        let now = (1..26).map(|day| (format!("dt={day}"), "tag".to_string())).collect();
        // The night of day 12 ran last. Any order of listing gives the same units, and every file stays covered.
        let orders = [[unit(1..21), unit(21..26), unit(1..12)], [unit(1..12), unit(21..26), unit(1..21)]];
        for found in orders {
            let chosen: Vec<String> = choose_units(found.to_vec(), &now).into_iter().map(|u| u.id).collect();
            assert_eq!(chosen, ["1..21", "21..26"]);
        }
    }
}
