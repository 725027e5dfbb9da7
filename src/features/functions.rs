//! Functions that the SQL files call: session values that fold to literals, local days and hours, buckets, rows as JSON.

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Int32Array, Int64Array, StringArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Offset, TimeZone, Utc};
use chrono_tz::Tz;
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::prelude::SessionContext;
use std::sync::Arc;

use super::content_key::ContentKey;
use super::erased_users;
use super::mask_text::MaskText;
use super::value_of_key::ValueOfKey;
use crate::config::{Arrival, Config, Partition};
use crate::ids::{RunDate, date32};

/// Prices and unit costs are below this, so that they fit into DECIMAL(18, 4) and no sum of a lake overflows.
pub(crate) const PRICE_MAX: f64 = 99_999_999_999_999.0;

/// Registers the functions of the SQL files for a night of `run_date`.
pub fn register(ctx: &SessionContext, config: &Config, run_date: RunDate) -> Result<()> {
    let zone = config.time_zone();
    let instant = |t: DateTime<Utc>| ScalarValue::TimestampMicrosecond(Some(t.timestamp_micros()), Some("UTC".into()));
    let hours = |n: u32| ScalarValue::new_interval_mdn(0, 0, i64::from(n) * 3_600_000_000_000);
    let partition = match config.lake.partition {
        Partition::EventDateUtc => "event_date_utc",
        Partition::EventDateLocal => "event_date_local",
        Partition::IngestDate => "ingest_date",
        Partition::None => "none",
    };
    let arrival = match config.lake.arrival {
        Arrival::Column => "column",
        Arrival::IngestDate => "ingest_date",
        Arrival::None => "none",
    };
    let values = [
        ("run_date", ScalarValue::Date32(Some(date32(run_date.0)))),
        ("as_of", instant(run_date.as_of(zone))),
        ("read_at", instant(Utc::now())),
        ("horizon_days", i64::from(config.intents.horizon_days).into()),
        ("churn_days", i64::from(config.intents.churn_days).into()),
        ("look_back_days", i64::from(config.features.look_back_days).into()),
        ("last_events_max", i64::from(config.features.last_events).into()),
        ("consent_default", config.features.consent_default.into()),
        ("demand_horizon_days", i64::from(config.demand.horizon_days).into()),
        ("reconcile_intents", config.demand.reconcile_intents.into()),
        ("demand_history_days", i64::from(config.demand.history_days).into()),
        ("default_service_level", config.replenishment.service_level.into()),
        ("default_lead_time_days", i64::from(config.replenishment.lead_time_days).into()),
        ("review_period_days", i64::from(config.replenishment.review_period_days).into()),
        ("hold_out_share", config.intents.hold_out_share.into()),
        ("hold_out_salt", config.intents.hold_out_salt.as_str().into()),
        ("k_min", i64::from(config.privacy.k_min).into()),
        ("segment_users_min", i64::from(config.segment.users_min).into()),
        ("recommendation_top_k", i64::from(config.recommendation.top_k).into()),
        ("recommendation_exclude_bought", config.recommendation.exclude_bought.into()),
        ("time_tolerance", hours(config.lake.time_tolerance_hours)),
        ("lake_first_at", instant(config.lake.first_at())),
        ("stitched_max", i64::from(config.lake.stitched_max).into()),
        ("masks_texts", config.privacy.mask_text.into()),
        ("price_max", PRICE_MAX.into()),
        ("lake_currency", config.lake.currency.as_str().into()),
        ("partition_kind", partition.into()),
        ("arrival_kind", arrival.into()),
    ];
    for (name, value) in values {
        ctx.register_udf(ScalarUDF::from(Constant::new(name, value)));
    }
    register_compared_date(ctx, None);
    register_shadow_version(ctx, None);
    erased_users::register_default(ctx);
    for name in ["local_day", "local_hour"] {
        ctx.register_udf(LocalTime::from_name(name, zone)?.into());
    }
    ctx.register_udf(ScalarUDF::from(RowJson::default()));
    ctx.register_udf(ScalarUDF::from(NonBlank::default()));
    ctx.register_udf(ScalarUDF::from(MaskText::default()));
    for name in Bucket::NAMES {
        ctx.register_udf(Bucket::from_name(name)?.into());
    }
    ctx.register_udf(ScalarUDF::from(ContentKey::default()));
    ctx.register_udf(ScalarUDF::from(ValueOfKey::default()));
    ctx.register_udaf(super::connected_groups::connected_groups());
    ctx.register_udaf(super::count_days::count_days());
    ctx.register_udaf(super::last_events::last_events());
    ctx.register_udaf(super::most_named::most_named());
    ctx.register_udaf(super::ordered_list::ordered_list());
    Ok(())
}

