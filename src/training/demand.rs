//! How the demand network learns: pinball loss on days in stock, the likelihood of counts for slow items, lead times
//! drawn anew each step; and figures beside seasonal naive.

use indicatif::ProgressBar;
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor, nn};

use super::calibration::{self, Outcomes};
use super::fit::{self, Batches, Lesson, Loss, Plan, Validation};
use super::journal::Journal;
use super::newcomers::Newcomers;
use super::sets::{ItemSet, Split, rows_of};
use crate::config::TrainConfig;
use crate::failure::Result;
use crate::metrics::coverage::{Coverage, Share};
use crate::metrics::pinball;
use crate::model::bundle::parameters;
use crate::model::demand::{DemandNetwork, Forecast, ItemHistory, LEVELS, Outlook, Source, Speed};
use crate::model::losses;

const BATCH_ITEMS: usize = 64;
/// Places of two quantiles in a forecast, whose first number is the mean.
const Q10: usize = 2;
const Q90: usize = 6;
/// Against the intents: more epochs, larger steps, as there are far fewer items than users.
const MORE: u32 = 3;
/// What the mean's and the counts' likelihoods weigh against the pinball loss.
const LIKELIHOOD_WEIGHT: f64 = 0.1;

/// Items as of the dates of a training.
#[derive(Debug, Clone, Copy)]
pub struct Items<'a> {
    /// Several dates, whose items the network learns from.
    pub train: &'a ItemSet,
    /// Dates before those, whose horizons end before theirs begin; empty where the lake does not reach back so far.
    pub earlier: &'a ItemSet,
    /// The newest date, whose horizon begins where the others' end.
    pub test: &'a ItemSet,
    /// New items: none where the lake does not reach back so far.
    pub newcomers: &'a Newcomers,
}

impl<'a> Items<'a> {
    /// Sets whose new items are learnt from before those of the newest date are tested on, and after. No network learns
    /// from them, so the dates of the training are as good as others.
    fn of_new(&self) -> [Vec<&'a ItemSet>; 2] {
        let of = |set: &'a ItemSet, others: &[&'a ItemSet]| match set.items.is_empty() {
            true => others.to_vec(),
            false => vec![set],
        };
        [
            of(&self.newcomers.before, &[self.train, self.earlier]),
            of(&self.newcomers.newest, &[self.train, self.earlier, self.test]),
        ]
    }
}

/// Trains and calibrates in place; returns figures on every item of the newest date, of whose outcomes nothing is learnt
/// until they are made: it then joins the dates that the published calibration follows from.
pub fn train(
    network: &mut DemandNetwork,
    store: &mut nn::VarStore,
    items: Items<'_>,
    config: &TrainConfig,
    journal: &mut Journal,
    bar: &ProgressBar,
) -> Result<BTreeMap<String, f64>> {
    let Items { train, earlier, test, .. } = items;
    let forecast = |item: &ItemHistory| matches!(network.source(item), Source::Counts | Source::Quantiles);
    let ids = || train.items.iter().map(|i| i.item_id.as_str());
    let usable = |rows: Vec<usize>| -> Vec<usize> { rows.into_iter().filter(|&r| forecast(&train.items[r])).collect() };
    let mut rows = usable(rows_of(ids(), Split::Train));
    rows.extend(usable(rows_of(ids(), Split::Test)));
    let mut valid = usable(rows_of(ids(), Split::Valid));
    // A large catalogue has no need to be seen whole in every epoch.
    let rows_max = (config.rows_max / 20).max(BATCH_ITEMS as u32) as usize;
    valid.shuffle(&mut ChaCha8Rng::seed_from_u64(config.seed));
    valid.truncate(rows_max / 4);
    super::sets::enough("item histories", rows.len(), 8)?;
    let device = store.device();
    let mut unseen = rows_of(ids(), Split::Valid);
    unseen.shuffle(&mut ChaCha8Rng::seed_from_u64(config.seed ^ 0xca));
    unseen.truncate(rows_max / 4);
    let [of_new_before, of_new] = items.of_new();
    let history_days_min = network.shape.history_days_min;
    network.shape.prior = calibration::prior(&of_new_before, Speed::New, history_days_min);
    network.shape.dormant_prior = calibration::prior(&[train, earlier], Speed::Dormant, history_days_min);
    let mut lesson = DemandLesson { network: &*network, set: train, rows, rows_max, valid, device };
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
    match earlier.items.is_empty() {
        // Of the weeks that were trained on, at least other items.
        true => outcomes.add(network, train, &unseen, device, &mut rng)?,
        false => {
            let rows = calibrated(network, earlier, rows_max, &mut rng);
            outcomes.add(network, earlier, &rows, device, &mut rng)?;
        }
    }
    add_new(&mut outcomes, network, &of_new_before, device, &mut rng)?;
    network.shape.calibration = outcomes.calibration();
    let validated = validated(network, train, &unseen, device)?;
    let mut figures = figures(network, test, device)?;
    if !earlier.items.is_empty() {
        let rows = calibrated(network, test, rows_max, &mut rng);
        outcomes.add(network, test, &rows, device, &mut rng)?;
        network.shape.prior = calibration::prior(&of_new, Speed::New, history_days_min);
        add_new(&mut outcomes, network, &of_new, device, &mut rng)?;
        network.shape.calibration = outcomes.calibration();
    }
    figures.extend(validated);
    figures.insert("parameters_demand".into(), parameters(store) as f64);
    figures.insert("epochs_demand".into(), fitted.epochs.into());
    figures.insert("train_seconds_demand".into(), fitted.seconds);
    Ok(figures)
}

