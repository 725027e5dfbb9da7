//! `--faults`: one file with bad rows of every kind inside the lake, bad files of every kind outside it, and a list of both.

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::datatypes::DataType;
use serde_json::json;
use std::sync::Arc;

use super::events::instants;
use super::options::{DAY_MICROS, SimulateOptions};
use super::writer::{ParquetSink, instant, schema};
use crate::failure::{Failure, Result};
use crate::features::quarantine::REASONS;
use crate::ids::date32;
use crate::lake::stores::Location;

const IN_2200_MICROS: i64 = 7_258_118_400_000_000;

/// The columns in which planted rows differ.
struct BadRow {
    time_micros: Option<i64>,
    event_type: &'static str,
    price: f64,
    /// A repeated id needs the row that it repeats: the first good view of the same batch.
    copies: usize,
}

impl BadRow {
    /// Returns a row that is quarantined for `reason`; `None` for a reason that is not planted.
    fn new(reason: &str, time_micros: i64, noon_micros: i64) -> Option<Self> {
        let good = Self { time_micros: Some(time_micros), event_type: "view", price: 1.0, copies: 1 };
        Some(match reason {
            "null_time" => Self { time_micros: None, ..good },
            "unknown_event_type" => Self { event_type: "gaze", ..good },
            "time_in_future" => Self { time_micros: Some(IN_2200_MICROS), ..good },
            "time_outside_partition" => Self { time_micros: Some(noon_micros - 9 * DAY_MICROS), ..good },
            "negative_price" => Self { price: -1.0, ..good },
            "nan_price" => Self { price: f64::NAN, ..good },
            "infinite_price" => Self { price: f64::INFINITY, ..good },
            "repeated_event_id" => Self { copies: 2, ..good },
            _ => return None,
        })
    }
}

/// Plants bad rows (well below 1 % of `events`) in the lake's middle day and bad files below `faults/`.
pub(super) async fn plant(to: &Location, options: &SimulateOptions, events: u64) -> Result<u64> {
    let rows_each = (events / 5_000).clamp(1, 50) as usize;
    let date = options.start + chrono::Days::new((options.days / 2).into());
    let noon = i64::from(date32(date)) * DAY_MICROS + DAY_MICROS / 2;
    let file = format!("events/dt={date}/faults.parquet");
    let (mut ids, mut times, mut event_types, mut prices, mut listed) = (vec![], vec![], vec![], vec![], vec![]);
    for reason in REASONS.map(|reason| reason.name) {
        let mut reason_ids = Vec::new();
        for n in 0..rows_each {
            let Some(row) = BadRow::new(reason, noon + n as i64, noon) else { continue };
            let id = format!("fault-{reason}-{n}");
            for _ in 0..row.copies {
                ids.push(id.clone());
                times.push(row.time_micros);
                event_types.push(row.event_type);
                prices.push(row.price);
            }
            reason_ids.push(id);
        }
        if !reason_ids.is_empty() {
            listed.push(json!({ "reason": reason, "file": file, "rows": rows_each, "event_ids": reason_ids }));
        }
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
    let mut sink = ParquetSink::open(to, &file, &columns)?;
    sink.write(vec![
        Arc::new(StringArray::from(ids)),
        Arc::new(StringArray::from(vec!["u0000000"; rows])),
        Arc::new(ts.with_timezone("UTC")),
        instants(vec![noon + 60_000_000; rows]),
        Arc::new(StringArray::from(event_types)),
        Arc::new(StringArray::from(vec!["i000000"; rows])),
        Arc::new(Float64Array::from(prices)),
        Arc::new(Int64Array::from(vec![1; rows])),
    ])
    .await?;
    sink.close().await?;
    let files = bad_files(to, noon).await?;
    let count = (listed.len() * rows_each + files.len()) as u64;
    let list = json!({ "rows": listed, "files": files });
    to.write("faults.json", serde_json::to_vec_pretty(&list).map_err(Failure::bug)?).await?;
    Ok(count)
}

/// Writes files that a night must refuse, outside the lake's own folders; copy one in to see the refusal.
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
        let mut sink = ParquetSink::open(to, &format!("faults/{name}.parquet"), &schema(columns))?;
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
