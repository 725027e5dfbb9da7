//! Reads users' feature structs out of Arrow into the numbers that the networks take.

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};

use super::contents::{ContentKeys, ContentRows, Contents, MODALITIES};
use crate::failure::{Failure, Result};
use crate::features::contract::FeatureContract;

/// Real-valued inputs of an event: log price, its absence, log dwell, its absence, log gap, log age, hour sine, cosine.
pub const EVENT_REALS: usize = 8;
/// Where the gap to the event before stands among them.
pub const GAP: usize = 4;
pub const EVENT_TYPES: [&str; 8] =
    ["view", "click", "search", "favorite", "cart", "remove_from_cart", "purchase", "review"];
pub const CATEGORY_BUCKETS: u64 = 2048;

/// One event as the encoder sees it; times are relative to the user's last event, never to the run date.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EventInput {
    /// 1..=8 in the order of [`EVENT_TYPES`]; 0 for unknown.
    pub event_type: i64,
    /// 1..=buckets; 0 for none.
    pub item: i64,
    pub category: i64,
    /// Rows of what its text, picture and video say.
    pub contents: ContentRows,
    pub reals: [f32; EVENT_REALS],
}

impl EventInput {
    /// An event of which nothing but its times is known.
    pub fn unknown(mut self) -> Self {
        (self.event_type, self.item, self.category, self.contents) = (0, 0, 0, ContentRows::default());
        // Price and dwell, each with the flag that says that it is not known.
        self.reals[..4].copy_from_slice(&[0.0, 1.0, 0.0, 1.0]);
        self
    }
}

/// Users in row order: events (oldest first) and tabular features.
#[derive(Debug, Clone, Default)]
pub struct UserInputs {
    pub user_ids: Vec<String>,
    pub events: Vec<Vec<EventInput>>,
    /// Row-major [users, features]; NaN where the feature is null; signed log1p of the raw value.
    pub tabular: Vec<f32>,
    /// ln(1 + hours between the last event and `as_of`); NaN for users without events.
    pub idle_log_hours: Vec<f32>,
}

impl UserInputs {
    /// Reads `features` structs as `model_input` packs them; contents that are not among `contents` count as none.
    pub fn read(
        features: &StructArray,
        contract: &FeatureContract,
        item_buckets: u64,
        contents: &Contents,
    ) -> Result<Self> {
        let column = |name: &str| {
            features.column_by_name(name).ok_or_else(|| {
                Failure::model(format!("score_intents: the features lack {name}"))
                    .hint("call score_intents(features) over model_input")
            })
        };
        let rows = features.len();
        let user_ids = cast(column("user_id")?, &DataType::Utf8)?;
        let user_ids = user_ids.as_string::<i32>();
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        let as_of = cast(column("as_of")?, &micros)?;
        let as_of = as_of.as_primitive::<TimestampMicrosecondType>();
        let tabular: Vec<ArrayRef> =
            contract.0.iter().map(|c| Ok(cast(column(&c.name)?, &DataType::Float64)?)).collect::<Result<_>>()?;
        let recent = column("recent")?.as_list_opt::<i32>().ok_or_else(|| Failure::model("recent: expected a list"))?;
        // A slice of a larger batch carries the events of all of its rows: only its own are read.
        let offsets = recent.value_offsets();
        let (first, end) = (offsets[0] as usize, offsets[rows] as usize);
        let parts = Events::read(&recent.values().slice(first, end - first), item_buckets, contents)?;
        let mut inputs = Self::default();
        for row in 0..rows {
            inputs.user_ids.push(user_ids.value(row).into());
            for (c, feature) in tabular.iter().zip(&contract.0) {
                let values = c.as_primitive::<Float64Type>();
                let value = if values.is_valid(row) { values.value(row) } else { f64::NAN };
                if value.is_infinite() {
                    return Err(Failure::model(format!("user {}: {} is infinite", user_ids.value(row), feature.name))
                        .hint("look at the user's row in user_features; a division by zero is the usual cause"));
                }
                inputs.tabular.push(signed_log(value));
            }
            let (from, to) = (offsets[row] as usize - first, offsets[row + 1] as usize - first);
            let events = if recent.is_valid(row) { parts.sequence(from, to) } else { Vec::new() };
            let idle = match events.is_empty() {
                true => f32::NAN,
                false => log1p_hours(as_of.value(row) - parts.ts[to - 1]),
            };
            inputs.idle_log_hours.push(idle);
            inputs.events.push(events);
        }
        Ok(inputs)
    }

    pub fn len(&self) -> usize {
        self.user_ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.user_ids.is_empty()
    }

