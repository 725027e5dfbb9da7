//! Simulated events as Arrow columns of one batch, in the canonical order.

use arrow::array::{
    ArrayRef, Decimal128Builder, Int8Builder, Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, SchemaRef};
use std::sync::Arc;

use super::writer::{instant, money, schema};

/// One event before it has an id.
#[derive(Clone, Debug, Default)]
pub(super) struct Event {
    pub(crate) ts: i64,
    pub(crate) event_type: &'static str,
    pub(crate) item: Option<u32>,
    pub(crate) query: Option<String>,
    pub(crate) dwell_ms: Option<i64>,
    pub(crate) quantity: Option<i32>,
    pub(crate) price: Option<i64>,
    pub(crate) rating: Option<i8>,
    pub(crate) text: Option<String>,
}

pub(super) fn events_schema() -> SchemaRef {
    schema(&[
        ("event_id", DataType::Utf8),
        ("user_id", DataType::Utf8),
        ("session_id", DataType::Utf8),
        ("ts", instant()),
        ("arrived_at", instant()),
        ("event_type", DataType::Utf8),
        ("item_id", DataType::Utf8),
        ("query", DataType::Utf8),
        ("dwell_ms", DataType::Int64),
        ("quantity", DataType::Int32),
        ("price", money()),
        ("currency", DataType::Utf8),
        ("rating", DataType::Int8),
        ("text", DataType::Utf8),
    ])
}

/// Column builders of a batch of events.
#[derive(Default)]
pub(super) struct Columns {
    pub(crate) rows: usize,
    event_id: StringBuilder,
    user_id: StringBuilder,
    session_id: StringBuilder,
    ts: Vec<i64>,
    arrived_at: Vec<i64>,
    event_type: StringBuilder,
    item_id: StringBuilder,
    query: StringBuilder,
    dwell_ms: Int64Builder,
    quantity: Int32Builder,
    price: Decimal128Builder,
    currency: StringBuilder,
    rating: Int8Builder,
    text: StringBuilder,
}

impl Columns {
    pub(super) fn push(&mut self, id: &str, user: Option<&str>, session: &str, arrived_at: i64, event: &Event) {
        self.rows += 1;
        self.event_id.append_value(id);
        self.user_id.append_option(user);
        self.session_id.append_value(session);
        self.ts.push(event.ts);
        self.arrived_at.push(arrived_at);
        self.event_type.append_value(event.event_type);
        self.item_id.append_option(event.item.map(item_id));
        self.query.append_option(event.query.as_deref());
        self.dwell_ms.append_option(event.dwell_ms);
        self.quantity.append_option(event.quantity);
        self.price.append_option(event.price.map(i128::from));
        self.currency.append_option(event.price.map(|_| "EUR"));
        self.rating.append_option(event.rating);
        self.text.append_option(event.text.as_deref());
    }

    pub(super) fn finish(&mut self) -> Vec<ArrayRef> {
        self.rows = 0;
        let price = std::mem::take(&mut self.price).with_data_type(money()).finish();
        vec![
            Arc::new(self.event_id.finish()),
            Arc::new(self.user_id.finish()),
            Arc::new(self.session_id.finish()),
            instants(std::mem::take(&mut self.ts)),
            instants(std::mem::take(&mut self.arrived_at)),
            Arc::new(self.event_type.finish()),
            Arc::new(self.item_id.finish()),
            Arc::new(self.query.finish()),
            Arc::new(self.dwell_ms.finish()),
            Arc::new(self.quantity.finish()),
            Arc::new(price),
            Arc::new(self.currency.finish()),
            Arc::new(self.rating.finish()),
            Arc::new(self.text.finish()),
        ]
    }
}

pub(super) fn instants(micros: Vec<i64>) -> ArrayRef {
    let mut builder = TimestampMicrosecondBuilder::with_capacity(micros.len()).with_timezone("UTC");
    builder.append_slice(&micros);
    Arc::new(builder.finish())
}

pub(super) fn item_id(item: u32) -> String {
    format!("i{item:06}")
}
