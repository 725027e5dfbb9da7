//! `has_repeated_stock()`: true where the lake's inventory has several good rows of an item and day, as of several places.
//!
//! Found once per process. Without any, which is usual, the call folds to false, and `sql/master/inventory.sql` passes rows through:
//! grouping all days of all items took the most memory of a night.

use datafusion::common::ScalarValue;
use datafusion::prelude::SessionContext;

use super::{functions::Constant, master, views};
use crate::failure::Result;
use crate::lake::Lake;
use crate::sql_files::SqlFiles;

const REPEATED_SQL: &str =
    "SELECT item_id FROM checked_inventory WHERE reason IS NULL GROUP BY item_id, as_of HAVING count(*) > 1 LIMIT 1";

/// Registers the rows of the inventory, and the function.
pub(super) async fn register(ctx: &SessionContext, sql: &SqlFiles, lake: &Lake) -> Result<()> {
    views::register_one(ctx, sql, "master/checked_inventory").await?;
    let found = *lake.has_repeated_stock.get_or_try_init(|| find(ctx)).await?;
    ctx.register_udf(Constant::new("has_repeated_stock", ScalarValue::from(found)).into());
    Ok(())
}

async fn find(ctx: &SessionContext) -> Result<bool> {
    Ok(master::first_row::<1>(ctx, REPEATED_SQL).await?.is_some())
}
