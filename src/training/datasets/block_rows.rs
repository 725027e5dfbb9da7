//! Rows with ids as Arrow columns, whatever they are rows of, and the Arrow types of their columns.

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, ListArray, RecordBatch, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Field, Float32Type, SchemaRef};
use std::sync::Arc;

use super::split::{Split, split};
use crate::failure::{Failure, Result};

/// Rows of one kind, one per id and date: the first column is the id, the second the date.
pub trait BlockRows: Clone + Send + Sync + Sized + 'static {
    /// Kind of the rows, for messages: `users`.
    const KIND: &'static str;

    fn batch(&self) -> &RecordBatch;

    /// Wraps columns without checking them.
    fn from_trusted_batch(batch: RecordBatch) -> Self;

    /// Memory that these rows take.
    fn bytes(&self) -> u64;

    /// Wraps columns from a scratch file; refuses another schema.
    fn try_from_batch(batch: RecordBatch, schema: &SchemaRef) -> Result<Self> {
        match batch.schema() == *schema {
            true => Ok(Self::from_trusted_batch(batch)),
            false => Err(Failure::bug("training: a block has other columns than were written to it")),
        }
    }

    /// The rows of several parts, one part after the other.
    fn concat(schema: &SchemaRef, parts: &[Self]) -> Result<Self> {
        Ok(Self::from_trusted_batch(concat_batches(schema, parts.iter().map(Self::batch))?))
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
        let indices: UInt32Array = rows.iter().map(|&row| row as u32).collect();
        Ok(Self::from_trusted_batch(take_record_batch(self.batch(), &indices)?))
    }

    /// Slices of `rows` rows each, without copying them.
    fn chunks(&self, rows: usize) -> impl Iterator<Item = Self> {
        let starts = (0..self.len()).step_by(rows.max(1));
        starts.map(move |from| Self::from_trusted_batch(self.batch().slice(from, rows.min(self.len() - from))))
    }

    /// The rows ordered by id and date.
    fn sorted(&self) -> Result<Self> {
        let column = |at: usize| SortColumn { values: Arc::clone(self.batch().column(at)), options: None };
        let order = lexsort_to_indices(&[column(0), column(1)], None)?;
        Ok(Self::from_trusted_batch(take_record_batch(self.batch(), &order)?))
    }

    /// Indices of the rows in a split.
    fn rows_in(&self, wanted: Split) -> Vec<usize> {
        (0..self.len()).filter(|&row| split(self.id(row)) == wanted).collect()
    }
}

/// The field of a list's elements.
pub(crate) fn element(data_type: DataType) -> Arc<Field> {
    Arc::new(Field::new_list_field(data_type, false))
}

/// The type of a column with `width` float32 in each row.
pub(crate) fn numbers(width: usize) -> DataType {
    DataType::FixedSizeList(element(DataType::Float32), width as i32)
}

/// Makes a column from row-major float32 [rows, width].
pub(crate) fn matrix(values: Vec<f32>, width: usize) -> Result<ArrayRef> {
    let array = Arc::new(Float32Array::from(values));
    Ok(Arc::new(FixedSizeListArray::try_new(element(DataType::Float32), width as i32, array, None)?))
}

/// Makes a column of lists of these lengths.
pub(crate) fn lists(lengths: impl Iterator<Item = usize>, values: ArrayRef) -> Result<ArrayRef> {
    let field = element(values.data_type().clone());
    Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), values, None)?))
}

/// The numbers of all rows, row-major; of a slice only its own.
pub(crate) fn flat(rows: &FixedSizeListArray) -> &[f32] {
    rows.values().as_primitive::<Float32Type>().values()
}
