//! Counts what is noteworthy about good rows of master data, for `runs`, the summary and the dry run.

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::prelude::SessionContext;
use std::collections::BTreeMap;

use crate::config::Config;
use crate::failure::Result;

/// Counts above zero, by view and finding (sql/state/master_findings.sql).
pub(crate) type MasterFindings = BTreeMap<String, BTreeMap<String, i64>>;

/// Reads master data and the days of items once; the session needs complete rollups.
pub(crate) async fn count(ctx: &SessionContext) -> Result<MasterFindings> {
    let sql = "SELECT view, finding, concerned FROM master_findings WHERE concerned > 0";
    let mut counts = MasterFindings::new();
    for batch in ctx.sql(sql).await?.collect().await? {
        let views = cast(batch.column(0), &DataType::Utf8)?;
        let findings = cast(batch.column(1), &DataType::Utf8)?;
        let concerned = batch.column(2).as_primitive::<Int64Type>();
        let rows = views.as_string::<i32>().iter().zip(findings.as_string::<i32>()).zip(concerned);
        for ((view, finding), concerned) in rows {
            let (Some(view), Some(finding), Some(concerned)) = (view, finding, concerned) else { continue };
            counts.entry(view.into()).or_default().insert(finding.into(), concerned);
        }
    }
    Ok(counts)
}

/// Notes how many user ids are not stitched because too many are connected.
pub(crate) fn note_unstitched(counts: &MasterFindings, config: &Config) -> Option<String> {
    let ids = counts.get("users")?.get("unstitched")?;
    let largest = config.lake.stitched_max;
    Some(format!("{ids} user ids are not stitched: more than lake.stitched_max = {largest} of them are connected"))
}

/// Writes counts as one line: `items: combined 3; users: combined 1, cycles 1`.
pub(crate) fn describe(counts: &MasterFindings) -> String {
    let views = counts.iter().map(|(view, findings)| {
        let findings: Vec<String> = findings.iter().map(|(finding, count)| format!("{finding} {count}")).collect();
        format!("{view}: {}", findings.join(", "))
    });
    views.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_one_line() {
        let of = |counts: &[(&str, i64)]| counts.iter().map(|(name, n)| (name.to_string(), *n)).collect();
        let counts = MasterFindings::from([
            ("items".to_string(), of(&[("combined", 3)])),
            ("users".to_string(), of(&[("combined", 1), ("cycles", 2)])),
        ]);
        assert_eq!(describe(&counts), "items: combined 3; users: combined 1, cycles 2");
    }
}
