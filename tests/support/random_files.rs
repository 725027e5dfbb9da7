//! Parquet files of random physical shape: types, names, encodings and row groups that writers of lakes use for the same values.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Date64Array, Decimal32Array, Decimal64Array, Decimal128Array,
    FixedSizeBinaryArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, TimeUnit};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, Encoding, LogicalType, Repetition, Type as PhysicalType};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::{SchemaDescriptor, Type};
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value as Json, json};
use std::sync::Arc;
use uuid::Uuid;

/// A value of a row, in the canonical type of its column.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Text(String),
    Whole(i64),
    /// Microseconds since 1970, UTC.
    Time(i64),
    Number(f64),
    /// Days since 1970.
    Date(i32),
    Flag(bool),
}

pub type Row = Vec<Value>;

/// The ids of a lake: what they look like decides which types can hold them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    Text,
    /// Whole numbers from 0 to 99.
    Small,
    /// Whole numbers that a double cannot hold.
    Large,
    Uuid,
}

/// The canonical type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Id(Ids),
    Text,
    Whole,
    Time,
    Number,
    Date,
    Flag,
}

/// A canonical column; a file may lack an optional one.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
    pub optional: bool,
}

/// A column as one file has it.
#[derive(Debug, Clone)]
struct Physical {
    name: String,
    data_type: DataType,
}

/// The shape of one file: its columns, `None` where it lacks one, and their order.
#[derive(Debug, Clone)]
pub struct Shape {
    columns: Vec<Option<Physical>>,
    order: Vec<usize>,
    has_added_column: bool,
}

impl Shape {
    pub fn random(rng: &mut ChaCha8Rng, columns: &[Column]) -> Self {
        let shapes = columns.iter().map(|column| {
            let lacks = column.optional && rng.random_bool(0.2);
            let data_type = random_type(rng, column);
            let name = random_case(rng, column.name);
            (!lacks).then_some(Physical { name, data_type })
        });
        let shapes = shapes.collect();
        let mut order: Vec<usize> = (0..columns.len()).collect();
        order.shuffle(rng);
        Self { columns: shapes, order, has_added_column: rng.random_bool(0.3) }
    }

    pub fn has(&self, column: usize) -> bool {
        self.columns[column].is_some()
    }

    /// Returns the row as the file holds it: values that a type cannot hold are null or rounded.
    pub fn hold(&self, row: &Row) -> Row {
        let held = row.iter().zip(&self.columns).map(|(value, column)| match column {
            Some(column) => hold(value, &column.data_type),
            None => Value::Null,
        });
        held.collect()
    }

    /// Encodes rows that the shape holds as one Parquet file.
    pub fn encode(&self, rng: &mut ChaCha8Rng, rows: &[Row]) -> Vec<u8> {
        self.encode_with(rng, rows, None)
    }

    /// Encodes rows with one column replaced by, or added as, an array of the given type's defaults.
    pub fn encode_with(
        &self,
        rng: &mut ChaCha8Rng,
        rows: &[Row],
        replaced: Option<(usize, &str, ArrayRef)>,
    ) -> Vec<u8> {
        let mut columns: Vec<(String, ArrayRef)> = Vec::new();
        for &at in &self.order {
            let Some(column) = &self.columns[at] else { continue };
            if replaced.as_ref().is_some_and(|(replaced, _, _)| *replaced == at) {
                continue;
            }
            let values: Vec<&Value> = rows.iter().map(|row| &row[at]).collect();
            columns.push((column.name.clone(), array(&values, &column.data_type)));
        }
        columns.extend(replaced.map(|(_, name, array)| (name.to_string(), array)));
        if self.has_added_column {
            columns.push(("added_later".into(), Arc::new(Int64Array::from_iter_values(0..rows.len() as i64))));
        }
        write(rng, columns)
    }

    /// Returns the file's name of a column that it has.
    pub fn name_of(&self, column: usize) -> Option<&str> {
        self.columns[column].as_ref().map(|physical| physical.name.as_str())
    }
}

/// Returns a row as one line of JSON for the independent count; prices are text, because JSON has no infinity.
pub fn to_json(columns: &[Column], row: &Row) -> Map<String, Json> {
    let value = |value: &Value| match value {
        Value::Null => Json::Null,
        Value::Text(text) => json!(text),
        Value::Whole(n) | Value::Time(n) => json!(n),
        Value::Number(x) => json!(format!("{x:?}")),
        Value::Date(days) => json!(days),
        Value::Flag(flag) => json!(flag),
    };
    columns.iter().zip(row).map(|(column, cell)| (column.name.to_string(), value(cell))).collect()
}

