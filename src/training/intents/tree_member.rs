//! The trees that predict the intents and churn next to the network, from the same features of the same users.

use std::collections::BTreeMap;
use std::time::Instant;

use super::intent_data::IntentData;
use crate::config::{Config, TrainConfig};
use crate::failure::Result;
use crate::model::targets::{BINARY, LABELS, TARGETS};
use crate::model::trees::{Ensemble, IntentTrees};
use crate::training::datasets::{BlockRows, Split, UserBlocks, UserColumns, is_in_share};
use crate::training::trees::{LightGbm, Objective, TreeData, TreeSettings, boost};

/// With fewer rows of either class there is nothing to learn from.
const CLASS_ROWS_MIN: usize = 10;
/// Validation rows of either class below which the number of trees is not chosen by them.
const VALID_ROWS_MIN: usize = 5;
/// The number of trees where validation rows don't choose it.
const ROUNDS_UNVALIDATED: u32 = 40;
/// One in so many bytes of `train.memory_bytes_max` holds features. They are copied once, and the library needs a quarter of them.
const MEMORY_SHARE: u64 = 8;

/// The trees of a training.
pub(super) struct TrainedTrees {
    /// Learnt from the older dates: the blend and the figures are theirs, on users and dates that they have not seen.
    pub(super) judged: IntentTrees,
    /// Learnt from the held-out users and dates too, with as many trees as the others have: these go into the bundle.
    pub(super) published: IntentTrees,
}

/// Trains trees for each binary target whose label has both classes. Returns them with the number of trees of each target.
pub(super) fn train(data: IntentData<'_>, config: &Config) -> Result<(TrainedTrees, BTreeMap<String, f64>)> {
    let clock = Instant::now();
    let library = LightGbm::open(&config.train)?;
    let features = data.statistics.scaling.mean.len();
    let rows_max = rows_max(&config.train, features);
    let share = config.train.labels_share;
    let in_share = |users: &UserColumns, row: usize| is_in_share(users.id(row), share);
    let mut rows = Rows::default();
    rows.read(data.train, rows_max, in_share, &[Split::Train])?;
    let mut valid = Rows::default();
    valid.read(data.held_out, rows_max, |_, _| true, &[Split::Valid])?;
    // The published trees have the same size as these, whose number and weights they take over.
    let settings = TreeSettings::for_rows(Objective::Binary, rows.len(), config.train.seed);
    let judged = ensembles(&library, [&rows, &valid], features, settings, None)?;
    let counts: [usize; BINARY] = std::array::from_fn(|at| judged[at].as_ref().map_or(0, |e| e.trees().len()));
    drop(valid);
    // The newest rows first, so that they are not what a bound of memory leaves out.
    rows = Rows::default();
    rows.read(data.newest, rows_max, in_share, &[Split::Train])?;
    rows.read(data.held_out, rows_max, in_share, &[Split::Valid, Split::Test])?;
    rows.read(data.train, rows_max, in_share, &[Split::Train])?;
    let published = ensembles(&library, [&rows, &Rows::default()], features, settings, Some(counts))?;
    let mut figures: BTreeMap<String, f64> =
        TARGETS.iter().zip(counts).map(|(target, count)| (format!("trees_{}", target.name), count as f64)).collect();
    figures.insert("train_seconds_trees".into(), clock.elapsed().as_secs_f64());
    let [judged, published] = [judged, published].map(|ensembles| IntentTrees::new(features, ensembles));
    Ok((TrainedTrees { judged, published }, figures))
}

/// Boosts the trees of each target; `counts` are the numbers of trees where validation has chosen them before.
fn ensembles(
    library: &LightGbm,
    [train, valid]: [&Rows; 2],
    features: usize,
    settings: TreeSettings,
    counts: Option<[usize; BINARY]>,
) -> Result<[Option<Ensemble>; BINARY]> {
    let mut ensembles = [const { None }; BINARY];
    // Labels of several targets are known of the same rows, which the library then reads once.
    let mut known: Option<Known<'_>> = None;
    for (target, ensemble) in ensembles.iter_mut().enumerate() {
        let count = counts.map(|counts| counts[target]);
        if count == Some(0) {
            continue;
        }
        let rows = [train.known(target), valid.known(target)];
        if known.as_ref().is_none_or(|known| known.rows != rows) {
            // The rows of another target are freed before the next ones are copied.
            drop(known.take());
            known = Some(Known::new(library, [train, valid], rows, features, settings)?);
        }
        if let Some(known) = &known {
            *ensemble = known.boost(target, [train, valid], count)?;
        }
    }
    Ok(ensembles)
}

