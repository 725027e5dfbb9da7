//! The persons who were erased, as keyed hashes of their ids, and `is_erased(user_id)`, which finds their rows in later files.
//!
//! The record is one file below the output's `state/`, so that every session of a lake leaves the same persons out. Ids are in it
//! as keyed hashes (BLAKE3, section 2.3 of its paper, which takes the place of HMAC), with a random key of the output.

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use chrono::{DateTime, Utc};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use datafusion::prelude::{DataFrame, SessionContext, ident};
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::ops::Not;
use std::sync::Arc;

use crate::failure::{Failure, Result};
use crate::ids::ContentHash;
use crate::lake::stores::Location;

/// Folder of the record, below the output.
const FOLDER: &str = "state/erasure";
const FILE: &str = "people.json";

/// Name of the function.
pub(crate) const IS_ERASED: &str = "is_erased";

/// The reason that `runs` counts rows of erased persons under.
pub(crate) const ERASED_USER: &str = "erased_user";

/// Hexadecimal digits of a hash: 128 bits.
const DIGITS: usize = 32;

/// One erased id.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ErasedId {
    pub(crate) requested_at: DateTime<Utc>,
    /// Time from which on no session shows the person.
    #[serde(default)]
    pub(crate) noted_at: DateTime<Utc>,
    /// None until no file holds the id.
    pub(crate) gone_at: Option<DateTime<Utc>>,
}

/// The record of all erasures of an output.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ErasureRecord {
    /// 64 hexadecimal digits.
    key: String,
    /// By the keyed hash of the id.
    pub(crate) people: BTreeMap<String, ErasedId>,
    /// Keys of the texts of persons who are being erased: their vectors go too.
    pub(crate) text_keys: BTreeSet<i64>,
    /// Day of the first event of persons who are being erased, counted from 1970-01-01.
    pub(crate) first_day: Option<i32>,
    /// Versions of models that were trained on days of persons who were erased later.
    #[serde(default)]
    pub(crate) models: BTreeSet<String>,
    /// Events that were taken out of the lake, by file as it was before, then by local day counted from 1970-01-01.
    #[serde(default)]
    pub(crate) lake_events: BTreeMap<String, BTreeMap<i32, u64>>,
    /// When that was noted, right before they were taken out, by file as it was before; none for those of older versions.
    #[serde(default)]
    pub(crate) lake_noted_at: BTreeMap<String, DateTime<Utc>>,
    /// Versions of the lake's files, with persons who are erased now, that a bucket was seen to keep: paths and versions.
    #[serde(default)]
    pub(crate) kept_versions: BTreeSet<(String, String)>,
}

impl ErasureRecord {
    /// Reads the record of an output; `None` where no person was ever erased.
    pub(crate) async fn read(output: &Location) -> Result<Option<Self>> {
        let folder = output.folder(FOLDER);
        let Some(bytes) = folder.read_if_there(FILE).await? else { return Ok(None) };
        let record = serde_json::from_slice(&bytes).map_err(|e| {
            Failure::input(format!("{}: damaged record of erased persons: {e}", folder.display(&folder.path(FILE))))
                .hint("bring this file back from a backup: without it, erased persons would be scored again")
        })?;
        Ok(Some(record))
    }

    /// Starts the record of an output, with a key of its own.
    pub(crate) fn new() -> Self {
        let random = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
        let key: Vec<u8> = random.iter().flat_map(|part| *part.as_bytes()).collect();
        let key = blake3::derive_key("intentcast erased users", &key);
        let key = blake3::Hash::from_bytes(key).to_hex().to_string();
        Self {
            key,
            people: BTreeMap::new(),
            text_keys: BTreeSet::new(),
            first_day: None,
            models: BTreeSet::new(),
            lake_events: BTreeMap::new(),
            lake_noted_at: BTreeMap::new(),
            kept_versions: BTreeSet::new(),
        }
    }

    /// Notes ids, each with the time of its request, as far as they are not noted yet.
    pub(crate) fn note(&mut self, requests: &BTreeMap<String, DateTime<Utc>>, now: DateTime<Utc>) -> Result<()> {
        for (id, requested_at) in requests {
            let request = ErasedId { requested_at: *requested_at, noted_at: now, gone_at: None };
            self.people.entry(self.hash(id)?).or_insert(request);
        }
        Ok(())
    }

