//! The behaviour network, cut in two: a date-independent encoder of a user's events, and heads over it.
//!
//! Encoder: embedded events → a backbone → its summary and the mean of what was looked at → one vector of `width`.
//! Heads: that vector, standardised tabular features and idle time → six intents, churn, units, spend; and a taste.

use serde::{Deserialize, Serialize};
use tch::nn::{self, Module, ModuleT};
use tch::{Device, Kind, Tensor};

use super::backbones::{self, Backbone, Padded, Summary};
use super::contents::{Contents, Gathered, MODALITIES};
use super::events::{Embedding, EventBatch, SMALL};
use super::heads::{self, INTENTS, IntentHead};
use super::inputs::{EventInput, UserInputs};
use crate::config::networks::{BackboneName, FusionName, HeadName};
use crate::failure::Result;
use crate::metrics::moments::Moments;

/// Outputs of the heads, in order; the last two are amounts, the others probabilities.
pub const OUTPUTS: [&str; 9] = [
    "p_view",
    "p_search",
    "p_favorite",
    "p_cart",
    "p_purchase",
    "p_review",
    "p_churn",
    "expected_units",
    "expected_spend",
];
/// Where churn stands among the outputs, and its label among the labels.
pub const CHURN: i64 = INTENTS.len() as i64;
const UNITS: i64 = CHURN + 1;

/// Sizes of the network; part of the bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IntentShape {
    pub backbone: BackboneName,
    pub head: HeadName,
    pub width: i64,
    pub layers: i64,
    /// Of attention; the recurrent backbones have none.
    pub heads: i64,
    pub item_buckets: u64,
    pub events_max: i64,
    pub dropout: f64,
    pub features: usize,
    /// Numbers of a text's, a picture's and a video's vector; 0 for those that the network does not read.
    pub content_dims: [i64; MODALITIES.len()],
    pub fusion: FusionName,
}

#[cfg(test)]
impl IntentShape {
    /// For tests to change what they are about: one tabular feature, no contents, no dropout.
    pub fn tiny(backbone: BackboneName, head: HeadName) -> Self {
        Self {
            backbone,
            head,
            width: 8,
            layers: 1,
            heads: 2,
            item_buckets: 1000,
            events_max: 8,
            dropout: 0.0,
            features: 1,
            content_dims: [0; MODALITIES.len()],
            fusion: FusionName::default(),
        }
    }
}

/// How tabular features were scaled in training; NaN-free, one entry a feature.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    pub mean: Vec<f32>,
    pub deviation: Vec<f32>,
    /// Mean spend of a buying user: the unit of the spend head.
    pub spend: f64,
    /// Mean units of a buying user: the unit of the units head. Wholesalers buy by the thousand.
    pub units: f64,
}

impl Scaling {
    /// Of the moments of each feature. A feature that never varied says nothing, later values neither: its deviation is the
    /// largest number there is, so that it is scaled to zero.
    pub fn of(features: &[Moments], units: f64, spend: f64) -> Self {
        let deviation = |of: &Moments| {
            let deviation = of.deviation();
            let constant = deviation <= 1e-6 * of.mean().abs().max(1.0);
            if constant { f32::MAX } else { deviation.max(1e-3) as f32 }
        };
        Self {
            mean: features.iter().map(|of| of.mean() as f32).collect(),
            deviation: features.iter().map(deviation).collect(),
            spend: spend.max(1e-6),
            units: units.max(1e-6),
        }
    }

