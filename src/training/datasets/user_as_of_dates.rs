//! Past dates as of which users are read, and the use of their labels at each.
//!
//! The intents of a user are known `intents.horizon_days` after a date, churn only `intents.churn_days` after it, so the
//! newest weeks have intents before they have churn. Each label is held out at the newest date where it is known, and
//! trained on at older ones. The horizons of the intents end where the held-out ones begin. Churn looks further than the
//! dates are apart, so its horizons overlap the held-out ones, of other users: without those dates churn was predicted
//! worse.

use std::cmp::Ordering;

use super::split::Split;
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::ids::RunDate;

/// Use of a label at a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LabelUse {
    /// None: the label is not known yet.
    Unknown,
    /// Validation and test, at the newest date where the label is known.
    HeldOut,
    /// Training and validation.
    Train,
}

impl LabelUse {
    pub(crate) fn is_used_for(self, split: Split) -> bool {
        match self {
            Self::Unknown => false,
            Self::HeldOut => split != Split::Train,
            Self::Train => split != Split::Test,
        }
    }

    /// Returns whether the label of a user of this split is held out from training only because of the date: the published
    /// members learn from it once the figures are known.
    pub(crate) fn is_newest_for(self, split: Split) -> bool {
        self == Self::HeldOut && split == Split::Train
    }
}

/// A past date with the uses of its labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UserAsOfDate {
    pub(crate) as_of: RunDate,
    /// Use of the intents, units and spend.
    pub(crate) intents: LabelUse,
    pub(crate) churn: LabelUse,
}

impl UserAsOfDate {
    /// Returns whether any label of the training split is held out at this date.
    pub(crate) fn is_newest(&self) -> bool {
        self.intents.is_newest_for(Split::Train) || self.churn.is_newest_for(Split::Train)
    }

    /// Returns whether any label is used for a split.
    pub(crate) fn is_used_for(&self, split: Split) -> bool {
        self.intents.is_used_for(split) || self.churn.is_used_for(split)
    }
}

/// The newest date whose intents are known before `end`.
pub(crate) fn newest_as_of_date(end: RunDate, config: &Config) -> RunDate {
    end.plus_days(-i64::from(config.intents.horizon_days))
}

/// `train.as_of_dates` dates, newest first; fewer in a lake that began on `first_day`, because with less than a step of
/// history the features only show the age of the lake. There are always two dates with known churn, of which one is held
/// out.
pub(crate) fn user_as_of_dates(end: RunDate, first_day: Option<RunDate>, config: &Config) -> Vec<UserAsOfDate> {
    let train = &config.train;
    let intents = &config.intents;
    let churn_days = intents.churn_days.max(intents.horizon_days);
    let step_days = train.as_of_step_days.max(intents.horizon_days);
    let date_at = |place: u32| newest_as_of_date(end, config).plus_days(-i64::from(place) * i64::from(step_days));
    let has_history = |place: &u32| first_day.is_none_or(|first| date_at(*place) >= first.plus_days(step_days.into()));
    // A lake too young even for two dates is refused later, by its number of users.
    let dates = ((0..train.as_of_dates).filter(has_history).count() as u32).max(2);
    let churn_held_out = (churn_days - intents.horizon_days).div_ceil(step_days);
    let mut places: Vec<u32> = (0..dates).collect();
    if dates < churn_held_out + 2 {
        places.truncate((dates as usize - 2).max(1));
        places.extend([churn_held_out, churn_held_out + 1]);
    }
    let label_use = |place: u32, held_out: u32| match place.cmp(&held_out) {
        Ordering::Less => LabelUse::Unknown,
        Ordering::Equal => LabelUse::HeldOut,
        Ordering::Greater => LabelUse::Train,
    };
    let as_of_date = |place: u32| UserAsOfDate {
        as_of: date_at(place),
        intents: label_use(place, 0),
        churn: label_use(place, churn_held_out),
    };
    places.into_iter().map(as_of_date).collect()
}

/// Refuses a lake that is too young for these dates: one of them has no day before it. The hint names settings that fit.
pub(crate) fn require_history(
    end: RunDate,
    first_day: Option<RunDate>,
    dates: &[UserAsOfDate],
    config: &Config,
) -> Result<()> {
    let (Some(first), Some(oldest)) = (first_day, dates.iter().map(|date| date.as_of).min()) else { return Ok(()) };
    if oldest > first {
        return Ok(());
    }
    let age_days = (end.0 - first.0).num_days();
    let failure = Failure::input(format!(
        "training: the lake is too young: its first event is of {first}, {age_days} days before the training, and the oldest date \
         to learn from would be {oldest}"
    ));
    Err(failure.hint(match fitting_days(age_days, config) {
        Some((horizon, churn, step)) => format!(
            "train on a later --date, or look less far ahead: --set intents.horizon_days={horizon} --set intents.churn_days={churn} \
             --set train.as_of_step_days={step}"
        ),
        None => "train on a later --date: at least four days of events are needed".into(),
    }))
}

