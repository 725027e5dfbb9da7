//! The trees that forecast demand next to the network, from numbers of the same histories.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use crate::config::TrainConfig;
use crate::failure::Result;
use crate::model::demand::tree_inputs::{TREE_DAY_INPUTS, TREE_LEAD_TIME_INPUTS, TreeInputs};
use crate::model::demand::{DemandNetwork, QUANTILE_LEVELS};
use crate::model::trees::{DemandTrees, FORECAST_NUMBERS, SpanTrees};
use crate::training::datasets::{BlockRows, ItemBlocks, ItemColumns, ItemDatasets, Split, split};
use crate::training::trees::{LightGbm, Objective, TreeData, TreeSettings, boost};

/// Days and lead times that trees learn from, at most. More take longer and change little.
const DAY_ROWS_MAX: f64 = 100_000.0;
const LEAD_TIME_ROWS_MAX: f64 = 50_000.0;
/// Lead times drawn for an item and date, at most.
const LEAD_TIMES_MAX: f64 = 4.0;
/// With fewer rows there is nothing to learn from.
const ROWS_MIN: usize = 200;
/// With fewer items neither.
const ITEMS_MIN: usize = 20;
/// With fewer validation rows the number of trees is not chosen by them.
const VALID_ROWS_MIN: usize = 100;
/// The number of trees where validation rows don't choose it.
const ROUNDS_UNVALIDATED: u32 = 60;

/// Numbers of trees of each number of a forecast, of days and of lead times.
type Counts = [[usize; FORECAST_NUMBERS]; 2];

/// Trains trees on the training dates, as many as validate best on the calibration dates. `None` where too few items have quantiles
/// from the network.
pub(super) fn train(
    network: &DemandNetwork,
    items: &ItemDatasets,
    config: &TrainConfig,
) -> Result<Option<(DemandTrees, BTreeMap<String, f64>)>> {
    let clock = Instant::now();
    let library = LightGbm::open(config)?;
    let is_valid = |items: &ItemColumns, row: usize| split(items.id(row)) == Split::Valid;
    // Sweeps compare by the validation items of the training dates, from which the trees must not learn.
    let train_rows = SpanRows::gather(network, &[&items.train], config.seed, |items, row| !is_valid(items, row))?;
    let valid_rows = match items.calibration.is_empty() {
        false => SpanRows::gather(network, &[&items.calibration], config.seed, |_, _| true)?,
        // Without calibration dates they choose the number of trees too.
        true => SpanRows::gather(network, &[&items.train], config.seed, is_valid)?,
    };
    if train_rows.iter().any(|rows| !rows.can_be_learnt()) {
        return Ok(None);
    }
    let trees = boost_all(&library, &train_rows, Some(&valid_rows), None, config.seed)?;
    let days = trees.days.0.iter().map(|ensemble| ensemble.trees().len()).sum::<usize>();
    let lead_times = trees.lead_times.0.iter().map(|ensemble| ensemble.trees().len()).sum::<usize>();
    let figures = BTreeMap::from([
        ("trees_demand_days".to_string(), days as f64),
        ("trees_demand_lead_times".to_string(), lead_times as f64),
        ("train_seconds_demand_trees".to_string(), clock.elapsed().as_secs_f64()),
    ]);
    Ok(Some((trees, figures)))
}

/// Trains trees on all dates, as many as `judged` has.
pub(super) fn refit(
    network: &DemandNetwork,
    items: &ItemDatasets,
    judged: &DemandTrees,
    config: &TrainConfig,
) -> Result<DemandTrees> {
    let library = LightGbm::open(config)?;
    let rows = SpanRows::gather(network, &[&items.train, &items.calibration, &items.test], config.seed, |_, _| true)?;
    if rows.iter().any(|rows| !rows.can_be_learnt()) {
        return Ok(judged.clone());
    }
    let counts = [&judged.days, &judged.lead_times].map(|span| span.0.each_ref().map(|e| e.trees().len()));
    boost_all(&library, &rows, None, Some(counts), config.seed)
}

fn boost_all(
    library: &LightGbm,
    train: &[SpanRows; 2],
    valid: Option<&[SpanRows; 2]>,
    counts: Option<Counts>,
    seed: u64,
) -> Result<DemandTrees> {
    let span = |at: usize| -> Result<SpanTrees> {
        let counts = counts.map(|counts| counts[at]);
        train[at].boost(
            library,
            valid.map(|valid| &valid[at]).filter(|rows| rows.len() >= VALID_ROWS_MIN),
            counts,
            seed,
        )
    };
    Ok(DemandTrees { days: span(0)?, lead_times: span(1)? })
}

