//! The labels of texts or pictures: one of several classes, or zeros and ones in one or more columns.

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use tch::Tensor;

use crate::config::Config;
use crate::config::networks::HeadName;
use crate::failure::{Failure, Result};
use crate::model::labels::LabelStructure;
use crate::training::flat_table::{FlatTable, binary_labels, class_names, constant_label, numeric_labels};

/// LabelStructure as zeros and ones on every row.
#[derive(Debug)]
pub(crate) struct LabelTargets {
    pub(crate) kind: LabelStructure,
    pub(crate) labels: Vec<String>,
    /// Row-major [rows, labels].
    ones: Vec<f32>,
    /// False for rows whose class is in no training row.
    is_known: Vec<bool>,
}

impl LabelTargets {
    /// Returns the zeros and ones of some rows: float32 [rows, labels].
    pub(crate) fn select(&self, rows: &[usize]) -> Result<Tensor> {
        let count = self.labels.len();
        let flat: Vec<f32> = rows.iter().flat_map(|&row| &self.ones[row * count..(row + 1) * count]).copied().collect();
        Ok(Tensor::f_from_slice(&flat)?.f_view([rows.len() as i64, count as i64])?)
    }

    /// Returns true for each of these rows that has a label.
    pub(crate) fn truth(&self, label: usize, rows: &[usize]) -> Vec<bool> {
        rows.iter().map(|&row| self.ones[row * self.labels.len() + label] > 0.5).collect()
    }

    /// Returns those of the rows whose class is known.
    pub(crate) fn known_rows(&self, mut rows: Vec<usize>) -> Vec<usize> {
        rows.retain(|&row| self.is_known[row]);
        rows
    }
}

/// Reads the labels; their classes are those of the training rows.
pub(crate) fn read_targets(
    config: &Config,
    table: &FlatTable,
    names: &[String],
    train: &[usize],
) -> Result<LabelTargets> {
    // A match without a wildcard, so that a new head is not trained as another one.
    let kind = match config.model.head {
        HeadName::Sigmoid => LabelStructure::Multi,
        HeadName::Crf => LabelStructure::Chain,
    };
    if let [name] = names {
        if kind == LabelStructure::Chain {
            return Err(Failure::usage("model.head: expected sigmoid for one label, got crf")
                .hint("a chain needs several --label columns of 0 and 1, in their order"));
        }
        if binary_labels(name, table.column(name)?).is_none() {
            return read_classes(table, name, train);
        }
    }
    read_binary(table, names, train, kind)
}

fn read_binary(table: &FlatTable, names: &[String], train: &[usize], kind: LabelStructure) -> Result<LabelTargets> {
    let mut columns = Vec::new();
    for name in names {
        let column = numeric_labels(name, table.column(name)?)?;
        if let Some(other) = column.iter().find(|v| **v != 0.0 && **v != 1.0) {
            return Err(Failure::input(format!(
                "label {name}: expected 0 and 1, as there are several labels, got {other}"
            ))
            .hint("make a column of 0 and 1 for each class, or learn only this label"));
        }
        if train.iter().all(|&row| column[row] == column[train[0]]) {
            return Err(constant_label(name, train.len(), &column[train[0]].to_string()));
        }
        columns.push(column);
    }
    let rows = table.rows.num_rows();
    let ones = (0..rows).flat_map(|row| columns.iter().map(move |column| column[row] as f32)).collect();
    Ok(LabelTargets { kind, labels: names.to_vec(), ones, is_known: vec![true; rows] })
}

fn read_classes(table: &FlatTable, name: &str, train: &[usize]) -> Result<LabelTargets> {
    let array = cast(table.column(name)?, &DataType::LargeUtf8)?;
    let texts: Vec<&str> = array.as_string::<i64>().iter().map(|text| text.unwrap_or_default()).collect();
    let mut labels: Vec<String> = class_names(name, &texts, train)?.into_iter().map(String::from).collect();
    // Numeric classes are in numeric order: 2 before 10.
    if labels.iter().all(|label| label.parse::<f64>().is_ok()) {
        labels.sort_by(|a, b| f64::total_cmp(&a.parse().unwrap_or(0.0), &b.parse().unwrap_or(0.0)));
    }
    let mut ones = Vec::with_capacity(texts.len() * labels.len());
    let mut is_known = Vec::with_capacity(texts.len());
    for text in texts {
        ones.extend(labels.iter().map(|label| f32::from(u8::from(label == text))));
        is_known.push(labels.iter().any(|label| label == text));
    }
    let unknown = is_known.iter().filter(|known| !**known).count();
    if unknown > 0 {
        tracing::warn!("training: ignored {unknown} rows whose class is in no training row");
    }
    Ok(LabelTargets { kind: LabelStructure::Single, labels, ones, is_known })
}
