//! The demand network: one history network over all items, heads for each day ahead and for the lead time, and the blend with the
//! trees.

use std::sync::Arc;
use tch::nn::{self, Module};
use tch::{Device, Kind, Tensor};

use super::blend::DemandBlend;
use super::calibration::ForecastSpan;
use super::forecast::{Forecast, ItemForecast, QUANTILE_LEVELS, RawForecast, RawItemForecast};
use super::history::{ItemFacts, ItemHistory};
use super::input_sizes::{INTENT_INPUTS, PAST_DAY_INPUTS};
use super::inputs::{DemandColumns, DemandInputs, DemandRows};
use super::networks::{self, HistoryNetwork};
use super::pattern::DemandPattern;
use super::shape::DemandShape;
use super::tree_inputs::{TREE_DAY_INPUTS, TREE_LEAD_TIME_INPUTS, TreeInputs};
use crate::failure::Result;
use crate::model::embedding::small_embedding;
use crate::model::inputs::CATEGORY_BUCKETS;
use crate::model::trees::{DemandTrees, FORECAST_NUMBERS};

/// Items of one forward pass, at most; bounds memory.
pub(crate) const BATCH_ITEMS_MAX: usize = 256;

/// Mean and size of the count distribution.
const COUNT_OUTPUTS: usize = 2;
const CATEGORY_WIDTH: i64 = 8;
/// Width of a mapped content vector; one more input says whether there is one.
const CONTENT_WIDTH: i64 = 8;
const HIDDEN_WIDTH: i64 = 64;
/// Share of items for which a training step masks the forecasts of intents.
const INTENTS_MASKED_SHARE: f64 = 0.2;

/// The model that an item's forecast comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ForecastSource {
    /// The prior of new items: the history is too short.
    New,
    /// The prior of items without a sale in their history.
    Dormant,
    /// The count distribution, for slow items.
    Counts,
    Quantiles,
}

/// Outputs of a head for days or lead times, in units of demand.
#[derive(Debug)]
pub(crate) struct DemandOutputs {
    /// Mean and quantiles, float32 [.., 8].
    pub(crate) quantiles: Tensor,
    /// Mean and size of a negative binomial, float32 [.., 2], positive.
    pub(crate) counts: Tensor,
}

#[derive(Debug)]
struct Head {
    hidden: nn::Linear,
    quantiles: nn::Linear,
    counts: nn::Linear,
}

/// The network over all items, and the trees next to it.
#[derive(Debug)]
pub struct DemandNetwork {
    pub shape: DemandShape,
    history: Box<dyn HistoryNetwork>,
    category: nn::Embedding,
    content: Option<nn::Linear>,
    day: Head,
    lead: Head,
    /// The trees that forecast items with quantiles too; `None` for a bundle without them.
    pub(crate) trees: Option<Arc<DemandTrees>>,
}

/// The forecasts of one item by the members of the model, before calibration.
#[derive(Debug, Clone)]
pub(crate) struct MemberForecasts {
    /// Forecast of the network, or of a prior.
    pub(crate) network: RawItemForecast,
    /// Forecast of the trees, where they forecast the item.
    pub(crate) trees: Option<TreeForecast>,
}

/// The trees' forecasts of one item.
#[derive(Debug, Clone)]
pub(crate) struct TreeForecast {
    pub(crate) daily: Vec<Forecast>,
    pub(crate) lead_time: Forecast,
}

