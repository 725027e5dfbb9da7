//! What one pass over the training users tells before any of them is learnt from: sizes, class counts, scaling.

use std::collections::BTreeMap;

use super::columns::Rows;
use super::objective::BINARY;
use super::sets::{LABELS, PURCHASE, Split, is_labelled};
use super::user_columns::{UserBlocks, UserColumns};
use crate::failure::Result;
use crate::features::contract::FeatureContract;
use crate::metrics::drift::Deciles;
use crate::metrics::moments::Moments;
use crate::model::scaling::Scaling;

/// Users whose features are kept for deciles and for the baseline; the blocks' first ones, which are there by chance.
const SAMPLED_MAX: usize = 100_000;
/// Histories with fewer events have nothing to tell without labels.
pub const EVENTS_MIN: usize = 2;

/// Of the users in the training split.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// Those whose labels are used.
    pub labelled: usize,
    /// Those with events enough to be pretrained on.
    pub histories: usize,
    /// Of the labelled ones, of how many each binary label is known, and how many have it.
    pub known: [usize; BINARY],
    pub positives: [usize; BINARY],
    /// Of the labelled ones, how many met each item of the index.
    pub met: Vec<u64>,
    /// Of each bucket of items up to the last in any of their events, whether there is such an event. By place, since all
    /// events pass here.
    pub item_buckets_met: Vec<bool>,
    pub scaling: Scaling,
    /// Row-major [sampled, features]; NaN where null.
    pub tabular: Vec<f32>,
    /// Of the sampled ones.
    pub purchased: Vec<bool>,
}

impl Survey {
    /// `features` and `items`: how many there are.
    pub fn of(users: &UserBlocks, features: usize, items: usize, labels_share: f64) -> Result<Self> {
        let mut survey = Self { met: vec![0; items], ..Self::default() };
        let (mut moments, mut buyers) = (vec![Moments::default(); features], [Moments::default(); 2]);
        for window in users.each() {
            let window = window?;
            for row in window.rows_of(Split::Train) {
                let values = &window.tabular()[row * features..(row + 1) * features];
                moments.iter_mut().zip(values).for_each(|(of, &value)| of.add(value.into()));
                survey.meet(window.event_items(row));
                survey.histories += usize::from(window.length(row) >= EVENTS_MIN);
                if is_labelled(window.id(row), labels_share) {
                    survey.add_labelled(&window, row, &mut buyers, values);
                }
            }
        }
        let [units, spend] = buyers;
        survey.scaling = Scaling::from_moments(&moments, units.mean(), spend.mean());
        Ok(survey)
    }

    fn meet(&mut self, buckets: &[u32]) {
        for &bucket in buckets {
            let bucket = bucket as usize;
            if bucket >= self.item_buckets_met.len() {
                self.item_buckets_met.resize(bucket + 1, false);
            }
            self.item_buckets_met[bucket] = true;
        }
    }

    fn add_labelled(&mut self, users: &UserColumns, row: usize, buyers: &mut [Moments; 2], features: &[f32]) {
        let labels = &users.labels()[row * LABELS.len()..(row + 1) * LABELS.len()];
        self.labelled += 1;
        self.known.iter_mut().zip(labels).for_each(|(n, label)| *n += usize::from(!label.is_nan()));
        self.positives.iter_mut().zip(labels).for_each(|(n, &label)| *n += usize::from(label > 0.5));
        // Units and spend are the last two labels.
        let amounts = buyers.iter_mut().zip(&labels[BINARY..]);
        amounts.filter(|(_, amount)| **amount > 0.0).for_each(|(of, &amount)| of.add(amount.into()));
        for &item in users.next_items(row) {
            if let Some(met) = self.met.get_mut(item as usize) {
                *met += 1;
            }
        }
        if self.purchased.len() < SAMPLED_MAX {
            self.tabular.extend(features);
            self.purchased.push(labels[PURCHASE] > 0.5);
        }
    }

    /// The share with each binary label of those of whom it is known.
    pub fn base_rates(&self) -> Vec<f64> {
        self.positives.iter().zip(&self.known).map(|(&n, &known)| n as f64 / known.max(1) as f64).collect()
    }

    /// How the values of each feature lie, by name.
    pub fn deciles(&self, contract: &FeatureContract) -> BTreeMap<String, Deciles> {
        let of = |f: usize| Deciles::from_values(self.tabular.iter().skip(f).step_by(contract.0.len()).copied());
        contract.0.iter().enumerate().map(|(f, column)| (column.name.clone(), of(f))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sets::split;
    use super::super::user_columns::tests::{day, random};
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_is_counted_is_what_the_training_split_holds() {
        let mut set = random(400, 6, 5);
        set.labels.iter_mut().skip(6).step_by(9 * 3).for_each(|churn| *churn = f32::NAN);
        let trained: Vec<usize> = (0..400).filter(|&r| split(&set.inputs.user_ids[r]) == Split::Train).collect();
        let labelled: Vec<usize> =
            trained.iter().copied().filter(|&r| is_labelled(&set.inputs.user_ids[r], 0.5)).collect();
        let users = UserBlocks::held(UserColumns::of(&set, 1, day()).unwrap()).unwrap();
        let survey = Survey::of(&users, 1, 10, 0.5).unwrap();
        assert_eq!(survey.labelled, labelled.len());
        assert!((130..190).contains(&labelled.len()), "half of four fifths of 400: {}", labelled.len());
        assert_eq!(survey.histories, trained.iter().filter(|&&r| set.inputs.events[r].len() >= 2).count());
        let events = trained.iter().flat_map(|&r| &set.inputs.events[r]);
        let met = (0..).zip(&survey.item_buckets_met).filter(|(_, met)| **met).map(|(bucket, _)| bucket);
        assert_eq!(met.collect::<BTreeSet<i64>>(), events.map(|event| event.item).collect());
        let churned = labelled.iter().filter(|&&r| set.labels[r * 9 + 6] > 0.5).count();
        assert_eq!((survey.positives[6], survey.purchased.len()), (churned, labelled.len()));
        let unknown = labelled.iter().filter(|&&r| set.labels[r * 9 + 6].is_nan()).count();
        assert!(unknown > 20, "{unknown} of {}", labelled.len());
        assert_eq!((survey.known[4], survey.known[6]), (labelled.len(), labelled.len() - unknown));
        let rate = churned as f64 / (labelled.len() - unknown) as f64;
        assert!((survey.base_rates()[6] - rate).abs() < 1e-12, "of those of whom it is known");
        let met_3: usize = labelled.iter().map(|&r| set.next_items[r].iter().filter(|&&i| i == 3).count()).sum();
        assert_eq!(survey.met[3] as usize, met_3);
        let known: Vec<f64> =
            trained.iter().map(|&r| f64::from(set.inputs.tabular[r])).filter(|v| !v.is_nan()).collect();
        let mean = known.iter().sum::<f64>() / known.len() as f64;
        assert!((f64::from(survey.scaling.mean[0]) - mean).abs() < 1e-6);
        assert_eq!(survey.scaling.units, 1.0, "whoever bought bought one");
    }
}
