//! Past dates as of which items are read, and the purposes of each: training, calibration, test, and sales of new items. A
//! date that serves several purposes is read once.

use std::collections::BTreeMap;

use super::split::past_dates;
use crate::config::Config;
use crate::ids::RunDate;

/// Dates whose new items are used. New items of one season sell unlike those of another: with more dates the quantiles
/// fit the last weeks less well, with fewer they rest on too few items. On Online Retail II, at 29 dates a week apart,
/// q90 covered 0.89 of the days with four dates, 0.86 with six, and 0.84 with dates as far back as those of the other
/// items; the pinball loss was lowest with three or four.
const NEW_ITEM_DATES: u32 = 4;
/// Dates closer than a week would miss some weekdays.
const NEW_ITEM_STEP_DAYS_MIN: u32 = 7;
/// Calibration dates together get this fraction (one in so many) of `train.rows_max`.
const CALIBRATION_FRACTION: u32 = 20;

/// Purposes of a date: the most items for each, drawn where there are more; 0 where the date does not serve it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ItemPurposes {
    pub(crate) train: u32,
    /// As of dates a horizon apart, between the training dates and the newest date. No member is trained on them before its
    /// figures are known.
    pub(crate) calibration: u32,
    /// The newest date, whose horizon begins where those of the calibration dates end.
    pub(crate) test: u32,
    /// New items whose horizons end where that of the test date begins.
    pub(crate) new_before_test: u32,
    /// New items as of the newest dates of all.
    pub(crate) new_newest: u32,
}

/// The limit on the items of one purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ItemLimit {
    pub(crate) items_max: u32,
    /// Only new items are wanted.
    pub(crate) new_only: bool,
}

impl ItemPurposes {
    /// The limit of each purpose, in the order of the fields.
    pub(crate) fn limits(&self) -> [ItemLimit; 5] {
        let all = |items_max: u32| ItemLimit { items_max, new_only: false };
        let new = |items_max: u32| ItemLimit { items_max, new_only: true };
        [all(self.train), all(self.calibration), all(self.test), new(self.new_before_test), new(self.new_newest)]
    }
}

/// Dates with known labels before `end`, in a lake whose first day with an item is `first_day`. In the first weeks of a
/// lake nothing is known of the time before, and every item is new: training dates go back that far only where the lake is too young
/// for others.
pub(crate) fn item_as_of_dates(end: RunDate, first_day: RunDate, config: &Config) -> BTreeMap<RunDate, ItemPurposes> {
    let train = &config.train;
    let demand = &config.demand;
    let horizon = demand.horizon_days;
    let newest = end.plus_days(-i64::from(horizon));
    let first_with_history = first_day.plus_days((demand.history_days / 2).into());
    let has_history = |as_of: RunDate| as_of >= first_with_history;
    let mut dates: BTreeMap<RunDate, ItemPurposes> = BTreeMap::new();
    dates.entry(newest).or_default().test = train.rows_max;

    // Calibration gets at most half of the days on which a date with history and a whole horizon can be.
    let days = (newest.0 - first_with_history.0).num_days() - i64::from(horizon);
    let calibration_dates = demand.calibration_dates.min((days.max(0) / (2 * i64::from(horizon))) as u32);
    for as_of in past_dates(newest, horizon, horizon, calibration_dates) {
        dates.entry(as_of).or_default().calibration = train.rows_max / CALIBRATION_FRACTION / calibration_dates;
    }

    let trained_until = newest.plus_days(-i64::from(horizon) * i64::from(calibration_dates));
    let training_dates = demand.as_of_dates.max(1);
    let training_days = days - i64::from(horizon) * i64::from(calibration_dates);
    let step_days = training_step_days(training_days, training_dates).unwrap_or(train.as_of_step_days);
    for as_of in past_dates(trained_until, horizon, step_days, training_dates) {
        dates.entry(as_of).or_default().train = train.rows_max / training_dates;
    }

    // The step is as long as an item counts as new, so that each is read once.
    let step = demand.history_days_min.max(NEW_ITEM_STEP_DAYS_MIN);
    let skipped = horizon.div_ceil(step);
    for place in 0..skipped + NEW_ITEM_DATES {
        let as_of = newest.plus_days(-i64::from(place) * i64::from(step));
        let before_test = skipped <= place;
        let among_newest = place < NEW_ITEM_DATES;
        if (before_test || among_newest) && has_history(as_of) {
            let purposes = dates.entry(as_of).or_default();
            let items_max = |wanted: bool| if wanted { train.rows_max / NEW_ITEM_DATES } else { 0 };
            purposes.new_before_test = items_max(before_test);
            purposes.new_newest = items_max(among_newest);
        }
    }
    dates
}

