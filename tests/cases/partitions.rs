//! Lakes whose folders name columns other than `dt`, as Hive, Spark and Athena write them.

use std::path::Path;

use crate::support::shop::{done, refused};
use crate::support::small_lake::{DATE, SmallLake};

const RAW: &str = "CREATE TABLE raw_events (user_id VARCHAR, ts TIMESTAMP(6) NOT NULL, item_id VARCHAR, country VARCHAR NOT NULL, \
                   hour BIGINT, dt VARCHAR)";
const VIEW: &str = "SELECT CAST(NULL AS VARCHAR) AS event_id, user_id, country AS session_id, ts, CAST(NULL AS TIMESTAMP(6)) AS \
                    arrived_at, 'purchase' AS event_type, item_id, dt AS query, hour AS dwell_ms, CAST(NULL AS BIGINT) AS quantity, \
                    CAST(NULL AS DOUBLE) AS price, CAST(NULL AS VARCHAR) AS currency, CAST(NULL AS BIGINT) AS rating, \
                    CAST(NULL AS VARCHAR) AS text, _file, _dt FROM raw_events";

/// Rows of one file, without the columns of the folders.
fn rows(count: u32) -> String {
    format!(
        "SELECT concat('u', value) AS user_id, TIMESTAMP '2026-01-05 10:00:00' AS ts, 'i1' AS item_id \
         FROM generate_series(1, {count})"
    )
}

/// Declares the columns of the folders; returns the setting that finds the SQL.
fn declare(lake: &SmallLake) -> String {
    let sql = lake.folder().join("sql/lakes/hive");
    std::fs::create_dir_all(&sql).unwrap();
    std::fs::write(sql.join("raw_events.sql"), RAW).unwrap();
    std::fs::write(sql.join("events.sql"), VIEW).unwrap();
    format!("sql.folder={}", lake.folder().join("sql").display())
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_of_folder_names_are_read_in_their_types() {
    let lake = SmallLake::new();
    let folder = declare(&lake);
    let settings = [folder.as_str(), "lake.name=hive"];
    for (at, count) in
        [("country=DE/hour=07", 3), ("country=DE/hour=08", 5), ("Country=C%C3%B4te%20d%27Ivoire/hour=07", 7)]
    {
        lake.write_as(&format!("events/dt=2026-01-05/{at}/a.parquet"), &rows(count)).await;
    }
    let none = "events/dt=2026-01-05/country=__HIVE_DEFAULT_PARTITION__/hour=__HIVE_DEFAULT_PARTITION__/a.parquet";
    lake.write_as(none, &rows(11)).await;
    let in_file = format!("SELECT *, 'AT' AS country, CAST(9 AS SMALLINT) AS hour FROM ({})", rows(13));
    lake.write_as("events/dt=2026-01-05/a.parquet", &in_file).await;

    let by = "SELECT session_id, dwell_ms, query, count(*) FROM events GROUP BY 1, 2, 3 ORDER BY 4";
    let expected = [
        "DE,7,2026-01-05,3",
        "DE,8,2026-01-05,5",
        "Côte d'Ivoire,7,2026-01-05,7",
        ",,2026-01-05,11",
        "AT,9,2026-01-05,13",
    ];
    assert_eq!(lake.rows(&settings, by), expected);
    let filters = [
        ("session_id = 'DE'", 8),
        ("session_id IS NULL", 11),
        ("session_id IS NOT NULL", 28),
        ("dwell_ms = 7", 10),
        ("dwell_ms > 7 AND session_id <> 'DE'", 13),
        ("query = '2026-01-05' AND session_id LIKE 'C%'", 7),
    ];
    let counted = filters.map(|(filter, n)| format!("(SELECT count(user_id) FROM events WHERE {filter}) AS c{n}"));
    let counts = filters.map(|(_, count)| count.to_string());
    assert_eq!(lake.rows(&settings, &format!("SELECT {}", counted.join(", "))), [counts.join(",")]);
    assert_eq!(lake.rows(&settings, "SELECT count(*) FROM unit_event"), ["39"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_value_of_another_type_refuses_its_file() {
    let lake = SmallLake::new();
    let folder = declare(&lake);
    let places = lake.places();
    let settings = [folder.as_str(), "lake.name=hive"];
    lake.write("events/dt=2026-01-05/country=DE/hour=07/a.parquet", &rows(1)).await;
    lake.write("events/dt=2026-01-05/country=DE/hour=all/b.parquet", &rows(1)).await;
    let refusal = refused(&lake.arguments(&places, &settings, "SELECT 1"), 3);
    assert!(
        refusal.contains("hour=all/b.parquet: column hour of the folder's name: expected Int64, found `all`"),
        "{refusal}"
    );
    std::fs::remove_dir_all(Path::new(&places[0]).join("events/dt=2026-01-05/country=DE/hour=all")).unwrap();
    lake.write("events/dt=2026-01-05/hour=07/c.parquet", &rows(1)).await;
    let refusal = refused(&lake.arguments(&places, &settings, "SELECT 1"), 3);
    assert!(refusal.contains("hour=07/c.parquet: column country is missing"), "{refusal}");
    // Without a declaration the folders say nothing.
    std::fs::remove_dir_all(Path::new(&places[0]).join("events/dt=2026-01-05/hour=07")).unwrap();
    lake.write(
        "events/dt=2026-01-05/country=DE/hour=07/a.parquet",
        "SELECT 'u1' AS user_id, TIMESTAMP '2026-01-05' AS ts, 'view' AS event_type, 'i' AS item_id",
    )
    .await;
    let plain = ["sql", "--lake", &places[0], "--date", DATE, "--format", "csv", "-c", "SELECT count(*) FROM events"];
    assert_eq!(done(&plain), "count(*)\n1\n");
}

const DELTA_LAKE: &str = "
import sys, duckdb, deltalake
rows = duckdb.sql('''SELECT 'u' || i AS user_id, TIMESTAMP '2026-01-05 10:00:00' AS ts, 'i1' AS item_id,
    CASE WHEN i < 2 THEN 'a b/c' WHEN i < 5 THEN 'DE' END AS country, i % 2 AS hour FROM range(9) t(i)''')
deltalake.write_deltalake(sys.argv[1], rows, partition_by=['country', 'hour'])
";

#[test]
fn partitions_of_a_delta_table_come_from_its_log() {
    let lake = SmallLake::new();
    let folder = declare(&lake);
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let events = Path::new(&lake.lake()).join("events");
    let ran = std::process::Command::new(python).args(["-c", DELTA_LAKE]).arg(events).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let settings = [folder.as_str(), "lake.name=hive", "lake.partition=none"];
    let by = "SELECT session_id, dwell_ms, query, count(*) FROM events GROUP BY 1, 2, 3 ORDER BY 1, 2";
    assert_eq!(lake.rows(&settings, by), ["DE,0,,2", "DE,1,,1", "a b/c,0,,1", "a b/c,1,,1", ",0,,2", ",1,,2"]);
}
