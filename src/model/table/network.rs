//! The network of a table: embedded categories beside numbers and vectors, then the layers of the behaviour network's trunk.
//!
//! Without hidden layers it is a regression (logistic for binary labels): the baseline that training compares with.

use serde::{Deserialize, Serialize};
use tch::nn::{self, Module, ModuleT};
use tch::{Device, Tensor};

use super::columns::{Columns, TableInputs};
use super::vectors::VectorRows;
use crate::failure::Result;
use crate::model::events::SMALL;

/// Hidden layers, as in the trunk of the behaviour network.
pub const HIDDEN: [i64; 2] = [128, 64];
const EMBEDDING_MAX: i64 = 16;

/// Sizes of the network; part of the card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableShape {
    /// Values and null flags.
    pub reals: i64,
    /// Places of each category column.
    pub places: Vec<i64>,
    /// Numbers of each column of vectors.
    #[serde(default)]
    pub vectors: Vec<i64>,
    pub hidden: Vec<i64>,
    pub dropout: f64,
    pub outputs: i64,
}

impl TableShape {
    pub fn of(columns: &Columns, hidden: &[i64], dropout: f64, outputs: usize) -> Self {
        Self {
            reals: 2 * columns.numbers() as i64,
            places: columns.places(),
            vectors: columns.widths(),
            hidden: hidden.to_vec(),
            dropout,
            outputs: outputs as i64,
        }
    }

    /// Numbers of an embedded category; a regression has one weight each.
    fn embedding(&self, places: i64) -> i64 {
        match self.hidden.is_empty() {
            true => 1,
            false => ((places as f64).sqrt().ceil() as i64).min(EMBEDDING_MAX),
        }
    }
}

/// How an output reads, and in which unit it was learnt.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelKind {
    /// Log-odds.
    Binary,
    /// An expected amount, never negative, in units of the mean amount.
    Amount { unit: f64 },
    /// Any number, standardised.
    Number { mean: f64, deviation: f64 },
    /// One of `count` classes that rule each other out, whose log-odds stand side by side from output `first` on.
    Class { first: usize, count: usize },
}

impl LabelKind {
    /// A value as training takes it.
    pub fn target(self, value: f64) -> f32 {
        match self {
            Self::Binary | Self::Class { .. } => value as f32,
            Self::Amount { unit } => (value / unit) as f32,
            Self::Number { mean, deviation } => ((value - mean) / deviation) as f32,
        }
    }

