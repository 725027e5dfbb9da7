//! How the demand network learns: pinball loss on days in stock, the likelihood of counts for slow items, lead times
//! drawn anew each step; and figures beside seasonal naive.

use indicatif::ProgressBar;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor, nn};

use super::calibration::{self, Outcomes};
use super::columns::Rows;
use super::fit::{self, Batches, Epoch, Lesson, Loss, Plan, Validation};
use super::item_columns::{ItemBlocks, ItemColumns};
use super::item_sets::{ItemSets, ItemSurvey, is_forecast, learnable};
use super::journal::Journal;
use super::loader::{self, Measure, Recipe};
use super::sets::Split;
use crate::config::{DemandConfig, TrainConfig};
use crate::failure::{Failure, Result};
use crate::metrics::coverage::{Coverage, Share};
use crate::metrics::{self, pinball};
use crate::model::demand::inputs::DemandInputs;
use crate::model::demand::{
    BATCH_ITEMS_MAX, DemandNetwork, DemandOutputs, DemandPattern, DemandShape, Forecast, QUANTILE_LEVELS,
};
use crate::model::losses;
use crate::model::weights::parameter_count;

const BATCH_ITEMS: usize = 64;
/// Places of two quantiles in a forecast, whose first number is the mean.
const Q10: usize = 2;
const Q90: usize = 6;
/// Against the intents: more epochs, larger steps, as there are far fewer items than users.
const MORE: u32 = 3;
/// Draws of an interval.
const BOOTSTRAP_ROUNDS: usize = 400;
/// With fewer histories of items there is nothing to learn from.
const HISTORIES_MIN: usize = 8;
/// What the mean's and the counts' likelihoods weigh against the pinball loss.
const LIKELIHOOD_WEIGHT: f64 = 0.1;

/// Trains and calibrates in place; returns figures on every item of the newest date, of whose outcomes nothing is learnt
/// until they are made: it then joins the dates that the published calibration follows from.
pub fn train(
    network: &mut DemandNetwork,
    store: &mut nn::VarStore,
    (items, survey): (&ItemSets, &ItemSurvey),
    config: &TrainConfig,
    journal: &mut Journal,
    bar: &ProgressBar,
) -> Result<BTreeMap<String, f64>> {
    let device = store.device();
    // A large catalogue has no need to be seen whole in every epoch.
    let rows_max = (config.rows_max / 20).max(BATCH_ITEMS as u32) as usize;
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed ^ 0xca);
    let unseen = items.learnt.sample(rows_max / 4, &mut rng, |items| items.rows_of(Split::Valid))?;
    let valid = unseen.take(&unseen.that_sell(is_forecast))?;
    let [of_new_before, of_new] = items.of_new();
    network.shape.prior = calibration::prior(&of_new_before, DemandPattern::New)?;
    network.shape.dormant_prior = calibration::prior(&[&items.learnt, &items.earlier], DemandPattern::Dormant)?;
    let mut lesson = DemandLesson {
        network: &*network,
        items: &items.learnt,
        samples: survey.learnable.min(rows_max),
        valid,
        device,
    };
    let plan = Plan {
        epochs_max: config.epochs_max * MORE,
        patience_epochs: config.patience_epochs * MORE,
        learning_rate: config.learning_rate * f64::from(MORE),
        weight_decay: config.weight_decay,
        seed: config.seed ^ 0xd3,
    };
    let fitted = fit::fit(&mut lesson, store, &plan, journal, bar)?;
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let mut outcomes = Outcomes::default();
    match items.earlier.is_empty() {
        // Of the weeks that were trained on, at least other items.
        true => outcomes.add(network, &unseen, device, &mut rng)?,
        false => outcomes.add(network, &calibrated(&items.earlier, rows_max, &mut rng)?, device, &mut rng)?,
    }
    add_new(&mut outcomes, network, &of_new_before, device, &mut rng)?;
    network.shape.calibration = outcomes.calibration();
    let validated = validated(network, &unseen, device)?;
    let mut figures = figures(network, &items.held_out, device, config.seed)?;
    if !items.earlier.is_empty() {
        outcomes.add(network, &calibrated(&items.held_out, rows_max, &mut rng)?, device, &mut rng)?;
        network.shape.prior = calibration::prior(&of_new, DemandPattern::New)?;
        add_new(&mut outcomes, network, &of_new, device, &mut rng)?;
        network.shape.calibration = outcomes.calibration();
    }
    figures.extend(validated);
    figures.insert("parameters_demand".into(), parameter_count(store) as f64);
    figures.insert("epochs_demand".into(), fitted.epochs.into());
    figures.insert("train_seconds_demand".into(), fitted.seconds);
    figures.insert("items_train".into(), survey.learnable as f64);
    // How often a window of `train.memory_bytes_max` is read anew, were an epoch to see all of them.
    figures.insert("windows_train_demand".into(), items.learnt.windows(None).len() as f64);
    Ok(figures)
}

