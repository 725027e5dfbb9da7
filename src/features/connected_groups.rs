//! `connected_groups(user_id, canonical_user_id, ids_max)`: an aggregate that resolves guest-to-login pairs to persons.
//!
//! Pairs form chains (a guest becomes a login that later becomes another) and cycles. Ids that are connected belong to one person,
//! whose id is the smallest login among them: an id that no pair resolves further, or in a cycle the smallest id. A group of more
//! than `ids_max` ids is a shared device or a test account and is left apart, so that strangers are never merged.
//! Returns a list of `user_id`, `canonical_user_id` for every id but the person's own, without groups that are too large.

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StringBuilder, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// The function itself, ready to register.
pub(crate) fn connected_groups() -> AggregateUDF {
    AggregateUDF::from(ConnectedGroups { signature: Signature::any(3, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ConnectedGroups {
    signature: Signature,
}

impl AggregateUDFImpl for ConnectedGroups {
    fn name(&self) -> &str {
        "connected_groups"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(list_of_pairs())
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![
            Arc::new(Field::new(format!("{}[pairs]", args.name), list_of_pairs(), true)),
            Arc::new(Field::new(format!("{}[ids_max]", args.name), DataType::Int64, true)),
        ])
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Pairs::default()))
    }
}

fn pair_fields() -> Fields {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    vec![text("user_id"), text("canonical_user_id")].into()
}

fn list_of_pairs() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Struct(pair_fields()), true)))
}

/// The pairs seen so far, each once.
#[derive(Debug, Default)]
struct Pairs {
    pairs: HashSet<(Arc<str>, Arc<str>)>,
    bytes: usize,
    ids_max: Option<i64>,
}

impl Pairs {
    fn add(&mut self, guests: &ArrayRef, logins: &ArrayRef) -> Result<()> {
        let (guests, logins) = (cast(guests, &DataType::Utf8)?, cast(logins, &DataType::Utf8)?);
        for (guest, login) in guests.as_string::<i32>().iter().zip(logins.as_string::<i32>()) {
            let (Some(guest), Some(login)) = (guest, login) else { continue };
            if guest != login && self.pairs.insert((guest.into(), login.into())) {
                self.bytes += guest.len() + login.len() + 96;
            }
        }
        Ok(())
    }

    fn limit(&mut self, limits: &ArrayRef) -> Result<()> {
        let limits = cast(limits, &DataType::Int64)?;
        let limits = limits.as_primitive::<Int64Type>();
        self.ids_max = limits.iter().flatten().next().or(self.ids_max);
        Ok(())
    }
}

impl Accumulator for Pairs {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(&values[0], &values[1])?;
        self.limit(&values[2])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for list in states[0].as_list::<i32>().iter().flatten() {
            let Some(pairs) = list.as_struct_opt() else { return exec_err!("connected_groups: expected pairs") };
            self.add(pairs.column(0), pairs.column(1))?;
        }
        self.limit(&states[1])
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let pairs = list(self.pairs.iter().map(|(guest, login)| (guest.as_ref(), login.as_ref())));
        Ok(vec![ScalarValue::List(Arc::new(pairs)), ScalarValue::Int64(self.ids_max)])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let pairs = self.pairs.iter().map(|(guest, login)| (guest.as_ref(), login.as_ref()));
        let persons = resolve(pairs, self.ids_max.unwrap_or(i64::MAX));
        Ok(ScalarValue::List(Arc::new(list(persons.into_iter()))))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.bytes
    }
}