impl DemandNetwork {
    /// Creates initial weights below `path`.
    pub fn new(path: &nn::Path, shape: &DemandShape) -> Self {
        // Without a bias: an item without a content vector adds nothing.
        let without_bias = nn::LinearConfig { bias: false, ..Default::default() };
        let content = (shape.content_dims > 0)
            .then(|| nn::linear(path / "content", shape.content_dims, CONTENT_WIDTH, without_bias));
        let context = shape.width + CATEGORY_WIDTH + if content.is_some() { CONTENT_WIDTH + 1 } else { 0 };
        Self {
            shape: shape.clone(),
            history: networks::build(&(path / "history"), shape, shape.past_day_inputs()),
            category: small_embedding(path / "category", CATEGORY_BUCKETS as i64 + 1, CATEGORY_WIDTH),
            content,
            day: Head::new(&(path / "day"), context + shape.future_day_inputs()),
            lead: Head::new(&(path / "lead"), context + shape.lead_time_inputs()),
            trees: None,
        }
    }

    /// Returns the outputs for each day of the horizon, [items, horizon, ..], and for each item's lead time, [items, ..].
    pub(crate) fn forward(&self, inputs: &DemandInputs, train: bool) -> Result<(DemandOutputs, DemandOutputs)> {
        let items = inputs.past.size()[0];
        let past = inputs.past.shallow_clone();
        let state = self.history.state(&if train { self.mask_intents(past)? } else { past }, train)?;
        let mut parts = vec![state, self.category.forward(&inputs.category)];
        if let (Some(map), Some((vectors, known))) = (&self.content, &inputs.content) {
            parts.push(map.forward(vectors));
            parts.push(known.shallow_clone());
        }
        let context = Tensor::f_cat(&parts, -1)?;

        let lead_scale = &inputs.lead_days * &inputs.scale;
        let context_per_day = context.unsqueeze(1).expand([items, self.shape.horizon_days, context.size()[1]], false);
        let day_inputs = Tensor::f_cat(&[&context_per_day, &inputs.future], -1)?;
        let lead_inputs = Tensor::f_cat(&[&context, &inputs.lead], -1)?;
        let daily = self.day.forward(&day_inputs, &inputs.scale.unsqueeze(-1));
        Ok((daily, self.lead.forward(&lead_inputs, &lead_scale)))
    }

    /// Returns the model that an item's forecast comes from.
    pub(crate) fn source(&self, item: &ItemFacts) -> ForecastSource {
        match item.pattern {
            DemandPattern::New => ForecastSource::New,
            DemandPattern::Dormant => ForecastSource::Dormant,
            _ if item.scale() < self.shape.slow_units_per_day => ForecastSource::Counts,
            _ => ForecastSource::Quantiles,
        }
    }

    /// Returns whether an item's forecast is of quantiles, which the trees forecast too.
    pub(crate) fn has_quantiles(&self, item: &ItemFacts) -> bool {
        self.source(item) == ForecastSource::Quantiles
    }

    /// Returns the calibration's factor of the means of the item's days.
    pub(crate) fn mean_factor(&self, item: &ItemFacts) -> f64 {
        let means = &self.shape.calibration.means;
        let factors = match self.source(item) {
            ForecastSource::Quantiles => &means.of_network,
            ForecastSource::New | ForecastSource::Dormant | ForecastSource::Counts => &means.of_counts,
        };
        factors.get(&item.pattern).copied().unwrap_or(1.0)
    }

    /// Masks the forecasts of intents for some items, so that the network also works on a night without earlier nights.
    fn mask_intents(&self, past: Tensor) -> Result<Tensor> {
        if !self.shape.intents {
            return Ok(past);
        }
        let (before, intents) = (PAST_DAY_INPUTS as i64, INTENT_INPUTS as i64);
        let after = self.shape.past_day_inputs() - before - intents;
        let part = |from: i64, inputs: i64| past.f_narrow(2, from, inputs);
        let draws = Tensor::f_rand([past.size()[0], 1, 1], (Kind::Float, past.device()))?;
        let masked = part(before, intents)? * draws.f_gt(INTENTS_MASKED_SHARE)?;
        Ok(Tensor::f_cat(&[part(0, before)?, masked, part(before + intents, after)?], 2)?)
    }

