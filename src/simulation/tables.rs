//! Writes the lake's master tables: items, users, inventory, promotions, erasures.

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, ListArray,
    StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Float32Type, SchemaRef};
use std::sync::Arc;

use super::catalogue::Catalogue;
use super::events::item_id;
use super::options::{BATCH_ROWS, DAY_MICROS, SimulateOptions};
use super::people::{MasterData, Person};
use super::stock::Stock;
use super::writer::{ParquetSink, instant, money, schema};
use crate::failure::Result;
use crate::ids::date32;
use crate::lake::stores::Location;

pub(super) fn inventory_schema() -> SchemaRef {
    schema(&[
        ("item_id", DataType::Utf8),
        ("as_of", DataType::Date32),
        ("on_hand", DataType::Int64),
        ("on_order", DataType::Int64),
        ("lead_time_days", DataType::Int32),
        ("pack_size", DataType::Int32),
        ("min_order_quantity", DataType::Int32),
        ("unit_cost", money()),
        ("service_level", DataType::Float64),
    ])
}

/// Returns the stock of every item on sale at the start of a day.
pub(super) fn inventory(stock: &Stock, catalogue: &Catalogue, day: u32, date: i32) -> Vec<ArrayRef> {
    let lines: Vec<(u32, &super::stock::StockLine)> =
        (0u32..).zip(&stock.lines).filter(|(item, _)| catalogue.sold_on(*item, day)).collect();
    let cost = |item: u32| i128::from(catalogue.items[item as usize].price * 6 / 10);
    vec![
        Arc::new(lines.iter().map(|(i, _)| Some(item_id(*i))).collect::<StringArray>()),
        Arc::new(Date32Array::from(vec![date; lines.len()])),
        Arc::new(lines.iter().map(|(_, l)| Some(l.on_hand)).collect::<Int64Array>()),
        Arc::new(lines.iter().map(|(_, l)| Some(l.on_order)).collect::<Int64Array>()),
        Arc::new(lines.iter().map(|(_, l)| Some(l.lead_time_days)).collect::<Int32Array>()),
        Arc::new(lines.iter().map(|(_, l)| Some(l.pack_size)).collect::<Int32Array>()),
        Arc::new(lines.iter().map(|(_, l)| Some(l.min_order_quantity)).collect::<Int32Array>()),
        Arc::new(lines.iter().map(|(i, _)| Some(cost(*i))).collect::<Decimal128Array>().with_data_type(money())),
        Arc::new(lines.iter().map(|(_, l)| l.service_level).collect::<Float64Array>()),
    ]
}

/// Writes items, users, promotions and erasures; returns their bytes.
pub(super) async fn write_masters(to: &Location, catalogue: &Catalogue, options: &SimulateOptions) -> Result<u64> {
    Ok(items(to, catalogue).await? + users(to, catalogue, options).await? + promotions(to, catalogue, options).await?)
}

async fn items(to: &Location, catalogue: &Catalogue) -> Result<u64> {
    let vector = DataType::List(Arc::new(Field::new_list_field(DataType::Float32, true)));
    let columns = schema(&[
        ("item_id", DataType::Utf8),
        ("title", DataType::Utf8),
        ("category", DataType::Utf8),
        ("brand", DataType::Utf8),
        ("price", money()),
        ("image_vector", vector.clone()),
        ("video_vector", vector),
        ("image", DataType::Binary),
    ]);
    let mut sink = ParquetSink::open(to, "items/part-00000.parquet", &columns)?;
    for (chunk, items) in catalogue.items.chunks(BATCH_ROWS).enumerate() {
        let number = |i: usize| (chunk * BATCH_ROWS + i) as u32;
        let prices = items.iter().map(|i| Some(i128::from(i.price))).collect::<Decimal128Array>();
        let vectors = items.iter().map(|i| Some(i.vector.iter().map(|x| Some(*x))));
        sink.write(vec![
            Arc::new((0..items.len()).map(|i| Some(item_id(number(i)))).collect::<StringArray>()),
            Arc::new(items.iter().map(|i| Some(i.title.as_str())).collect::<StringArray>()),
            Arc::new(items.iter().map(|i| Some(catalogue.category_path(i.category))).collect::<StringArray>()),
            Arc::new((0..items.len()).map(|i| Some(catalogue.brand(number(i)))).collect::<StringArray>()),
            Arc::new(prices.with_data_type(money())),
            Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(vectors)),
            Arc::new(ListArray::new_null(Arc::new(Field::new_list_field(DataType::Float32, true)), items.len())),
            Arc::new(BinaryArray::new_null(items.len())),
        ])
        .await?;
    }
    sink.close().await
}

