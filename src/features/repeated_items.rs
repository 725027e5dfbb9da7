//! `is_repeated_item(item_id)`: true for items of which the catalogue has several good rows.
//!
//! The ids are found once per process. Without any, which is usual, the call folds to false, and `sql/master/items.sql` plans like
//! its one scan: pictures and vectors pass through in small batches, and no operator gathers them.

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use datafusion::prelude::{SessionContext, lit};
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::views;
use crate::failure::Result;
use crate::ids::ContentHash;
use crate::lake::Lake;
use crate::sql_files::SqlFiles;

const REPEATED_SQL: &str = "SELECT item_id FROM item_rows GROUP BY item_id HAVING count(*) > 1";

/// Registers the rows of the catalogue, and the function for the items that have several.
pub(super) async fn register(ctx: &SessionContext, sql: &SqlFiles, lake: &Lake) -> Result<()> {
    views::register_one(ctx, sql, "master/checked_items").await?;
    views::register_one(ctx, sql, "master/item_rows").await?;
    let ids = lake.repeated_items.get_or_try_init(|| find(ctx)).await?;
    ctx.register_udf(RepeatedItem::new(Arc::clone(ids)).into());
    Ok(())
}

async fn find(ctx: &SessionContext) -> Result<Arc<HashSet<String>>> {
    let mut ids = HashSet::new();
    for batch in ctx.sql(REPEATED_SQL).await?.collect().await? {
        let found = cast(batch.column(0), &DataType::Utf8)?;
        ids.extend(found.as_string::<i32>().iter().flatten().map(String::from));
    }
    Ok(Arc::new(ids))
}

/// The function; two are equal if their ids are.
#[derive(Debug)]
pub(crate) struct RepeatedItem {
    pub(crate) ids: Arc<HashSet<String>>,
    fingerprint: String,
    signature: Signature,
}

impl RepeatedItem {
    pub(crate) fn new(ids: Arc<HashSet<String>>) -> Self {
        let mut sorted: Vec<&str> = ids.iter().map(String::as_str).collect();
        sorted.sort_unstable();
        let fingerprint = ContentHash::from_bytes(sorted.join("\0")).long();
        Self { ids, fingerprint, signature: Signature::string(1, Volatility::Immutable) }
    }
}

impl PartialEq for RepeatedItem {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for RepeatedItem {}

impl Hash for RepeatedItem {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fingerprint.hash(state);
    }
}

impl ScalarUDFImpl for RepeatedItem {
    fn name(&self) -> &str {
        "is_repeated_item"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Boolean)
    }

    fn simplify(&self, args: Vec<Expr>, _: &SimplifyContext) -> DfResult<ExprSimplifyResult> {
        Ok(match self.ids.is_empty() {
            true => ExprSimplifyResult::Simplified(lit(ScalarValue::from(false))),
            false => ExprSimplifyResult::Original(args),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let ids = cast(&arrays[0], &DataType::Utf8)?;
        let repeated = ids.as_string::<i32>().iter().map(|id| Some(id.is_some_and(|id| self.ids.contains(id))));
        Ok(ColumnarValue::Array(Arc::new(repeated.collect::<BooleanArray>())))
    }
}
