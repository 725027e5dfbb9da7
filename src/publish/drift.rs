//! How far tonight's features have moved from those that the model was trained on, one figure a feature, for `runs`.

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

/// Features that the warning names.
const NAMED_MAX: usize = 5;

/// `{feature: stability index}` over `user_features` in one pass; null where the card has no deciles (it is older than
/// they are) or nobody is there. Users without events are left out, as in training.
pub async fn of_night(ctx: &SessionContext, card: &BundleCard) -> Result<Value> {
    let trained: Vec<(&String, &Deciles)> = card.feature_deciles.iter().collect();
    let columns = trained.iter().map(|(name, _)| cast(ident(*name), DataType::Float64).alias(*name));
    let mut counts: Vec<BinCounts> = trained.iter().map(|(_, deciles)| BinCounts::new(&deciles.edges)).collect();
    if trained.is_empty() {
        return Ok(Value::Null);
    }
    let seen = ctx.table("user_features").await?.filter(ident("events_lifetime").gt(lit(0)))?;
    let mut rows = seen.select(columns.collect::<Vec<_>>())?.execute_stream().await?;
    let mut users = 0;
    while let Some(batch) = rows.try_next().await? {
        users += batch.num_rows();
        for (column, counts) in batch.columns().iter().zip(&mut counts) {
            // In the network's own scale, to the bit: a value on an edge must fall on the side that it fell on before.
            let values = column.as_primitive::<Float64Type>().iter();
            values.for_each(|v| counts.add(v.map_or(f32::NAN, signed_log)));
        }
    }
    if users == 0 {
        return Ok(Value::Null);
    }
    let moved = trained
        .iter()
        .zip(&counts)
        .map(|((name, deciles), now)| (name.as_str(), deciles.population_stability_index(now)));
    let moved: Vec<(&str, f64)> = moved.collect();
    warn(&moved);
    Ok(moved.into_iter().map(|(name, index)| (name.to_string(), Value::from(index))).collect())
}

fn warn(moved: &[(&str, f64)]) {
    let mut far: Vec<&(&str, f64)> = moved.iter().filter(|(_, index)| *index > PSI_SHIFTED).collect();
    if far.is_empty() {
        return;
    }
    far.sort_by(|a, b| b.1.total_cmp(&a.1));
    let names: Vec<String> = far.iter().take(NAMED_MAX).map(|(name, index)| format!("{name} {index:.2}")).collect();
    tracing::warn!(
        "{} of {} features have moved since training (stability index above {PSI_SHIFTED}), most of all {}",
        far.len(),
        moved.len(),
        names.join(", ")
    );
}
