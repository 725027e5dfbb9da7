//! The intent network, cut in two: a date-independent encoder of a user's events, and heads over it.
//!
//! Encoder: embedded events → pre-norm transformer (Vaswani et al. 2017; Xiong et al. 2020) → last token and mean → one
//! vector of `width`. Heads: that vector, standardised tabular features and idle time → six intents, churn, units, spend.

use serde::{Deserialize, Serialize};
use tch::nn::{self, Module, ModuleT};
use tch::{Device, Kind, Tensor};

use super::inputs::{CATEGORY_BUCKETS, EVENT_REALS, UserInputs};
use crate::failure::Result;

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
const PROBABILITIES: i64 = 7;

/// Sizes of the network; part of the bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IntentShape {
    pub width: i64,
    pub layers: i64,
    pub heads: i64,
    pub item_buckets: u64,
    pub events_max: i64,
    pub dropout: f64,
    pub features: usize,
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
    /// Mean and standard deviation of what is not null.
    pub fn fit(inputs: &UserInputs, features: usize, units: f64, spend: f64) -> Self {
        let (mut mean, mut deviation) = (Vec::new(), Vec::new());
        for f in 0..features {
            let known: Vec<f64> =
                inputs.tabular.iter().skip(f).step_by(features).filter(|v| !v.is_nan()).map(|&v| v.into()).collect();
            let n = known.len().max(1) as f64;
            let m = known.iter().sum::<f64>() / n;
            let variance = known.iter().map(|v| (v - m) * (v - m)).sum::<f64>() / n;
            mean.push(m as f32);
            deviation.push(variance.sqrt().max(1e-3) as f32);
        }
        Self { mean, deviation, spend: spend.max(1e-6), units: units.max(1e-6) }
    }
}

#[derive(Debug)]
struct Layer {
    norm_attention: nn::LayerNorm,
    qkv: nn::Linear,
    project: nn::Linear,
    norm_feed: nn::LayerNorm,
    widen: nn::Linear,
    narrow: nn::Linear,
}

#[derive(Debug)]
pub struct IntentNetwork {
    pub shape: IntentShape,
    event_type: nn::Embedding,
    pub item: nn::Embedding,
    category: nn::Embedding,
    position: nn::Embedding,
    reals: nn::Linear,
    layers: Vec<Layer>,
    norm: nn::LayerNorm,
    pool: nn::Linear,
    empty: Tensor,
    heads: nn::SequentialT,
    taste: nn::Linear,
    item_bias: nn::Embedding,
}

impl IntentNetwork {
    pub fn new(path: &nn::Path, shape: &IntentShape) -> Self {
        let d = shape.width;
        let small = nn::EmbeddingConfig { ws_init: nn::Init::Randn { mean: 0.0, stdev: 0.05 }, ..Default::default() };
        let layers = (0..shape.layers).map(|i| {
            let p = path / format!("layer{i}");
            Layer {
                norm_attention: nn::layer_norm(&p / "norm_attention", vec![d], Default::default()),
                qkv: nn::linear(&p / "qkv", d, 3 * d, Default::default()),
                project: nn::linear(&p / "project", d, d, Default::default()),
                norm_feed: nn::layer_norm(&p / "norm_feed", vec![d], Default::default()),
                widen: nn::linear(&p / "widen", d, 2 * d, Default::default()),
                narrow: nn::linear(&p / "narrow", 2 * d, d, Default::default()),
            }
        });
        let tabular = 2 * shape.features as i64;
        let dropout = shape.dropout;
        let heads = nn::seq_t()
            .add(nn::linear(path / "head1", d + tabular + 2, 128, Default::default()))
            .add_fn(|x| x.gelu("none"))
            .add_fn_t(move |x, train| x.dropout(dropout, train))
            .add(nn::linear(path / "head2", 128, 64, Default::default()))
            .add_fn(|x| x.gelu("none"))
            .add(nn::linear(path / "head3", 64, OUTPUTS.len() as i64, Default::default()));
        Self {
            shape: shape.clone(),
            event_type: nn::embedding(path / "event_type", 10, d, small),
            item: nn::embedding(path / "item", shape.item_buckets as i64 + 1, d, small),
            category: nn::embedding(path / "category", CATEGORY_BUCKETS as i64 + 1, d, small),
            position: nn::embedding(path / "position", shape.events_max + 1, d, small),
            reals: nn::linear(path / "reals", EVENT_REALS as i64, d, Default::default()),
            layers: layers.collect(),
            norm: nn::layer_norm(path / "norm", vec![d], Default::default()),
            pool: nn::linear(path / "pool", 3 * d, d, Default::default()),
            empty: path.zeros("empty", &[d]),
            heads,
            taste: nn::linear(path / "taste", d, d, Default::default()),
            item_bias: nn::embedding(path / "item_bias", shape.item_buckets as i64 + 1, 1, small),
        }
    }

