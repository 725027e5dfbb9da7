//! Writes imported events by UTC day and items by id, with a bounded number of rows in memory.

use arrow::array::{
    ArrayRef, Decimal128Array, Int8Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

use super::{ImportedEvent, ImportedItem, Line};
use crate::failure::Result;
use crate::lake::stores::Location;

/// Events held before all days are written out.
const EVENTS_MAX: usize = 1_000_000;
const DAY_MICROS: i64 = 86_400_000_000;

pub struct LakeWriter {
    to: Location,
    waiting: BTreeMap<i64, Vec<ImportedEvent>>,
    rows_waiting: usize,
    flushes: u32,
    events: u64,
    days: BTreeSet<i64>,
    items: BTreeMap<String, Facts>,
}

/// How often each value was said of an item: the most frequent one wins.
#[derive(Default)]
struct Facts {
    titles: HashMap<String, u32>,
    categories: HashMap<String, u32>,
    brands: HashMap<String, u32>,
    price: Option<f64>,
}

impl LakeWriter {
    pub fn new(to: Location) -> Self {
        let (waiting, days, items) = Default::default();
        Self { to, waiting, rows_waiting: 0, flushes: 0, events: 0, days, items }
    }

    pub async fn add(&mut self, line: Line) -> Result<()> {
        if let Some(item) = line.item {
            self.learn(item);
        }
        if let Some(event) = line.event {
            if let Some(id) = &event.item_id {
                self.items.entry(id.clone()).or_default();
            }
            self.events += 1;
            self.rows_waiting += 1;
            self.waiting.entry(event.ts.div_euclid(DAY_MICROS)).or_default().push(event);
            if self.rows_waiting >= EVENTS_MAX {
                self.flush().await?;
            }
        }
        Ok(())
    }

    fn learn(&mut self, item: ImportedItem) {
        let facts = self.items.entry(item.item_id).or_default();
        let mut count = |of: fn(&mut Facts) -> &mut HashMap<String, u32>, value: Option<String>| {
            if let Some(value) = value {
                *of(facts).entry(value).or_default() += 1;
            }
        };
        count(|f| &mut f.titles, item.title);
        count(|f| &mut f.categories, item.category);
        count(|f| &mut f.brands, item.brand);
        facts.price = item.price.or(facts.price);
    }

    async fn flush(&mut self) -> Result<()> {
        for (day, events) in std::mem::take(&mut self.waiting) {
            let date = chrono::DateTime::from_timestamp_micros(day * DAY_MICROS).unwrap_or_default().date_naive();
            let name = format!("events/dt={date}/part-{:05}.parquet", self.flushes);
            self.to.write(&name, parquet(&EVENTS, columns(&events))?).await?;
            self.days.insert(day);
        }
        self.rows_waiting = 0;
        self.flushes += 1;
        Ok(())
    }

    /// Writes what waits; returns events, items and days.
    pub async fn finish(mut self) -> Result<(u64, u64, u64)> {
        self.flush().await?;
        let items = &self.items;
        let text = |of: &dyn Fn(&Facts) -> Option<String>| -> ArrayRef {
            Arc::new(items.values().map(of).collect::<StringArray>())
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(items.keys().map(Some).collect::<StringArray>()),
            text(&|f| most(&f.titles)),
            text(&|f| most(&f.categories)),
            text(&|f| most(&f.brands)),
            money(items.values().map(|f| f.price)),
        ];
        self.to.write("items/part-00000.parquet", parquet(&ITEMS, columns)?).await?;
        Ok((self.events, self.items.len() as u64, self.days.len() as u64))
    }
}

/// The most frequent value; the smallest among equals, so that an import gives the same bytes again.
fn most(values: &HashMap<String, u32>) -> Option<String> {
    values.iter().max_by(|a, b| a.1.cmp(b.1).then_with(|| b.0.cmp(a.0))).map(|(v, _)| v.clone())
}

fn money(values: impl Iterator<Item = Option<f64>>) -> ArrayRef {
    let exact: Decimal128Array = values.map(|v| v.map(|v| (v * 10_000.0).round() as i128)).collect();
    Arc::new(exact.with_data_type(DataType::Decimal128(18, 4)))
}

static EVENTS: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema(&[
        ("event_id", DataType::Utf8),
        ("user_id", DataType::Utf8),
        ("session_id", DataType::Utf8),
        ("ts", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        ("event_type", DataType::Utf8),
        ("item_id", DataType::Utf8),
        ("query", DataType::Utf8),
        ("dwell_ms", DataType::Int64),
        ("quantity", DataType::Int32),
        ("price", DataType::Decimal128(18, 4)),
        ("currency", DataType::Utf8),
        ("rating", DataType::Int8),
        ("text", DataType::Utf8),
    ])
});

static ITEMS: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema(&[
        ("item_id", DataType::Utf8),
        ("title", DataType::Utf8),
        ("category", DataType::Utf8),
        ("brand", DataType::Utf8),
        ("price", DataType::Decimal128(18, 4)),
    ])
});

fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|(name, t)| Field::new(*name, t.clone(), true)).collect::<Vec<_>>()))
}

fn columns(events: &[ImportedEvent]) -> Vec<ArrayRef> {
    let text = |of: fn(&ImportedEvent) -> Option<&str>| -> ArrayRef {
        Arc::new(events.iter().map(of).collect::<StringArray>())
    };
    let ts: TimestampMicrosecondArray = events.iter().map(|e| Some(e.ts)).collect();
    vec![
        text(|_| None),
        text(|e| e.user_id.as_deref()),
        text(|e| e.session_id.as_deref()),
        Arc::new(ts.with_timezone("UTC")),
        text(|e| Some(e.event_type)),
        text(|e| e.item_id.as_deref()),
        text(|_| None),
        Arc::new(Int64Array::new_null(events.len())),
        Arc::new(events.iter().map(|e| e.quantity).collect::<Int32Array>()),
        money(events.iter().map(|e| e.price)),
        text(|e| e.currency),
        Arc::new(events.iter().map(|e| e.rating).collect::<Int8Array>()),
        text(|e| e.text.as_deref()),
    ]
}

fn parquet(schema: &SchemaRef, columns: Vec<ArrayRef>) -> Result<Vec<u8>> {
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties))?;
    writer.write(&RecordBatch::try_new(Arc::clone(schema), columns)?)?;
    Ok(writer.into_inner()?)
}
