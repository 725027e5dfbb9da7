//! Hand-made lakes for tests: events given as SQL rows, written to Parquet below a temporary folder.

use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::{DataFrame, SessionContext};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use std::path::Path;
use std::process::Command;

/// Writes `<root>/<view>/<file>` from a query's rows.
pub async fn write(root: &Path, file: &str, query: &str) {
    let path = root.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    save(SessionContext::new().sql(query).await.unwrap(), &path).await;
}

/// Writes rows as one file.
pub async fn save(rows: DataFrame, path: &Path) {
    let options = DataFrameWriteOptions::new().with_single_file_output(true);
    rows.write_parquet(path.to_str().unwrap(), options, None).await.unwrap();
}

/// Rewrites a file with the result of a query over its `rows`.
pub fn rewrite(path: &Path, query: &str) {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let ctx = SessionContext::new();
        ctx.register_parquet("rows", path.to_str().unwrap(), Default::default()).await.unwrap();
        let held = ctx.sql(query).await.unwrap().cache().await.unwrap();
        std::fs::remove_file(path).unwrap();
        save(held, path).await;
    });
}

/// Rewrites a file like [`rewrite`], and turns `@@@@` in its texts into bytes that are not UTF-8.
pub fn break_text(path: &Path, query: &str) {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let ctx = SessionContext::new();
        ctx.register_parquet("rows", path.to_str().unwrap(), Default::default()).await.unwrap();
        let rows = ctx.sql(query).await.unwrap().collect().await.unwrap();
        let properties = WriterProperties::builder()
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_compression(Compression::UNCOMPRESSED)
            .build();
        let mut writer = ArrowWriter::try_new(Vec::new(), rows[0].schema(), Some(properties)).unwrap();
        rows.iter().for_each(|batch| writer.write(batch).unwrap());
        let mut bytes = writer.into_inner().unwrap();
        let marks: Vec<usize> = (0..bytes.len() - 4).filter(|&at| &bytes[at..at + 4] == b"@@@@").collect();
        assert!(!marks.is_empty());
        marks.into_iter().for_each(|at| bytes[at..at + 4].copy_from_slice(b"caf\xe9"));
        std::fs::write(path, bytes).unwrap();
    });
}

/// Copies a folder and its content: into `to` if that is a folder, else under that name.
pub fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap();
    assert!(copied.success(), "{} to {}", from.display(), to.display());
}

/// Returns a query for event rows `(event_id, user, ts, type, item, quantity, price)`; nulls are written NULL.
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
