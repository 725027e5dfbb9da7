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
use super::fit::{Batches, Lesson, Loss, Validation};
use super::loader::{self, Measure, Recipe};
use super::sets::Split;
use super::survey::EVENTS_MIN;
use super::user_columns::{UserBlocks, UserColumns};
use crate::config::networks::Pretraining;
use crate::failure::Result;
use crate::model::contents::{ContentRows, Contents, rows_tensor};
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
    kind: Pretraining,
    /// Learnt from, labels or not, are those of the training split with [`EVENTS_MIN`] events or more.
    users: &'a Arc<UserBlocks>,
    samples: usize,
    /// The validation split's decide when it is enough.
    held_out: &'a UserBlocks,
    contents: &'a Contents,
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
        (held_out, contents): (&'a UserBlocks, &'a Contents),
        (batch_rows, device, seed): (usize, Device, u64),
    ) -> Self {
        Self { network, kind, users, samples, held_out, contents, batch_rows, device, seed }
    }

    fn loss_of(&self, histories: &Histories, rng: &mut ChaCha8Rng, train: bool) -> Result<Tensor> {
        let histories: Vec<&[EventInput]> = histories.events.iter().map(Vec::as_slice).collect();
        match self.kind {
            Pretraining::Masked | Pretraining::None => self.masked(&histories, rng, train),
            Pretraining::NextEvent => self.next_event(&histories, rng, train),
            Pretraining::Contrastive => self.contrastive(&histories, rng, train),
        }
    }

    fn batch(&self, histories: &[&[EventInput]]) -> Result<EventBatch> {
        self.network.batch(histories, self.contents, self.device)
    }

    fn masked(&self, histories: &[&[EventInput]], rng: &mut ChaCha8Rng, train: bool) -> Result<Tensor> {
        let longest = histories.iter().map(|h| h.len()).max().unwrap_or(1);
        let (mut changed, mut places, mut hidden) = (Vec::new(), Vec::new(), Vec::new());
        for (row, history) in histories.iter().enumerate() {
            let mut events = history.to_vec();
            let one = rng.random_range(0..events.len());
            for (at, event) in events.iter_mut().enumerate() {
                if at == one || rng.random_bool(HIDDEN_SHARE) {
                    places.push((row * longest + at) as i64);
                    hidden.push(history[at]);
                    *event = event.unknown();
                }
            }
            changed.push(events);
        }
        let slices: Vec<&[EventInput]> = changed.iter().map(Vec::as_slice).collect();
        let states = self.network.event_states(&self.batch(&slices)?, train)?;
        self.told(&states, places, hidden, rng)
    }

    fn next_event(&self, histories: &[&[EventInput]], rng: &mut ChaCha8Rng, train: bool) -> Result<Tensor> {
        let longest = histories.iter().map(|h| h.len()).max().unwrap_or(1);
        let states = self.network.event_states(&self.batch(histories)?, train)?;
        let (mut places, mut next) = (Vec::new(), Vec::new());
        for (row, history) in histories.iter().enumerate() {
            places.extend((0..history.len() - 1).map(|at| (row * longest + at) as i64));
            next.extend(&history[1..]);
        }
        self.told(&states, places, next, rng)
    }

    /// Cross-entropy of what `events` were, by the states at `places` of the flattened `states`: the type, and the item
    /// among the batch's items. Both count the same, whatever the number of events with an item.
    fn told(&self, states: &Tensor, places: Vec<i64>, events: Vec<EventInput>, rng: &mut ChaCha8Rng) -> Result<Tensor> {
        let width = self.network.shape.width;
        let flat = states.f_contiguous()?.f_view([-1, width])?;
        let on = |ids: &[i64]| -> Result<Tensor> { Ok(Tensor::f_from_slice(ids)?.f_to_device(self.device)?) };
        let of = |places: &[i64]| -> Result<Tensor> { Ok(flat.f_index_select(0, &on(places)?)?) };
        let types: Vec<i64> = events.iter().map(|e| e.event_type).collect();
        let of_types = self.network.event_types(&of(&places)?).cross_entropy_for_logits(&on(&types)?);

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
        let told: Vec<i64> = with_item.iter().map(&mut candidate).collect();
        if candidates.len() < 2 {
            return Ok(of_types);
        }
        let things = candidates.iter().map(|&(item, category, _)| (item, category));
        let (items, categories): (Vec<i64>, Vec<i64>) = things.unzip();
        let shown: Vec<ContentRows> = candidates.iter().map(|thing| thing.2).collect();
        let shown = self.contents.gather(&rows_tensor(&shown)?)?;
        let shown = shown.iter().map(|of| of.to(self.device)).collect::<Result<Vec<_>>>()?;
        let at: Vec<i64> = with_item.iter().map(|&i| places[i]).collect();
        let (vectors, bias) = self.network.items(&on(&items)?, &on(&categories)?, &shown)?;
        let scores = self.network.taste(&of(&at)?).f_matmul(&vectors.transpose(0, 1))? + bias;
        Ok(of_types + scores.cross_entropy_for_logits(&on(&told)?))
    }

    fn contrastive(&self, histories: &[&[EventInput]], rng: &mut ChaCha8Rng, train: bool) -> Result<Tensor> {
        let mut view = || -> Result<Tensor> {
            let changed: Vec<Vec<EventInput>> = histories.iter().map(|h| Augmenter::ALL.apply(h, rng)).collect();
            let slices: Vec<&[EventInput]> = changed.iter().map(Vec::as_slice).collect();
            self.network.encode_batch(&self.batch(&slices)?, train)
        };
        Ok(nt_xent(&view()?, &view()?))
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

/// Events of some users.
pub struct Histories {
    first_user: String,
    events: Vec<Vec<EventInput>>,
}

impl Histories {
    fn of(users: &UserColumns, rows: &[usize]) -> Result<Self> {
        let taken = users.take(rows)?;
        Ok(Self { first_user: taken.id(0).to_string(), events: taken.histories() })
    }
}

/// Rows whose histories have something to tell.
fn telling(users: &UserColumns, wanted: Split) -> Vec<usize> {
    users.rows_of(wanted).into_iter().filter(|&row| users.length(row) >= EVENTS_MIN).collect()
}

struct HistoryRecipe;

impl Recipe for HistoryRecipe {
    type Rows = UserColumns;
    type Batch = Histories;

    fn open(&mut self, window: &UserColumns) -> Vec<usize> {
        telling(window, Split::Train)
    }

    fn tokens(&self, window: &UserColumns, row: usize) -> usize {
        window.length(row)
    }

    fn batch(&self, window: &UserColumns, rows: &[usize], _: &mut ChaCha8Rng) -> Result<Histories> {
        Histories::of(window, rows)
    }
}

impl Lesson for PretrainingLesson<'_> {
    type Batch = Histories;

    fn name(&self) -> &'static str {
        "pretraining"
    }

    fn samples(&self) -> usize {
        self.samples
    }

    fn samples_of(&self, batch: &Histories) -> usize {
        batch.events.len()
    }

    fn batches(&self, rng: ChaCha8Rng, skip: u64) -> Result<Batches<Histories>> {
        let measure = Measure { rows_max: self.batch_rows, samples_max: usize::MAX, skip };
        loader::batches(self.users, HistoryRecipe, measure, rng)
    }

    fn loss(&mut self, batch: &Histories, rng: &mut ChaCha8Rng) -> Result<Loss> {
        Ok(self.loss_of(batch, rng, true)?.into())
    }

    fn describe(&self, batch: &Histories) -> String {
        format!("{} histories, the first of user {}", batch.events.len(), batch.first_user)
    }

    /// The same events are hidden and the same copies made every time, so that epochs can be compared.
    fn validate(&mut self) -> Result<Option<Validation>> {
        let _guard = tch::no_grad_guard();
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let (mut sum, mut users) = (0.0, 0);
        for window in self.held_out.each() {
            let window = window?;
            for rows in telling(&window, Split::Valid).chunks(self.batch_rows) {
                let loss = self.loss_of(&Histories::of(&window, rows)?, &mut rng, false)?.double_value(&[]);
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
    use crate::model::intent::IntentShape;
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
        let contents = Contents::default();
        let mut lesson = PretrainingLesson::new(&network, kind, (&users, 48), (&users, &contents), of);
        let mut optimizer = nn::AdamW::default().build(&store, 0.01).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let before = lesson.validate().unwrap().unwrap().loss;
        for epoch in 0..60 {
            let mut batches = lesson.batches(ChaCha8Rng::seed_from_u64(epoch), 0).unwrap();
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
        let measure = Measure { rows_max: 8, samples_max: usize::MAX, skip: 0 };
        let batches = loader::batches(&users, HistoryRecipe, measure, ChaCha8Rng::seed_from_u64(1)).unwrap();
        let told: Vec<Histories> = batches.map(Result::unwrap).collect();
        assert!(told.iter().flat_map(|of| &of.events).all(|events| events.len() == 12));
        assert!((15..=30).contains(&told.iter().map(|of| of.events.len()).sum::<usize>()));
    }
}
