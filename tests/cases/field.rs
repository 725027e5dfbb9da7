//! Inputs that failed at other shops' jobs, small: each is read with the right value, quarantined with a reason, or refused by name.

use std::path::Path;

use crate::support::lakes;
use crate::support::s3::S3Server;
use crate::support::shop::{done, refused};
use crate::support::small_lake::{DATE, GOOD, REASONS, SmallLake, TOTALS, event};

#[tokio::test(flavor = "multi_thread")]
async fn staging_folders_and_markers_are_ignored_and_counted() {
    let shop = SmallLake::new();
    let bought = event("1 AS quantity, 10.0 AS price");
    for file in [
        "events/dt=2026-01-05/a.parquet",
        "events/dt=2026-01-05/_temporary/0/attempt/a.parquet",
        "events/.spark-staging-1/dt=2026-01-05/a.parquet",
        "events/_spark_metadata/x.parquet",
    ] {
        shop.write(file, &bought).await;
    }
    shop.put("events/dt=2026-01-05/_SUCCESS", b"");
    shop.put("events/readme.txt", b"about this folder");
    assert_eq!(shop.totals(), "1,1,1,10.0");
    let places = shop.places();
    let plan = done(&["nightly", "--lake", &places[0], "--output", &places[1], "--date", DATE, "--dry-run"]);
    assert!(plan.contains("ignores objects that are no data: hidden 4, not_parquet 1"), "{plan}");
    let log = String::from_utf8(crate::support::shop::run(&shop.arguments(&places, &[], TOTALS)).stderr).unwrap();
    assert!(
        log.contains("ignored 1 files that are not Parquet, such as") && log.contains("events/readme.txt"),
        "{log}"
    );
    assert!(log.contains("hidden 4, not_parquet 1"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parquet_files_are_read_whatever_their_ending() {
    let shop = SmallLake::new();
    let names = ["a.parquet", "a.PARQUET", "a.parq", "000000_0", "a.parquet.gzip", "a%20b.parquet", "part (1).parquet"];
    for (day, name) in names.into_iter().enumerate() {
        let file = format!("events/dt=2026-01-{:02}/{name}", day + 5);
        let ts = format!("2026-01-{:02}", day + 5);
        shop.write_as(&file, &event("1 AS quantity, 1.0 AS price").replace("2026-01-05", &ts)).await;
    }
    assert_eq!(shop.totals(), "1,7,7,7.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_or_encrypted_file_is_refused_by_name() {
    let shop = SmallLake::new();
    shop.write("events/dt=2026-01-05/a.parquet", GOOD).await;
    shop.put("events/dt=2026-01-06/cut.parquet", b"");
    let refusal = shop.refusal();
    assert!(refusal.contains("dt=2026-01-06/cut.parquet: expected a whole Parquet file, found: 0 bytes"), "{refusal}");
    shop.put("events/dt=2026-01-06/cut.parquet", b"PAR1 secret columns, then a footer \x00\x01\x00\x00PARE");
    let refusal = shop.refusal();
    assert!(
        refusal.contains("cut.parquet: expected a whole Parquet file, found: a file that is encrypted"),
        "{refusal}"
    );
    // Files of later days may still be uploading.
    std::fs::rename(
        Path::new(&shop.lake()).join("events/dt=2026-01-06"),
        Path::new(&shop.lake()).join("events/dt=2026-02-01"),
    )
    .unwrap();
    assert_eq!(shop.totals(), "200,200,0,0.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_dates_below_the_lake_are_partitions() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("dt=2025-12-31/lake");
    lakes::write(&lake, "events/dt=2026-01-05/a.parquet", &event("1 AS quantity, 2.5 AS price")).await;
    let output = folder.path().join("out");
    let places = ["--lake", lake.to_str().unwrap(), "--output", output.to_str().unwrap(), "--date", DATE];
    let printed = done(&[&["sql"], &places[..], &["--format", "csv", "-c", TOTALS]].concat());
    assert_eq!(printed.lines().nth(1), Some("1,1,1,2.5"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_not_an_iso_date_is_refused() {
    for value in ["20260105", "2026-1-5", "__HIVE_DEFAULT_PARTITION__"] {
        let shop = SmallLake::new();
        shop.write(&format!("events/dt={value}/a.parquet"), GOOD).await;
        let refusal = shop.refusal();
        assert!(
            refusal.contains(&format!("partition dt: expected an ISO date (dt=2026-03-01), found `{value}`")),
            "{refusal}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn column_names_match_in_any_case_but_not_twice() {
    let shop = SmallLake::new();
    shop.write("events/dt=2026-01-05/a.parquet", &event("2 AS quantity, 10.0 AS price")).await;
    let other = event("4 AS \"Quantity\", 10.0 AS \"PRICE\"").replace("AS user_id", "AS \"User_Id\"");
    shop.write("events/dt=2026-01-05/b.parquet", &other).await;
    assert_eq!(shop.totals(), "1,2,6,60.0");
    assert_eq!(shop.rows(&[], "SELECT count(*) FROM events WHERE user_id = 'u1' AND price > 5"), ["2"]);
    shop.write("events/dt=2026-01-05/c.parquet", &event("1 AS quantity, 10.0 AS price, 11.0 AS \"Price\"")).await;
    let refusal = shop.refusal();
    assert!(refusal.contains("c.parquet: column price: expected once, found 2 times (price, Price)"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_may_be_numbers_and_numbers_of_any_width() {
    let shop = SmallLake::new();
    let widths = ["CAST(2 AS SMALLINT)", "CAST(2 AS INT UNSIGNED)", "CAST(2 AS DECIMAL(10, 0))"];
    for (at, quantity) in widths.into_iter().enumerate() {
        let rows =
            event(&format!("{quantity} AS quantity, CAST(1.5 AS REAL) AS price")).replace("'u1'", "CAST(7 AS BIGINT)");
        shop.write(&format!("events/dt=2026-01-05/{at}.parquet"), &rows).await;
    }
    assert_eq!(shop.totals(), "1,3,6,9.0");
    assert_eq!(shop.rows(&[], "SELECT user_id FROM user_counts"), ["7"]);
}

/// Follows the hint of a refused type to the letter: copies of two files, the declaration and the expression that it names.
fn follow_hint(shop: &SmallLake, refusal: &str, column: &str) -> String {
    let quoted: Vec<&str> = refusal.lines().find(|line| line.starts_with("hint")).unwrap().split('`').collect();
    let (declaration, expression) = (quoted[1], quoted[3]);
    let overlay = shop.folder().join("overlay");
    let canonical = overlay.join("lakes/canonical");
    std::fs::create_dir_all(&canonical).unwrap();
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/lakes/canonical");
    let declared = std::fs::read_to_string(built_in.join("raw_events.sql")).unwrap();
    let declared = declared.lines().map(|line| match line.trim().split(' ').next() == Some(column) {
        true => format!("    {declaration},"),
        false => line.into(),
    });
    std::fs::write(canonical.join("raw_events.sql"), declared.collect::<Vec<_>>().join("\n")).unwrap();
    let view = std::fs::read_to_string(built_in.join("events.sql")).unwrap();
    std::fs::write(canonical.join("events.sql"), view.replace(&format!(" {column},"), &format!(" {expression},")))
        .unwrap();
    format!("sql.folder={}", overlay.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn following_the_hint_of_a_wrong_type_reads_the_file() {
    let cases = [
        ("ts", "'2026-01-05 10:00:00' AS ts", "2 AS quantity"),
        ("ts", "1767607200000 AS ts", "2 AS quantity"),
        ("quantity", "TIMESTAMP '2026-01-05 10:00:00' AS ts", "CAST(2 AS DOUBLE) AS quantity"),
    ];
    for (column, ts, quantity) in cases {
        let shop = SmallLake::new();
        let rows = format!(
            "SELECT 'u1' AS user_id, {ts}, 'purchase' AS event_type, 'i1' AS item_id, {quantity}, 3.0 AS price"
        );
        shop.write("events/a.parquet", &rows).await;
        let setting = follow_hint(&shop, &shop.refusal(), column);
        assert_eq!(shop.rows(&[&setting], TOTALS), ["1,1,2,6.0"], "{column}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_ones_own_sql_names_ones_own_file() {
    let shop = SmallLake::new();
    shop.write("events/a.parquet", &event("2 AS quantity, 3.0 AS price")).await;
    let folder = shop.folder().join("overlay");
    std::fs::create_dir_all(folder.join("lakes/canonical")).unwrap();
    let setting = format!("sql.folder={}", folder.display());
    let view =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/lakes/canonical/events.sql")).unwrap();
    let places = shop.places();
    for (wrong, expected) in [
        (view.replace(" ts,", " CAST(ts AS VARCHAR) AS ts,"), "column ts: expected Timestamp(µs), found Utf8"),
        (view.replace(" rating,", ""), "expected a column rating, found"),
        (view.replace(" ts,", " no_such_column AS ts,"), "no_such_column"),
    ] {
        std::fs::write(folder.join("lakes/canonical/events.sql"), wrong).unwrap();
        let refusal = refused(&shop.arguments(&places, &[&setting], TOTALS), 2);
        assert!(refusal.contains("sql/lakes/canonical/events.sql: ") && refusal.contains(expected), "{refusal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blank_ids_are_no_ids() {
    let shop = SmallLake::new();
    let row = |user: &str, id: &str, item: &str| {
        format!(
            "SELECT '{user}' AS user_id, '{id}' AS event_id, TIMESTAMP '2026-01-05 10:00:00' AS ts, 'purchase' AS event_type, \
             '{item}' AS item_id, 1 AS quantity, 1.0 AS price"
        )
    };
    let rows = [
        row("", "", "i1"),
        row(" ", "", "i1"),
        row("\t", " ", "i1"),
        row("\u{a0}", "", "i1"),
        row("u1", "", "i1"),
        row("u1 ", "", "i1"),
        row("u1", "e", ""),
        row("u1", "e", "i1"),
    ];
    shop.write("events/a.parquet", &rows.join(" UNION ALL ")).await;
    // Blank event ids repeat nothing; a user_id with a space at its end is another user; guests buy, too.
    assert_eq!(shop.rows(&["lake.quarantine_share_max=0.5"], TOTALS), ["2,3,3,3.0"]);
    assert_eq!(shop.rows(&["lake.quarantine_share_max=0.5"], REASONS), ["repeated_event_id,,1"]);
    let sold =
        shop.rows(&["lake.quarantine_share_max=0.5"], "SELECT item_id, sum(units) FROM unit_item_day GROUP BY 1");
    assert!(sold == ["i1,6"] || sold == ["i1,7"], "{sold:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_row_of_an_event_id_to_arrive_counts() {
    let row = |seconds: &str, quantity: u32, arrived: &str| {
        event(&format!(
            "'e1' AS event_id, {quantity} AS quantity, 1.0 AS price, CAST({arrived} AS TIMESTAMP) AS arrived_at"
        ))
        .replace("10:00:00", seconds)
    };
    // A row without arrived_at arrived when it happened. The second row arrives after the night that is asked for.
    let shop = SmallLake::new();
    let rows = [row("10:00:09", 2, "NULL"), row("10:00:00", 5, "'2026-02-03'")];
    shop.write("events/dt=2026-01-05/a.parquet", &rows.join(" UNION ALL ")).await;
    assert_eq!(shop.rows(&["lake.quarantine_share_max=0.5"], TOTALS), ["1,1,2,2.0"]);
    let shop = SmallLake::new();
    shop.write("events/dt=2026-01-05/a.parquet", &row("10:00:09", 2, "NULL")).await;
    shop.write("events/dt=2026-01-06/a.parquet", &row("10:00:00", 5, "NULL")).await;
    let settings = ["lake.partition=ingest_date", "lake.arrival=ingest_date", "lake.quarantine_share_max=0.5"];
    assert_eq!(shop.rows(&settings, TOTALS), ["1,1,2,2.0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_no_shop_has_are_quarantined_with_their_column() {
    let cases = [
        ("1 AS quantity, 1e15 AS price", "out_of_range,price,1"),
        ("1 AS quantity, 1e300 AS price", "out_of_range,price,1"),
        ("9223372036854775807 AS quantity, 1.0 AS price", "out_of_range,quantity,1"),
        ("CAST('-9223372036854775808' AS BIGINT) AS quantity", "out_of_range,quantity,1"),
        ("9223372036854775807 AS dwell_ms", "out_of_range,dwell_ms,1"),
        ("-1 AS dwell_ms", "out_of_range,dwell_ms,1"),
        ("1000 AS rating", "out_of_range,rating,1"),
        ("-1.0 AS price", "negative_price,,1"),
        ("CAST('NaN' AS DOUBLE) AS price", "nan_price,,1"),
        ("arrow_cast('9999-12-31', 'Timestamp(Microsecond, None)') AS arrived_at", "arrival_in_future,,1"),
        ("TIMESTAMP '1970-01-01' AS arrived_at", "time_too_early,arrived_at,1"),
    ];
    let rows: Vec<String> = cases.iter().map(|(columns, _)| event(columns)).collect();
    each_is_quarantined(&rows, &cases.map(|(_, expected)| expected)).await;
}

/// Writes each row to a file of its own among good rows, and compares `reason,column,rows` of each file.
async fn each_is_quarantined(rows: &[String], expected: &[&str]) {
    let shop = SmallLake::new();
    shop.write("events/a.parquet", GOOD).await;
    for (case, row) in rows.iter().enumerate() {
        shop.write(&format!("events/case-{case:02}.parquet"), row).await;
    }
    let some_bad = ["lake.quarantine_share_max=0.5"];
    assert_eq!(shop.rows(&some_bad, TOTALS), ["200,200,0,0.0"]);
    let reasons = "SELECT reason, coalesce(column_name, ''), count(*) FROM unit_quarantine \
                   GROUP BY source_file, reason, column_name ORDER BY source_file";
    assert_eq!(shop.rows(&some_bad, reasons), expected, "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn times_that_no_shop_has_are_quarantined() {
    let micros = |n: &str| format!("arrow_cast(CAST('{n}' AS BIGINT), 'Timestamp(Microsecond, None)')");
    let millis = |n: &str| format!("arrow_cast(CAST('{n}' AS BIGINT), 'Timestamp(Millisecond, None)')");
    let cases = [
        (micros("0"), "time_too_early,,1"),
        (micros("-9223372036854775808"), "time_too_early,,1"),
        (micros("9223372036854775807"), "time_in_future,,1"),
        (millis("9089000000000000"), "time_in_future,,1"),
        (millis("9223372036854775807"), "time_in_future,,1"),
        ("TIMESTAMP '1989-12-31 23:59:59'".into(), "time_too_early,,1"),
        ("CAST(NULL AS TIMESTAMP)".into(), "null_time,,1"),
    ];
    let row = |ts: &String| event("1 AS quantity").replace("TIMESTAMP '2026-01-05 10:00:00'", ts);
    let rows: Vec<String> = cases.iter().map(|(ts, _)| row(ts)).collect();
    each_is_quarantined(&rows, &cases.map(|(_, expected)| expected)).await;
    let shop = SmallLake::new();
    shop.write("events/a.parquet", &event("1 AS quantity, 1.0 AS price").replace("2026-01-05", "1985-01-05")).await;
    assert_eq!(shop.rows(&["lake.first_date=1980-01-01"], TOTALS), ["1,1,1,1.0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn small_prices_and_quantities_of_zero_add_up() {
    let shop = SmallLake::new();
    let rows = [
        event("100000 AS quantity, 0.00004 AS price"),
        event("3 AS quantity, 19.99 AS price"),
        event("0 AS quantity, 5.0 AS price"),
        event("-1 AS quantity, 19.99 AS price"),
    ];
    shop.write("events/a.parquet", &rows.join(" UNION ALL ")).await;
    assert_eq!(shop.totals(), "1,4,100003,63.97");
    let item = shop.rows(&[], "SELECT units, returns, revenue, price_events FROM unit_item_day");
    assert_eq!(item, ["100003,1,63.9700,4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_beyond_its_column_is_refused_by_file_and_column() {
    let shop = SmallLake::new();
    shop.write("events/a.parquet", GOOD).await;
    shop.write("events/big.parquet", &event("CAST('18446744073709551615' AS BIGINT UNSIGNED) AS quantity")).await;
    let places = shop.places();
    let refusal = refused(&shop.arguments(&places, &[], TOTALS), 3);
    assert!(refusal.contains("big.parquet: column quantity") && refusal.contains("18446744073709551615"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn prices_in_two_currencies_are_refused_until_one_is_chosen() {
    let shop = SmallLake::new();
    let rows = [
        event("1 AS quantity, 10.0 AS price, 'EUR' AS currency"),
        event("2 AS quantity, 5.0 AS price, 'eur' AS currency"),
        event("1 AS quantity, 1.0 AS price, CAST(NULL AS VARCHAR) AS currency"),
        event("1 AS quantity, 1500.0 AS price, 'JPY' AS currency"),
    ];
    shop.write("events/a.parquet", &rows.join(" UNION ALL ")).await;
    let places = shop.places();
    let refusal = refused(&shop.arguments(&places, &[], TOTALS), 3);
    assert!(refusal.contains("prices in 2 currencies (rows: EUR 2, JPY 1); nothing was stored"), "{refusal}");
    let chosen = refusal.split('`').find(|part| part.starts_with("lake.currency")).unwrap().replace(['"', ' '], "");
    assert_eq!(chosen, "lake.currency=EUR");
    assert_eq!(shop.rows(&[&chosen], TOTALS), ["1,3,4,21.0"]);
    // A quarter of the rows is more than the accepted share of bad rows; other currencies count from a half on.
    assert_eq!(shop.rows(&[&chosen], REASONS), ["other_currency,,1"]);
    let wrong = refused(&shop.arguments(&places, &["lake.currency=USD"], TOTALS), 4);
    assert!(wrong.contains("other_currency: 3"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_without_events_says_what_it_found() {
    let shop = SmallLake::new();
    shop.put("events/a.csv", b"user_id,ts");
    let refusal = shop.refusal();
    assert!(refusal.contains("lake/events/: no Parquet files; ignored not_parquet 1"), "{refusal}");
}

#[test]
fn a_bucket_that_does_not_exist_is_a_usage_error() {
    let server = S3Server::start();
    let endpoint = format!("s3.endpoint={}", server.endpoint);
    let keys = [
        "s3.access_key_id=test-key",
        "s3.secret_access_key=test-secret",
        "s3.allow_http=true",
        "s3.region=us-east-1",
        "s3.path_style=true",
    ];
    let mut arguments = vec!["--set", &endpoint];
    keys.iter().for_each(|key| arguments.extend(["--set", key]));
    arguments.extend(["sql", "--lake", "s3://nosuchbucket/lake", "--date", DATE, "-c", "SELECT 1"]);
    let refusal = refused(&arguments, 2);
    assert!(refusal.contains("s3://nosuchbucket/") && refusal.contains("does not exist"), "{refusal}");
    assert!(!refusal.contains("<?xml"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_columns_are_read_by_inner_names_in_any_width() {
    let lake = SmallLake::new();
    let export = |items: &str| {
        format!(
            "SELECT 1767607200000000 AS event_timestamp, 'purchase' AS event_name, 'u1' AS user_pseudo_id, \
             named_struct('country', 'DE') AS geo, MAP {{'source': 'mail'}} AS params, {items} AS items"
        )
    };
    let files = [
        "make_array(named_struct('item_id', 'i1', 'price', 2.0, 'quantity', 3))",
        "make_array(named_struct('item_id', 'i2', 'price', CAST(1.5 AS REAL), 'quantity', CAST(2 AS SMALLINT), 'added', true))",
        "make_array(named_struct('quantity', 5, 'item_id', 'i3'), named_struct('quantity', 1, 'item_id', 'i4'))",
    ];
    for (at, items) in files.into_iter().enumerate() {
        lake.write(&format!("events/{at}.parquet"), &export(items)).await;
    }
    let sql = lake.folder().join("sql/lakes/export");
    std::fs::create_dir_all(&sql).unwrap();
    let raw = "CREATE TABLE raw_events (event_timestamp BIGINT NOT NULL, event_name VARCHAR NOT NULL, user_pseudo_id VARCHAR, \
               items ARRAY<STRUCT<item_id VARCHAR, price DOUBLE, quantity BIGINT>>, \
               geo STRUCT<country VARCHAR, city VARCHAR>, params MAP(VARCHAR, VARCHAR))";
    let view = "WITH lines AS (SELECT *, unnest(items) AS item FROM raw_events) \
                SELECT CAST(NULL AS VARCHAR) AS event_id, user_pseudo_id AS user_id, CAST(NULL AS VARCHAR) AS session_id, \
                to_timestamp_micros(event_timestamp) AS ts, CAST(NULL AS TIMESTAMP(6)) AS arrived_at, event_name AS event_type, \
                item['item_id'] AS item_id, concat(geo['country'], coalesce(geo['city'], '-'), \
                map_extract(params, 'source')[1]) AS query, CAST(NULL AS BIGINT) AS dwell_ms, item['quantity'] AS quantity, \
                item['price'] AS price, CAST(NULL AS VARCHAR) AS currency, CAST(NULL AS BIGINT) AS rating, \
                CAST(NULL AS VARCHAR) AS text, _file, _dt FROM lines";
    std::fs::write(sql.join("raw_events.sql"), raw).unwrap();
    std::fs::write(sql.join("events.sql"), view).unwrap();
    let folder = format!("sql.folder={}", lake.folder().join("sql").display());
    let settings = [folder.as_str(), "lake.name=export", "lake.partition=none"];
    let found = lake.rows(&settings, "SELECT item_id, quantity, price, query FROM events ORDER BY item_id");
    assert_eq!(found, ["i1,3,2.0,DE-mail", "i2,2,1.5,DE-mail", "i3,5,,DE-mail", "i4,1,,DE-mail"]);
    let sold = lake.rows(&settings, "SELECT sum(units), sum(revenue) FROM unit_item_day");
    assert_eq!(sold, ["11,9.0000"]);
}

/// Runs a script of the test environment's Python.
fn python(script: &str, folder: &Path) {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let ran = std::process::Command::new(python).args(["-c", script]).arg(folder).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

const DELTA_LAKE: &str = "
import sys, duckdb, deltalake
folder = sys.argv[1]
rows = lambda n, day: duckdb.sql(f'''SELECT 'u' || i AS user_id, TIMESTAMP '{day} 10:00:00' AS ts, 'purchase' AS event_type,
    'i1' AS item_id, 1::BIGINT AS quantity, 2.0::DOUBLE AS price, '{day}' AS dt FROM range({n}) t(i)''')
deltalake.write_deltalake(folder, rows(5, '2026-01-05'), partition_by=['dt'])
deltalake.write_deltalake(folder, rows(3, '2026-01-06'), mode='append')
deltalake.DeltaTable(folder).delete(\"user_id = 'u4' OR user_id = 'u2'\")
";

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_table_is_read_through_its_log() {
    let lake = SmallLake::new();
    let events = lake.folder().join("lake/events");
    python(DELTA_LAKE, &events);
    // Deleted rows stay in files that the log no longer names.
    assert_eq!(lake.totals(), "3,5,5,10.0");
    assert_eq!(lake.rows(&[], "SELECT DISTINCT _dt FROM events ORDER BY 1"), ["2026-01-05", "2026-01-06"]);
    let log = events.join("_delta_log");
    let mapped = r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["columnMapping"],"writerFeatures":["columnMapping"]}}"#;
    std::fs::write(log.join("00000000000000000003.json"), mapped).unwrap();
    let last = std::fs::read_to_string(log.join("00000000000000000000.json")).unwrap();
    let metadata = last.lines().find(|line| line.contains("\"metaData\"")).unwrap();
    let named = metadata.replace("\"configuration\":{}", "\"configuration\":{\"delta.columnMapping.mode\":\"name\"}");
    assert_ne!(metadata, named);
    std::fs::write(log.join("00000000000000000003.json"), format!("{mapped}\n{named}\n")).unwrap();
    let places = lake.places();
    let refusal = refused(&lake.arguments(&places, &[], TOTALS), 3);
    assert!(refusal.contains("events/") && refusal.to_lowercase().contains("column"), "{refusal}");
    assert!(!refusal.contains("move it out") && !refusal.contains("remove"), "{refusal}");
}
