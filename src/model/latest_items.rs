//! Weights of the items of a user's last events: the part of a recommendation that repeats what the user did.
//!
//! P(item) ∝ exp(taste · vector + bias) + weight(item): a mixture of exploring and repeating (RepeatNet, Ren et al. 2019,
//! arXiv 1812.02646), where weight(item) = level · Σ 0.5^(age / half-life) over the user's last events with the item, and a purchase
//! counts `purchase_weight` times. Ages are those of the user's last event, so that a weight does not depend on the run date. Training
//! learns the three numbers (`training::intents`).

use arrow::array::{Array, AsArray, StringArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

const PURCHASE: &str = "purchase";
/// Weights below this part of a new event's are left out: they change no score that float32 shows.
const WEIGHT_MIN: f64 = 1e-6;
const DAY_MICROS: f64 = 86_400e6;

/// Numbers that training learnt of repeated items.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LatestItems {
    /// Days after which an event counts half.
    pub(crate) half_life_days: f64,
    /// Number of other events that a purchase counts as.
    pub(crate) purchase_weight: f64,
    /// Weight of one event at the age of zero.
    pub(crate) level: f64,
}

impl LatestItems {
    /// Refuses numbers that no training writes.
    pub(crate) fn check(&self) -> Result<()> {
        let Self { half_life_days, purchase_weight, level } = *self;
        let positive = |number: f64| number > 0.0 && number.is_finite();
        if positive(half_life_days) && positive(level) && purchase_weight >= 0.0 && purchase_weight.is_finite() {
            return Ok(());
        }
        Err(Failure::model(format!(
            "latest_items: expected a positive half-life and level and a purchase weight from 0, got {half_life_days}, {level} and \
             {purchase_weight}"
        )))
    }

    /// Returns how much one event adds to the weight of its item.
    pub(crate) fn event_weight(&self, age_days: f64, is_purchase: bool) -> f64 {
        self.level * decay(age_days, self.half_life_days) * if is_purchase { self.purchase_weight } else { 1.0 }
    }
}

/// Returns what an event of an age counts.
fn decay(age_days: f64, half_life_days: f64) -> f64 {
    (-age_days.max(0.0) / half_life_days).exp2()
}

/// Returns the score of an item with a weight: the log of what both parts give it.
pub(crate) fn with_weight(score: f32, weight: f64) -> f32 {
    let (score, repeated) = (f64::from(score), weight.ln());
    let larger = score.max(repeated);
    // A weight of zero has a log of minus infinity and adds nothing.
    (larger + ((score - larger).exp() + (repeated - larger).exp()).ln()) as f32
}

/// The last events of some users: the columns of `recent` that matter here.
pub(crate) struct RecentEvents {
    offsets: Vec<usize>,
    micros: Vec<i64>,
    items: StringArray,
    is_purchase: Vec<bool>,
}

impl RecentEvents {
    /// Reads `features` structs as `model_input` packs them.
    pub(crate) fn from_struct(features: &StructArray) -> Result<Self> {
        let missing = |name: &str| {
            Failure::model(format!("latest_items: the features lack {name}"))
                .hint("call latest_items(features) over model_input")
        };
        let recent = features.column_by_name("recent").and_then(|recent| recent.as_list_opt::<i32>());
        let recent = recent.ok_or_else(|| missing("recent"))?;
        let offsets = recent.value_offsets();
        let first = offsets[0] as usize;
        let events = recent.values().slice(first, offsets[recent.len()] as usize - first);
        let events = events.as_struct_opt().ok_or_else(|| missing("recent"))?;
        let field = |name: &str, to: &DataType| {
            let column = events.column_by_name(name).ok_or_else(|| missing(&format!("recent.{name}")))?;
            Ok::<_, Failure>(cast(column, to)?)
        };
        let micros = cast(&field("ts", &DataType::Timestamp(TimeUnit::Microsecond, None))?, &DataType::Int64)?;
        let types = field("event_type", &DataType::Utf8)?;
        Ok(Self {
            offsets: offsets.iter().map(|&offset| offset as usize - first).collect(),
            micros: micros.as_primitive::<Int64Type>().values().to_vec(),
            items: field("item_id", &DataType::Utf8)?.as_string::<i32>().clone(),
            is_purchase: types.as_string::<i32>().iter().map(|name| name == Some(PURCHASE)).collect(),
        })
    }

