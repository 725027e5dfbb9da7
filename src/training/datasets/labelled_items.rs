//! Items as of one date, decoded from Arrow rows: demand histories and the days that followed.

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};

use crate::failure::Result;
use crate::model::demand::ItemHistory;
use crate::score::service::as_struct;

/// Selects items with their histories and the days that followed.
pub(crate) const ITEMS_SQL: &str = "SELECT h.history, l.future_units, l.future_in_stock \
     FROM item_history h JOIN demand_labels l ON h.item_id = l.item_id";

/// Some items as of one date, with the days that followed.
#[derive(Debug, Clone, Default)]
pub struct LabelledItems {
    pub items: Vec<ItemHistory>,
    /// Units sold on each day of the horizon.
    pub units: Vec<Vec<f64>>,
    /// Stock on each day of the horizon.
    pub in_stock: Vec<Vec<bool>>,
}

impl LabelledItems {
    /// Decodes the rows of [`ITEMS_SQL`].
    pub(crate) fn from_rows(rows: &RecordBatch) -> Result<Self> {
        let mut items = Self { items: ItemHistory::from_struct(as_struct(rows.column(0))?)?, ..Self::default() };
        let units = rows.column(1).as_list::<i32>();
        let in_stock = rows.column(2).as_list::<i32>();
        for row in 0..rows.num_rows() {
            let days = cast(&units.value(row), &DataType::Float64)?;
            items.units.push(days.as_primitive::<Float64Type>().values().to_vec());
            let stocked = cast(&in_stock.value(row), &DataType::Float64)?;
            items.in_stock.push(stocked.as_primitive::<Float64Type>().values().iter().map(|&s| s > 0.0).collect());
        }
        Ok(items)
    }
}
