//! Rows of a view by column, as JSON values.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Float64Type};
use serde_json::{Map, Value};

use crate::failure::{Failure, Result};

/// The columns of a view, in its order. Numbers are JSON numbers, dates `YYYY-MM-DD`.
#[derive(Debug)]
pub(super) struct Columns(Vec<(String, Vec<Value>)>);

impl Columns {
    /// Converts the batches of one query; at least one is expected, as the columns come from it.
    pub(super) fn from_batches(batches: &[RecordBatch]) -> Result<Self> {
        let first = batches.first().ok_or_else(|| Failure::bug("a view without columns"))?;
        let rows = concat_batches(&first.schema(), batches)?;
        let fields = rows.schema();
        let columns = fields.fields().iter().zip(rows.columns());
        let converted = columns.map(|(field, array)| Ok((field.name().clone(), values(array)?)));
        Ok(Self(converted.collect::<Result<_>>()?))
    }

    /// Returns the number of rows.
    pub(super) fn len(&self) -> usize {
        self.0.first().map_or(0, |(_, values)| values.len())
    }

    /// Returns each row as an object.
    pub(super) fn rows(&self) -> impl Iterator<Item = Map<String, Value>> {
        (0..self.len()).map(|row| self.0.iter().map(|(name, values)| (name.clone(), values[row].clone())).collect())
    }

    /// Replaces the values of a column.
    pub(super) fn replace(&mut self, name: &str, values: Vec<Value>) {
        if let Some((_, old)) = self.0.iter_mut().find(|(column, _)| column == name) {
            *old = values;
        }
    }

    /// Returns an object of columns whose numbers have at most four decimals: half the bytes, and more than a page shows.
    pub(super) fn rounded(&self) -> Value {
        self.0.iter().map(|(name, values)| (name.clone(), values.iter().map(rounded).collect::<Value>())).collect()
    }
}

/// Rounds a number to four decimals; other values stay.
pub(super) fn rounded(value: &Value) -> Value {
    match value.as_f64() {
        Some(number) if value.is_f64() => number_value((number * 1e4).round() / 1e4),
        _ => value.clone(),
    }
}

fn values(array: &ArrayRef) -> Result<Vec<Value>> {
    Ok(match array.data_type() {
        DataType::Null => vec![Value::Null; array.len()],
        DataType::Boolean => array.as_boolean().iter().map(Value::from).collect(),
        kind if kind.is_numeric() => {
            let numbers = cast(array, &DataType::Float64)?;
            let numbers = numbers.as_primitive::<Float64Type>().iter();
            numbers.map(|number| number.map_or(Value::Null, number_value)).collect()
        }
        _ => cast(array, &DataType::Utf8)?.as_string::<i32>().iter().map(Value::from).collect(),
    })
}

/// Returns a JSON number, whole numbers without a fraction; null for what JSON cannot hold.
fn number_value(number: f64) -> Value {
    match number.fract() == 0.0 && number.abs() < 1e15 {
        true => Value::from(number as i64),
        false => Value::from(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::SessionContext;
    use serde_json::json;

    #[tokio::test]
    async fn rows_become_json_of_their_types() {
        let ctx = SessionContext::new();
        let sql = "SELECT 'a' AS id, 2.0 AS n, 0.123456 AS p, DATE '2026-03-01' AS day, true AS yes, CAST(NULL AS DOUBLE) AS no, \
                   CAST('NaN' AS DOUBLE) AS nan";
        let batches = ctx.sql(sql).await.unwrap().collect().await.unwrap();
        let columns = Columns::from_batches(&batches).unwrap();
        let row = json!({"id": "a", "n": 2, "p": 0.123456, "day": "2026-03-01", "yes": true, "no": null, "nan": null});
        assert_eq!(Value::Object(columns.rows().next().unwrap()), row);
        assert_eq!(columns.rounded()["p"], json!([0.1235]));
    }
}
