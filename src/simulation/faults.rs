//! `--faults`: one file with every kind of bad row inside the lake, every kind of bad file beside it, and the list of both.

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Date32Type};
use serde_json::json;
use std::sync::Arc;

use super::events::instants;
use super::writer::{Sink, instant, schema};
use super::{DAY_MICROS, SimulateOptions};
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;

const REASONS: [&str; 8] = [
    "null_time",
    "unknown_event_type",
    "time_in_future",
    "time_outside_partition",
    "negative_price",
    "nan_price",
    "infinite_price",
    "repeated_event_id",
];

/// Plants bad rows (well below 1 % of `events`) in the lake's middle day and bad files below `faults/`.
pub(super) async fn plant(to: &Location, options: &SimulateOptions, events: u64) -> Result<u64> {
    let each = (events / 5_000).clamp(1, 50) as usize;
    let day = options.days / 2;
    let date = options.start + chrono::Days::new(day.into());
    let noon = i64::from(Date32Type::from_naive_date(date)) * DAY_MICROS + DAY_MICROS / 2;
    let file = format!("events/dt={date}/faults.parquet");
    let (mut ids, mut times, mut kinds, mut prices, mut listed) = (vec![], vec![], vec![], vec![], vec![]);
    for reason in REASONS {
        let own: Vec<String> = (0..each).map(|n| format!("fault-{reason}-{n}")).collect();
        for (n, id) in own.iter().enumerate() {
            // The repeat comes with the row that it repeats: the first good view of the same batch.
            let repeats = if reason == "repeated_event_id" { 2 } else { 1 };
            for _ in 0..repeats {
                ids.push(id.clone());
                times.push(match reason {
                    "null_time" => None,
                    "time_in_future" => Some(7_258_118_400_000_000), // 2200-01-01
                    "time_outside_partition" => Some(noon - 9 * DAY_MICROS),
                    _ => Some(noon + n as i64),
                });
                kinds.push(if reason == "unknown_event_type" { "gaze" } else { "view" });
                prices.push(match reason {
                    "negative_price" => -1.0,
                    "nan_price" => f64::NAN,
                    "infinite_price" => f64::INFINITY,
                    _ => 1.0,
                });
            }
        }
        listed.push(json!({ "reason": reason, "file": file, "rows": each, "event_ids": own }));
    }
    let columns = schema(&[
        ("event_id", DataType::Utf8),
        ("user_id", DataType::Utf8),
        ("ts", instant()),
        ("arrived_at", instant()),
        ("event_type", DataType::Utf8),
        ("item_id", DataType::Utf8),
        ("price", DataType::Float64),
        ("unexpected_column", DataType::Int64),
    ]);
    let rows = ids.len();
    let ts: arrow::array::TimestampMicrosecondArray = times.into_iter().collect();
    let mut sink = Sink::open(to, &file, &columns)?;
    sink.write(vec![
        Arc::new(StringArray::from(ids)),
        Arc::new(StringArray::from(vec!["u0000000"; rows])),
        Arc::new(ts.with_timezone("UTC")),
        instants(vec![noon + 60_000_000; rows]),
        Arc::new(StringArray::from(kinds)),
        Arc::new(StringArray::from(vec!["i000000"; rows])),
        Arc::new(Float64Array::from(prices)),
        Arc::new(Int64Array::from(vec![1; rows])),
    ])
    .await?;
    sink.close().await?;
    let files = bad_files(to, noon).await?;
    let count = (REASONS.len() * each + files.len()) as u64;
    let list = json!({ "rows": listed, "files": files });
    to.write("faults.json", serde_json::to_vec_pretty(&list).map_err(Failure::bug)?).await?;
    Ok(count)
}

/// Files that a night must refuse, outside the lake's own folders, to be copied in by whoever wants to see it.
async fn bad_files(to: &Location, noon: i64) -> Result<Vec<serde_json::Value>> {
    to.write("faults/no_parquet.parquet", "this is no Parquet file\n").await?;
    let text = |value: &str| -> ArrayRef { Arc::new(StringArray::from(vec![value])) };
    let good =
        [("ts", instant()), ("event_type", DataType::Utf8), ("user_id", DataType::Utf8), ("item_id", DataType::Utf8)];
    let mut wrong = good.clone();
    wrong[0].1 = DataType::Utf8;
    for (name, columns, values) in [
        ("missing_column", &good[..3], vec![instants(vec![noon]), text("view"), text("u0000000")]),
        ("wrong_type", &wrong[..], vec![text("noon"), text("view"), text("u0000000"), text("i000000")]),
        ("whole", &good[..], vec![instants(vec![noon]), text("view"), text("u0000000"), text("i000000")]),
    ] {
        let mut sink = Sink::open(to, &format!("faults/{name}.parquet"), &schema(columns))?;
        sink.write(values).await?;
        sink.close().await?;
    }
    let whole = to.read("faults/whole.parquet").await?;
    to.write("faults/cut_short.parquet", whole.slice(..whole.len() / 2)).await?;
    to.delete(vec![to.path("faults/whole.parquet")]).await?;
    let files = [
        ("no_parquet", "is not Parquet"),
        ("cut_short", "ends in the middle"),
        ("missing_column", "lacks item_id"),
        ("wrong_type", "has ts as text"),
    ];
    Ok(files.iter().map(|(name, what)| json!({ "file": format!("faults/{name}.parquet"), "what": what })).collect())
}