/// Days or lead times with the demand that was observed.
struct SpanRows {
    width: usize,
    /// Number of different items.
    items: usize,
    /// Row-major [rows, width].
    inputs: Vec<f32>,
    /// Units, in units of the item's scale over the span.
    targets: Vec<f32>,
    weights: Vec<f32>,
}

impl SpanRows {
    /// Draws days and lead times of the wanted items whose quantiles come from the network.
    fn gather(
        network: &DemandNetwork,
        blocks: &[&ItemBlocks],
        seed: u64,
        wanted: impl Fn(&ItemColumns, usize) -> bool,
    ) -> Result<[Self; 2]> {
        let eligible = |items: &ItemColumns| -> Vec<usize> {
            (0..items.len()).filter(|&row| network.has_quantiles(&items.facts(row)) && wanted(items, row)).collect()
        };
        let mut count = 0.0;
        for window in blocks.iter().flat_map(|items| items.each_window()) {
            count += eligible(&window?).len() as f64;
        }
        let horizon = network.shape.horizon_days;
        let day_share = DAY_ROWS_MAX / (count * horizon as f64);
        let lead_times = (LEAD_TIME_ROWS_MAX / count).min(LEAD_TIMES_MAX);
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x72);
        let [mut days, mut leads] = [TREE_DAY_INPUTS, TREE_LEAD_TIME_INPUTS].map(Self::new);
        let mut ids = HashSet::new();
        for window in blocks.iter().flat_map(|items| items.each_window()) {
            let items = window?;
            let rows = items.item_rows();
            for row in eligible(&items) {
                ids.insert(items.id(row).to_string());
                let scale = items.facts(row).scale();
                let inputs = TreeInputs::new(rows, row, &network.shape);
                for (ahead, units) in items.days_in_stock(row) {
                    if rng.random_bool(day_share.min(1.0)) {
                        inputs.append_day(ahead, &mut days.inputs);
                        days.add(units / scale, scale);
                    }
                }
                let drawn = lead_times as usize + usize::from(rng.random_bool(lead_times.fract()));
                for _ in 0..drawn {
                    let lead_days = rng.random_range(1..=horizon) as usize;
                    let Some(units) = items.units_of_first_days(row, lead_days) else { continue };
                    inputs.append_lead_time(lead_days, &mut leads.inputs);
                    let lead_scale = scale * lead_days as f64;
                    leads.add(units / lead_scale, lead_scale);
                }
            }
        }
        (days.items, leads.items) = (ids.len(), ids.len());
        Ok([days, leads])
    }

    fn new(width: usize) -> Self {
        Self { width, items: 0, inputs: Vec::new(), targets: Vec::new(), weights: Vec::new() }
    }

    /// Returns whether there are enough rows of enough items. The mean's loss needs a sale.
    fn can_be_learnt(&self) -> bool {
        self.len() >= ROWS_MIN && self.items >= ITEMS_MIN && self.targets.iter().any(|&target| target > 0.0)
    }

    fn add(&mut self, target: f64, scale: f64) {
        self.targets.push(target.max(0.0) as f32);
        // As in the network's loss: errors in units, divided by the root of the scale.
        self.weights.push(scale.sqrt() as f32);
    }

    fn len(&self) -> usize {
        self.targets.len()
    }

    fn boost(
        &self,
        library: &LightGbm,
        valid: Option<&Self>,
        counts: Option<[usize; FORECAST_NUMBERS]>,
        seed: u64,
    ) -> Result<SpanTrees> {
        let settings = |number: usize| {
            let objective = match number {
                0 => Objective::Mean,
                quantile => Objective::Quantile(QUANTILE_LEVELS[quantile - 1]),
            };
            TreeSettings::for_rows(objective, self.len(), seed)
        };
        let data = |rows: &Self, reference: Option<&TreeData<'_>>| -> Result<TreeData<'_>> {
            let data = TreeData::new(library, &rows.inputs, rows.width, &settings(0), reference)?;
            data.set_weights(&rows.weights)?;
            Ok(data)
        };
        let train_data = data(self, None)?;
        let valid_data = valid.map(|valid| data(valid, Some(&train_data))).transpose()?;
        let mut trees = SpanTrees::default();
        for (number, ensemble) in trees.0.iter_mut().enumerate() {
            let settings = settings(number);
            *ensemble = match (valid, &valid_data, counts) {
                (Some(valid), Some(data), None) => {
                    boost(&train_data, &self.targets, Some((data, &valid.targets)), &settings)?
                }
                _ => {
                    let rounds_max = counts.map_or(ROUNDS_UNVALIDATED, |counts| counts[number] as u32);
                    boost(&train_data, &self.targets, None, &TreeSettings { rounds_max, ..settings })?
                }
            };
        }
        Ok(trees)
    }
}