fn random_case(rng: &mut ChaCha8Rng, name: &str) -> String {
    match rng.random_range(0..6) {
        0 => name.to_uppercase(),
        1 => name[..1].to_uppercase() + &name[1..],
        _ => name.into(),
    }
}

fn pick(rng: &mut ChaCha8Rng, types: &[DataType]) -> DataType {
    types.choose(rng).unwrap().clone()
}

fn random_type(rng: &mut ChaCha8Rng, column: &Column) -> DataType {
    use DataType::*;
    let dictionary = |key: DataType, value: DataType| Dictionary(Box::new(key), Box::new(value));
    let texts = [Utf8, Utf8, LargeUtf8, Utf8View, dictionary(Int32, Utf8), dictionary(UInt16, LargeUtf8)];
    let large = [Int64, UInt64, Decimal128(20, 0), Decimal128(38, 0)];
    if column.optional && rng.random_bool(0.05) {
        return Null;
    }
    let zones = [None, None, Some("UTC"), Some("+00:00"), Some("Europe/Paris"), Some("-05:00")];
    match column.kind {
        Kind::Text | Kind::Id(Ids::Text) => pick(rng, &texts),
        Kind::Id(_) if rng.random_bool(0.3) => pick(rng, &texts),
        Kind::Id(Ids::Small) => {
            let small = [Int8, Int16, Int32, UInt8, UInt16, UInt32, Decimal128(5, 0), Decimal64(12, 0)];
            pick(rng, &[&small[..], &large[..]].concat())
        }
        Kind::Id(Ids::Large) => pick(rng, &large),
        Kind::Id(Ids::Uuid) => FixedSizeBinary(16),
        Kind::Whole => {
            let narrow = [Int8, Int16, UInt8, UInt16, UInt32, UInt64, Decimal128(10, 0), Decimal32(9, 0)];
            pick(rng, &[&narrow[..], &[Int32, Int32, Int64, Int64, Int64]].concat())
        }
        Kind::Time => {
            use TimeUnit::*;
            let unit = *[Second, Millisecond, Microsecond, Microsecond, Nanosecond].choose(rng).unwrap();
            Timestamp(unit, zones.choose(rng).unwrap().map(Into::into))
        }
        Kind::Number => {
            let decimals =
                [Decimal128(10, 2), Decimal128(18, 4), Decimal128(38, 10), Decimal64(12, 3), Decimal32(9, 2)];
            let numbers = [Float64, Float64, Float64, Float32, Float16, Int32, UInt16, Int64];
            pick(rng, &[&decimals[..], &numbers[..]].concat())
        }
        Kind::Date => pick(rng, &[Date32, Date64]),
        Kind::Flag => Boolean,
    }
}

/// Returns the whole numbers that a type can hold.
fn whole_range(data_type: &DataType) -> Option<(i128, i128)> {
    use DataType::*;
    let decimal = |precision: u8| Some((1 - 10_i128.pow(precision.into()), 10_i128.pow(precision.into()) - 1));
    match data_type {
        Int8 => Some((i8::MIN.into(), i8::MAX.into())),
        Int16 => Some((i16::MIN.into(), i16::MAX.into())),
        Int32 => Some((i32::MIN.into(), i32::MAX.into())),
        Int64 => Some((i64::MIN.into(), i64::MAX.into())),
        UInt8 => Some((0, u8::MAX.into())),
        UInt16 => Some((0, u16::MAX.into())),
        UInt32 => Some((0, u32::MAX.into())),
        UInt64 => Some((0, u64::MAX.into())),
        Decimal128(p, 0) | Decimal64(p, 0) | Decimal32(p, 0) => decimal(*p),
        _ => None,
    }
}

fn hold(value: &Value, data_type: &DataType) -> Value {
    use DataType::*;
    let fits = |n: i128| whole_range(data_type).is_some_and(|(least, most)| (least..=most).contains(&n));
    match (value, data_type) {
        (_, Null) => Value::Null,
        (Value::Text(text), FixedSizeBinary(_)) if Uuid::try_parse(text).is_err() => Value::Null,
        (Value::Text(text), t) if whole_range(t).is_some() => match text.parse::<i128>() {
            Ok(n) if fits(n) => value.clone(),
            _ => Value::Null,
        },
        (Value::Whole(n), _) if !fits(i128::from(*n)) => Value::Null,
        (Value::Number(x), t) => hold_number(*x, t).map_or(Value::Null, Value::Number),
        (Value::Time(t), Timestamp(unit, _)) => match unit {
            TimeUnit::Second => Value::Time(t.div_euclid(1_000_000) * 1_000_000),
            TimeUnit::Millisecond => Value::Time(t.div_euclid(1_000) * 1_000),
            TimeUnit::Microsecond => value.clone(),
            TimeUnit::Nanosecond => t.checked_mul(1_000).map_or(Value::Null, |_| value.clone()),
        },
        _ => value.clone(),
    }
}

