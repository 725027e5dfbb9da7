//! Users as of one date, decoded from Arrow rows: inputs of the intent network, labels and next items.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use std::collections::HashMap;

use super::split::Split;
use super::user_as_of_dates::{LabelUse, UserAsOfDate};
use crate::failure::Result;
use crate::features::contract::FeatureContract;
use crate::model::contents::Contents;
use crate::model::inputs::UserInputs;
use crate::model::targets::{CHURN, LABELS, TARGETS, Target};
use crate::score::service::as_struct;

/// Selects features, the labels in the order of [`TARGETS`] and next items of users.
pub(crate) fn users_sql() -> String {
    format!(
        "SELECT m.features, {}, n.next_items \
         FROM model_input m LEFT JOIN intent_labels l ON m.user_id = l.user_id \
         LEFT JOIN next_items n ON m.user_id = n.user_id \
         WHERE m.events_lifetime > 0",
        TARGETS.iter().map(Target::label_sql).collect::<Vec<_>>().join(", ")
    )
}

/// Index of each item in the item index, by item id.
pub(crate) type ItemPositions = HashMap<String, u32>;

/// The catalogue that resolves item ids and contents.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ItemCatalogue<'a> {
    pub(crate) positions: &'a ItemPositions,
    pub(crate) contents: &'a Contents,
}

/// Some users as of one date.
#[derive(Debug, Clone, Default)]
pub struct LabelledUsers {
    pub inputs: UserInputs,
    /// Row-major [users, targets]; NaN where a label is unknown or masked.
    pub labels: Vec<f32>,
    /// Positions in the item index of the items of the horizon, most engaged first; empty for most users.
    pub(crate) next_items: Vec<Vec<u32>>,
}

impl LabelledUsers {
    /// Decodes the rows of [`users_sql`].
    pub(crate) fn from_rows(
        rows: &RecordBatch,
        contract: &FeatureContract,
        item_buckets: u64,
        catalogue: ItemCatalogue<'_>,
    ) -> Result<Self> {
        let inputs = UserInputs::from_struct(as_struct(rows.column(0))?, contract, item_buckets, catalogue.contents)?;
        let mut users = Self { inputs, ..Self::default() };
        let columns: Vec<_> =
            (1..=LABELS.len()).map(|c| cast(rows.column(c), &DataType::Float64)).collect::<Result<_, _>>()?;
        let lists = rows.column(LABELS.len() + 1).as_list::<i32>();
        for row in 0..rows.num_rows() {
            for column in &columns {
                let values = column.as_primitive::<Float64Type>();
                users.labels.push(if values.is_valid(row) { values.value(row) as f32 } else { 0.0 });
            }
            users.next_items.push(match lists.is_valid(row) {
                true => {
                    let list = cast(&lists.value(row), &DataType::Utf8)?;
                    let ids = list.as_string::<i32>().iter().flatten();
                    ids.filter_map(|id| catalogue.positions.get(id).copied()).collect()
                }
                false => Vec::new(),
            });
        }
        Ok(users)
    }

    /// Masks the labels that the date does not use for the splits of the users.
    pub(crate) fn mask_labels(&mut self, date: &UserAsOfDate, splits: &[Split]) {
        self.keep_labels(date, splits, LabelUse::is_used_for);
    }

    /// Masks all labels but those that only the date holds out.
    pub(crate) fn keep_newest_labels(&mut self, date: &UserAsOfDate, splits: &[Split]) {
        self.keep_labels(date, splits, LabelUse::is_newest_for);
    }

    fn keep_labels(&mut self, date: &UserAsOfDate, splits: &[Split], keep: impl Fn(LabelUse, Split) -> bool) {
        for (&split, labels) in splits.iter().zip(self.labels.chunks_mut(LABELS.len())) {
            for (at, label) in labels.iter_mut().enumerate() {
                let label_use = if at == CHURN as usize { date.churn } else { date.intents };
                if !keep(label_use, split) {
                    *label = f32::NAN;
                }
            }
        }
    }
}
