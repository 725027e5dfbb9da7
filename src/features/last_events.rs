//! `last_events(n, ts, event_key, event_type, item_id, category, price, dwell_ms, text_key, image_key, video_key)`: a user's
//! newest events, oldest first.
//!
//! Exact and independent of the input's order: events are ranked by `(ts, hash of event_key, type, item)`. The rows of all groups
//! are in one flat buffer of 56-byte entries with interned strings and contents. Whenever the buffer has doubled, it is sorted and
//! every group is cut back to its newest `n`, so that memory is proportional to groups × n, not to the events seen, and is
//! accounted exactly. `array_agg(... ORDER BY ts)` would hold every event of every user.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Builder, Int64Builder, ListArray, StringBuilder, StringViewArray,
    StructArray, TimestampMicrosecondBuilder, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, FieldRef, Fields, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType, UInt64Type,
};
use datafusion::common::{Result, ScalarValue, exec_err, internal_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use datafusion::physical_expr::expressions::Literal;
use foldhash::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::one_group::OneGroup;

/// Returns the fields of one event of the list, in order.
pub(crate) fn event_fields() -> Fields {
    Fields::from(vec![
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("event_type", DataType::Utf8, true),
        Field::new("item_id", DataType::Utf8, true),
        Field::new("category", DataType::Utf8, true),
        Field::new("price", DataType::Float64, true),
        Field::new("dwell_ms", DataType::Int64, true),
        Field::new("text_key", DataType::Int64, true),
        Field::new("image_key", DataType::Int64, true),
        Field::new("video_key", DataType::Int64, true),
    ])
}

/// The function itself, ready to register.
pub fn last_events() -> AggregateUDF {
    AggregateUDF::from(LastEvents { signature: Signature::any(11, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct LastEvents {
    signature: Signature,
}

impl AggregateUDFImpl for LastEvents {
    fn name(&self) -> &str {
        "last_events"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(list_of(event_fields()))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[newest]", args.name), list_of(state_event_fields()), true))])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(OneGroup::new(Newest::new(limit_of(&args)?), &args)))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Newest::new(limit_of(&args)?)))
    }
}

fn limit_of(args: &AccumulatorArgs) -> Result<usize> {
    match args.exprs[0].downcast_ref::<Literal>().map(Literal::value) {
        Some(ScalarValue::Int64(Some(n))) if *n > 0 => Ok(*n as usize),
        other => exec_err!("last_events: expected a positive integer literal as its first argument, got {other:?}"),
    }
}

fn list_of(fields: Fields) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Struct(fields), true)))
}

/// Returns the fields of the state between partial and final aggregation: the event and the hash that breaks ties.
fn state_event_fields() -> Fields {
    event_fields().iter().cloned().chain([Arc::new(Field::new("tie", DataType::UInt64, false))]).collect()
}

/// Position of the hash, after the event's fields.
const TIE: usize = 9;

const ABSENT: u32 = u32::MAX;

/// One event, with interned strings; a `NaN` price and a negative dwell time are null.
#[derive(Clone, Copy)]
struct Entry {
    ts: i64,
    tie: u64,
    price: f64,
    dwell_ms: i64,
    group: u32,
    event_type: u32,
    item: u32,
    category: u32,
    contents: u32,
}

/// Keys of an event's text, picture and video.
type ContentKeys = [Option<i64>; 3];

/// Distinct strings by index.
#[derive(Default)]
struct Interner {
    ids: HashMap<Arc<str>, u32>,
    texts: Vec<Arc<str>>,
    bytes: usize,
}

impl Interner {
    fn id(&mut self, text: &str) -> u32 {
        if let Some(&id) = self.ids.get(text) {
            return id;
        }
        let id = self.texts.len() as u32;
        let text: Arc<str> = text.into();
        self.bytes += text.len() + 64;
        self.ids.insert(Arc::clone(&text), id);
        self.texts.push(text);
        id
    }

    fn text(&self, id: u32) -> Option<&str> {
        self.texts.get(id as usize).map(|t| &**t)
    }
}

/// Distinct sets of content keys by index: events of one item share them.
#[derive(Default)]
struct ContentSets {
    ids: HashMap<ContentKeys, u32>,
    keys: Vec<ContentKeys>,
}

impl ContentSets {
    fn id(&mut self, keys: ContentKeys) -> u32 {
        *self.ids.entry(keys).or_insert_with(|| {
            self.keys.push(keys);
            self.keys.len() as u32 - 1
        })
    }

    fn bytes(&self) -> usize {
        self.keys.len() * 2 * (size_of::<ContentKeys>() + 8)
    }
}

/// The newest events of all groups.
struct Newest {
    limit: usize,
    groups: usize,
    entries: Vec<Entry>,
    /// Entries left by the last cut; the next cut comes when they have doubled.
    entries_after_cut: usize,
    strings: Interner,
    contents: ContentSets,
}

impl Newest {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            groups: 0,
            entries: Vec::new(),
            entries_after_cut: 0,
            strings: Interner::default(),
            contents: ContentSets::default(),
        }
    }

    /// Adds rows; `ties` has the hashes of their event keys.
    fn add(&mut self, columns: &[ArrayRef], ties: &[u64], groups: &[usize], keep: Option<&BooleanArray>) -> Result<()> {
        let ts = cast(&columns[0], &event_fields()[0].data_type().clone())?;
        let ts = ts.as_primitive::<TimestampMicrosecondType>();
        let texts: Vec<ArrayRef> =
            columns[1..4].iter().map(|c| cast(c, &DataType::Utf8View)).collect::<Result<_, _>>()?;
        let [types, items, categories] = [0, 1, 2].map(|i| texts[i].as_string_view());
        let price = cast(&columns[4], &DataType::Float64)?;
        let price = price.as_primitive::<Float64Type>();
        let dwell = cast(&columns[5], &DataType::Int64)?;
        let dwell = dwell.as_primitive::<Int64Type>();
        let keys: Vec<ArrayRef> = columns[6..9].iter().map(|c| cast(c, &DataType::Int64)).collect::<Result<_, _>>()?;
        let keys = [0, 1, 2].map(|i| keys[i].as_primitive::<Int64Type>());
        for row in 0..ts.len() {
            if ts.is_null(row) || keep.is_some_and(|k| !k.is_valid(row) || !k.value(row)) {
                continue;
            }
            let mut id = |a: &StringViewArray| match a.is_valid(row) {
                true => self.strings.id(a.value(row)),
                false => ABSENT,
            };
            let entry = Entry {
                ts: ts.value(row),
                tie: ties[row],
                price: if price.is_valid(row) { price.value(row) } else { f64::NAN },
                dwell_ms: if dwell.is_valid(row) { dwell.value(row) } else { -1 },
                group: groups[row] as u32,
                event_type: id(types),
                item: id(items),
                category: id(categories),
                contents: self.contents.id(keys.map(|key| key.is_valid(row).then(|| key.value(row)))),
            };
            self.entries.push(entry);
        }
        if self.entries.len() > (2 * self.entries_after_cut).max(4096) {
            self.cut();
        }
        Ok(())
    }

    /// Sorts by group and age, and removes all but each group's newest `limit`.
    ///
    /// Entries are divided by group first: many short sorts are cheaper than a long one.
    fn cut(&mut self) {
        let mut ends = vec![0usize; self.groups];
        for entry in &self.entries {
            ends[entry.group as usize] += 1;
        }
        let kept = ends.iter().map(|count| (*count).min(self.limit)).sum();
        let mut end = 0;
        for place in &mut ends {
            end += *place;
            *place = end;
        }
        // Indexes of entries by group; filling them moves each end to its group's start.
        let mut by_group = vec![0u32; self.entries.len()];
        for (index, entry) in self.entries.iter().enumerate().rev() {
            let place = &mut ends[entry.group as usize];
            *place -= 1;
            by_group[*place] = index as u32;
        }
        let starts = ends;
        let strings = &self.strings;
        let mut newest = Vec::with_capacity(kept);
        let mut of_group: Vec<Entry> = Vec::new();
        for (group, &start) in starts.iter().enumerate() {
            let end = starts.get(group + 1).copied().unwrap_or(by_group.len());
            of_group.clear();
            of_group.extend(by_group[start..end].iter().map(|&index| self.entries[index as usize]));
            of_group.sort_unstable_by(|a, b| {
                (a.ts, a.tie)
                    .cmp(&(b.ts, b.tie))
                    .then_with(|| strings.text(a.event_type).cmp(&strings.text(b.event_type)))
                    .then_with(|| strings.text(a.item).cmp(&strings.text(b.item)))
            });
            newest.extend_from_slice(&of_group[of_group.len().saturating_sub(self.limit)..]);
        }
        self.entries_after_cut = newest.len();
        self.entries = newest;
    }

    /// Removes the emitted groups and returns their lists; later groups move up.
    fn emit(&mut self, emit_to: EmitTo, with_tie: bool) -> ArrayRef {
        self.cut();
        let emitted = match emit_to {
            EmitTo::All => self.groups,
            EmitTo::First(n) => n,
        };
        let boundary = self.entries.partition_point(|e| (e.group as usize) < emitted);
        let rest = self.entries.split_off(boundary);
        let entries = std::mem::replace(&mut self.entries, rest);
        self.entries.iter_mut().for_each(|e| e.group -= emitted as u32);
        self.groups -= emitted;
        self.entries_after_cut = self.entries.len();

        let mut ts = TimestampMicrosecondBuilder::with_capacity(entries.len()).with_timezone("UTC");
        let mut texts = [StringBuilder::new(), StringBuilder::new(), StringBuilder::new()];
        let mut price = Float64Builder::with_capacity(entries.len());
        let mut dwell = Int64Builder::with_capacity(entries.len());
        let mut keys = [0, 1, 2].map(|_| Int64Builder::with_capacity(entries.len()));
        let mut lengths = vec![0usize; emitted];
        for e in &entries {
            lengths[e.group as usize] += 1;
            ts.append_value(e.ts);
            for (builder, id) in texts.iter_mut().zip([e.event_type, e.item, e.category]) {
                builder.append_option(self.strings.text(id));
            }
            price.append_option((!e.price.is_nan()).then_some(e.price));
            dwell.append_option((e.dwell_ms >= 0).then_some(e.dwell_ms));
            for (builder, key) in keys.iter_mut().zip(self.contents.keys[e.contents as usize]) {
                builder.append_option(key);
            }
        }
        let mut columns: Vec<ArrayRef> = vec![Arc::new(ts.finish())];
        columns.extend(texts.iter_mut().map(|b| Arc::new(b.finish()) as ArrayRef));
        columns.extend([Arc::new(price.finish()) as ArrayRef, Arc::new(dwell.finish())]);
        columns.extend(keys.iter_mut().map(|b| Arc::new(b.finish()) as ArrayRef));
        let mut fields = event_fields();
        if with_tie {
            columns.push(Arc::new(entries.iter().map(|e| e.tie).collect::<UInt64Array>()));
            fields = state_event_fields();
        }
        let events = StructArray::new(fields.clone(), columns, None);
        let item = Arc::new(Field::new_list_field(DataType::Struct(fields), true));
        Arc::new(ListArray::new(item, OffsetBuffer::from_lengths(lengths), Arc::new(events), None))
    }
}

