//! Checks users, items, inventory, promotions and erasures before anything is computed from them.
//!
//! `sql/master/checked_<view>.sql` marks each bad row with its reason; `sql/master/<view>.sql` is the view that features read.
//! Here are the refusals: an erasure without a user_id, an inventory snapshot that was loaded twice, and too many bad rows.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::prelude::SessionContext;

use crate::config::Config;
use crate::failure::{Failure, Result};

/// Number of bad rows below which a view is accepted whatever their share, unless they are a tenth of it.
const FEW_ROWS: i64 = 20;

const BAD_ERASURES_SQL: &str = "SELECT coalesce(min(_file), 'erasures/') AS file, count(*) AS bad FROM lake_erasures WHERE non_blank(user_id) IS NULL HAVING count(*) > 0";
const REASONS_SQL: &str = "SELECT view, concat(reason, coalesce(concat(' of ', column_name), ''), ' ', count(*)) AS found, \
                           min(concat_ws(': ', source_file, row_json)) AS example \
                           FROM master_quarantine GROUP BY view, reason, column_name ORDER BY view, found";

/// Refuses files (exit 3) that would be wrong as a whole, and a view (exit 4) of which too many rows are bad.
pub async fn check(ctx: &SessionContext, config: &Config) -> Result<()> {
    if let Some([file, bad]) = first_row(ctx, BAD_ERASURES_SQL).await? {
        return Err(Failure::input(format!(
            "{file}: {bad} rows without a user_id: expected who asked to be forgotten"
        ))
        .hint("write the file again with a user_id in each row, so that no erasure is lost"));
    }
    let repeated = "SELECT CAST(as_of AS VARCHAR) AS as_of, first_file, second_file FROM repeated_snapshots LIMIT 1";
    if let Some([as_of, first, second]) = first_row(ctx, repeated).await? {
        return Err(Failure::input(format!(
            "{second}: the inventory rows of {as_of} are those of {first}: one snapshot that was loaded twice"
        ))
        .hint("move one of the two out of the lake's folder; rows of several places may be in several files"));
    }
    refuse_bad_share(ctx, config.lake.quarantine_share_max).await
}

async fn refuse_bad_share(ctx: &SessionContext, share_max: f64) -> Result<()> {
    for batch in ctx.sql("SELECT view, row_count, bad FROM master_counts").await?.collect().await? {
        let views = arrow::compute::cast(batch.column(0), &DataType::Utf8)?;
        let (rows, bad) = (batch.column(1).as_primitive::<Int64Type>(), batch.column(2).as_primitive::<Int64Type>());
        for (at, view) in views.as_string::<i32>().iter().enumerate() {
            let (view, rows, bad) = (view.unwrap_or_default(), rows.value(at), bad.value(at));
            if is_too_bad(rows, bad, share_max) {
                return Err(too_bad(ctx, view, rows, bad, share_max).await?);
            }
        }
    }
    Ok(())
}

fn is_too_bad(rows: i64, bad: i64, share_max: f64) -> bool {
    bad as f64 > share_max * rows as f64 && (bad >= FEW_ROWS || bad * 10 >= rows)
}

async fn too_bad(ctx: &SessionContext, view: &str, rows: i64, bad: i64, share_max: f64) -> Result<Failure> {
    let mut found = Vec::new();
    let mut example = String::new();
    for batch in
        ctx.sql(&format!("SELECT found, example FROM ({REASONS_SQL}) WHERE view = '{view}'")).await?.collect().await?
    {
        let text = |column: usize| arrow::compute::cast(batch.column(column), &DataType::Utf8);
        let (reasons, examples) = (text(0)?, text(1)?);
        found.extend(reasons.as_string::<i32>().iter().flatten().map(String::from));
        if let (true, Some(Some(first))) = (example.is_empty(), examples.as_string::<i32>().iter().next()) {
            example = first.into();
        }
    }
    Ok(Failure::check(format!(
        "{view}: {bad} of {rows} rows are bad ({}), more than lake.quarantine_share_max = {:.2} %; the first: {example}",
        found.join(", "),
        share_max * 100.0
    ))
    .hint("fix the file or raise the share, then run the same command again; sql/master/ has the rules"))
}

/// Returns the first row of a query of texts and whole numbers as texts.
pub(super) async fn first_row<const N: usize>(ctx: &SessionContext, sql: &str) -> Result<Option<[String; N]>> {
    for batch in ctx.sql(sql).await?.collect().await? {
        if batch.num_rows() == 0 {
            continue;
        }
        let mut values = [const { String::new() }; N];
        for (value, column) in values.iter_mut().zip(batch.columns()) {
            let texts = arrow::compute::cast(column, &DataType::Utf8)?;
            *value = if texts.is_null(0) { "null".into() } else { texts.as_string::<i32>().value(0).into() };
        }
        return Ok(Some(values));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_bad_rows_stop_only_a_small_view() {
        assert!(!is_too_bad(1000, 19, 0.01), "few");
        assert!(is_too_bad(1000, 20, 0.01));
        assert!(is_too_bad(50, 5, 0.01), "a tenth");
        assert!(!is_too_bad(50, 4, 0.01));
        assert!(!is_too_bad(10_000, 100, 0.01), "not more than the share");
    }
}
