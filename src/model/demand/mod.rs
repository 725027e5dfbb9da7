//! The demand network: one history network over every item, quantiles for each day ahead and for the lead time.
//!
//! Comes in: items' histories. Goes out: a mean and seven quantiles a day, and of cumulative demand over the lead time,
//! which has heads of its own because the quantile of a sum is not the sum of quantiles. Quantiles are a first value
//! plus cumulative softplus increments, so they cannot cross or be negative. Slow items get those of a count
//! distribution, in whole units. Days out of stock say nothing about demand: they are flagged in the input and left out
//! of the loss.

pub mod calibration;
pub mod counts;
pub mod history;
pub mod inputs;
mod networks;

use serde::{Deserialize, Serialize};
use tch::nn::{self, Module};
use tch::{Device, Kind, Tensor};

use super::events::SMALL;
use super::inputs::CATEGORY_BUCKETS;
use crate::config::networks::DemandNetworkName;
use crate::failure::Result;
use history::INTENT_INPUTS;
use inputs::{DAY_INPUTS, ItemNumbers, ItemRows, KNOWN_INPUTS, LEAD_INPUTS, OutlookInputs};
use networks::HistoryNetwork;

pub use calibration::{Calibration, MeanFactors, RatePrior, Raw, Span, Speed};
pub use history::{ItemFacts, ItemHistory};

pub const LEVELS: [f64; 7] = [0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95];
/// Mean, then the quantiles of [`LEVELS`].
pub const OUTPUTS: usize = 1 + LEVELS.len();
/// Mean and size of the count distribution.
const COUNT_OUTPUTS: usize = 2;
const CATEGORY_WIDTH: i64 = 8;
/// What a content vector is mapped to; one more number says whether there is one.
const CONTENT_WIDTH: i64 = 8;
const HIDDEN: i64 = 64;
/// The share of items for which a training step hides the intents of earlier nights.
const INTENTS_HIDDEN: f64 = 0.2;
/// Items of one forward pass; bounds memory.
pub const ITEMS_MAX: usize = 256;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DemandShape {
    pub network: DemandNetworkName,
    pub width: i64,
    pub layers: i64,
    pub horizon_days: i64,
    pub history_days: i64,
    /// Items seen for fewer days get the fallback.
    pub history_days_min: i64,
    /// Items that sell less get quantiles of the count distribution.
    pub slow_units_per_day: f64,
    /// Whether the network reads what purchase intents of earlier nights promised. A bundle of before there was that
    /// input does not, and has no prior and no calibration.
    #[serde(default)]
    pub intents: bool,
    /// Length of the items' content vectors; 0 for a network that reads none, as in bundles of before there was that input.
    #[serde(default)]
    pub content_dims: i64,
    /// Of new items.
    #[serde(default)]
    pub prior: RatePrior,
    /// Of items without a sale in all of their history. Bundles of before it was learnt say that they sell nothing.
    #[serde(default)]
    pub dormant_prior: RatePrior,
    #[serde(default)]
    pub calibration: Calibration,
}

impl DemandShape {
    fn day_inputs(&self) -> i64 {
        (DAY_INPUTS - if self.intents { 0 } else { INTENT_INPUTS }) as i64
    }
}

/// One forecast: the mean and seven quantiles.
pub type Forecast = [f64; OUTPUTS];

/// Daily forecasts of one item and its lead-time forecast.
#[derive(Debug, Clone)]
pub struct ItemForecast {
    pub daily: Vec<Forecast>,
    pub lead_time: Forecast,
}

/// The same before calibration.
#[derive(Debug, Clone)]
pub struct RawForecast {
    pub daily: Vec<Raw>,
    pub lead_time: Raw,
}

/// Where an item's forecast comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Too short a history: what new items sell.
    New,
    /// A history without a sale: what such items sell.
    Dormant,
    /// Slow: the count distribution.
    Counts,
    Quantiles,
}

