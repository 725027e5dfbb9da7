//! Creates the functions of `sql/functions/`, so that nights, training and ad hoc SQL have the same ones.

use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::DFParser;

use crate::failure::{Failure, Result};
use crate::sql_files::SqlFiles;

/// Runs every `CREATE FUNCTION` of the folder; replaces a function that exists already.
pub(crate) async fn create(ctx: &SessionContext, sql: &SqlFiles) -> Result<()> {
    for (name, text) in sql.folder("functions") {
        let place = format!("sql/functions/{name}.sql");
        for statement in DFParser::parse_sql(text).map_err(|e| Failure::from(e).at(&place))? {
            let plan = ctx.state().statement_to_plan(statement).await.map_err(|e| Failure::from(e).at(&place))?;
            let LogicalPlan::Ddl(DdlStatement::CreateFunction(mut create)) = plan else {
                return Err(Failure::usage(format!("{place}: expected only CREATE FUNCTION statements")));
            };
            create.or_replace = true;
            let plan = LogicalPlan::Ddl(DdlStatement::CreateFunction(create));
            ctx.execute_logical_plan(plan).await.map_err(|e| Failure::from(e).at(&place))?;
        }
    }
    Ok(())
}
