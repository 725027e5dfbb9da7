//! Counts what a session's plans read: scans, rows and bytes of each table's Parquet files.
//!
//! Seconds differ from machine to machine; these counts do not, so tests and reports compare them to find work done twice.

use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use serde::Serialize;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Scans, rows and bytes of one table in all plans.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ScanFigures {
    /// Number of scans: a plan that reads the table in two places has two.
    pub(crate) scans: u64,
    /// Rows that left the scans: those of skipped row groups and filtered ones are not counted.
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// Figures by table of a session and all sessions that share its settings.
#[derive(Debug, Default)]
pub(super) struct Scans(Mutex<BTreeMap<String, ScanFigures>>);

/// Adds what an executed plan read in this process.
pub(crate) fn add(ctx: &SessionContext, plan: &Arc<dyn ExecutionPlan>) {
    let Some(scans) = ctx.copied_config().get_extension::<Scans>() else { return };
    let mut figures = scans.0.lock().unwrap_or_else(PoisonError::into_inner);
    add_scans(plan, &mut figures);
}

fn add_scans(plan: &Arc<dyn ExecutionPlan>, figures: &mut BTreeMap<String, ScanFigures>) {
    let node: &dyn Any = plan.as_ref();
    if let Some(scan) = node.downcast_ref::<DataSourceExec>() {
        let source: &dyn Any = scan.data_source().as_ref();
        let files = source.downcast_ref::<FileScanConfig>().map(|config| &config.file_groups);
        let first = files.and_then(|groups| groups.iter().flat_map(|group| group.iter()).next());
        if let (Some(file), Some(metrics)) = (first, plan.metrics()) {
            let table = figures.entry(table_of(file.object_meta.location.as_ref())).or_default();
            table.scans += 1;
            table.rows += metrics.output_rows().unwrap_or(0) as u64;
            table.bytes += metrics.sum_by_name("bytes_scanned").map_or(0, |bytes| bytes.as_usize()) as u64;
        }
    }
    plan.children().into_iter().for_each(|child| add_scans(child, figures));
}

/// Returns the figures so far.
pub(crate) fn figures(ctx: &SessionContext) -> BTreeMap<String, ScanFigures> {
    let scans = ctx.copied_config().get_extension::<Scans>();
    scans.map_or_else(BTreeMap::new, |scans| scans.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Returns the table of a file: state files begin with its name (`unit_event-p0-…`); other files are in its folder.
fn table_of(path: &str) -> String {
    let (folders, file) = path.rsplit_once('/').unwrap_or(("", path));
    let written = file.split_once("-p").map(|(name, _)| name);
    // Published files begin with their generation, `g3`.
    let is_generation = |name: &str| name.strip_prefix('g').is_some_and(|rest| rest.parse::<u64>().is_ok());
    match written {
        Some(name) if name != "part" && !is_generation(name) => name.into(),
        _ => folders.rsplit('/').find(|folder| !folder.contains('=')).unwrap_or(folders).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::table_of;

    #[test]
    fn a_file_belongs_to_the_table_that_its_name_or_folder_names() {
        for (path, table) in [
            ("out/state/rollups/ab/units/cd/unit_event-p0-0-1f.parquet", "unit_event"),
            ("out/state/features/2026-03-01/ab/user_features/user_features-p1-0-1f.parquet", "user_features"),
            ("out/tables/intent/run_date=2026-03-01/g3-p0-0-1f.parquet", "intent"),
            ("lake/events/dt=2026-03-01/part-00000.parquet", "events"),
            ("lake/items/items.parquet", "items"),
        ] {
            assert_eq!(table_of(path), table, "{path}");
        }
    }
}