/// At most `rows_max` rows to calibrate on, of items that are not new.
fn calibrated(network: &DemandNetwork, set: &ItemSet, rows_max: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut rows = calibration::rows_of(set, network.shape.history_days_min, |speed| speed != Speed::New);
    rows.shuffle(rng);
    rows.truncate(rows_max);
    rows
}

/// What came of new items, in the place of what was known of them.
fn add_new(
    outcomes: &mut Outcomes,
    network: &DemandNetwork,
    sets: &[&ItemSet],
    device: Device,
    rng: &mut ChaCha8Rng,
) -> Result<()> {
    outcomes.forget(Speed::New);
    for set in sets {
        let rows = calibration::rows_of(set, network.shape.history_days_min, |speed| speed == Speed::New);
        outcomes.add(network, set, &rows, device, rng)?;
    }
    Ok(())
}

struct DemandLesson<'a> {
    network: &'a DemandNetwork,
    set: &'a ItemSet,
    rows: Vec<usize>,
    rows_max: usize,
    valid: Vec<usize>,
    device: Device,
}

impl Lesson for DemandLesson<'_> {
    type Batch = Vec<usize>;

    fn name(&self) -> &'static str {
        "demand"
    }

    fn samples(&self) -> usize {
        self.rows.len().min(self.rows_max)
    }

    fn samples_of(&self, batch: &Vec<usize>) -> usize {
        batch.len()
    }

    fn batches(&self, mut rng: ChaCha8Rng, skip: u64) -> Result<Batches<Vec<usize>>> {
        let mut rows = self.rows.clone();
        rows.shuffle(&mut rng);
        rows.truncate(self.samples());
        let cut: Vec<Vec<usize>> = rows.chunks(BATCH_ITEMS).map(<[usize]>::to_vec).collect();
        Ok(fit::left(cut, skip))
    }

    fn loss(&mut self, batch: &Vec<usize>, rng: &mut ChaCha8Rng) -> Result<Loss> {
        let leads: Vec<i64> = batch.iter().map(|_| rng.random_range(1..=self.network.shape.horizon_days)).collect();
        Ok(loss(self.network, self.set, batch, &leads, self.device, true)?.into())
    }

    fn describe(&self, batch: &Vec<usize>) -> String {
        let first = batch.first().map_or("", |&r| self.set.items[r].item_id.as_str());
        format!("{} items, the first {first}", batch.len())
    }

    fn validate(&mut self) -> Result<Option<Validation>> {
        if self.valid.is_empty() {
            return Ok(None);
        }
        let horizon = self.network.shape.horizon_days;
        let leads: Vec<i64> = self.valid.iter().map(|&r| self.set.items[r].lead_time_days.min(horizon)).collect();
        let loss = tch::no_grad(|| loss(self.network, self.set, &self.valid, &leads, self.device, false))?;
        Ok(Some(Validation { loss: loss.double_value(&[]), figures: vec![] }))
    }
}

