//! Statistics of the training users, from one pass before training: sizes, class counts, scaling.

use std::collections::BTreeMap;

use super::block_rows::BlockRows;
use super::split::{Split, is_in_share};
use super::user_columns::{UserBlocks, UserColumns};
use crate::failure::Result;
use crate::features::contract::FeatureContract;
use crate::metrics::drift::Deciles;
use crate::metrics::moments::Moments;
use crate::model::scaling::Scaling;
use crate::model::targets::{BINARY, LABELS, PURCHASE};

/// Users whose features are sampled for deciles and for the baseline: the first of the blocks, which are a random sample.
const SAMPLED_MAX: usize = 100_000;
/// Shorter histories are no use for pretraining.
pub(crate) const EVENTS_MIN: usize = 2;

/// Statistics of the users in the training split.
#[derive(Debug, Clone, Default)]
pub(crate) struct UserStatistics {
    /// Users whose labels are used.
    pub(crate) labelled: usize,
    /// Users with at least [`EVENTS_MIN`] events.
    pub(crate) histories: usize,
    /// Labelled users for whom each binary label is known.
    pub(crate) known: [usize; BINARY],
    /// Labelled users with each binary label.
    pub(crate) positives: [usize; BINARY],
    /// Number of labelled users who interacted with each item of the index within the horizon.
    pub(crate) next_item_users: Vec<u64>,
    /// True for each bucket of item ids that an event has; up to the last such bucket.
    pub(crate) item_buckets_seen: Vec<bool>,
    pub(crate) scaling: Scaling,
    /// Features of the sampled users, row-major [sampled, features]; NaN where null.
    pub(crate) tabular: Vec<f32>,
    /// Purchase label of each sampled user.
    pub(crate) purchased: Vec<bool>,
}

impl UserStatistics {
    /// `features` is the number of features, `items` that of items in the index.
    pub(crate) fn from_blocks(users: &UserBlocks, features: usize, items: usize, labels_share: f64) -> Result<Self> {
        let mut statistics = Self { next_item_users: vec![0; items], ..Self::default() };
        let mut feature_moments = vec![Moments::default(); features];
        let mut buyer_moments = [Moments::default(); 2];
        for window in users.each_window() {
            let window = window?;
            for row in window.rows_in(Split::Train) {
                let values = &window.tabular()[row * features..(row + 1) * features];
                for (moments, &value) in feature_moments.iter_mut().zip(values) {
                    moments.add(value.into());
                }
                mark_item_buckets(&mut statistics.item_buckets_seen, window.event_items(row));
                statistics.histories += usize::from(window.event_count(row) >= EVENTS_MIN);
                if is_in_share(window.id(row), labels_share) {
                    statistics.add_labelled(&window, row, &mut buyer_moments, values);
                }
            }
        }
        let [units, spend] = buyer_moments;
        statistics.scaling = Scaling::from_moments(&feature_moments, units.mean(), spend.mean());
        Ok(statistics)
    }

    fn add_labelled(&mut self, users: &UserColumns, row: usize, buyer_moments: &mut [Moments; 2], features: &[f32]) {
        let labels = &users.labels()[row * LABELS.len()..(row + 1) * LABELS.len()];
        self.labelled += 1;
        self.known.iter_mut().zip(labels).for_each(|(n, label)| *n += usize::from(!label.is_nan()));
        self.positives.iter_mut().zip(labels).for_each(|(n, &label)| *n += usize::from(label > 0.5));
        // Units and spend are the last two labels.
        for (moments, &amount) in buyer_moments.iter_mut().zip(&labels[BINARY..]) {
            if amount > 0.0 {
                moments.add(amount.into());
            }
        }
        for &item in users.next_items(row) {
            if let Some(users_of_item) = self.next_item_users.get_mut(item as usize) {
                *users_of_item += 1;
            }
        }
        if self.purchased.len() < SAMPLED_MAX {
            self.tabular.extend(features);
            self.purchased.push(labels[PURCHASE] > 0.5);
        }
    }

