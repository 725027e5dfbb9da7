//! Reads users' feature structs from Arrow into the inputs of the intent network.

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};

use foldhash::HashMap;

use super::contents::{ContentKeys, ContentRows, Contents, MODALITIES};
use crate::failure::{Failure, Result};
use crate::features::contract::FeatureContract;

/// Real-valued inputs of an event: log price, its absence, log dwell, its absence, log gap, log age, hour sine, cosine.
pub(crate) const EVENT_REALS: usize = 8;
/// Index of the gap to the previous event in [`EventInput::reals`].
pub(crate) const GAP: usize = 4;
/// Index of the time until the user's last event in [`EventInput::reals`].
pub(crate) const AGE: usize = 5;
/// Event types in the order of their numbers, from 1.
pub(crate) const EVENT_TYPES: [&str; 8] =
    ["view", "click", "search", "favorite", "cart", "remove_from_cart", "purchase", "review"];
/// Hash buckets of categories.
pub(crate) const CATEGORY_BUCKETS: u64 = 2048;

/// One event as the encoder reads it. Times are relative to the user's last event, never to the run date.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EventInput {
    /// 1..=8 in the order of [`EVENT_TYPES`]; 0 for unknown.
    pub(crate) event_type: i64,
    /// Hash bucket of the item id, 1..=buckets; 0 for none.
    pub(crate) item: i64,
    /// Hash bucket of the category, 1..=[`CATEGORY_BUCKETS`]; 0 for none.
    pub(crate) category: i64,
    /// Rows in [`Contents`] of its text, image and video.
    pub(crate) contents: ContentRows,
    /// Numbers in the order of [`EVENT_REALS`].
    pub reals: [f32; EVENT_REALS],
}

impl EventInput {
    /// Returns the event with everything but its times masked.
    pub(crate) fn masked(mut self) -> Self {
        self.event_type = 0;
        self.item = 0;
        self.category = 0;
        self.contents = ContentRows::default();
        // Price and dwell time, each with its null flag set.
        self.reals[..4].copy_from_slice(&[0.0, 1.0, 0.0, 1.0]);
        self
    }
}

/// The network's inputs of several users, in row order.
#[derive(Debug, Clone, Default)]
pub struct UserInputs {
    pub user_ids: Vec<String>,
    /// Events of each user, oldest first.
    pub events: Vec<Vec<EventInput>>,
    /// Row-major [users, features]: signed log1p of the raw value, NaN for null.
    pub tabular: Vec<f32>,
    /// ln(1 + hours between the last event and `as_of`); NaN for users without events.
    pub idle_log_hours: Vec<f32>,
}

impl UserInputs {
    /// Reads `features` structs as `model_input` packs them. Contents that `contents` lacks are treated as missing.
    pub fn from_struct(
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
        let user_id_column = cast(column("user_id")?, &DataType::Utf8)?;
        let user_ids = user_id_column.as_string::<i32>();
        let as_of_column = cast(column("as_of")?, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
        let as_of = as_of_column.as_primitive::<TimestampMicrosecondType>();
        let tabular: Vec<ArrayRef> =
            contract.0.iter().map(|c| Ok(cast(column(&c.name)?, &DataType::Float64)?)).collect::<Result<_>>()?;
        let recent = column("recent")?.as_list_opt::<i32>().ok_or_else(|| Failure::model("recent: expected a list"))?;
        // A slice of a larger batch refers to the events of the whole batch: read only those of its own rows.
        let offsets = recent.value_offsets();
        let first = offsets[0] as usize;
        let end = offsets[rows] as usize;
        let events = EventFields::read(&recent.values().slice(first, end - first), item_buckets, contents)?;
        let mut inputs = Self::default();
        for row in 0..rows {
            inputs.user_ids.push(user_ids.value(row).into());
            for (column, feature) in tabular.iter().zip(&contract.0) {
                let values = column.as_primitive::<Float64Type>();
                let value = if values.is_valid(row) { values.value(row) } else { f64::NAN };
                if value.is_infinite() {
                    return Err(Failure::model(format!("user {}: {} is infinite", user_ids.value(row), feature.name))
                        .hint("look at the user's row in user_features; a division by zero is the usual cause"));
                }
                inputs.tabular.push(signed_log(value));
            }
            let from = offsets[row] as usize - first;
            let to = offsets[row + 1] as usize - first;
            let sequence = if recent.is_valid(row) { events.sequence(from, to) } else { Vec::new() };
            let idle = match sequence.is_empty() {
                true => f32::NAN,
                false => log1p_hours(as_of.value(row) - events.ts[to - 1]),
            };
            inputs.idle_log_hours.push(idle);
            inputs.events.push(sequence);
        }
        Ok(inputs)
    }

    pub(crate) fn len(&self) -> usize {
        self.user_ids.len()
    }

    /// Appends the rows of `other`.
    pub(crate) fn append(&mut self, other: UserInputs) {
        self.user_ids.extend(other.user_ids);
        self.events.extend(other.events);
        self.tabular.extend(other.tabular);
        self.idle_log_hours.extend(other.idle_log_hours);
    }

    /// Returns a hash of the encoder's exact inputs of one user: the key of the cached encoder state. Content rows enter as
    /// keys, so that the hash does not depend on the order of `contents`.
    pub fn encoder_key(&self, row: usize, contents: &Contents) -> u128 {
        // Many short updates of the hash take several times as long as one.
        let mut bytes = Vec::with_capacity(self.events[row].len() * size_of::<EventInput>() * 2);
        for event in &self.events[row] {
            for id in [event.event_type, event.item, event.category] {
                bytes.extend_from_slice(&id.to_le_bytes());
            }
            for (modality, &content_row) in event.contents.iter().enumerate() {
                bytes.extend_from_slice(&contents.key(modality, content_row).to_le_bytes());
            }
            event.reals.iter().for_each(|r| bytes.extend_from_slice(&r.to_le_bytes()));
        }
        let mut key = [0; 16];
        key.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..16]);
        u128::from_le_bytes(key)
    }
}