/// What the heads say of days or lead times, in units of demand.
#[derive(Debug)]
pub struct Outlook {
    /// Mean and quantiles, float32 [.., 8].
    pub quantiles: Tensor,
    /// Mean and size of a negative binomial, float32 [.., 2], positive.
    pub counts: Tensor,
}

#[derive(Debug)]
struct Head {
    hidden: nn::Linear,
    quantiles: nn::Linear,
    counts: nn::Linear,
}

#[derive(Debug)]
pub struct DemandNetwork {
    pub shape: DemandShape,
    history: Box<dyn HistoryNetwork>,
    category: nn::Embedding,
    content: Option<nn::Linear>,
    day: Head,
    lead: Head,
}

impl DemandNetwork {
    pub fn new(path: &nn::Path, shape: &DemandShape) -> Self {
        let small = nn::EmbeddingConfig { ws_init: SMALL, ..Default::default() };
        // Without a bias: an item without a vector adds nothing.
        let plain = nn::LinearConfig { bias: false, ..Default::default() };
        let content =
            (shape.content_dims > 0).then(|| nn::linear(path / "content", shape.content_dims, CONTENT_WIDTH, plain));
        let context = shape.width + CATEGORY_WIDTH + if content.is_some() { CONTENT_WIDTH + 1 } else { 0 };
        Self {
            shape: shape.clone(),
            history: networks::build(&(path / "history"), shape, shape.day_inputs()),
            category: nn::embedding(path / "category", CATEGORY_BUCKETS as i64 + 1, CATEGORY_WIDTH, small),
            content,
            day: Head::new(&(path / "day"), context + KNOWN_INPUTS as i64),
            lead: Head::new(&(path / "lead"), context + LEAD_INPUTS as i64),
        }
    }

    /// Outlooks on each day of the horizon, [items, horizon, ..], and on each item's lead time, [items, ..].
    pub fn outlook(&self, inputs: &OutlookInputs, train: bool) -> Result<(Outlook, Outlook)> {
        let (b, h) = (inputs.past.size()[0], self.shape.horizon_days);
        let past = inputs.past.shallow_clone();
        let state = self.history.read(&if train { self.forget_nights(past)? } else { past }, train)?;
        let mut context = vec![state, self.category.forward(&inputs.category)];
        if let (Some(map), Some((vectors, known))) = (&self.content, &inputs.content) {
            context.push(map.forward(vectors));
            context.push(known.shallow_clone());
        }
        let context = Tensor::f_cat(&context, -1)?;

        let span = &inputs.lead_days * &inputs.scale;
        let wide = context.unsqueeze(1).expand([b, h, context.size()[1]], false);
        let daily = Tensor::f_cat(&[&wide, &inputs.known], -1)?;
        let daily = self.day.outlook(&daily, &inputs.scale.unsqueeze(-1));
        Ok((daily, self.lead.outlook(&Tensor::f_cat(&[&context, &inputs.lead], -1)?, &span)))
    }

    /// Where the item's forecast comes from.
    pub fn source(&self, item: &ItemFacts) -> Source {
        match item.speed {
            Speed::New => Source::New,
            Speed::Dormant => Source::Dormant,
            _ if item.scale() < self.shape.slow_units_per_day => Source::Counts,
            _ => Source::Quantiles,
        }
    }

    /// What the calibration multiplies the means of such an item's days by.
    pub fn mean_factor(&self, item: &ItemFacts) -> f64 {
        let means = &self.shape.calibration.means;
        let factors = match self.source(item) {
            Source::Quantiles => &means.of_network,
            Source::New | Source::Dormant | Source::Counts => &means.of_counts,
        };
        factors.get(&item.speed).copied().unwrap_or(1.0)
    }

    /// Hides what intents said of some items, so that a night without earlier ones finds a network that can do without.
    fn forget_nights(&self, past: Tensor) -> Result<Tensor> {
        if !self.shape.intents {
            return Ok(past);
        }
        let kept = past.f_narrow(2, 0, (DAY_INPUTS - INTENT_INPUTS) as i64)?;
        let intents = past.f_narrow(2, (DAY_INPUTS - INTENT_INPUTS) as i64, INTENT_INPUTS as i64)?;
        let shown = Tensor::f_rand([past.size()[0], 1, 1], (Kind::Float, past.device()))?.f_gt(INTENTS_HIDDEN)?;
        Ok(Tensor::f_cat(&[kept, intents * shown], 2)?)
    }

