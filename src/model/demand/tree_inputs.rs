//! Inputs of the demand trees: numbers of an item's history and of the days that are forecast. Sales are in units of the item's scale.
//! NaN where there is no number.

use super::calendar::{day_of_year, month_day, weekday_of};
use super::input_sizes::{FUTURE_DAY_VALUES, INTENTS_AT, PAST_DAY_VALUES};
use super::inputs::DemandRows;
use super::shape::DemandShape;

/// Numbers of a history.
const HISTORY_INPUTS: usize = 27;
/// Inputs of a day: those of the history, and of the day.
pub(crate) const TREE_DAY_INPUTS: usize = HISTORY_INPUTS + 11;
/// Inputs of a lead time: those of the history, and of the days until the delivery.
pub(crate) const TREE_LEAD_TIME_INPUTS: usize = HISTORY_INPUTS + 7;

/// Days of the windows over which sales are averaged.
const WINDOWS: [usize; 5] = [7, 14, 28, 56, usize::MAX];
/// Levels of the quantiles of the sales of the last [`QUANTILE_DAYS`].
const LEVELS: [f64; 5] = [0.1, 0.25, 0.5, 0.75, 0.9];
const QUANTILE_DAYS: usize = 56;
const RECENT_DAYS: usize = 28;
const WEEK: usize = 7;

/// One day of a history on which the item was for sale.
#[derive(Debug, Clone, Copy)]
struct SaleDay {
    /// Days before the first forecast day, from 1.
    days_ago: usize,
    /// Units, in units of the item's scale.
    units: f32,
}

/// The numbers of one item that all of its days share.
pub(crate) struct TreeInputs<'a> {
    rows: DemandRows<'a>,
    row: usize,
    history_days: usize,
    horizon_days: usize,
    with_intents: bool,
    with_day_of_year: bool,
    history: [f32; HISTORY_INPUTS],
    /// By days ahead modulo 7: the mean of the last four same weekdays, of all of them, and the last.
    same_weekday: [[f32; 3]; WEEK],
}

impl<'a> TreeInputs<'a> {
    pub(crate) fn new(rows: DemandRows<'a>, row: usize, shape: &DemandShape) -> Self {
        let mut inputs = Self {
            rows,
            row,
            history_days: shape.history_days as usize,
            horizon_days: shape.horizon_days as usize,
            with_intents: shape.intents,
            with_day_of_year: shape.trees_read_day_of_year,
            history: [f32::NAN; HISTORY_INPUTS],
            same_weekday: [[f32::NAN; 3]; WEEK],
        };
        let days = inputs.sale_days();
        inputs.history = inputs.history_numbers(&days);
        inputs.same_weekday = std::array::from_fn(|ahead| same_weekday(&days, ahead));
        inputs
    }

    /// The values of a past day, counted back from the first forecast day.
    fn past(&self, days_ago: usize) -> &[f32] {
        let at = ((self.row + 1) * self.history_days - days_ago) * PAST_DAY_VALUES;
        &self.rows.past[at..at + PAST_DAY_VALUES]
    }

    fn known_days(&self) -> usize {
        (self.rows.past_days[self.row].max(0) as usize).min(self.history_days)
    }

    /// Days in stock on which the shop was open, newest first.
    fn sale_days(&self) -> Vec<SaleDay> {
        let scale = self.rows.facts(self.row).scale() as f32;
        (1..=self.known_days())
            .map(|days_ago| (days_ago, self.past(days_ago)))
            .filter(|(_, day)| day[6] > 0.5 && day[PAST_DAY_VALUES - 1] < 0.5)
            .map(|(days_ago, day)| SaleDay { days_ago, units: day[0].exp_m1() / scale })
            .collect()
    }

