//! Learns how likely a user's next purchase is an item of the last events, and measures what that gains.
//!
//! In: users whose horizon the network has not learnt from (the training users at the newest date and the validation users), and their
//! scores for the whole catalogue. Out: the numbers of [`LatestItems`] with the largest likelihood of the users' next items, found on a
//! grid, and figures of the test users. Next items are purchases, or
//! where too few users buy, those that users met most. The network knows items of events by their bucket alone.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, HashMap};
use std::f64::consts::LN_2;
use tch::Kind;

use super::intent_data::IntentData;
use super::intent_evaluation::Evaluator;
use crate::failure::Result;
use crate::model::bundle::ItemVectors;
use crate::model::inputs::EVENT_TYPES;
use crate::model::latest_items::{LatestItems, with_weight};
use crate::model::targets::{LABELS, PURCHASE};
use crate::training::datasets::{BlockRows, Split, UserBlocks, UserColumns};

/// Users that the numbers are learnt from, at most and at least.
const USERS_MAX: usize = 4_000;
const USERS_MIN: usize = 40;
/// Scores that are in memory at once.
const SCORES_MAX: usize = 4 << 20;
/// Recommended items that count for the figure.
const TOP: usize = 20;

const HALF_LIVES_DAYS: [f64; 8] = [0.5, 1.0, 2.0, 4.0, 7.0, 14.0, 30.0, 60.0];
const PURCHASE_WEIGHTS: [f64; 4] = [0.0, 0.3, 1.0, 3.0];
/// Logs of levels: -4, -3.75, … 16.
const LOG_LEVEL_MIN: f64 = -4.0;
const LOG_LEVEL_STEP: f64 = 0.25;
const LOG_LEVELS: usize = 81;

/// The items of one user's events that can be recommended.
struct User {
    /// Log of the sum of exp(score) over the catalogue.
    log_total: f64,
    next_item: MetItem,
    met: Vec<MetItem>,
    /// The [`TOP`] largest scores of items that the user has not met.
    unmet: Vec<f32>,
}

/// An item with its events' ages in days and whether each was a purchase.
#[derive(Clone)]
struct MetItem {
    score: f64,
    events: Vec<(f64, bool)>,
}

impl MetItem {
    fn weight(&self, learnt: &LatestItems) -> f64 {
        self.events.iter().map(|&(age_days, is_purchase)| learnt.event_weight(age_days, is_purchase)).sum()
    }

    fn is_bought(&self) -> bool {
        self.events.iter().any(|(_, is_purchase)| *is_purchase)
    }

    fn score_with(&self, learnt: Option<&LatestItems>) -> f32 {
        with_weight(self.score as f32, learnt.map_or(0.0, |learnt| self.weight(learnt)))
    }
}

/// Returns the learnt numbers, `None` where they would not make the next items likelier, and the figures of the test users.
pub(super) fn learn(
    evaluator: &Evaluator<'_>,
    data: IntentData<'_>,
    seed: u64,
) -> Result<(Option<LatestItems>, BTreeMap<String, f64>)> {
    if data.items.len() < 2 {
        return Ok((None, BTreeMap::new()));
    }
    let catalogue = Catalogue::new(evaluator, data)?;
    let blocks = UserBlocks::union(&[data.newest, data.held_out])?;
    let (learnt_from, _) = catalogue.users(evaluator, &blocks, &[Split::Train, Split::Valid], seed)?;
    let learnt = best_of_grid(&learnt_from);
    let (test, test_buys) = catalogue.users(evaluator, data.held_out, &[Split::Test], seed)?;
    let mut figures = BTreeMap::new();
    if !test.is_empty() {
        figures.insert("users_test_next_item".into(), test.len() as f64);
        let both = [("", learnt.as_ref(), true), ("_taste_alone", None, true)];
        // Where too few users buy, next items are others, and say nothing of what is bought again.
        let new_only = test_buys.then_some(("_new_only", learnt.as_ref(), false));
        for (name, learnt, with_bought) in both.into_iter().chain(new_only) {
            figures.insert(format!("ndcg_20_test_next_item{name}"), ndcg(&test, learnt, with_bought));
        }
    }
    Ok((learnt, figures))
}

/// The catalogue as the network has it now.
struct Catalogue {
    vectors: ItemVectors,
    /// Bucket of each item's id.
    buckets: Vec<u32>,
    /// Position of the first item of each bucket.
    positions: HashMap<u32, usize>,
}

impl Catalogue {
    fn new(evaluator: &Evaluator<'_>, data: IntentData<'_>) -> Result<Self> {
        let network = evaluator.network;
        let vectors = ItemVectors::of_trained_items(network, data.items, evaluator.contents, evaluator.device)?;
        let buckets: Vec<u32> =
            data.items.iter().map(|item| item.buckets(network.shape.item_buckets).0 as u32).collect();
        Ok(Self { vectors, positions: first_of_each(&buckets), buckets })
    }