    /// One of the raw outputs, float [rows, outputs], as predictions, float [rows]: probabilities, amounts, numbers.
    pub fn prediction(self, raw: &Tensor, output: usize) -> Result<Tensor> {
        let own = raw.f_select(1, output as i64)?;
        Ok(match self {
            Self::Binary => own.sigmoid(),
            Self::Amount { unit } => own.softplus() * unit,
            Self::Number { mean, deviation } => own * deviation + mean,
            Self::Class { first, count } => {
                (own - raw.f_narrow(1, first as i64, count as i64)?.f_logsumexp([1i64].as_slice(), false)?).exp()
            }
        })
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Label {
    /// The column, or of a class `column=class`.
    pub name: String,
    pub kind: LabelKind,
}

impl Label {
    /// The column that it was learnt from.
    pub fn column(&self) -> &str {
        match self.kind {
            LabelKind::Class { .. } => self.name.split_once('=').map_or(&self.name, |(column, _)| column),
            _ => &self.name,
        }
    }
}

/// Some rows of a table as tensors, on the CPU.
#[derive(Debug)]
pub struct TableBatch {
    /// float32 [rows, reals].
    reals: Tensor,
    /// Of each category column: int64 [rows].
    categories: Vec<Tensor>,
    /// Of each column of vectors: float32 [rows, width] with zeros where one is missing, and float32 [rows, 1] with ones there.
    vectors: Vec<[Tensor; 2]>,
}

impl TableBatch {
    /// All rows.
    pub fn of(inputs: &TableInputs, shape: &TableShape) -> Result<Self> {
        let (n, places) = (inputs.rows as i64, shape.places.len() as i64);
        let reals = Tensor::f_from_slice(&inputs.reals)?.f_view([n, shape.reals])?;
        let categories = Tensor::f_from_slice(&inputs.categories)?.f_view([n, places])?;
        let vector = |(&width, vectors): (&i64, &VectorRows)| -> Result<[Tensor; 2]> {
            let lacking: Tensor = 1.0 - Tensor::f_from_slice(&vectors.known)?.f_view([n, 1])?;
            Ok([Tensor::f_from_slice(&vectors.values)?.f_view([n, width])?, lacking])
        };
        let categories = (0..places).map(|column| Ok(categories.f_select(1, column)?)).collect::<Result<_>>()?;
        let vectors = shape.vectors.iter().zip(&inputs.vectors).map(vector).collect::<Result<_>>()?;
        Ok(Self { reals, categories, vectors })
    }

    /// Some rows, int64 [rows] on the CPU.
    pub fn take(&self, rows: &Tensor) -> Result<Self> {
        let of = |tensor: &Tensor| -> Result<Tensor> { Ok(tensor.f_index_select(0, rows)?) };
        let vector = |[read, lacking]: &[Tensor; 2]| -> Result<[Tensor; 2]> { Ok([of(read)?, of(lacking)?]) };
        Ok(Self {
            reals: of(&self.reals)?,
            categories: self.categories.iter().map(of).collect::<Result<_>>()?,
            vectors: self.vectors.iter().map(vector).collect::<Result<_>>()?,
        })
    }

    /// The same rows again; nothing is copied.
    pub fn share(&self) -> Self {
        Self {
            reals: self.reals.shallow_clone(),
            categories: self.categories.iter().map(Tensor::shallow_clone).collect(),
            vectors: self.vectors.iter().map(|vector| vector.each_ref().map(Tensor::shallow_clone)).collect(),
        }
    }
}

/// Places of rows as tensors take them: int64 [rows].
pub fn places(rows: &[usize]) -> Result<Tensor> {
    Ok(Tensor::f_from_slice(&rows.iter().map(|&row| row as i64).collect::<Vec<_>>())?)
}

#[derive(Debug)]
pub struct TableNetwork {
    pub shape: TableShape,
    pub device: Device,
    embeddings: Vec<nn::Embedding>,
    /// What stands for a missing vector of each column, beside its flag: float32 [width]. Learnt from rows that lack one;
    /// where training had none, it stays near zero: near the mean of the vectors.
    missing: Vec<Tensor>,
    layers: nn::SequentialT,
}

impl TableNetwork {
    pub fn new(path: &nn::Path, shape: &TableShape) -> Self {
        let config = nn::EmbeddingConfig { ws_init: SMALL, ..Default::default() };
        let embed = |(i, &n): (usize, &i64)| nn::embedding(path / "categories" / i, n, shape.embedding(n), config);
        let embedded = shape.places.iter().map(|&n| shape.embedding(n)).sum::<i64>();
        // A flag beside each vector, as beside numbers.
        let mut width = shape.reals + embedded + shape.vectors.iter().map(|n| n + 1).sum::<i64>();
        let (mut layers, dropout) = (nn::seq_t(), shape.dropout);
        for (i, &hidden) in shape.hidden.iter().enumerate() {
            layers = layers
                .add(nn::linear(path / "hidden" / i, width, hidden, Default::default()))
                .add_fn(|x| x.gelu("none"))
                .add_fn_t(move |x, train| x.dropout(dropout, train));
            width = hidden;
        }
        layers = layers.add(nn::linear(path / "outputs", width, shape.outputs, Default::default()));
        let embeddings = shape.places.iter().enumerate().map(embed).collect();
        let stands_for = |(i, &n): (usize, &i64)| (path / "vectors" / i).var("missing", &[n], SMALL);
        let missing = shape.vectors.iter().enumerate().map(stands_for).collect();
        Self { shape: shape.clone(), device: path.device(), embeddings, missing, layers }
    }

    /// Raw outputs, float32 [rows, outputs].
    pub fn raw(&self, batch: &TableBatch, train: bool) -> Result<Tensor> {
        let on = |tensor: &Tensor| tensor.f_to_device(self.device);
        let mut parts = vec![on(&batch.reals)?];
        for (ids, embedding) in batch.categories.iter().zip(&self.embeddings) {
            parts.push(embedding.forward(&on(ids)?));
        }
        for ([read, lacking], missing) in batch.vectors.iter().zip(&self.missing) {
            let lacking = on(lacking)?;
            parts.extend([on(read)? + missing * &lacking, lacking]);
        }
        Ok(self.layers.forward_t(&Tensor::f_cat(&parts, 1)?, train))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_vector_is_one_of_its_own_and_rows_keep_to_themselves() {
        let shape =
            TableShape { reals: 0, places: vec![], vectors: vec![2, 1], hidden: vec![4], dropout: 0.0, outputs: 1 };
        let store = nn::VarStore::new(Device::Cpu);
        let network = TableNetwork::new(&store.root(), &shape);
        assert_eq!(store.variables()["vectors.0.missing"].size(), [2]);
        let first = VectorRows { values: vec![1.0, -1.0, 0.0, 0.0, 0.0, 0.0], known: vec![1.0, 0.0, 1.0] };
        let second = VectorRows { values: vec![0.5, 0.5, 0.5], known: vec![1.0; 3] };
        let inputs = TableInputs { rows: 3, vectors: vec![first, second], ..Default::default() };
        let whole = TableBatch::of(&inputs, &shape).unwrap();
        let of = |rows: &[usize]| {
            let batch = whole.take(&places(rows).unwrap()).unwrap();
            Vec::<f32>::try_from(network.raw(&batch, false).unwrap().view([-1])).unwrap()
        };
        let all = of(&[0, 1, 2]);
        assert!((all[1] - all[2]).abs() > 1e-6, "a missing vector reads as zeros: {all:?}");
        for (row, together) in all.iter().enumerate() {
            assert!((of(&[row])[0] - together).abs() < 1e-6);
        }
    }
}
