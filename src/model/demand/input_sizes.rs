//! Number of inputs of the demand network per day and per lead time.

/// Numbers of one past day: log and scaled units, log views and carts, price ratio, promotion, stock, and the forecasts of
/// purchase intents.
pub(crate) const PAST_DAY_VALUES: usize = 7 + INTENT_INPUTS;
/// Scaled units that purchase intents of earlier nights forecast for a day, and whether any night forecast the day.
pub(crate) const INTENT_INPUTS: usize = 2;
/// Numbers of one future day: promotion, price ratio.
pub(crate) const FUTURE_DAY_VALUES: usize = 2;
/// The weekday as seven flags, and sine and cosine of the day of the month (pay days).
pub(crate) const CALENDAR_INPUTS: usize = 9;
/// Inputs of one past day: [`PAST_DAY_VALUES`] with the calendar before the forecasts of intents. Those come last, so that a
/// network without them reads a prefix.
pub(crate) const PAST_DAY_INPUTS: usize = PAST_DAY_VALUES + CALENDAR_INPUTS;
/// Inputs of one future day, all known in advance: calendar, promotion, price ratio, days ahead, log scale.
pub(crate) const FUTURE_DAY_INPUTS: usize = CALENDAR_INPUTS + FUTURE_DAY_VALUES + 2;
/// Inputs of a lead time: log days, shares of promoted and of weekend days, mean price ratio, log scale.
pub(crate) const LEAD_TIME_INPUTS: usize = 5;
