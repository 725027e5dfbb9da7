//! `value_of_key(entries, key)`: the value of the first entry with a key in a list of structs `key`, `value`, as analytics exports
//! have for parameters.

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Fields};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

/// The function. Null where no entry has the key.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct ValueOfKey {
    signature: Signature,
}

impl Default for ValueOfKey {
    fn default() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ValueOfKey {
    fn name(&self) -> &str {
        "value_of_key"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let fields = arguments.first().and_then(entry_fields);
        let value = fields.filter(|fields| fields.find("key").is_some()).and_then(|fields| fields.find("value"));
        match value {
            Some((_, value)) => Ok(value.data_type().clone()),
            None => plan_err!("value_of_key: expected a list of structs with key and value, got {arguments:?}"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        Ok(ColumnarValue::Array(values(&arrays[0], &arrays[1])?))
    }
}

fn entry_fields(data_type: &DataType) -> Option<&Fields> {
    match data_type {
        DataType::List(entry) | DataType::LargeList(entry) | DataType::FixedSizeList(entry, _) => {
            match entry.data_type() {
                DataType::Struct(fields) => Some(fields),
                _ => None,
            }
        }
        _ => None,
    }
}

fn values(entries: &ArrayRef, wanted: &ArrayRef) -> Result<ArrayRef> {
    let Some(fields) = entry_fields(entries.data_type()) else {
        return exec_err!("value_of_key: expected a list of structs, got {}", entries.data_type());
    };
    let lists = cast(entries, &DataType::new_list(DataType::Struct(fields.clone()), true))?;
    let lists = lists.as_list::<i32>();
    let structs = lists.values().as_struct();
    let (Some(keys), Some(values)) = (structs.column_by_name("key"), structs.column_by_name("value")) else {
        return exec_err!("value_of_key: expected structs with key and value, got {}", structs.data_type());
    };
    let (keys, wanted) = (cast(keys, &DataType::Utf8)?, cast(wanted, &DataType::Utf8)?);
    let (keys, wanted) = (keys.as_string::<i32>(), wanted.as_string::<i32>());
    let found = wanted.iter().enumerate().map(|(row, key)| {
        let key = key.filter(|_| lists.is_valid(row))?;
        let mut entries = lists.value_offsets()[row]..lists.value_offsets()[row + 1];
        let has_key = |entry: i32| {
            let entry = entry as usize;
            structs.is_valid(entry) && keys.is_valid(entry) && keys.value(entry) == key
        };
        entries.find(|&entry| has_key(entry)).map(|entry| entry as u32)
    });
    let found: UInt32Array = found.collect();
    Ok(take(values, &found, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::SessionContext;

    #[tokio::test]
    async fn the_first_entry_of_a_key_has_the_value() {
        let ctx = SessionContext::new();
        ctx.register_udf(ValueOfKey::default().into());
        let entry = |key: &str, number: &str| {
            format!("named_struct('key', {key}, 'value', named_struct('n', CAST({number} AS BIGINT)))")
        };
        let list = |entries: &[String]| format!("make_array({})", entries.join(", "));
        let a = list(&[entry("'x'", "1"), entry("'y'", "2"), entry("'x'", "3")]);
        let b = list(&[entry("NULL", "4"), entry("'y'", "NULL")]);
        let sql = format!(
            "SELECT value_of_key(e, 'x')['n'] AS x, value_of_key(e, 'y')['n'] AS y, value_of_key(e, k)['n'] AS k \
             FROM (VALUES ({a}, 'y'), ({b}, 'x'), (NULL, 'x')) AS t(e, k)"
        );
        let rows = ctx.sql(&sql).await.unwrap().collect().await.unwrap();
        let printed = arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
        let cells: Vec<&str> = printed.lines().skip(3).take(3).collect();
        assert_eq!(cells, ["| 1 | 2 | 2 |", "|   |   |   |", "|   |   |   |"]);
        assert!(ctx.sql("SELECT value_of_key([1], 'x')").await.is_err());
    }
}
