//! The network of a table model: embedded categories, numbers and vectors, then hidden layers like those of the
//! behaviour network.
//!
//! Without hidden layers it is a regression (logistic for binary labels), which is training's baseline.

use serde::{Deserialize, Serialize};
use tch::nn::{self, Module, ModuleT};
use tch::{Device, Tensor};

use super::columns::{TableColumns, TableInputs};
use crate::failure::Result;
use crate::model::embedding::{SMALL, small_embedding};

/// The hidden layers, as in the behaviour network.
pub(crate) const HIDDEN: [i64; 2] = [128, 64];
const EMBEDDING_WIDTH_MAX: i64 = 16;

/// The sizes of the network, part of the card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TableShape {
    /// The number of values and null flags.
    pub(crate) reals: i64,
    /// The number of indices of each category column.
    #[serde(rename = "places")]
    pub(crate) category_counts: Vec<i64>,
    /// The length of the vectors of each column of vectors.
    #[serde(default)]
    pub(crate) vectors: Vec<i64>,
    pub(crate) hidden: Vec<i64>,
    pub(crate) dropout: f64,
    pub(crate) outputs: i64,
}

impl TableShape {
    pub(crate) fn new(columns: &TableColumns, hidden: &[i64], dropout: f64, outputs: usize) -> Self {
        Self {
            reals: 2 * columns.numbers() as i64,
            category_counts: columns.category_counts(),
            vectors: columns.vector_widths(),
            hidden: hidden.to_vec(),
            dropout,
            outputs: outputs as i64,
        }
    }

    /// The width of a category's embedding. A regression has one weight per category.
    fn embedding_width(&self, categories: i64) -> i64 {
        match self.hidden.is_empty() {
            true => 1,
            false => ((categories as f64).sqrt().ceil() as i64).min(EMBEDDING_WIDTH_MAX),
        }
    }
}

/// The meaning and the scale of an output.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TableLabelKind {
    /// The log-odds of a binary label.
    Binary,
    /// An expected amount, never negative, in units of the mean amount.
    Amount { unit: f64 },
    /// Any number, standardised.
    Number { mean: f64, deviation: f64 },
    /// The logit of one of `count` exclusive classes, whose outputs are adjacent from output `first` on.
    Class { first: usize, count: usize },
}

impl TableLabelKind {
    /// Converts a label's value to the unit of the output.
    pub(crate) fn training_target(self, value: f64) -> f32 {
        match self {
            Self::Binary | Self::Class { .. } => value as f32,
            Self::Amount { unit } => (value / unit) as f32,
            Self::Number { mean, deviation } => ((value - mean) / deviation) as f32,
        }
    }

