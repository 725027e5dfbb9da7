//! Starts the heads at the base rates of the labels, so that training learns the differences between users (RetinaNet, Lin
//! et al. 2017, section 4.1). From one half, the first steps would only learn that most users buy nothing.

use tch::{Tensor, nn};

use crate::failure::Result;
use crate::model::targets::{AMOUNTS, BINARY, PURCHASE};
use crate::model::weights;
use crate::training::datasets::UserStatistics;

/// The last biases of the heads, one for each output.
const BIASES: &str = "intent.head3.bias";

/// Sets the biases of the binary outputs to the log-odds of their labels among the labelled users. Units and spend are in
/// means of a buyer and pass a softplus; their biases become those that yield the share of buyers.
pub(crate) fn start_at_base_rates(store: &nn::VarStore, users: &UserStatistics) -> Result<()> {
    let rate = |label: usize| (users.positives[label] as f64 + 0.5) / (users.known[label] as f64 + 1.0);
    let log_odds = (0..BINARY).map(|label| (rate(label) / (1.0 - rate(label))).ln());
    let amount = rate(PURCHASE).exp_m1().ln();
    let start: Vec<f32> = log_odds.chain([amount; AMOUNTS]).map(|bias| bias as f32).collect();
    weights::replace(store, BIASES, |_| Ok(Tensor::f_from_slice(&start)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::targets::OUTPUTS;
    use tch::{Device, Kind};

    #[test]
    fn outputs_start_at_the_base_rates() {
        let store = nn::VarStore::new(Device::Cpu);
        let head = nn::linear(store.root() / "intent" / "head3", 4, OUTPUTS.len() as i64, Default::default());
        let mut positives = std::array::from_fn(|label| [99, 0, 4, 199, 1, 149][label % 6]);
        positives[PURCHASE] = 19;
        let users = UserStatistics { known: [199; BINARY], positives, ..UserStatistics::default() };
        start_at_base_rates(&store, &users).unwrap();
        let raw = tch::no_grad(|| head.bs.as_ref().unwrap().f_to_kind(Kind::Double)).unwrap();
        let shares = Vec::<f64>::try_from(raw.narrow(0, 0, BINARY as i64).sigmoid()).unwrap();
        for (share, positives) in shares.iter().zip(users.positives) {
            assert!((share - (positives as f64 + 0.5) / 200.0).abs() < 1e-6, "{shares:?}");
        }
        let amounts = Vec::<f64>::try_from(raw.narrow(0, BINARY as i64, AMOUNTS as i64).softplus()).unwrap();
        assert!(amounts.iter().all(|amount| (amount - 19.5 / 200.0).abs() < 1e-6), "{amounts:?}");
        assert!(start_at_base_rates(&nn::VarStore::new(Device::Cpu), &users).is_err());
    }
}