/// Registers `compared_date()`: the run date of the night with which a report compares its own; null where there is none.
pub(crate) fn register_compared_date(ctx: &SessionContext, date: Option<RunDate>) {
    let value = ScalarValue::Date32(date.map(|date| date32(date.0)));
    ctx.register_udf(ScalarUDF::from(Constant::new("compared_date", value)));
}

/// Registers `shadow_version()`: the model with which a night scores a second time; empty where there is none.
pub(crate) fn register_shadow_version(ctx: &SessionContext, version: Option<&str>) {
    ctx.register_udf(ScalarUDF::from(Constant::new("shadow_version", version.unwrap_or_default().into())));
}

/// Any number of arguments, none included.
pub(crate) const ANY_ARGUMENTS: [TypeSignature; 2] = [TypeSignature::Nullary, TypeSignature::VariadicAny];

/// A function whose value is fixed for the session; the optimizer folds one without arguments to a literal.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Constant {
    name: String,
    pub(crate) value: ScalarValue,
    signature: Signature,
}

impl Constant {
    pub(crate) fn new(name: &str, value: ScalarValue) -> Self {
        Self { name: name.into(), value, signature: Signature::nullary(Volatility::Immutable) }
    }

    /// Makes a function that ignores its arguments.
    pub(crate) fn of_any_arguments(name: &str, value: ScalarValue) -> Self {
        Self { signature: Signature::one_of(ANY_ARGUMENTS.into(), Volatility::Stable), ..Self::new(name, value) }
    }
}

impl ScalarUDFImpl for Constant {
    fn name(&self) -> &str {
        &self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.value.data_type())
    }
    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }
}

/// `local_day(ts)`: date32; `local_hour(ts)`: 0..23; both in the lake's time zone.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct LocalTime {
    name: &'static str,
    returns: DataType,
    pub(crate) zone: Tz,
    signature: Signature,
}

impl LocalTime {
    /// Returns `local_day` or `local_hour`.
    pub(crate) fn from_name(name: &str, zone: Tz) -> Result<Self> {
        let (name, returns) = match name {
            "local_day" => ("local_day", DataType::Date32),
            "local_hour" => ("local_hour", DataType::Int64),
            other => return exec_err!("{other}: expected local_day or local_hour"),
        };
        Ok(Self { name, returns, zone, signature: Signature::any(1, Volatility::Immutable) })
    }
}

impl ScalarUDFImpl for LocalTime {
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let micros = cast(&arrays[0], &DataType::Timestamp(TimeUnit::Microsecond, None))?;
        let micros = micros.as_primitive::<TimestampMicrosecondType>();
        let mut offset = CachedOffset::new(self.zone);
        let local = micros.iter().map(|t| t.map(|t| t.div_euclid(1_000_000) + offset.at(t)));
        let array: ArrayRef = match self.returns {
            DataType::Date32 => {
                Arc::new(local.map(|s| s.map(|s| s.div_euclid(86_400) as i32)).collect::<Date32Array>())
            }
            _ => Arc::new(local.map(|s| s.map(|s| s.rem_euclid(86_400) / 3_600)).collect::<Int64Array>()),
        };
        Ok(ColumnarValue::Array(array))
    }
}

/// Quarter hours whose UTC offsets are cached: a day has 96.
const OFFSETS_CACHED: usize = 128;

/// Caches the UTC offsets of the last quarter hours: the rows of a file are mostly of one day, and zones change on quarter hours.
struct CachedOffset {
    zone: Tz,
    /// Quarter hour since 1970 and offset in seconds.
    offsets: [(i64, i64); OFFSETS_CACHED],
}

impl CachedOffset {
    fn new(zone: Tz) -> Self {
        Self { zone, offsets: [(i64::MIN, 0); OFFSETS_CACHED] }
    }

    /// Returns the offset in seconds at a time in microseconds.
    fn at(&mut self, micros: i64) -> i64 {
        let quarter_hour = micros.div_euclid(900_000_000);
        let cached = &mut self.offsets[quarter_hour.rem_euclid(OFFSETS_CACHED as i64) as usize];
        if cached.0 != quarter_hour {
            let utc = DateTime::from_timestamp_micros(micros).unwrap_or_default();
            let seconds = self.zone.offset_from_utc_datetime(&utc.naive_utc()).fix().local_minus_utc();
            *cached = (quarter_hour, seconds.into());
        }
        cached.1
    }
}

