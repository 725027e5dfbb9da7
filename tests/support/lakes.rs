//! Hand-made lakes for tests: events given as SQL rows, written to Parquet below a temporary folder.

use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::SessionContext;
use std::path::Path;

/// Writes `<root>/<view>/<file>` from a query's rows.
pub async fn write(root: &Path, file: &str, query: &str) {
    let ctx = SessionContext::new();
    let path = root.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let rows = ctx.sql(query).await.unwrap();
    let options = DataFrameWriteOptions::new().with_single_file_output(true);
    rows.write_parquet(path.to_str().unwrap(), options, None).await.unwrap();
}

/// A query for event rows: `(event_id, user, ts, type, item, quantity, price)`; nulls are written NULL.
pub fn events(rows: &[(&str, &str, &str, &str, &str, &str, &str)]) -> String {
    let values: Vec<String> = rows
        .iter()
        .map(|(id, user, ts, kind, item, quantity, price)| {
            let text = |t: &str| if t == "NULL" { "CAST(NULL AS VARCHAR)".into() } else { format!("'{t}'") };
            let ts = if *ts == "NULL" { "CAST(NULL AS TIMESTAMP)".into() } else { format!("TIMESTAMP '{ts}'") };
            format!(
                "({}, {}, {ts}, {}, {}, CAST({quantity} AS INT), CAST({price} AS DOUBLE))",
                text(id),
                text(user),
                text(kind),
                text(item)
            )
        })
        .collect();
    format!(
        "SELECT event_id, user_id, ts, event_type, item_id, quantity, price \
         FROM (VALUES {}) AS t(event_id, user_id, ts, event_type, item_id, quantity, price)",
        values.join(", ")
    )
}
