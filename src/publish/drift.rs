//! Drift of tonight's features from those that the model was trained on: one figure per feature, for `runs`.

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Float64Type};
use datafusion::logical_expr::{cast, ident, lit};
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use serde_json::Value;

use crate::failure::Result;
use crate::metrics::drift::{BinCounts, Deciles, PSI_SHIFTED};
use crate::model::bundle::BundleCard;
use crate::model::inputs::signed_log;

/// Largest number of features that the warning names.
const NAMED_MAX: usize = 5;

/// Returns `{feature: stability index}` over `user_features`, computed in one pass. Null if the card has no deciles (older
/// bundles have none) or there are no users. Users without events are left out, as in training.
pub(crate) async fn measure(ctx: &SessionContext, card: &BundleCard) -> Result<Value> {
    let trained: Vec<(&String, &Deciles)> = card.feature_deciles.iter().collect();
    if trained.is_empty() {
        return Ok(Value::Null);
    }
    let mut counts: Vec<BinCounts> = trained.iter().map(|(_, deciles)| BinCounts::new(&deciles.edges)).collect();
    let columns = trained.iter().map(|(name, _)| cast(ident(*name), DataType::Float64).alias(*name));
    let users_with_events = ctx.table("user_features").await?.filter(ident("events_lifetime").gt(lit(0)))?;
    let mut rows = users_with_events.select(columns.collect::<Vec<_>>())?.execute_stream().await?;
    let mut users = 0;
    while let Some(batch) = rows.try_next().await? {
        users += batch.num_rows();
        for (column, counts) in batch.columns().iter().zip(&mut counts) {
            // On exactly the network's scale: a value on an edge must fall into the bin that it fell into in training.
            for value in column.as_primitive::<Float64Type>() {
                counts.add(value.map_or(f32::NAN, signed_log));
            }
        }
    }
    if users == 0 {
        return Ok(Value::Null);
    }
    let indices: Vec<(&str, f64)> = trained
        .iter()
        .zip(&counts)
        .map(|((name, deciles), now)| (name.as_str(), deciles.population_stability_index(now)))
        .collect();
    warn_of_shifted(&indices);
    Ok(indices.into_iter().map(|(name, index)| (name.to_string(), Value::from(index))).collect())
}

fn warn_of_shifted(indices: &[(&str, f64)]) {
    let mut shifted: Vec<&(&str, f64)> = indices.iter().filter(|(_, index)| *index > PSI_SHIFTED).collect();
    if shifted.is_empty() {
        return;
    }
    shifted.sort_by(|a, b| b.1.total_cmp(&a.1));
    let names: Vec<String> = shifted.iter().take(NAMED_MAX).map(|(name, index)| format!("{name} {index:.2}")).collect();
    tracing::warn!(
        "{} of {} features have shifted since training (stability index above {PSI_SHIFTED}), most of all {}; consider \
         training again",
        shifted.len(),
        indices.len(),
        names.join(", ")
    );
}
