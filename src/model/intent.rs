//! The intent network in two parts: an encoder of a user's events that does not depend on the run date, and heads on top.
//!
//! Encoder: embedded events → a backbone → a summary of its states and the mean of the item vectors → one vector of `width`.
//! Heads: that vector, standardised tabular features and idle time → intents, churn, units, spend; and a user vector
//! that ranks items.

use tch::nn::{self, Module, ModuleT};
use tch::{Device, Kind, Tensor};

use super::backbones::{self, Backbone, PaddedEvents, StateSummary};
use super::contents::{ContentBatch, Contents};
use super::embedding::small_embedding;
use super::events::{EventBatch, EventEmbedding};
use super::heads::{self, IntentHead};
use super::inputs::{EventInput, UserInputs};
use super::scaling::Scaling;
use super::shape::IntentShape;
use super::targets::{CHURN, OUTPUTS};
use crate::failure::Result;

const UNITS: i64 = CHURN + 1;

/// Raw outputs of the heads, float32 [users, ..].
#[derive(Debug)]
pub(crate) struct RawOutputs {
    /// [users, intents], as the intents' head reads them.
    pub(crate) intents: Tensor,
    /// [users, 1]: the log-odds of churn.
    pub(crate) churn: Tensor,
    /// [users, 2]: expected units and spend in the units of [`Scaling`], positive.
    pub(crate) amounts: Tensor,
}

impl RawOutputs {
    /// Joins the users of several batches, in order.
    pub(crate) fn cat(parts: &[RawOutputs]) -> Result<RawOutputs> {
        let join = |of: &dyn Fn(&RawOutputs) -> &Tensor| Tensor::f_cat(&parts.iter().map(of).collect::<Vec<_>>(), 0);
        Ok(RawOutputs { intents: join(&|r| &r.intents)?, churn: join(&|r| &r.churn)?, amounts: join(&|r| &r.amounts)? })
    }
}

/// Embedded events of several users.
#[derive(Debug)]
pub(crate) struct EmbeddedUsers {
    /// Vectors of the events' items, float32 [users, events, width].
    pub(crate) items: Tensor,
    pub(crate) events: PaddedEvents,
    /// Each user's mean content vectors, float32 [users, ..]; `None` for a fusion of one level.
    pub(crate) content_means: Option<Tensor>,
}

/// The network for one user at a time: encoder, heads and item vectors.
#[derive(Debug)]
pub(crate) struct IntentNetwork {
    pub(crate) shape: IntentShape,
    events: EventEmbedding,
    backbone: Box<dyn Backbone>,
    pool: nn::Linear,
    /// The encoder state of users without events, [width].
    empty: Tensor,
    trunk: nn::SequentialT,
    pub(crate) head: Box<dyn IntentHead>,
    user_map: nn::Linear,
    item_bias: nn::Embedding,
}

impl IntentNetwork {
    /// Creates initial weights below `path`.
    pub(crate) fn new(path: &nn::Path, shape: &IntentShape) -> Self {
        let d = shape.width;
        let backbone = backbones::build(&(path / "backbone"), shape);
        let summary = match backbone.summary() {
            StateSummary::Last => d,
            StateSummary::LastAndMean => 2 * d,
        };
        let tabular = 2 * shape.features as i64;
        let dropout = shape.dropout;
        let trunk = nn::seq_t()
            .add(nn::linear(path / "head1", d + tabular + 2, 128, Default::default()))
            .add_fn(|x| x.gelu("none"))
            .add_fn_t(move |x, train| x.dropout(dropout, train))
            .add(nn::linear(path / "head2", 128, 64, Default::default()))
            .add_fn(|x| x.gelu("none"))
            .add(nn::linear(path / "head3", 64, OUTPUTS.len() as i64, Default::default()));
        let events = EventEmbedding::new(path, shape);
        Self {
            shape: shape.clone(),
            backbone,
            pool: nn::linear(path / "pool", summary + d + events.content_means_width(), d, Default::default()),
            events,
            empty: path.zeros("empty", &[d]),
            trunk,
            head: heads::build(&(path / "intents"), shape.head),
            user_map: nn::linear(path / "taste", d, d, Default::default()),
            item_bias: small_embedding(path / "item_bias", shape.item_buckets as i64 + 1, 1),
        }
    }