impl GroupsAccumulator for Newest {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        self.groups = total_groups;
        let keys = cast(&values[2], &DataType::Utf8View)?;
        let ties: Vec<u64> = keys.as_string_view().iter().map(|k| k.map_or(0, stable_hash)).collect();
        let columns: Vec<ArrayRef> = [1, 3, 4, 5, 6, 7, 8, 9, 10].iter().map(|&i| Arc::clone(&values[i])).collect();
        self.add(&columns, &ties, groups, filter)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total_groups: usize) -> Result<()> {
        self.groups = total_groups;
        let lists = values[0].as_list::<i32>();
        let mut group_of_event = Vec::with_capacity(lists.values().len());
        let first = lists.value_offsets().first().map_or(0, |&o| o as usize);
        for (row, &group) in groups.iter().enumerate() {
            group_of_event.extend(std::iter::repeat_n(group, lists.value_length(row) as usize));
        }
        let events = lists.values().slice(first, group_of_event.len());
        let events = events.as_struct();
        let Some(ties) = events.column(TIE).as_primitive_opt::<UInt64Type>() else {
            return internal_err!("last_events: state without ties");
        };
        self.add(&events.columns()[..TIE], ties.values(), &group_of_event, None)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        Ok(self.emit(emit_to, false))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.emit(emit_to, true)])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values[0].len();
        let groups: Vec<usize> = (0..rows).collect();
        let mut each = Newest::new(self.limit);
        each.update_batch(values, &groups, filter, rows)?;
        GroupsAccumulator::state(&mut each, EmitTo::All)
    }

    fn size(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.strings.bytes + self.contents.bytes()
    }
}

