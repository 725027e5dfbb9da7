//! How a classifier of texts is taught, by the loop that all trainings share, and the figures on its test rows.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

use super::goal::Goal;
use crate::config::Config;
use crate::failure::Result;
use crate::metrics::{auc, bootstrap_interval, f1};
use crate::model::text::classifier::{TextClassifier, TextLabels};
use crate::model::text::encoder;
use crate::training::fit::{self, Batches, Lesson, Loss, Stepping, Validation};
use crate::training::table::lesson::{BOOTSTRAP_ROUNDS, binary_figures};

/// Rows that are shuffled together before they are sorted by length: batches stay mixed, and padding small.
const POOL_ROWS: usize = 1024;
pub struct TextLesson<'a> {
    classifier: &'a TextClassifier,
    ids: &'a [Vec<i64>],
    goal: &'a Goal<'a>,
    train: &'a [usize],
    valid: &'a [usize],
    test: &'a [usize],
    config: &'a Config,
    stepping: Stepping,
    device: Device,
}

impl<'a> TextLesson<'a> {
    pub fn new(
        classifier: &'a TextClassifier,
        ids: &'a [Vec<i64>],
        goal: &'a Goal<'a>,
        [train, valid, test]: &'a [Vec<usize>; 3],
        (config, stepping, device): (&'a Config, Stepping, Device),
    ) -> Self {
        Self { classifier, ids, goal, train, valid, test, config, stepping, device }
    }

    fn tokens_max(&self) -> usize {
        self.config.text.batch_tokens_max as usize
    }

    fn ids_of(&self, rows: &[usize]) -> Vec<&'a [i64]> {
        let ids: &'a [Vec<i64>] = self.ids;
        rows.iter().map(|&row| ids[row].as_slice()).collect()
    }

    fn objective(&self, raw: &Tensor, rows: &[usize], smoothing: f64) -> Result<Tensor> {
        self.goal.loss((&self.classifier.head, raw), rows, smoothing, self.config.model.loss)
    }

    /// Raw scores without gradients, in batches, float32 [rows, labels] on the CPU.
    pub fn evaluated(&self, rows: &[usize]) -> Result<Tensor> {
        self.classifier.in_batches(&self.ids_of(rows), self.tokens_max(), |ids| self.classifier.raw(ids, false))
    }

    /// Of the test rows. Labels of their own: as a table's binary ones; several, also the mean of their AUCs, and the share
    /// of rows with all of them right. Classes: accuracy, F1 and AUC averaged over the classes, accuracy of the most
    /// frequent class. AUCs have 95 % intervals.
    pub fn figures(&self, column: &str, seed: u64) -> Result<BTreeMap<String, f64>> {
        let _guard = tch::no_grad_guard();
        let raw = self.evaluated(self.test)?;
        // The chain's weights lie on the device.
        let raw = raw.f_to_device(self.device)?;
        let by_label = |tensor: Tensor| -> Result<Vec<Vec<f64>>> {
            let columns = tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?.f_transpose(0, 1)?;
            Ok(Vec::<Vec<f64>>::try_from(columns.f_contiguous()?)?)
        };
        let probabilities = by_label(self.classifier.head.probabilities(&raw))?;
        let decoded = by_label(self.classifier.head.decode(&raw))?;
        let targets = self.goal.targets;
        let truths: Vec<Vec<bool>> = (0..targets.labels.len()).map(|label| targets.truth(label, self.test)).collect();
        let right = |row: usize| truths.iter().zip(&decoded).all(|(truth, got)| truth[row] == (got[row] > 0.5));
        let rows = self.test.len() as f64;
        let right = (0..self.test.len()).filter(|&row| right(row)).count() as f64 / rows;
        let mut figures = BTreeMap::new();
        if truths.len() > 1 {
            for (figure, value) in auc_macro(&probabilities, &truths, seed) {
                figures.insert(format!("{figure}_test_{column}"), value);
            }
        }
        if targets.kind == TextLabels::Single {
            let f1s = truths.iter().zip(&decoded).map(|(truth, decoded)| f1(decoded, truth, 0.5)).sum::<f64>();
            let of_class = |truth: &Vec<bool>| truth.iter().filter(|y| **y).count();
            let most = truths.iter().map(of_class).max().unwrap_or(0) as f64;
            figures.insert(format!("accuracy_test_{column}"), right);
            figures.insert(format!("f1_macro_test_{column}"), f1s / truths.len().max(1) as f64);
            figures.insert(format!("accuracy_of_most_frequent_test_{column}"), most / rows);
            return Ok(figures);
        }
        for (label, truth) in truths.iter().enumerate() {
            let name = &targets.labels[label];
            let mut put = |figure: &str, value: f64| {
                figures.insert(format!("{figure}_test_{name}"), value);
            };
            binary_figures(&probabilities[label], truth, seed, &mut put);
        }
        figures.insert("all_labels_right_test".into(), right);
        Ok(figures)
    }
}

/// The mean of the AUCs of all labels that have both values, with a 95 % interval over rows drawn with replacement.
fn auc_macro(probabilities: &[Vec<f64>], truths: &[Vec<bool>], seed: u64) -> Vec<(&'static str, f64)> {
    let rows = truths.first().map_or(0, Vec::len);
    let mean = |drawn: &[usize]| {
        let (mut sum, mut labels) = (0.0, 0.0);
        for (probabilities, truth) in probabilities.iter().zip(truths) {
            let of: Vec<f64> = drawn.iter().map(|&row| probabilities[row]).collect();
            let truth: Vec<bool> = drawn.iter().map(|&row| truth[row]).collect();
            if let Some(value) = auc(&of, &truth) {
                (sum, labels) = (sum + value, labels + 1.0);
            }
        }
        (labels > 0.0).then(|| sum / labels)
    };
    let all: Vec<usize> = (0..rows).collect();
    let Some(value) = mean(&all) else { return Vec::new() };
    let mut figures = vec![("auc_macro", value)];
    // What is drawn are the rows' numbers: the figure looks up what belongs to them.
    let numbers: Vec<f64> = all.iter().map(|&row| row as f64).collect();
    let of_drawn = |drawn: &[f64], _: &[bool]| mean(&drawn.iter().map(|&row| row as usize).collect::<Vec<_>>());
    if let Some((low, high)) = bootstrap_interval(&numbers, &vec![true; rows], of_drawn, BOOTSTRAP_ROUNDS, seed) {
        figures.extend([("auc_macro_low", low), ("auc_macro_high", high)]);
    }
    figures
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
        let raw = self.classifier.raw(&self.ids_of(batch), true)?;
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

    /// The head has learnt already: what fine-tuning only makes worse is not kept.
    fn start_counts(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

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
