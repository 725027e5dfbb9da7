//! Users with their labels as Arrow columns: the rows of blocks, from which batches are built by index.

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, Int32Array, ListArray, RecordBatch};
use arrow::array::{StringArray, StructArray, UInt8Array, UInt16Array, UInt32Array};
use arrow::datatypes::{DataType, Field, Fields, Float32Type, Schema, SchemaRef};
use arrow::datatypes::{UInt8Type, UInt16Type, UInt32Type};
use chrono::Datelike;
use std::sync::Arc;
use tch::{Kind, Tensor};

use super::block_rows::{BlockRows, element, flat, lists, matrix, numbers};
use super::blocks::Blocks;
use super::labelled_users::LabelledUsers;
use crate::failure::Result;
use crate::ids::RunDate;
use crate::model::contents::{ContentRows, Contents, MODALITIES};
use crate::model::events::{EventBatch, EventColumns};
use crate::model::inputs::{AGE, EVENT_REALS, EventInput};
use crate::model::scaling::Scaling;
use crate::model::targets::LABELS;

/// Memory of a row's id, labels and offsets, without its events, features and next items.
const ROW_BYTES: usize = 96;
const EVENT_BYTES: usize = EVENT_REALS * 4 + MODALITIES.len() * 4 + 7;

/// Users as of past dates, one row per user and date.
#[derive(Debug, Clone, PartialEq)]
pub struct UserColumns(RecordBatch);

pub type UserBlocks = Blocks<UserColumns>;

/// Indices of the columns after the id and the date.
#[derive(Clone, Copy)]
enum Column {
    Labels = 2,
    Tabular,
    Idle,
    Events,
    NextItems,
}

impl BlockRows for UserColumns {
    const KIND: &'static str = "users";

    fn batch(&self) -> &RecordBatch {
        &self.0
    }

    fn from_trusted_batch(batch: RecordBatch) -> Self {
        Self(batch)
    }

    fn bytes(&self) -> u64 {
        let events = self.list(Column::Events).values().len();
        Self::estimate_bytes(self.len(), events, self.features())
    }
}

impl UserColumns {
    /// `features` is the number of tabular features.
    pub(crate) fn schema(features: usize) -> SchemaRef {
        let field = |name: &str, data_type: DataType| Field::new(name, data_type, false);
        Arc::new(Schema::new(vec![
            field("user_id", DataType::Utf8),
            field("as_of", DataType::Int32),
            field("labels", numbers(LABELS.len())),
            field("tabular", numbers(features)),
            field("idle_log_hours", DataType::Float32),
            field("events", DataType::List(element(DataType::Struct(event_fields())))),
            field("next_items", DataType::List(element(DataType::UInt32))),
        ]))
    }