    /// Reads the users of some splits who buy an item of the catalogue next, or all that have a next item where those are too few; also
    /// returns whether they buy.
    fn users(
        &self,
        evaluator: &Evaluator<'_>,
        blocks: &UserBlocks,
        splits: &[Split],
        seed: u64,
    ) -> Result<(Vec<User>, bool)> {
        let (mut users, mut buys) = (Vec::new(), true);
        for buyers_only in [true, false] {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let sample = blocks.sample(USERS_MAX, &mut rng, |rows| {
                let of_splits = splits.iter().flat_map(|split| rows.rows_in(*split));
                let mut found: Vec<usize> = of_splits.filter(|&row| has_next_item(rows, row, buyers_only)).collect();
                found.sort_unstable();
                found
            })?;
            users.clear();
            buys = buyers_only;
            let rows_max = (SCORES_MAX / self.positions.len().max(1)).max(1);
            evaluator.each_taste(&sample, |batch, tastes| {
                for first in (0..batch.len()).step_by(rows_max) {
                    let rows = first..(first + rows_max).min(batch.len());
                    let tastes = tastes.f_narrow(0, rows.start as i64, rows.len() as i64)?;
                    let scores = self.vectors.bias.f_addmm(&tastes, &self.vectors.vectors.f_transpose(0, 1)?)?;
                    let log_totals = scores.f_to_kind(Kind::Double)?.f_logsumexp(1i64, false)?;
                    let log_totals = Vec::<f64>::try_from(&log_totals)?;
                    for (row, log_total) in rows.zip(log_totals) {
                        let of_row = Vec::<f32>::try_from(&scores.f_get((row - first) as i64)?)?;
                        users.push(self.user(batch, row, &of_row, log_total));
                    }
                }
                Ok(())
            })?;
            if users.len() >= USERS_MIN {
                break;
            }
        }
        if users.len() < USERS_MIN {
            users.clear();
        }
        Ok((users, buys))
    }

    fn user(&self, batch: &UserColumns, row: usize, scores: &[f32], log_total: f64) -> User {
        let next = batch.next_items(row)[0] as usize;
        let events = batch.event_ages(row).into_iter();
        let met = met_items(&self.buckets, &self.positions, next, events);
        let unmet = scores.iter().enumerate().filter(|(place, _)| *place != next && !met.contains_key(place));
        let mut unmet: Vec<f32> = unmet.map(|(_, &score)| score).collect();
        if unmet.len() > TOP {
            // Catalogues may have a hundred thousand items: no sorting.
            unmet.select_nth_unstable_by(TOP, |a, b| b.total_cmp(a));
            unmet.truncate(TOP);
        }
        let item = |place: usize, events: &Vec<_>| MetItem { score: scores[place].into(), events: events.clone() };
        User {
            log_total,
            next_item: item(next, met.get(&next).unwrap_or(&Vec::new())),
            unmet,
            met: met.iter().filter(|(place, _)| **place != next).map(|(place, events)| item(*place, events)).collect(),
        }
    }
}

/// Returns the position of the first item of each bucket.
fn first_of_each(buckets: &[u32]) -> HashMap<u32, usize> {
    let mut positions = HashMap::new();
    for (place, bucket) in buckets.iter().enumerate() {
        positions.entry(*bucket).or_insert(place);
    }
    positions
}

/// Assigns events (bucket of the item, number of the type, age in days) to items. Several items of a large catalogue share a bucket:
/// its events are the next item's where that is one of them, since most of its other items are ones that the user never met.
fn met_items(
    buckets: &[u32],
    positions: &HashMap<u32, usize>,
    next: usize,
    events: impl Iterator<Item = (u32, u8, f64)>,
) -> BTreeMap<usize, Vec<(f64, bool)>> {
    let mut met: BTreeMap<usize, Vec<(f64, bool)>> = BTreeMap::new();
    for (bucket, event_type, age_days) in events {
        let place = if bucket == buckets[next] { Some(next) } else { positions.get(&bucket).copied() };
        if let Some(place) = place {
            met.entry(place).or_default().push((age_days, is_purchase(event_type)));
        }
    }
    met
}

fn has_next_item(rows: &UserColumns, row: usize, buyers_only: bool) -> bool {
    let label = rows.labels()[row * LABELS.len() + PURCHASE];
    !rows.next_items(row).is_empty() && !label.is_nan() && (label > 0.5 || !buyers_only)
}

fn is_purchase(event_type: u8) -> bool {
    event_type > 0 && EVENT_TYPES.get(usize::from(event_type) - 1) == Some(&"purchase")
}