/// Returns every id of a pair but the persons' own, in order, with the person's id; leaves out groups of more than `ids_max` ids.
fn resolve<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>, ids_max: i64) -> Vec<(&'a str, &'a str)> {
    let mut index: HashMap<&str, usize> = HashMap::new();
    let mut groups = Groups::default();
    let mut guests: HashSet<usize> = HashSet::new();
    for (guest, login) in pairs {
        let [guest, login] = [guest, login].map(|id| *index.entry(id).or_insert_with(|| groups.add()));
        guests.insert(guest);
        groups.join(guest, login);
    }
    let mut members: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for (&id, &at) in &index {
        members.entry(groups.root(at)).or_default().push(id);
    }
    let mut persons = Vec::new();
    for ids in members.values().filter(|ids| ids.len() as i64 <= ids_max) {
        let login = ids.iter().filter(|id| !guests.contains(&index[**id])).min();
        let Some(&person) = login.or(ids.iter().min()) else { continue };
        persons.extend(ids.iter().filter(|id| **id != person).map(|id| (*id, person)));
    }
    persons.sort_unstable();
    persons
}

/// Disjoint sets of ids by number.
#[derive(Default)]
struct Groups {
    parents: Vec<usize>,
}

impl Groups {
    fn add(&mut self) -> usize {
        self.parents.push(self.parents.len());
        self.parents.len() - 1
    }

    fn root(&mut self, mut at: usize) -> usize {
        while self.parents[at] != at {
            self.parents[at] = self.parents[self.parents[at]];
            at = self.parents[at];
        }
        at
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.root(one), self.root(other));
        // The smaller number wins, so that paths stay short enough with the halving above.
        let (low, high) = (one.min(other), one.max(other));
        self.parents[high] = low;
    }
}

fn list<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> ListArray {
    let (mut guests, mut logins) = (StringBuilder::new(), StringBuilder::new());
    for (guest, login) in pairs {
        guests.append_value(guest);
        logins.append_value(login);
    }
    let columns: Vec<ArrayRef> = vec![Arc::new(guests.finish()), Arc::new(logins.finish())];
    let rows = StructArray::new(pair_fields(), columns, None);
    let offsets = OffsetBuffer::from_lengths([rows.len()]);
    let element = Arc::new(Field::new_list_field(DataType::Struct(pair_fields()), true));
    ListArray::new(element, offsets, Arc::new(rows), None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn resolved(pairs: &[(&'static str, &'static str)], ids_max: i64) -> Vec<(&'static str, &'static str)> {
        resolve(pairs.iter().copied(), ids_max)
    }

    #[test]
    fn chains_cycles_and_two_logins_are_one_person() {
        assert_eq!(resolved(&[("a", "b"), ("b", "c")], 100), [("a", "c"), ("b", "c")]);
        assert_eq!(resolved(&[("b", "a"), ("a", "b")], 100), [("b", "a")]);
        assert_eq!(resolved(&[("g", "y"), ("g", "x")], 100), [("g", "x"), ("y", "x")]);
        assert_eq!(resolved(&[("g", "x"), ("h", "z")], 100), [("g", "x"), ("h", "z")]);
    }

    #[test]
    fn a_group_that_is_too_large_is_left_apart() {
        let shared = [("a", "x"), ("b", "x"), ("c", "x")];
        assert_eq!(resolved(&shared, 4).len(), 3);
        assert_eq!(resolved(&shared, 3), []);
    }

    proptest! {
        #[test]
        fn connected_ids_have_one_person(edges in prop::collection::vec((0u8..20, 0u8..20), 0..40)) {
            let names: Vec<String> = (0..20).map(|n| format!("u{n:02}")).collect();
            let edges: Vec<(&str, &str)> = edges.iter().filter(|(a, b)| a != b)
                .map(|&(a, b)| (names[a as usize].as_str(), names[b as usize].as_str())).collect();
            let found: HashMap<&str, &str> =
                resolve(edges.iter().copied(), 100).into_iter().collect();
            let person = |id| found.get(id).copied().unwrap_or(id);
            for (guest, login) in &edges {
                prop_assert_eq!(person(*guest), person(*login));
            }
            // A person's own id is not resolved further.
            for id in found.values() {
                prop_assert!(!found.contains_key(id));
            }
        }
    }
}
