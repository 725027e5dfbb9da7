//! `content_key(text | bytes | vector | frames)`: a hash of a content, under which its vectors are stored.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use std::sync::Arc;

/// The function. Null for contents without information: null, blank texts, no bytes, vectors that are empty, all zeros or not
/// all finite, and frames of which one is such a vector or differs in length from the first.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct ContentKey {
    signature: Signature,
}

impl Default for ContentKey {
    fn default() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ContentKey {
    fn name(&self) -> &str {
        "content_key"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        Ok(ColumnarValue::Array(Arc::new(keys(&arrays[0])?)))
    }
}

/// Returns the key of one row.
pub(super) fn key_at(contents: &ArrayRef, row: usize) -> Result<Option<i64>> {
    let keys = keys(&contents.slice(row, 1))?;
    Ok(keys.iter().next().flatten())
}

fn keys(contents: &ArrayRef) -> Result<Int64Array> {
    Ok(match contents.data_type() {
        DataType::Null => Int64Array::new_null(contents.len()),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let texts = cast(contents, &DataType::LargeUtf8)?;
            texts.as_string::<i64>().iter().map(|text| text.and_then(text_key)).collect()
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            // With 64-bit offsets, because a batch of pictures can have more than 2 GB.
            let bytes = cast(contents, &DataType::LargeBinary)?;
            let key = |bytes: Option<&[u8]>| bytes.filter(|b| !b.is_empty()).map(hash);
            bytes.as_binary::<i64>().iter().map(key).collect()
        }
        DataType::List(of) | DataType::LargeList(of) | DataType::FixedSizeList(of, _) if of.data_type().is_list() => {
            let frames = DataType::new_list(DataType::new_list(DataType::Float32, true), true);
            let videos = cast(contents, &frames)?;
            videos.as_list::<i32>().iter().map(|video| video.and_then(|v| frames_key(&v))).collect()
        }
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(_, _) => {
            let vectors = cast(contents, &DataType::new_list(DataType::Float32, true))?;
            vectors.as_list::<i32>().iter().map(|vector| vector.and_then(|v| vector_key(&v))).collect()
        }
        other => return exec_err!("content_key: expected a text, bytes or (a list of) lists of numbers, got {other}"),
    })
}

/// Returns the key of a text; `None` if it is blank.
pub(crate) fn text_key(text: &str) -> Option<i64> {
    (!text.trim().is_empty()).then(|| hash(text.as_bytes()))
}

fn vector_key(vector: &ArrayRef) -> Option<i64> {
    let numbers = vector.as_primitive::<Float32Type>();
    let usable = numbers.null_count() == 0 && numbers.values().iter().all(|v| v.is_finite());
    if !usable || numbers.values().iter().all(|&v| v == 0.0) {
        return None;
    }
    Some(hash(&numbers.values().iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()))
}

fn frames_key(video: &ArrayRef) -> Option<i64> {
    let mut bytes = Vec::new();
    let mut dims = None;
    for frame in video.as_list::<i32>().iter() {
        let frame = frame.filter(|frame| *dims.get_or_insert(frame.len()) == frame.len())?;
        bytes.extend_from_slice(&vector_key(&frame)?.to_le_bytes());
    }
    (!bytes.is_empty()).then(|| hash(&bytes))
}

fn hash(bytes: &[u8]) -> i64 {
    let mut word = [0; 8];
    word.copy_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
    // Zero means no key.
    i64::from_le_bytes(word) | 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::SessionContext;

    #[tokio::test]
    async fn contents_with_information_have_a_key() {
        let ctx = SessionContext::new();
        ctx.register_udf(ContentKey::default().into());
        let sql = "SELECT content_key('mug') = content_key(arrow_cast('mug', 'Utf8View')) AS same_text, \
                   content_key('mug') <> content_key('Mug') AS other_text, \
                   content_key([1, 2]) = content_key(arrow_cast([1.0, 2.0], 'FixedSizeList(2, Float64)')) AS same_vector, \
                   content_key([1.0, 2.0]) <> content_key([2.0, 1.0]) AS other_vector, \
                   content_key(' ') IS NULL AND content_key(NULL) IS NULL AND content_key(X'') IS NULL \
                   AND content_key([0.0, 0.0]) IS NULL AND content_key([1.0, NULL]) IS NULL \
                   AND content_key([1.0, 'NaN'::DOUBLE]) IS NULL AS nothing, \
                   content_key([[1, 2], [3, 4]]) = content_key([[1.0, 2.0], [3.0, 4.0]]) AS same_frames, \
                   content_key([[1.0, 2.0], [3.0, 4.0]]) <> content_key([[3.0, 4.0], [1.0, 2.0]]) AS other_frames, \
                   content_key([[1.0, 2.0], [3.0]]) IS NULL AND content_key([[1.0], [0.0]]) IS NULL \
                   AND content_key([[1.0], NULL]) IS NULL \
                   AND content_key(arrow_cast([], 'List(List(Float32))')) IS NULL AS no_frames";
        let rows = ctx.sql(sql).await.unwrap().collect().await.unwrap();
        for column in rows[0].columns() {
            assert!(column.as_boolean().value(0), "{rows:?}");
        }
        assert!(ctx.sql("SELECT content_key(1)").await.unwrap().collect().await.is_err());
    }
}
