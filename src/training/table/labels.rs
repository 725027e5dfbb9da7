//! Decides how each label column of a table is learnt, and reads its values.

use super::class_labels;
use super::targets::Target;
use crate::config::Config;
use crate::config::networks::{AmountLossName, name_of};
use crate::failure::{Failure, Result};
use crate::model::table::network::{TableLabel, TableLabelKind};
use crate::training::flat_table::{FlatTable, TableOptions, constant_label, numeric_labels};

/// Reads the labels; units, means and classes are those of the training rows.
pub(crate) fn read_targets(
    config: &Config,
    table: &FlatTable,
    options: &TableOptions,
    train: &[usize],
) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for name in &options.label {
        let column = table.column(name)?;
        if class_labels::is_class_label(name, column, &options.category) {
            targets.extend(class_labels::read_targets(name, column, train, targets.len())?);
            continue;
        }
        let values = numeric_labels(name, column)?;
        let train_values: Vec<f64> = train.iter().map(|&row| values[row]).collect();
        if train_values.iter().all(|v| *v == train_values[0]) {
            return Err(constant_label(name, train_values.len(), &train_values[0].to_string()));
        }
        let kind = label_kind(config, name, &values, &train_values)?;
        targets.push(Target { label: TableLabel { name: name.clone(), kind }, values });
    }
    Ok(targets)
}

/// A label of zeros and ones is binary; `model.amount_loss` decides about other numbers.
fn label_kind(config: &Config, name: &str, values: &[f64], train_values: &[f64]) -> Result<TableLabelKind> {
    if values.iter().all(|v| *v == 0.0 || *v == 1.0) {
        return Ok(TableLabelKind::Binary);
    }
    let n = train_values.len() as f64;
    let mean = train_values.iter().sum::<f64>() / n;
    match config.model.amount_loss {
        AmountLossName::Poisson | AmountLossName::Tweedie | AmountLossName::NegativeBinomial => {
            match values.iter().find(|v| **v < 0.0) {
                None => Ok(TableLabelKind::Amount { unit: mean.max(1e-6) }),
                Some(negative) => Err(Failure::usage(format!(
                    "label {name}: model.amount_loss={} takes amounts from 0, got {negative}",
                    name_of(&config.model.amount_loss)
                ))
                .hint("set model.amount_loss to mse, mae, rmse or huber")),
            }
        }
        AmountLossName::Mse | AmountLossName::Mae | AmountLossName::Rmse | AmountLossName::Huber => {
            let variance = train_values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
            Ok(TableLabelKind::Number { mean, deviation: variance.sqrt() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_amount_loss_decides_how_numbers_are_learnt() {
        let mut config = Config::default();
        let kind = |config: &Config, values: &[f64]| label_kind(config, "y", values, values);
        assert_eq!(kind(&config, &[0.0, 1.0]).unwrap(), TableLabelKind::Binary);
        assert_eq!(kind(&config, &[0.0, 4.0]).unwrap(), TableLabelKind::Amount { unit: 2.0 });
        assert_eq!(kind(&config, &[-1.0, 4.0]).unwrap_err().kind.exit_code(), 2);
        config.model.amount_loss = AmountLossName::Huber;
        assert_eq!(kind(&config, &[-1.0, 1.0]).unwrap(), TableLabelKind::Number { mean: 0.0, deviation: 1.0 });
    }
}
