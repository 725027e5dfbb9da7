//! Trains trees next to the network of a table, for labels that are probabilities, and learns how much each counts.

use std::collections::BTreeMap;

use super::targets::Target;
use crate::config::Config;
use crate::config::networks::ClassWeights;
use crate::failure::Result;
use crate::model::blend::sigmoid;
use crate::model::table::columns::TableInputs;
use crate::model::table::network::TableLabelKind;
use crate::model::table::trees::{TableTrees, blended, rows_for_trees};
use crate::model::trees::Ensemble;
use crate::training::flat_table::binary_figures;
use crate::training::trees::{LightGbm, Objective, TreeData, TreeSettings, boost};

/// With fewer rows of either class, in training or validation, a label has no trees.
const CLASS_ROWS_MIN: usize = 10;
/// Pull of the weight towards one half, in nats at a distance of one, as for intents.
const EQUAL_PULL: f64 = 10.0;
/// Weights that are tried.
const WEIGHT_STEPS: u32 = 50;

/// Trees of labels and the network's weights, by the place of the label.
#[derive(Debug, Default)]
pub(super) struct TrainedTrees {
    pub(super) trees: TableTrees,
    pub(super) network_weights: BTreeMap<usize, f64>,
    /// Figures of the blend and of both members on the test rows.
    pub(super) figures: BTreeMap<String, f64>,
}

/// Trains trees of each binary label. `network` are the network's probabilities of each label's validation and test rows, which
/// `rows` lists after the training rows. Figures are of trees that have learnt from the training rows; those of the model have learnt
/// from all rows, and are as many.
pub(super) fn train(
    config: &Config,
    inputs: &TableInputs,
    targets: &[Target],
    rows: &[Vec<usize>; 3],
    network: impl Fn(&[usize], usize) -> Result<Vec<f64>>,
) -> Result<TrainedTrees> {
    let mut found = TrainedTrees::default();
    // A network of weighted classes answers on another scale, which no weight of a blend brings back.
    if config.model.class_weights == ClassWeights::Balanced {
        return Ok(found);
    }
    let config = &config.train;
    let labels: Vec<usize> = (0..targets.len()).filter(|&label| has_trees(&targets[label], rows)).collect();
    let (all, width) = rows_for_trees(inputs);
    // A table of vectors has nothing that trees read.
    if labels.is_empty() || width == 0 {
        return Ok(found);
    }
    let library = LightGbm::open(config)?;
    let of_rows = |rows: &[usize]| -> Vec<f32> {
        rows.iter().flat_map(|&row| all[row * width..(row + 1) * width].iter().copied()).collect()
    };
    let [train, valid, test] = rows;
    let everything: Vec<usize> = rows.iter().flatten().copied().collect();
    let settings = TreeSettings::for_rows(Objective::Binary, train.len(), config.seed);
    let learnt = TreeData::new(&library, &of_rows(train), width, &settings, None)?;
    let held = TreeData::new(&library, &of_rows(valid), width, &settings, Some(&learnt))?;
    for label in labels {
        let numbers = |rows: &[usize]| -> Vec<f32> {
            targets[label].truth(rows).into_iter().map(|truth| f32::from(u8::from(truth))).collect()
        };
        let judged = boost(&learnt, &numbers(train), Some((&held, &numbers(valid))), &settings)?;
        let count = u32::try_from(judged.trees().len()).unwrap_or(settings.rounds_max);
        let scores = |rows: &[usize], ensemble: &Ensemble| -> Vec<f64> {
            let trees = TableTrees(BTreeMap::from([(label, ensemble.clone())]));
            trees.log_odds(&of_rows(rows), width, label).unwrap_or_default()
        };
        let (of_network, of_trees) = (network(valid, label)?, scores(valid, &judged));
        let weight = best_weight(&of_network, &of_trees, &targets[label].truth(valid));
        let (of_network, of_trees) = (network(test, label)?, scores(test, &judged));
        let blend: Vec<f64> =
            of_network.iter().zip(&of_trees).map(|(network, trees)| blended(weight, *network, *trees)).collect();
        let of_trees: Vec<f64> = of_trees.into_iter().map(sigmoid).collect();
        for (member, predicted) in [("", &blend), ("_network", &of_network), ("_trees", &of_trees)] {
            let truth = targets[label].truth(test);
            binary_figures(predicted, &truth, config.seed, &mut |figure, value| {
                let name = format!("{figure}_test_{}{member}", targets[label].label.column());
                found.figures.insert(name, value);
            });
        }
        let final_settings = TreeSettings { rounds_max: count, ..settings };
        let whole = TreeData::new(&library, &of_rows(&everything), width, &final_settings, None)?;
        found.trees.0.insert(label, boost(&whole, &numbers(&everything), None, &final_settings)?);
        found.network_weights.insert(label, weight);
    }
    Ok(found)
}

fn has_trees(target: &Target, [train, valid, _]: &[Vec<usize>; 3]) -> bool {
    let has_both = |rows: &[usize]| {
        let positives = target.truth(rows).into_iter().filter(|truth| *truth).count();
        positives.min(rows.len() - positives) >= CLASS_ROWS_MIN
    };
    target.label.kind == TableLabelKind::Binary && has_both(train) && has_both(valid)
}

/// Returns the network's weight with the lowest cross-entropy, pulled towards one half.
fn best_weight(network: &[f64], trees: &[f64], truth: &[bool]) -> f64 {
    let cost = |weight: f64| {
        let losses = network.iter().zip(trees).zip(truth).map(|((network, trees), truth)| {
            let p = blended(weight, *network, *trees).clamp(1e-7, 1.0 - 1e-7);
            -(if *truth { p } else { 1.0 - p }).ln()
        });
        losses.sum::<f64>() + EQUAL_PULL * (weight - 0.5).powi(2)
    };
    let weights = (0..=WEIGHT_STEPS).map(|step| f64::from(step) / f64::from(WEIGHT_STEPS));
    weights.min_by(|a, b| cost(*a).total_cmp(&cost(*b))).unwrap_or(0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_better_member_counts_more() {
        let truth: Vec<bool> = (0..400).map(|row| row % 4 == 0).collect();
        let good: Vec<f64> = truth.iter().map(|truth| if *truth { 0.8 } else { 0.1 }).collect();
        let bad: Vec<f64> = truth.iter().map(|truth| if *truth { -1.5 } else { -1.0 }).collect();
        assert!(best_weight(&good, &bad, &truth) > 0.9);
        let even: Vec<f64> = vec![0.25; 400];
        let same: Vec<f64> = vec![(0.25f64 / 0.75).ln(); 400];
        assert!((best_weight(&even, &same, &truth) - 0.5).abs() < 1e-9, "equal members share");
    }
}