/// Returns the numbers of the grid with the largest likelihood of the users' next items; `None` where the taste alone has a larger one.
fn best_of_grid(users: &[User]) -> Option<LatestItems> {
    let mut best = (0.0, None);
    for half_life_days in HALF_LIVES_DAYS {
        for purchase_weight in PURCHASE_WEIGHTS {
            let unit = LatestItems { half_life_days, purchase_weight, level: 1.0 };
            // Log-odds, so that large scores and levels don't overflow: the weights of the next item and of all items, against what the
            // taste gives them.
            let logs = |user: &User| {
                let next = user.next_item.weight(&unit);
                let all = next + user.met.iter().map(|item| item.weight(&unit)).sum::<f64>();
                (next.ln() - user.next_item.score, all.ln() - user.log_total)
            };
            let logs: Vec<(f64, f64)> = users.iter().map(logs).collect();
            for step in 0..LOG_LEVELS {
                let log_level = LOG_LEVEL_MIN + LOG_LEVEL_STEP * step as f64;
                let gain = |(next, all): &(f64, f64)| softplus(next + log_level) - softplus(all + log_level);
                let gain = logs.iter().map(gain).sum::<f64>();
                if gain > best.0 {
                    best = (gain, Some(LatestItems { level: log_level.exp(), ..unit }));
                }
            }
        }
    }
    best.1
}

/// Returns ln(1 + exp(x)).
fn softplus(x: f64) -> f64 {
    if x > 0.0 { x + (-x).exp().ln_1p() } else { x.exp().ln_1p() }
}

/// Returns the mean NDCG at [`TOP`] of the users' one next item, with or without items that the user bought before (Järvelin,
/// Kekäläinen 2002).
fn ndcg(users: &[User], learnt: Option<&LatestItems>, with_bought: bool) -> f64 {
    let gain = |user: &User| {
        if !with_bought && user.next_item.is_bought() {
            return 0.0;
        }
        let next = user.next_item.score_with(learnt);
        let kept = user.met.iter().filter(|item| with_bought || !item.is_bought());
        let met_above = kept.filter(|item| item.score_with(learnt) > next).count();
        let rank = met_above + user.unmet.iter().filter(|&&score| score > next).count() + 1;
        if rank <= TOP { LN_2 / (rank as f64 + 1.0).ln() } else { 0.0 }
    };
    users.iter().map(gain).sum::<f64>() / users.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    /// Users of a catalogue of 50 items with equal scores, who repeat the item of their newest event with a probability.
    fn users(repeated: f64, bought: bool) -> Vec<User> {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let user = |rng: &mut ChaCha8Rng| {
            let newest = MetItem { score: 0.0, events: vec![(0.0, bought)] };
            let older = MetItem { score: 0.0, events: vec![(40.0, false), (45.0, false)] };
            let unmet = vec![0.0; TOP];
            let log_total = 50f64.ln();
            match rng.random_bool(repeated) {
                true => User { log_total, next_item: newest, met: vec![older], unmet },
                false => User {
                    log_total,
                    next_item: MetItem { score: 0.0, events: Vec::new() },
                    met: vec![newest, older],
                    unmet,
                },
            }
        };
        (0..400).map(|_| user(&mut rng)).collect()
    }

    #[test]
    fn repeated_items_are_learnt_with_their_probability() {
        let users = users(0.5, false);
        let learnt = best_of_grid(&users).unwrap();
        // P(repeat) = (1 + w) / (50 + w) = 0.5 of the newest event.
        assert!((learnt.event_weight(0.0, false).ln() - 48f64.ln()).abs() < 0.3, "{learnt:?}");
        assert!(learnt.half_life_days < 14.0, "an old event is never repeated: {learnt:?}");
        assert!(ndcg(&users, Some(&learnt), true) > 0.5 && ndcg(&users, Some(&learnt), false) > 0.5);
    }

    #[test]
    fn events_of_a_shared_bucket_are_those_of_the_next_item() {
        // Items 0 and 2 share bucket 7.
        let buckets = vec![7, 8, 7];
        let met = |next: usize| {
            let events = [(7, 1, 3.0), (8, 7, 0.5), (99, 1, 1.0)].into_iter();
            met_items(&buckets, &first_of_each(&buckets), next, events)
        };
        assert_eq!(met(2), BTreeMap::from([(2, vec![(3.0, false)]), (1, vec![(0.5, true)])]));
        assert_eq!(met(1), BTreeMap::from([(0, vec![(3.0, false)]), (1, vec![(0.5, true)])]));
    }

    #[test]
    fn items_that_are_bought_once_weigh_nothing() {
        let learnt = best_of_grid(&users(0.0, true));
        assert!(learnt.is_none_or(|learnt| learnt.event_weight(0.0, true) < 0.1), "{learnt:?}");
        let again = users(0.5, true);
        let learnt = best_of_grid(&again).unwrap();
        assert!(learnt.event_weight(0.0, true) > 30.0, "{learnt:?}");
        assert!(ndcg(&again, Some(&learnt), true) > ndcg(&again, Some(&learnt), false));
    }
}