/// Refuses sets of too few items to learn from; before anything is trained, as the intents take far longer.
pub fn enough(survey: &ItemSurvey, config: &DemandConfig) -> Result<()> {
    match survey.learnable >= HISTORIES_MIN {
        true => Ok(()),
        false => Err(Failure::input(format!(
            "training: expected at least {HISTORIES_MIN} histories of items that sell, got {}; one counts at each of {} past \
             dates where it has sold in the {} days before and was seen {} days before at the latest",
            survey.learnable, config.as_of_dates, config.history_days, config.history_days_min
        ))
        .hint("raise demand.as_of_dates, lower demand.history_days_min, or train on a lake with more items, days or purchases")),
    }
}

/// At most `rows_max` items to calibrate on that are not new.
fn calibrated(items: &ItemBlocks, rows_max: usize, rng: &mut ChaCha8Rng) -> Result<ItemColumns> {
    items.sample(rows_max, rng, |items| items.that_sell(|speed| speed != DemandPattern::New))
}

/// What came of new items, in the place of what was known of them.
fn add_new(
    outcomes: &mut Outcomes,
    network: &DemandNetwork,
    sets: &[&ItemBlocks],
    device: Device,
    rng: &mut ChaCha8Rng,
) -> Result<()> {
    outcomes.forget(DemandPattern::New);
    for items in sets.iter().flat_map(|set| set.each()) {
        let items = items?;
        outcomes.add(network, &items.take(&items.that_sell(|speed| speed == DemandPattern::New))?, device, rng)?;
    }
    Ok(())
}

/// Some items' inputs and what came of them.
struct ItemBatch {
    first_item: String,
    items: usize,
    inputs: DemandInputs,
    /// Of each day of the horizon, [items, horizon], and of each lead time, [items].
    days: Actual,
    lead: Actual,
}

impl ItemBatch {
    /// `lead_days`: of each item, 1 to the days of the horizon.
    fn of(items: &ItemColumns, lead_days: &[i64], shape: &DemandShape) -> Result<Self> {
        let inputs = items.rows().inputs(lead_days, shape)?;
        let slow = inputs.scale.lt(shape.slow_units_per_day).to_kind(Kind::Float);
        let (days, lead) = Actual::of(items, lead_days, &inputs.scale, &slow)?;
        Ok(Self { first_item: items.id(0).to_string(), items: items.len(), inputs, days, lead })
    }

    fn to(&self, device: Device) -> Result<Self> {
        Ok(Self {
            first_item: self.first_item.clone(),
            items: self.items,
            inputs: self.inputs.to(device)?,
            days: self.days.to(device)?,
            lead: self.lead.to(device)?,
        })
    }
}

/// How batches are made: of items by chance, each with a lead time by chance.
struct ItemRecipe(DemandShape);

impl Recipe for ItemRecipe {
    type Rows = ItemColumns;
    type Batch = ItemBatch;

    fn open(&mut self, window: &ItemColumns) -> Vec<usize> {
        learnable(window)
    }

    fn batch(&self, window: &ItemColumns, rows: &[usize], rng: &mut ChaCha8Rng) -> Result<ItemBatch> {
        let leads: Vec<i64> = rows.iter().map(|_| rng.random_range(1..=self.0.horizon_days)).collect();
        ItemBatch::of(&window.take(rows)?, &leads, &self.0)
    }
}

struct DemandLesson<'a> {
    network: &'a DemandNetwork,
    items: &'a Arc<ItemBlocks>,
    samples: usize,
    /// What every epoch is judged by; may be empty.
    valid: ItemColumns,
    device: Device,
}

