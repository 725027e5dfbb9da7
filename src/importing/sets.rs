//! The known public data sets: where each column goes. One function a set, from a row's fields to an event and an item.

use chrono::{NaiveDate, NaiveDateTime, TimeZone};

use super::readers::{Fields, Format};
use super::{ImportedEvent, ImportedItem, Line};
use crate::failure::{Failure, Result};

/// A set: how its files are read, and what a row means.
pub struct Set {
    pub name: &'static str,
    pub format: Format,
    pub time_zone: &'static str,
    pub line: fn(&Fields) -> Result<Line, String>,
}

const SETS: [Set; 8] = [
    Set { name: "taobao", format: Format::Csv, time_zone: "Asia/Shanghai", line: taobao },
    Set { name: "tmall", format: Format::CsvWithHeader, time_zone: "UTC", line: tmall },
    Set { name: "rees46", format: Format::CsvWithHeader, time_zone: "UTC", line: rees46 },
    Set { name: "retailrocket", format: Format::CsvWithHeader, time_zone: "UTC", line: retailrocket },
    Set { name: "online-retail-ii", format: Format::CsvWithHeader, time_zone: "Europe/London", line: online_retail },
    Set { name: "complete-journey", format: Format::CsvWithHeader, time_zone: "UTC", line: complete_journey },
    Set { name: "cdnow", format: Format::Blanks, time_zone: "UTC", line: cdnow },
    Set { name: "amazon-all-beauty", format: Format::JsonLines, time_zone: "UTC", line: amazon_reviews },
];

pub fn find(name: &str) -> Result<&'static Set> {
    SETS.iter().find(|s| s.name == name).ok_or_else(|| {
        let known: Vec<_> = SETS.iter().map(|s| s.name).collect();
        Failure::usage(format!("import: unknown set {name:?}")).hint(format!("known: {}", known.join(", ")))
    })
}

fn field<'a>(fields: &'a Fields, name: &str) -> Result<&'a str, String> {
    fields.get(name).map(|f| f.trim()).filter(|f| !f.is_empty()).ok_or_else(|| format!("no {name}"))
}

fn some(fields: &Fields, name: &str) -> Option<String> {
    field(fields, name).ok().map(String::from)
}

fn number<T: std::str::FromStr>(fields: &Fields, name: &str) -> Result<T, String> {
    field(fields, name)?.parse().map_err(|_| format!("{name} is not a number"))
}

/// Unix seconds of a plausible year; a cut-off stamp (`15`) is no time.
fn unix_seconds(seconds: i64) -> Result<i64, String> {
    match seconds {
        631_152_000..=4_102_444_800 => Ok(seconds * 1_000_000),
        _ => Err("time is not between 1990 and 2100".into()),
    }
}

fn local(text: &str, format: &str, zone: chrono_tz::Tz) -> Result<i64, String> {
    let naive = NaiveDateTime::parse_from_str(text, format).map_err(|_| "unreadable time".to_string())?;
    let there = zone.from_local_datetime(&naive).earliest().ok_or("a time that the clock change skipped")?;
    unix_seconds(there.timestamp())
}

fn midnight(date: Option<NaiveDate>) -> Result<i64, String> {
    let date = date.ok_or("unreadable date")?;
    unix_seconds(date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp())
}

fn event(event: ImportedEvent) -> Line {
    Line { event: Some(event), item: None }
}

/// Alibaba, Tianchi data set 649: user, item, category, behaviour, unix seconds. Days are Beijing days.
fn taobao(f: &Fields) -> Result<Line, String> {
    let event_type = match field(f, "3")? {
        "pv" => "view",
        "fav" => "favorite",
        "cart" => "cart",
        "buy" => "purchase",
        _ => return Err("unknown behaviour".into()),
    };
    let item_id = field(f, "1")?.to_string();
    Ok(Line {
        item: Some(ImportedItem { item_id: item_id.clone(), category: some(f, "2"), ..Default::default() }),
        event: Some(ImportedEvent {
            user_id: some(f, "0"),
            ts: unix_seconds(number(f, "4")?)?,
            event_type,
            item_id: Some(item_id),
            ..Default::default()
        }),
    })
}

/// Alibaba's competition of 2014: `month-day` without a year (2014 is put in) and without a time (midnight UTC).
/// Exact repeats are real clicks.
fn tmall(f: &Fields) -> Result<Line, String> {
    let event_type = match field(f, "type")? {
        "0" => "click",
        "1" => "purchase",
        "2" => "favorite",
        "3" => "cart",
        _ => return Err("unknown type".into()),
    };
    let (month, day) = field(f, "visit_datetime")?.split_once('-').ok_or("unreadable date")?;
    let date = month.parse().ok().zip(day.parse().ok()).and_then(|(m, d)| NaiveDate::from_ymd_opt(2014, m, d));
    Ok(event(ImportedEvent {
        user_id: some(f, "user_id"),
        ts: midnight(date)?,
        event_type,
        item_id: Some(field(f, "brand_id")?.into()),
        ..Default::default()
    }))
}