/// `row_json(struct)`: the struct as one line of JSON, nulls left out.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct RowJson {
    signature: Signature,
}

impl Default for RowJson {
    fn default() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for RowJson {
    fn name(&self) -> &str {
        "row_json"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let Some(rows) = arrays[0].as_any().downcast_ref::<StructArray>() else {
            return exec_err!("row_json: expected a struct, got {}", arrays[0].data_type());
        };
        let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
        writer.write(&rows.clone().into())?;
        writer.finish()?;
        let text = String::from_utf8_lossy(&writer.into_inner()).into_owned();
        Ok(ColumnarValue::Array(Arc::new(text.lines().map(Some).collect::<StringArray>())))
    }
}

/// `non_blank(text)`: the text as it is, or null where it has nothing but white space.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct NonBlank {
    signature: Signature,
}

impl Default for NonBlank {
    fn default() -> Self {
        Self { signature: Signature::string(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for NonBlank {
    fn name(&self) -> &str {
        "non_blank"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let texts = cast(&arrays[0], &DataType::Utf8)?;
        let texts = texts.as_string::<i32>();
        let is_blank = |text: Option<&str>| text.is_some_and(|text| text.chars().all(char::is_whitespace));
        if !texts.iter().any(is_blank) {
            return Ok(ColumnarValue::Array(Arc::new(texts.clone())));
        }
        let kept = texts.iter().map(|text| text.filter(|text| !is_blank(Some(text))));
        Ok(ColumnarValue::Array(Arc::new(kept.collect::<StringArray>())))
    }
}

/// `user_bucket(user_id)`, `item_bucket(item_id)`: 0 to [`BUCKETS`] - 1 by a hash of the id, null without one.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bucket {
    name: &'static str,
    signature: Signature,
}

impl Bucket {
    pub(crate) const NAMES: [&str; 2] = ["user_bucket", "item_bucket"];

    /// Returns the function of a name; an executor gets only the name.
    pub(crate) fn from_name(name: &str) -> Result<Self> {
        match Self::NAMES.into_iter().find(|known| *known == name) {
            Some(name) => Ok(Self { name, signature: Signature::string(1, Volatility::Immutable) }),
            None => exec_err!("{name}: expected {}", Self::NAMES.join(" or ")),
        }
    }
}

impl ScalarUDFImpl for Bucket {
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let ids = cast(&arrays[0], &DataType::Utf8)?;
        // The events of a visit follow one another.
        let mut last = ("", bucket(""));
        let buckets = ids.as_string::<i32>().iter().map(|id| {
            id.map(|id| {
                if id != last.0 {
                    last = (id, bucket(id));
                }
                last.1
            })
        });
        Ok(ColumnarValue::Array(Arc::new(buckets.collect::<Int32Array>())))
    }
}

fn bucket(id: &str) -> i32 {
    // Not the bytes that training's split uses, so that a part of the users is not one of its splits.
    let hash = blake3::hash(id.as_bytes());
    u16::from_le_bytes([hash.as_bytes()[8], hash.as_bytes()[9]]).into()
}

/// Returns the hour of a timestamp.
#[cfg(test)]
fn hour(t: DateTime<Tz>) -> i64 {
    chrono::Timelike::hour(&t).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[tokio::test]
    async fn session_values_fold_to_literals() {
        let ctx = SessionContext::new();
        register(&ctx, &Config::default(), "2026-03-01".parse().unwrap()).unwrap();
        let plan = ctx.sql("SELECT 1 AS x WHERE as_of() > TIMESTAMP '2020-01-01'").await.unwrap();
        let plan = plan.into_optimized_plan().unwrap().display_indent().to_string();
        assert!(!plan.contains("as_of"), "{plan}");
    }

    proptest! {
        #[test]
        fn local_time_agrees_with_chrono(seconds in 0i64..2_000_000_000, zone in 0usize..4) {
            let zone = [chrono_tz::UTC, chrono_tz::Asia::Shanghai, chrono_tz::America::New_York, chrono_tz::Asia::Kathmandu][zone];
            let mut offset = CachedOffset::new(zone);
            let local = seconds + offset.at(seconds * 1_000_000);
            let truth = zone.from_utc_datetime(&DateTime::from_timestamp(seconds, 0).unwrap().naive_utc());
            prop_assert_eq!(local.rem_euclid(86_400) / 3_600, hour(truth));
            prop_assert_eq!(local.div_euclid(86_400) as i32, date32(truth.date_naive()));
        }
    }
}