/// Whole numbers up to this are exact as doubles.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

fn hold_number(x: f64, data_type: &DataType) -> Option<f64> {
    use DataType::*;
    match data_type {
        Float64 => Some(x),
        Float32 | Float16 => {
            let narrow = cast(&cast(&Float64Array::from(vec![x]), data_type).unwrap(), &Float64).unwrap();
            Some(narrow.as_primitive::<Float64Type>().value(0))
        }
        Decimal128(precision, scale) | Decimal64(precision, scale) | Decimal32(precision, scale) => {
            let factor = 10_f64.powi(i32::from(*scale));
            let unscaled = (x * factor).round();
            let most = EXACT_MAX.min(10_f64.powi(i32::from(*precision)));
            (unscaled.abs() < most).then(|| unscaled / factor)
        }
        whole => {
            let (least, most) = whole_range(whole)?;
            let rounded = x.round();
            (x.is_finite() && rounded.abs() < EXACT_MAX && (least..=most).contains(&(rounded as i128)))
                .then_some(rounded)
        }
    }
}

/// Builds the column of held values. Times and decimals are built from numbers, not by the casts that reading uses.
fn array(values: &[&Value], data_type: &DataType) -> ArrayRef {
    use DataType::*;
    let texts = || values.iter().map(|v| if let Value::Text(text) = v { Some(text.as_str()) } else { None });
    let wholes = || {
        values.iter().map(|v| match v {
            Value::Text(text) => text.parse::<i128>().ok(),
            Value::Whole(n) => Some(i128::from(*n)),
            Value::Number(x) => Some(*x as i128),
            _ => None,
        })
    };
    let is_number = values.iter().any(|v| matches!(v, Value::Number(_)));
    let numbers = || values.iter().map(|v| if let Value::Number(x) = v { Some(*x) } else { None });
    let times = || values.iter().map(|v| if let Value::Time(t) = v { Some(*t) } else { None });
    let unscaled = |scale: i8| -> Vec<Option<i128>> {
        match is_number {
            true => numbers().map(|x| x.map(|x| (x * 10_f64.powi(i32::from(scale))).round() as i128)).collect(),
            false => wholes().collect(),
        }
    };
    match data_type {
        Null => new_null_array(&Null, values.len()),
        Utf8 => Arc::new(texts().collect::<StringArray>()),
        LargeUtf8 | Utf8View | Dictionary(..) => cast(&texts().collect::<StringArray>(), data_type).unwrap(),
        FixedSizeBinary(16) => {
            let bytes = texts().map(|text| text.map(|text| Uuid::try_parse(text).unwrap().into_bytes()));
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes, 16).unwrap())
        }
        Boolean => Arc::new(
            values.iter().map(|v| if let Value::Flag(flag) = v { Some(*flag) } else { None }).collect::<BooleanArray>(),
        ),
        Date32 | Date64 => {
            let days = || values.iter().map(|v| if let Value::Date(days) = v { Some(*days) } else { None });
            match data_type {
                Date32 => Arc::new(days().collect::<Date32Array>()) as ArrayRef,
                _ => Arc::new(days().map(|d| d.map(|d| i64::from(d) * 86_400_000)).collect::<Date64Array>()),
            }
        }
        Float64 | Float32 | Float16 => cast(&numbers().collect::<Float64Array>(), data_type).unwrap(),
        Timestamp(unit, zone) => {
            let zone = zone.clone();
            match unit {
                TimeUnit::Second => {
                    let counts = times().map(|t| t.map(|t| t.div_euclid(1_000_000)));
                    Arc::new(counts.collect::<TimestampSecondArray>().with_timezone_opt(zone)) as ArrayRef
                }
                TimeUnit::Millisecond => {
                    let counts = times().map(|t| t.map(|t| t.div_euclid(1_000)));
                    Arc::new(counts.collect::<TimestampMillisecondArray>().with_timezone_opt(zone))
                }
                TimeUnit::Microsecond => {
                    Arc::new(times().collect::<TimestampMicrosecondArray>().with_timezone_opt(zone))
                }
                TimeUnit::Nanosecond => {
                    let counts = times().map(|t| t.map(|t| t * 1_000));
                    Arc::new(counts.collect::<TimestampNanosecondArray>().with_timezone_opt(zone))
                }
            }
        }
        Decimal128(precision, scale) => {
            Arc::new(Decimal128Array::from(unscaled(*scale)).with_precision_and_scale(*precision, *scale).unwrap())
        }
        Decimal64(precision, scale) => {
            let narrow = unscaled(*scale).into_iter().map(|n| n.map(|n| n as i64));
            Arc::new(narrow.collect::<Decimal64Array>().with_precision_and_scale(*precision, *scale).unwrap())
        }
        Decimal32(precision, scale) => {
            let narrow = unscaled(*scale).into_iter().map(|n| n.map(|n| n as i32));
            Arc::new(narrow.collect::<Decimal32Array>().with_precision_and_scale(*precision, *scale).unwrap())
        }
        UInt64 => Arc::new(wholes().map(|n| n.map(|n| n as u64)).collect::<arrow::array::UInt64Array>()),
        whole => cast(&wholes().map(|n| n.map(|n| n as i64)).collect::<Int64Array>(), whole).unwrap(),
    }
}