    /// Appends the rows of `other`.
    pub fn append(&mut self, other: UserInputs) {
        self.user_ids.extend(other.user_ids);
        self.events.extend(other.events);
        self.tabular.extend(other.tabular);
        self.idle_log_hours.extend(other.idle_log_hours);
    }

    /// The hash of exactly what the encoder sees of one user. `contents`: where the rows of the events' contents stand.
    pub fn key(&self, row: usize, contents: &Contents) -> u128 {
        let mut hasher = blake3::Hasher::new();
        for e in &self.events[row] {
            for id in [e.event_type, e.item, e.category] {
                hasher.update(&id.to_le_bytes());
            }
            for (modality, &row) in e.contents.iter().enumerate() {
                hasher.update(&contents.key(modality, row).to_le_bytes());
            }
            e.reals.iter().for_each(|r| {
                hasher.update(&r.to_le_bytes());
            });
        }
        let mut key = [0; 16];
        hasher.finalize_xof().fill(&mut key);
        u128::from_le_bytes(key)
    }
}

/// The flat child columns of `recent`.
struct Events {
    ts: Vec<i64>,
    event_type: Vec<i64>,
    item: Vec<i64>,
    category: Vec<i64>,
    contents: Vec<ContentRows>,
    price: Vec<f64>,
    dwell_ms: Vec<f64>,
}

impl Events {
    fn read(values: &ArrayRef, item_buckets: u64, known: &Contents) -> Result<Self> {
        let events = values.as_struct_opt().ok_or_else(|| Failure::model("recent: expected a list of structs"))?;
        let field = |name: &str, to: &DataType| -> Result<ArrayRef> {
            let c = events.column_by_name(name).ok_or_else(|| Failure::model(format!("recent: {name} is missing")))?;
            Ok(cast(c, to)?)
        };
        let ts = field("ts", &DataType::Timestamp(TimeUnit::Microsecond, None))?;
        let text = |name: &str| field(name, &DataType::Utf8);
        let number = |name: &str| -> Result<Vec<f64>> {
            let c = field(name, &DataType::Float64)?;
            Ok(c.as_primitive::<Float64Type>().iter().map(|v| v.unwrap_or(f64::NAN)).collect())
        };
        let mut contents = vec![ContentKeys::default(); events.len()];
        for (modality, name) in MODALITIES.iter().enumerate() {
            let keys = field(&format!("{name}_key"), &DataType::Int64)?;
            let keys = keys.as_primitive::<Int64Type>().iter();
            contents.iter_mut().zip(keys).for_each(|(of, key)| of[modality] = key);
        }
        let bucket =
            |a: &StringArray, n: u64| -> Vec<i64> { a.iter().map(|t| t.map_or(0, |t| bucket(t, n))).collect() };
        let kind = |t: Option<&str>| EVENT_TYPES.iter().position(|k| Some(*k) == t).map_or(0, |p| p as i64 + 1);
        Ok(Self {
            ts: cast(&ts, &DataType::Int64)?.as_primitive::<Int64Type>().values().to_vec(),
            event_type: text("event_type")?.as_string::<i32>().iter().map(kind).collect(),
            item: bucket(text("item_id")?.as_string(), item_buckets),
            category: bucket(text("category")?.as_string(), CATEGORY_BUCKETS),
            contents: contents.iter().map(|keys| known.rows(keys)).collect(),
            price: number("price")?,
            dwell_ms: number("dwell_ms")?,
        })
    }

    fn sequence(&self, from: usize, to: usize) -> Vec<EventInput> {
        let known =
            |v: f64, scale: f64| if v.is_nan() { (0.0, 1.0) } else { ((v / scale).max(0.0).ln_1p() as f32, 0.0) };
        (from..to)
            .map(|i| {
                let (price, no_price) = known(self.price[i], 1.0);
                let (dwell, no_dwell) = known(self.dwell_ms[i], 1000.0);
                let gap = if i > from { log1p_hours(self.ts[i] - self.ts[i - 1]) } else { 0.0 };
                let age = log1p_hours(self.ts[to - 1] - self.ts[i]);
                let hour = self.ts[i].rem_euclid(86_400_000_000) as f64 / 86_400e6 * std::f64::consts::TAU;
                EventInput {
                    event_type: self.event_type[i],
                    item: self.item[i],
                    category: self.category[i],
                    contents: self.contents[i],
                    reals: [price, no_price, dwell, no_dwell, gap, age, hour.sin() as f32, hour.cos() as f32],
                }
            })
            .collect()
    }
}

/// 1..=buckets, the same on every machine.
pub fn bucket(text: &str, buckets: u64) -> i64 {
    let hash = blake3::hash(text.as_bytes());
    let mut word = [0; 8];
    word.copy_from_slice(&hash.as_bytes()[..8]);
    (u64::from_le_bytes(word) % buckets.max(1)) as i64 + 1
}