    /// Returns the published forecasts of each item by day and over its lead time, calibrated.
    pub fn forecast(&self, items: &[ItemHistory], device: Device) -> Result<Vec<ItemForecast>> {
        let history = self.shape.history_days as usize;
        let horizon = self.shape.horizon_days as usize;
        let mut forecasts = Vec::with_capacity(items.len());
        for batch in items.chunks(BATCH_ITEMS_MAX) {
            let columns = DemandColumns::from_histories(batch, history, horizon, self.shape.history_days_min);
            forecasts.extend(self.forecast_rows(&columns.rows(), device)?);
        }
        Ok(forecasts)
    }

    /// Does the same as [`Self::forecast`] for at most [`BATCH_ITEMS_MAX`] items, which were classified with the shape's
    /// `history_days_min`.
    pub(crate) fn forecast_rows(&self, items: &DemandRows<'_>, device: Device) -> Result<Vec<ItemForecast>> {
        let raw = self.raw_forecasts(items, device)?.into_iter().enumerate();
        Ok(raw.map(|(row, raw)| self.calibrated(&items.facts(row), &raw)).collect())
    }

    /// Returns the published forecast of an item.
    pub(crate) fn calibrated(&self, facts: &ItemFacts, raw: &RawItemForecast) -> ItemForecast {
        let calibration = &self.shape.calibration;
        let day = |raw: &RawForecast| calibration.apply(raw, ForecastSpan::Day, facts.pattern, facts.scale());
        ItemForecast {
            daily: raw.daily.iter().map(day).collect(),
            lead_time: calibration.apply(&raw.lead_time, ForecastSpan::LeadTime, facts.pattern, facts.lead_scale()),
        }
    }

    /// Returns the forecasts of at most [`BATCH_ITEMS_MAX`] items before calibration.
    pub(crate) fn raw_forecasts(&self, items: &DemandRows<'_>, device: Device) -> Result<Vec<RawItemForecast>> {
        let members = self.member_forecasts(items, device)?.into_iter().enumerate();
        Ok(members.map(|(row, members)| self.blended(&self.shape.blend, items.facts(row).pattern, members)).collect())
    }

    /// Combines what the members forecast of an item.
    pub(crate) fn blended(
        &self,
        blend: &DemandBlend,
        pattern: DemandPattern,
        members: MemberForecasts,
    ) -> RawItemForecast {
        let MemberForecasts { mut network, trees } = members;
        let Some(trees) = trees else { return network };
        let combine = |span: ForecastSpan, forecast: &mut RawForecast, trees: &Forecast| {
            if let RawForecast::Quantiles(quantiles) = forecast {
                *quantiles = blend.combine(span, pattern, quantiles, trees);
            }
        };
        for (day, trees) in network.daily.iter_mut().zip(&trees.daily) {
            combine(ForecastSpan::Day, day, trees);
        }
        combine(ForecastSpan::LeadTime, &mut network.lead_time, &trees.lead_time);
        network
    }

    /// Returns the forecasts of each member, of at most [`BATCH_ITEMS_MAX`] items.
    pub(crate) fn member_forecasts(&self, items: &DemandRows<'_>, device: Device) -> Result<Vec<MemberForecasts>> {
        let trees = self.tree_forecasts(items);
        let network = self.network_forecasts(items, device)?;
        Ok(network.into_iter().zip(trees).map(|(network, trees)| MemberForecasts { network, trees }).collect())
    }

