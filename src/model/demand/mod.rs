//! The demand model: forecasts of every item for each day ahead and for the lead time.
//!
//! In: items' daily histories ([`ItemHistory`]). Out: a mean and seven quantiles per day, and of the total over the lead time
//! ([`ItemForecast`]). The lead time has its own head, because the quantile of a sum is not the sum of quantiles. Quantiles
//! are a first value plus cumulative softplus increments, so they cannot cross or be negative. Slow items get the quantiles of
//! a count distribution, in whole units. Days out of stock carry no information about demand: they are flagged in the input and
//! masked in the loss.

pub mod calibration;
pub mod counts;
mod forecast;
pub mod history;
pub mod input_sizes;
pub mod inputs;
mod network;
mod networks;
mod pattern;
mod rate_prior;
mod shape;

pub use calibration::{Calibration, ForecastSpan, MeanFactors};
pub use forecast::{Forecast, ItemForecast, QUANTILE_LEVELS, RawForecast, RawItemForecast};
pub use history::{ItemFacts, ItemHistory};
pub use network::{BATCH_ITEMS_MAX, DemandNetwork, DemandOutputs, ForecastSource};
pub use pattern::DemandPattern;
pub use rate_prior::RatePrior;
pub use shape::DemandShape;
