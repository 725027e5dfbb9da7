//! The training task of the demand network.

use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use tch::Device;

use super::demand_losses::DemandLosses;
use super::item_batches::{BATCH_ITEMS, ItemBatch, ItemBatchBuilder};
use crate::failure::Result;
use crate::model::demand::{BATCH_ITEMS_MAX, DemandNetwork};
use crate::training::datasets::{BlockRows, ItemBlocks, ItemColumns};
use crate::training::fitting::{BatchLoss, Batches, Epoch, EpochSize, TrainingTask, Validation, batches_of_blocks};

pub(crate) struct DemandTask<'a> {
    pub(crate) network: &'a DemandNetwork,
    pub(crate) items: &'a Arc<ItemBlocks>,
    /// Items of one epoch.
    pub(crate) samples: usize,
    /// The validation set; may be empty, and a refit has none.
    pub(crate) validation: Option<ItemColumns>,
    pub(crate) device: Device,
    /// Set where the network continues on all dates.
    pub(crate) refit: bool,
}

impl TrainingTask for DemandTask<'_> {
    type Batch = ItemBatch;

    fn name(&self) -> &'static str {
        if self.refit { "demand_refit" } else { "demand" }
    }

    fn samples_per_epoch(&self) -> usize {
        self.samples
    }

    fn batch_samples(&self, batch: &ItemBatch) -> usize {
        batch.items
    }

    fn batches(&self, epoch: Epoch) -> Result<Batches<ItemBatch>> {
        let size = EpochSize { batch_rows_max: BATCH_ITEMS, samples_max: self.samples };
        batches_of_blocks(self.items, ItemBatchBuilder(self.network.shape.clone()), size, epoch)
    }

    fn loss(&mut self, batch: &ItemBatch, _: &mut ChaCha8Rng) -> Result<BatchLoss> {
        Ok(DemandLosses::new(self.network, &batch.to(self.device)?, true)?.mean().into())
    }

    fn describe_batch(&self, batch: &ItemBatch) -> String {
        format!("{} items, the first {}", batch.items, batch.first_item)
    }

    fn validate(&mut self) -> Result<Option<Validation>> {
        let _guard = tch::no_grad_guard();
        let shape = &self.network.shape;
        let mut total: Option<DemandLosses> = None;
        for items in self.validation.iter().flat_map(|items| items.chunks(BATCH_ITEMS_MAX)) {
            let lead_days: Vec<i64> =
                items.item_rows().lead_time_days.iter().map(|&days| i64::from(days).min(shape.horizon_days)).collect();
            let batch = ItemBatch::new(&items, &lead_days, shape)?.to(self.device)?;
            let losses = DemandLosses::new(self.network, &batch, false)?;
            total = Some(match total {
                Some(total) => total.plus(&losses),
                None => losses,
            });
        }
        Ok(total.map(|losses| Validation { loss: losses.mean().double_value(&[]), figures: vec![] }))
    }
}