    /// Returns the distinct items of a row's events with their weights, by item id.
    pub(crate) fn weights(&self, row: usize, learnt: &LatestItems) -> Vec<(&str, f64)> {
        let events = self.offsets[row]..self.offsets[row + 1];
        let Some(newest) = self.micros[events.clone()].iter().max() else { return Vec::new() };
        let mut weights: Vec<(&str, f64)> = Vec::with_capacity(events.len());
        for at in events.filter(|&at| self.items.is_valid(at)) {
            let age_days = (newest - self.micros[at]) as f64 / DAY_MICROS;
            weights.push((self.items.value(at), learnt.event_weight(age_days, self.is_purchase[at])));
        }
        // Stable, so that the weights of an item are added in the order of its events.
        weights.sort_by(|a, b| a.0.cmp(b.0));
        weights.dedup_by(|later, first| {
            let same = later.0 == first.0;
            if same {
                first.1 += later.1;
            }
            same
        });
        weights.retain(|(_, weight)| *weight > learnt.level * WEIGHT_MIN);
        weights
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, ListArray, TimestampMicrosecondArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::Field;
    use std::sync::Arc;

    const LEARNT: LatestItems = LatestItems { half_life_days: 2.0, purchase_weight: 3.0, level: 8.0 };

    /// Users with three, no and one event.
    fn features() -> StructArray {
        let day = DAY_MICROS as i64;
        let text = |values: [Option<&str>; 4]| -> ArrayRef { Arc::new(StringArray::from(values.to_vec())) };
        let events = StructArray::try_from(vec![
            ("ts", Arc::new(TimestampMicrosecondArray::from(vec![day, 3 * day, 3 * day, 9 * day])) as ArrayRef),
            ("event_type", text([Some("view"), Some("purchase"), Some("search"), Some("view")])),
            ("item_id", text([Some("mug"), Some("mug"), None, Some("cup")])),
        ])
        .unwrap();
        let field = Arc::new(Field::new_list_field(events.data_type().clone(), true));
        let recent = ListArray::new(field, OffsetBuffer::from_lengths([3, 0, 1]), Arc::new(events), None);
        StructArray::try_from(vec![("recent", Arc::new(recent) as ArrayRef)]).unwrap()
    }

    #[test]
    fn an_item_weighs_what_its_events_do() {
        let recent = RecentEvents::from_struct(&features()).unwrap();
        // Viewed two days before the last event, which halves, and bought at the time of the last event.
        assert_eq!(recent.weights(0, &LEARNT), [("mug", 8.0 * (0.5 + 3.0))]);
        assert_eq!(recent.weights(1, &LEARNT), []);
        // The age is that of the user's own last event.
        assert_eq!(recent.weights(2, &LEARNT), [("cup", 8.0)]);
        let never = LatestItems { purchase_weight: 0.0, ..LEARNT };
        assert_eq!(recent.weights(0, &never), [("mug", 4.0)]);
        // A slice refers to the events of the whole batch.
        let sliced = RecentEvents::from_struct(&features().slice(2, 1)).unwrap();
        assert_eq!(sliced.weights(0, &LEARNT), [("cup", 8.0)]);
    }

    #[test]
    fn both_parts_add_up() {
        let sum = |score: f32, weight: f64| f64::from(score).exp() + weight;
        for (score, weight) in [(0.0, 1.0), (-3.0, 20.0), (5.0, 0.1)] {
            assert!((f64::from(with_weight(score, weight)).exp() - sum(score, weight)).abs() < 1e-4);
        }
        assert_eq!(with_weight(1.5, 0.0), 1.5);
        assert!((with_weight(200.0, 1.0) - 200.0).abs() < 1e-4 && (with_weight(-900.0, 1.0)).abs() < 1e-6);
    }

    #[test]
    fn numbers_that_no_training_writes_are_refused() {
        assert!(LEARNT.check().is_ok());
        for damaged in [
            LatestItems { half_life_days: 0.0, ..LEARNT },
            LatestItems { level: f64::NAN, ..LEARNT },
            LatestItems { purchase_weight: -1.0, ..LEARNT },
        ] {
            assert!(damaged.check().unwrap_err().message.contains("latest_items"));
        }
    }
}