    /// The share of positives of each binary label, among the users for whom it is known.
    pub(crate) fn base_rates(&self) -> Vec<f64> {
        self.positives.iter().zip(&self.known).map(|(&n, &known)| n as f64 / known.max(1) as f64).collect()
    }

    /// Deciles of each feature, by name.
    pub(crate) fn deciles(&self, contract: &FeatureContract) -> BTreeMap<String, Deciles> {
        let deciles_of =
            |feature: usize| Deciles::from_values(self.tabular.iter().skip(feature).step_by(contract.0.len()).copied());
        contract.0.iter().enumerate().map(|(f, column)| (column.name.clone(), deciles_of(f))).collect()
    }
}

/// Sets the flag of each bucket of item ids; there is room for more flags where a bucket needs it.
pub(crate) fn mark_item_buckets(seen: &mut Vec<bool>, buckets: &[u32]) {
    for &bucket in buckets {
        let bucket = bucket as usize;
        if bucket >= seen.len() {
            seen.resize(bucket + 1, false);
        }
        seen[bucket] = true;
    }
}

#[cfg(test)]
mod tests {
    use super::super::split::split;
    use super::super::user_columns::tests::{day, random};
    use super::*;
    use crate::model::targets::CHURN;
    use std::collections::BTreeSet;

    #[test]
    fn statistics_count_the_users_of_the_training_split() {
        let churn = CHURN as usize;
        let mut set = random(400, 6, 5);
        set.labels.iter_mut().skip(churn).step_by(LABELS.len() * 3).for_each(|label| *label = f32::NAN);
        let trained: Vec<usize> = (0..400).filter(|&r| split(&set.inputs.user_ids[r]) == Split::Train).collect();
        let labelled: Vec<usize> =
            trained.iter().copied().filter(|&r| is_in_share(&set.inputs.user_ids[r], 0.5)).collect();
        let users = UserBlocks::in_memory(UserColumns::from_users(&set, 1, day()).unwrap()).unwrap();
        let statistics = UserStatistics::from_blocks(&users, 1, 10, 0.5).unwrap();
        assert_eq!(statistics.labelled, labelled.len());
        assert!((130..190).contains(&labelled.len()), "half of four fifths of 400: {}", labelled.len());
        assert_eq!(statistics.histories, trained.iter().filter(|&&r| set.inputs.events[r].len() >= 2).count());
        let events = trained.iter().flat_map(|&r| &set.inputs.events[r]);
        let seen = (0..).zip(&statistics.item_buckets_seen).filter(|(_, seen)| **seen).map(|(bucket, _)| bucket);
        assert_eq!(seen.collect::<BTreeSet<i64>>(), events.map(|event| event.item).collect());
        let churned = labelled.iter().filter(|&&r| set.labels[r * LABELS.len() + churn] > 0.5).count();
        assert_eq!((statistics.positives[churn], statistics.purchased.len()), (churned, labelled.len()));
        let unknown = labelled.iter().filter(|&&r| set.labels[r * LABELS.len() + churn].is_nan()).count();
        assert!(unknown > 20, "{unknown} of {}", labelled.len());
        assert_eq!((statistics.known[PURCHASE], statistics.known[churn]), (labelled.len(), labelled.len() - unknown));
        let rate = churned as f64 / (labelled.len() - unknown) as f64;
        assert!((statistics.base_rates()[churn] - rate).abs() < 1e-12, "among those for whom it is known");
        let users_of_item_3: usize =
            labelled.iter().map(|&r| set.next_items[r].iter().filter(|&&i| i == 3).count()).sum();
        assert_eq!(statistics.next_item_users[3] as usize, users_of_item_3);
        let known: Vec<f64> =
            trained.iter().map(|&r| f64::from(set.inputs.tabular[r])).filter(|v| !v.is_nan()).collect();
        let mean = known.iter().sum::<f64>() / known.len() as f64;
        assert!((f64::from(statistics.scaling.mean[0]) - mean).abs() < 1e-6);
        assert_eq!(statistics.scaling.units, 1.0, "each buyer bought one");
    }
}