/// Rows whose features fit into their share of the memory.
fn rows_max(settings: &TrainConfig, features: usize) -> usize {
    let row_bytes = (features.max(1) * size_of::<f32>()) as u64;
    usize::try_from(settings.memory_bytes_max / MEMORY_SHARE / row_bytes).unwrap_or(usize::MAX).max(1)
}

/// Features, row-major [rows, features], and labels, row-major [rows, binary targets].
#[derive(Default)]
struct Rows {
    tabular: Vec<f32>,
    labels: Vec<f32>,
}

impl Rows {
    /// Adds the wanted rows of some splits until there are `rows_max`, the first ones: ids are spread over the blocks at random.
    fn read(
        &mut self,
        users: &UserBlocks,
        rows_max: usize,
        wanted: impl Fn(&UserColumns, usize) -> bool,
        splits: &[Split],
    ) -> Result<()> {
        for window in users.each_window() {
            let window = window?;
            let features = window.features();
            for row in splits.iter().flat_map(|&split| window.rows_in(split)) {
                if self.len() >= rows_max {
                    return Ok(());
                }
                if wanted(&window, row) {
                    self.tabular.extend(&window.tabular()[row * features..(row + 1) * features]);
                    self.labels.extend(&window.labels()[row * LABELS.len()..row * LABELS.len() + BINARY]);
                }
            }
        }
        Ok(())
    }

    fn len(&self) -> usize {
        self.labels.len() / BINARY
    }

    fn label(&self, row: usize, target: usize) -> f32 {
        self.labels[row * BINARY + target]
    }

    /// The rows of which a label is known.
    fn known(&self, target: usize) -> Vec<usize> {
        (0..self.len()).filter(|&row| !self.label(row, target).is_nan()).collect()
    }

    fn features_of(&self, rows: &[usize], features: usize) -> Vec<f32> {
        rows.iter().flat_map(|&row| &self.tabular[row * features..(row + 1) * features]).copied().collect()
    }

    /// The labels of some rows, and whether both classes have at least so many of them.
    fn labels_of(&self, rows: &[usize], target: usize, class_rows_min: usize) -> (Vec<f32>, bool) {
        let labels: Vec<f32> = rows.iter().map(|&row| f32::from(u8::from(self.label(row, target) > 0.5))).collect();
        let positives = labels.iter().filter(|&&label| label > 0.5).count();
        let enough = positives.min(labels.len() - positives) >= class_rows_min;
        (labels, enough)
    }
}

/// The training and validation rows of which a label is known, in the library's memory.
struct Known<'a> {
    rows: [Vec<usize>; 2],
    train: TreeData<'a>,
    valid: Option<TreeData<'a>>,
    settings: TreeSettings,
}

impl<'a> Known<'a> {
    fn new(
        library: &'a LightGbm,
        [train, valid]: [&Rows; 2],
        rows: [Vec<usize>; 2],
        features: usize,
        settings: TreeSettings,
    ) -> Result<Self> {
        let [train_rows, valid_rows] = &rows;
        let train = TreeData::new(library, &train.features_of(train_rows, features), features, &settings, None)?;
        let valid = match valid_rows.is_empty() {
            true => None,
            false => {
                let tabular = valid.features_of(valid_rows, features);
                Some(TreeData::new(library, &tabular, features, &settings, Some(&train))?)
            }
        };
        Ok(Self { rows, train, valid, settings })
    }

    /// Boosts a target's trees: `count`, or as many as the validation rows choose. `None` where a class has too few rows.
    fn boost(&self, target: usize, [train, valid]: [&Rows; 2], count: Option<usize>) -> Result<Option<Ensemble>> {
        let (labels, enough) = train.labels_of(&self.rows[0], target, CLASS_ROWS_MIN);
        if !enough {
            return Ok(None);
        }
        let (valid_labels, valid_enough) = valid.labels_of(&self.rows[1], target, VALID_ROWS_MIN);
        let ensemble = match &self.valid {
            Some(data) if valid_enough => boost(&self.train, &labels, Some((data, &valid_labels)), &self.settings)?,
            _ => {
                let rounds_max = count.map_or(ROUNDS_UNVALIDATED, |count| count as u32);
                let settings = TreeSettings { rounds_max, ..self.settings };
                boost(&self.train, &labels, None, &settings)?
            }
        };
        Ok(Some(ensemble))
    }
}
