//! The baseline that every model has to beat: logistic regression on recency and frequency alone.

use tch::nn::{self, Module, OptimizerConfig};
use tch::{Device, Kind, Tensor};

use crate::failure::Result;
use crate::features::contract::FeatureContract;
use crate::metrics::auc;
use crate::model::targets::{LABELS, PURCHASE};
use crate::training::datasets::{BlockRows, Split, UserBlocks, UserStatistics};

/// Recency and frequency of events and of purchases.
const COLUMNS: [&str; 6] =
    ["recency_hours", "events_7d", "events_28d", "purchase_recency_days", "purchases_28d", "purchases_90d"];

/// Test AUC of a purchase within the horizon by the recency-frequency model; `None` where a class is missing.
pub(crate) fn recency_frequency_auc(
    train: &UserStatistics,
    held_out: &UserBlocks,
    contract: &FeatureContract,
) -> Result<Option<f64>> {
    let columns: Vec<usize> =
        COLUMNS.iter().filter_map(|name| contract.0.iter().position(|c| c.name == *name)).collect();
    let features = contract.0.len();
    let rows: Vec<usize> = (0..train.purchased.len()).collect();
    let x = matrix(&values_and_nulls(&train.tabular, &rows, &columns, features), columns.len())?;
    let labels: Vec<f32> = train.purchased.iter().map(|&purchased| f32::from(u8::from(purchased))).collect();
    let y = Tensor::f_from_slice(&labels)?;
    let mean = x.mean_dim(0i64, true, Kind::Float);
    let deviation = x.std_dim(0i64, true, true) + 1e-3;
    // A fixed seed, so that the figure does not depend on whether the training was interrupted.
    tch::manual_seed(0);
    let store = nn::VarStore::new(Device::Cpu);
    let model = nn::linear(store.root(), columns.len() as i64 * 2, 1, Default::default());
    let mut optimizer = nn::Adam::default().build(&store, 0.05)?;
    for _ in 0..300 {
        let raw = model.forward(&((&x - &mean) / &deviation)).squeeze_dim(1);
        optimizer.backward_step(&raw.binary_cross_entropy_with_logits::<Tensor>(&y, None, None, tch::Reduction::Mean));
    }
    let mut test_values = Vec::new();
    let mut truth = Vec::new();
    for window in held_out.each_window() {
        let window = window?;
        let purchase = |row: &usize| window.labels()[row * LABELS.len() + PURCHASE];
        let test_rows = window.rows_in(Split::Test).into_iter();
        let known: Vec<usize> = test_rows.filter(|row| !purchase(row).is_nan()).collect();
        test_values.extend(values_and_nulls(window.tabular(), &known, &columns, features));
        truth.extend(known.iter().map(|row| purchase(row) > 0.5));
    }
    if truth.is_empty() {
        return Ok(None);
    }
    let test_x = matrix(&test_values, columns.len())?;
    let raw = tch::no_grad(|| model.forward(&((test_x - &mean) / &deviation)).f_squeeze_dim(1))?;
    let scores: Vec<f64> = Vec::<f32>::try_from(&raw)?.into_iter().map(f64::from).collect();
    Ok(auc(&scores, &truth))
}

/// Value (0 where null) and null flag of some columns of some rows. `tabular` is row-major [rows, features].
fn values_and_nulls(tabular: &[f32], rows: &[usize], columns: &[usize], features: usize) -> Vec<f32> {
    let cell = |row: usize, column: usize| {
        let value = tabular[row * features + column];
        if value.is_nan() { [0.0, 1.0] } else { [value, 0.0] }
    };
    rows.iter().flat_map(|&row| columns.iter().flat_map(move |&column| cell(row, column))).collect()
}

/// float32 [rows, 2 × columns].
fn matrix(values: &[f32], columns: usize) -> Result<Tensor> {
    Ok(Tensor::f_from_slice(values)?.f_view([-1, 2 * columns as i64])?)
}
