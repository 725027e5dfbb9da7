//! Days without any event: closed, quiet or missing, and what histories and labels make of them.

use intentcast::config::Partition;
use std::path::Path;

use crate::support::sessions;
use crate::support::shop::run;
use crate::support::small_lake::SmallLake;

/// A shop that sells 30 units of one item on every day of January but Sundays (the 4th, 11th, 18th and 25th) and the 22nd.
const SALES: &str = "SELECT concat('u', value % 30) AS user_id, 'purchase' AS event_type, 'i1' AS item_id, 1 AS quantity, \
     10.0 AS price, to_timestamp_micros((1767261600 + value / 30 * 86400) * 1000000) AS ts \
     FROM generate_series(0, 929) WHERE value / 30 NOT IN (3, 10, 17, 24, 21)";
const NONE: [&str; 1] = ["lake.partition=none"];

#[tokio::test(flavor = "multi_thread")]
async fn closed_days_have_no_demand_and_missing_days_are_unknown() {
    let shop = SmallLake::new();
    shop.write("events/a.parquet", SALES).await;
    let kinds = "SELECT CAST(d['day'] AS VARCHAR), d['kind'], d['rows_read'] FROM (SELECT unnest(lake_days()) AS d) \
                 WHERE d['kind'] <> 'open' ORDER BY 1";
    // On the first Sunday no other Sunday is known.
    let wanted = [
        "2026-01-04,missing,0",
        "2026-01-11,closed,0",
        "2026-01-18,closed,0",
        "2026-01-22,missing,0",
        "2026-01-25,closed,0",
    ];
    assert_eq!(shop.rows(&NONE, kinds), wanted);
    let days = "SELECT CAST(day AS VARCHAR), units, in_stock FROM item_days \
                WHERE day IN ('2026-01-04', '2026-01-11', '2026-01-22', '2026-01-23') ORDER BY 1";
    let wanted = ["2026-01-04,0.0,false", "2026-01-11,0.0,true", "2026-01-22,0.0,false", "2026-01-23,30.0,true"];
    assert_eq!(shop.rows(&NONE, days), wanted);
    // Run date 2026-02-01 is a Sunday.
    let ahead = "SELECT CAST(unnest(history['closed_dates']) AS VARCHAR) FROM item_history";
    let closed = shop.rows(&NONE, ahead);
    assert_eq!(closed[..5], ["2026-01-11", "2026-01-18", "2026-01-25", "2026-02-01", "2026-02-08"], "{closed:?}");
    let places = shop.places();
    let warned = run(&shop.arguments(&places, &NONE, "SELECT 1"));
    let log = String::from_utf8_lossy(&warned.stderr).into_owned();
    assert!(!log.contains("a night would stop"), "two of 31 days are missing: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_days_a_year_apart_are_no_demand_history() {
    let shop = SmallLake::new();
    for day in ["2025-01-31", "2026-01-31"] {
        let sales = format!(
            "SELECT concat('u', value) AS user_id, 'view' AS event_type, 'i1' AS item_id, \
             TIMESTAMP '{day} 10:00:00' AS ts FROM generate_series(1, 40)"
        );
        shop.write(&format!("events/{day}.parquet"), &sales).await;
    }
    let places = shop.places();
    let log = String::from_utf8(run(&shop.arguments(&places, &NONE, "SELECT 1")).stderr).unwrap();
    let warning = "89 of the 90 days before 2026-02-01 have no event (lake.missing_day_share = 0.1): \
                   2025-11-03 to 2026-01-30; a night would stop (exit 4)";
    assert!(log.contains(warning), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_of_missing_days_teach_no_demand() {
    let shop = SmallLake::new();
    shop.write("events/a.parquet", SALES).await;
    let [lake, output] = shop.places();
    let mut config = sessions::config(Path::new(&lake), Path::new(&output));
    config.lake.partition = Partition::None;
    let ctx = sessions::training_session(&config, "2026-01-19", "2026-01-31").await;
    // From Monday the 19th to Monday the 26th: the 22nd is missing, the 25th closed.
    let labels = "SELECT future_units[1:8] AS units, future_in_stock[1:8] AS in_stock FROM demand_labels";
    let rows = sessions::table(&ctx, labels).await;
    let wanted = "| [30.0, 30.0, 30.0, 0.0, 30.0, 30.0, 0.0, 30.0] | [1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0] |";
    assert!(rows.contains(wanted), "{rows}");
}