    /// Builds a batch of event sequences, oldest first, on `device`. `contents` holds the vectors of the events' content rows.
    pub(crate) fn batch(&self, sequences: &[&[EventInput]], contents: &Contents, device: Device) -> Result<EventBatch> {
        EventBatch::from_sequences(sequences, self.shape.events_max, contents, device)
    }

    /// Encodes a batch on this network's device: float32 [users, width]. Users without events get a learnt vector.
    pub(crate) fn encode_users(&self, batch: &EventBatch, train: bool) -> Result<Tensor> {
        self.encode_embedded(&self.embed(batch)?, train)
    }

    /// Embeds the events of a batch.
    pub(crate) fn embed(&self, batch: &EventBatch) -> Result<EmbeddedUsers> {
        let (items, events) = self.events.forward(batch)?;
        Ok(EmbeddedUsers { content_means: self.events.content_means(batch, &items)?, items, events })
    }

    /// Encodes embedded users, as [`Self::encode_users`] does.
    pub(crate) fn encode_embedded(&self, users: &EmbeddedUsers, train: bool) -> Result<Tensor> {
        let EmbeddedUsers { items, events, content_means } = users;
        let states = self.backbone.states(events, train)?;
        let mut summary = vec![last_state(&states, events)];
        if self.backbone.summary() == StateSummary::LastAndMean {
            summary.push(mean_state(&states, events));
        }
        // The plain mean of the item vectors in addition to the encoded one: preferences show without any sequence.
        summary.push(mean_state(items, events));
        summary.extend(content_means.as_ref().map(Tensor::shallow_clone));
        let pooled = self.pool.forward(&Tensor::f_cat(&summary, -1)?);
        let has_events = events.lengths.gt(0).unsqueeze(-1);
        Ok(pooled.f_where_self(&has_events, &self.empty.unsqueeze(0))?)
    }

    /// Returns the state of each event, float32 [sequences, events, width]; those of padding may be any finite numbers.
    pub(crate) fn event_states(&self, batch: &EventBatch, train: bool) -> Result<Tensor> {
        let (_, padded) = self.events.forward(batch)?;
        self.backbone.states(&padded, train)
    }

    /// Returns the logits of each event type for event states [.., width], float32 [.., 9] (unknown, then the eight types),
    /// by the dot product with the types' embeddings.
    pub(crate) fn event_type_logits(&self, states: &Tensor) -> Tensor {
        states.matmul(&self.events.type_vectors().transpose(0, 1))
    }

    /// Returns the raw outputs of encoded users; `rows` are their places in `inputs`.
    pub(crate) fn outputs_for_rows(
        &self,
        states: &Tensor,
        inputs: &UserInputs,
        rows: &[usize],
        scaling: &Scaling,
        train: bool,
    ) -> Result<RawOutputs> {
        let features = self.shape.features;
        let tabular: Vec<f32> =
            rows.iter().flat_map(|&r| &inputs.tabular[r * features..(r + 1) * features]).copied().collect();
        let idle: Vec<f32> = rows.iter().map(|&r| inputs.idle_log_hours[r]).collect();
        self.outputs(states, &scaling.head_inputs(&tabular, &idle)?.f_to_device(states.device())?, train)
    }

    /// Returns the raw outputs of encoded users. `tabular` comes from [`Scaling::head_inputs`].
    pub(crate) fn outputs(&self, states: &Tensor, tabular: &Tensor, train: bool) -> Result<RawOutputs> {
        let raw = self.trunk.forward_t(&Tensor::f_cat(&[states, tabular], -1)?, train);
        Ok(RawOutputs {
            intents: raw.narrow(1, 0, CHURN),
            churn: raw.narrow(1, CHURN, 1),
            amounts: raw.narrow(1, UNITS, 2).softplus(),
        })
    }

