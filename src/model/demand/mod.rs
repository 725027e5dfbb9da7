//! The demand model: forecasts of every item for each day ahead and for the lead time.
//!
//! In: items' daily histories ([`ItemHistory`]). Out: a mean and seven quantiles per day, and of the total over the lead time
//! ([`ItemForecast`]), of a network and gradient-boosted trees ([`DemandBlend`]). The lead time has its own head, because the quantile
//! of a sum is not the sum of quantiles. The network's quantiles are a first value plus cumulative softplus increments, so they cannot
//! cross or be negative. Slow items get the quantiles of
//! a count distribution, in whole units. Days out of stock carry no information about demand: they are flagged in the input and
//! masked in the loss.

mod blend;
mod calendar;
pub(crate) mod calibration;
pub(crate) mod counts;
mod forecast;
pub(crate) mod history;
pub(crate) mod input_sizes;
pub(crate) mod inputs;
mod network;
mod networks;
mod pattern;
mod rate_prior;
mod shape;
pub(crate) mod tree_inputs;

pub use blend::DemandBlend;
pub use calibration::Calibration;
pub(crate) use calibration::MeanFactors;
pub(crate) use forecast::ItemForecast;
pub use history::ItemHistory;
pub use network::DemandNetwork;
pub use pattern::DemandPattern;
pub use rate_prior::RatePrior;
pub use shape::DemandShape;

pub(crate) use calibration::ForecastSpan;
pub(crate) use forecast::{Forecast, Q50, Q90, QUANTILE_LEVELS, RawForecast, mean_pinball};
pub(crate) use history::ItemFacts;
pub(crate) use network::{BATCH_ITEMS_MAX, DemandOutputs};

#[cfg(test)]
pub(crate) use network::ForecastSource;
