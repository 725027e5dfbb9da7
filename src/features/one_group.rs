//! An aggregate without GROUP BY, by the accumulator that serves GROUP BY: all rows are one group.

use arrow::array::{ArrayRef, new_empty_array};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

/// The only group of an accumulator.
pub(super) struct OneGroup<G> {
    groups: G,
    /// An empty column for each argument. The group exists although it may have no row.
    no_rows: Vec<ArrayRef>,
}

impl<G> OneGroup<G> {
    pub(super) fn new(groups: G, args: &AccumulatorArgs) -> Self {
        Self { groups, no_rows: args.expr_fields.iter().map(|field| new_empty_array(field.data_type())).collect() }
    }
}

impl<G> std::fmt::Debug for OneGroup<G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OneGroup")
    }
}

impl<G: GroupsAccumulator + Sync> Accumulator for OneGroup<G> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.groups.update_batch(values, &vec![0; values[0].len()], None, 1)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.groups.merge_batch(states, &vec![0; states[0].len()], 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.groups.update_batch(&self.no_rows, &[], None, 1)?;
        ScalarValue::try_from_array(&self.groups.evaluate(EmitTo::All)?, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.groups.update_batch(&self.no_rows, &[], None, 1)?;
        self.groups.state(EmitTo::All)?.iter().map(|state| ScalarValue::try_from_array(state, 0)).collect()
    }

    fn size(&self) -> usize {
        self.groups.size()
    }
}