    /// Returns the published outputs, float32 [users, targets]: probabilities, then amounts in units and money.
    pub(crate) fn scores(&self, raw: &RawOutputs, scaling: &Scaling) -> Result<Tensor> {
        Ok(Tensor::f_cat(
            &[
                self.head.probabilities(&raw.intents),
                raw.churn.sigmoid(),
                raw.amounts.narrow(1, 0, 1) * scaling.units,
                raw.amounts.narrow(1, 1, 1) * scaling.spend,
            ],
            1,
        )?)
    }

    /// Returns item vectors, float32 [items, width], and popularity biases, float32 [items], from the buckets of item ids and
    /// categories, int64 [items] each, and the items' contents.
    pub(crate) fn items(
        &self,
        buckets: &Tensor,
        categories: &Tensor,
        contents: &[ContentBatch],
    ) -> Result<(Tensor, Tensor)> {
        let bias = self.item_bias.forward(buckets).squeeze_dim(-1);
        Ok((self.events.item_vectors(buckets, categories, contents)?, bias))
    }

    /// Returns user vectors, float32 [rows, width]. The dot product with an item vector, plus the item's bias, ranks items.
    pub(crate) fn user_vectors(&self, states: &Tensor) -> Tensor {
        self.user_map.forward(states)
    }
}

/// Returns the state of each user's newest event, float32 [users, width].
fn last_state(states: &Tensor, events: &PaddedEvents) -> Tensor {
    if !events.has_padding {
        return states.select(1, -1);
    }
    let users = states.size()[0];
    let width = states.size()[2];
    let at = (&events.lengths - 1).clamp_min(0).view([users, 1, 1]).expand([users, 1, width], false);
    states.gather(1, &at, false).squeeze_dim(1)
}

