//! Restricts a session to what may be read over the wire.
//!
//! Published tables are shown as they are. Views of the lake and of features leave out all who are not in `scored_users` (no
//! consent, excluded or erased), under each of their ids, and show free text as null. Nothing else of the session can be named:
//! raw files, rollups and unrestricted views stay inside.

use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{
    CatalogProvider, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider, SchemaProvider, Session,
    TableFunctionImpl, TableProvider,
};
use datafusion::common::{JoinType, ScalarValue, plan_err};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::functions::core::expr_fn::{get_field, named_struct};
use datafusion::logical_expr::{TableProviderFilterPushDown, TableType, col, ident, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{DataFrame, Expr, SessionContext};
use std::collections::BTreeSet;
use std::sync::Arc;

use super::access::View;
use super::pg_catalog;
use super::pseudonyms::PseudonymKey;
use crate::engine::schemas::{self, BARE, CATALOG};
use crate::failure::{Failure, Result};
use crate::score::explain_user;
use crate::workspace::descriptions::Descriptions;

/// Columns of text that a customer wrote.
const FREE_TEXT: [&str; 3] = ["query", "text", "last_queries"];

/// Schemas whose tables hold rows of users who may have to be left out.
const RESTRICTED: [&str; 2] = ["features", "lake"];

/// Tables of a planner: demand, orders and items, and nothing of any user.
const PLANNER_TABLES: [&str; 4] = ["demand", "demand_total", "replenishment", "runs"];
const PLANNER_LAKE: [&str; 3] = ["items", "inventory", "promotions"];

/// Tables of `features` that say which ids are one person and who refused: for the job alone.
const NOT_SHOWN: [&str; 4] = ["person", "person_consent", "stitched", "unstitched"];

/// Functions whose result can be as large as a number says, outside the memory that queries are granted. The table function
/// `generate_series` stays.
const UNBOUNDED: [&str; 9] =
    ["range", "generate_series", "gen_series", "array_repeat", "array_resize", "list_repeat", "repeat", "lpad", "rpad"];

/// A column that may hold the id of another person than the row's; always null.
const OTHER_ID: &str = "canonical_user_id";

/// Rows without a user, such as events of visitors that no id was given for, belong to no one and stay.
const USER_ID: &str = "user_id";

/// The row of an event in `quarantine`.
const ROW_JSON: &str = "row_json";

/// Returns a session that shows the named tables of `ctx` in their schemas, restricted to `users` (see [`shown_users`])
/// and to a view, and `pg_catalog`.
pub(crate) async fn restrict(
    ctx: &SessionContext,
    schemas: &[(&'static str, BTreeSet<String>)],
    users: Option<&DataFrame>,
    has_lake: bool,
    view: View,
    key: Option<&PseudonymKey>,
    descriptions: &Descriptions,
) -> Result<SessionContext> {
    let bare = MemorySchemaProvider::new();
    let (free_text, key) = match view {
        View::Analyst { free_text, pseudonyms: false } => (free_text, None),
        View::Analyst { free_text, pseudonyms: true } => {
            (free_text, Some(key.ok_or_else(|| Failure::bug("pseudonyms without a key"))?))
        }
        View::Planner => (false, None),
    };
    let shown: Vec<(&str, BTreeSet<String>)> =
        schemas.iter().map(|(schema, names)| (*schema, of_view(view, schema, names))).collect();
    for (schema, names) in &shown {
        // Without a lake its views have no rows.
        if *schema == "lake" && !has_lake {
            continue;
        }
        for name in names {
            if !ctx.table_exist(name.as_str())? {
                continue;
            }
            let mut table = ctx.table_provider(name.as_str()).await?;
            if RESTRICTED.contains(schema) || key.is_some() {
                let mut rows = ctx.table(name.as_str()).await?;
                if RESTRICTED.contains(schema) {
                    rows = restricted(rows, users, free_text)?;
                }
                if let Some(key) = key {
                    rows = with_pseudonyms(rows, key)?;
                }
                table = Arc::new(Opaque(rows.into_view()));
            }
            bare.register_table(name.clone(), table)?;
        }
    }
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema(BARE, Arc::new(bare))?;
    let catalogs = MemoryCatalogProviderList::new();
    datafusion::catalog::CatalogProviderList::register_catalog(&catalogs, CATALOG.into(), Arc::new(catalog));
    let state = SessionStateBuilder::new_from_existing(ctx.state()).with_catalog_list(Arc::new(catalogs));
    let shown_ctx = SessionContext::new_with_state(state.build());
    for name in UNBOUNDED {
        shown_ctx.deregister_udf(name);
    }
    if view == View::Planner {
        shown_ctx.register_udtf(explain_user::NAME, Arc::new(NoCustomers));
    }
    schemas::divide(&shown_ctx, shown)?;
    pg_catalog::install(&shown_ctx, descriptions).await?;
    Ok(shown_ctx)
}

/// Returns which of a schema's tables a view shows.
fn of_view(view: View, schema: &str, names: &BTreeSet<String>) -> BTreeSet<String> {
    let may_show = |name: &str| match (view, schema) {
        (View::Analyst { .. }, "features") => !NOT_SHOWN.contains(&name),
        (View::Analyst { .. }, _) => true,
        (View::Planner, "tables") => PLANNER_TABLES.contains(&name.strip_suffix("_history").unwrap_or(name)),
        (View::Planner, "lake") => PLANNER_LAKE.contains(&name),
        (View::Planner, _) => false,
    };
    names.iter().filter(|name| may_show(name)).cloned().collect()
}

/// Returns all ids (`shown_id`) of the users who may be shown; `None` where no users are known.
pub(crate) async fn shown_users(ctx: &SessionContext, has_lake: bool) -> Result<Option<DataFrame>> {
    // Consents are in the lake. Without one, those count that the night knew: it published the users who may be scored.
    let source = if has_lake { "scored_users" } else { "intent" };
    if !ctx.table_exist(source)? {
        return Ok(None);
    }
    let logins = ctx.table(source).await?.select([col(USER_ID).alias("shown_id")])?;
    if !ctx.table_exist("stitched")? {
        return Ok(Some(logins));
    }
    let stitched = ctx.table("stitched").await?.select([col(USER_ID).alias("guest_id"), col("canonical_user_id")])?;
    let guests = stitched.join(logins.clone(), JoinType::LeftSemi, &["canonical_user_id"], &["shown_id"], None)?;
    Ok(Some(logins.union_distinct(guests.select([col("guest_id").alias("shown_id")])?)?))
}

/// Returns the rows of those who may be shown.
pub(crate) fn rows_of(users: &DataFrame, table: DataFrame) -> Result<DataFrame> {
    Ok(table.join(users.clone(), JoinType::LeftSemi, &[USER_ID], &["shown_id"], None)?)
}

fn restricted(table: DataFrame, users: Option<&DataFrame>, free_text: bool) -> Result<DataFrame> {
    let schema = table.schema().as_arrow().clone();
    let is_hidden = |name: &str| name == OTHER_ID || (!free_text && FREE_TEXT.contains(&name));
    let columns = schema.fields().iter().map(|field| match is_hidden(field.name()) {
        true => Ok(lit(ScalarValue::try_from(field.data_type())?).alias(field.name())),
        false => Ok(ident(field.name())),
    });
    let columns: Vec<Expr> = columns.collect::<Result<_>>()?;
    let table = table.select(columns)?;
    let has_users = schema.field_with_name(USER_ID).is_ok_and(|field| field.data_type() != &DataType::Null);
    Ok(match users {
        Some(users) if has_users => {
            let anonymous = table.clone().filter(col(USER_ID).is_null())?;
            rows_of(users, table)?.union(anonymous)?
        }
        None if has_users => table.filter(lit(false))?,
        _ => table,
    })
}

/// Replaces the ids of users, also those within features, by pseudonyms.
fn with_pseudonyms(table: DataFrame, key: &PseudonymKey) -> Result<DataFrame> {
    let schema = table.schema().as_arrow().clone();
    let columns = schema.fields().iter().map(|field| {
        let column = ident(field.name());
        Ok(match field.data_type() {
            DataType::Null => column,
            DataType::Struct(fields) if fields.iter().any(|part| part.name() == USER_ID) => {
                let parts = fields.iter().flat_map(|part| {
                    let value = get_field(column.clone(), part.name().as_str());
                    [lit(part.name().as_str()), if part.name() == USER_ID { key.of_column(value) } else { value }]
                });
                named_struct(parts.collect()).alias(field.name())
            }
            _ if field.name() == USER_ID => key.of_column(column).alias(USER_ID),
            // It has the first characters of an id, which may be all of them.
            data_type if field.name() == ROW_JSON => lit(ScalarValue::try_from(data_type)?).alias(ROW_JSON),
            _ => column,
        })
    });
    Ok(table.select(columns.collect::<Result<Vec<Expr>>>()?)?)
}

/// Stands in for `explain_user` where no customer may be seen. The function itself would say that features are missing.
#[derive(Debug)]
struct NoCustomers;

impl TableFunctionImpl for NoCustomers {
    fn call(&self, _: &[Expr]) -> datafusion::common::Result<Arc<dyn TableProvider>> {
        plan_err!("{}: the role planner sees no customers", explain_user::NAME)
    }
}

/// A view whose inside a query cannot reach: only comparisons of a column with a constant are evaluated below its restrictions.
/// Anything else could fail with a message that shows a value of a row that is left out.
#[derive(Debug)]
struct Opaque(Arc<dyn TableProvider>);

#[async_trait]
impl TableProvider for Opaque {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        self.0.scan(state, projection, filters, limit).await
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> datafusion::common::Result<Vec<TableProviderFilterPushDown>> {
        let is_comparison = |filter: &Expr| match filter {
            Expr::BinaryExpr(compared) => {
                compared.op.supports_propagation()
                    && matches!(compared.left.as_ref(), Expr::Column(_))
                    && matches!(compared.right.as_ref(), Expr::Literal(..))
            }
            _ => false,
        };
        Ok(filters
            .iter()
            .map(|filter| match is_comparison(filter) {
                true => TableProviderFilterPushDown::Inexact,
                false => TableProviderFilterPushDown::Unsupported,
            })
            .collect())
    }
}
