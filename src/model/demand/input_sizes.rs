//! Number of inputs of the demand network per day and per lead time.

/// Numbers of one past day: log and scaled units, log views and carts, price ratio, promotion, stock; the forecasts of purchase
/// intents; whether the shop was closed.
pub(crate) const PAST_DAY_VALUES: usize = INTENTS_AT + INTENT_INPUTS + CLOSED_INPUTS;
/// Position of the forecasts of intents among the numbers of a past day.
pub(crate) const INTENTS_AT: usize = 7;
/// Scaled units that purchase intents of earlier nights forecast for a day, and whether any night forecast the day.
pub(crate) const INTENT_INPUTS: usize = 2;
/// Flag of a day on which the shop is closed; over a lead time, the share of such days.
pub(crate) const CLOSED_INPUTS: usize = 1;
/// Numbers of one future day: promotion, price ratio, whether the shop is closed.
pub(crate) const FUTURE_DAY_VALUES: usize = 2 + CLOSED_INPUTS;
/// The weekday as seven flags, and sine and cosine of the day of the month (pay days).
pub(crate) const CALENDAR_INPUTS: usize = 9;
/// Inputs of one past day that every network reads: the numbers before the forecasts of intents, and the calendar. The forecasts
/// of intents and the flag of closed days follow where the network reads them.
pub(crate) const PAST_DAY_INPUTS: usize = INTENTS_AT + CALENDAR_INPUTS;
/// Inputs of one future day that every network reads, all known in advance: calendar, promotion, price ratio, days ahead, log
/// scale. The flag of closed days follows.
pub(crate) const FUTURE_DAY_INPUTS: usize = CALENDAR_INPUTS + FUTURE_DAY_VALUES - CLOSED_INPUTS + 2;
/// Inputs of a lead time that every network reads: log days, shares of promoted and of weekend days, mean price ratio, log
/// scale. The share of closed days follows.
pub(crate) const LEAD_TIME_INPUTS: usize = 5;
