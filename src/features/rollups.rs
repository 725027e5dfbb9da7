//! Rollup units: what a set of event files contributes, computed once and kept.
//!
//! A unit is a set of event files of one month (at most [`UNIT_BYTES_MAX`]), taken in by one run. Its outputs lie under
//! `state/rollups/<fingerprint of SQL and settings>/units/<id>/`; a manifest, written last and only if absent, makes a
//! run's units count. A later run keeps every unit whose files are all unchanged and rolls up only what no unit covers:
//! a late file becomes a unit of its own, a changed or removed file costs its unit. Rows carry event day and arrival
//! day and merge exactly, so how files fell into units does not show in any feature.

use arrow::datatypes::{DataType, SchemaRef};
use chrono::{Datelike, Duration, NaiveDate};
use datafusion::prelude::SessionContext;
use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::{functions, sibling, views};
use crate::config::{Config, Partition};
use crate::failure::{Failure, Result};
use crate::ids::RunDate;
use crate::lake::{Lake, files_table::ListedFile, fingerprint, parquet_files, register_files, stores::Location};
use crate::sql_files::SqlFiles;
use crate::tables::materialise;

/// Source bytes above which a month is cut into several units: bounds what one rollup sorts.
const UNIT_BYTES_MAX: u64 = 32 << 20;

/// The outputs of a unit, by the SQL file that makes each.
const OUTPUTS: [&str; 4] = ["unit_event", "unit_quarantine", "unit_user_day", "unit_item_day"];

/// One kept unit: its source files with fingerprints, its outputs with their sizes, and its counts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Unit {
    pub id: String,
    pub first_dt: Option<NaiveDate>,
    pub last_dt: Option<NaiveDate>,
    /// Path and fingerprint of each source file.
    pub sources: BTreeMap<String, String>,
    /// The files of each output.
    pub outputs: BTreeMap<String, Vec<OutputFile>>,
    pub rows: u64,
    pub quarantined: BTreeMap<String, u64>,
}

/// One file of a unit, named relative to the unit's folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OutputFile {
    pub name: String,
    pub bytes: u64,
}

/// What a night read and what it did not have to.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ReadReport {
    pub files_read: u64,
    pub bytes_read: u64,
    pub files_skipped: u64,
    pub bytes_skipped: u64,
    pub rows_read: u64,
    pub units_built: u64,
    pub units_kept: u64,
    /// Bad rows of the newly read files, by reason.
    pub quarantined: BTreeMap<String, u64>,
}

/// The units that a night stands on.
#[derive(Debug)]
pub struct Rollups {
    pub units: Vec<Unit>,
    pub report: ReadReport,
    location: Location,
    schemas: BTreeMap<&'static str, SchemaRef>,
}

impl Rollups {
    /// Brings the kept units up to date with the lake's event files before `run_date`.
    pub async fn refresh(
        ctx: &SessionContext,
        config: &Config,
        sql: &SqlFiles,
        lake: &Lake,
        run_date: RunDate,
    ) -> Result<Self> {
        let (mut rollups, uncovered) = Self::open(ctx, config, sql, lake, run_date).await?;
        if uncovered.is_empty() {
            return Ok(rollups);
        }
        lake.check("events", &uncovered).await?;
        let mut built = Vec::new();
        for group in group(uncovered) {
            let unit = rollups.build(ctx, config, sql, lake, run_date, group).await?;
            rollups.units.push(unit.clone());
            built.push(unit);
        }
        let bad: u64 = rollups.report.quarantined.values().sum();
        let share = bad as f64 / rollups.report.rows_read.max(1) as f64;
        if share > config.lake.quarantine_share_max {
            return Err(Failure::check(format!(
                "{:.2} % of {} newly read rows are bad ({}), more than lake.quarantine_share_max = {:.2} %; nothing was kept",
                share * 100.0,
                rollups.report.rows_read,
                rollups.report.quarantined.iter().map(|(r, n)| format!("{r}: {n}")).collect::<Vec<_>>().join(", "),
                config.lake.quarantine_share_max * 100.0
            ))
            .hint("mend the files or raise the share, then run the same command again"));
        }
        let manifest = serde_json::to_vec(&built).map_err(Failure::bug)?;
        let name = format!("manifests/{}.json", &blake3::hash(&manifest).to_hex()[..16]);
        rollups.location.create(&name, manifest).await?;
        Ok(rollups)
    }