    /// Writes the record; it counts from then on.
    pub(crate) async fn write(&self, output: &Location) -> Result<()> {
        output.folder(FOLDER).write(FILE, serde_json::to_vec(self).map_err(Failure::bug)?).await
    }

    /// Returns the hashes of all erased ids.
    pub(crate) fn users(&self) -> Result<ErasedUsers> {
        let finished = self.people.values().filter(|erased| erased.gone_at.is_some()).count();
        ErasedUsers::new(&self.key, self.people.keys().cloned().collect(), finished)
    }

    /// Returns the hashes of the ids that were noted up to a time, and of those that are gone from the output.
    pub(crate) fn users_until(&self, until: DateTime<Utc>) -> Result<ErasedUsers> {
        let noted = self.people.iter().filter(|(_, erased)| erased.noted_at <= until || erased.gone_at.is_some());
        ErasedUsers::new(&self.key, noted.map(|(hash, _)| hash.clone()).collect(), 0)
    }

    /// Returns how many events of a local day, counted from 1970-01-01, were taken out of the lake since a time.
    pub(crate) fn lake_events_since(&self, since: DateTime<Utc>, day: i32) -> u64 {
        let is_later = |file: &String| self.lake_noted_at.get(file).is_none_or(|noted| *noted >= since);
        let files = self.lake_events.iter().filter(|(file, _)| is_later(file));
        files.filter_map(|(_, days)| days.get(&day)).sum()
    }

    /// Returns the keyed hash of an id.
    pub(crate) fn hash(&self, id: &str) -> Result<String> {
        Ok(hash_with(&key_bytes(&self.key)?, id))
    }
}

fn key_bytes(key: &str) -> Result<[u8; 32]> {
    let key = blake3::Hash::from_hex(key).map_err(|e| {
        Failure::input(format!("state/erasure/people.json: key: {e}")).hint("bring this file back from a backup")
    })?;
    Ok(*key.as_bytes())
}

fn hash_with(key: &[u8; 32], id: &str) -> String {
    let mut digits = blake3::keyed_hash(key, id.as_bytes()).to_hex().to_string();
    digits.truncate(DIGITS);
    digits
}

/// The hashes of erased ids.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct ErasedUsers {
    key: [u8; 32],
    hashes: BTreeSet<String>,
    fingerprint: String,
}

impl ErasedUsers {
    /// Two sets differ, too, where more erasures are finished: what sessions of the earlier one read is gone.
    fn new(key: &str, hashes: BTreeSet<String>, finished: usize) -> Result<Self> {
        let all: Vec<&str> = hashes.iter().map(String::as_str).collect();
        let fingerprint = ContentHash::from_bytes(format!("{key}{finished}\0{}", all.join(""))).short();
        Ok(Self { key: key_bytes(key)?, hashes, fingerprint })
    }