    /// Returns the trees' forecasts of the items whose quantiles the network forecasts too.
    fn tree_forecasts(&self, items: &DemandRows<'_>) -> Vec<Option<TreeForecast>> {
        let Some(trees) = &self.trees else { return vec![None; items.len()] };
        let horizon = self.shape.horizon_days as usize;
        let wanted: Vec<usize> = (0..items.len()).filter(|&row| self.has_quantiles(&items.facts(row))).collect();
        let (mut days, mut lead_times) = (Vec::new(), Vec::new());
        for &row in &wanted {
            let inputs = TreeInputs::new(*items, row, &self.shape);
            (0..horizon).for_each(|ahead| inputs.append_day(ahead, &mut days));
            inputs.append_lead_time(items.lead_time_days[row].max(1) as usize, &mut lead_times);
        }
        let days = trees.days.forecasts(&days, TREE_DAY_INPUTS);
        let lead_times = trees.lead_times.forecasts(&lead_times, TREE_LEAD_TIME_INPUTS);
        let mut forecasts = vec![None; items.len()];
        for ((row, daily), lead_time) in wanted.into_iter().zip(days.chunks(horizon)).zip(lead_times) {
            let facts = items.facts(row);
            let daily = daily.iter().map(|day| day.map(|number| number * facts.scale())).collect();
            forecasts[row] =
                Some(TreeForecast { daily, lead_time: lead_time.map(|number| number * facts.lead_scale()) });
        }
        forecasts
    }

    /// Returns the network's forecasts of at most [`BATCH_ITEMS_MAX`] items.
    fn network_forecasts(&self, items: &DemandRows<'_>, device: Device) -> Result<Vec<RawItemForecast>> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let horizon = self.shape.horizon_days as usize;
        let lead_days: Vec<i64> = items.lead_time_days.iter().map(|&days| days.into()).collect();
        let inputs = items.inputs(&lead_days, &self.shape)?.to(device)?;
        let (day_outputs, lead_outputs) = tch::no_grad(|| self.forward(&inputs, false))?;
        let days = OutputRows::read(&day_outputs)?;
        let leads = OutputRows::read(&lead_outputs)?;
        let mut forecasts = Vec::with_capacity(items.len());
        for row in 0..items.len() {
            let facts = items.facts(row);
            let source = self.source(&facts);
            let forecast = |outputs: &OutputRows, at: usize, span_days: i64| match source {
                ForecastSource::New => facts.fallback(self.shape.prior, span_days),
                // The dormant prior already describes the sales that follow such a history.
                ForecastSource::Dormant => self.shape.dormant_prior.predictive(0.0, 0.0, span_days),
                ForecastSource::Counts => outputs.counts(at),
                ForecastSource::Quantiles => outputs.quantiles(at),
            };
            forecasts.push(RawItemForecast {
                daily: (0..horizon).map(|day| forecast(&days, row * horizon + day, 1)).collect(),
                lead_time: forecast(&leads, row, facts.lead_time_days),
            });
        }
        Ok(forecasts)
    }
}

impl Head {
    fn new(path: &nn::Path, inputs: i64) -> Self {
        Self {
            hidden: nn::linear(path / "hidden", inputs, HIDDEN_WIDTH, Default::default()),
            quantiles: nn::linear(path / "quantiles", HIDDEN_WIDTH, FORECAST_NUMBERS as i64, Default::default()),
            counts: nn::linear(path / "counts", HIDDEN_WIDTH, COUNT_OUTPUTS as i64, Default::default()),
        }
    }

    /// `scale` broadcasts to the outputs and converts them into units of demand.
    fn forward(&self, inputs: &Tensor, scale: &Tensor) -> DemandOutputs {
        let hidden = self.hidden.forward(inputs).gelu("none");
        let raw = self.counts.forward(&hidden).softplus();
        let mean = raw.narrow(-1, 0, 1) * scale;
        // A lower bound of the size: below it, the variance exceeds a hundred times the squared mean and is meaningless.
        let counts = Tensor::cat(&[mean + 1e-6, raw.narrow(-1, 1, 1) + 0.01], -1);
        DemandOutputs { quantiles: monotone(&self.quantiles.forward(&hidden)) * scale, counts }
    }
}