    /// Encodes `rows` of `inputs`: float32 [rows, width]. Users without events get a learned vector.
    pub fn encode(&self, inputs: &UserInputs, rows: &[usize], device: Device, train: bool) -> Result<Tensor> {
        let longest = rows.iter().map(|&r| inputs.events[r].len()).max().unwrap_or(0).max(1);
        let (b, n) = (rows.len() as i64, longest as i64);
        let mut ids = vec![0i64; 4 * rows.len() * longest];
        let (types, rest) = ids.split_at_mut(rows.len() * longest);
        let (items, rest) = rest.split_at_mut(rows.len() * longest);
        let (categories, positions) = rest.split_at_mut(rows.len() * longest);
        let mut reals = vec![0f32; rows.len() * longest * EVENT_REALS];
        let mut lengths = Vec::with_capacity(rows.len());
        for (i, &row) in rows.iter().enumerate() {
            let events = &inputs.events[row];
            lengths.push(events.len() as i64);
            for (j, e) in events.iter().enumerate() {
                let at = i * longest + j;
                (types[at], items[at], categories[at]) = (e.event_type + 1, e.item, e.category);
                // Counted from the newest, so that a longer history does not move the recent events.
                positions[at] = ((events.len() - j) as i64).min(self.shape.events_max);
                reals[at * EVENT_REALS..(at + 1) * EVENT_REALS].copy_from_slice(&e.reals);
            }
        }
        let ids = Tensor::f_from_slice(&ids)?.f_view([4, b, n])?.f_to_device(device)?;
        let reals = Tensor::f_from_slice(&reals)?.f_view([b, n, EVENT_REALS as i64])?.f_to_device(device)?;
        let lengths = Tensor::f_from_slice(&lengths)?.f_to_device(device)?;
        let present = Tensor::f_arange(n, (Kind::Int64, device))?.f_unsqueeze(0)?.f_lt_tensor(&lengths.unsqueeze(1))?;
        let things = self.item.forward(&ids.get(1)) + self.category.forward(&ids.get(2));
        let mut x = self.event_type.forward(&ids.get(0))
            + &things
            + self.position.forward(&ids.get(3))
            + self.reals.forward(&reals);
        // Rows without events would give softmax over nothing: let them attend to their padding, and replace them below.
        let visible = present.logical_or(&lengths.eq(0).unsqueeze(1)).unsqueeze(1).unsqueeze(1);
        let heads = self.shape.heads;
        let split = |t: &Tensor| t.view([b, n, heads, self.shape.width / heads]).transpose(1, 2);
        for layer in &self.layers {
            let qkv = layer.qkv.forward(&layer.norm_attention.forward(&x)).chunk(3, -1);
            let attended = Tensor::f_scaled_dot_product_attention(
                &split(&qkv[0]),
                &split(&qkv[1]),
                &split(&qkv[2]),
                Some(&visible),
                0.0,
                false,
                None,
                false,
            )?;
            let joined = attended.transpose(1, 2).contiguous().view([b, n, self.shape.width]);
            x = &x + layer.project.forward(&joined).dropout(self.shape.dropout, train);
            let fed = layer.narrow.forward(&layer.widen.forward(&layer.norm_feed.forward(&x)).gelu("none"));
            x = &x + fed.dropout(self.shape.dropout, train);
        }
        let x = self.norm.forward(&x);
        let weight = present.to_kind(Kind::Float).unsqueeze(-1);
        let average =
            |t: &Tensor| (t * &weight).sum_dim_intlist(1i64, false, Kind::Float) / lengths.clamp_min(1).unsqueeze(-1);
        // The plain mean of what was looked at, beside the encoded one: tastes need no attention to be seen.
        let (mean, looked_at) = (average(&x), average(&things));
        let at = (&lengths - 1).clamp_min(0).view([b, 1, 1]).expand([b, 1, self.shape.width], false);
        let last = x.gather(1, &at, false).squeeze_dim(1);
        let pooled = self.pool.forward(&Tensor::cat(&[last, mean, looked_at], -1));
        let some = lengths.gt(0).unsqueeze(-1);
        Ok(pooled.where_self(&some, &self.empty.unsqueeze(0)))
    }

