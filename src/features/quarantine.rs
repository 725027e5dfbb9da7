//! The reasons for which an event is quarantined, each declared once with its meaning.
//!
//! `sql/rollups/checked_events.sql` decides which rows have a reason, and a test compares the two lists. A new reason is a
//! `WHEN … THEN '<reason>'` there and an entry here. The reference prints this list; `simulate --faults` plants rows for those
//! reasons that it knows. A change of the SQL rebuilds every rollup in the next night.

/// One reason of the table `quarantine`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reason {
    /// The value of `quarantine.reason`.
    pub(crate) name: &'static str,
    pub(crate) meaning: &'static str,
}

const fn reason(name: &'static str, meaning: &'static str) -> Reason {
    Reason { name, meaning }
}

/// Every reason; a row has the first that the SQL finds.
pub(crate) const REASONS: [Reason; 8] = [
    reason("null_time", "no readable time"),
    reason("unknown_event_type", "an event type that is not one of the eight known ones"),
    reason("time_in_future", "a time later than the night's start by more than lake.time_tolerance_hours"),
    reason(
        "time_outside_partition",
        "a time outside the day of the file's folder by more than lake.time_tolerance_hours",
    ),
    reason("negative_price", "a price below 0"),
    reason("nan_price", "a price that is not a number"),
    reason("infinite_price", "an infinite price"),
    reason("repeated_event_id", "an event_id that another event of the day has already"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::sql_files::SqlFiles;
    use std::collections::BTreeSet;

    #[test]
    fn the_sql_gives_exactly_the_declared_reasons() {
        let files = SqlFiles::load(&Config::default()).unwrap();
        let sql = files.get("rollups/checked_events").unwrap();
        let after_then = sql.split("THEN '").skip(1).filter_map(|rest| rest.split('\'').next());
        let given: BTreeSet<&str> = after_then.collect();
        let declared: BTreeSet<&str> = REASONS.iter().map(|reason| reason.name).collect();
        assert_eq!(given, declared, "compare sql/rollups/checked_events.sql with src/features/quarantine.rs");
        assert_eq!(declared.len(), REASONS.len(), "a reason is declared twice");
    }
}
