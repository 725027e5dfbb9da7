//! What every model has to beat: logistic regression on recency and frequency alone.

use tch::nn::{self, Module, OptimizerConfig};
use tch::{Device, Kind, Tensor};

use super::sets::{LABELS, Split, UserSet, rows_of};
use crate::failure::Result;
use crate::features::contract::FeatureContract;
use crate::metrics::auc;

/// Recency and frequency of events and of purchases.
const COLUMNS: [&str; 6] =
    ["recency_hours", "events_7d", "events_28d", "purchase_recency_days", "purchases_28d", "purchases_90d"];
const PURCHASE: usize = 4;

/// Test AUC of a purchase within the horizon by the recency-frequency model; `None` where a class is missing.
pub fn recency_frequency_auc(train: &UserSet, held_out: &UserSet, contract: &FeatureContract) -> Result<Option<f64>> {
    let at: Vec<usize> = COLUMNS.iter().filter_map(|name| contract.0.iter().position(|c| c.name == *name)).collect();
    let rows = rows_of(train.inputs.user_ids.iter(), Split::Train);
    let test = rows_of(held_out.inputs.user_ids.iter(), Split::Test);
    let (x, y) = (matrix(train, &rows, &at, contract.0.len())?, labels(train, &rows)?);
    let mean = x.mean_dim(0i64, true, Kind::Float);
    let deviation = x.std_dim(0i64, true, true) + 1e-3;
    // Whatever drew before: the figure must not depend on whether a training was interrupted.
    tch::manual_seed(0);
    let store = nn::VarStore::new(Device::Cpu);
    let model = nn::linear(store.root(), at.len() as i64 * 2, 1, Default::default());
    let mut optimizer = nn::Adam::default().build(&store, 0.05)?;
    for _ in 0..300 {
        let raw = model.forward(&((&x - &mean) / &deviation)).squeeze_dim(1);
        optimizer.backward_step(&raw.binary_cross_entropy_with_logits::<Tensor>(&y, None, None, tch::Reduction::Mean));
    }
    if test.is_empty() {
        return Ok(None);
    }
    let raw = tch::no_grad(|| {
        model.forward(&((matrix(held_out, &test, &at, contract.0.len())? - &mean) / &deviation)).f_squeeze_dim(1)
    })?;
    let scores: Vec<f64> = Vec::<f32>::try_from(&raw)?.into_iter().map(f64::from).collect();
    let truth = held_out.column(PURCHASE, &test);
    Ok(auc(&scores, &truth))
}

/// float32 [rows, 2 × columns]: values (0 where null) and null flags.
fn matrix(set: &UserSet, rows: &[usize], at: &[usize], features: usize) -> Result<Tensor, tch::TchError> {
    let mut flat: Vec<f32> = Vec::with_capacity(rows.len() * at.len() * 2);
    for &row in rows {
        for &column in at {
            let value = set.inputs.tabular[row * features + column];
            flat.extend(if value.is_nan() { [0.0, 1.0] } else { [value, 0.0] });
        }
    }
    Tensor::f_from_slice(&flat)?.f_view([rows.len() as i64, at.len() as i64 * 2])
}

fn labels(set: &UserSet, rows: &[usize]) -> Result<Tensor> {
    let flat: Vec<f32> = rows.iter().map(|&r| set.labels[r * LABELS.len() + PURCHASE]).collect();
    Ok(Tensor::f_from_slice(&flat)?)
}
