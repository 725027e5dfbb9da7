//! Lakes of a few rows, written as queries and read by `intentcast sql`.

use datafusion::prelude::SessionContext;
use std::path::Path;

use crate::support::lakes;
use crate::support::shop::{done, refused};

pub const TOTALS: &str =
    "SELECT count(*), sum(events_lifetime), sum(units_lifetime), CAST(sum(spend_lifetime) AS DOUBLE) FROM user_counts";
pub const REASONS: &str =
    "SELECT reason, coalesce(column_name, ''), count(*) FROM unit_quarantine GROUP BY 1, 2 ORDER BY 1, 2";
pub const DATE: &str = "2026-02-01";

/// Two hundred good events of one user each, which leave room for a bad row.
pub const GOOD: &str = "SELECT concat('g', value) AS user_id, TIMESTAMP '2026-01-05 10:00:00' AS ts, 'view' AS event_type, \
                    'i1' AS item_id FROM generate_series(1, 200)";

/// A lake in a folder of its own, which goes with it.
pub struct SmallLake(tempfile::TempDir);

impl SmallLake {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    pub fn lake(&self) -> String {
        self.0.path().join("lake").display().to_string()
    }

    /// Writes a query's rows to a file of the lake.
    pub async fn write(&self, file: &str, query: &str) {
        lakes::write(&self.0.path().join("lake"), file, query).await;
    }

    /// Writes rows under any name: DataFusion itself writes only to names that end in `.parquet`.
    pub async fn write_as(&self, file: &str, query: &str) {
        let written = self.0.path().join("written.parquet");
        lakes::save(SessionContext::new().sql(query).await.unwrap(), &written).await;
        let path = self.0.path().join("lake").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::rename(written, path).unwrap();
    }

    pub fn put(&self, file: &str, bytes: &[u8]) {
        let path = self.0.path().join("lake").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub fn arguments<'a>(&'a self, places: &'a [String; 2], settings: &'a [&str], sql: &'a str) -> Vec<&'a str> {
        let set = settings.iter().flat_map(|setting| ["--set", setting]);
        let fixed = ["--lake", &places[0], "--output", &places[1], "--date", DATE, "--format", "csv", "-c", sql];
        set.chain(["sql"]).chain(fixed).collect()
    }

    pub fn places(&self) -> [String; 2] {
        [self.lake(), self.0.path().join("out").display().to_string()]
    }

    /// Returns the lines below the heading of a query's CSV.
    pub fn rows(&self, settings: &[&str], sql: &str) -> Vec<String> {
        let places = self.places();
        let printed = done(&self.arguments(&places, settings, sql));
        printed.lines().skip(1).map(String::from).collect()
    }

    pub fn totals(&self) -> String {
        self.rows(&[], TOTALS).concat()
    }

    /// Returns what a refusal with exit 3 prints; with and without an output it says the same.
    pub fn refusal(&self) -> String {
        let places = self.places();
        let with_output = refused(&self.arguments(&places, &[], TOTALS), 3);
        let lake_only = ["sql", "--lake", &places[0], "--date", DATE, "-c", "SELECT count(*) FROM events"];
        assert_eq!(error_lines(&with_output), error_lines(&refused(&lake_only, 3)));
        with_output
    }
}

fn error_lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.starts_with("error") || line.starts_with("hint")).collect()
}

/// An event as a query; columns that are not given are missing in the file.
pub fn event(columns: &str) -> String {
    format!(
        "SELECT 'u1' AS user_id, TIMESTAMP '2026-01-05 10:00:00' AS ts, 'purchase' AS event_type, 'i1' AS item_id, {columns}"
    )
}
