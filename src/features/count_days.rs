//! `count_days(day)`: the number of distinct days of a group, like `count(DISTINCT day)`.
//!
//! One bit a day, in words of 64 days: a user's lifetime takes a few bytes. The engine's `count(DISTINCT …)` keeps a hash table
//! for every group, and grouping by day first keeps a row for every user and day.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, ListBuilder, UInt64Builder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Field, FieldRef, UInt64Type};
use datafusion::common::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use std::sync::Arc;

use super::one_group::OneGroup;

/// The function itself, ready to register.
pub(crate) fn count_days() -> AggregateUDF {
    AggregateUDF::from(CountDays { signature: Signature::exact(vec![DataType::Date32], Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CountDays {
    signature: Signature,
}

impl AggregateUDFImpl for CountDays {
    fn name(&self) -> &str {
        "count_days"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let words = DataType::new_list(DataType::UInt64, true);
        Ok(vec![Arc::new(Field::new(format!("{}[days]", args.name), words, true))])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(OneGroup::new(DaysOfGroups::default(), &args)))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(DaysOfGroups::default()))
    }
}

/// The days of one group: a bit for each, from the first word's first day on.
#[derive(Debug, Clone, Default)]
struct Days {
    first_word: i32,
    words: Vec<u64>,
}

impl Days {
    fn add_word(&mut self, word: i32, bits: u64) {
        if self.words.is_empty() {
            self.first_word = word;
        }
        if word < self.first_word {
            let missing = (self.first_word - word) as usize;
            self.words.splice(0..0, std::iter::repeat_n(0, missing));
            self.first_word = word;
        }
        let index = (word - self.first_word) as usize;
        if index >= self.words.len() {
            self.words.resize(index + 1, 0);
        }
        self.words[index] |= bits;
    }

    fn add_day(&mut self, day: i32) {
        self.add_word(day.div_euclid(64), 1 << day.rem_euclid(64));
    }

    fn count(&self) -> i64 {
        self.words.iter().map(|word| i64::from(word.count_ones())).sum()
    }
}

#[derive(Debug, Default)]
struct DaysOfGroups {
    groups: Vec<Days>,
    words: usize,
}

impl DaysOfGroups {
    fn change(&mut self, group: usize, change: impl FnOnce(&mut Days)) {
        let days = &mut self.groups[group];
        let before = days.words.capacity();
        change(days);
        self.words += days.words.capacity() - before;
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<Days> {
        let taken = emit_to.take_needed(&mut self.groups);
        self.words -= taken.iter().map(|days| days.words.capacity()).sum::<usize>();
        taken
    }
}

impl GroupsAccumulator for DaysOfGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        self.groups.resize(total_groups, Days::default());
        let days = cast(&values[0], &DataType::Date32)?;
        let days = days.as_primitive::<Date32Type>();
        for (row, &group) in groups.iter().enumerate() {
            let counts = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if counts && days.is_valid(row) {
                self.change(group, |known| known.add_day(days.value(row)));
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total_groups: usize) -> Result<()> {
        self.groups.resize(total_groups, Days::default());
        let lists = values[0].as_list::<i32>();
        for (row, &group) in groups.iter().enumerate() {
            if lists.is_null(row) {
                continue;
            }
            let list = lists.value(row);
            // The first value is the number of the first word.
            if let [first, words @ ..] = list.as_primitive::<UInt64Type>().values().as_ref() {
                let first = *first as i64 as i32;
                self.change(group, |known| {
                    for (word, bits) in (first..).zip(words) {
                        known.add_word(word, *bits);
                    }
                });
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let counts = self.take(emit_to).into_iter().map(|days| days.count());
        Ok(Arc::new(Int64Array::from_iter_values(counts)))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let groups = self.take(emit_to);
        let mut lists = ListBuilder::with_capacity(UInt64Builder::new(), groups.len());
        for days in groups {
            if !days.words.is_empty() {
                lists.values().append_value(i64::from(days.first_word) as u64);
                lists.values().append_slice(&days.words);
            }
            lists.append(true);
        }
        let lists: ListArray = lists.finish();
        Ok(vec![Arc::new(lists)])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values[0].len();
        let groups: Vec<usize> = (0..rows).collect();
        let mut each = Self::default();
        each.update_batch(values, &groups, filter, rows)?;
        GroupsAccumulator::state(&mut each, EmitTo::All)
    }

    fn size(&self) -> usize {
        self.groups.capacity() * size_of::<Days>() + self.words * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::prelude::{SessionConfig, SessionContext};

    #[tokio::test]
    async fn days_are_counted_like_distinct_ones() {
        for partitions in [1, 4] {
            let settings = SessionConfig::new().with_target_partitions(partitions).with_batch_size(16);
            let ctx = SessionContext::new_with_config(settings);
            ctx.register_udaf(count_days());
            let rows = "SELECT v % 5 AS u, CAST(CAST((v * v) % 700 - 300 AS INT) AS DATE) AS day, v \
                        FROM generate_series(1, 900) AS t(v) UNION ALL \
                        SELECT 9 AS u, CAST(NULL AS DATE) AS day, 1 AS v";
            ctx.register_table("t", ctx.sql(rows).await.unwrap().into_view()).unwrap();
            for tail in ["GROUP BY u ORDER BY u", ""] {
                let mut found = Vec::new();
                for count in ["count_days(", "count(DISTINCT "] {
                    let group = if tail.is_empty() { "0 AS u" } else { "u" };
                    let sql = format!(
                        "SELECT {group}, {count}day) AS a, {count}day) FILTER (WHERE v % 3 = 0) AS b, \
                         {count}day) FILTER (WHERE v < 0) AS c FROM t {tail}"
                    );
                    let batches = ctx.sql(&sql).await.unwrap().collect().await.unwrap();
                    found.push(pretty_format_batches(&batches).unwrap().to_string());
                }
                assert_eq!(found[0], found[1], "{partitions} partitions");
            }
        }
    }
}
