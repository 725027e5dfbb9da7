//! Provides pictures to `training::labelled`: batches of crops, flipped and moved as configured, and their vectors by
//! the encoder.

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use tch::{Device, Tensor};

use super::table_pictures::TablePictures;
use crate::config::networks::ImageAugmentation;
use crate::failure::Result;
use crate::model::labels::LabelHead;
use crate::model::vision::{ImageNetwork, Preprocess};
use crate::training::labelled::{InputBuilder, RowEncoder};

/// After this number of batches, the initial running statistics have a weight of a twentieth.
const WARMUP_BATCHES: usize = 30;

/// A network with its head, and the pictures of all rows.
pub(crate) struct ImageRows<'a> {
    pub(crate) network: &'a ImageNetwork,
    pub(crate) head: &'a LabelHead,
    pub(crate) crops: CropBuilder,
    /// True if batch normalisation in training uses the statistics of the batch instead of the running ones.
    pub(crate) uses_batch_statistics: bool,
    pub(crate) batch_rows: usize,
    pub(crate) device: Device,
}

/// Cuts crops out of the pictures.
#[derive(Clone)]
pub(crate) struct CropBuilder {
    pub(crate) pictures: Arc<TablePictures>,
    pub(crate) preprocess: Preprocess,
    pub(crate) augmentation: ImageAugmentation,
}

impl InputBuilder for CropBuilder {
    /// Augmented crops: uint8 [rows, 3, crop, crop].
    type Inputs = Tensor;

    fn build(&self, rows: &[usize], rng: &mut ChaCha8Rng) -> Result<Tensor> {
        let Preprocess { resize, crop, .. } = self.preprocess;
        let squares = self.pictures.squares(rows)?;
        let moves = matches!(self.augmentation, ImageAugmentation::Crop | ImageAugmentation::Both);
        let flips = matches!(self.augmentation, ImageAugmentation::Flip | ImageAugmentation::Both);
        let mut crops = Vec::with_capacity(rows.len());
        for index in 0..rows.len() {
            let mut start = || if moves { rng.random_range(0..=resize - crop) } else { self.preprocess.margin() };
            let top = start();
            let left = start();
            let picture = squares.f_select(0, index as i64)?.f_narrow(1, top, crop)?.f_narrow(2, left, crop)?;
            crops.push(if flips && rng.random_bool(0.5) { picture.f_flip([2])? } else { picture });
        }
        Ok(Tensor::f_stack(&crops, 0)?)
    }
}

impl CropBuilder {
    /// Returns the centres of some pictures, uint8 [rows, 3, crop, crop], as scoring uses them.
    fn centre_crops(&self, rows: &[usize]) -> Result<Tensor> {
        let margin = self.preprocess.margin();
        let crop = self.preprocess.crop;
        Ok(self.pictures.squares(rows)?.f_narrow(2, margin, crop)?.f_narrow(3, margin, crop)?)
    }
}

impl ImageRows<'_> {
    fn vectors(&self, levels: &Tensor, uses_batch_statistics: bool) -> Result<Tensor> {
        let on_device = levels.f_to_device(self.device)?;
        self.network.features(&self.crops.preprocess.normalise(&on_device)?, uses_batch_statistics)
    }

    /// Moves the running statistics of random weights to those of the pictures. A head fitted on the initial ones would
    /// see others in the first epoch.
    pub(crate) fn warm_up_statistics(&self, rows: &[usize], rng: &mut ChaCha8Rng) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let batches = self.group_rows(rows, rng);
        for batch in batches.iter().cycle().take(WARMUP_BATCHES) {
            let _ = self.training_vectors(&self.crops.build(batch, rng)?)?;
        }
        Ok(())
    }
}

impl RowEncoder for ImageRows<'_> {
    type Builder = CropBuilder;

    fn input_builder(&self) -> CropBuilder {
        self.crops.clone()
    }

    fn name(&self) -> &'static str {
        "image"
    }

    fn head(&self) -> &LabelHead {
        self.head
    }

    fn device(&self) -> Device {
        self.device
    }

    fn group_rows(&self, rows: &[usize], rng: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
        let mut shuffled = rows.to_vec();
        shuffled.shuffle(rng);
        cut_evenly(&shuffled, self.batch_rows)
    }

    fn training_vectors(&self, crops: &Tensor) -> Result<Tensor> {
        self.vectors(crops, self.uses_batch_statistics)
    }

    fn map_vectors(&self, rows: &[usize], compute: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let mut computed = Vec::new();
        for batch in rows.chunks(self.batch_rows) {
            let vectors = self.vectors(&self.crops.centre_crops(batch)?, false)?;
            computed.push(compute(&vectors)?.f_to_device(Device::Cpu)?);
        }
        Ok(Tensor::f_cat(&computed, 0)?)
    }
}

/// Cuts rows into batches of at most `rows_max` whose sizes differ by at most one: a batch of one row would have no
/// statistics.
fn cut_evenly(rows: &[usize], rows_max: usize) -> Vec<Vec<usize>> {
    let batches = rows.len().div_ceil(rows_max).max(1);
    let bound = |batch: usize| rows.len() * batch / batches;
    (0..batches).map(|batch| rows[bound(batch)..bound(batch + 1)].to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_batch_has_only_one_row() {
        for rows in 20..200 {
            let all: Vec<usize> = (0..rows).collect();
            for rows_max in [4, 7, 32] {
                let batches = cut_evenly(&all, rows_max);
                assert_eq!(batches.concat(), all);
                let sizes = batches.iter().map(Vec::len);
                assert!(sizes.clone().all(|size| (2..=rows_max).contains(&size)), "{rows} {rows_max}");
                assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
            }
        }
    }
}