/// REES46 (Open CDP), multi category store.
fn rees46(f: &Fields) -> Result<Line, String> {
    let event_type = match field(f, "event_type")? {
        "view" => "view",
        "cart" => "cart",
        "remove_from_cart" => "remove_from_cart",
        "purchase" => "purchase",
        _ => return Err("unknown event_type".into()),
    };
    let item_id = field(f, "product_id")?.to_string();
    let price = number(f, "price").ok();
    Ok(Line {
        item: Some(ImportedItem {
            item_id: item_id.clone(),
            category: some(f, "category_code").map(|c| c.replace('.', "/")),
            brand: some(f, "brand"),
            price,
            ..Default::default()
        }),
        event: Some(ImportedEvent {
            user_id: some(f, "user_id"),
            session_id: some(f, "user_session"),
            ts: local(field(f, "event_time")?, "%Y-%m-%d %H:%M:%S UTC", chrono_tz::UTC)?,
            event_type,
            item_id: Some(item_id),
            price,
            ..Default::default()
        }),
    })
}

/// Retail Rocket; the original has five columns, a copy has `datetime` besides.
fn retailrocket(f: &Fields) -> Result<Line, String> {
    let event_type = match field(f, "event")? {
        "view" => "view",
        "addtocart" => "cart",
        "transaction" => "purchase",
        _ => return Err("unknown event".into()),
    };
    let millis: i64 = number(f, "timestamp")?;
    unix_seconds(millis / 1000)?;
    Ok(event(ImportedEvent {
        user_id: some(f, "visitorid"),
        ts: millis * 1000,
        event_type,
        item_id: Some(field(f, "itemid")?.into()),
        ..Default::default()
    }))
}

/// UCI 502: order lines in UK time. Cancelled lines keep their negative quantity: a return, never negative demand.
fn online_retail(f: &Fields) -> Result<Line, String> {
    let item_id = field(f, "StockCode")?.to_string();
    let price: f64 = number(f, "Price")?;
    Ok(Line {
        item: Some(ImportedItem {
            item_id: item_id.clone(),
            title: some(f, "Description"),
            price: (price > 0.0).then_some(price),
            ..Default::default()
        }),
        event: Some(ImportedEvent {
            // Some copies write customers as 13085.0.
            user_id: some(f, "Customer ID").map(|c| c.trim_end_matches(".0").to_string()),
            session_id: some(f, "Invoice"),
            ts: local(field(f, "InvoiceDate")?, "%Y-%m-%d %H:%M:%S", chrono_tz::Europe::London)?,
            event_type: "purchase",
            item_id: Some(item_id),
            quantity: Some(number(f, "Quantity")?),
            price: Some(price),
            currency: Some("GBP"),
            ..Default::default()
        }),
    })
}

/// The Complete Journey 2.0: the transactions file, and the products file if it is given too.
fn complete_journey(f: &Fields) -> Result<Line, String> {
    let item_id = field(f, "product_id")?.to_string();
    if f.contains_key("department") {
        let path: Vec<String> =
            ["department", "product_category", "product_type"].iter().filter_map(|n| some(f, n)).collect();
        let item =
            ImportedItem { item_id, category: Some(path.join("/")), brand: some(f, "brand"), ..Default::default() };
        return Ok(Line { event: None, item: Some(item) });
    }
    let (quantity, value): (f64, f64) = (number(f, "quantity")?, number(f, "sales_value")?);
    Ok(event(ImportedEvent {
        user_id: some(f, "household_id"),
        session_id: some(f, "basket_id"),
        ts: local(field(f, "transaction_timestamp")?, "%Y-%m-%d %H:%M:%S", chrono_tz::UTC)?,
        event_type: "purchase",
        item_id: Some(item_id),
        quantity: Some(quantity.round() as i32),
        price: (quantity > 0.0).then(|| value / quantity),
        currency: Some("USD"),
        ..Default::default()
    }))
}

/// Fader and Hardie: master (customer, date, CDs, dollars) or sample (master id, sample id, date, CDs, dollars).
fn cdnow(f: &Fields) -> Result<Line, String> {
    let date_at = match f.len() {
        4 => 1,
        5 => 2,
        n => return Err(format!("expected 4 or 5 fields, got {n}")),
    };
    let at = |k: usize| (date_at + k).to_string();
    let date = NaiveDate::parse_from_str(field(f, &at(0))?, "%Y%m%d").ok();
    let (quantity, dollars): (i32, f64) = (number(f, &at(1))?, number(f, &at(2))?);
    Ok(event(ImportedEvent {
        user_id: some(f, "0"),
        ts: midnight(date)?,
        event_type: "purchase",
        item_id: Some("cd".into()),
        quantity: Some(quantity),
        price: (quantity > 0).then(|| dollars / f64::from(quantity)),
        currency: Some("USD"),
        ..Default::default()
    }))
}

/// Amazon review data 2018: one review a line, times by day.
fn amazon_reviews(f: &Fields) -> Result<Line, String> {
    let rating: f64 = number(f, "overall")?;
    Ok(event(ImportedEvent {
        user_id: some(f, "reviewerID"),
        ts: unix_seconds(number(f, "unixReviewTime")?)?,
        event_type: "review",
        item_id: Some(field(f, "asin")?.into()),
        rating: Some(rating as i8),
        text: some(f, "reviewText"),
        ..Default::default()
    }))
}
