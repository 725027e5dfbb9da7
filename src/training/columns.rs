//! Rows with ids as Arrow columns: what blocks hold, whatever the rows are of, and how numbers become columns.

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, ListArray, RecordBatch, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Field, Float32Type, SchemaRef};
use std::sync::Arc;

use super::sets::{Split, split};
use crate::failure::{Failure, Result};

/// Rows of one kind, one an id and a date: the first column is the id, the second the date.
pub trait Rows: Clone + Send + Sync + Sized + 'static {
    /// What the rows are of, for messages: `users`.
    const OF: &'static str;

    fn batch(&self) -> &RecordBatch;

    /// Takes over columns that are known to be right.
    fn of_batch(batch: RecordBatch) -> Self;

    /// What these rows take in memory.
    fn bytes(&self) -> u64;

    /// Rows of scratch files; refused where they have another schema.
    fn from_batch(batch: RecordBatch, schema: &SchemaRef) -> Result<Self> {
        match batch.schema() == *schema {
            true => Ok(Self::of_batch(batch)),
            false => Err(Failure::bug("training: a block has other columns than were written to it")),
        }
    }

    /// The rows of several parts, one part after the other.
    fn concat(schema: &SchemaRef, parts: &[Self]) -> Result<Self> {
        Ok(Self::of_batch(concat_batches(schema, parts.iter().map(Self::batch))?))
    }

    fn len(&self) -> usize {
        self.batch().num_rows()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn id(&self, row: usize) -> &str {
        self.batch().column(0).as_string::<i32>().value(row)
    }

    /// Rows by index, in the order of the indices.
    fn take(&self, rows: &[usize]) -> Result<Self> {
        let rows: UInt32Array = rows.iter().map(|&row| row as u32).collect();
        Ok(Self::of_batch(take_record_batch(self.batch(), &rows)?))
    }

    /// The rows so many at a time, without copying them.
    fn chunks(&self, rows: usize) -> impl Iterator<Item = Self> {
        let starts = (0..self.len()).step_by(rows.max(1));
        starts.map(move |from| Self::of_batch(self.batch().slice(from, rows.min(self.len() - from))))
    }

    /// The rows in the order of ids and dates, whatever order they came in.
    fn sorted(&self) -> Result<Self> {
        let by = |at: usize| SortColumn { values: Arc::clone(self.batch().column(at)), options: None };
        let order = lexsort_to_indices(&[by(0), by(1)], None)?;
        Ok(Self::of_batch(take_record_batch(self.batch(), &order)?))
    }

    /// Rows that lie in a split.
    fn rows_of(&self, wanted: Split) -> Vec<usize> {
        (0..self.len()).filter(|&row| split(self.id(row)) == wanted).collect()
    }
}

/// A column of lists holds this.
pub fn element(of: DataType) -> Arc<Field> {
    Arc::new(Field::new_list_field(of, false))
}

/// So many float32 a row.
pub fn numbers(width: usize) -> DataType {
    DataType::FixedSizeList(element(DataType::Float32), width as i32)
}

/// float32 [rows, width] as a column of rows.
pub fn matrix(values: Vec<f32>, width: usize) -> Result<ArrayRef> {
    let values = Arc::new(Float32Array::from(values));
    Ok(Arc::new(FixedSizeListArray::try_new(element(DataType::Float32), width as i32, values, None)?))
}

/// Lists of these lengths.
pub fn lists(lengths: impl Iterator<Item = usize>, values: ArrayRef) -> Result<ArrayRef> {
    let field = element(values.data_type().clone());
    Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), values, None)?))
}

/// The numbers of all rows; a slice's own alone.
pub fn flat(rows: &FixedSizeListArray) -> &[f32] {
    rows.values().as_primitive::<Float32Type>().values()
}