/// Days between two of `dates` that are spread over `days`: not whole weeks, so that all weekdays are among seven dates. `None` where
/// there are too few days.
fn training_step_days(days: i64, dates: u32) -> Option<u32> {
    let step = u32::try_from(days).ok()? / (dates - 1).max(1);
    match step {
        0 => None,
        step if step % 7 == 0 => Some(step - 1),
        step => Some(step),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dates(first_day: &str) -> Vec<(String, ItemPurposes)> {
        let mut config = Config::default();
        config.train.rows_max = 2400;
        config.train.as_of_step_days = 7;
        config.demand.horizon_days = 28;
        config.demand.history_days = 112;
        config.demand.history_days_min = 14;
        (config.demand.as_of_dates, config.demand.calibration_dates) = (3, 3);
        let dates = item_as_of_dates("2026-05-01".parse().unwrap(), first_day.parse().unwrap(), &config);
        dates.into_iter().map(|(as_of, purposes)| (as_of.to_string(), purposes)).collect()
    }

    #[test]
    fn purposes_have_separate_horizons_and_may_share_a_date() {
        let none = ItemPurposes::default();
        let wanted = [
            ("2025-02-27", ItemPurposes { train: 800, ..none }),
            ("2025-07-21", ItemPurposes { train: 800, ..none }),
            ("2025-12-12", ItemPurposes { train: 800, ..none }),
            ("2026-01-09", ItemPurposes { calibration: 40, ..none }),
            ("2026-01-23", ItemPurposes { new_before_test: 600, ..none }),
            ("2026-02-06", ItemPurposes { calibration: 40, new_before_test: 600, ..none }),
            ("2026-02-20", ItemPurposes { new_before_test: 600, new_newest: 600, ..none }),
            ("2026-03-06", ItemPurposes { calibration: 40, new_before_test: 600, new_newest: 600, ..none }),
            ("2026-03-20", ItemPurposes { new_newest: 600, ..none }),
            ("2026-04-03", ItemPurposes { test: 2400, new_newest: 600, ..none }),
        ];
        assert_eq!(dates("2025-01-01"), wanted.map(|(as_of, purposes)| (as_of.to_string(), purposes)));
    }

    #[test]
    fn a_younger_lake_calibrates_on_fewer_dates() {
        let used_for = |first_day: &str, wanted: fn(&ItemPurposes) -> u32| {
            let dates = dates(first_day);
            let dates = dates.iter().filter(|(_, purposes)| wanted(purposes) > 0);
            dates.map(|(as_of, _)| as_of.clone()).collect::<Vec<_>>()
        };
        // From 2025-12-25 on there is history: 71 days before the newest date that a training date can be.
        let first_day = "2025-10-30";
        assert_eq!(used_for(first_day, |purposes| purposes.calibration), ["2026-03-06"]);
        assert_eq!(used_for(first_day, |purposes| purposes.train), ["2025-12-28", "2026-01-17", "2026-02-06"]);
        // Too young for any: the dates that there are, a week apart.
        let first_day = "2026-01-20";
        assert_eq!(used_for(first_day, |purposes| purposes.calibration), [""; 0]);
        assert_eq!(used_for(first_day, |purposes| purposes.train), ["2026-02-20", "2026-02-27", "2026-03-06"]);
    }

    #[test]
    fn training_dates_are_on_all_weekdays() {
        assert_eq!(training_step_days(280, 8), Some(40));
        assert_eq!(training_step_days(294, 8), Some(41), "42 days would be six weeks");
        assert_eq!(training_step_days(49, 8), Some(6));
        assert_eq!(training_step_days(6, 8), None);
        assert_eq!(training_step_days(-5, 8), None);
        assert_eq!(training_step_days(100, 1), Some(100));
    }
}
