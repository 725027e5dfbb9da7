//! Reads the published tables with other programs: Python's deltalake and duckdb.

use datafusion::prelude::SessionContext;
use intentcast::config::S3Config;
use intentcast::lake::stores::Location;
use intentcast::publish::runs;
use intentcast::tables::schemas::NIGHT_TABLES;
use std::path::Path;
use std::process::Command;

use crate::support::nights::{QUICK, date, publish, tables_of};

#[tokio::test(flavor = "multi_thread")]
async fn deltalake_and_duckdb_of_python_read_the_visible_night() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv/bin/python");
    assert!(python.exists(), "no .venv: run `make readers` (infra/setup/python.sh)");
    let folder = tempfile::tempdir().unwrap();
    let output = Location::open(&folder.path().display().to_string(), &S3Config::default()).unwrap();
    publish(&output, "2026-03-01", 0.2).await.unwrap();
    publish(&output, "2026-03-02", 0.25).await.unwrap();
    publish(&output, "2026-03-02", 0.3).await.unwrap();
    runs::rollback(&output, date("2026-03-02"), &QUICK).await.unwrap(); // 0.25 is shown again
    let read = Command::new(python)
        .arg(root.join("tests/support/read_back.py"))
        .arg(folder.path().join("tables"))
        .output()
        .unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let report: serde_json::Value = serde_json::from_slice(&read.stdout).unwrap();
    assert_eq!(report["run_date"], "2026-03-02");
    assert_eq!(report["nights"], 2);
    let staged = tables_of(0.25);
    for table in NIGHT_TABLES {
        let query = staged.iter().find(|(name, _)| *name == table);
        let rows = match query {
            Some((_, query)) => SessionContext::new().sql(query).await.unwrap().count().await.unwrap() as i64,
            None => 0,
        };
        assert_eq!(rows > 0, table != "quarantine", "{table}: tests/support/nights.rs stages {rows} rows");
        let found = &report["tables"][table];
        assert_eq!((found["rows"].as_i64(), found["duckdb_rows"].as_i64()), (Some(rows), Some(rows)), "{table}");
        assert_eq!(found["same_columns_and_rows"], true, "{table}: {found}");
    }
    let expected = serde_json::json!([0.25, 0.25, 0.25, 0.25]);
    assert_eq!((&report["p_purchase"], &report["duckdb_p_purchase"]), (&expected, &expected));
    assert!(report["last_seen_at"].as_str().is_some_and(|t| t.starts_with("2026-02-28 12:00:00")), "{report}");
}