    fn history_numbers(&self, days: &[SaleDay]) -> [f32; HISTORY_INPUTS] {
        let facts = self.rows.facts(self.row);
        let within = |last: usize| days.iter().take_while(move |day| day.days_ago <= last);
        let mean_of = |last: usize| mean(within(last).map(|day| day.units));
        let recent = || within(RECENT_DAYS).map(|day| day.units);
        let recent_mean = mean(recent());
        let known = self.known_days();
        let mean_past =
            |last: usize, value: usize| mean((1..=last.min(known)).map(|days_ago| self.past(days_ago)[value]));
        let mut numbers = Numbers::default();
        numbers.push(facts.scale().ln_1p() as f32);
        WINDOWS.iter().for_each(|&days| numbers.push(mean_of(days)));
        numbers.push(mean(recent().map(|units| if units > 0.0 { 1.0 } else { 0.0 })));
        numbers.push(mean(recent().map(|units| (units - recent_mean).powi(2))).sqrt());
        numbers.push(recent().fold(f32::NAN, f32::max));
        let last_sale = days.iter().find(|day| day.units > 0.0);
        numbers.push(last_sale.map_or(f32::NAN, |day| day.days_ago as f32));
        // The trend: the last four weeks against the four before.
        numbers.push(recent_mean / mean(days.iter().filter(|d| (29..57).contains(&d.days_ago)).map(|d| d.units)));
        quantiles(within(QUANTILE_DAYS).map(|day| day.units)).into_iter().for_each(|units| numbers.push(units));
        // Views, carts.
        numbers.push(mean_past(WEEK, 2));
        numbers.push(mean_past(RECENT_DAYS, 2));
        numbers.push(mean_past(WEEK, 3));
        numbers.push(mean_past(RECENT_DAYS, 3));
        // Promotion, stock, the last day's price ratio.
        numbers.push(mean_past(RECENT_DAYS, 5));
        numbers.push(mean_past(RECENT_DAYS, 6));
        numbers.push(if known > 0 { self.past(1)[4] } else { f32::NAN });
        // Units that purchase intents forecast for the last week, where a night published them.
        let from_intents = (1..=WEEK.min(known))
            .map(|days_ago| self.past(days_ago))
            .filter(|day| self.with_intents && day[INTENTS_AT + 1] > 0.5);
        numbers.push(mean(from_intents.map(|day| day[INTENTS_AT])));
        numbers.push(known as f32);
        numbers.push(f32::from(self.rows.pattern[self.row]));
        numbers.push(days.len() as f32);
        numbers.values
    }

    fn future(&self, ahead: usize) -> &[f32] {
        let at = (self.row * self.horizon_days + ahead) * FUTURE_DAY_VALUES;
        &self.rows.future[at..at + FUTURE_DAY_VALUES]
    }

    fn day_of_year(&self, day: i64) -> f32 {
        if self.with_day_of_year { day_of_year(day) as f32 } else { f32::NAN }
    }

    /// Appends the inputs of a day, [`TREE_DAY_INPUTS`]; `ahead` counts from 0.
    pub(crate) fn append_day(&self, ahead: usize, to: &mut Vec<f32>) {
        let day = i64::from(self.rows.as_of_day[self.row]) + ahead as i64;
        let [last_four, all, last] = self.same_weekday[ahead % WEEK];
        let [promoted, price, closed] = [0, 1, 2].map(|value| self.future(ahead)[value]);
        to.extend(self.history);
        to.extend([ahead as f32, weekday_of(day) as f32, month_day(day) as f32, self.day_of_year(day)]);
        to.extend([promoted, price, closed, last_four, all, last]);
        to.push(all / self.history[WINDOWS.len()]);
    }

    /// Appends the inputs of a lead time, [`TREE_LEAD_TIME_INPUTS`], of `lead_days`, at least 1. Days beyond the horizon are like its last
    /// week.
    pub(crate) fn append_lead_time(&self, lead_days: usize, to: &mut Vec<f32>) {
        let first = i64::from(self.rows.as_of_day[self.row]);
        let horizon = self.horizon_days;
        let week = horizon.min(WEEK);
        let within = |ahead: usize| if ahead < horizon { ahead } else { horizon - week + (ahead - horizon) % week };
        let days = || (0..lead_days.max(1)).map(within);
        to.extend(self.history);
        to.extend([lead_days as f32, weekday_of(first) as f32, self.day_of_year(first + lead_days as i64 / 2)]);
        to.extend([0, 1, 2].map(|value| mean(days().map(|ahead| self.future(ahead)[value]))));
        to.push(mean(
            (0..lead_days.max(1)).map(|ahead| self.same_weekday[ahead % WEEK][1]).filter(|units| !units.is_nan()),
        ));
    }
}

/// Numbers in the order in which they are pushed.
struct Numbers {
    values: [f32; HISTORY_INPUTS],
    filled: usize,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { values: [f32::NAN; HISTORY_INPUTS], filled: 0 }
    }
}

impl Numbers {
    fn push(&mut self, value: f32) {
        self.values[self.filled] = value;
        self.filled += 1;
    }
}

/// The mean of the last four same weekdays, of all of them, and the last.
fn same_weekday(days: &[SaleDay], ahead: usize) -> [f32; 3] {
    // A day that is `days_ago` before the first one has the weekday of the day `ahead` if they are whole weeks apart.
    let same = || days.iter().filter(move |day| (day.days_ago + ahead).is_multiple_of(WEEK)).map(|day| day.units);
    [mean(same().take(4)), mean(same()), same().next().unwrap_or(f32::NAN)]
}

/// NaN for no numbers.
fn mean(numbers: impl Iterator<Item = f32>) -> f32 {
    let (sum, count) = numbers.fold((0.0f64, 0.0), |(sum, count), number| (sum + f64::from(number), count + 1.0));
    (sum / count) as f32
}

