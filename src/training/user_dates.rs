//! Past dates at which users are looked at, and what their labels are for at each.
//!
//! What a user did is known `intents.horizon_days` after a date, who left `intents.churn_days` after it: the newest weeks teach
//! intents before anybody can say who left. Each label is held out at the newest date where it is known, and learnt from at
//! older ones. The days that intents look at end where the held-out ones begin; churn looks further than the dates lie apart, so
//! its days reach into the held-out ones, of other users: without those dates churn was told worse.

use std::cmp::Ordering;

use super::sets::Split;
use crate::config::Config;
use crate::ids::RunDate;

/// What a label at a date is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelUse {
    /// For nothing: its days are not over.
    Unknown,
    /// The newest one that is known: of users who are not learnt from.
    HeldOut,
    Learnt,
}

impl LabelUse {
    /// Whether the label of users in a split is looked at.
    pub fn shows(self, split: Split) -> bool {
        match self {
            Self::Unknown => false,
            Self::HeldOut => split != Split::Train,
            Self::Learnt => split != Split::Test,
        }
    }
}

/// A past date with the uses of its labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserDate {
    pub as_of: RunDate,
    /// Of the intents, units and spend.
    pub intents: LabelUse,
    pub churn: LabelUse,
}

impl UserDate {
    /// Whether anything of users in a split is looked at.
    pub fn shows(&self, split: Split) -> bool {
        self.intents.shows(split) || self.churn.shows(split)
    }
}

/// The newest date: intents are known before `end`.
pub fn newest(end: RunDate, config: &Config) -> RunDate {
    end.plus_days(-i64::from(config.intents.horizon_days))
}

/// `train.as_of_dates` dates, newest first; fewer in a lake that began on `first_day`: with less than a step of history, features
/// tell the age of the lake. Whatever their number, at two of them churn is known, held out and learnt from.
pub fn of(end: RunDate, first_day: Option<RunDate>, config: &Config) -> Vec<UserDate> {
    let (train, intents) = (&config.train, &config.intents);
    let churn_days = intents.churn_days.max(intents.horizon_days);
    let step_days = train.as_of_step_days.max(intents.horizon_days);
    let at = |place: u32| newest(end, config).plus_days(-i64::from(place) * i64::from(step_days));
    let told = |place: &u32| first_day.is_none_or(|first| at(*place) >= first.plus_days(step_days.into()));
    // What is left over of a lake that is younger still is checked further on.
    let dates = ((0..train.as_of_dates).filter(told).count() as u32).max(2);
    let churn_held_out = (churn_days - intents.horizon_days).div_ceil(step_days);
    let mut places: Vec<u32> = (0..dates).collect();
    if dates < churn_held_out + 2 {
        places.truncate((dates as usize - 2).max(1));
        places.extend([churn_held_out, churn_held_out + 1]);
    }
    let used = |place: u32, held_out: u32| match place.cmp(&held_out) {
        Ordering::Less => LabelUse::Unknown,
        Ordering::Equal => LabelUse::HeldOut,
        Ordering::Greater => LabelUse::Learnt,
    };
    let date = |place| UserDate { as_of: at(place), intents: used(place, 0), churn: used(place, churn_held_out) };
    places.into_iter().map(date).collect()
}

#[cfg(test)]
mod tests {
    use super::LabelUse::{HeldOut, Learnt, Unknown};
    use super::*;

    const END: &str = "2026-06-01";

    fn dates(as_of_dates: u32, age_days: i64) -> Vec<(i64, LabelUse, LabelUse)> {
        let mut config = Config::default();
        config.train.as_of_dates = as_of_dates;
        let end: RunDate = END.parse().unwrap();
        let of = of(end, Some(end.plus_days(-age_days)), &config);
        of.iter().map(|date| ((end.0 - date.as_of.0).num_days(), date.intents, date.churn)).collect()
    }

    #[test]
    fn each_label_is_held_out_where_it_is_newest_and_learnt_where_it_is_older() {
        let dates = dates(6, 365);
        assert_eq!(dates.iter().map(|d| d.0).collect::<Vec<_>>(), [7, 14, 21, 28, 35, 42]);
        assert!(dates.iter().all(|&(ago, intents, _)| intents == if ago == 7 { HeldOut } else { Learnt }));
        let churn: Vec<_> = dates.iter().map(|d| d.2).collect();
        assert_eq!(churn, [Unknown, Unknown, Unknown, HeldOut, Learnt, Learnt]);
    }

    #[test]
    fn of_few_dates_or_a_young_lake_two_tell_who_left() {
        let last = [(28, Learnt, HeldOut), (35, Learnt, Learnt)];
        assert_eq!(dates(2, 365), [&[(7, HeldOut, Unknown)], last.as_slice()].concat());
        assert_eq!(dates(4, 365), [&[(7, HeldOut, Unknown), (14, Learnt, Unknown)], last.as_slice()].concat());
        assert_eq!(dates(12, 10), dates(2, 365), "the lake's age is refused elsewhere, by its users");
        assert_eq!(dates(12, 50).last(), Some(&(42, Learnt, Learnt)), "a week of history before it");
    }

    #[test]
    fn churn_that_looks_as_far_as_the_intents_is_held_out_with_them() {
        let mut config = Config::default();
        (config.intents.churn_days, config.train.as_of_dates) = (7, 3);
        let uses: Vec<_> = of(END.parse().unwrap(), None, &config).iter().map(|d| (d.intents, d.churn)).collect();
        assert_eq!(uses, [(HeldOut, HeldOut), (Learnt, Learnt), (Learnt, Learnt)]);
    }

    #[test]
    fn a_split_is_shown_what_it_is_for() {
        let shown = |of: LabelUse| [Split::Train, Split::Valid, Split::Test].map(|split| of.shows(split));
        assert_eq!(shown(HeldOut), [false, true, true]);
        assert_eq!(shown(Learnt), [true, true, false]);
        assert_eq!(shown(Unknown), [false; 3]);
    }
}
