//! Where the heads begin: at how common each label is, so that training learns what differs (RetinaNet, Lin et al. 2017,
//! section 4.1). Started at one half, the first steps of a training would go into saying that most users buy nothing.

use tch::{Tensor, nn};

use super::objective::BINARY;
use super::sets::PURCHASE;
use super::survey::Survey;
use crate::failure::Result;
use crate::model::weights;

/// The heads' last biases, one an output.
const BIASES: &str = "intent.head3.bias";

/// Sets the biases of the binary outputs to the log-odds of their labels among the labelled users; those of units and spend,
/// which are in means of a buyer and pass a softplus, to what makes them the share of buyers.
pub fn start_at_base_rates(store: &nn::VarStore, users: &Survey) -> Result<()> {
    let rate = |label: usize| (users.positives[label] as f64 + 0.5) / (users.known[label] as f64 + 1.0);
    let log_odds = (0..BINARY).map(|label| (rate(label) / (1.0 - rate(label))).ln());
    let amount = rate(PURCHASE).exp_m1().ln();
    let start: Vec<f32> = log_odds.chain([amount; 2]).map(|bias| bias as f32).collect();
    weights::replace(store, BIASES, |_| Ok(Tensor::f_from_slice(&start)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn outputs_begin_at_the_shares_of_the_labels() {
        let store = nn::VarStore::new(Device::Cpu);
        let head = nn::linear(store.root() / "intent" / "head3", 4, 9, Default::default());
        let users = Survey { known: [199; BINARY], positives: [99, 0, 4, 199, 19, 1, 149], ..Survey::default() };
        start_at_base_rates(&store, &users).unwrap();
        let raw = tch::no_grad(|| head.bs.as_ref().unwrap().f_to_kind(Kind::Double)).unwrap();
        let shares = Vec::<f64>::try_from(raw.narrow(0, 0, 7).sigmoid()).unwrap();
        for (share, positives) in shares.iter().zip(users.positives) {
            assert!((share - (positives as f64 + 0.5) / 200.0).abs() < 1e-6, "{shares:?}");
        }
        let amounts = Vec::<f64>::try_from(raw.narrow(0, 7, 2).softplus()).unwrap();
        assert!(amounts.iter().all(|amount| (amount - 19.5 / 200.0).abs() < 1e-6), "{amounts:?}");
        assert!(start_at_base_rates(&nn::VarStore::new(Device::Cpu), &users).is_err());
    }
}