    /// What [`Self::refresh`] would read: the kept units, and a report of what would be built. Opens the new files'
    /// footers only, to refuse the ones that the night would refuse.
    pub async fn plan(
        ctx: &SessionContext,
        config: &Config,
        sql: &SqlFiles,
        lake: &Lake,
        run_date: RunDate,
    ) -> Result<Self> {
        let (mut rollups, uncovered) = Self::open(ctx, config, sql, lake, run_date).await?;
        lake.check("events", &uncovered).await?;
        rollups.report.files_read = uncovered.len() as u64;
        rollups.report.bytes_read = uncovered.iter().map(|f| f.meta.size).sum();
        rollups.report.units_built = group(uncovered).len() as u64;
        Ok(rollups)
    }

    /// The kept units, and the files that none of them covers.
    async fn open(
        ctx: &SessionContext,
        config: &Config,
        sql: &SqlFiles,
        lake: &Lake,
        run_date: RunDate,
    ) -> Result<(Self, Vec<ListedFile>)> {
        let output = Location::open(&config.output.uri, &config.s3)?;
        let location = output.folder(&format!("state/rollups/{}", state_fingerprint(config, sql)));
        let mut rollups = Self {
            units: Vec::new(),
            report: ReadReport::default(),
            schemas: output_schemas(ctx, config, sql, lake, run_date).await?,
            location,
        };
        let uncovered = rollups.keep_units(&lake.event_files(run_date)).await?;
        let bytes = |files: &[ListedFile]| files.iter().map(|f| f.meta.size).sum::<u64>();
        rollups.report.files_skipped = (lake.files("events").len() - uncovered.len()) as u64;
        rollups.report.bytes_skipped = bytes(lake.files("events")) - bytes(&uncovered);
        Ok((rollups, uncovered))
    }

    /// Takes over the kept units whose files are all there unchanged; returns the files that none covers.
    async fn keep_units(&mut self, files: &[ListedFile]) -> Result<Vec<ListedFile>> {
        let now: HashMap<String, String> =
            files.iter().map(|f| (f.meta.location.to_string(), fingerprint(&f.meta))).collect();
        let mut covered: HashSet<String> = HashSet::new();
        for manifest in self.location.folder("manifests").list().await? {
            let bytes = self.location.store.get(&manifest.location).await?.bytes().await?;
            let units: Vec<Unit> = serde_json::from_slice(&bytes).map_err(|e| {
                Failure::input(format!("{}: damaged state manifest: {e}", self.location.display(&manifest.location)))
                    .hint("delete this manifest; its units are then rolled up again")
            })?;
            for unit in units {
                let whole = unit.sources.iter().all(|(path, tag)| now.get(path) == Some(tag));
                if whole && unit.sources.keys().all(|path| !covered.contains(path)) {
                    covered.extend(unit.sources.keys().cloned());
                    self.units.push(unit);
                }
            }
        }
        self.report.units_kept = self.units.len() as u64;
        Ok(files.iter().filter(|f| !covered.contains(f.meta.location.as_ref())).cloned().collect())
    }