    /// What the heads take beside the encoder's state, on the CPU, float32 [users, 2 × features + 2]: standardised values,
    /// null flags, idle time and its absence. `tabular`: row-major [users, features]; `idle_log_hours`: [users].
    pub fn tensor(&self, tabular: &[f32], idle_log_hours: &[f32]) -> Result<Tensor> {
        let (b, f) = (idle_log_hours.len() as i64, self.mean.len() as i64);
        let (mean, deviation) = (Tensor::f_from_slice(&self.mean)?, Tensor::f_from_slice(&self.deviation)?);
        let values = Tensor::f_from_slice(tabular)?.f_view([b, f])?;
        let idle = Tensor::f_from_slice(idle_log_hours)?.f_view([b, 1])?;
        let flags = |of: &Tensor| of.f_isnan()?.f_to_kind(Kind::Float);
        let scaled = ((&values - mean) / deviation).f_clamp(-8.0, 8.0)?.f_nan_to_num(0.0, 8.0, -8.0)?;
        Ok(Tensor::f_cat(&[scaled, flags(&values)?, (&idle / 4.0).f_nan_to_num(0.0, None, None)?, flags(&idle)?], 1)?)
    }
}

/// Raw outputs of the heads, float32 [users, ..].
#[derive(Debug)]
pub struct Raw {
    /// [users, 6], as the intents' head takes them.
    pub intents: Tensor,
    /// [users, 1]: the log-odds of churn.
    pub churn: Tensor,
    /// [users, 2]: expected units and spend in the scaling's units, positive.
    pub amounts: Tensor,
}

impl Raw {
    /// All users of several batches, in order.
    pub fn cat(parts: &[Raw]) -> Result<Raw> {
        let join = |of: &dyn Fn(&Raw) -> &Tensor| Tensor::f_cat(&parts.iter().map(of).collect::<Vec<_>>(), 0);
        Ok(Raw { intents: join(&|r| &r.intents)?, churn: join(&|r| &r.churn)?, amounts: join(&|r| &r.amounts)? })
    }
}

#[derive(Debug)]
pub struct IntentNetwork {
    pub shape: IntentShape,
    events: Embedding,
    backbone: Box<dyn Backbone>,
    pool: nn::Linear,
    empty: Tensor,
    trunk: nn::SequentialT,
    pub head: Box<dyn IntentHead>,
    taste: nn::Linear,
    item_bias: nn::Embedding,
}