/// Returns the mean over each user's events, float32 [users, width].
fn mean_state(states: &Tensor, events: &PaddedEvents) -> Tensor {
    let sum = |of: &Tensor| of.sum_dim_intlist(1i64, false, Kind::Float);
    let total = match events.has_padding {
        true => sum(&(states * events.present.to_kind(Kind::Float).unsqueeze(-1))),
        false => sum(states),
    };
    total / events.lengths.clamp_min(1).unsqueeze(-1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::networks::{BackboneName, FusionName, HeadName};
    use crate::model::targets::BINARY;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn shape(backbone: BackboneName, head: HeadName) -> IntentShape {
        IntentShape {
            width: 16,
            layers: 2,
            item_buckets: 50,
            events_max: 40,
            dropout: 0.1,
            content_dims: [0, 3, 0],
            fusion: FusionName::Multilevel,
            ..IntentShape::tiny(backbone, head)
        }
    }

    /// Ten image vectors of dimension three.
    fn contents() -> Contents {
        let mut contents = Contents::new([0, 3, 0]);
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for key in 1..=10 {
            assert!(contents.insert(1, key, &[0, 1, 2].map(|_| rng.random_range(-1.0..1.0))));
        }
        contents
    }

    fn encode(network: &IntentNetwork, sequences: &[&[EventInput]]) -> Tensor {
        network.encode_users(&network.batch(sequences, &contents(), Device::Cpu).unwrap(), false).unwrap()
    }

    fn sequence(rng: &mut ChaCha8Rng, length: usize) -> Vec<EventInput> {
        (0..length)
            .map(|_| EventInput {
                event_type: rng.random_range(1..=8),
                item: rng.random_range(1..=50),
                category: rng.random_range(1..=9),
                contents: [0, rng.random_range(0..=10), 0],
                reals: std::array::from_fn(|_| rng.random_range(-2.0..2.0)),
            })
            .collect()
    }

    fn max_difference(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn a_batch_equals_its_members_with_every_backbone() {
        for backbone in BackboneName::ALL {
            tch::manual_seed(4);
            let store = nn::VarStore::new(Device::Cpu);
            let network = IntentNetwork::new(&store.root(), &shape(backbone, HeadName::Sigmoid));
            let mut rng = ChaCha8Rng::seed_from_u64(11);
            let sequences: Vec<Vec<EventInput>> =
                [0, 1, 2, 7, 33, 40, 5, 0].iter().map(|&n| sequence(&mut rng, n)).collect();
            let slices: Vec<&[EventInput]> = sequences.iter().map(Vec::as_slice).collect();
            let _guard = tch::no_grad_guard();
            let all = encode(&network, &slices);
            assert_eq!(all.isfinite().all().int64_value(&[]), 1, "{backbone:?}");
            for (row, one) in slices.iter().enumerate() {
                let alone = encode(&network, &[one]);
                let difference = max_difference(&alone.squeeze_dim(0), &all.get(row as i64));
                assert!(difference < 1e-5, "{backbone:?}, user {row}: {difference}");
            }
            // The order of events matters: the reversed history has another state.
            let mut reversed = sequences[4].clone();
            reversed.reverse();
            let other = encode(&network, &[&reversed]);
            assert!(max_difference(&other.squeeze_dim(0), &all.get(4)) > 1e-4, "{backbone:?}");
            // So do the images, and their absence.
            for image in [3, 0] {
                let mut changed = sequences[4].clone();
                changed.iter_mut().for_each(|e| e.contents[1] = image);
                assert!(
                    max_difference(&encode(&network, &[&changed]).squeeze_dim(0), &all.get(4)) > 1e-4,
                    "{backbone:?}"
                );
            }
        }
    }

    #[test]
    fn later_events_change_earlier_states_only_if_looking_ahead() {
        for backbone in BackboneName::ALL {
            tch::manual_seed(4);
            let store = nn::VarStore::new(Device::Cpu);
            let network = backbones::build(&store.root(), &shape(backbone, HeadName::Sigmoid));
            let x = Tensor::randn([1, 6, 16], (Kind::Float, Device::Cpu));
            let states = |x: &Tensor| {
                let lengths = Tensor::from_slice(&[6i64]);
                let events = PaddedEvents {
                    x: x.shallow_clone(),
                    lengths,
                    present: Tensor::ones([1, 6], (Kind::Bool, Device::Cpu)),
                    has_padding: false,
                };
                tch::no_grad(|| network.states(&events, false)).unwrap().narrow(1, 0, 5)
            };
            let before = states(&x);
            let changed = Tensor::cat(&[x.narrow(1, 0, 5), -x.narrow(1, 5, 1)], 1);
            let moved = max_difference(&before, &states(&changed));
            match backbone.looks_ahead() {
                true => assert!(moved > 1e-4, "{backbone:?}: {moved}"),
                false => assert!(moved < 1e-6, "{backbone:?}: {moved}"),
            }
        }
    }

    #[test]
    fn every_head_gives_probabilities_and_positive_amounts() {
        for head in HeadName::ALL {
            let store = nn::VarStore::new(Device::Cpu);
            let network = IntentNetwork::new(&store.root(), &shape(BackboneName::Gru, head));
            let inputs = UserInputs {
                user_ids: vec!["a".into(), "b".into()],
                events: vec![sequence(&mut ChaCha8Rng::seed_from_u64(1), 3), vec![]],
                tabular: vec![0.5, f32::NAN],
                idle_log_hours: vec![1.0, f32::NAN],
            };
            let scaling = Scaling { mean: vec![0.0], deviation: vec![1.0], spend: 10.0, units: 2.0 };
            let states = encode(&network, &[&inputs.events[0], &[]]);
            let raw = network.outputs_for_rows(&states, &inputs, &[0, 1], &scaling, false).unwrap();
            let scores = network.scores(&raw, &scaling).unwrap();
            assert_eq!(scores.size(), [2, OUTPUTS.len() as i64]);
            assert!(scores.min().double_value(&[]) > 0.0);
            assert!(scores.narrow(1, 0, BINARY as i64).max().double_value(&[]) < 1.0);
        }
    }
}
