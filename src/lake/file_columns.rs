//! Reads a file's own columns as the declared ones where names or types differ: the case of a name, UUIDs, times in units whose
//! range is larger than that of microseconds, and columns that only the names of folders have.

use arrow::array::{Array, ArrayRef, AsArray, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;
use std::sync::Arc;
use uuid::Uuid;

/// Source of one declared column in a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileColumn {
    /// The declared name.
    pub name: String,
    /// The column's name in the file.
    pub in_file: String,
    pub conversion: Option<Conversion>,
}

impl FileColumn {
    /// A column that only the names of folders have.
    pub(super) fn from_folder(name: &str) -> Self {
        Self { name: name.into(), in_file: name.into(), conversion: Some(Conversion::FolderName) }
    }
}

/// Reading of a column beyond the engine's cast.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Conversion {
    /// Sixteen bytes to the usual text.
    UuidText,
    /// Seconds or milliseconds to microseconds; a time beyond their range becomes the first or last one that they have, which
    /// the checks of rows then find.
    Microseconds(DataType),
    /// From the name of a folder, as a value of each file.
    FolderName,
}

impl Conversion {
    /// Returns the type in the file, if it is not the declared one.
    fn physical_type(&self) -> Option<DataType> {
        match self {
            Conversion::UuidText => Some(DataType::FixedSizeBinary(16)),
            Conversion::Microseconds(found) => Some(found.clone()),
            Conversion::FolderName => None,
        }
    }

    fn function(&self) -> Option<ReadFunction> {
        match self {
            Conversion::UuidText => Some(ReadFunction::UUID_TEXT),
            Conversion::Microseconds(_) => Some(ReadFunction::MICROSECONDS),
            Conversion::FolderName => None,
        }
    }
}

/// Returns the schema as which a scan reads a file with these columns: declared fields under the file's names and types.
pub(crate) fn physical_schema(declared: &Schema, columns: &[FileColumn]) -> SchemaRef {
    let fields = declared.fields().iter().map(|field| {
        let Some(column) = columns.iter().find(|column| column.name == *field.name()) else { return field.clone() };
        let in_file = column.conversion.as_ref().and_then(Conversion::physical_type);
        let data_type = in_file.unwrap_or_else(|| field.data_type().clone());
        Arc::new(Field::new(&column.in_file, data_type, true))
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Converts the rows of such a scan to the declared `schema`, the projected one.
pub(crate) fn convert(
    scan: Arc<dyn ExecutionPlan>,
    schema: &Schema,
    columns: &[FileColumn],
) -> Result<Arc<dyn ExecutionPlan>> {
    let options = Arc::default();
    let mut expressions: Vec<(Arc<dyn PhysicalExpr>, String)> = Vec::new();
    for (at, field) in schema.fields().iter().enumerate() {
        let read: Arc<dyn PhysicalExpr> = Arc::new(Column::new(scan.schema().field(at).name(), at));
        let column = columns.iter().find(|column| column.name == *field.name());
        let converted = match column.and_then(|column| column.conversion.as_ref()?.function()) {
            Some(function) => Arc::new(ScalarFunctionExpr::try_new(
                Arc::new(ScalarUDF::from(function)),
                vec![read],
                &scan.schema(),
                Arc::clone(&options),
            )?),
            None => read,
        };
        expressions.push((converted, field.name().clone()));
    }
    Ok(Arc::new(ProjectionExec::try_new(expressions, scan)?))
}

/// A function that scans of such files call; SQL does not see it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ReadFunction {
    name: &'static str,
    signature: Signature,
}

impl ReadFunction {
    const UUID_TEXT: Self = Self::named("read_uuid_text");
    const MICROSECONDS: Self = Self::named("read_microseconds");

    const fn named(name: &'static str) -> Self {
        Self {
            name,
            signature: Signature {
                type_signature: datafusion::logical_expr::TypeSignature::Any(1),
                volatility: Volatility::Immutable,
                parameter_names: None,
            },
        }
    }

    /// Returns the function of a name; an executor gets only the name.
    pub(crate) fn from_name(name: &str) -> Result<Self> {
        match [Self::UUID_TEXT, Self::MICROSECONDS].into_iter().find(|known| known.name == name) {
            Some(function) => Ok(function),
            None => exec_err!("{name}: unknown read function"),
        }
    }
}

impl ScalarUDFImpl for ReadFunction {
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match *self == Self::UUID_TEXT {
            true => DataType::Utf8,
            false => DataType::Timestamp(TimeUnit::Microsecond, None),
        })
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let read: ArrayRef = match *self == Self::UUID_TEXT {
            true => uuid_text(&arrays[0])?,
            false => microseconds(&arrays[0])?,
        };
        Ok(ColumnarValue::Array(read))
    }
}

fn uuid_text(array: &ArrayRef) -> Result<ArrayRef> {
    let Some(bytes) = array.as_fixed_size_binary_opt() else {
        return exec_err!("read_uuid_text: expected 16 bytes, got {}", array.data_type());
    };
    let text = bytes.iter().map(|id| id.and_then(|id| Uuid::from_slice(id).ok()).map(|id| id.to_string()));
    Ok(Arc::new(text.collect::<StringArray>()))
}

fn microseconds(array: &ArrayRef) -> Result<ArrayRef> {
    let factor = match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => 1_000_000,
        DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000,
        other => return exec_err!("read_microseconds: expected seconds or milliseconds, got {other}"),
    };
    let numbers = cast(array, &DataType::Int64)?;
    let micros = numbers.as_primitive::<Int64Type>().iter().map(|n| n.map(|n| n.saturating_mul(factor)));
    Ok(Arc::new(micros.collect::<TimestampMicrosecondArray>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{FixedSizeBinaryArray, TimestampMillisecondArray, TimestampSecondArray};

    #[test]
    fn times_beyond_microseconds_saturate() {
        let millis: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![Some(1), None, Some(i64::MAX)]));
        let seconds: ArrayRef =
            Arc::new(TimestampSecondArray::from(vec![Some(2), Some(i64::MIN)]).with_timezone("UTC"));
        let micros = |array| microseconds(&array).unwrap();
        assert_eq!(*micros(millis), TimestampMicrosecondArray::from(vec![Some(1_000), None, Some(i64::MAX)]));
        assert_eq!(*micros(seconds), TimestampMicrosecondArray::from(vec![2_000_000, i64::MIN]));
    }

    #[test]
    fn a_uuid_is_read_as_its_usual_text() {
        let bytes = FixedSizeBinaryArray::try_from_iter([(0u8..16).collect::<Vec<u8>>()].into_iter()).unwrap();
        let text = uuid_text(&(Arc::new(bytes) as ArrayRef)).unwrap();
        assert_eq!(text.as_string::<i32>().value(0), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    }
}
