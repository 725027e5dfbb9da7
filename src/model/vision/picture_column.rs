//! Reads a column of a table as encoded pictures.

use arrow::array::{ArrayRef, AsArray, LargeBinaryArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use crate::failure::Result;

/// True for types that hold the bytes of pictures, including Null, the type of a literal NULL.
pub(crate) fn is_picture_type(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::Null)
}

/// Returns the bytes of each row; nulls stay null. With 64-bit offsets, because a batch of pictures may hold more than 2 GB.
pub(crate) fn read_pictures(array: &ArrayRef) -> Result<LargeBinaryArray> {
    Ok(cast(array, &DataType::LargeBinary)?.as_binary::<i64>().clone())
}