/// Writes users with a login, and the guests that became one. A guest's row has the moment of that login.
async fn users(to: &Location, catalogue: &Catalogue, options: &SimulateOptions) -> Result<u64> {
    let columns = schema(&[
        ("user_id", DataType::Utf8),
        ("canonical_user_id", DataType::Utf8),
        ("signed_up_at", instant()),
        ("country", DataType::Utf8),
        ("consent", DataType::Boolean),
        ("excluded", DataType::Boolean),
    ]);
    let erasures = schema(&[("user_id", DataType::Utf8), ("requested_at", instant())]);
    let mut sink = ParquetSink::open(to, "users/part-00000.parquet", &columns)?;
    let mut erased = ParquetSink::open(to, "erasures/part-00000.parquet", &erasures)?;
    let start = i64::from(date32(options.start));
    let mut from = 0;
    while from < options.users {
        let to = (from + BATCH_ROWS as u64).min(options.users);
        let (mut ids, mut canonical, mut master_rows, mut signed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut gone, mut gone_at) = (Vec::new(), Vec::new());
        for number in from..to {
            let person = Person::new(options.seed, number, options.days, catalogue.categories());
            // A guest who never logs in within the lake's days has no row.
            if person.logs_in >= options.days.min(person.leaves) {
                continue;
            }
            let login = format!("u{number:07}");
            let master_data = || MasterData::new(options.seed, number, options.days);
            let signed_up_day = match person.joins.max(person.logs_in) {
                0 => master_data().signed_up_day,
                day => Some(i64::from(day)),
            };
            let signed_up_at = signed_up_day.map(|day| (start + day) * DAY_MICROS);
            if person.logs_in > 0 {
                ids.push(format!("g{number:07}"));
                canonical.push(Some(login.clone()));
                master_rows.push(master_data());
                signed.push(signed_up_at);
            }
            if let Some(day) = master_data().erasure_day {
                gone.push(login.clone());
                gone_at.push((start + i64::from(day)) * DAY_MICROS);
            }
            ids.push(login);
            canonical.push(None);
            master_rows.push(master_data());
            signed.push(signed_up_at);
        }
        let signed = TimestampMicrosecondArray::from(signed);
        sink.write(vec![
            Arc::new(StringArray::from(ids)),
            Arc::new(StringArray::from(canonical)),
            Arc::new(signed.with_timezone("UTC")),
            Arc::new(master_rows.iter().map(|p| Some(p.country)).collect::<StringArray>()),
            Arc::new(master_rows.iter().map(|p| p.consent).collect::<BooleanArray>()),
            Arc::new(master_rows.iter().map(|p| p.excluded).collect::<BooleanArray>()),
        ])
        .await?;
        let gone_at = TimestampMicrosecondArray::from(gone_at).with_timezone("UTC");
        erased.write(vec![Arc::new(StringArray::from(gone)), Arc::new(gone_at)]).await?;
        from = to;
    }
    Ok(sink.close().await? + erased.close().await?)
}

async fn promotions(to: &Location, catalogue: &Catalogue, options: &SimulateOptions) -> Result<u64> {
    let columns = schema(&[
        ("item_id", DataType::Utf8),
        ("starts_on", DataType::Date32),
        ("ends_on", DataType::Date32),
        ("price", money()),
    ]);
    let start = date32(options.start);
    let all = &catalogue.promotions;
    let mut sink = ParquetSink::open(to, "promotions/part-00000.parquet", &columns)?;
    let prices = all.iter().map(|p| Some(i128::from(p.price))).collect::<Decimal128Array>();
    sink.write(vec![
        Arc::new(all.iter().map(|p| Some(item_id(p.item))).collect::<StringArray>()),
        Arc::new(all.iter().map(|p| Some(start + p.first_day as i32)).collect::<Date32Array>()),
        Arc::new(all.iter().map(|p| Some(start + p.last_day as i32)).collect::<Date32Array>()),
        Arc::new(prices.with_data_type(money())),
    ])
    .await?;
    sink.close().await
}