    /// What is published: each item's forecasts by day and over its lead time, from its own source, calibrated.
    pub fn forecast(&self, items: &[ItemHistory], device: Device) -> Result<Vec<ItemForecast>> {
        let (history, horizon) = (self.shape.history_days as usize, self.shape.horizon_days as usize);
        let mut forecasts = Vec::with_capacity(items.len());
        for chunk in items.chunks(ITEMS_MAX) {
            let numbers = ItemNumbers::of(chunk, history, horizon, self.shape.history_days_min);
            forecasts.extend(self.forecast_rows(&numbers.rows(), device)?);
        }
        Ok(forecasts)
    }

    /// The same of at most [`ITEMS_MAX`] items, whose speeds were told by the shape's `history_days_min`.
    pub fn forecast_rows(&self, items: &ItemRows<'_>, device: Device) -> Result<Vec<ItemForecast>> {
        let calibration = &self.shape.calibration;
        let calibrated = |(row, raw): (usize, RawForecast)| {
            let facts = items.facts(row);
            let day = Some((calibration, Span::Day, facts.speed));
            let lead = Some((calibration, Span::LeadTime, facts.speed));
            ItemForecast {
                daily: raw.daily.iter().map(|raw| raw.forecast(day, facts.scale())).collect(),
                lead_time: raw.lead_time.forecast(lead, facts.lead_scale()),
            }
        };
        Ok(self.raw(items, device)?.into_iter().enumerate().map(calibrated).collect())
    }

    /// Forecasts of at most [`ITEMS_MAX`] items before calibration.
    pub fn raw(&self, items: &ItemRows<'_>, device: Device) -> Result<Vec<RawForecast>> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let h = self.shape.horizon_days as usize;
        let lead: Vec<i64> = items.lead_time_days.iter().map(|&days| days.into()).collect();
        let inputs = items.inputs(&lead, &self.shape)?.to(device)?;
        let (daily, total) = tch::no_grad(|| self.outlook(&inputs, false))?;
        let (daily, total) = (Read::of(&daily)?, Read::of(&total)?);
        let forecast = |i: usize| {
            let facts = items.facts(i);
            let source = self.source(&facts);
            let forecast = |read: &Read, row: usize, days: i64| match source {
                Source::New => facts.fallback(self.shape.prior, days),
                // The prior is of what comes after such a history: its days count already.
                Source::Dormant => self.shape.dormant_prior.after(0.0, 0.0, days),
                Source::Counts => read.counts(row),
                Source::Quantiles => read.quantiles(row),
            };
            RawForecast {
                daily: (0..h).map(|day| forecast(&daily, i * h + day, 1)).collect(),
                lead_time: forecast(&total, i, facts.lead_time_days),
            }
        };
        Ok((0..items.len()).map(forecast).collect())
    }
}

impl Head {
    fn new(path: &nn::Path, inputs: i64) -> Self {
        Self {
            hidden: nn::linear(path / "hidden", inputs, HIDDEN, Default::default()),
            quantiles: nn::linear(path / "quantiles", HIDDEN, OUTPUTS as i64, Default::default()),
            counts: nn::linear(path / "counts", HIDDEN, COUNT_OUTPUTS as i64, Default::default()),
        }
    }

    /// `scale` broadcasts to the outputs and carries them into units of demand.
    fn outlook(&self, inputs: &Tensor, scale: &Tensor) -> Outlook {
        let hidden = self.hidden.forward(inputs).gelu("none");
        let raw = self.counts.forward(&hidden).softplus();
        let mean = raw.narrow(-1, 0, 1) * scale;
        // A floor under the size: below it the variance is a hundred times the mean's square, and says nothing.
        let counts = Tensor::cat(&[mean + 1e-6, raw.narrow(-1, 1, 1) + 0.01], -1);
        Outlook { quantiles: monotone(&self.quantiles.forward(&hidden)) * scale, counts }
    }
}