impl Lesson for DemandLesson<'_> {
    type Batch = ItemBatch;

    fn name(&self) -> &'static str {
        "demand"
    }

    fn samples(&self) -> usize {
        self.samples
    }

    fn samples_of(&self, batch: &ItemBatch) -> usize {
        batch.items
    }

    fn batches(&self, epoch: Epoch) -> Result<Batches<ItemBatch>> {
        let measure = Measure { rows_max: BATCH_ITEMS, samples_max: self.samples };
        loader::batches(self.items, ItemRecipe(self.network.shape.clone()), measure, epoch)
    }

    fn loss(&mut self, batch: &ItemBatch, _: &mut ChaCha8Rng) -> Result<Loss> {
        Ok(losses_of(self.network, &batch.to(self.device)?, true)?.mean().into())
    }

    fn describe(&self, batch: &ItemBatch) -> String {
        format!("{} items, the first {}", batch.items, batch.first_item)
    }

    fn validate(&mut self) -> Result<Option<Validation>> {
        let (shape, _guard) = (&self.network.shape, tch::no_grad_guard());
        let mut losses: Option<Losses> = None;
        for items in self.valid.chunks(BATCH_ITEMS_MAX) {
            let leads = items.rows().lead_time_days.iter().map(|&days| i64::from(days).min(shape.horizon_days));
            let batch = ItemBatch::of(&items, &leads.collect::<Vec<_>>(), shape)?.to(self.device)?;
            let of_batch = losses_of(self.network, &batch, false)?;
            losses = Some(match losses {
                Some(losses) => losses.with(&of_batch),
                None => of_batch,
            });
        }
        Ok(losses.map(|losses| Validation { loss: losses.mean().double_value(&[]), figures: vec![] }))
    }
}

/// What really came, and how much each number of it weighs.
struct Actual {
    units: Tensor,
    weight: Tensor,
    /// The weight of slow items, which are the ones that get quantiles of counts; zero for others.
    slow_weight: Tensor,
}

impl Actual {
    /// Of each day, [items, horizon], and of each item's lead time, [items]. Weights are in the unit of the item's scale (to
    /// its root, so that large items weigh more). Days out of stock, and lead times with such a day, weigh nothing.
    /// `scale` and whether an item is slow: float32 [items, 1].
    fn of(items: &ItemColumns, lead_days: &[i64], scale: &Tensor, slow: &Tensor) -> Result<(Self, Self)> {
        let [units, in_stock] = items.outcomes()?;
        let weight = scale.pow_tensor_scalar(-0.5);
        let leads = Tensor::f_from_slice(lead_days)?.f_unsqueeze(1)?;
        let last = &leads - 1;
        let sums = units.f_cumsum(1, Kind::Double)?.f_gather(1, &last, false)?.to_kind(Kind::Float);
        let stocked = in_stock.f_cumprod(1, Kind::Float)?.f_gather(1, &last, false)?;
        let whole = stocked * leads.to_kind(Kind::Float).pow_tensor_scalar(-0.5);
        let days = Self { weight: &in_stock * &weight, slow_weight: &in_stock * slow, units };
        let of_items = |tensor: Tensor| tensor.f_squeeze_dim(1);
        let lead =
            Self { units: of_items(sums)?, weight: of_items(&whole * weight)?, slow_weight: of_items(&whole * slow)? };
        Ok((days, lead))
    }

    fn to(&self, device: Device) -> Result<Self> {
        let on = |tensor: &Tensor| tensor.f_to_device(device);
        Ok(Self { units: on(&self.units)?, weight: on(&self.weight)?, slow_weight: on(&self.slow_weight)? })
    }
}

/// Losses over days and over lead times, summed and not yet divided by their weights: parts of a set add up.
struct Losses([Weighed; 4]);

/// A sum of losses, and of their weights.
#[derive(Debug)]
struct Weighed {
    sum: Tensor,
    weight: Tensor,
}

impl Losses {
    fn with(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|k| Weighed {
            sum: &self.0[k].sum + &other.0[k].sum,
            weight: &self.0[k].weight + &other.0[k].weight,
        }))
    }

    /// One number.
    fn mean(&self) -> Tensor {
        let mean = |of: &Weighed| &of.sum / of.weight.clamp_min(1e-6);
        let [days, counts, lead, lead_counts] = &self.0;
        mean(days) + mean(lead) + (mean(counts) + mean(lead_counts)) * LIKELIHOOD_WEIGHT
    }
}