/// FNV-1a: the same on every machine and in every version.
fn stable_hash(text: &str) -> u64 {
    struct Fnv(u64);
    impl Hasher for Fnv {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            for &b in bytes {
                self.0 = (self.0 ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::{SessionConfig, SessionContext};

    async fn run(partitions: usize, order: &str) -> String {
        let ctx =
            SessionContext::new_with_config(SessionConfig::new().with_target_partitions(partitions).with_batch_size(7));
        ctx.register_udaf(last_events());
        let sql = format!(
            "WITH e AS (SELECT arrow_cast(v * 1000000, 'Timestamp(us, \"UTC\")') AS ts, v % 5 AS u, \
             CAST(v AS VARCHAR) AS k FROM generate_series(1, 400) AS t(v) ORDER BY {order}) \
             SELECT u, last_events(3, ts, k, 'view', k, 'c', 1.5, NULL, NULL, k, 7) AS r FROM e GROUP BY u ORDER BY u"
        );
        let batches = ctx.sql(&sql).await.unwrap().collect().await.unwrap();
        arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string()
    }

    #[tokio::test]
    async fn the_newest_stay_whatever_the_order_and_the_partitions() {
        let expected = run(1, "v").await;
        assert!(expected.contains("item_id: 390,") && expected.contains("item_id: 400,"), "{expected}");
        assert!(expected.contains("text_key: , image_key: 390, video_key: 7}"), "{expected}");
        assert!(!expected.contains("item_id: 385,"));
        for (partitions, order) in [(1, "v DESC"), (3, "v % 7, v"), (4, "k")] {
            assert_eq!(run(partitions, order).await, expected);
        }
    }
}
