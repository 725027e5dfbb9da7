//! Renders the checks that repeat declarations: `sql/checks/keys.sql` and `values.sql` from the tables' keys and columns, and
//! `sql/checks/probabilities.sql` from the targets. `make docs` writes the files; a test compares them.
//!
//! They are files like all other checks, so that an analyst can read them, run them in the shell and overlay them.

use super::published::{INTENT, INTENT_SHADOW, NIGHT};
use super::schemas::specs;
use super::table_spec::{Column, ColumnType, TableSpec};
use crate::model::targets::{BINARY, TARGETS};

/// The text of `sql/checks/keys.sql`.
pub fn keys_sql() -> String {
    let queries: Vec<String> =
        specs().flat_map(|spec| spec.unique_sets().map(|columns| repeated_keys(spec, columns))).collect();
    format!(
        "-- check (stops the night): one row per table in which a key is null or occurs more than once\n\
         -- Generated from src/tables/published.rs by `make docs`. Rows are grouped by the columns of a key, not by a text made of\n\
         -- them, because recommendation has ten rows for each user.\n\
         WITH repeated AS (\n{}\n)\n\
         SELECT\n    \
             concat('keys of ', name) AS subject,\n    \
             'each once, none null' AS expected,\n    \
             concat(count(*), ' keys more than once or null, the first ', coalesce(min(first_key), 'null')) AS got\n\
         FROM repeated\n\
         GROUP BY name\n\
         ORDER BY subject\n",
        queries.join("\n    UNION ALL\n")
    )
}

fn repeated_keys(spec: &TableSpec, columns: &[&str]) -> String {
    let list = columns.join(", ");
    let text = match columns {
        [column] => format!("CAST({column} AS VARCHAR)"),
        columns => format!("concat({})", columns.join(", ' / ', ")),
    };
    let nulls: Vec<String> = columns.iter().map(|column| format!("{column} IS NULL")).collect();
    format!(
        "    SELECT '{table} ({list})' AS name, {text} AS first_key\n    \
             FROM {table}\n    \
             GROUP BY {list}\n    \
             HAVING count(*) > 1 OR {}",
        nulls.join(" OR "),
        table = spec.name
    )
}

/// The text of `sql/checks/values.sql`.
pub fn values_sql() -> String {
    let tables: Vec<String> = NIGHT.iter().map(|spec| bad_values(spec)).collect();
    format!(
        "-- check (stops the night): one row per column with values that its declaration excludes: null, NaN or infinite\n\
         -- Generated from src/tables/published.rs by `make docs`. Each table is read once.\n\
         WITH counted AS (\n{}\n)\n\
         SELECT\n    \
             found['name'] AS subject,\n    \
             found['expected'] AS expected,\n    \
             concat(found['bad'], ' rows that are not') AS got\n\
         FROM counted\n\
         WHERE found['bad'] > 0\n\
         ORDER BY subject\n",
        tables.join("\n    UNION ALL\n")
    )
}

fn bad_values(spec: &TableSpec) -> String {
    let columns: Vec<String> = spec.columns.iter().filter_map(|column| bad_values_of(spec.name, column)).collect();
    format!(
        "    SELECT unnest(make_array(\n        {}\n    )) AS found FROM {}",
        columns.join(",\n        "),
        spec.name
    )
}

/// Counts the bad values of a column; `None` where every value is allowed.
fn bad_values_of(table: &str, column: &Column) -> Option<String> {
    let name = column.name;
    let not_finite = format!("isnan({name}) OR abs({name}) = CAST('Infinity' AS DOUBLE)");
    let (bad, expected) = match (column.null_when(), column.kind) {
        (None, ColumnType::Float64) => (format!("{name} IS NULL OR {not_finite}"), "finite numbers, none null"),
        (Some(_), ColumnType::Float64) => (not_finite, "finite numbers or null"),
        (None, _) => (format!("{name} IS NULL"), "none null"),
        (Some(_), _) => return None,
    };
    Some(format!(
        "named_struct('name', '{table}.{name}', 'expected', '{expected}', 'bad', count(*) FILTER (WHERE {bad}))"
    ))
}

/// The text of `sql/checks/probabilities.sql`.
pub fn probabilities_sql() -> String {
    let outputs = TARGETS[..BINARY].iter().map(|target| target.output);
    let columns =
        [INTENT.name, INTENT_SHADOW.name].into_iter().flat_map(|table| outputs.clone().map(move |p| (table, p)));
    let queries: Vec<String> =
        columns.map(|(table, p)| format!("SELECT '{table}.{p}' AS subject, {p} AS p FROM {table}")).collect();
    format!(
        "-- check (stops the night): one row per column of intents with probabilities that are null, not numbers or outside 0 to 1\n\
         -- Generated from src/model/targets.rs by `make docs`.\n\
         WITH probabilities AS (\n    {}\n)\n\
         SELECT\n    \
             subject,\n    \
             'every row between 0 and 1' AS expected,\n    \
             concat(count(*), ' rows null, not a number or out of range') AS got\n\
         FROM probabilities\n\
         WHERE p IS NULL OR isnan(p) OR p < 0 OR p > 1\n\
         GROUP BY subject\n\
         ORDER BY subject\n",
        queries.join("\n    UNION ALL ")
    )
}
