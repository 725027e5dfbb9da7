//! Pictures as training reads them: batches of crops, flipped and moved where the settings say so, vectors by the encoder.

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use tch::{Device, Tensor};

use super::pictures::Pictures;
use crate::config::networks::ImageAugmentation;
use crate::failure::Result;
use crate::model::labels::LabelHead;
use crate::model::vision::{ImageNetwork, Preprocess};
use crate::training::labelled::{Making, Reader};

/// Batches by which running statistics become those of the pictures: what they began with is a twentieth then.
const SETTLING_BATCHES: usize = 30;

/// A network with its head, and the pictures of all rows.
pub struct ImageReader<'a> {
    pub network: &'a ImageNetwork,
    pub head: &'a LabelHead,
    pub crops: Crops,
    /// Whether batch normalisation in training goes by the batch, and not by the statistics that are kept.
    pub batch_statistics: bool,
    pub batch_rows: usize,
    pub device: Device,
}

/// Cuts crops out of the pictures.
#[derive(Clone)]
pub struct Crops {
    pub pictures: Arc<Pictures>,
    pub preprocess: Preprocess,
    pub augmentation: ImageAugmentation,
}

impl Making for Crops {
    /// With their augmentation, uint8 [rows, 3, crop, crop].
    type Inputs = Tensor;

    fn make(&self, rows: &[usize], rng: &mut ChaCha8Rng) -> Result<Tensor> {
        let Preprocess { resize, crop, .. } = self.preprocess;
        let squares = self.pictures.squares(rows)?;
        let moves = matches!(self.augmentation, ImageAugmentation::Crop | ImageAugmentation::Both);
        let flips = matches!(self.augmentation, ImageAugmentation::Flip | ImageAugmentation::Both);
        let mut crops = Vec::with_capacity(rows.len());
        for at in 0..rows.len() {
            let mut start = || if moves { rng.random_range(0..=resize - crop) } else { self.preprocess.margin() };
            let (top, left) = (start(), start());
            let one = squares.f_select(0, at as i64)?.f_narrow(1, top, crop)?.f_narrow(2, left, crop)?;
            crops.push(if flips && rng.random_bool(0.5) { one.f_flip([2])? } else { one });
        }
        Ok(Tensor::f_stack(&crops, 0)?)
    }
}

impl Crops {
    /// The centres of a batch, uint8 [rows, 3, crop, crop]: what SQL sees.
    fn centres(&self, rows: &[usize]) -> Result<Tensor> {
        let (margin, crop) = (self.preprocess.margin(), self.preprocess.crop);
        Ok(self.pictures.squares(rows)?.f_narrow(2, margin, crop)?.f_narrow(3, margin, crop)?)
    }
}

impl ImageReader<'_> {
    fn vectors(&self, levels: &Tensor, batch_statistics: bool) -> Result<Tensor> {
        let levels = levels.f_to_device(self.device)?;
        self.network.features(&self.crops.preprocess.normalise(&levels)?, batch_statistics)
    }

    /// Moves the running statistics of random weights to those of the pictures: a head that learns by those that a network
    /// begins with would meet others in the first epoch.
    pub fn settle(&self, rows: &[usize], rng: &mut ChaCha8Rng) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let batches = self.grouped(rows, rng);
        for batch in batches.iter().cycle().take(SETTLING_BATCHES) {
            let _ = self.learnt(&self.crops.make(batch, rng)?)?;
        }
        Ok(())
    }
}

impl Reader for ImageReader<'_> {
    type Making = Crops;

    fn making(&self) -> Crops {
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

    fn grouped(&self, rows: &[usize], rng: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
        let mut rows = rows.to_vec();
        rows.shuffle(rng);
        evenly(&rows, self.batch_rows)
    }

    fn learnt(&self, crops: &Tensor) -> Result<Tensor> {
        self.vectors(crops, self.batch_statistics)
    }

    fn in_batches(&self, rows: &[usize], part: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let mut parts = Vec::new();
        for batch in rows.chunks(self.batch_rows) {
            parts.push(part(&self.vectors(&self.crops.centres(batch)?, false)?)?.f_to_device(Device::Cpu)?);
        }
        Ok(Tensor::f_cat(&parts, 0)?)
    }
}

/// Batches of at most so many rows whose sizes differ by one at most: a last batch of one row would have no statistics.
fn evenly(rows: &[usize], most: usize) -> Vec<Vec<usize>> {
    let batches = rows.len().div_ceil(most).max(1);
    let bound = |batch: usize| rows.len() * batch / batches;
    (0..batches).map(|batch| rows[bound(batch)..bound(batch + 1)].to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_batch_is_left_with_one_row() {
        for rows in 20..200 {
            let all: Vec<usize> = (0..rows).collect();
            for most in [4, 7, 32] {
                let batches = evenly(&all, most);
                assert_eq!(batches.concat(), all);
                let sizes = batches.iter().map(Vec::len);
                assert!(sizes.clone().all(|size| (2..=most).contains(&size)), "{rows} {most}");
                assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
            }
        }
    }
}