/// What really came, and how much each number of it weighs.
struct Actual {
    units: Tensor,
    weight: Tensor,
    /// The weight of slow items, which are the ones that get quantiles of counts; zero for others.
    slow_weight: Tensor,
}

/// Losses over days and lead times in the unit of each item's scale (to its root, so that large items weigh more). Days
/// out of stock, and lead times with such a day, are left out.
fn loss(
    network: &DemandNetwork,
    set: &ItemSet,
    rows: &[usize],
    leads: &[i64],
    device: Device,
    train: bool,
) -> Result<Tensor> {
    let items: Vec<&ItemHistory> = rows.iter().map(|&r| &set.items[r]).collect();
    let (daily, total) = network.outlook(&items, leads, device, train)?;
    let (b, h) = (rows.len() as i64, network.shape.horizon_days);
    let (mut units, mut seen, mut sums, mut whole) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut weight, mut slow) = (Vec::new(), Vec::new());
    for ((&row, item), &lead) in rows.iter().zip(&items).zip(leads) {
        units.extend(set.units[row].iter().map(|&u| u as f32));
        seen.extend(set.in_stock[row].iter().map(|&s| f32::from(u8::from(s))));
        let lead = lead as usize;
        sums.push(set.units[row].iter().take(lead).sum::<f64>() as f32);
        let stocked = set.in_stock[row].iter().take(lead).all(|&s| s);
        whole.push(f32::from(u8::from(stocked)) * (lead as f32).powf(-0.5));
        weight.push(item.scale().powf(-0.5) as f32);
        slow.push(f32::from(u8::from(network.source(item) == Source::Counts)));
    }
    let put = |flat: &[f32], shape: &[i64]| -> Result<Tensor> {
        Ok(Tensor::f_from_slice(flat)?.f_view(shape)?.f_to_device(device)?)
    };
    let (weight, slow) = (put(&weight, &[b])?, put(&slow, &[b])?);
    let (seen, whole) = (put(&seen, &[b, h])?, put(&whole, &[b])?);
    let days = Actual {
        units: put(&units, &[b, h])?,
        weight: &seen * weight.unsqueeze(1),
        slow_weight: &seen * slow.unsqueeze(1),
    };
    let lead = Actual { units: put(&sums, &[b])?, weight: &whole * &weight, slow_weight: &whole * &slow };
    Ok(outlook_loss(&daily, &days)? + outlook_loss(&total, &lead)?)
}

/// Outlook [.., 8] and [.., 2], actual [..] → one number.
fn outlook_loss(outlook: &Outlook, actual: &Actual) -> Result<Tensor> {
    let levels: Vec<f32> = LEVELS.iter().map(|&l| l as f32).collect();
    let levels = Tensor::f_from_slice(&levels)?.f_to_device(actual.units.device())?;
    let quantiles = outlook.quantiles.narrow(-1, 1, LEVELS.len() as i64);
    let pinball = losses::pinball(&quantiles, &actual.units.unsqueeze(-1), &levels).mean_dim(-1i64, false, Kind::Float);
    let poisson = losses::poisson(&(outlook.quantiles.select(-1, 0) + 1e-4), &actual.units);
    let counts = losses::negative_binomial(&outlook.counts.select(-1, 0), &outlook.counts.select(-1, 1), &actual.units);
    let mean =
        |loss: Tensor, weight: &Tensor| (loss * weight).sum(Kind::Float) / weight.sum(Kind::Float).clamp_min(1e-6);
    let quantiles = mean(pinball + poisson * LIKELIHOOD_WEIGHT, &actual.weight);
    Ok(quantiles + mean(counts, &actual.slow_weight) * LIKELIHOOD_WEIGHT)
}