    /// Converts one of the raw outputs, float [rows, outputs], to predictions, float [rows]: probabilities, amounts or
    /// numbers.
    pub(crate) fn prediction(self, raw: &Tensor, output: usize) -> Result<Tensor> {
        let column = raw.f_select(1, output as i64)?;
        Ok(match self {
            Self::Binary => column.sigmoid(),
            Self::Amount { unit } => column.softplus() * unit,
            Self::Number { mean, deviation } => column * deviation + mean,
            Self::Class { first, count } => {
                let logits = raw.f_narrow(1, first as i64, count as i64)?;
                (column - logits.f_logsumexp([1i64].as_slice(), false)?).exp()
            }
        })
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TableLabel {
    /// The column, or `column=class` for a class.
    pub(crate) name: String,
    pub(crate) kind: TableLabelKind,
}

impl TableLabel {
    /// The column that holds the label.
    pub(crate) fn column(&self) -> &str {
        match self.kind {
            TableLabelKind::Class { .. } => self.name.split_once('=').map_or(&self.name, |(column, _)| column),
            _ => &self.name,
        }
    }
}

/// Some rows of a table, as tensors on the CPU.
#[derive(Debug)]
pub(crate) struct TableBatch {
    /// float32 [rows, reals].
    reals: Tensor,
    /// Categories of each category column: int64 [rows].
    categories: Vec<Tensor>,
    /// Vectors of each vector column.
    vectors: Vec<VectorBatch>,
}

#[derive(Debug)]
struct VectorBatch {
    /// float32 [rows, width]; zeros for missing vectors.
    values: Tensor,
    /// float32 [rows, 1]; one for missing vectors, else zero.
    is_missing: Tensor,
}

impl TableBatch {
    pub(crate) fn from_inputs(inputs: &TableInputs, shape: &TableShape) -> Result<Self> {
        let rows = inputs.rows as i64;
        let category_columns = shape.category_counts.len() as i64;
        let all_categories = Tensor::f_from_slice(&inputs.categories)?.f_view([rows, category_columns])?;
        let mut categories = Vec::new();
        for column in 0..category_columns {
            categories.push(all_categories.f_select(1, column)?);
        }
        let mut vectors = Vec::new();
        for (&width, column) in shape.vectors.iter().zip(&inputs.vectors) {
            vectors.push(VectorBatch {
                values: Tensor::f_from_slice(&column.values)?.f_view([rows, width])?,
                is_missing: 1.0 - Tensor::f_from_slice(&column.known)?.f_view([rows, 1])?,
            });
        }
        let reals = Tensor::f_from_slice(&inputs.reals)?.f_view([rows, shape.reals])?;
        Ok(Self { reals, categories, vectors })
    }

    /// Returns some rows, given as int64 [rows] on the CPU.
    pub(crate) fn select(&self, rows: &Tensor) -> Result<Self> {
        let of_rows = |tensor: &Tensor| -> Result<Tensor> { Ok(tensor.f_index_select(0, rows)?) };
        let vectors = self.vectors.iter().map(|column| -> Result<VectorBatch> {
            Ok(VectorBatch { values: of_rows(&column.values)?, is_missing: of_rows(&column.is_missing)? })
        });
        Ok(Self {
            reals: of_rows(&self.reals)?,
            categories: self.categories.iter().map(of_rows).collect::<Result<_>>()?,
            vectors: vectors.collect::<Result<_>>()?,
        })
    }

    /// Returns the same rows without copying them.
    pub(crate) fn shallow_clone(&self) -> Self {
        let vectors = self.vectors.iter().map(|column| VectorBatch {
            values: column.values.shallow_clone(),
            is_missing: column.is_missing.shallow_clone(),
        });
        Self {
            reals: self.reals.shallow_clone(),
            categories: self.categories.iter().map(Tensor::shallow_clone).collect(),
            vectors: vectors.collect(),
        }
    }
}

/// Converts row numbers to a tensor: int64 [rows].
pub(crate) fn row_indices(rows: &[usize]) -> Result<Tensor> {
    Ok(Tensor::f_from_slice(&rows.iter().map(|&row| row as i64).collect::<Vec<_>>())?)
}

#[derive(Debug)]
pub(crate) struct TableNetwork {
    pub(crate) shape: TableShape,
    pub(crate) device: Device,
    embeddings: Vec<nn::Embedding>,
    /// The learnt substitute of a missing vector, by column: float32 [width]. If no training row lacks a vector, it
    /// stays near zero, which is the mean of the standardised vectors.
    substitutes: Vec<Tensor>,
    layers: nn::SequentialT,
}

impl TableNetwork {
    pub(crate) fn new(path: &nn::Path, shape: &TableShape) -> Self {
        let embed = |(i, &n): (usize, &i64)| small_embedding(path / "categories" / i, n, shape.embedding_width(n));
        let embedded = shape.category_counts.iter().map(|&n| shape.embedding_width(n)).sum::<i64>();
        // Each vector has a flag, like each number.
        let mut width = shape.reals + embedded + shape.vectors.iter().map(|n| n + 1).sum::<i64>();
        let dropout = shape.dropout;
        let mut layers = nn::seq_t();
        for (i, &hidden) in shape.hidden.iter().enumerate() {
            layers = layers
                .add(nn::linear(path / "hidden" / i, width, hidden, Default::default()))
                .add_fn(|x| x.gelu("none"))
                .add_fn_t(move |x, train| x.dropout(dropout, train));
            width = hidden;
        }
        layers = layers.add(nn::linear(path / "outputs", width, shape.outputs, Default::default()));
        let embeddings = shape.category_counts.iter().enumerate().map(embed).collect();
        let substitute = |(i, &n): (usize, &i64)| (path / "vectors" / i).var("missing", &[n], SMALL);
        let substitutes = shape.vectors.iter().enumerate().map(substitute).collect();
        Self { shape: shape.clone(), device: path.device(), embeddings, substitutes, layers }
    }

    /// Returns float32 [rows, outputs]; see [`TableLabelKind::prediction`].
    pub(crate) fn raw_outputs(&self, batch: &TableBatch, train: bool) -> Result<Tensor> {
        let on_device = |tensor: &Tensor| tensor.f_to_device(self.device);
        let mut inputs = vec![on_device(&batch.reals)?];
        for (indices, embedding) in batch.categories.iter().zip(&self.embeddings) {
            inputs.push(embedding.forward(&on_device(indices)?));
        }
        for (column, substitute) in batch.vectors.iter().zip(&self.substitutes) {
            let is_missing = on_device(&column.is_missing)?;
            inputs.extend([on_device(&column.values)? + substitute * &is_missing, is_missing]);
        }
        Ok(self.layers.forward_t(&Tensor::f_cat(&inputs, 1)?, train))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::table::vector_columns::VectorRows;

    #[test]
    fn missing_vectors_have_a_substitute_and_rows_are_independent() {
        let shape = TableShape {
            reals: 0,
            category_counts: vec![],
            vectors: vec![2, 1],
            hidden: vec![4],
            dropout: 0.0,
            outputs: 1,
        };
        let store = nn::VarStore::new(Device::Cpu);
        let network = TableNetwork::new(&store.root(), &shape);
        assert_eq!(store.variables()["vectors.0.missing"].size(), [2]);
        let first = VectorRows { values: vec![1.0, -1.0, 0.0, 0.0, 0.0, 0.0], known: vec![1.0, 0.0, 1.0] };
        let second = VectorRows { values: vec![0.5, 0.5, 0.5], known: vec![1.0; 3] };
        let inputs = TableInputs { rows: 3, vectors: vec![first, second], ..Default::default() };
        let all_rows = TableBatch::from_inputs(&inputs, &shape).unwrap();
        let outputs = |rows: &[usize]| {
            let batch = all_rows.select(&row_indices(rows).unwrap()).unwrap();
            Vec::<f32>::try_from(network.raw_outputs(&batch, false).unwrap().view([-1])).unwrap()
        };
        let all = outputs(&[0, 1, 2]);
        assert!((all[1] - all[2]).abs() > 1e-6, "a missing vector gives the same as zeros: {all:?}");
        for (row, together) in all.iter().enumerate() {
            assert!((outputs(&[row])[0] - together).abs() < 1e-6);
        }
    }
}
