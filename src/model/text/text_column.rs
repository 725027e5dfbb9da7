//! Reads a column of a table as texts. Invalid UTF-8 does not fail a query: each invalid sequence becomes U+FFFD.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use crate::failure::{Failure, Result};

/// True for types that are read as text, including Null, the type of a literal NULL.
pub(crate) fn is_text_type(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => true,
        DataType::Dictionary(_, values) => is_text_type(values),
        other => *other == DataType::Null,
    }
}

/// Returns the text of each row; nulls stay null. `name` names the column in messages.
pub(crate) fn read_texts(name: &str, array: &ArrayRef) -> Result<Vec<Option<String>>> {
    if !is_text_type(array.data_type()) {
        return Err(Failure::usage(format!("{name}: expected text, got {}", array.data_type()))
            .hint("convert it with CAST(… AS VARCHAR)"));
    }
    let values = match array.data_type() {
        DataType::Dictionary(_, values) => cast(array, values)?,
        _ => ArrayRef::clone(array),
    };
    // 64-bit offsets, because a column may hold more than 2 GB of text.
    Ok(match values.data_type() {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            let bytes = cast(&values, &DataType::LargeBinary)?;
            let decode = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            bytes.as_binary::<i64>().iter().map(|value| value.map(decode)).collect()
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
    fn all_types_of_text_and_bytes_are_read() {
        let read = |array: ArrayRef| read_texts("review", &array).unwrap();
        let some = |text: &str| Some(text.to_string());
        assert_eq!(read(Arc::new(StringViewArray::from(vec![Some("a"), None, Some("")]))), [some("a"), None, some("")]);
        let bytes: [Option<&[u8]>; 3] = [Some(b"caf\xc3\xa9"), None, Some(b"a\xff\xfe\0b")];
        assert_eq!(
            read(Arc::new(BinaryArray::from(bytes.to_vec()))),
            [some("café"), None, some("a\u{fffd}\u{fffd}\0b")]
        );
        let dictionary: DictionaryArray<Int32Type> = vec![Some("x"), None, Some("x")].into_iter().collect();
        assert_eq!(read(Arc::new(dictionary)), [some("x"), None, some("x")]);
        assert_eq!(read(Arc::new(NullArray::new(2))), [None, None]);
        let refused = read_texts("review", &(Arc::new(Int64Array::from(vec![1])) as ArrayRef)).unwrap_err();
        assert_eq!(refused.message, "review: expected text, got Int64");
    }
}