/// The nearest ranks of [`LEVELS`]; NaN for no numbers.
fn quantiles(numbers: impl Iterator<Item = f32>) -> [f32; LEVELS.len()] {
    let mut sorted: Vec<f32> = numbers.collect();
    sorted.sort_by(f32::total_cmp);
    let last = sorted.len().saturating_sub(1) as f64;
    LEVELS.map(|level| sorted.get((level * last).round() as usize).copied().unwrap_or(f32::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::networks::DemandNetworkName;
    use crate::model::demand::ItemHistory;
    use crate::model::demand::history::tests::item;
    use crate::model::demand::inputs::DemandColumns;

    /// Inputs of the days 0 and 8 and of a lead time of nine days; histories of at most five weeks, a horizon of eight days.
    fn inputs(item: &ItemHistory, with_day_of_year: bool) -> [Vec<f32>; 3] {
        let shape = DemandShape {
            history_days: 35,
            horizon_days: 8,
            trees_read_day_of_year: with_day_of_year,
            ..DemandShape::tiny(DemandNetworkName::Gru)
        };
        let columns = DemandColumns::from_histories(std::slice::from_ref(item), 35, 8, 14);
        let inputs = TreeInputs::new(columns.rows(), 0, &shape);
        let [mut first, mut last, mut lead] = [Vec::new(), Vec::new(), Vec::new()];
        inputs.append_day(0, &mut first);
        inputs.append_day(7, &mut last);
        inputs.append_lead_time(9, &mut lead);
        [first, last, lead]
    }

    /// An item that sells as many units as the number of its weekday, of which one week is out of stock.
    fn weekly() -> ItemHistory {
        let mut item = item(&(0..35).map(|day| f64::from(day % 7)).collect::<Vec<_>>());
        item.days_since_first_seen = 35;
        item.in_stock[21..28].fill(false);
        item
    }

    fn near(found: f32, expected: f64) {
        assert!((f64::from(found) - expected).abs() < 1e-3 * expected.abs().max(1.0), "{found}, expected {expected}");
    }

    #[test]
    fn averages_leave_out_days_without_stock_and_same_weekdays_are_found() {
        let item = weekly();
        let scale = item.facts(14).scale();
        let [first, last, lead] = inputs(&item, false);
        assert_eq!([first.len(), last.len(), lead.len()], [TREE_DAY_INPUTS, TREE_DAY_INPUTS, TREE_LEAD_TIME_INPUTS]);
        near(first[0], scale.ln_1p());
        // Windows of 7 to all days: whole weeks of 0 to 6.
        (1..6).for_each(|window| near(first[window], 3.0 / scale));
        near(first[6], 6.0 / 7.0);
        near(first[8], 6.0 / scale);
        assert_eq!(first[9], 1.0, "six units the day before");
        // The day after 35 days of seven has the weekday that sells nothing; so has the same day a week later.
        assert_eq!(first[HISTORY_INPUTS + 7..][..3], [0.0; 3]);
        assert_eq!(last[HISTORY_INPUTS + 7..], first[HISTORY_INPUTS + 7..]);
        assert_eq!((first[HISTORY_INPUTS], last[HISTORY_INPUTS]), (0.0, 7.0));
        assert!(first[HISTORY_INPUTS + 3].is_nan(), "the day of the year is read only where training saw a year");
        // Nine days from the weekday of nothing on: 0 to 6, 0, 1.
        near(lead[TREE_LEAD_TIME_INPUTS - 1], 22.0 / 9.0 / scale);
        assert_eq!(lead[HISTORY_INPUTS], 9.0);
    }

    #[test]
    fn planned_days_and_the_calendar_are_inputs() {
        let mut item = weekly();
        item.promoted_future = vec![true, false, false, false, false, false, false, true];
        item.closed_dates = vec![item.as_of_day() + 7];
        let [first, last, lead] = inputs(&item, true);
        assert_eq!(first[HISTORY_INPUTS + 4..][..3], [1.0, 0.0, 0.0]);
        assert_eq!(last[HISTORY_INPUTS + 4..][..3], [1.0, 0.0, 1.0]);
        assert_eq!(first[HISTORY_INPUTS + 3] + 7.0, last[HISTORY_INPUTS + 3]);
        // The ninth day is beyond the horizon and like the day a week before.
        near(lead[HISTORY_INPUTS + 3], 2.0 / 9.0);
        near(lead[HISTORY_INPUTS + 5], 1.0 / 9.0);
    }

    #[test]
    fn an_item_without_a_day_for_sale_has_no_averages() {
        let mut item = weekly();
        item.in_stock.fill(false);
        let [first, ..] = inputs(&item, false);
        assert!(first[1..8].iter().all(|value| value.is_nan()));
        assert!(first[HISTORY_INPUTS + 7..].iter().all(|value| value.is_nan()));
    }
}
