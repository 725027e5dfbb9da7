//! The columns of random event rows, their ids, and the faults that make a row bad.

use chrono::DateTime;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::random_files::{Column, Ids, Kind, Row, Value};

/// Places of columns in a row of events, see [`columns`].
pub const TS: usize = 0;
pub const EVENT_TYPE: usize = 1;
pub const USER: usize = 2;
pub const EVENT_ID: usize = 4;
pub const ARRIVED: usize = 6;
pub const DWELL: usize = 8;
pub const QUANTITY: usize = 9;
pub const PRICE: usize = 10;
pub const CURRENCY: usize = 11;
pub const RATING: usize = 12;

pub const SECOND: i64 = 1_000_000;
pub const DAY: i64 = 86_400 * SECOND;
pub const TYPES: [&str; 8] = ["view", "click", "search", "favorite", "cart", "remove_from_cart", "purchase", "review"];

pub fn text(value: &str) -> Value {
    Value::Text(value.into())
}

pub fn ids(rng: &mut ChaCha8Rng, kind: Ids, count: usize) -> Vec<String> {
    let odd = ["u1", "u1 ", " u2", "O'Neil", "a\"b", "Ünal ✓", "NULL", "nan", "7", "07", "x,y", "%_", "u3", "u4"];
    match kind {
        Ids::Text => odd.iter().cycle().take(count.min(odd.len())).map(|id| id.to_string()).collect(),
        Ids::Small => (0..count).map(|n| (n * 7 % 100).to_string()).collect(),
        Ids::Large => (0..count as u64).map(|n| (9_007_199_254_740_991 + n).to_string()).collect(),
        Ids::Uuid => (0..count).map(|_| uuid::Uuid::from_u128(rng.random()).to_string()).collect(),
    }
}

/// Makes a row bad in one way.
pub fn spoil(rng: &mut ChaCha8Rng, row: &mut Row, currency: &str) {
    let far = DateTime::parse_from_rfc3339("2150-01-01T00:00:00Z").unwrap().timestamp_micros();
    let numbers = [-1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e14, 1e300];
    let wholes = [1 << 31, -(1 << 31) - 1, i64::MAX, i64::MIN];
    match rng.random_range(0..9) {
        0 => row[TS] = Value::Null,
        1 => row[TS] = Value::Time(*[0, -1, i64::MIN / 1_000, 631_151_999 * SECOND].choose(rng).unwrap()),
        2 => row[TS] = Value::Time(*[far, 253_402_300_800 * SECOND].choose(rng).unwrap()),
        3 => row[EVENT_TYPE] = ["View", "", "order", "purchase "].choose(rng).map_or(Value::Null, |t| text(t)),
        4 => row[ARRIVED] = Value::Time(*[0, far].choose(rng).unwrap()),
        5 => row[PRICE] = Value::Number(*numbers.choose(rng).unwrap()),
        6 => row[QUANTITY] = Value::Whole(*wholes.choose(rng).unwrap()),
        7 => row[DWELL] = Value::Whole(*[-1, 1_000_000_000_001].choose(rng).unwrap()),
        _ => match currency {
            "" => row[RATING] = Value::Whole(*[128, -129].choose(rng).unwrap()),
            _ => row[CURRENCY] = text("USD"),
        },
    }
}

/// Returns the canonical columns of events with ids of these kinds: users, items, events and sessions.
pub fn columns(ids: [Ids; 4]) -> [Column; 14] {
    let [user, item, event, session] = ids.map(Kind::Id);
    let column = |name, kind, optional| Column { name, kind, optional };
    [
        column("ts", Kind::Time, false),
        column("event_type", Kind::Text, false),
        column("user_id", user, false),
        column("item_id", item, false),
        column("event_id", event, true),
        column("session_id", session, true),
        column("arrived_at", Kind::Time, true),
        column("query", Kind::Text, true),
        column("dwell_ms", Kind::Whole, true),
        column("quantity", Kind::Whole, true),
        column("price", Kind::Number, true),
        column("currency", Kind::Text, true),
        column("rating", Kind::Whole, true),
        column("text", Kind::Text, true),
    ]
}