    /// Encodes users as of one date.
    pub fn from_users(users: &LabelledUsers, features: usize, as_of: RunDate) -> Result<Self> {
        let inputs = &users.inputs;
        let events: Vec<&EventInput> = inputs.events.iter().flatten().collect();
        let reals: Vec<f32> = events.iter().flat_map(|e| e.reals).collect();
        let event_columns: Vec<ArrayRef> = vec![
            Arc::new(events.iter().map(|e| e.event_type as u8).collect::<UInt8Array>()),
            Arc::new(events.iter().map(|e| e.item as u32).collect::<UInt32Array>()),
            Arc::new(events.iter().map(|e| e.category as u16).collect::<UInt16Array>()),
            content_rows(events.iter().flat_map(|e| e.contents).collect())?,
            matrix(reals, EVENT_REALS)?,
        ];
        let event_structs = StructArray::try_new(event_fields(), event_columns, None)?;
        let next_items: UInt32Array = users.next_items.iter().flatten().copied().collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(&inputs.user_ids)),
            Arc::new(Int32Array::from(vec![as_of.0.num_days_from_ce(); inputs.len()])),
            matrix(users.labels.clone(), LABELS.len())?,
            matrix(inputs.tabular.clone(), features)?,
            Arc::new(Float32Array::from(inputs.idle_log_hours.clone())),
            lists(inputs.events.iter().map(Vec::len), Arc::new(event_structs))?,
            lists(users.next_items.iter().map(Vec::len), Arc::new(next_items))?,
        ];
        Ok(Self(RecordBatch::try_new(Self::schema(features), columns)?))
    }

    /// Estimates the memory of `users` rows with `events` events in all.
    pub(crate) fn estimate_bytes(users: usize, events: usize, features: usize) -> u64 {
        (users * (ROW_BYTES + features * 4) + events * EVENT_BYTES) as u64
    }

    /// Decodes the rows, for tests that change them.
    pub fn to_users(&self) -> LabelledUsers {
        let mut users = LabelledUsers { labels: self.labels().to_vec(), ..LabelledUsers::default() };
        users.inputs.user_ids = (0..self.len()).map(|row| self.id(row).to_string()).collect();
        users.inputs.tabular = self.tabular().to_vec();
        users.inputs.idle_log_hours = self.idle_log_hours().to_vec();
        users.inputs.events = self.histories();
        users.next_items = (0..self.len()).map(|row| self.next_items(row).to_vec()).collect();
        users
    }

    /// Row-major [users, targets].
    pub fn labels(&self) -> &[f32] {
        self.numbers(Column::Labels)
    }

    /// Row-major [users, features]; NaN where null.
    pub(crate) fn tabular(&self) -> &[f32] {
        self.numbers(Column::Tabular)
    }

    pub fn features(&self) -> usize {
        self.column(Column::Tabular).as_fixed_size_list().value_length() as usize
    }

    fn idle_log_hours(&self) -> &[f32] {
        self.column(Column::Idle).as_primitive::<Float32Type>().values()
    }

    pub(crate) fn event_count(&self, row: usize) -> usize {
        self.list(Column::Events).value_length(row) as usize
    }

    /// Item bucket of each event of a row, 0 for an event without an item.
    pub(crate) fn event_items(&self, row: usize) -> &[u32] {
        let lists = self.list(Column::Events);
        let offsets = lists.value_offsets();
        &EventArrays::new(lists).item.values()[offsets[row] as usize..offsets[row + 1] as usize]
    }

    /// Item bucket, number of the type and age in days before the user's last event of each event of a row that has an item.
    pub(crate) fn event_ages(&self, row: usize) -> Vec<(u32, u8, f64)> {
        let lists = self.list(Column::Events);
        let offsets = lists.value_offsets();
        let events = EventArrays::new(lists);
        let age_days = |at: usize| f64::from(events.reals[at * EVENT_REALS + AGE]).exp_m1() / 24.0;
        let places = offsets[row] as usize..offsets[row + 1] as usize;
        let with_item = places.filter(|&at| events.item.value(at) > 0);
        with_item.map(|at| (events.item.value(at), events.event_type.value(at), age_days(at))).collect()
    }

    /// Positions in the item index of the items of the horizon, most engaged first.
    pub(crate) fn next_items(&self, row: usize) -> &[u32] {
        let lists = self.list(Column::NextItems);
        let offsets = lists.value_offsets();
        &lists.values().as_primitive::<UInt32Type>().values()[offsets[row] as usize..offsets[row + 1] as usize]
    }

    /// Events of every row, decoded, oldest first; augmentation changes these.
    pub(crate) fn histories(&self) -> Vec<Vec<EventInput>> {
        let events = EventArrays::new(self.list(Column::Events));
        let offsets = self.list(Column::Events).value_offsets();
        offsets.windows(2).map(|w| (w[0] as usize..w[1] as usize).map(|at| events.event(at)).collect()).collect()
    }

    /// Events of all rows, padded at the end to the longest. `contents` resolves their content rows.
    pub(crate) fn events(&self, events_max: i64, contents: &Contents) -> Result<EventBatch> {
        let lists = self.list(Column::Events);
        let events = EventArrays::new(lists);
        let (from, to) = match lists.value_offsets() {
            [] => (0, 0),
            offsets => (offsets[0] as usize, offsets[offsets.len() - 1] as usize),
        };
        let ids = [
            Tensor::f_from_slice(&events.event_type.values()[from..to])?,
            Tensor::f_from_slice(&signed(&events.item.values()[from..to]))?,
            Tensor::f_from_slice(&widened(&events.category.values()[from..to]))?,
        ];
        let modalities = MODALITIES.len();
        let flat = EventColumns {
            ids,
            contents: Tensor::f_from_slice(&signed(&events.contents[from * modalities..to * modalities]))?,
            reals: Tensor::f_from_slice(&events.reals[from * EVENT_REALS..to * EVENT_REALS])?,
        };
        let lengths: Vec<i64> = (0..self.len()).map(|row| self.event_count(row) as i64).collect();
        EventBatch::from_columns(flat, &lengths, events_max, contents)
    }

    /// Standardised features and idle time, float32 [users, 2 × features + 2].
    pub(crate) fn scaled_features(&self, scaling: &Scaling) -> Result<Tensor> {
        scaling.head_inputs(self.tabular(), self.idle_log_hours())
    }

    /// float32 [users, targets].
    pub(crate) fn labels_tensor(&self) -> Result<Tensor> {
        Ok(Tensor::f_from_slice(self.labels())?.f_view([self.len() as i64, LABELS.len() as i64])?)
    }

    /// Draws one next item for each row that has any, by a random number of each row in 0..1. Returns the rows and their
    /// items, int64 both; `None` where no row has a next item.
    pub(crate) fn sample_next_items(&self, draws: &[f64]) -> Result<Option<(Tensor, Tensor)>> {
        let lists = self.list(Column::NextItems);
        let offsets = lists.value_offsets();
        let flat = lists.values().as_primitive::<UInt32Type>().values();
        if flat.is_empty() || offsets.first() == offsets.last() {
            return Ok(None);
        }
        let bounds: Vec<i64> = offsets.iter().map(|&o| o.into()).collect();
        let starts = Tensor::f_from_slice(&bounds[..self.len()])?;
        let ends = Tensor::f_from_slice(&bounds[1..])?;
        let counts = &ends - &starts;
        let rows = counts.f_nonzero()?.f_squeeze_dim(1)?;
        let drawn = (Tensor::f_from_slice(draws)? * &counts).floor().to_kind(Kind::Int64).minimum(&(&counts - 1));
        let places = (starts + drawn).f_index_select(0, &rows)?;
        let items = Tensor::f_from_slice(&signed(flat))?.f_index_select(0, &places)?.to_kind(Kind::Int64);
        Ok(Some((rows, items)))
    }

    fn column(&self, column: Column) -> &ArrayRef {
        self.0.column(column as usize)
    }

    fn list(&self, column: Column) -> &ListArray {
        self.column(column).as_list()
    }

    fn numbers(&self, column: Column) -> &[f32] {
        flat(self.column(column).as_fixed_size_list())
    }
}

