//! What is learnt of a table: which column, as what, and its values.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use std::collections::BTreeSet;

use super::source::Table;
use super::{TableOptions, classes};
use crate::config::Config;
use crate::config::networks::{AmountLossName, name_of};
use crate::failure::{Failure, Result};
use crate::model::table::columns;
use crate::model::table::network::{TableLabel, TableLabelKind};

/// How text says yes and no.
const WORDS: [(&str, f64); 8] =
    [("true", 1.0), ("false", 0.0), ("yes", 1.0), ("no", 0.0), ("t", 1.0), ("f", 0.0), ("y", 1.0), ("n", 0.0)];

/// A label with its value on every row.
#[derive(Debug)]
pub struct Target {
    pub label: TableLabel,
    pub values: Vec<f64>,
}

impl Target {
    /// Whether some rows have the label; of binary labels, and of each class.
    pub fn classes(&self, rows: &[usize]) -> Vec<bool> {
        rows.iter().map(|&row| self.values[row] > 0.5).collect()
    }
}

/// Reads the labels; units and means are those of the training rows.
pub fn read(config: &Config, table: &Table, options: &TableOptions, train: &[usize]) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for name in &options.label {
        let column = table.rows.column(table.rows.schema().index_of(name)?);
        if classes::is_label(name, column, &options.category) {
            targets.extend(classes::read(name, column, train, targets.len())?);
            continue;
        }
        let values = values(name, column)?;
        let learnt: Vec<f64> = train.iter().map(|&row| values[row]).collect();
        if learnt.iter().all(|v| *v == learnt[0]) {
            return Err(nothing_to_learn(name, learnt.len(), &learnt[0].to_string()));
        }
        let kind = kind(config, name, &values, &learnt)?;
        targets.push(Target { label: TableLabel { name: name.clone(), kind }, values });
    }
    Ok(targets)
}

pub fn nothing_to_learn(name: &str, rows: usize, value: &str) -> Failure {
    Failure::input(format!(
        "label {name}: all {rows} rows of training have the same value, {value}: there is nothing to learn"
    ))
    .hint("choose another column, or more rows")
}

/// Whatever has only 0 and 1 is binary; numbers are learnt by `model.amount_loss`.
fn kind(config: &Config, name: &str, all: &[f64], learnt: &[f64]) -> Result<TableLabelKind> {
    if all.iter().all(|v| *v == 0.0 || *v == 1.0) {
        return Ok(TableLabelKind::Binary);
    }
    let n = learnt.len() as f64;
    let mean = learnt.iter().sum::<f64>() / n;
    match config.model.amount_loss {
        AmountLossName::Poisson | AmountLossName::Tweedie | AmountLossName::NegativeBinomial => {
            match all.iter().find(|v| **v < 0.0) {
                None => Ok(TableLabelKind::Amount { unit: mean.max(1e-6) }),
                Some(negative) => Err(Failure::usage(format!(
                    "label {name}: model.amount_loss={} takes amounts from 0, got {negative}",
                    name_of(&config.model.amount_loss)
                ))
                .hint("set model.amount_loss to mse, mae, rmse or huber")),
            }
        }
        AmountLossName::Mse | AmountLossName::Mae | AmountLossName::Rmse | AmountLossName::Huber => {
            let variance = learnt.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
            Ok(TableLabelKind::Number { mean, deviation: variance.sqrt() })
        }
    }
}

/// A label's values as numbers; of text, what says yes or no.
pub fn values(name: &str, array: &ArrayRef) -> Result<Vec<f64>> {
    if !matches!(array.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) {
        let values = columns::numbers(name, array).map_err(|f| f.at("label"))?;
        return match values.iter().position(|v| v.is_nan()) {
            None => Ok(values),
            Some(row) => Err(Failure::input(format!("label {name}: row {} is NaN", row + 1))),
        };
    }
    let texts = cast(array, &DataType::Utf8)?;
    let word =
        |text: &str| WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(text.trim())).map(|(_, value)| *value);
    texts
        .as_string::<i32>()
        .iter()
        .flatten()
        .map(|text| {
            word(text).ok_or_else(|| {
                let others: BTreeSet<&str> = texts.as_string::<i32>().iter().flatten().take(1000).collect();
                let others: Vec<&str> = others.into_iter().take(4).collect();
                Failure::input(format!("label {name}: expected true/false, yes/no, 0/1 or numbers, got {text:?}"))
                    .hint(format!("its values begin {}: make a column of true and false of it", others.join(", ")))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, Float64Array, StringArray};
    use std::sync::Arc;

    #[test]
    fn yes_and_no_come_in_several_words_and_others_are_refused() {
        let of = |array: ArrayRef| values("y", &array);
        assert_eq!(of(Arc::new(StringArray::from(vec!["TRUE", "no", "Y"]))).unwrap(), [1.0, 0.0, 1.0]);
        assert_eq!(of(Arc::new(BooleanArray::from(vec![true, false]))).unwrap(), [1.0, 0.0]);
        let refused = of(Arc::new(StringArray::from(vec!["yes", "maybe"]))).unwrap_err();
        assert_eq!(refused.kind.exit_code(), 3);
        assert!(refused.message.contains("label y: expected true/false") && refused.message.contains("maybe"));
        let nan = of(Arc::new(Float64Array::from(vec![1.0, f64::NAN]))).unwrap_err();
        assert!(nan.message.contains("row 2 is NaN"), "{nan}");
    }

    #[test]
    fn numbers_are_learnt_by_the_amount_loss_that_takes_them() {
        let mut config = Config::default();
        let kind = |config: &Config, values: &[f64]| kind(config, "y", values, values);
        assert_eq!(kind(&config, &[0.0, 1.0]).unwrap(), TableLabelKind::Binary);
        assert_eq!(kind(&config, &[0.0, 4.0]).unwrap(), TableLabelKind::Amount { unit: 2.0 });
        assert_eq!(kind(&config, &[-1.0, 4.0]).unwrap_err().kind.exit_code(), 2);
        config.model.amount_loss = AmountLossName::Huber;
        assert_eq!(kind(&config, &[-1.0, 1.0]).unwrap(), TableLabelKind::Number { mean: 0.0, deviation: 1.0 });
    }
}
