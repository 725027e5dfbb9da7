//! A column of a table as texts. Bytes that are no UTF-8 do not end a query: each broken stretch reads as U+FFFD.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use crate::failure::{Failure, Result};

/// Whether a type is read as text. Null is the type of a literal NULL.
pub fn is_text(of: &DataType) -> bool {
    match of {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => true,
        DataType::Dictionary(_, values) => is_text(values),
        other => *other == DataType::Null,
    }
}

/// The texts of a column, by row; nulls stay null. `name` is what a refusal calls the column.
pub fn texts(name: &str, array: &ArrayRef) -> Result<Vec<Option<String>>> {
    if !is_text(array.data_type()) {
        return Err(Failure::usage(format!("{name}: expected text, got {}", array.data_type()))
            .hint("CAST(… AS VARCHAR) makes text of it"));
    }
    let values = match array.data_type() {
        DataType::Dictionary(_, values) => cast(array, values)?,
        _ => ArrayRef::clone(array),
    };
    // With 64-bit offsets, as a column of gigantic texts may hold more than 2 GB.
    Ok(match values.data_type() {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            let bytes = cast(&values, &DataType::LargeBinary)?;
            let read = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            bytes.as_binary::<i64>().iter().map(|bytes| bytes.map(read)).collect()
        }
        _ => {
            let texts = cast(&values, &DataType::LargeUtf8)?;
            texts.as_string::<i64>().iter().map(|text| text.map(String::from)).collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BinaryArray, DictionaryArray, Int64Array, NullArray, StringViewArray};
    use arrow::datatypes::Int32Type;
    use std::sync::Arc;

    #[test]
    fn texts_come_from_every_type_of_text_and_from_bytes() {
        let of = |array: ArrayRef| texts("review", &array).unwrap();
        let some = |text: &str| Some(text.to_string());
        assert_eq!(of(Arc::new(StringViewArray::from(vec![Some("a"), None, Some("")]))), [some("a"), None, some("")]);
        let bytes: [Option<&[u8]>; 3] = [Some(b"caf\xc3\xa9"), None, Some(b"a\xff\xfe\0b")];
        assert_eq!(of(Arc::new(BinaryArray::from(bytes.to_vec()))), [some("café"), None, some("a\u{fffd}\u{fffd}\0b")]);
        let dictionary: DictionaryArray<Int32Type> = vec![Some("x"), None, Some("x")].into_iter().collect();
        assert_eq!(of(Arc::new(dictionary)), [some("x"), None, some("x")]);
        assert_eq!(of(Arc::new(NullArray::new(2))), [None, None]);
        let refused = texts("review", &(Arc::new(Int64Array::from(vec![1])) as ArrayRef)).unwrap_err();
        assert_eq!(refused.message, "review: expected text, got Int64");
    }
}
