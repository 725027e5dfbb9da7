//! Batches of items: the inputs of the demand network and what was observed afterwards.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

use crate::failure::Result;
use crate::model::demand::DemandShape;
use crate::model::demand::inputs::DemandInputs;
use crate::training::datasets::{BlockRows, ItemColumns, training_rows};
use crate::training::fitting::BatchBuilder;

pub(crate) const BATCH_ITEMS: usize = 64;

/// Inputs and observations of some items.
pub(crate) struct ItemBatch {
    pub(crate) first_item: String,
    pub(crate) items: usize,
    pub(crate) inputs: DemandInputs,
    /// Demand on each day of the horizon, [items, horizon].
    pub(crate) days: ObservedDemand,
    /// Demand over each lead time, [items].
    pub(crate) lead_times: ObservedDemand,
}

impl ItemBatch {
    /// `lead_days` has a lead time for each item, between 1 day and the horizon.
    pub(crate) fn new(items: &ItemColumns, lead_days: &[i64], shape: &DemandShape) -> Result<Self> {
        let inputs = items.item_rows().inputs(lead_days, shape)?;
        let [units, in_stock] = items.outcome_tensors()?;
        let weights = ItemWeights {
            scale: inputs.scale.pow_tensor_scalar(-0.5),
            slow: inputs.scale.lt(shape.slow_units_per_day).to_kind(Kind::Float),
        };
        let lead_times = ObservedDemand::over_lead_times(&units, &in_stock, lead_days, &weights)?;
        let days = ObservedDemand::of_days(units, &in_stock, &weights);
        Ok(Self { first_item: items.id(0).to_string(), items: items.len(), inputs, days, lead_times })
    }

    pub(crate) fn to(&self, device: Device) -> Result<Self> {
        Ok(Self {
            first_item: self.first_item.clone(),
            items: self.items,
            inputs: self.inputs.to(device)?,
            days: self.days.to(device)?,
            lead_times: self.lead_times.to(device)?,
        })
    }
}

/// Observed demand, and the weight of each number in the loss. Days out of stock, and lead times with such a day, have no
/// weight: demand is unknown then.
pub(crate) struct ObservedDemand {
    pub(crate) units: Tensor,
    pub(crate) weight: Tensor,
    /// Weight of slow items, which get quantiles of counts; zero for others.
    pub(crate) slow_weight: Tensor,
}

/// Weights of items, float32 [items, 1] both.
struct ItemWeights {
    /// One over the square root of the item's scale: losses are in units, so large items still weigh more.
    scale: Tensor,
    /// 1 for a slow item, else 0.
    slow: Tensor,
}

impl ObservedDemand {
    /// Demand on each day, [items, horizon].
    fn of_days(units: Tensor, in_stock: &Tensor, weights: &ItemWeights) -> Self {
        Self { weight: in_stock * &weights.scale, slow_weight: in_stock * &weights.slow, units }
    }

    /// Demand over each lead time, [items].
    fn over_lead_times(units: &Tensor, in_stock: &Tensor, lead_days: &[i64], weights: &ItemWeights) -> Result<Self> {
        let leads = Tensor::f_from_slice(lead_days)?.f_unsqueeze(1)?;
        let last = &leads - 1;
        let sums = units.f_cumsum(1, Kind::Double)?.f_gather(1, &last, false)?.to_kind(Kind::Float);
        let stocked = in_stock.f_cumprod(1, Kind::Float)?.f_gather(1, &last, false)?;
        let whole = stocked * leads.to_kind(Kind::Float).pow_tensor_scalar(-0.5);
        Ok(Self {
            units: sums.f_squeeze_dim(1)?,
            weight: (&whole * &weights.scale).f_squeeze_dim(1)?,
            slow_weight: (&whole * &weights.slow).f_squeeze_dim(1)?,
        })
    }

    fn to(&self, device: Device) -> Result<Self> {
        Ok(Self {
            units: self.units.f_to_device(device)?,
            weight: self.weight.f_to_device(device)?,
            slow_weight: self.slow_weight.f_to_device(device)?,
        })
    }
}

/// Builds batches of random items, each with a random lead time.
pub(crate) struct ItemBatchBuilder(pub(crate) DemandShape);

impl BatchBuilder for ItemBatchBuilder {
    type Rows = ItemColumns;
    type Batch = ItemBatch;

    fn select_rows(&mut self, window: &ItemColumns) -> Vec<usize> {
        training_rows(window)
    }

    fn build(&self, window: &ItemColumns, rows: &[usize], rng: &mut ChaCha8Rng) -> Result<ItemBatch> {
        let lead_days: Vec<i64> = rows.iter().map(|_| rng.random_range(1..=self.0.horizon_days)).collect();
        ItemBatch::new(&window.take(rows)?, &lead_days, &self.0)
    }
}
