//! How a classifier of texts is taught, by the loop that all trainings share, and the figures on its test rows.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

use super::labels::TextTargets;
use crate::config::Config;
use crate::config::networks::{ClassWeights, LossName, TextStrategy};
use crate::failure::Result;
use crate::metrics::{auc, f1};
use crate::model::losses;
use crate::model::text::classifier::{TextClassifier, TextLabels};
use crate::model::text::encoder;
use crate::training::fit::{self, Batches, Lesson, Loss, Stepping, Validation};
use crate::training::table::lesson::binary_figures;

/// Rows that are shuffled together before they are sorted by length: batches stay mixed, and padding small.
const POOL_ROWS: usize = 1024;
/// No class weighs more than this, however rare.
const CLASS_WEIGHT_MAX: f64 = 50.0;

pub struct TextLesson<'a> {
    classifier: &'a TextClassifier,
    ids: &'a [Vec<i64>],
    targets: &'a TextTargets,
    train: &'a [usize],
    valid: &'a [usize],
    test: &'a [usize],
    config: &'a Config,
    stepping: Stepping,
    /// Of all rows, where the encoder does not change any more: [rows, width].
    vectors: Option<Tensor>,
    /// Of positives, or of classes: float32 [labels].
    weights: Option<Tensor>,
    device: Device,
}

impl<'a> TextLesson<'a> {
    pub fn new(
        classifier: &'a TextClassifier,
        ids: &'a [Vec<i64>],
        targets: &'a TextTargets,
        [train, valid, test]: &'a [Vec<usize>; 3],
        (config, stepping, device): (&'a Config, Stepping, Device),
    ) -> Result<Self> {
        let mut lesson = Self {
            classifier,
            ids,
            targets,
            train,
            valid,
            test,
            config,
            stepping,
            vectors: None,
            weights: None,
            device,
        };
        if config.model.class_weights == ClassWeights::Balanced {
            lesson.weights = Some(Tensor::f_from_slice(&lesson.balanced())?.f_to_device(device)?);
        }
        if config.text.strategy == TextStrategy::Frozen {
            let all: Vec<&[i64]> = ids.iter().map(Vec::as_slice).collect();
            let vectors = classifier.in_batches(&all, lesson.tokens_max(), |rows| classifier.vectors(rows, false))?;
            lesson.vectors = Some(vectors.f_to_device(device)?);
        }
        Ok(lesson)
    }

    fn tokens_max(&self) -> usize {
        self.config.text.batch_tokens_max as usize
    }

    /// As much more as positives (or texts of a class) are rarer in training.
    fn balanced(&self) -> Vec<f32> {
        let rows = self.train.len() as f64;
        let count = |label| self.targets.truth(label, self.train).iter().filter(|y| **y).count() as f64;
        let weight = |label| match self.targets.kind {
            TextLabels::Single => rows / (self.targets.labels.len() as f64 * f64::max(count(label), 1.0)),
            TextLabels::Multi | TextLabels::Chain => (rows - count(label)) / f64::max(count(label), 1.0),
        };
        let labels = 0..self.targets.labels.len();
        labels.map(|label| weight(label).clamp(1.0 / CLASS_WEIGHT_MAX, CLASS_WEIGHT_MAX) as f32).collect()
    }

    /// Raw scores of a batch, float32 [rows, labels].
    fn raw(&self, rows: &[usize], train: bool) -> Result<Tensor> {
        match &self.vectors {
            None => self.classifier.raw(&self.ids_of(rows), train),
            Some(vectors) => {
                let places: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
                let places = Tensor::f_from_slice(&places)?.f_to_device(self.device)?;
                self.classifier.head.raw(&vectors.f_index_select(0, &places)?, train)
            }
        }
    }

    fn ids_of(&self, rows: &[usize]) -> Vec<&'a [i64]> {
        let ids: &'a [Vec<i64>] = self.ids;
        rows.iter().map(|&row| ids[row].as_slice()).collect()
    }