/// The child columns of `events`.
struct EventArrays<'a> {
    event_type: &'a UInt8Array,
    item: &'a UInt32Array,
    category: &'a UInt16Array,
    contents: &'a [u32],
    reals: &'a [f32],
}

impl<'a> EventArrays<'a> {
    fn new(lists: &'a ListArray) -> Self {
        let events = lists.values().as_struct();
        Self {
            event_type: events.column(0).as_primitive::<UInt8Type>(),
            item: events.column(1).as_primitive::<UInt32Type>(),
            category: events.column(2).as_primitive::<UInt16Type>(),
            contents: events.column(3).as_fixed_size_list().values().as_primitive::<UInt32Type>().values(),
            reals: flat(events.column(4).as_fixed_size_list()),
        }
    }

    fn event(&self, at: usize) -> EventInput {
        let mut reals = [0.0; EVENT_REALS];
        let mut contents = ContentRows::default();
        contents.copy_from_slice(&self.contents[at * MODALITIES.len()..(at + 1) * MODALITIES.len()]);
        reals.copy_from_slice(&self.reals[at * EVENT_REALS..(at + 1) * EVENT_REALS]);
        EventInput {
            event_type: self.event_type.value(at).into(),
            item: self.item.value(at).into(),
            category: self.category.value(at).into(),
            contents,
            reals,
        }
    }
}

fn event_fields() -> Fields {
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, false);
    Fields::from(vec![
        field("event_type", DataType::UInt8),
        field("item", DataType::UInt32),
        field("category", DataType::UInt16),
        field("contents", DataType::FixedSizeList(element(DataType::UInt32), MODALITIES.len() as i32)),
        field("reals", numbers(EVENT_REALS)),
    ])
}

/// Makes the column of each event's content rows, one per modality.
fn content_rows(rows: Vec<u32>) -> Result<ArrayRef> {
    let values = Arc::new(UInt32Array::from(rows));
    Ok(Arc::new(FixedSizeListArray::try_new(element(DataType::UInt32), MODALITIES.len() as i32, values, None)?))
}

/// libtorch lacks unsigned kinds of these widths; buckets and positions fit the signed ones.
fn signed(values: &[u32]) -> Vec<i32> {
    values.iter().map(|&v| v as i32).collect()
}

