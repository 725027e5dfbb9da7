//! Past dates as of which items are read, and what each is read for: to learn from, to calibrate on, to be tested on, and for
//! what new items sold. A date that serves several ends is read once.

use std::collections::BTreeMap;

use super::sets::past_dates;
use crate::config::Config;
use crate::ids::RunDate;

/// Dates whose new items are learnt from. New items of one season do not sell as those of another: with more dates the
/// quantiles fit the last weeks less well, with fewer they rest on too few items. On Online Retail II, at 29 dates a week
/// apart, q90 covered 0.89 of the days with four dates, 0.86 with six, and 0.84 with dates as far back as those of the
/// other items, and the pinball loss was the lowest with three or four.
const COHORTS: u32 = 4;
/// Dates less than a week apart would be read for the same weekdays.
const COHORT_STEP_DAYS_MIN: u32 = 7;
/// Of `train.rows_max`, what earlier dates are calibrated on.
const EARLIER_OF_ROWS: u32 = 20;

/// What a date's items are read for: of each end the most items, drawn where there are more; 0 where it is not for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ends {
    pub learnt: u32,
    /// As of dates a horizon apart, the newest of which ends where the oldest that is learnt from begins: no two have a day in
    /// common, and the network sees none of them.
    pub earlier: u32,
    /// The newest date, whose horizon begins where the others' end.
    pub held_out: u32,
    /// New items whose horizons end where the held-out one begins.
    pub new_before: u32,
    /// New items as of the newest dates of all.
    pub new_newest: u32,
}

impl Ends {
    /// In the order of their fields: the most items, and whether new ones alone.
    pub fn each(&self) -> [(u32, bool); 5] {
        let all = [self.learnt, self.earlier, self.held_out].map(|most| (most, false));
        let new = [self.new_before, self.new_newest].map(|most| (most, true));
        [all[0], all[1], all[2], new[0], new[1]]
    }
}

/// Dates before the labels' `end`, of a lake whose first day with an item is `first_day`. In a lake's first weeks nothing is
/// known of what came before, and every item is new to it: such dates are calibrated on only where they are learnt from too.
pub fn of(end: RunDate, first_day: RunDate, config: &Config) -> BTreeMap<RunDate, Ends> {
    let (train, demand) = (&config.train, &config.demand);
    let horizon = demand.horizon_days;
    let newest = end.plus_days(-i64::from(horizon));
    let has_history = |as_of: RunDate| (as_of.0 - first_day.0).num_days() >= i64::from(demand.history_days / 2);
    let mut dates: BTreeMap<RunDate, Ends> = BTreeMap::new();
    dates.entry(newest).or_default().held_out = train.rows_max;
    let count = demand.as_of_dates.max(1);
    for as_of in past_dates(newest, horizon, train.as_of_step_days, count) {
        dates.entry(as_of).or_default().learnt = train.rows_max / count;
    }
    let oldest = newest.plus_days(-i64::from(horizon) - i64::from(train.as_of_step_days) * i64::from(count - 1));
    let count = demand.calibration_dates;
    for as_of in past_dates(oldest, horizon, horizon, count).into_iter().take_while(|&as_of| has_history(as_of)) {
        dates.entry(as_of).or_default().earlier = train.rows_max / EARLIER_OF_ROWS / count;
    }
    // As far apart as an item is new, so that each is met once.
    let step = demand.history_days_min.max(COHORT_STEP_DAYS_MIN);
    let skipped = horizon.div_ceil(step);
    for at in 0..skipped + COHORTS {
        let as_of = newest.plus_days(-i64::from(at) * i64::from(step));
        if (skipped <= at || at < COHORTS) && has_history(as_of) {
            let ends = dates.entry(as_of).or_default();
            let most = |wanted: bool| if wanted { train.rows_max / COHORTS } else { 0 };
            (ends.new_before, ends.new_newest) = (most(skipped <= at), most(at < COHORTS));
        }
    }
    dates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dates(first_day: &str) -> Vec<(String, Ends)> {
        let mut config = Config::default();
        config.train.rows_max = 2400;
        config.train.as_of_step_days = 7;
        config.demand.horizon_days = 28;
        config.demand.history_days = 112;
        config.demand.history_days_min = 14;
        (config.demand.as_of_dates, config.demand.calibration_dates) = (2, 3);
        let dates = of("2026-05-01".parse().unwrap(), first_day.parse().unwrap(), &config);
        dates.into_iter().map(|(as_of, ends)| (as_of.to_string(), ends)).collect()
    }

    #[test]
    fn horizons_of_one_end_lie_before_those_of_the_next_and_a_date_may_serve_several() {
        let none = Ends::default();
        let wanted = [
            ("2025-12-05", Ends { earlier: 40, ..none }),
            ("2026-01-02", Ends { earlier: 40, ..none }),
            ("2026-01-23", Ends { new_before: 600, ..none }),
            ("2026-01-30", Ends { earlier: 40, ..none }),
            ("2026-02-06", Ends { new_before: 600, ..none }),
            ("2026-02-20", Ends { new_before: 600, new_newest: 600, ..none }),
            ("2026-02-27", Ends { learnt: 1200, ..none }),
            ("2026-03-06", Ends { learnt: 1200, new_before: 600, new_newest: 600, ..none }),
            ("2026-03-20", Ends { new_newest: 600, ..none }),
            ("2026-04-03", Ends { held_out: 2400, new_newest: 600, ..none }),
        ];
        assert_eq!(dates("2025-01-01"), wanted.map(|(as_of, ends)| (as_of.to_string(), ends)));
    }

    #[test]
    fn of_a_young_lake_no_date_is_calibrated_on_before_which_there_is_hardly_a_history() {
        // 56 days before 2026-01-30, so neither the two earlier ones nor the first of the new items.
        let dates = dates("2025-12-05");
        let of = |wanted: fn(&Ends) -> u32| {
            let dates = dates.iter().filter(|(_, ends)| wanted(ends) > 0);
            dates.map(|(as_of, _)| as_of.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(of(|ends| ends.earlier), ["2026-01-30"]);
        assert_eq!(of(|ends| ends.new_before), ["2026-02-06", "2026-02-20", "2026-03-06"]);
        assert_eq!(of(|ends| ends.learnt), ["2026-02-27", "2026-03-06"]);
    }
}