fn write(rng: &mut ChaCha8Rng, columns: Vec<(String, ArrayRef)>) -> Vec<u8> {
    let fields: Vec<Field> = columns.iter().map(|(name, a)| Field::new(name, a.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns.into_iter().map(|(_, a)| a).collect()).unwrap();
    let options = ArrowWriterOptions::new().with_properties(random_properties(rng, &schema));
    // Only Arrow's own schema says that a column counts seconds, or milliseconds of days.
    let only_arrow = |t: &DataType| matches!(t, DataType::Timestamp(TimeUnit::Second, _) | DataType::Date64);
    let needs_arrow = schema.fields().iter().any(|f| only_arrow(f.data_type()));
    let options = options.with_skip_arrow_metadata(!needs_arrow && rng.random_bool(0.5));
    let options = options.with_parquet_schema(parquet_schema(&schema));
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), schema, options).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

/// Returns the schema of the file, in which sixteen bytes are marked as a UUID.
fn parquet_schema(schema: &Schema) -> SchemaDescriptor {
    let plain = ArrowSchemaConverter::new().convert(schema).unwrap();
    let fields = plain.root_schema().get_fields().iter().zip(schema.fields()).map(|(found, field)| {
        if *field.data_type() != DataType::FixedSizeBinary(16) {
            return Arc::clone(found);
        }
        let uuid = Type::primitive_type_builder(field.name(), PhysicalType::FIXED_LEN_BYTE_ARRAY)
            .with_length(16)
            .with_logical_type(Some(LogicalType::Uuid))
            .with_repetition(Repetition::OPTIONAL);
        Arc::new(uuid.build().unwrap())
    });
    let root = Type::group_type_builder("schema").with_fields(fields.collect()).build().unwrap();
    SchemaDescriptor::new(Arc::new(root))
}

fn random_properties(rng: &mut ChaCha8Rng, schema: &Schema) -> WriterProperties {
    use Compression::*;
    let codecs =
        [UNCOMPRESSED, SNAPPY, ZSTD(Default::default()), GZIP(Default::default()), LZ4_RAW, BROTLI(Default::default())];
    let statistics = [EnabledStatistics::None, EnabledStatistics::Chunk, EnabledStatistics::Page];
    let versions = [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0];
    let mut properties = WriterProperties::builder()
        .set_compression(*codecs.choose(rng).unwrap())
        .set_writer_version(*versions.choose(rng).unwrap())
        .set_statistics_enabled(*statistics.choose(rng).unwrap())
        .set_bloom_filter_enabled(rng.random_bool(0.3))
        .set_dictionary_enabled(rng.random_bool(0.5))
        .set_max_row_group_row_count(Some(*[1, 3, 20, 1_000].choose(rng).unwrap()))
        .set_data_page_row_count_limit(*[1, 5, 20_000].choose(rng).unwrap())
        .set_write_batch_size(*[1, 4, 1_024].choose(rng).unwrap());
    for field in schema.fields() {
        let encodings: &[Encoding] = match field.data_type() {
            t if t.is_integer() || matches!(t, DataType::Timestamp(..)) => {
                &[Encoding::PLAIN, Encoding::DELTA_BINARY_PACKED]
            }
            DataType::Float64 | DataType::Float32 => &[Encoding::PLAIN, Encoding::BYTE_STREAM_SPLIT],
            t if t.is_string() => &[Encoding::PLAIN, Encoding::DELTA_BYTE_ARRAY, Encoding::DELTA_LENGTH_BYTE_ARRAY],
            _ => &[Encoding::PLAIN],
        };
        properties = properties.set_column_encoding(field.name().as_str().into(), *encodings.choose(rng).unwrap());
    }
    properties.build()
}
