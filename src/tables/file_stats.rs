//! Delta's statistics of a data file, computed from its Parquet footer.
//!
//! Source: Delta protocol, "Per-file Statistics". Float columns have no bounds: NaN is outside any bound that Parquet records,
//! and no query skips files by a score.

use arrow::datatypes::{DataType, Schema};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;
use serde_json::{Map, Value, json};

/// Returns `numRecords`, `minValues`, `maxValues` and `nullCount` as JSON text.
pub(super) fn delta_stats(schema: &Schema, file: &ParquetMetaData) -> String {
    let mut lows = Map::new();
    let mut highs = Map::new();
    let mut nulls = Map::new();
    for (index, field) in schema.fields().iter().enumerate() {
        let chunks: Vec<_> = file.row_groups().iter().map(|group| group.column(index).statistics()).collect();
        let null_count: Option<u64> = chunks.iter().map(|s| s.and_then(Statistics::null_count_opt)).sum();
        if let Some(count) = null_count {
            nulls.insert(field.name().clone(), json!(count));
        }
        if let Some((low, high)) = bounds(field.data_type(), &chunks) {
            lows.insert(field.name().clone(), low);
            highs.insert(field.name().clone(), high);
        }
    }
    let rows: i64 = file.row_groups().iter().map(|group| group.num_rows()).sum();
    json!({ "numRecords": rows, "minValues": lows, "maxValues": highs, "nullCount": nulls }).to_string()
}

/// Returns the bounds over all row groups; `None` if any group has no bounds, for example because it is all null.
fn bounds(kind: &DataType, chunks: &[Option<&Statistics>]) -> Option<(Value, Value)> {
    let mut low: Option<Bound> = None;
    let mut high: Option<Bound> = None;
    for chunk in chunks {
        let (l, h) = match (*chunk)? {
            Statistics::Int32(s) => (Bound::Number(i64::from(*s.min_opt()?)), Bound::Number(i64::from(*s.max_opt()?))),
            Statistics::Int64(s) => (Bound::Number(*s.min_opt()?), Bound::Number(*s.max_opt()?)),
            Statistics::ByteArray(s) => (text(s.min_opt()?.data())?, text(s.max_opt()?.data())?),
            _ => return None,
        };
        low = Some(low.map_or(l.clone(), |seen| seen.min(l)));
        high = Some(high.map_or(h.clone(), |seen| seen.max(h)));
    }
    Some((low?.json(kind)?, high?.json(kind)?))
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Bound {
    Number(i64),
    Text(String),
}

fn text(bytes: &[u8]) -> Option<Bound> {
    Some(Bound::Text(std::str::from_utf8(bytes).ok()?.to_string()))
}

impl Bound {
    fn json(self, kind: &DataType) -> Option<Value> {
        match (self, kind) {
            (Bound::Number(days), DataType::Date32) => {
                let date = chrono::NaiveDate::default().checked_add_signed(chrono::TimeDelta::try_days(days)?)?;
                Some(json!(date.format("%Y-%m-%d").to_string()))
            }
            (Bound::Number(micros), DataType::Timestamp(..)) => {
                let instant = chrono::DateTime::from_timestamp_micros(micros)?;
                Some(json!(instant.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)))
            }
            (Bound::Number(number), _) => Some(json!(number)),
            (Bound::Text(text), _) => Some(json!(text)),
        }
    }
}