    /// Reads the erased ids of an output.
    pub(crate) async fn read(output: &Location) -> Result<Self> {
        match ErasureRecord::read(output).await? {
            Some(record) => record.users(),
            None => Ok(Self::default()),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        !self.is_empty() && self.hashes.contains(&hash_with(&self.key, id))
    }

    /// Registers `is_erased`, in place of one of other persons.
    pub(crate) fn register(self: &Arc<Self>, ctx: &SessionContext) {
        ctx.register_udf(IsErased::new(Arc::clone(self)).into());
    }
}

/// Registers `is_erased` for a session that has none; it is false there.
pub(crate) fn register_default(ctx: &SessionContext) {
    if ctx.udf(IS_ERASED).is_err() {
        Arc::new(ErasedUsers::default()).register(ctx);
    }
}

/// Gives a session the function of another.
pub(crate) fn share(from: &SessionContext, to: &SessionContext) {
    if let Ok(function) = from.udf(IS_ERASED) {
        to.register_udf(function.as_ref().clone());
    }
}

/// Leaves out the rows of erased persons from a table of a session.
pub(crate) fn leave_out(ctx: &SessionContext, name: &str) -> Result<()> {
    if ctx.udf(IS_ERASED).is_ok_and(|function| is_of_someone(&function))
        && let Some(rows) = ctx.deregister_table(name)?
    {
        ctx.register_table(name, without_erased(ctx, ctx.read_table(rows)?)?.into_view())?;
    }
    Ok(())
}

/// Says whether the function is true of any id.
fn is_of_someone(function: &ScalarUDF) -> bool {
    let function: &dyn Any = function.inner().as_ref();
    function.downcast_ref::<IsErased>().is_some_and(|function| !function.users.is_empty())
}

/// Leaves out the rows of erased persons, where the rows have users.
pub(crate) fn without_erased(ctx: &SessionContext, rows: DataFrame) -> Result<DataFrame> {
    let has_users = rows.schema().fields().iter().any(|field| field.name() == "user_id");
    let Ok(function) = ctx.udf(IS_ERASED) else { return Ok(rows) };
    match has_users && is_of_someone(&function) {
        true => Ok(rows.filter(function.call(vec![ident("user_id")]).not())?),
        false => Ok(rows),
    }
}

/// `is_erased(user_id)`: true for the id of an erased person, false for others and for null.
#[derive(Debug)]
pub(crate) struct IsErased {
    pub(crate) users: Arc<ErasedUsers>,
    signature: Signature,
}

impl IsErased {
    pub(crate) fn new(users: Arc<ErasedUsers>) -> Self {
        Self { users, signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl PartialEq for IsErased {
    fn eq(&self, other: &Self) -> bool {
        self.users.fingerprint == other.users.fingerprint
    }
}

impl Eq for IsErased {}

impl Hash for IsErased {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.users.fingerprint.hash(state);
    }
}

impl ScalarUDFImpl for IsErased {
    fn name(&self) -> &str {
        IS_ERASED
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Boolean)
    }

    /// Costs nothing where no person was erased.
    fn simplify(&self, args: Vec<Expr>, _: &SimplifyContext) -> DfResult<ExprSimplifyResult> {
        Ok(match self.users.is_empty() {
            true => ExprSimplifyResult::Simplified(lit(ScalarValue::from(false))),
            false => ExprSimplifyResult::Original(args),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let ids = cast(&arrays[0], &DataType::Utf8)?;
        let ids = ids.as_string::<i32>();
        // Rows of a user often follow one another.
        let mut last = (None, false);
        let erased = (0..ids.len()).map(|row| {
            let id = ids.is_valid(row).then(|| ids.value(row));
            if last.0 != id {
                last = (id, id.is_some_and(|id| self.users.contains(id)));
            }
            Some(last.1)
        });
        Ok(ColumnarValue::Array(Arc::new(erased.collect::<BooleanArray>())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;

    #[tokio::test]
    async fn only_the_ids_of_the_record_are_erased() {
        let output = Location::open("memory://erased/out", &S3Config::default()).unwrap();
        let ctx = SessionContext::new();
        register_default(&ctx);
        let answer = async |ctx: &SessionContext| {
            let sql = "SELECT is_erased(id) AS erased FROM (VALUES ('u1'), ('u10'), ('u1'), (NULL), ('')) AS t(id)";
            let batches = ctx.sql(sql).await.unwrap().collect().await.unwrap();
            batches[0].column(0).as_boolean().iter().collect::<Vec<_>>()
        };
        assert_eq!(answer(&ctx).await, vec![Some(false); 5]);
        assert!(ErasedUsers::read(&output).await.unwrap().is_empty());

        let mut record = ErasureRecord::new();
        let id = record.hash("u1").unwrap();
        record.people.insert(id.clone(), ErasedId { requested_at: Utc::now(), noted_at: Utc::now(), gone_at: None });
        record.write(&output).await.unwrap();
        Arc::new(ErasedUsers::read(&output).await.unwrap()).register(&ctx);
        register_default(&ctx);
        let expected = [true, false, true, false, false].map(Some);
        assert_eq!(answer(&ctx).await, expected);
        let other = SessionContext::new();
        share(&ctx, &other);
        assert_eq!(answer(&other).await, expected);

        let stored = output.folder(FOLDER).read(FILE).await.unwrap();
        assert!(!String::from_utf8_lossy(&stored).contains("u1"), "the record names no one");
        assert_ne!(ErasureRecord::new().hash("u1").unwrap(), id, "each output has its own key");
    }
}