    async fn build(
        &mut self,
        base: &SessionContext,
        config: &Config,
        sql: &SqlFiles,
        lake: &Lake,
        run_date: RunDate,
        files: Vec<ListedFile>,
    ) -> Result<Unit> {
        let sources: BTreeMap<String, String> =
            files.iter().map(|f| (f.meta.location.to_string(), fingerprint(&f.meta))).collect();
        let id = blake3::hash(format!("{sources:?}").as_bytes()).to_hex()[..16].to_string();
        let (first_dt, last_dt) = (files.iter().filter_map(|f| f.dt).min(), files.iter().filter_map(|f| f.dt).max());
        self.report.files_read += files.len() as u64;
        self.report.bytes_read += files.iter().map(|f| f.meta.size).sum::<u64>();

        let ctx = sibling(base);
        functions::register(&ctx, config, run_date)?;
        lake.register_view(&ctx, "events", files.clone()).await?;
        self.register_known_ids(&ctx, config, first_dt, last_dt).await?;
        let checked = ctx.sql(sql.get("rollups/checked_events")?).await.map_err(|e| at("checked_events", e))?;
        ctx.register_table("checked_events", checked.into_view())?;

        let mut unit =
            Unit { id, first_dt, last_dt, sources, outputs: BTreeMap::new(), rows: 0, quarantined: BTreeMap::new() };
        for output in OUTPUTS {
            let rows = ctx.sql(sql.get(&format!("rollups/{output}"))?).await.map_err(|e| at(output, e))?;
            let folder = self.location.folder(&format!("units/{}", unit.id));
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
                let table = std::slice::from_ref(&unit);
                register_files(
                    &ctx,
                    output,
                    &self.location,
                    Arc::clone(&self.schemas[output]),
                    self.listed(table, output),
                )?;
            }
        }
        for (reason, rows) in count_reasons(&ctx).await? {
            *self.report.quarantined.entry(reason.clone()).or_default() += rows;
            unit.quarantined.insert(reason, rows);
        }
        self.report.rows_read += unit.rows;
        self.report.units_built += 1;
        Ok(unit)
    }

    /// `known_event_ids`: ids of kept events on days that the new files may touch.
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
        register_files(
            ctx,
            "kept_event",
            &self.location,
            Arc::clone(&self.schemas["unit_event"]),
            self.listed(&units, "unit_event"),
        )?;
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

    fn listed(&self, units: &[Unit], output: &str) -> Vec<ListedFile> {
        let files = units.iter().flat_map(|u| u.outputs.get(output).into_iter().flatten().map(move |f| (u, f)));
        let listed = files.map(|(unit, file)| {
            let path = self.location.path(&format!("units/{}/{}", unit.id, file.name));
            parquet_files::listed(&self.location, path, file.bytes, unit.last_dt)
        });
        listed.collect()
    }

    /// Registers `unit_event`, `unit_user_day`, `unit_item_day` and `unit_quarantine` over all units.
    pub fn register(&self, ctx: &SessionContext) -> Result<()> {
        for output in OUTPUTS {
            let schema = Arc::clone(&self.schemas[output]);
            register_files(ctx, output, &self.location, schema, self.listed(&self.units, output))?;
        }
        Ok(())
    }

    /// A hash of every source file behind the night.
    pub fn input_fingerprint(&self) -> String {
        let sources: BTreeMap<_, _> = self.units.iter().flat_map(|u| &u.sources).collect();
        blake3::hash(format!("{sources:?}").as_bytes()).to_hex()[..16].to_string()
    }
}

fn at(output: &str, error: datafusion::error::DataFusionError) -> Failure {
    Failure::from(error).at(format!("sql/rollups/{output}.sql"))
}

/// What the rollups depend on besides the files: their SQL, the lake's SQL and the settings that change rows.
fn state_fingerprint(config: &Config, sql: &SqlFiles) -> String {
    let lake = format!("lakes/{}", config.lake.name);
    let text = format!(
        "2\0{}\0{}\0{}\0{:?}\0{:?}\0{}",
        sql.fingerprint(&["rollups", "lakes/canonical", &lake]),
        config.lake.uri.trim_end_matches('/'),
        config.lake.time_zone,
        config.lake.partition,
        config.lake.arrival,
        config.lake.time_tolerance_hours,
    );
    blake3::hash(text.as_bytes()).to_hex()[..16].to_string()
}

/// Files by month in date order, cut at [`UNIT_BYTES_MAX`].
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

/// The schemas of the outputs, from planning their SQL over no files.
async fn output_schemas(
    base: &SessionContext,
    config: &Config,
    sql: &SqlFiles,
    lake: &Lake,
    run_date: RunDate,
) -> Result<BTreeMap<&'static str, SchemaRef>> {
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

/// `known_event_ids` without rows: as for the very first unit of a lake.
pub async fn register_no_known_ids(ctx: &SessionContext) -> Result<()> {
    let none = "SELECT CAST(NULL AS VARCHAR) AS event_id, CAST(NULL AS DATE) AS event_day WHERE false";
    ctx.register_table("known_event_ids", ctx.sql(none).await?.into_view())?;
    Ok(())
}

async fn count_reasons(ctx: &SessionContext) -> Result<Vec<(String, u64)>> {
    use arrow::array::AsArray;
    let sql =
        "SELECT CAST(reason AS VARCHAR) AS reason, count(*) AS n FROM unit_quarantine GROUP BY reason ORDER BY reason";
    let mut reasons = Vec::new();
    for batch in ctx.sql(sql).await?.collect().await? {
        let names = arrow::compute::cast(batch.column(0), &DataType::Utf8)?;
        let counts = batch.column(1).as_primitive::<arrow::datatypes::Int64Type>();
        for (name, n) in names.as_string::<i32>().iter().zip(counts.values()) {
            reasons.push((name.unwrap_or_default().to_string(), *n as u64));
        }
    }
    Ok(reasons)
}
