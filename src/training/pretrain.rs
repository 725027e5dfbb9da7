//! Self-supervised pretraining: the encoder learns from histories alone, before it is shown any label.
//!
//! - `masked`: what hidden events were, from those around them (BERT4Rec, Sun et al. 2019, arXiv:1904.06690).
//! - `next_event`: each event from the ones before it (SASRec, Kang and McAuley 2018, arXiv:1808.09781).
//! - `contrastive`: two changed copies of one history lie nearer to one another than to other users' (CL4SRec, Xie et al.
//!   2022; the loss is NT-Xent, Chen et al. 2020, arXiv:2002.05709, equation 1).
//!
//! It has no weights of its own, so what it teaches all stays: types are told by their embeddings, items by the taste and
//! item vectors that recommend, against the other items of the batch.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

use super::augment::Augmenter;
use super::columns::Rows;
use super::fit::{Batches, Epoch, Lesson, Loss, StepDraws, Validation};
use super::loader::{self, Measure, Recipe};
use super::sets::Split;
use super::survey::EVENTS_MIN;
use super::user_columns::{UserBlocks, UserColumns};
use crate::config::networks::Pretraining;
use crate::failure::Result;
use crate::model::contents::{ContentBatch, ContentRows, Contents, rows_tensor};
use crate::model::events::EventBatch;
use crate::model::inputs::EventInput;
use crate::model::intent::IntentNetwork;

/// The share of events that `masked` hides; one of every history at least.
const HIDDEN_SHARE: f64 = 0.15;
/// Events of one batch whose items are told apart: bounds the matrix of scores.
const TOLD_MAX: usize = 1024;
/// Of NT-Xent: how sharply near and far are told apart.
const TEMPERATURE: f64 = 0.2;

pub struct PretrainingLesson<'a> {
    network: &'a IntentNetwork,
    asking: Asking,
    /// Learnt from, labels or not, are those of the training split with [`EVENTS_MIN`] events or more.
    users: &'a Arc<UserBlocks>,
    samples: usize,
    /// The validation split's decide when it is enough.
    held_out: &'a UserBlocks,
    batch_rows: usize,
    device: Device,
    seed: u64,
}