/// The longest horizon, then the longest horizon of churn, and the step of the dates that fit into a lake of this age, as far as the
/// configured ones; `None` where there are none.
fn fitting_days(age_days: i64, config: &Config) -> Option<(i64, i64, i64)> {
    // A held-out date, one to learn from a step before it, and a step of history before that.
    let horizon = i64::from(config.intents.horizon_days).min((age_days - 1) / 3);
    if horizon < 1 {
        return None;
    }
    let step = i64::from(config.train.as_of_step_days).min((age_days - 1 - horizon) / 2).max(horizon);
    let later_steps = (age_days - 1 - horizon - step).max(0) / step;
    let churn = i64::from(config.intents.churn_days).min(horizon + later_steps * step);
    Some((horizon, churn, step))
}

#[cfg(test)]
mod tests {
    use super::LabelUse::{HeldOut, Train, Unknown};
    use super::*;

    const END: &str = "2026-06-01";

    fn dates(as_of_dates: u32, age_days: i64) -> Vec<(i64, LabelUse, LabelUse)> {
        let mut config = Config::default();
        config.train.as_of_dates = as_of_dates;
        let end: RunDate = END.parse().unwrap();
        let dates = user_as_of_dates(end, Some(end.plus_days(-age_days)), &config);
        dates.iter().map(|date| ((end.0 - date.as_of.0).num_days(), date.intents, date.churn)).collect()
    }

    #[test]
    fn each_label_is_held_out_at_its_newest_known_date() {
        let dates = dates(6, 365);
        assert_eq!(dates.iter().map(|d| d.0).collect::<Vec<_>>(), [7, 14, 21, 28, 35, 42]);
        assert!(dates.iter().all(|&(ago, intents, _)| intents == if ago == 7 { HeldOut } else { Train }));
        let churn: Vec<_> = dates.iter().map(|d| d.2).collect();
        assert_eq!(churn, [Unknown, Unknown, Unknown, HeldOut, Train, Train]);
    }

    #[test]
    fn two_dates_have_known_churn_even_in_a_young_lake() {
        let last = [(28, Train, HeldOut), (35, Train, Train)];
        assert_eq!(dates(2, 365), [&[(7, HeldOut, Unknown)], last.as_slice()].concat());
        assert_eq!(dates(4, 365), [&[(7, HeldOut, Unknown), (14, Train, Unknown)], last.as_slice()].concat());
        assert_eq!(dates(12, 10), dates(2, 365), "a lake this young is refused by its number of users");
        assert_eq!(dates(12, 50).last(), Some(&(42, Train, Train)), "a week of history before it");
    }

    #[test]
    fn a_lake_too_young_for_its_dates_is_refused_with_settings_that_fit() {
        let end: RunDate = END.parse().unwrap();
        let required = |age_days: i64, config: &Config| {
            let first = Some(end.plus_days(-age_days));
            require_history(end, first, &user_as_of_dates(end, first, config), config)
        };
        required(36, &Config::default()).unwrap();
        let failure = required(35, &Config::default()).unwrap_err();
        assert_eq!(failure.kind.exit_code(), 3);
        assert!(failure.hint.unwrap().contains("intents.churn_days=21"));
        for age_days in 4..60 {
            let Err(failure) = required(age_days, &Config::default()) else { continue };
            let hint = failure.hint.unwrap();
            let mut config = Config::default();
            for pair in hint.split("--set ").skip(1) {
                let (key, days) = pair.trim().split_once('=').unwrap();
                let days: u32 = days.parse().unwrap();
                match key {
                    "intents.horizon_days" => config.intents.horizon_days = days,
                    "intents.churn_days" => config.intents.churn_days = days,
                    _ => config.train.as_of_step_days = days,
                }
            }
            required(age_days, &config).unwrap_or_else(|failure| panic!("{age_days} days: {hint}: {failure}"));
        }
        assert!(required(3, &Config::default()).unwrap_err().hint.unwrap().contains("at least four days"));
    }

    #[test]
    fn churn_with_the_horizon_of_intents_is_held_out_with_them() {
        let mut config = Config::default();
        (config.intents.churn_days, config.train.as_of_dates) = (7, 3);
        let uses: Vec<_> =
            user_as_of_dates(END.parse().unwrap(), None, &config).iter().map(|d| (d.intents, d.churn)).collect();
        assert_eq!(uses, [(HeldOut, HeldOut), (Train, Train), (Train, Train)]);
    }

    #[test]
    fn each_use_is_for_two_splits_or_none() {
        let used = |label: LabelUse| [Split::Train, Split::Valid, Split::Test].map(|split| label.is_used_for(split));
        assert_eq!(used(HeldOut), [false, true, true]);
        assert_eq!(used(Train), [true, true, false]);
        assert_eq!(used(Unknown), [false; 3]);
        let newest =
            |label: LabelUse| [Split::Train, Split::Valid, Split::Test].map(|split| label.is_newest_for(split));
        assert_eq!([HeldOut, Train, Unknown].map(newest), [[true, false, false], [false; 3], [false; 3]]);
    }
}