/// The scale of tabular features; NaN stays NaN.
pub fn signed_log(x: f64) -> f32 {
    (x.signum() * x.abs().ln_1p()) as f32
}

fn log1p_hours(micros: i64) -> f32 {
    (micros.max(0) as f64 / 3.6e9).ln_1p() as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Float64Array, Int64Array, ListArray, TimestampMicrosecondArray};
    use arrow::buffer::OffsetBuffer;
    use std::sync::Arc;

    use crate::features::contract::FeatureColumn;

    const HOUR: i64 = 3_600_000_000;

    /// One user, seen at 06:00, 09:00 and 18:00 of a day, as of midnight.
    fn user() -> StructArray {
        let text = |values: [Option<&str>; 3]| -> ArrayRef { Arc::new(StringArray::from(values.to_vec())) };
        let events = StructArray::try_from(vec![
            ("ts", Arc::new(TimestampMicrosecondArray::from(vec![6 * HOUR, 9 * HOUR, 18 * HOUR])) as ArrayRef),
            ("event_type", text([Some("search"), Some("view"), Some("purchase")])),
            ("item_id", text([None, Some("i1"), Some("i2")])),
            ("category", text([None, Some("mugs"), None])),
            ("price", Arc::new(Float64Array::from(vec![None, Some(0.0), Some(19.0)]))),
            ("dwell_ms", Arc::new(Int64Array::from(vec![None, Some(4_000), None]))),
            ("text_key", Arc::new(Int64Array::from(vec![Some(5), None, None]))),
            ("image_key", Arc::new(Int64Array::from(vec![None, Some(7), Some(8)]))),
            ("video_key", Arc::new(Int64Array::from(vec![None::<i64>; 3]))),
        ])
        .unwrap();
        let field = Arc::new(arrow::datatypes::Field::new_list_field(events.data_type().clone(), true));
        let recent = ListArray::new(field, OffsetBuffer::from_lengths([3]), Arc::new(events), None);
        StructArray::try_from(vec![
            ("user_id", Arc::new(StringArray::from(vec!["u1"])) as ArrayRef),
            ("as_of", Arc::new(TimestampMicrosecondArray::from(vec![24 * HOUR]))),
            ("events_7d", Arc::new(Int64Array::from(vec![3]))),
            ("recent", Arc::new(recent)),
        ])
        .unwrap()
    }

    #[test]
    fn an_event_has_its_category_price_dwell_and_the_gap_to_the_one_before() {
        let contract = FeatureContract(vec![FeatureColumn { name: "events_7d".into(), dtype: "Int64".into() }]);
        let mut contents = Contents::new([2, 2, 0]);
        assert!(contents.insert(0, 5, &[1.0, 0.0]) && contents.insert(1, 7, &[1.0, 0.0]));
        let inputs = UserInputs::read(&user(), &contract, 100, &contents).unwrap();
        let events = &inputs.events[0];
        let ids: Vec<_> = events.iter().map(|e| (e.event_type, e.item, e.category)).collect();
        let categories = CATEGORY_BUCKETS;
        let expected = [(3, 0, 0), (1, bucket("i1", 100), bucket("mugs", categories)), (7, bucket("i2", 100), 0)];
        assert_eq!(ids, expected);
        // Nobody brought along a vector of the key 8.
        assert_eq!(events.iter().map(|e| e.contents).collect::<Vec<_>>(), [[1, 0, 0], [0, 1, 0], [0, 0, 0]]);
        // Log price and dwell in seconds, each with the flag that says that it is not known; a price of nothing is known.
        let log1p = |x: f64| x.ln_1p() as f32;
        let known: Vec<_> = events.iter().map(|e| e.reals[..4].to_vec()).collect();
        assert_eq!(known, [[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, log1p(4.0), 0.0], [log1p(19.0), 0.0, 0.0, 1.0]]);
        // Log hours since the event before, and until the last.
        let times: Vec<_> = events.iter().map(|e| (e.reals[GAP], e.reals[GAP + 1])).collect();
        assert_eq!(times, [(0.0, log1p(12.0)), (log1p(3.0), log1p(9.0)), (log1p(9.0), 0.0)]);
        // Six in the morning is a quarter of the circle.
        assert!((events[0].reals[6] - 1.0).abs() < 1e-6 && events[0].reals[7].abs() < 1e-6, "{:?}", events[0]);
        assert_eq!(inputs.idle_log_hours, [log1p(6.0)]);
        assert_eq!(inputs.tabular, [log1p(3.0)]);
    }
}