/// What would be published, over days in stock: mean pinball of all levels beside seasonal naive (the same weekday of the
/// last week in stock), and coverage; of all items, and by how they sell. Of lead times, coverage.
fn figures(network: &DemandNetwork, test: &ItemSet, device: Device) -> Result<BTreeMap<String, f64>> {
    let mut all = Figures::default();
    let mut kinds: BTreeMap<Speed, Figures> = BTreeMap::new();
    for (row, forecast) in network.forecast(&test.items, device)?.iter().enumerate() {
        let item = &test.items[row];
        let days: Vec<Day> = calibration::days_in_stock(test, row)
            .map(|(day, units)| Day {
                at: item.as_of_day() + day as i64,
                units,
                forecast: forecast.daily[day],
                naive: seasonal_naive(item, day),
            })
            .collect();
        let of_kind = kinds.entry(item.speed(network.shape.history_days_min)).or_default();
        for figures in [&mut all, of_kind] {
            figures.add(&days);
            let units = calibration::lead_time_units(test, row);
            figures.lead_time.add(units.map(|units| (item.as_of_day(), units, &forecast.lead_time)));
        }
    }
    let covered = all.daily.q90.within().map_or(0.0, |s| s.value);
    let mut named = BTreeMap::from([("coverage_test_q90".to_string(), covered)]);
    all.write_loss("", &mut named);
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
fn validated(network: &DemandNetwork, set: &ItemSet, rows: &[usize], device: Device) -> Result<Option<(String, f64)>> {
    let items: Vec<ItemHistory> = rows.iter().map(|&row| set.items[row].clone()).collect();
    let (mut sum, mut cells) = (0.0, 0);
    for (&row, forecast) in rows.iter().zip(network.forecast(&items, device)?) {
        for (day, units) in calibration::days_in_stock(set, row) {
            let quantiles = LEVELS.iter().zip(&forecast.daily[day][1..]);
            sum += quantiles.map(|(&level, &quantile)| pinball(level, quantile, units)).sum::<f64>();
            cells += LEVELS.len();
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
    cells: f64,
    daily: Ranges,
    lead_time: Ranges,
}

impl Figures {
    fn add(&mut self, days: &[Day]) {
        for day in days {
            for (&level, &quantile) in LEVELS.iter().zip(&day.forecast[1..]) {
                self.ours += pinball(level, quantile, day.units);
                self.naive += pinball(level, day.naive, day.units);
                self.cells += 1.0;
            }
        }
        self.daily.add(days.iter().map(|day| (day.at, day.units, &day.forecast)));
    }

    fn write_loss(&self, of: &str, to: &mut BTreeMap<String, f64>) {
        to.insert(format!("pinball_test{of}"), self.ours / self.cells.max(1.0));
        to.insert(format!("pinball_test_seasonal_naive{of}"), self.naive / self.cells.max(1.0));
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

/// The same weekday of the last week whose day was in stock; zero without one.
fn seasonal_naive(item: &ItemHistory, day: usize) -> f64 {
    let n = item.units.len() as i64;
    let mut at = n + day as i64 - 7;
    while at >= 0 {
        if at < n && item.in_stock[at as usize] {
            return item.units[at as usize];
        }
        at -= 7;
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::networks::DemandNetworkName;
    use crate::model::demand::DemandShape;
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

    /// Whatever was sold on a day without stock, demand was something else: neither that day nor a lead time over it
    /// may teach the network anything.
    #[test]
    fn a_day_out_of_stock_leaves_the_loss_alone_and_a_day_in_stock_does_not() {
        tch::manual_seed(3);
        let store = nn::VarStore::new(Device::Cpu);
        let network = DemandNetwork::new(&store.root(), &DemandShape::tiny(DemandNetworkName::Gru));
        assert!(network.source(&set().items[1]) == Source::Counts, "the likelihood of counts is seen too");
        let judged = |set: &ItemSet, leads: [i64; 2]| {
            let loss = loss(&network, set, &[0, 1], &leads, Device::Cpu, false).unwrap();
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