    /// The same without gradients, in batches, on the CPU.
    pub fn evaluated(&self, rows: &[usize]) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        if self.vectors.is_some() {
            return Ok(self.raw(rows, false)?.f_to_device(Device::Cpu)?);
        }
        self.classifier.in_batches(&self.ids_of(rows), self.tokens_max(), |ids| self.classifier.raw(ids, false))
    }

    fn objective(&self, raw: &Tensor, rows: &[usize], smoothing: f64) -> Result<Tensor> {
        let ones = self.targets.of(rows)?.f_to_device(raw.device())?;
        let weights = self.weights.as_ref().map(|w| w.to_device(raw.device()));
        let classes = self.targets.labels.len() as f64;
        let model = &self.config.model;
        Ok(match self.targets.kind {
            TextLabels::Single => {
                let ones = ones * (1.0 - smoothing) + smoothing / classes;
                single(model.loss, model.focal_gamma, raw, &ones, weights.as_ref())
            }
            TextLabels::Multi => {
                let ones = ones * (1.0 - smoothing) + 0.5 * smoothing;
                match model.loss {
                    LossName::Bce | LossName::Crf => {
                        losses::cross_entropy(raw, &ones, weights.as_ref()).mean(Kind::Float)
                    }
                    LossName::Focal => losses::focal(raw, &ones, model.focal_gamma).mean(Kind::Float),
                    LossName::Iou => losses::soft_iou(raw, &ones).mean(Kind::Float),
                }
            }
            TextLabels::Chain => {
                let ones = ones * (1.0 - smoothing) + 0.5 * smoothing;
                self.classifier.head.surprise(raw, &ones).mean(Kind::Float)
            }
        })
    }

    /// Of the test rows. Labels of their own: as a table's binary ones. Classes: accuracy, F1 and AUC averaged over the
    /// classes, accuracy of the most frequent class. Several labels and chains: the share of rows with all of them right.
    pub fn figures(&self, column: &str, seed: u64) -> Result<BTreeMap<String, f64>> {
        let _guard = tch::no_grad_guard();
        let raw = self.evaluated(self.test)?;
        // The chain's weights lie on the device.
        let raw = raw.f_to_device(self.device)?;
        let on_cpu = |tensor: Tensor| -> Result<Vec<Vec<f64>>> {
            Ok(Vec::<Vec<f64>>::try_from(tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?)?)
        };
        let probabilities = on_cpu(self.classifier.head.probabilities(&raw))?;
        let decoded = on_cpu(self.classifier.head.decode(&raw))?;
        let truths: Vec<Vec<bool>> =
            (0..self.targets.labels.len()).map(|label| self.targets.truth(label, self.test)).collect();
        let right = |row: usize| truths.iter().zip(&decoded[row]).all(|(truth, got)| truth[row] == (*got > 0.5));
        let right = (0..self.test.len()).filter(|&row| right(row)).count() as f64 / self.test.len() as f64;
        let of = |rows: &[Vec<f64>], label: usize| rows.iter().map(|row| row[label]).collect::<Vec<f64>>();
        let mut figures = BTreeMap::new();
        if self.targets.kind == TextLabels::Single {
            let (mut f1s, mut aucs, mut most) = (Vec::new(), Vec::new(), 0);
            for (label, truth) in truths.iter().enumerate() {
                f1s.push(f1(&of(&decoded, label), truth, 0.5));
                aucs.extend(auc(&of(&probabilities, label), truth));
                most = most.max(truth.iter().filter(|y| **y).count());
            }
            let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
            figures.insert(format!("accuracy_test_{column}"), right);
            figures.insert(format!("f1_macro_test_{column}"), mean(&f1s));
            figures.insert(format!("auc_macro_test_{column}"), mean(&aucs));
            figures.insert(format!("accuracy_of_most_frequent_test_{column}"), most as f64 / self.test.len() as f64);
            return Ok(figures);
        }
        for (label, truth) in truths.iter().enumerate() {
            let name = &self.targets.labels[label];
            let mut put = |figure: &str, value: f64| {
                figures.insert(format!("{figure}_test_{name}"), value);
            };
            binary_figures(&of(&probabilities, label), truth, seed, &mut put);
        }
        figures.insert("all_labels_right_test".into(), right);
        Ok(figures)
    }
}

/// The losses of one label among several, by the names of those of independent labels.
fn single(loss: LossName, gamma: f64, raw: &Tensor, ones: &Tensor, weights: Option<&Tensor>) -> Tensor {
    let likelihood = raw.log_softmax(-1, Kind::Float);
    let sum = |each: Tensor| -> Tensor { -each.sum_dim_intlist(-1i64, false, None::<Kind>).mean(Kind::Float) };
    match loss {
        LossName::Bce | LossName::Crf => match weights {
            Some(weights) => sum(ones * likelihood * weights),
            None => sum(ones * likelihood),
        },
        LossName::Focal => {
            let missed: Tensor = 1.0 - likelihood.exp();
            sum(ones * missed.pow_tensor_scalar(gamma) * likelihood)
        }
        LossName::Iou => losses::soft_iou_of(&likelihood.exp(), ones).mean(Kind::Float),
    }
}