fn losses_of(network: &DemandNetwork, batch: &ItemBatch, train: bool) -> Result<Losses> {
    let (daily, total) = network.forward(&batch.inputs, train)?;
    let [days, counts] = outlook_losses(&daily, &batch.days)?;
    let [lead, lead_counts] = outlook_losses(&total, &batch.lead)?;
    Ok(Losses([days, counts, lead, lead_counts]))
}

/// DemandOutputs [.., 8] and [.., 2], actual [..] → losses of the quantiles and of the counts.
fn outlook_losses(outlook: &DemandOutputs, actual: &Actual) -> Result<[Weighed; 2]> {
    let levels: Vec<f32> = QUANTILE_LEVELS.iter().map(|&l| l as f32).collect();
    let levels = Tensor::f_from_slice(&levels)?.f_to_device(actual.units.device())?;
    let quantiles = outlook.quantiles.narrow(-1, 1, QUANTILE_LEVELS.len() as i64);
    let pinball = losses::pinball(&quantiles, &actual.units.unsqueeze(-1), &levels).mean_dim(-1i64, false, Kind::Float);
    let poisson = losses::poisson(&(outlook.quantiles.select(-1, 0) + 1e-4), &actual.units);
    let counts = losses::negative_binomial(&outlook.counts.select(-1, 0), &outlook.counts.select(-1, 1), &actual.units);
    let weighed = |loss: Tensor, weight: &Tensor| Weighed {
        sum: (loss * weight).sum(Kind::Float),
        weight: weight.sum(Kind::Float),
    };
    Ok([weighed(pinball + poisson * LIKELIHOOD_WEIGHT, &actual.weight), weighed(counts, &actual.slow_weight)])
}

/// What would be published, over days in stock: mean pinball of all levels beside seasonal naive (the same weekday of the
/// last week in stock) and nothing at all, and coverage; of all items (with an interval over items drawn with replacement), and
/// by how they sell. Of lead times, coverage.
fn figures(network: &DemandNetwork, test: &ItemBlocks, device: Device, seed: u64) -> Result<BTreeMap<String, f64>> {
    let mut all = Figures::default();
    let mut kinds: BTreeMap<DemandPattern, Figures> = BTreeMap::new();
    let (mut forecasts, mut took) = (0, Duration::ZERO);
    for window in test.each() {
        for items in window?.chunks(BATCH_ITEMS_MAX) {
            let clock = Instant::now();
            let of_items = network.forecast_rows(&items.rows(), device)?;
            (forecasts, took) = (forecasts + of_items.len(), took + clock.elapsed());
            for (row, forecast) in of_items.iter().enumerate() {
                let as_of_day = items.as_of_day(row);
                let days: Vec<Day> = items
                    .days_in_stock(row)
                    .map(|(day, units)| Day {
                        at: as_of_day + day as i64,
                        units,
                        forecast: forecast.daily[day],
                        naive: items.seasonal_naive(row, day),
                    })
                    .collect();
                let facts = items.facts(row);
                let factor = network.mean_factor(&facts);
                let of_kind = kinds.entry(facts.pattern).or_default();
                for figures in [&mut all, of_kind] {
                    figures.add(&days, factor);
                    let units = items.lead_time_units(row);
                    figures.lead_time.add(units.map(|units| (as_of_day, units, &forecast.lead_time)));
                }
            }
        }
    }
    let covered = all.daily.q90.within().map_or(0.0, |s| s.value);
    let mut named = BTreeMap::from([("coverage_test_q90".to_string(), covered)]);
    all.write_loss("", &mut named);
    if let Some((low, high)) = all.pinball_interval(seed) {
        named.extend([("pinball_test_low".to_string(), low), ("pinball_test_high".to_string(), high)]);
    }
    if forecasts > 0 {
        named.insert("items_forecast_per_second".into(), forecasts as f64 / took.as_secs_f64().max(1e-9));
    }
    for (speed, figures) in kinds {
        let of = format!("_{}", speed.name());
        figures.write_loss(&of, &mut named);
        named.insert(format!("items_test{of}"), figures.daily.q90.items() as f64);
        named.insert(format!("item_days_test{of}"), figures.daily.q90.days());
        figures.daily.write("", &of, &mut named);
        figures.lead_time.write("lead_time_", &of, &mut named);
    }
    Ok(named)
}

