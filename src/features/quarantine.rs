//! The reasons for which an event is quarantined, each declared once with its meaning.
//!
//! `sql/rollups/judged_events.sql`, `checked_events.sql` and `sql/master/` decide which rows have a reason, and a test compares the lists. A new reason is a
//! `WHEN … THEN '<reason>'` there and an entry here. The reference prints this list; `simulate --faults` plants rows for those
//! reasons that it knows. A change of the SQL rebuilds every rollup in the next night.

use super::erased_users::ERASED_USER;

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

/// The reason of prices in another currency than the lake's.
pub(crate) const OTHER_CURRENCY: &str = "other_currency";

/// Every reason; a row has the first that the SQL finds.
pub(crate) const REASONS: [Reason; 15] = [
    reason(ERASED_USER, "an erased person; counted in `runs` and not in this table"),
    reason("null_time", "no readable time or date"),
    reason("null_id", "a row of users, items, inventory or promotions without the id that it is about"),
    reason("time_too_early", "a time before lake.first_date, such as 1970-01-01 of a failed conversion"),
    reason("unknown_event_type", "an event type that is not one of the eight known ones"),
    reason("time_in_future", "a time later than the night's start by more than lake.time_tolerance_hours"),
    reason("arrival_in_future", "an arrival later than the night's start by more than lake.time_tolerance_hours"),
    reason(
        "time_outside_partition",
        "a time outside the day of the file's folder by more than lake.time_tolerance_hours",
    ),
    reason("negative_price", "a price below 0"),
    reason("nan_price", "a price that is not a number"),
    reason("infinite_price", "an infinite price"),
    reason(
        "out_of_range",
        "a number that no shop has, such as a price from 1e14, a negative dwell time or a service level of 95; `column_name` says \
         which column",
    ),
    reason("conflicting_rows", "inventory rows of one item and day that disagree in pack size, minimum order or cost"),
    reason(OTHER_CURRENCY, "a price in another currency than lake.currency, without an exchange rate"),
    reason("repeated_event_id", "an event_id that another event of the day has already"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::sql_files::SqlFiles;
    use std::collections::BTreeSet;

    /// The values of the `CASE`s that become a column `reason`, and the reason of rows without one.
    fn reasons_in(text: &str) -> Vec<&str> {
        let mut reasons: Vec<&str> =
            text.split(".reason, '").skip(1).filter_map(|rest| rest.split('\'').next()).collect();
        for (end, _) in text.match_indices("END AS ").filter(|(at, _)| {
            let name = &text[at + "END AS ".len()..];
            name.starts_with("reason") || name.starts_with("row_reason")
        }) {
            let case = &text[text[..end].rfind("CASE").unwrap()..end];
            reasons.extend(case.split("THEN '").skip(1).filter_map(|rest| rest.split('\'').next()));
        }
        reasons
    }

    #[test]
    fn the_sql_gives_exactly_the_declared_reasons() {
        let files = SqlFiles::load(&Config::default()).unwrap();
        let events = ["rollups/judged_events", "rollups/checked_events"].map(|file| files.get(file).unwrap());
        let given: BTreeSet<&str> =
            files.folder("master").map(|(_, text)| text).chain(events).flat_map(reasons_in).collect();
        let declared: BTreeSet<&str> = REASONS.iter().map(|reason| reason.name).collect();
        assert_eq!(
            given, declared,
            "compare sql/rollups/{{judged,checked}}_events.sql and sql/master/ with src/features/quarantine.rs"
        );
        assert_eq!(declared.len(), REASONS.len(), "a reason is declared twice");
    }
}