/// Raw [.., 8] → mean and quantiles: softplus mean; first quantile softplus, the next ones by softplus increments.
fn monotone(raw: &Tensor) -> Tensor {
    let mean = raw.narrow(-1, 0, 1).softplus();
    let quantiles = raw.narrow(-1, 1, LEVELS.len() as i64);
    // Shifted down, so that fresh networks start with narrow, low quantiles rather than seven times ln 2.
    let quantiles = (quantiles - 1.0).softplus().cumsum(-1, Kind::Float);
    Tensor::cat(&[mean, quantiles], -1)
}

/// An outlook's numbers, row by row.
struct Read {
    quantiles: Vec<f32>,
    counts: Vec<f32>,
}

impl Read {
    fn of(outlook: &Outlook) -> Result<Self> {
        let flat = |t: &Tensor| -> Result<Vec<f32>> {
            Ok(Vec::<f32>::try_from(&t.f_to_device(Device::Cpu)?.f_contiguous()?.f_view([-1])?)?)
        };
        Ok(Self { quantiles: flat(&outlook.quantiles)?, counts: flat(&outlook.counts)? })
    }

    fn quantiles(&self, row: usize) -> Raw {
        Raw::Quantiles(std::array::from_fn(|k| self.quantiles[row * OUTPUTS + k].into()))
    }

    fn counts(&self, row: usize) -> Raw {
        let (mean, size) = (self.counts[row * COUNT_OUTPUTS].into(), self.counts[row * COUNT_OUTPUTS + 1].into());
        Raw::Counts { mean, size }
    }
}

#[cfg(test)]
mod tests {
    use super::history::tests::item;
    use super::*;

    impl DemandShape {
        pub fn tiny(network: DemandNetworkName) -> Self {
            Self {
                network,
                width: 8,
                layers: 2,
                horizon_days: 5,
                history_days: 28,
                history_days_min: 14,
                slow_units_per_day: 0.5,
                intents: true,
                content_dims: 3,
                prior: RatePrior::default(),
                dormant_prior: RatePrior { units: 0.02, days: 2.0, spread: 0.0 },
                calibration: Calibration::default(),
            }
        }
    }

    /// Fast, empty, slow, never sold, young; each with its days since first seen.
    fn items() -> Vec<ItemHistory> {
        let slow: Vec<f64> = (0..28).map(|d| if d % 9 == 0 { 1.0 } else { 0.0 }).collect();
        let mut items = vec![item(&[1.0; 20]), item(&[]), item(&slow), item(&[0.0; 28]), item(&[4.0; 3])];
        for item in &mut items {
            item.days_since_first_seen = item.units.len() as i64;
        }
        items[0].category = 7;
        items[0].content = vec![0.6, 0.0, -0.8];
        items
    }

    #[test]
    fn with_every_network_forecasts_never_cross_are_never_negative_and_a_batch_equals_its_members() {
        for name in DemandNetworkName::ALL {
            tch::manual_seed(6);
            let store = nn::VarStore::new(Device::Cpu);
            let network = DemandNetwork::new(&store.root(), &DemandShape::tiny(name));
            let items = items();
            let all = network.forecast(&items, Device::Cpu).unwrap();
            for (item, forecast) in items.iter().zip(&all) {
                assert_eq!(forecast.daily.len(), 5);
                for f in forecast.daily.iter().chain([&forecast.lead_time]) {
                    assert!(f.iter().all(|v| v.is_finite() && *v >= 0.0), "{name:?}: {f:?}");
                    assert!(f[1..].windows(2).all(|w| w[0] <= w[1]), "{name:?}: {f:?}");
                }
                let alone = network.forecast(std::slice::from_ref(item), Device::Cpu).unwrap();
                let both = forecast.daily.iter().flatten().zip(alone[0].daily.iter().flatten());
                assert!(both.into_iter().all(|(a, b)| (a - b).abs() < 1e-5), "{name:?}");
            }
        }
    }

