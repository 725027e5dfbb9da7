//! Calendar inputs of days: weekday, day of the month, and weekend days between two dates.

use chrono::Datelike;
use std::f64::consts::TAU;
use tch::{Device, Kind, Tensor};

use super::input_sizes::CALENDAR_INPUTS;
use crate::failure::Result;

/// int64 [..] days since 1970-01-01 → float32 [.., CALENDAR_INPUTS].
pub(super) fn calendars(days: &Tensor) -> Result<Tensor> {
    if days.numel() == 0 {
        return Ok(Tensor::f_zeros([days.size(), vec![CALENDAR_INPUTS as i64]].concat(), (Kind::Float, Device::Cpu))?);
    }
    let first = days.f_min()?.f_int64_value(&[])?;
    let last = days.f_max()?.f_int64_value(&[])?;
    let calendars_of_days: Vec<f32> = (first..=last).flat_map(calendar).collect();
    let table = Tensor::f_from_slice(&calendars_of_days)?.f_view([-1, CALENDAR_INPUTS as i64])?;
    let rows = table.f_index_select(0, &(days - first).f_reshape([-1])?)?;
    Ok(rows.f_view([days.size(), vec![CALENDAR_INPUTS as i64]].concat().as_slice())?)
}

/// Returns the number of weekend days before each day up to a constant, int64: a difference counts those between two days.
pub(super) fn weekend_days(days: &Tensor) -> Result<Tensor> {
    let weekdays = weekday(days)?;
    let weeks = (days + 3 - &weekdays).f_divide_scalar_mode(7, "floor")?;
    Ok(weeks * 2 + (weekdays - 5).f_clamp_min(0)?)
}

/// Returns the weekday of days since 1970-01-01, which was a Thursday; Monday is 0.
fn weekday(days: &Tensor) -> Result<Tensor> {
    Ok((days + 3).f_remainder(7)?)
}

/// Returns the weekday of a day since 1970-01-01; Monday is 0.
pub(super) fn weekday_of(day: i64) -> i64 {
    (day + 3).rem_euclid(7)
}

/// Returns the day of the month, from 0.
pub(super) fn month_day(day: i64) -> i64 {
    day_in_month(day).0
}

/// Returns the day of the year, from 0.
pub(super) fn day_of_year(day: i64) -> i64 {
    i64::from(date(day).ordinal0())
}

/// Returns the calendar inputs of a day since 1970-01-01.
fn calendar(day: i64) -> [f32; CALENDAR_INPUTS] {
    let mut inputs = [0.0; CALENDAR_INPUTS];
    inputs[weekday_of(day) as usize] = 1.0;
    let (month_day, month_days) = day_in_month(day);
    let angle = TAU * month_day as f64 / month_days as f64;
    inputs[7] = angle.sin() as f32;
    inputs[8] = angle.cos() as f32;
    inputs
}

fn date(day: i64) -> chrono::NaiveDate {
    chrono::NaiveDate::from_num_days_from_ce_opt((day + 719_163) as i32).unwrap_or_default()
}

/// Returns the day of the month from 0, and the number of days of the month.
fn day_in_month(day: i64) -> (i64, i64) {
    let date = date(day);
    (i64::from(date.day0()), i64::from(date.num_days_in_month()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{NaiveDate, Weekday};

    const FIRST_OF_MARCH: i64 = 20_513;

    #[test]
    fn the_calendar_of_known_days() {
        // 2026-03-01 was a Sunday.
        assert_eq!((calendar(FIRST_OF_MARCH)[6], day_in_month(FIRST_OF_MARCH)), (1.0, (0, 31)));
        assert_eq!((calendar(FIRST_OF_MARCH - 1)[5], day_in_month(FIRST_OF_MARCH - 1)), (1.0, (27, 28)));
    }

    #[test]
    fn weekend_days_of_any_span_match_the_calendar() {
        let date = |day: i64| NaiveDate::from_num_days_from_ce_opt((day + 719_163) as i32).unwrap();
        let is_weekend = |day: &i64| matches!(date(*day).weekday(), Weekday::Sat | Weekday::Sun);
        for from in FIRST_OF_MARCH - 7..FIRST_OF_MARCH {
            for days in 0..30 {
                let [before, after] = [from, from + days].map(|day| weekend_days(&Tensor::from_slice(&[day])).unwrap());
                let counted = (from..from + days).filter(is_weekend).count() as i64;
                assert_eq!((after - before).int64_value(&[0]), counted, "{days} days from {}", date(from));
            }
        }
    }
}
