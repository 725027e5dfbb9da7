//! Losses of the demand network: pinball on quantiles, likelihoods of means and counts, over days and over lead times.

use tch::{Kind, Tensor};

use super::item_batches::{ItemBatch, ObservedDemand};
use crate::failure::Result;
use crate::model::demand::{DemandNetwork, DemandOutputs, QUANTILE_LEVELS};
use crate::model::losses;

/// Weight of the likelihoods of means and counts against the pinball loss.
const LIKELIHOOD_WEIGHT: f64 = 0.1;

/// Losses before the division by their weights, so that those of the parts of a set add up.
pub(crate) struct DemandLosses {
    days: WeightedSum,
    day_counts: WeightedSum,
    lead_times: WeightedSum,
    lead_time_counts: WeightedSum,
}

/// A weighted sum of losses, and the sum of the weights.
#[derive(Debug)]
struct WeightedSum {
    sum: Tensor,
    weight: Tensor,
}

impl WeightedSum {
    fn new(loss: Tensor, weight: &Tensor) -> Self {
        Self { sum: (loss * weight).sum(Kind::Float), weight: weight.sum(Kind::Float) }
    }

    fn plus(&self, other: &Self) -> Self {
        Self { sum: &self.sum + &other.sum, weight: &self.weight + &other.weight }
    }

    fn mean(&self) -> Tensor {
        &self.sum / self.weight.clamp_min(1e-6)
    }
}

impl DemandLosses {
    pub(crate) fn new(network: &DemandNetwork, batch: &ItemBatch, train: bool) -> Result<Self> {
        let (daily, total) = network.forward(&batch.inputs, train)?;
        let [days, day_counts] = outlook_losses(&daily, &batch.days)?;
        let [lead_times, lead_time_counts] = outlook_losses(&total, &batch.lead_times)?;
        Ok(Self { days, day_counts, lead_times, lead_time_counts })
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        Self {
            days: self.days.plus(&other.days),
            day_counts: self.day_counts.plus(&other.day_counts),
            lead_times: self.lead_times.plus(&other.lead_times),
            lead_time_counts: self.lead_time_counts.plus(&other.lead_time_counts),
        }
    }

    /// The loss as one number.
    pub(crate) fn mean(&self) -> Tensor {
        self.days.mean()
            + self.lead_times.mean()
            + (self.day_counts.mean() + self.lead_time_counts.mean()) * LIKELIHOOD_WEIGHT
    }
}

/// Losses of the quantiles and of the counts. Quantiles are [.., 8], counts [.., 2], observations [..].
fn outlook_losses(outlook: &DemandOutputs, observed: &ObservedDemand) -> Result<[WeightedSum; 2]> {
    let level_values: Vec<f32> = QUANTILE_LEVELS.iter().map(|&l| l as f32).collect();
    let levels = Tensor::f_from_slice(&level_values)?.f_to_device(observed.units.device())?;
    let quantiles = outlook.quantiles.narrow(-1, 1, QUANTILE_LEVELS.len() as i64);
    let units = &observed.units;
    let pinball = losses::pinball(&quantiles, &units.unsqueeze(-1), &levels).mean_dim(-1i64, false, Kind::Float);
    let poisson = losses::poisson(&(outlook.quantiles.select(-1, 0) + 1e-4), units);
    let counts = losses::negative_binomial(&outlook.counts.select(-1, 0), &outlook.counts.select(-1, 1), units);
    Ok([
        WeightedSum::new(pinball + poisson * LIKELIHOOD_WEIGHT, &observed.weight),
        WeightedSum::new(counts, &observed.slow_weight),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::networks::DemandNetworkName;
    use crate::model::demand::history::tests::item;
    use crate::model::demand::{DemandShape, ForecastSource};
    use crate::training::datasets::item_columns::tests::columns;
    use crate::training::datasets::{BlockRows, ItemColumns, LabelledItems};
    use tch::{Device, nn};

    const OUT_OF_STOCK: usize = 2;

    /// A fast item and a slow one, both out of stock on the third of five days.
    fn labelled() -> LabelledItems {
        let slow: Vec<f64> = (0..28).map(|day| if day % 9 == 0 { 1.0 } else { 0.0 }).collect();
        let mut items = vec![item(&[3.0; 28]), item(&slow)];
        items.iter_mut().for_each(|item| item.days_since_first_seen = 28);
        let in_stock = (0..5).map(|day| day != OUT_OF_STOCK).collect::<Vec<bool>>();
        LabelledItems { items, units: vec![vec![2.0, 3.0, 1.0, 4.0, 3.0]; 2], in_stock: vec![in_stock; 2] }
    }

    #[test]
    fn losses_of_parts_add_up_to_the_loss_of_the_whole() {
        tch::manual_seed(5);
        let store = nn::VarStore::new(Device::Cpu);
        let network = DemandNetwork::new(&store.root(), &DemandShape::tiny(DemandNetworkName::Gru));
        let all = columns(&labelled());
        let losses = |items: &ItemColumns| {
            let batch = ItemBatch::new(items, &vec![2; items.len()], &network.shape).unwrap();
            DemandLosses::new(&network, &batch, false).unwrap()
        };
        let mut parts = all.chunks(1).map(|part| losses(&part));
        let joined = parts.next().unwrap().plus(&parts.next().unwrap()).mean().double_value(&[]);
        assert!((joined - losses(&all).mean().double_value(&[])).abs() < 1e-5, "{joined}");
    }

    /// Sales of a day without stock are not its demand: neither that day nor a lead time over it may train the network.
    #[test]
    fn only_days_in_stock_change_the_loss() {
        tch::manual_seed(3);
        let store = nn::VarStore::new(Device::Cpu);
        let network = DemandNetwork::new(&store.root(), &DemandShape::tiny(DemandNetworkName::Gru));
        assert!(
            network.source(&labelled().items[1].facts(14)) == ForecastSource::Counts,
            "one item has a likelihood of counts"
        );
        let loss_and_slope = |labelled: &LabelledItems, lead_days: [i64; 2]| {
            let batch = ItemBatch::new(&columns(labelled), &lead_days, &network.shape).unwrap();
            let loss = DemandLosses::new(&network, &batch, false).unwrap().mean();
            let weights = store.trainable_variables();
            weights.iter().for_each(|weight| weight.shallow_clone().zero_grad());
            loss.backward();
            let slopes = weights.iter().map(|weight| weight.grad().abs().sum(Kind::Double).double_value(&[]));
            (loss.double_value(&[]), slopes.sum::<f64>())
        };
        // Lead times that end before the day, and that include it.
        for lead_days in [[2, 2], [5, 4]] {
            let before = loss_and_slope(&labelled(), lead_days);
            assert!(before.0.is_finite() && before.1 > 0.0, "{before:?}");
            for day in 0..5 {
                let mut other = labelled();
                other.units.iter_mut().for_each(|units| units[day] += 7.0);
                let after = loss_and_slope(&other, lead_days);
                assert_eq!(
                    after == before,
                    day == OUT_OF_STOCK,
                    "day {day}, lead times {lead_days:?}: {before:?} {after:?}"
                );
            }
        }
        let mut stocked = labelled();
        stocked.in_stock.iter_mut().for_each(|days| days[OUT_OF_STOCK] = true);
        assert_ne!(loss_and_slope(&stocked, [2, 2]).0, loss_and_slope(&labelled(), [2, 2]).0);
    }
}