/// The mean pinball loss on items that are not trained on: what a sweep goes by.
fn validated(network: &DemandNetwork, items: &ItemColumns, device: Device) -> Result<Option<(String, f64)>> {
    let (mut sum, mut cells) = (0.0, 0);
    for items in items.chunks(BATCH_ITEMS_MAX) {
        for (row, forecast) in network.forecast_rows(&items.rows(), device)?.iter().enumerate() {
            for (day, units) in items.days_in_stock(row) {
                let quantiles = QUANTILE_LEVELS.iter().zip(&forecast.daily[day][1..]);
                sum += quantiles.map(|(&level, &quantile)| pinball(level, quantile, units)).sum::<f64>();
                cells += QUANTILE_LEVELS.len();
            }
        }
    }
    Ok((cells > 0).then(|| ("pinball_valid".to_string(), sum / cells as f64)))
}

/// A day in stock: which, what was asked for, forecast, and sold a week before.
struct Day {
    at: i64,
    units: f64,
    forecast: Forecast,
    naive: f64,
}

#[derive(Default)]
struct Figures {
    ours: f64,
    naive: f64,
    /// Of the forecast that nothing sells.
    zero: f64,
    cells: f64,
    /// `ours` and `cells` of each item.
    of_items: Vec<(f64, f64)>,
    /// Sums of the means, of what they were before their factors, and of what was sold.
    forecast: f64,
    uncorrected: f64,
    sold: f64,
    daily: Ranges,
    lead_time: Ranges,
}

impl Figures {
    /// `factor`: what the means of this item were multiplied by.
    fn add(&mut self, days: &[Day], factor: f64) {
        let before = (self.ours, self.cells);
        for day in days {
            for (&level, &quantile) in QUANTILE_LEVELS.iter().zip(&day.forecast[1..]) {
                self.ours += pinball(level, quantile, day.units);
                self.naive += pinball(level, day.naive, day.units);
                self.zero += pinball(level, 0.0, day.units);
                self.cells += 1.0;
            }
            self.forecast += day.forecast[0];
            self.uncorrected += day.forecast[0] / factor;
            self.sold += day.units;
        }
        self.of_items.push((self.ours - before.0, self.cells - before.1));
        self.daily.add(days.iter().map(|day| (day.at, day.units, &day.forecast)));
    }

    fn pinball_interval(&self, seed: u64) -> Option<(f64, f64)> {
        metrics::bootstrap_interval_over_indices(self.of_items.len(), BOOTSTRAP_ROUNDS, seed, |drawn| {
            let items = drawn.iter().map(|&item| self.of_items[item]);
            let (sum, cells) = items.fold((0.0, 0.0), |(sum, cells), of| (sum + of.0, cells + of.1));
            (cells > 0.0).then(|| sum / cells)
        })
    }

    fn write_loss(&self, of: &str, to: &mut BTreeMap<String, f64>) {
        to.insert(format!("pinball_test{of}"), self.ours / self.cells.max(1.0));
        to.insert(format!("pinball_test_seasonal_naive{of}"), self.naive / self.cells.max(1.0));
        to.insert(format!("pinball_test_zero{of}"), self.zero / self.cells.max(1.0));
        if self.sold > 0.0 {
            to.insert(format!("forecast_to_sold_test{of}"), self.forecast / self.sold);
            to.insert(format!("uncorrected_to_sold_test{of}"), self.uncorrected / self.sold);
        }
    }
}

/// How often outcomes lay at or below the 90 % quantile, and between the 10 % quantile and it.
#[derive(Default)]
struct Ranges {
    q90: Coverage,
    q10_q90: Coverage,
}

