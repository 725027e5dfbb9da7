//! What is learnt of a text or picture: one of several classes, or zeros and ones in one or more columns.

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use std::collections::BTreeSet;
use tch::Tensor;

use crate::config::Config;
use crate::config::networks::HeadName;
use crate::failure::{Failure, Result};
use crate::model::labels::LabelStructure;
use crate::training::table::labels::values;
use crate::training::table::source::Table;

/// More classes than this are no classes: ids, or texts.
const CLASSES_MAX: usize = 1000;

/// Labels with their zeros and ones on every row.
#[derive(Debug)]
pub struct Targets {
    pub kind: LabelStructure,
    pub labels: Vec<String>,
    /// [rows, labels].
    ones: Vec<f32>,
    /// Rows whose label training has seen.
    pub known: Vec<bool>,
}

impl Targets {
    /// Zeros and ones of some rows, float32 [rows, labels].
    pub fn of(&self, rows: &[usize]) -> Result<Tensor> {
        let count = self.labels.len();
        let flat: Vec<f32> = rows.iter().flat_map(|&row| &self.ones[row * count..(row + 1) * count]).copied().collect();
        Ok(Tensor::f_from_slice(&flat)?.f_view([rows.len() as i64, count as i64])?)
    }

    /// Whether some rows have a label.
    pub fn truth(&self, label: usize, rows: &[usize]) -> Vec<bool> {
        rows.iter().map(|&row| self.ones[row * self.labels.len() + label] > 0.5).collect()
    }
}

/// Reads the labels; what there is to tell apart is what the training rows have.
pub fn read(config: &Config, table: &Table, names: &[String], train: &[usize]) -> Result<Targets> {
    // Every head by its name, so that none is trained as another one.
    let chain = match config.model.head {
        HeadName::Sigmoid => false,
        HeadName::Crf => true,
    };
    if let [name] = names {
        let column = table.rows.column(table.rows.schema().index_of(name)?);
        let binary = values(name, column).is_ok_and(|values| values.iter().all(|v| *v == 0.0 || *v == 1.0));
        if chain {
            return Err(Failure::usage("model.head: expected sigmoid for one label, got crf")
                .hint("a chain needs several --label columns of 0 and 1, in their order"));
        }
        if !binary {
            return classes(table, name, train);
        }
    }
    let mut columns = Vec::new();
    for name in names {
        let column = values(name, table.rows.column(table.rows.schema().index_of(name)?))?;
        if let Some(other) = column.iter().find(|v| **v != 0.0 && **v != 1.0) {
            return Err(Failure::input(format!(
                "label {name}: expected 0 and 1, as there are several labels, got {other}"
            ))
            .hint("make a column of 0 and 1 for each class, or learn this label alone"));
        }
        if train.iter().all(|&row| column[row] == column[train[0]]) {
            return Err(nothing_to_learn(name, train.len(), &column[train[0]].to_string()));
        }
        columns.push(column);
    }
    let rows = table.rows.num_rows();
    let ones = (0..rows).flat_map(|row| columns.iter().map(move |column| column[row] as f32)).collect();
    let kind = if chain { LabelStructure::Chain } else { LabelStructure::Multi };
    Ok(Targets { kind, labels: names.to_vec(), ones, known: vec![true; rows] })
}

fn classes(table: &Table, name: &str, train: &[usize]) -> Result<Targets> {
    let column = cast(table.rows.column(table.rows.schema().index_of(name)?), &DataType::LargeUtf8)?;
    let words: Vec<&str> = column.as_string::<i64>().iter().map(|word| word.unwrap_or_default()).collect();
    let seen: BTreeSet<&str> = train.iter().map(|&row| words[row]).collect();
    if seen.len() < 2 {
        return Err(nothing_to_learn(name, train.len(), seen.first().unwrap_or(&"nothing")));
    }
    if seen.len() > CLASSES_MAX {
        return Err(Failure::input(format!(
            "label {name}: expected at most {CLASSES_MAX} classes, got {}",
            seen.len()
        ))
        .hint("put the rare ones together, or choose another column"));
    }
    let mut labels: Vec<String> = seen.into_iter().map(String::from).collect();
    // Classes that are numbers stand in their order: 2 before 10.
    if labels.iter().all(|label| label.parse::<f64>().is_ok()) {
        labels.sort_by(|a, b| f64::total_cmp(&a.parse().unwrap_or(0.0), &b.parse().unwrap_or(0.0)));
    }
    let ones = words.iter().flat_map(|word| labels.iter().map(move |label| f32::from(u8::from(label == word))));
    let ones: Vec<f32> = ones.collect();
    let known: Vec<bool> = words.iter().map(|word| labels.iter().any(|label| label == word)).collect();
    let unknown = known.iter().filter(|known| !**known).count();
    if unknown > 0 {
        tracing::warn!("training: {unknown} rows of classes that no training row has are left out");
    }
    Ok(Targets { kind: LabelStructure::Single, labels, ones, known })
}

fn nothing_to_learn(name: &str, rows: usize, value: &str) -> Failure {
    Failure::input(format!(
        "label {name}: all {rows} rows of training have the same value, {value}: there is nothing to learn"
    ))
    .hint("choose another column, or more rows")
}