    /// Raw head outputs, float32 [rows, 9], for encoded users and their tabular features.
    pub fn head(
        &self,
        states: &Tensor,
        inputs: &UserInputs,
        rows: &[usize],
        scaling: &Scaling,
        train: bool,
    ) -> Result<Tensor> {
        let features = self.shape.features;
        let mut tabular = Vec::with_capacity(rows.len() * (2 * features + 2));
        for &row in rows {
            let values = &inputs.tabular[row * features..(row + 1) * features];
            let scaled = values.iter().zip(&scaling.mean).zip(&scaling.deviation);
            tabular.extend(scaled.map(|((v, m), d)| if v.is_nan() { 0.0 } else { ((v - m) / d).clamp(-8.0, 8.0) }));
            tabular.extend(values.iter().map(|v| if v.is_nan() { 1.0 } else { 0.0 }));
            let idle = inputs.idle_log_hours[row];
            tabular.extend(if idle.is_nan() { [0.0, 1.0] } else { [idle / 4.0, 0.0] });
        }
        let tabular = Tensor::f_from_slice(&tabular)?
            .f_view([rows.len() as i64, 2 * features as i64 + 2])?
            .f_to_device(states.device())?;
        Ok(self.heads.forward_t(&Tensor::f_cat(&[states, &tabular], -1)?, train))
    }

    /// Of items by the buckets of their ids and categories, int64 [items] each: vectors, float32 [items, width], and
    /// popularity biases, float32 [items]. An item that was seldom met still lies near its category.
    pub fn items(&self, buckets: &Tensor, categories: &Tensor) -> (Tensor, Tensor) {
        let vectors = self.item.forward(buckets) + self.category.forward(categories);
        (vectors, self.item_bias.forward(buckets).squeeze_dim(-1))
    }

    /// Taste vectors, float32 [rows, width]: their dot product with an item's vector, plus its bias, ranks items.
    pub fn taste(&self, states: &Tensor) -> Tensor {
        self.taste.forward(states)
    }
}

/// Head outputs as published: sigmoid of the first seven, softplus of the amounts in the scaling's units.
pub fn to_scores(raw: &Tensor, scaling: &Scaling) -> Tensor {
    let probabilities = raw.narrow(1, 0, PROBABILITIES).sigmoid();
    let units = raw.narrow(1, PROBABILITIES, 1).softplus() * scaling.units;
    let spend = raw.narrow(1, PROBABILITIES + 1, 1).softplus() * scaling.spend;
    Tensor::cat(&[probabilities, units, spend], 1)
}

/// Training loss: cross-entropy of the seven probabilities, Poisson deviance of the two amounts.
pub fn loss(raw: &Tensor, labels: &Tensor, scaling: &Scaling) -> Tensor {
    let binary = raw.narrow(1, 0, PROBABILITIES).binary_cross_entropy_with_logits::<Tensor>(
        &labels.narrow(1, 0, PROBABILITIES),
        None,
        None,
        tch::Reduction::Mean,
    );
    let poisson = |at: i64, unit: f64| {
        let expected = raw.narrow(1, at, 1).softplus() + 1e-6;
        (&expected - labels.narrow(1, at, 1) / unit * expected.log()).mean(Kind::Float)
    };
    binary * PROBABILITIES as f64
        + poisson(PROBABILITIES, scaling.units) * 0.2
        + poisson(PROBABILITIES + 1, scaling.spend) * 0.2
}
