//! Demand forecasts of one or two models as of a past date, and the demand that followed.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use futures::TryStreamExt;

use super::curves::{Fan, Fans};
use super::demand_figures::{DemandSums, ItemOutcome};
use super::known_outcomes::KnownOutcomes;
use crate::failure::{Failure, Result};
use crate::features::{self, Scope, parts::Part};
use crate::ids::RunDate;
use crate::model::bundle::BundleCard;
use crate::model::demand::{Forecast, ItemForecast, ItemHistory};
use crate::score::service::as_struct;
use crate::workspace::Workspace;

/// Selects each item's history, the days that followed, and the forecasts of each version.
fn sql(cards: &[BundleCard]) -> String {
    let forecasts: Vec<String> = cards
        .iter()
        .map(|card| format!("forecast_demand(h.history, '{}')", card.version.replace('\'', "''")))
        .collect();
    format!(
        "SELECT h.history, l.future_units, l.future_in_stock, h.history['category'], {} \
         FROM item_history h JOIN demand_labels l ON h.item_id = l.item_id",
        forecasts.join(", ")
    )
}

/// Forecasts every item as of `date`, part by part, adds the outcomes to the sums of each model, and keeps the forecasts of the items
/// with the largest demand.
pub(super) async fn read(
    workspace: &Workspace,
    known: &KnownOutcomes,
    date: RunDate,
    cards: &[BundleCard],
    sums: &mut [&mut [DemandSums]],
    fans: &mut Fans,
) -> Result<()> {
    let scope = |items: Part| Scope { run_date: date, labels_end: known.arrived, users: Part::ALL, items };
    let whole = workspace.session_as_of(&known.rollups, scope(Part::ALL)).await?;
    let bytes_max = workspace.config.engine.memory_bytes_max / 2;
    let query = sql(cards);
    for part in features::item_parts(&whole, &workspace.config).await? {
        let ctx = workspace.session_as_of(&known.rollups, scope(part)).await?;
        let mut batches = ctx.sql(&query).await?.execute_stream().await?;
        while let Some(batch) = batches.try_next().await? {
            add(&batch, cards, sums, fans)?;
            let bytes: u64 = sums.iter().flat_map(|of_date| of_date.iter()).map(DemandSums::bytes).sum();
            if bytes > bytes_max {
                return Err(Failure::usage(format!(
                    "evaluation as of {date}: the demand of the items so far needs more than {bytes_max} bytes of memory, half of \
                     engine.memory_bytes_max"
                ))
                .hint("evaluate fewer dates at once, or raise engine.memory_bytes_max"));
            }
        }
    }
    Ok(())
}

fn add(batch: &RecordBatch, cards: &[BundleCard], sums: &mut [&mut [DemandSums]], fans: &mut Fans) -> Result<()> {
    let histories = ItemHistory::from_struct(as_struct(batch.column(0))?)?;
    let forecasts = (0..cards.len()).map(|model| item_forecasts(batch, 4 + model)).collect::<Result<Vec<_>>>()?;
    let categories = cast(batch.column(3), &DataType::Utf8)?;
    let categories = categories.as_string::<i32>();
    for (row, history) in histories.iter().enumerate() {
        let units = numbers(batch, 1, row)?;
        let in_stock: Vec<bool> = numbers(batch, 2, row)?.iter().map(|&stocked| stocked > 0.5).collect();
        let naive = history.last_units_by_weekday();
        let place = fans.place(history, cards.len());
        let mut of_models = Vec::new();
        for (model, card) in cards.iter().enumerate() {
            let outcome = ItemOutcome {
                history,
                category: if categories.is_valid(row) { categories.value(row) } else { "" },
                pattern: history.facts(card.demand.history_days_min).pattern,
                naive: &naive,
                units: &units,
                in_stock: &in_stock,
                forecast: &forecasts[model][row],
            };
            sums.iter_mut().for_each(|of_dates| of_dates[model].add(&outcome));
            if place.is_some() {
                of_models.push(Fan::of(&outcome, &card.version));
            }
        }
        if let Some(place) = place {
            fans.insert(place, of_models);
        }
    }
    Ok(())
}

/// The numbers of a list column in one row.
fn numbers(batch: &RecordBatch, column: usize, row: usize) -> Result<Vec<f64>> {
    let values = cast(&batch.column(column).as_list::<i32>().value(row), &DataType::Float64)?;
    Ok(values.as_primitive::<Float64Type>().iter().map(Option::unwrap_or_default).collect())
}

/// Reads a column of `forecast_demand`: step 0 is the lead time, steps from 1 are days.
fn item_forecasts(batch: &RecordBatch, column: usize) -> Result<Vec<ItemForecast>> {
    let lists = batch.column(column).as_list::<i32>();
    (0..batch.num_rows())
        .map(|row| {
            let steps = lists.value(row);
            let values = as_struct(&steps)?;
            let columns: Vec<&[f64]> =
                values.columns()[1..].iter().map(|column| &column.as_primitive::<Float64Type>().values()[..]).collect();
            let step = |at: usize| -> Forecast { std::array::from_fn(|value| columns[value][at]) };
            Ok(ItemForecast { lead_time: step(0), daily: (1..values.len()).map(step).collect() })
        })
        .collect()
}
