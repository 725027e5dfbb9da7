//! Raw tables beyond those of the views: each `raw_<table>.sql` of a lake's folder whose table is no view.
//!
//! An order export has its lines, orders and customers in several tables; the lake's SQL joins them.

use datafusion::sql::parser::DFParser;
use datafusion::sql::resolve::resolve_table_references;
use std::collections::BTreeSet;

use super::view_names::VIEWS;
use crate::failure::{Failure, Result};
use crate::sql_files::SqlFiles;

/// The declaration of a further raw table.
pub(super) struct FurtherTable {
    /// The name without `raw_`, in lower case, as SQL reads it.
    pub(super) name: String,
    /// The folder below the lake that its files are in, unless LOCATION names another one.
    pub(super) folder: String,
    pub(super) place: String,
    pub(super) text: String,
}

/// Finds the further raw tables that the folder of a lake declares.
pub(super) fn find(lake: &str, sql: &SqlFiles) -> Result<Vec<FurtherTable>> {
    let mut found: Vec<FurtherTable> = Vec::new();
    for (file, text) in sql.folder(&format!("lakes/{lake}")) {
        let Some(folder) = file.strip_prefix("raw_") else { continue };
        let name = folder.to_lowercase();
        let place = format!("sql/lakes/{lake}/{file}.sql");
        if VIEWS.contains(&name.as_str()) {
            continue;
        }
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(Failure::usage(format!(
                "{place}: expected a name of letters, digits and `_` after raw_, found `{folder}`"
            ))
            .hint("rename the file; LOCATION 'folder' in its statement names a folder of any name"));
        }
        if let Some(other) = found.iter().find(|other| other.name == name) {
            return Err(Failure::usage(format!("{place}: {} declares the table raw_{name} already", other.place))
                .hint("table names are case-insensitive: rename one of the files"));
        }
        found.push(FurtherTable { name, folder: folder.into(), place, text: text.into() });
    }
    Ok(found)
}

/// Returns the raw tables that a query reads, by their names without `raw_`. `place` names the query's file in messages.
pub(super) fn tables_read(place: &str, text: &str) -> Result<BTreeSet<String>> {
    let mut tables = BTreeSet::new();
    for statement in DFParser::parse_sql(text).map_err(|e| Failure::from(e).at(place))? {
        let (read, _) = resolve_table_references(&statement, true).map_err(|e| Failure::from(e).at(place))?;
        tables.extend(read.iter().filter_map(|table| table.table().strip_prefix("raw_").map(String::from)));
    }
    Ok(tables)
}

/// Checks the folder of a LOCATION clause: some folder below the lake.
pub(super) fn folder_below_lake(place: &str, location: &str) -> Result<String> {
    let folder = location.trim_end_matches('/');
    if folder.split('/').any(|part| part.is_empty() || part == "." || part == "..") || folder.contains(':') {
        return Err(Failure::usage(format!("{place}: LOCATION: expected a folder below the lake, found '{location}'"))
            .hint("write it without the lake's own URI, such as LOCATION 'sales/orders'"));
    }
    Ok(folder.into())
}

/// Refuses a folder within another table's folder: the files of the inner one would be rows of both.
pub(super) fn refuse_nested(folders: &[(String, &str)]) -> Result<()> {
    for (inner_table, inner) in folders {
        let above = folders.iter().find(|(_, outer)| inner.strip_prefix(outer).is_some_and(|r| r.starts_with('/')));
        if let Some((outer_table, outer)) = above {
            return Err(Failure::usage(format!(
                "raw_{inner_table}: its folder {inner}/ is within {outer}/, the folder of raw_{outer_table}"
            ))
            .hint("give each table a folder of its own; LOCATION in its raw_ file names it"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_the_raw_tables_that_it_reads() {
        let query = "WITH raw_own AS (SELECT 1) SELECT * FROM RAW_Events JOIN raw_orders USING (id), raw_own, \
                     (SELECT max(day) FROM raw_rates) AS newest";
        let read: Vec<String> = tables_read("x.sql", query).unwrap().into_iter().collect();
        assert_eq!(read, ["events", "orders", "rates"]);
        assert!(tables_read("x.sql", "SELECT (").unwrap_err().message.starts_with("x.sql: "));
    }

    #[test]
    fn a_location_is_a_folder_below_the_lake() {
        assert_eq!(folder_below_lake("x", "sales/orders/").unwrap(), "sales/orders");
        for outside in ["", "/", "/data", "../data", "a/../b", "s3://bucket/a", "a//b", "."] {
            let refused = folder_below_lake("x.sql", outside).unwrap_err();
            assert!(refused.kind.exit_code() == 2 && refused.message.starts_with("x.sql: LOCATION"), "{refused}");
        }
    }

    #[test]
    fn a_folder_within_another_is_refused() {
        let folders = |list: &[(&str, &'static str)]| -> Vec<(String, &'static str)> {
            list.iter().map(|(table, folder)| (table.to_string(), *folder)).collect()
        };
        refuse_nested(&folders(&[("a", "sales"), ("b", "sales2"), ("c", "sales")])).unwrap();
        let refused = refuse_nested(&folders(&[("a", "sales"), ("b", "sales/new")])).unwrap_err();
        assert!(refused.message.contains("raw_b: its folder sales/new/ is within sales/"), "{refused}");
    }
}