impl Ranges {
    /// One item's days (or lead time): when, what was asked for, and the forecast.
    fn add<'a>(&mut self, of_item: impl IntoIterator<Item = (i64, f64, &'a Forecast), IntoIter: Clone>) {
        let days = of_item.into_iter();
        self.q90.add(days.clone().map(|(at, units, f)| (at, units < f[Q90], units <= f[Q90])));
        self.q10_q90.add(days.map(|(at, units, f)| {
            let (low, high) = (f[Q10], f[Q90]);
            (at, low < units && units < high, low <= units && units <= high)
        }));
    }

    /// Both shares of either coverage with their intervals: the level lies between them where the quantiles are right.
    fn write(&self, span: &str, of: &str, to: &mut BTreeMap<String, f64>) {
        for (name, coverage) in [("q90", &self.q90), ("q10_q90", &self.q10_q90)] {
            let shares = [("coverage", coverage.within()), ("coverage_without_ties", coverage.inside())];
            for (figure, share) in shares {
                let Some(Share { value, low, high }) = share else { continue };
                for (end, value) in [("", value), ("_low", low), ("_high", high)] {
                    to.insert(format!("{figure}_test_{span}{name}{of}{end}"), value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::item_columns::tests::columns;
    use super::super::sets::ItemSet;
    use super::*;
    use crate::config::networks::DemandNetworkName;
    use crate::model::demand::ForecastSource;
    use crate::model::demand::history::tests::item;

    const OUT_OF_STOCK: usize = 2;

    /// A fast item and a slow one, both out of stock on the third of five days.
    fn set() -> ItemSet {
        let slow: Vec<f64> = (0..28).map(|day| if day % 9 == 0 { 1.0 } else { 0.0 }).collect();
        let mut items = vec![item(&[3.0; 28]), item(&slow)];
        items.iter_mut().for_each(|item| item.days_since_first_seen = 28);
        let in_stock = (0..5).map(|day| day != OUT_OF_STOCK).collect::<Vec<bool>>();
        ItemSet { items, units: vec![vec![2.0, 3.0, 1.0, 4.0, 3.0]; 2], in_stock: vec![in_stock; 2] }
    }

    /// However many items are judged at once.
    #[test]
    fn losses_of_parts_add_up_to_those_of_all() {
        tch::manual_seed(5);
        let store = nn::VarStore::new(Device::Cpu);
        let network = DemandNetwork::new(&store.root(), &DemandShape::tiny(DemandNetworkName::Gru));
        let all = columns(&set());
        let of = |items: &ItemColumns| {
            let batch = ItemBatch::of(items, &vec![2; items.len()], &network.shape).unwrap();
            losses_of(&network, &batch, false).unwrap()
        };
        let mut parts = all.chunks(1).map(|part| of(&part));
        let joined = parts.next().unwrap().with(&parts.next().unwrap()).mean().double_value(&[]);
        assert!((joined - of(&all).mean().double_value(&[])).abs() < 1e-5, "{joined}");
    }

    /// Whatever was sold on a day without stock, demand was something else: neither that day nor a lead time over it
    /// may teach the network anything.
    #[test]
    fn a_day_out_of_stock_leaves_the_loss_alone_and_a_day_in_stock_does_not() {
        tch::manual_seed(3);
        let store = nn::VarStore::new(Device::Cpu);
        let network = DemandNetwork::new(&store.root(), &DemandShape::tiny(DemandNetworkName::Gru));
        assert!(
            network.source(&set().items[1].facts(14)) == ForecastSource::Counts,
            "the likelihood of counts is seen too"
        );
        let judged = |set: &ItemSet, leads: [i64; 2]| {
            let batch = ItemBatch::of(&columns(set), &leads, &network.shape).unwrap();
            let loss = losses_of(&network, &batch, false).unwrap().mean();
            let weights = store.trainable_variables();
            weights.iter().for_each(|weight| weight.shallow_clone().zero_grad());
            loss.backward();
            let slopes = weights.iter().map(|weight| weight.grad().abs().sum(Kind::Double).double_value(&[]));
            (loss.double_value(&[]), slopes.sum::<f64>())
        };
        // Lead times that end before the day, and that go over it.
        for leads in [[2, 2], [5, 4]] {
            let before = judged(&set(), leads);
            assert!(before.0.is_finite() && before.1 > 0.0, "{before:?}");
            for day in 0..5 {
                let mut other = set();
                other.units.iter_mut().for_each(|units| units[day] += 7.0);
                let after = judged(&other, leads);
                assert_eq!(
                    after == before,
                    day == OUT_OF_STOCK,
                    "day {day}, lead times {leads:?}: {before:?} {after:?}"
                );
            }
        }
        let mut stocked = set();
        stocked.in_stock.iter_mut().for_each(|days| days[OUT_OF_STOCK] = true);
        assert_ne!(judged(&stocked, [2, 2]).0, judged(&set(), [2, 2]).0);
    }
}
