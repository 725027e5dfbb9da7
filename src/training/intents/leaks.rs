//! Features that know the future: one that separates buyers from others almost perfectly has probably seen the purchases.

use crate::features::contract::FeatureContract;
use crate::metrics::auc;
use crate::training::datasets::UserStatistics;

/// No honest feature of a shop's users predicts a purchase as well as this.
const AUC_SUSPICIOUS: f64 = 0.99;
/// With fewer buyers a perfect order may be chance.
const BUYERS_MIN: usize = 10;

/// Returns each feature whose order alone has an AUC of a purchase above 0.99, in either direction, with that AUC.
pub(crate) fn suspicious_features(users: &UserStatistics, contract: &FeatureContract) -> Vec<(String, f64)> {
    let buyers = users.purchased.iter().filter(|&&purchased| purchased).count();
    if buyers < BUYERS_MIN {
        return Vec::new();
    }
    let features = contract.0.len();
    let alone = |feature: usize| {
        let values = users.tabular.iter().skip(feature).step_by(features);
        // A null of a leaking feature means something, too: it is ranked lowest.
        let scores: Vec<f64> =
            values.map(|value| if value.is_nan() { f64::NEG_INFINITY } else { f64::from(*value) }).collect();
        auc(&scores, &users.purchased).map_or(0.5, |value| value.max(1.0 - value))
    };
    let named = contract.0.iter().enumerate().map(|(feature, column)| (column.name.clone(), alone(feature)));
    named.filter(|(_, auc)| *auc > AUC_SUSPICIOUS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::contract::FeatureColumn;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn a_planted_future_column_is_found_and_an_honest_one_is_not() {
        let contract = FeatureContract(
            ["honest", "future", "absent_for_buyers"]
                .map(|name| FeatureColumn { name: name.into(), dtype: "Int64".into() })
                .to_vec(),
        );
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut users = UserStatistics::default();
        for _ in 0..400 {
            let purchased = rng.random_bool(0.2);
            let strength = f32::from(u8::from(purchased));
            let honest = strength + rng.random_range(0.0..2.0f32);
            users.tabular.extend([honest, 5.0 * strength, if purchased { f32::NAN } else { 1.0 }]);
            users.purchased.push(purchased);
        }
        let found: Vec<String> = suspicious_features(&users, &contract).into_iter().map(|(name, _)| name).collect();
        assert_eq!(found, ["future", "absent_for_buyers"]);
        // Shuffled labels are no more than chance.
        users.purchased.rotate_left(137);
        assert!(suspicious_features(&users, &contract).is_empty());
        users.purchased = vec![false; 400];
        assert!(suspicious_features(&users, &contract).is_empty());
    }
}