fn widened(values: &[u16]) -> Vec<i32> {
    values.iter().map(|&v| v.into()).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::model::inputs::UserInputs;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use tch::Device;

    pub(crate) fn day() -> RunDate {
        "2026-02-01".parse().unwrap()
    }

    /// Contents with five images and two videos.
    pub(crate) fn contents() -> Contents {
        let mut contents = Contents::new([0, 2, 3]);
        for key in 1..=5 {
            assert!(contents.insert(1, key, &[key as f32, 1.0]));
            assert!(key > 2 || contents.insert(2, key, &[0.0, key as f32, -1.0]));
        }
        contents
    }

    /// Users u0, u1, … with one feature, random events up to `events_max` and random next items of ten.
    pub(crate) fn random(users: usize, events_max: usize, seed: u64) -> LabelledUsers {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let event = |rng: &mut ChaCha8Rng| EventInput {
            event_type: rng.random_range(0..=8),
            item: rng.random_range(0..=50),
            category: rng.random_range(0..=2048),
            contents: [0, rng.random_range(0..=5), rng.random_range(0..=2)],
            reals: std::array::from_fn(|_| rng.random_range(-2.0..2.0)),
        };
        let mut set = LabelledUsers::default();
        for user in 0..users {
            let length = rng.random_range(0..=events_max);
            set.inputs.user_ids.push(format!("u{user}"));
            set.inputs.events.push((0..length).map(|_| event(&mut rng)).collect());
            set.inputs.tabular.push(if rng.random_bool(0.2) { f32::NAN } else { rng.random_range(-3.0..3.0) });
            set.inputs.idle_log_hours.push(if length == 0 { f32::NAN } else { rng.random_range(0.0..5.0) });
            set.labels.extend((0..LABELS.len()).map(|_| f32::from(u8::from(rng.random_bool(0.3)))));
            let next_items = rng.random_range(0..4);
            set.next_items.push((0..next_items).map(|_| rng.random_range(0..10)).collect());
        }
        set
    }

    #[test]
    fn rows_survive_taking_joining_sorting_and_slicing() {
        let set = random(40, 9, 3);
        let columns = UserColumns::from_users(&set, 1, day()).unwrap();
        let same = |a: &LabelledUsers, b: &LabelledUsers| assert_eq!(format!("{a:?}"), format!("{b:?}"));
        same(&columns.to_users(), &set);
        let order: Vec<usize> = (0..40).rev().collect();
        let turned = columns.take(&order).unwrap();
        assert_eq!((turned.id(0), turned.event_count(0)), ("u39", set.inputs.events[39].len()));
        let halves = [turned.take(&order[..7]).unwrap(), turned.take(&order[7..]).unwrap()];
        let joined = UserColumns::concat(&UserColumns::schema(1), &halves).unwrap();
        same(&joined.sorted().unwrap().to_users(), &columns.sorted().unwrap().to_users());
        let sliced = UserColumns(columns.0.slice(5, 20));
        same(&sliced.to_users(), &columns.take(&(5..25).collect::<Vec<_>>()).unwrap().to_users());
    }

    #[test]
    fn padded_events_equal_those_of_the_scoring_path() {
        for (users, events_max) in [(30, 12), (3, 0), (1, 5)] {
            let set = random(users, events_max, 8);
            let sliced =
                UserColumns(UserColumns::from_users(&set, 1, day()).unwrap().0.slice(users / 3, users - users / 3));
            let slices: Vec<&[EventInput]> = set.inputs.events[users / 3..].iter().map(Vec::as_slice).collect();
            let wanted = EventBatch::from_sequences(&slices, 8, &contents(), Device::Cpu).unwrap();
            assert_eq!(
                format!("{:?}", sliced.events(8, &contents()).unwrap().values()),
                format!("{:?}", wanted.values())
            );
        }
    }

    #[test]
    fn one_next_item_of_each_user_is_drawn() {
        let mut set = random(4, 2, 1);
        set.next_items = vec![vec![], vec![7], vec![3, 4, 5], vec![]];
        let columns = UserColumns::from_users(&set, 1, day()).unwrap();
        let drawn = |draw: f64| {
            let (rows, items) = columns.sample_next_items(&[draw; 4]).unwrap().unwrap();
            (Vec::<i64>::try_from(&rows).unwrap(), Vec::<i64>::try_from(&items).unwrap())
        };
        assert_eq!(drawn(0.0), (vec![1, 2], vec![7, 3]));
        assert_eq!(drawn(0.5), (vec![1, 2], vec![7, 4]));
        assert_eq!(drawn(1.0), (vec![1, 2], vec![7, 5]), "a draw that rounds to 1 stays within the list");
        set.next_items = vec![vec![]; 4];
        assert!(UserColumns::from_users(&set, 1, day()).unwrap().sample_next_items(&[0.5; 4]).unwrap().is_none());
        let inputs = UserInputs::default();
        assert!(
            UserColumns::from_users(&LabelledUsers { inputs, ..LabelledUsers::default() }, 1, day())
                .unwrap()
                .is_empty()
        );
    }
}