impl IntentNetwork {
    pub fn new(path: &nn::Path, shape: &IntentShape) -> Self {
        let d = shape.width;
        let backbone = backbones::build(&(path / "backbone"), shape);
        let summary = match backbone.summary() {
            Summary::Last => d,
            Summary::LastAndMean => 2 * d,
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
        let bias = nn::EmbeddingConfig { ws_init: SMALL, ..Default::default() };
        let events = Embedding::new(path, shape);
        Self {
            shape: shape.clone(),
            backbone,
            pool: nn::linear(path / "pool", summary + d + events.means_width(), d, Default::default()),
            events,
            empty: path.zeros("empty", &[d]),
            trunk,
            head: heads::build(&(path / "intents"), shape.head),
            taste: nn::linear(path / "taste", d, d, Default::default()),
            item_bias: nn::embedding(path / "item_bias", shape.item_buckets as i64 + 1, 1, bias),
        }
    }

    /// Sequences of events, oldest first, as the network takes them. `contents`: where the rows of their contents stand.
    pub fn batch(&self, sequences: &[&[EventInput]], contents: &Contents, device: Device) -> Result<EventBatch> {
        EventBatch::of(sequences, self.shape.events_max, contents, device)
    }

    /// Encodes a batch on this network's device: float32 [users, width]. Users without events get a learned vector.
    pub fn encode_batch(&self, batch: &EventBatch, train: bool) -> Result<Tensor> {
        let (things, padded) = self.events.forward(batch)?;
        let states = self.backbone.read(&padded, train)?;
        let mut summary = vec![last(&states, &padded)];
        if self.backbone.summary() == Summary::LastAndMean {
            summary.push(mean(&states, &padded));
        }
        // The plain mean of what was looked at, beside the encoded one: tastes need no sequence to be seen.
        summary.push(mean(&things, &padded));
        summary.extend(self.events.means(batch, &things)?);
        let pooled = self.pool.forward(&Tensor::f_cat(&summary, -1)?);
        let some = padded.lengths.gt(0).unsqueeze(-1);
        Ok(pooled.f_where_self(&some, &self.empty.unsqueeze(0))?)
    }

    /// The state of each event, float32 [sequences, events, width]; padding's may be anything finite.
    pub fn event_states(&self, batch: &EventBatch, train: bool) -> Result<Tensor> {
        let (_, padded) = self.events.forward(batch)?;
        self.backbone.read(&padded, train)
    }

    /// Log-odds that states [.., width] are of each event type, float32 [.., 9] (unknown, then the eight), by the types'
    /// own embeddings.
    pub fn event_types(&self, states: &Tensor) -> Tensor {
        states.matmul(&self.events.types().transpose(0, 1))
    }

    /// Raw outputs for encoded users and their tabular features.
    pub fn outputs(
        &self,
        states: &Tensor,
        inputs: &UserInputs,
        rows: &[usize],
        scaling: &Scaling,
        train: bool,
    ) -> Result<Raw> {
        let features = self.shape.features;
        let tabular: Vec<f32> =
            rows.iter().flat_map(|&r| &inputs.tabular[r * features..(r + 1) * features]).copied().collect();
        let idle: Vec<f32> = rows.iter().map(|&r| inputs.idle_log_hours[r]).collect();
        self.outputs_of(states, &scaling.tensor(&tabular, &idle)?.f_to_device(states.device())?, train)
    }

    /// Raw outputs for encoded users, by what [`Scaling::tensor`] made of their features.
    pub fn outputs_of(&self, states: &Tensor, tabular: &Tensor, train: bool) -> Result<Raw> {
        let raw = self.trunk.forward_t(&Tensor::f_cat(&[states, tabular], -1)?, train);
        Ok(Raw {
            intents: raw.narrow(1, 0, CHURN),
            churn: raw.narrow(1, CHURN, 1),
            amounts: raw.narrow(1, UNITS, 2).softplus(),
        })
    }

    /// Outputs as published, float32 [users, 9]: probabilities, then amounts in units and money.
    pub fn scores(&self, raw: &Raw, scaling: &Scaling) -> Result<Tensor> {
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

    /// Of items by the buckets of their ids and categories, int64 [items] each, and their contents: vectors, float32
    /// [items, width], and popularity biases, float32 [items].
    pub fn items(&self, buckets: &Tensor, categories: &Tensor, contents: &[Gathered]) -> Result<(Tensor, Tensor)> {
        let bias = self.item_bias.forward(buckets).squeeze_dim(-1);
        Ok((self.events.things(buckets, categories, contents)?, bias))
    }

    /// Taste vectors, float32 [rows, width]: their dot product with an item's vector, plus its bias, ranks items.
    pub fn taste(&self, states: &Tensor) -> Tensor {
        self.taste.forward(states)
    }
}

/// The state of each user's newest event, float32 [users, width].
fn last(states: &Tensor, events: &Padded) -> Tensor {
    let (b, d) = (states.size()[0], states.size()[2]);
    let at = (&events.lengths - 1).clamp_min(0).view([b, 1, 1]).expand([b, 1, d], false);
    states.gather(1, &at, false).squeeze_dim(1)
}

/// The mean over each user's events, float32 [users, width].
fn mean(states: &Tensor, events: &Padded) -> Tensor {
    let weight = events.present.to_kind(Kind::Float).unsqueeze(-1);
    (states * weight).sum_dim_intlist(1i64, false, Kind::Float) / events.lengths.clamp_min(1).unsqueeze(-1)
}

#[cfg(test)]
mod tests {
    use super::*;
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

    /// Ten pictures of three numbers.
    fn contents() -> Contents {
        let mut contents = Contents::new([0, 3, 0]);
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for key in 1..=10 {
            assert!(contents.insert(1, key, &[0, 1, 2].map(|_| rng.random_range(-1.0..1.0))));
        }
        contents
    }

    fn encode(network: &IntentNetwork, sequences: &[&[EventInput]]) -> Tensor {
        network.encode_batch(&network.batch(sequences, &contents(), Device::Cpu).unwrap(), false).unwrap()
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

    fn far(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn with_every_backbone_a_batch_equals_its_members() {
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
                let apart = far(&alone.squeeze_dim(0), &all.get(row as i64));
                assert!(apart < 1e-5, "{backbone:?}, user {row}: {apart}");
            }
            // Order matters to a network that reads sequences; turned round, a history is another one.
            let mut turned = sequences[4].clone();
            turned.reverse();
            let other = encode(&network, &[&turned]);
            assert!(far(&other.squeeze_dim(0), &all.get(4)) > 1e-4, "{backbone:?}");
            // So is one with other pictures, or with none.
            for picture in [3, 0] {
                let mut shown = sequences[4].clone();
                shown.iter_mut().for_each(|e| e.contents[1] = picture);
                assert!(far(&encode(&network, &[&shown]).squeeze_dim(0), &all.get(4)) > 1e-4, "{backbone:?}");
            }
        }
    }

    #[test]
    fn what_comes_later_moves_earlier_states_of_backbones_that_look_ahead_alone() {
        for backbone in BackboneName::ALL {
            tch::manual_seed(4);
            let store = nn::VarStore::new(Device::Cpu);
            let network = backbones::build(&store.root(), &shape(backbone, HeadName::Sigmoid));
            let x = Tensor::randn([1, 6, 16], (Kind::Float, Device::Cpu));
            let read = |x: &Tensor| {
                let lengths = Tensor::from_slice(&[6i64]);
                let events =
                    Padded { x: x.shallow_clone(), lengths, present: Tensor::ones([1, 6], (Kind::Bool, Device::Cpu)) };
                tch::no_grad(|| network.read(&events, false)).unwrap().narrow(1, 0, 5)
            };
            let before = read(&x);
            let changed = Tensor::cat(&[x.narrow(1, 0, 5), -x.narrow(1, 5, 1)], 1);
            let moved = far(&before, &read(&changed));
            match backbone.looks_ahead() {
                true => assert!(moved > 1e-4, "{backbone:?}: {moved}"),
                false => assert!(moved < 1e-6, "{backbone:?}: {moved}"),
            }
        }
    }

    #[test]
    fn scores_are_probabilities_and_positive_amounts_with_every_head() {
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
            let raw = network.outputs(&states, &inputs, &[0, 1], &scaling, false).unwrap();
            let scores = network.scores(&raw, &scaling).unwrap();
            assert_eq!(scores.size(), [2, 9]);
            assert!(scores.min().double_value(&[]) > 0.0);
            assert!(scores.narrow(1, 0, 7).max().double_value(&[]) < 1.0);
        }
    }

    #[test]
    fn a_constant_feature_and_a_null_one_say_nothing_later() {
        let tabular = [7.0, f32::NAN, 1.0, 7.0, f32::NAN, 3.0].to_vec();
        let mut moments = vec![Moments::default(); 3];
        tabular.iter().enumerate().for_each(|(at, &value)| moments[at % 3].add(value.into()));
        let scaling = Scaling::of(&moments, 1.0, 1.0);
        assert!(scaling.mean.iter().chain(&scaling.deviation).all(|v| v.is_finite()));
        let back: Scaling = serde_json::from_str(&serde_json::to_string(&scaling).unwrap()).unwrap();
        assert_eq!(back, scaling);
        let scaled = scaling.tensor(&[1000.0, 1000.0, 3.0], &[2.0]).unwrap().view([-1]);
        let scaled = Vec::<f32>::try_from(&scaled).unwrap();
        assert!(scaled[0].abs() < 1e-30 && scaled[1].abs() < 1e-30, "{scaled:?}");
        assert_eq!(scaled[2..], [1.0, 0.0, 0.0, 0.0, 0.5, 0.0]);
        let absent = scaling.tensor(&[f32::NAN; 3], &[f32::NAN]).unwrap().view([-1]);
        assert_eq!(Vec::<f32>::try_from(&absent).unwrap(), [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0]);
    }
}