/// Raw [.., 8] → mean and ascending quantiles: softplus for the mean and the first quantile, softplus increments for the
/// others.
fn monotone(raw: &Tensor) -> Tensor {
    let mean = raw.narrow(-1, 0, 1).softplus();
    let increments = raw.narrow(-1, 1, QUANTILE_LEVELS.len() as i64);
    // Shifted down, so that untrained networks start with narrow, low quantiles instead of steps of ln 2.
    let quantiles = (increments - 1.0).softplus().cumsum(-1, Kind::Float);
    Tensor::cat(&[mean, quantiles], -1)
}

/// The numbers of [`DemandOutputs`], row by row.
struct OutputRows {
    quantiles: Vec<f32>,
    counts: Vec<f32>,
}

impl OutputRows {
    fn read(outputs: &DemandOutputs) -> Result<Self> {
        let flat = |t: &Tensor| -> Result<Vec<f32>> {
            Ok(Vec::<f32>::try_from(&t.f_to_device(Device::Cpu)?.f_contiguous()?.f_view([-1])?)?)
        };
        Ok(Self { quantiles: flat(&outputs.quantiles)?, counts: flat(&outputs.counts)? })
    }

    fn quantiles(&self, row: usize) -> RawForecast {
        RawForecast::Quantiles(std::array::from_fn(|k| self.quantiles[row * FORECAST_NUMBERS + k].into()))
    }

    fn counts(&self, row: usize) -> RawForecast {
        let mean = self.counts[row * COUNT_OUTPUTS].into();
        let size = self.counts[row * COUNT_OUTPUTS + 1].into();
        RawForecast::Counts { mean, size }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::networks::DemandNetworkName;
    use crate::model::demand::calibration::{Calibration, MeanFactors};
    use crate::model::demand::history::tests::item;

    /// One item each: fast, empty, slow, dormant, new.
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
    fn every_network_gives_ordered_forecasts_and_equal_batches() {
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
    fn only_slow_items_are_forecast_in_whole_units() {
        let store = nn::VarStore::new(Device::Cpu);
        let network = DemandNetwork::new(&store.root(), &DemandShape::tiny(DemandNetworkName::Gru));
        let items = items();
        let sources: Vec<ForecastSource> = items.iter().map(|i| network.source(&i.facts(14))).collect();
        use ForecastSource::*;
        assert_eq!(sources, [Quantiles, New, Counts, Dormant, New]);
        let forecasts = network.forecast(&items, Device::Cpu).unwrap();
        let whole = |f: &ItemForecast| f.daily.iter().all(|d| d[1..].iter().all(|q| q.fract() == 0.0));
        assert!(whole(&forecasts[2]) && !whole(&forecasts[0]));
        let dormant = forecasts[3].lead_time;
        assert!((dormant[0] - 0.07).abs() < 1e-9 && dormant[1..] == [0.0; QUANTILE_LEVELS.len()], "{dormant:?}");
    }

    #[test]
    fn mean_factors_depend_on_the_source_and_keep_quantiles() {
        let store = nn::VarStore::new(Device::Cpu);
        let mut network = DemandNetwork::new(&store.root(), &DemandShape::tiny(DemandNetworkName::Gru));
        let items = items();
        let plain = network.forecast(&items, Device::Cpu).unwrap();
        let factors = |slow: f64| MeanFactors {
            of_network: [(DemandPattern::Fast, 2.0), (DemandPattern::Slow, 9.0)].into(),
            of_counts: [(DemandPattern::Slow, slow), (DemandPattern::New, 0.5), (DemandPattern::Fast, 9.0)].into(),
        };
        network.shape.calibration = Calibration { means: factors(3.0), lead_means: factors(4.0), ..Default::default() };
        let corrected = network.forecast(&items, Device::Cpu).unwrap();
        // In the order of `items`: fast, new, slow, dormant, new.
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
    fn category_content_and_planned_promotions_change_forecasts() {
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
        assert_eq!(without, mean(&|i| i.content = vec![1.0; 5]), "a vector of another dimension is ignored");
    }
}