    #[test]
    fn slow_items_are_forecast_in_whole_units_and_fast_ones_are_not() {
        let store = nn::VarStore::new(Device::Cpu);
        let network = DemandNetwork::new(&store.root(), &DemandShape::tiny(DemandNetworkName::Gru));
        let items = items();
        let sources: Vec<Source> = items.iter().map(|i| network.source(&i.facts(14))).collect();
        use Source::*;
        assert_eq!(sources, [Quantiles, New, Counts, Dormant, New]);
        let forecasts = network.forecast(&items, Device::Cpu).unwrap();
        let whole = |f: &ItemForecast| f.daily.iter().all(|d| d[1..].iter().all(|q| q.fract() == 0.0));
        assert!(whole(&forecasts[2]) && !whole(&forecasts[0]));
        let dormant = forecasts[3].lead_time;
        assert!((dormant[0] - 0.07).abs() < 1e-9 && dormant[1..] == [0.0; LEVELS.len()], "{dormant:?}");
    }

    #[test]
    fn means_are_multiplied_by_the_factor_of_their_source_and_quantiles_stay() {
        let store = nn::VarStore::new(Device::Cpu);
        let mut network = DemandNetwork::new(&store.root(), &DemandShape::tiny(DemandNetworkName::Gru));
        let items = items();
        let plain = network.forecast(&items, Device::Cpu).unwrap();
        let factors = |slow: f64| MeanFactors {
            of_network: [(Speed::Fast, 2.0), (Speed::Slow, 9.0)].into(),
            of_counts: [(Speed::Slow, slow), (Speed::New, 0.5), (Speed::Fast, 9.0)].into(),
        };
        network.shape.calibration = Calibration { means: factors(3.0), lead_means: factors(4.0), ..Default::default() };
        let corrected = network.forecast(&items, Device::Cpu).unwrap();
        // As `items` are: fast, new, slow, dormant, new.
        for (at, (day, lead)) in [(2.0, 2.0), (0.5, 0.5), (3.0, 4.0), (1.0, 1.0), (0.5, 0.5)].into_iter().enumerate() {
            assert_eq!(network.mean_factor(&items[at].facts(14)), day, "{at}");
            let pairs = [
                (&plain[at].daily[0], &corrected[at].daily[0], day),
                (&plain[at].lead_time, &corrected[at].lead_time, lead),
            ];
            for (before, after, factor) in pairs {
                assert!(
                    (before[0] * factor - after[0]).abs() < 1e-9 && before[1..] == after[1..],
                    "{at}: {before:?} {after:?}"
                );
            }
        }
    }

    #[test]
    fn the_category_the_content_and_a_promotion_to_come_are_seen() {
        tch::manual_seed(2);
        let store = nn::VarStore::new(Device::Cpu);
        let network = DemandNetwork::new(&store.root(), &DemandShape::tiny(DemandNetworkName::Tcn));
        let mean = |change: &dyn Fn(&mut ItemHistory)| {
            let mut item = items().remove(0);
            change(&mut item);
            network.forecast(&[item], Device::Cpu).unwrap()[0].daily[2][0]
        };
        let plain = mean(&|_| ());
        assert_ne!(plain, mean(&|i| i.category = 8));
        assert_ne!(plain, mean(&|i| i.promoted_future = vec![false, false, true]));
        assert_ne!(plain, mean(&|i| i.price_future = vec![f64::NAN, f64::NAN, 0.5]));
        assert_ne!(plain, mean(&|i| i.intent_units = vec![1.0; 20]));
        assert_ne!(plain, mean(&|i| i.content = vec![0.0, 1.0, 0.0]));
        let without = mean(&|i| i.content = Vec::new());
        assert_ne!(plain, without);
        assert_eq!(without, mean(&|i| i.content = vec![1.0; 5]), "a vector of another length is none");
    }
}