impl<'a> PretrainingLesson<'a> {
    /// `samples`: how many histories there are to learn from.
    pub fn new(
        network: &'a IntentNetwork,
        kind: Pretraining,
        (users, samples): (&'a Arc<UserBlocks>, usize),
        (held_out, contents): (&'a UserBlocks, &Arc<Contents>),
        (batch_rows, device, seed): (usize, Device, u64),
    ) -> Self {
        let asking = Asking { kind, events_max: network.shape.events_max, contents: Arc::clone(contents) };
        Self { network, asking, users, samples, held_out, batch_rows, device, seed }
    }

    fn loss_of(&self, asked: &Asked, train: bool) -> Result<Tensor> {
        let encoded = |events: &EventBatch| self.network.encode_users(&events.to(self.device)?, train);
        match &asked.what {
            What::Events(events, told) => {
                let states = self.network.event_states(&events.to(self.device)?, train)?;
                self.told(&states.f_contiguous()?.f_view([-1, self.network.shape.width])?, told)
            }
            What::Copies(one, other) => Ok(nt_xent(&encoded(one)?, &encoded(other)?)),
        }
    }

    /// Cross-entropy of what events were by the flattened states: the type, and the item among the batch's items. Both count
    /// the same, whatever the number of events with an item.
    fn told(&self, states: &Tensor, told: &Told) -> Result<Tensor> {
        let on = |ids: &Tensor| ids.f_to_device(self.device);
        let of = |places: &Tensor| -> Result<Tensor> { Ok(states.f_index_select(0, &on(places)?)?) };
        let of_types = self.network.event_type_logits(&of(&told.places)?).cross_entropy_for_logits(&on(&told.types)?);
        let Some(told) = &told.items else { return Ok(of_types) };
        let shown = told.shown.iter().map(|of| of.to(self.device)).collect::<Result<Vec<_>>>()?;
        let (vectors, bias) = self.network.items(&on(&told.items)?, &on(&told.categories)?, &shown)?;
        let scores = self.network.user_vectors(&of(&told.places)?).f_matmul(&vectors.transpose(0, 1))? + bias;
        Ok(of_types + scores.cross_entropy_for_logits(&on(&told.truth)?))
    }
}

/// What is asked of histories; makes batches of questions, on the CPU.
#[derive(Clone)]
struct Asking {
    kind: Pretraining,
    events_max: i64,
    contents: Arc<Contents>,
}

/// Histories of some users with what is asked of them.
pub struct Asked {
    users: usize,
    first_user: String,
    what: What,
}

enum What {
    /// Histories, some of their events perhaps hidden, and what events are to be told.
    Events(EventBatch, Told),
    /// Two changed copies of each history.
    Copies(EventBatch, EventBatch),
}

/// Events that are to be told.
struct Told {
    /// int64 [events]: whose states tell them, counted over the padded batch.
    places: Tensor,
    /// int64 [events].
    types: Tensor,
    /// None where all have the same item, or none.
    items: Option<ToldItems>,
}

/// Events whose items are to be told, among these.
struct ToldItems {
    /// int64 [events]: as in [`Told`].
    places: Tensor,
    /// int64 [events]: which of `items` each has.
    truth: Tensor,
    /// int64 [items].
    items: Tensor,
    categories: Tensor,
    shown: Vec<ContentBatch>,
}

impl Asking {
    fn ask(&self, users: &UserColumns, rows: &[usize], rng: &mut ChaCha8Rng) -> Result<Asked> {
        let taken = users.take(rows)?;
        let histories = taken.histories();
        let histories: Vec<&[EventInput]> = histories.iter().map(Vec::as_slice).collect();
        let what = match self.kind {
            Pretraining::Masked | Pretraining::None => self.masked(&histories, rng)?,
            Pretraining::NextEvent => self.next_event(&histories, rng)?,
            Pretraining::Contrastive => What::Copies(self.copy(&histories, rng)?, self.copy(&histories, rng)?),
        };
        Ok(Asked { users: rows.len(), first_user: taken.id(0).to_string(), what })
    }

    fn batch(&self, histories: &[&[EventInput]]) -> Result<EventBatch> {
        EventBatch::from_sequences(histories, self.events_max, &self.contents, Device::Cpu)
    }

    fn masked(&self, histories: &[&[EventInput]], rng: &mut ChaCha8Rng) -> Result<What> {
        let longest = histories.iter().map(|h| h.len()).max().unwrap_or(1);
        let (mut changed, mut places, mut hidden) = (Vec::new(), Vec::new(), Vec::new());
        for (row, history) in histories.iter().enumerate() {
            let mut events = history.to_vec();
            let one = rng.random_range(0..events.len());
            for (at, event) in events.iter_mut().enumerate() {
                if at == one || rng.random_bool(HIDDEN_SHARE) {
                    places.push((row * longest + at) as i64);
                    hidden.push(history[at]);
                    *event = event.masked();
                }
            }
            changed.push(events);
        }
        let slices: Vec<&[EventInput]> = changed.iter().map(Vec::as_slice).collect();
        Ok(What::Events(self.batch(&slices)?, self.told(&places, &hidden, rng)?))
    }

    fn next_event(&self, histories: &[&[EventInput]], rng: &mut ChaCha8Rng) -> Result<What> {
        let longest = histories.iter().map(|h| h.len()).max().unwrap_or(1);
        let (mut places, mut next) = (Vec::new(), Vec::new());
        for (row, history) in histories.iter().enumerate() {
            places.extend((0..history.len() - 1).map(|at| (row * longest + at) as i64));
            next.extend(&history[1..]);
        }
        Ok(What::Events(self.batch(histories)?, self.told(&places, &next, rng)?))
    }

    fn copy(&self, histories: &[&[EventInput]], rng: &mut ChaCha8Rng) -> Result<EventBatch> {
        let changed: Vec<Vec<EventInput>> = histories.iter().map(|h| Augmenter::ALL.apply(h, rng)).collect();
        self.batch(&changed.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    fn told(&self, places: &[i64], events: &[EventInput], rng: &mut ChaCha8Rng) -> Result<Told> {
        let types: Vec<i64> = events.iter().map(|e| e.event_type).collect();
        let items = self.told_items(places, events, rng)?;
        Ok(Told { places: Tensor::f_from_slice(places)?, types: Tensor::f_from_slice(&types)?, items })
    }

    fn told_items(&self, places: &[i64], events: &[EventInput], rng: &mut ChaCha8Rng) -> Result<Option<ToldItems>> {
        let mut with_item: Vec<usize> = (0..events.len()).filter(|&i| events[i].item != 0).collect();
        with_item.shuffle(rng);
        with_item.truncate(TOLD_MAX);
        let (mut candidates, mut known) = (Vec::new(), HashMap::new());
        let mut candidate = |&i: &usize| -> i64 {
            let thing = (events[i].item, events[i].category, events[i].contents);
            *known.entry(thing).or_insert_with(|| {
                candidates.push(thing);
                candidates.len() as i64 - 1
            })
        };
        let truth: Vec<i64> = with_item.iter().map(&mut candidate).collect();
        if candidates.len() < 2 {
            return Ok(None);
        }
        let things = candidates.iter().map(|&(item, category, _)| (item, category));
        let (items, categories): (Vec<i64>, Vec<i64>) = things.unzip();
        let shown: Vec<ContentRows> = candidates.iter().map(|thing| thing.2).collect();
        let places: Vec<i64> = with_item.iter().map(|&i| places[i]).collect();
        Ok(Some(ToldItems {
            places: Tensor::f_from_slice(&places)?,
            truth: Tensor::f_from_slice(&truth)?,
            items: Tensor::f_from_slice(&items)?,
            categories: Tensor::f_from_slice(&categories)?,
            shown: self.contents.gather(&rows_tensor(&shown)?)?,
        }))
    }
}

/// NT-Xent of two views, float32 [histories, width] each: row i of one belongs to row i of the other.
fn nt_xent(one: &Tensor, other: &Tensor) -> Tensor {
    let n = one.size()[0];
    let both = Tensor::cat(&[one, other], 0);
    let length = both.square().sum_dim_intlist(1i64, true, Kind::Float).sqrt().clamp_min(1e-6);
    let both = both / length;
    let near = both.matmul(&both.transpose(0, 1)) / TEMPERATURE;
    let itself = Tensor::eye(2 * n, (Kind::Bool, one.device()));
    let partner = Tensor::cat(
        &[Tensor::arange_start(n, 2 * n, (Kind::Int64, one.device())), Tensor::arange(n, (Kind::Int64, one.device()))],
        0,
    );
    near.masked_fill(&itself, f64::NEG_INFINITY).cross_entropy_for_logits(&partner)
}

/// Rows whose histories have something to tell.
fn telling(users: &UserColumns, wanted: Split) -> Vec<usize> {
    users.rows_of(wanted).into_iter().filter(|&row| users.length(row) >= EVENTS_MIN).collect()
}

struct HistoryRecipe {
    asking: Asking,
    draws: StepDraws,
}

impl Recipe for HistoryRecipe {
    type Rows = UserColumns;
    type Batch = Asked;

    fn open(&mut self, window: &UserColumns) -> Vec<usize> {
        telling(window, Split::Train)
    }

    fn tokens(&self, window: &UserColumns, row: usize) -> usize {
        window.length(row)
    }

    fn batch(&self, window: &UserColumns, rows: &[usize], rng: &mut ChaCha8Rng) -> Result<Asked> {
        self.asking.ask(window, rows, rng)
    }

    fn draws_of_step(&self, number: u64) -> Option<ChaCha8Rng> {
        Some(self.draws.of(number))
    }
}

impl Lesson for PretrainingLesson<'_> {
    type Batch = Asked;

    fn name(&self) -> &'static str {
        "pretraining"
    }

    fn samples(&self) -> usize {
        self.samples
    }

    fn samples_of(&self, batch: &Asked) -> usize {
        batch.users
    }

    fn batches(&self, epoch: Epoch) -> Result<Batches<Asked>> {
        let measure = Measure { rows_max: self.batch_rows, samples_max: usize::MAX };
        let recipe = HistoryRecipe { asking: self.asking.clone(), draws: epoch.draws.clone() };
        loader::batches(self.users, recipe, measure, epoch)
    }

    fn loss(&mut self, batch: &Asked, _: &mut ChaCha8Rng) -> Result<Loss> {
        Ok(self.loss_of(batch, true)?.into())
    }

    fn describe(&self, batch: &Asked) -> String {
        format!("{} histories, the first of user {}", batch.users, batch.first_user)
    }

    /// The same events are hidden and the same copies made every time, so that epochs can be compared.
    fn validate(&mut self) -> Result<Option<Validation>> {
        let _guard = tch::no_grad_guard();
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let (mut sum, mut users) = (0.0, 0);
        for window in self.held_out.each() {
            let window = window?;
            for rows in telling(&window, Split::Valid).chunks(self.batch_rows) {
                let asked = self.asking.ask(&window, rows, &mut rng)?;
                let loss = self.loss_of(&asked, false)?.double_value(&[]);
                sum += loss * rows.len() as f64;
                users += rows.len();
            }
        }
        Ok((users > 0).then(|| Validation { loss: sum / users as f64, figures: Vec::new() }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sets::UserSet;
    use super::super::user_columns::tests::{day, random};
    use super::*;
    use crate::config::networks::{BackboneName, HeadName};
    use crate::model::shape::IntentShape;
    use tch::nn::{self, OptimizerConfig};

    fn network(backbone: BackboneName, store: &nn::VarStore) -> IntentNetwork {
        let tiny = IntentShape::tiny(backbone, HeadName::Sigmoid);
        let shape = IntentShape { width: 16, item_buckets: 20, events_max: 32, ..tiny };
        IntentNetwork::new(&store.root(), &shape)
    }

    /// Users who go through the same ten items in turn, each from a place of their own.
    fn walkers(users: usize) -> UserSet {
        let event = |i: usize| EventInput {
            event_type: 1 + (i % 2) as i64,
            item: 1 + (i % 10) as i64,
            category: 1,
            contents: ContentRows::default(),
            reals: [0.0; 8],
        };
        let mut set = random(users, 0, 1);
        set.inputs.events = (0..users).map(|u| (u..u + 12).map(event).collect()).collect();
        set
    }

    fn blocks(set: &UserSet) -> Arc<UserBlocks> {
        Arc::new(UserBlocks::held(UserColumns::of(set, 1, day()).unwrap()).unwrap())
    }

    fn learnt(kind: Pretraining, backbone: BackboneName) -> (f64, f64) {
        tch::manual_seed(3);
        let store = nn::VarStore::new(Device::Cpu);
        let (network, users) = (network(backbone, &store), blocks(&walkers(60)));
        let of = (32, Device::Cpu, 1);
        let contents = Arc::new(Contents::default());
        let mut lesson = PretrainingLesson::new(&network, kind, (&users, 48), (&users, &contents), of);
        let mut optimizer = nn::AdamW::default().build(&store, 0.01).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let before = lesson.validate().unwrap().unwrap().loss;
        for epoch in 0..60 {
            let mut batches = lesson.batches(Epoch::first(epoch)).unwrap();
            let loss = lesson.loss(&batches.next().unwrap().unwrap(), &mut rng).unwrap().learnt;
            optimizer.backward_step(&loss);
        }
        (before, lesson.validate().unwrap().unwrap().loss)
    }

    #[test]
    fn each_way_learns_what_can_be_told_of_users_it_never_saw() {
        for (kind, backbone) in [
            (Pretraining::Masked, BackboneName::Transformer),
            (Pretraining::NextEvent, BackboneName::Causal),
            (Pretraining::NextEvent, BackboneName::Gru),
        ] {
            let (before, after) = learnt(kind, backbone);
            assert!(after < before - 1.0, "{kind:?}, {backbone:?}: {before} {after}");
        }
        let (before, after) = learnt(Pretraining::Contrastive, BackboneName::Transformer);
        assert!(after < before, "contrastive: {before} {after}");
    }

    #[test]
    fn nt_xent_is_the_formula_written_out() {
        let one = Tensor::from_slice(&[1.0f32, 0.0, 0.6, 0.8]).view([2, 2]);
        let other = Tensor::from_slice(&[2.0f32, 0.0, 0.0, 1.0]).view([2, 2]);
        let unit = [[1.0, 0.0], [0.6, 0.8], [1.0, 0.0], [0.0, 1.0]];
        let near = |i: usize, j: usize| (unit[i][0] * unit[j][0] + unit[i][1] * unit[j][1]) / TEMPERATURE;
        let of = |i: usize, partner: usize| -> f64 {
            let sum: f64 = (0..4).filter(|&j| j != i).map(|j| f64::exp(near(i, j))).sum();
            sum.ln() - near(i, partner)
        };
        let expected = (of(0, 2) + of(1, 3) + of(2, 0) + of(3, 1)) / 4.0;
        assert!((nt_xent(&one, &other).double_value(&[]) - expected).abs() < 1e-5);
    }

    #[test]
    fn histories_too_short_to_tell_anything_are_left_out() {
        let mut set = walkers(60);
        set.inputs.events.iter_mut().skip(1).step_by(2).for_each(|events| events.truncate(1));
        let users = blocks(&set);
        let store = nn::VarStore::new(Device::Cpu);
        let (network, contents) = (network(BackboneName::Causal, &store), Arc::new(Contents::default()));
        let of = (8, Device::Cpu, 1);
        let lesson = PretrainingLesson::new(&network, Pretraining::NextEvent, (&users, 30), (&users, &contents), of);
        let mut told = 0;
        for asked in lesson.batches(Epoch::first(1)).unwrap().map(Result::unwrap) {
            let What::Events(events, _) = &asked.what else { panic!("copies, not events") };
            assert!(Vec::<i64>::try_from(&events.lengths).unwrap().iter().all(|length| *length == 12));
            told += asked.users;
        }
        assert!((15..=30).contains(&told), "{told}");
    }
}