/// The child columns of `recent`, one entry per event.
struct EventFields {
    ts: Vec<i64>,
    event_type: Vec<i64>,
    item: Vec<i64>,
    category: Vec<i64>,
    contents: Vec<ContentRows>,
    price: Vec<f64>,
    dwell_ms: Vec<f64>,
}

impl EventFields {
    fn read(values: &ArrayRef, item_buckets: u64, contents: &Contents) -> Result<Self> {
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
        let mut content_keys = vec![ContentKeys::default(); events.len()];
        for (modality, name) in MODALITIES.iter().enumerate() {
            let keys = field(&format!("{name}_key"), &DataType::Int64)?;
            for (event_keys, key) in content_keys.iter_mut().zip(keys.as_primitive::<Int64Type>()) {
                event_keys[modality] = key;
            }
        }
        let type_number = |name: Option<&str>| {
            EVENT_TYPES.iter().position(|known| Some(*known) == name).map_or(0, |at| at as i64 + 1)
        };
        Ok(Self {
            ts: cast(&ts, &DataType::Int64)?.as_primitive::<Int64Type>().values().to_vec(),
            event_type: text("event_type")?.as_string::<i32>().iter().map(type_number).collect(),
            item: hash_buckets(text("item_id")?.as_string(), item_buckets),
            category: hash_buckets(text("category")?.as_string(), CATEGORY_BUCKETS),
            contents: content_keys.iter().map(|keys| contents.rows(keys)).collect(),
            price: number("price")?,
            dwell_ms: number("dwell_ms")?,
        })
    }

    /// Returns the inputs of the events `from..to`, which are one user's.
    fn sequence(&self, from: usize, to: usize) -> Vec<EventInput> {
        let log_and_null_flag =
            |v: f64, scale: f64| if v.is_nan() { (0.0, 1.0) } else { ((v / scale).max(0.0).ln_1p() as f32, 0.0) };
        (from..to)
            .map(|i| {
                let (price, no_price) = log_and_null_flag(self.price[i], 1.0);
                let (dwell, no_dwell) = log_and_null_flag(self.dwell_ms[i], 1000.0);
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

/// Returns the hash bucket of each text, 0 for null. Many events have the same item: each distinct text is hashed once.
fn hash_buckets(texts: &StringArray, buckets: u64) -> Vec<i64> {
    let mut known: HashMap<&str, i64> = HashMap::default();
    let mut bucket = |text| *known.entry(text).or_insert_with(|| hash_bucket(text, buckets));
    texts.iter().map(|text| text.map_or(0, &mut bucket)).collect()
}

/// Returns the hash bucket of a text, 1..=buckets; the same on every machine.
pub(crate) fn hash_bucket(text: &str, buckets: u64) -> i64 {
    let hash = blake3::hash(text.as_bytes());
    let mut word = [0; 8];
    word.copy_from_slice(&hash.as_bytes()[..8]);
    (u64::from_le_bytes(word) % buckets.max(1)) as i64 + 1
}

/// Returns sign(x) · ln(1 + |x|), the scale of tabular features; NaN stays NaN.
pub(crate) fn signed_log(x: f64) -> f32 {
    (x.signum() * x.abs().ln_1p()) as f32
}

/// Returns ln(1 + hours); negative times count as zero.
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

    /// One user with events at 06:00, 09:00 and 18:00 of a day, as of midnight.
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
    fn an_event_has_category_price_dwell_and_gap() {
        let contract = FeatureContract(vec![FeatureColumn { name: "events_7d".into(), dtype: "Int64".into() }]);
        let mut contents = Contents::new([2, 2, 0]);
        assert!(contents.insert(0, 5, &[1.0, 0.0]) && contents.insert(1, 7, &[1.0, 0.0]));
        let inputs = UserInputs::from_struct(&user(), &contract, 100, &contents).unwrap();
        let events = &inputs.events[0];
        let ids: Vec<_> = events.iter().map(|e| (e.event_type, e.item, e.category)).collect();
        let categories = CATEGORY_BUCKETS;
        let expected =
            [(3, 0, 0), (1, hash_bucket("i1", 100), hash_bucket("mugs", categories)), (7, hash_bucket("i2", 100), 0)];
        assert_eq!(ids, expected);
        // There is no vector for key 8.
        assert_eq!(events.iter().map(|e| e.contents).collect::<Vec<_>>(), [[1, 0, 0], [0, 1, 0], [0, 0, 0]]);
        // Log price and log dwell in seconds, each with its null flag; a price of zero is known.
        let log1p = |x: f64| x.ln_1p() as f32;
        let amounts: Vec<_> = events.iter().map(|e| e.reals[..4].to_vec()).collect();
        assert_eq!(amounts, [[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, log1p(4.0), 0.0], [log1p(19.0), 0.0, 0.0, 1.0]]);
        // Log hours since the previous event and until the last one.
        let times: Vec<_> = events.iter().map(|e| (e.reals[GAP], e.reals[GAP + 1])).collect();
        assert_eq!(times, [(0.0, log1p(12.0)), (log1p(3.0), log1p(9.0)), (log1p(9.0), 0.0)]);
        // Six in the morning is a quarter of the circle.
        assert!((events[0].reals[6] - 1.0).abs() < 1e-6 && events[0].reals[7].abs() < 1e-6, "{:?}", events[0]);
        assert_eq!(inputs.idle_log_hours, [log1p(6.0)]);
        assert_eq!(inputs.tabular, [log1p(3.0)]);
    }
}