/// Rows in batches of at most so many padded tokens; which ones are together, and in which order, `rng` decides.
pub fn grouped(rows: &[usize], ids: &[Vec<i64>], tokens_max: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
    let mut rows = rows.to_vec();
    rows.shuffle(rng);
    let mut groups = Vec::new();
    for pool in rows.chunks(POOL_ROWS) {
        let lengths: Vec<usize> = pool.iter().map(|&row| ids[row].len()).collect();
        let batches = encoder::batches(&lengths, tokens_max).into_iter();
        groups.extend(batches.map(|batch| batch.into_iter().map(|place| pool[place]).collect::<Vec<usize>>()));
    }
    groups.shuffle(rng);
    groups
}

impl Lesson for TextLesson<'_> {
    type Batch = Vec<usize>;

    fn name(&self) -> &'static str {
        "text"
    }

    fn samples(&self) -> usize {
        self.train.len()
    }

    fn samples_of(&self, batch: &Vec<usize>) -> usize {
        batch.len()
    }

    fn batches(&self, mut rng: ChaCha8Rng, skip: u64) -> Result<Batches<Vec<usize>>> {
        Ok(fit::left(grouped(self.train, self.ids, self.tokens_max(), &mut rng), skip))
    }

    fn loss(&mut self, batch: &Vec<usize>, _: &mut ChaCha8Rng) -> Result<Loss> {
        let raw = self.raw(batch, true)?;
        Ok(self.objective(&raw, batch, self.config.train.label_smoothing)?.into())
    }

    fn describe(&self, batch: &Vec<usize>) -> String {
        format!("{} texts, the first is of row {}", batch.len(), batch.first().map_or(0, |row| row + 1))
    }

    fn validate(&mut self) -> Result<Option<Validation>> {
        let _guard = tch::no_grad_guard();
        let raw = self.evaluated(self.valid)?.f_to_device(self.device)?;
        let loss = self.objective(&raw, self.valid, 0.0)?;
        Ok(Some(Validation { loss: loss.double_value(&[]), figures: Vec::new() }))
    }

    fn stepping(&self) -> Stepping {
        self.stepping.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn value(loss: LossName, raw: &[f32], ones: &[f32]) -> f64 {
        let tensor = |values: &[f32]| Tensor::from_slice(values).view([-1, 3]);
        single(loss, 2.0, &tensor(raw), &tensor(ones), None).double_value(&[])
    }

    #[test]
    fn losses_of_single_labels_agree_with_plain_arithmetic() {
        let (raw, ones) = ([1.0f32, 2.0, -1.0, 0.0, 0.5, 0.0], [0.0f32, 1.0, 0.0, 1.0, 0.0, 0.0]);
        let p = |row: usize, label: usize| {
            let e = |k: usize| f64::from(raw[row * 3 + k]).exp();
            e(label) / (0..3).map(e).sum::<f64>()
        };
        let bce = -(p(0, 1).ln() + p(1, 0).ln()) / 2.0;
        assert!((value(LossName::Bce, &raw, &ones) - bce).abs() < 1e-6);
        let of = |p: f64| -(1.0 - p).powi(2) * p.ln();
        assert!((value(LossName::Focal, &raw, &ones) - (of(p(0, 1)) + of(p(1, 0))) / 2.0).abs() < 1e-6);
        let iou = |label: usize, truth: [f64; 2]| {
            let shared: f64 = (0..2).map(|row| p(row, label) * truth[row]).sum();
            let either: f64 = (0..2).map(|row| p(row, label) + truth[row] - p(row, label) * truth[row]).sum();
            1.0 - (shared + 1.0) / (either + 1.0)
        };
        let expected = (iou(0, [0.0, 1.0]) + iou(1, [1.0, 0.0]) + iou(2, [0.0, 0.0])) / 3.0;
        assert!((value(LossName::Iou, &raw, &ones) - expected).abs() < 1e-6);
    }

    #[test]
    fn every_row_is_in_one_group_and_the_seed_alone_decides_which() {
        let ids: Vec<Vec<i64>> = (0..3000).map(|i| vec![1; 1 + i % 17]).collect();
        let rows: Vec<usize> = (0..3000).step_by(2).collect();
        let groups = |seed| grouped(&rows, &ids, 64, &mut ChaCha8Rng::seed_from_u64(seed));
        let mut all = groups(1).concat();
        all.sort_unstable();
        assert_eq!(all, rows);
        assert!(groups(1) == groups(1) && groups(1) != groups(2));
        let padded = |group: &[usize]| group.len() * group.iter().map(|&row| ids[row].len()).max().unwrap();
        assert!(groups(1).iter().all(|group| padded(group) <= 64));
    }
}
