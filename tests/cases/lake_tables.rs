//! Lakes whose events are joined from several raw tables, and lakes with exchange rates.

use std::path::Path;

use crate::support::lakes;
use crate::support::pages;
use crate::support::shop::{done, refused, run};
use crate::support::small_lake::{DATE, REASONS, SmallLake, TOTALS, event};

#[test]
fn the_page_about_several_tables_gives_the_right_sums() {
    let folder = tempfile::tempdir().unwrap();
    let printed = pages::follow("docs/howto/lake-tables.md", folder.path(), str::to_string);
    // In Paris both orders of the first evening are half an hour from midnight; the dollars are converted at 0.90.
    let expected = "item_id,event_day,units,returns,revenue\n\
        A-1,2026-03-01,2,0,25.0000\nA-1,2026-03-02,1,0,12.6000\nB-2,2026-03-01,1,0,3.0000\nB-2,2026-03-03,0,1,0.0000\n";
    assert_eq!(printed.last().unwrap(), expected);
    let config = folder.path().join("shop.toml").display().to_string();
    let asked = |sql: &str| {
        let query = ["--config", &config, "sql", "--date", "2026-03-04", "--format", "csv", "-c", sql];
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_intentcast"))
            .args(query)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(asked("SELECT user_id, consent FROM users ORDER BY 1"), "user_id,consent\n7,true\n8,false\n");
    assert!(asked("SHOW TABLES").contains(",raw_orders,"));
    assert_eq!(
        asked("SELECT count(*) AS n, max(_file) LIKE '%/orders/%' AS named FROM raw_orders"),
        "n,named\n4,true\n"
    );
}

/// A lake of order lines, orders and customers by country, in SQL of its own.
struct OrderLake {
    lake: SmallLake,
    folder: String,
}

const RAW_LINES: &str =
    "CREATE TABLE raw_events (order_id VARCHAR NOT NULL, sku VARCHAR, price DOUBLE) LOCATION 'sales/lines'";
const RAW_ORDERS: &str =
    "CREATE TABLE raw_orders (order_id VARCHAR NOT NULL, buyer VARCHAR, bought_at TIMESTAMP(6) NOT NULL)";
const EVENTS: &str = "SELECT CAST(NULL AS VARCHAR) AS event_id, o.buyer AS user_id, l.order_id AS session_id, \
    o.bought_at AS ts, CAST(NULL AS TIMESTAMP(6)) AS arrived_at, 'purchase' AS event_type, l.sku AS item_id, \
    CAST(NULL AS VARCHAR) AS query, CAST(NULL AS BIGINT) AS dwell_ms, CAST(NULL AS BIGINT) AS quantity, l.price, \
    CAST(NULL AS VARCHAR) AS currency, CAST(NULL AS BIGINT) AS rating, CAST(NULL AS VARCHAR) AS text, l._file, l._dt \
    FROM raw_events AS l LEFT JOIN raw_orders AS o ON l.order_id = o.order_id";

impl OrderLake {
    async fn new() -> Self {
        let lake = SmallLake::new();
        let folder = lake.folder().join("sql");
        let made = Self { folder: folder.display().to_string(), lake };
        made.sql("raw_events", RAW_LINES);
        made.sql("raw_orders", RAW_ORDERS);
        made.sql("events", EVENTS);
        let lines = "SELECT concat('o', value % 40) AS order_id, concat('i', value % 3) AS sku, 2.0 AS price \
                     FROM generate_series(1, 200)";
        made.lake.write("sales/lines/a.parquet", lines).await;
        made.orders("'u1'").await;
        made
    }

    fn sql(&self, file: &str, text: &str) {
        let folder = Path::new(&self.folder).join("lakes/shop");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{file}.sql")), format!("-- one row per line\n{text}")).unwrap();
    }

    /// Writes the table of orders, all of one buyer.
    async fn orders(&self, buyer: &str) {
        let orders = format!(
            "SELECT concat('o', value) AS order_id, {buyer} AS buyer, TIMESTAMP '2026-01-05 10:00:00' AS bought_at \
             FROM generate_series(0, 39)"
        );
        self.lake.write("orders/a.parquet", &orders).await;
    }

    fn settings(&self) -> [String; 3] {
        [format!("sql.folder={}", self.folder), "lake.name=shop".into(), "lake.partition=none".into()]
    }

    fn arguments(&self, verb: &[&str]) -> Vec<String> {
        let places = self.lake.places();
        let set = self.settings().into_iter().flat_map(|setting| ["--set".to_string(), setting]);
        let fixed = ["--lake", &places[0], "--output", &places[1], "--date", DATE];
        set.chain(verb.iter().chain(&fixed).map(|argument| argument.to_string())).collect()
    }

    fn rows(&self, sql: &str) -> Vec<String> {
        let settings = self.settings();
        self.lake.rows(&settings.each_ref().map(String::as_str), sql)
    }

    /// Returns what a query over the lake alone prints when it is refused.
    fn refusal(&self, code: i32) -> String {
        let (lake, settings) = (self.lake.lake(), self.settings());
        let set = settings.iter().flat_map(|setting| ["--set", setting]);
        let query = ["sql", "--lake", &lake, "--date", DATE, "-c", "SELECT count(*), max(user_id) FROM events"];
        refused(&set.chain(query).collect::<Vec<_>>(), code)
    }

    /// Returns what a verb prints and logs.
    fn said(&self, verb: &[&str]) -> String {
        let output = run(&self.arguments(verb).iter().map(String::as_str).collect::<Vec<_>>());
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
        String::from_utf8(said).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_raw_table_rebuilds_the_rollups_and_says_so() {
    let shop = OrderLake::new().await;
    let refresh = ["sql", "--refresh", "-c", TOTALS];
    let dry_run = ["nightly", "--dry-run"];
    assert_eq!(shop.rows(TOTALS), ["1,200,200,400.0"]);
    shop.said(&refresh);
    let plan = shop.said(&dry_run);
    assert!(plan.contains("reads 0 new event files") && !plan.contains("changed since"), "{plan}");

    shop.orders("concat('u', value % 4)").await;
    let bytes = std::fs::metadata(shop.lake.folder().join("lake/sales/lines/a.parquet")).unwrap().len();
    let changed =
        format!("changed since the rollups were built: raw_orders; reads 1 event files ({bytes} bytes) again");
    let plan = shop.said(&dry_run);
    assert!(plan.contains(&changed) && plan.contains("reads 1 new event files"), "{plan}");
    assert!(shop.said(&refresh).contains(&changed));
    assert_eq!(shop.rows(TOTALS), ["4,200,200,400.0"]);
    // A table that only master data reads changes no rollup.
    shop.sql("raw_products", "CREATE TABLE raw_products (sku VARCHAR NOT NULL)");
    shop.lake.write("products/a.parquet", "SELECT 'i1' AS sku").await;
    shop.said(&refresh);
    shop.lake.write("products/b.parquet", "SELECT 'i2' AS sku").await;
    let plan = shop.said(&dry_run);
    assert!(plan.contains("reads 0 new event files"), "{plan}");
    assert_eq!(shop.rows("SELECT sku FROM raw_products ORDER BY 1"), ["i1", "i2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_raw_tables_are_ignored_or_refused_by_name() {
    let shop = OrderLake::new().await;
    shop.lake.put("orders/_SUCCESS", b"");
    shop.lake.put("orders/readme.txt", b"about orders");
    assert_eq!(shop.rows(TOTALS), ["1,200,200,400.0"]);
    let plan = shop.said(&["nightly", "--dry-run"]);
    assert!(plan.contains("ignores objects that are no data: hidden 1, not_parquet 1"), "{plan}");

    shop.lake.write("orders/b.parquet", "SELECT 'o1' AS order_id, 'u1' AS buyer").await;
    let refusal = shop.refusal(3);
    assert!(refusal.contains("orders/b.parquet: column bought_at is missing"), "{refusal}");
    assert!(refusal.contains("lakes/shop/raw_orders.sql") && refusal.contains("lakes/shop/events.sql"), "{refusal}");
    shop.lake.put("orders/b.parquet", b"PAR1");
    assert!(shop.refusal(3).contains("orders/b.parquet: expected a whole Parquet file"));
    std::fs::remove_file(shop.lake.folder().join("lake/orders/b.parquet")).unwrap();
    let orders = shop.lake.folder().join("lake/orders/a.parquet");
    let broken = "SELECT order_id, '@@@@' AS buyer, bought_at FROM rows";
    std::thread::spawn(move || lakes::break_text(&orders, broken)).join().unwrap();
    let settings = shop.settings();
    let places = shop.lake.places();
    let refusal = refused(&shop.lake.arguments(&places, &settings.each_ref().map(String::as_str), TOTALS), 3);
    assert!(refusal.contains("orders/a.parquet: column buyer"), "{refusal}");
    std::fs::remove_dir_all(shop.lake.folder().join("lake/orders")).unwrap();
    let refusal = shop.refusal(3);
    assert!(refusal.contains("lake/orders/: no Parquet files") && refusal.contains("raw_orders.sql"), "{refusal}");
    std::fs::remove_dir_all(shop.lake.folder().join("lake/sales")).unwrap();
    let refusal = shop.refusal(3);
    assert!(refusal.contains("lake/sales/lines/: no Parquet files"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_sql_of_raw_tables_is_refused_by_file() {
    let shop = OrderLake::new().await;
    for (file, text, expected) in [
        ("raw_orders", "SELECT 1", "sql/lakes/shop/raw_orders.sql: expected one CREATE TABLE"),
        ("raw_orders", "CREATE TABLE raw_orders (id VARCHAR) LOCATION '../orders'", "raw_orders.sql: LOCATION"),
        ("raw_orders", "CREATE TABLE raw_orders (id VARCHAR) LOCATION 'sales'", "folder sales/lines/ is within sales/"),
        ("raw_order-x", "CREATE TABLE x (id VARCHAR)", "raw_order-x.sql: expected a name of letters"),
        ("events", &EVENTS.replace("raw_orders", "raw_order"), "sql/lakes/shop/events.sql: "),
        ("events", &EVENTS.replace("o.buyer", "o.buyr"), "sql/lakes/shop/events.sql: "),
    ] {
        let path = Path::new(&shop.folder).join(format!("lakes/shop/{file}.sql"));
        let before = std::fs::read(&path).ok();
        shop.sql(file, text);
        let refusal = shop.refusal(2);
        assert!(refusal.contains(expected), "{refusal}");
        match before {
            Some(before) => std::fs::write(path, before).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
    }
    assert_eq!(shop.rows(TOTALS), ["1,200,200,400.0"]);
}

/// Writes an order export of random rows and prints what it sold, by DuckDB alone.
const RANDOM_EXPORT: &str = "
import sys, pathlib, duckdb
lake = pathlib.Path(sys.argv[1])
for table in ['sales/lines', 'orders', 'rates']:
    (lake / table).mkdir(parents=True, exist_ok=True)
duckdb.sql('SELECT setseed(0.4)')
duckdb.sql('''CREATE TABLE orders AS SELECT 'o' || i AS order_id, 'u' || floor(random() * 300)::INT AS buyer,
    TIMESTAMP '2026-01-02' + to_seconds(floor(random() * 2400000)::BIGINT) AS bought_at,
    CASE WHEN random() < 0.3 THEN 'USD' WHEN random() < 0.1 THEN 'JPY' WHEN random() < 0.05 THEN 'GBP' ELSE 'EUR' END AS money
    FROM range(3000) t(i)''')
duckdb.sql('''CREATE TABLE lines AS SELECT 'o' || floor(random() * 3050)::INT AS order_id, 'i' || floor(random() * 20)::INT AS sku,
    floor(random() * 100000)::INT / 100.0::DOUBLE AS price FROM range(9000)''')
duckdb.sql('''CREATE TABLE rates AS SELECT currency, day::DATE AS day, 0.5 + floor(random() * 1000) / 2000.0 AS rate
    FROM range(DATE '2025-12-20', DATE '2026-02-10', INTERVAL 3 DAY) d(day), (VALUES ('USD'), ('JPY')) c(currency)''')
for part in range(3):
    duckdb.sql(f'SELECT * FROM lines WHERE hash(order_id) % 3 = {part}').write_parquet(str(lake / f'sales/lines/{part}.parquet'))
    duckdb.sql(f'SELECT * FROM orders WHERE hash(buyer) % 3 = {part}').write_parquet(str(lake / f'orders/{part}.parquet'))
duckdb.sql('FROM rates').write_parquet(str(lake / 'rates/a.parquet'))
sold = duckdb.sql('''SELECT sku, l.price * coalesce(r.rate, 1) AS euros, buyer,
        CASE WHEN bought_at IS NULL THEN 'null_time' WHEN money <> 'EUR' AND rate IS NULL THEN 'other_currency' END AS reason
    FROM lines l LEFT JOIN orders o USING (order_id)
    ASOF LEFT JOIN rates r ON r.currency = o.money
        AND ((o.bought_at AT TIME ZONE 'UTC') AT TIME ZONE 'Europe/Paris')::DATE >= r.day''')
for row in duckdb.sql('''SELECT sku, count(*), sum(euros) FROM sold WHERE reason IS NULL GROUP BY sku ORDER BY sku''').fetchall():
    print(*row, sep=',')
for row in duckdb.sql('''SELECT reason, count(*) FROM sold WHERE reason IS NOT NULL GROUP BY reason ORDER BY reason''').fetchall():
    print(*row, sep=',')
";

#[tokio::test(flavor = "multi_thread")]
async fn joined_and_converted_sums_are_those_of_duckdb() {
    let shop = OrderLake::new().await;
    for folder in ["sales", "orders"] {
        std::fs::remove_dir_all(shop.lake.folder().join("lake").join(folder)).unwrap();
    }
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let counted =
        std::process::Command::new(python).args(["-c", RANDOM_EXPORT]).arg(shop.lake.lake()).output().unwrap();
    assert!(counted.status.success(), "{}", String::from_utf8_lossy(&counted.stderr));
    let counted = String::from_utf8(counted.stdout).unwrap();
    let expected: Vec<Vec<&str>> = counted.lines().map(|line| line.split(',').collect()).collect();
    let (reasons, sold): (Vec<_>, Vec<_>) = expected.into_iter().partition(|row| row.len() == 2);
    assert!(sold.len() == 20 && reasons.len() == 2, "{counted}");

    shop.sql("raw_orders", &RAW_ORDERS.replace("buyer VARCHAR", "buyer VARCHAR, money VARCHAR"));
    shop.sql("events", &EVENTS.replace("CAST(NULL AS VARCHAR) AS currency", "o.money AS currency"));
    let mut settings = shop.settings().to_vec();
    let more = ["lake.currency=EUR", "lake.time_zone=Europe/Paris", "lake.quarantine_share_max=0.1"];
    settings.extend(more.map(String::from));
    let rows = |sql: &str| shop.lake.rows(&settings.iter().map(String::as_str).collect::<Vec<_>>(), sql);
    let ours = rows("SELECT item_id, sum(units), sum(revenue) FROM unit_item_day GROUP BY item_id ORDER BY item_id");
    assert_eq!(ours.len(), 20);
    for (ours, expected) in ours.iter().zip(&sold) {
        let ours: Vec<&str> = ours.split(',').collect();
        assert_eq!(ours[..2], expected[..2]);
        let [our_revenue, revenue] = [ours[2], expected[2]].map(|sum| sum.parse::<f64>().unwrap());
        // Each line is rounded to four decimals.
        assert!((our_revenue - revenue).abs() < 0.05, "{ours:?} {expected:?}");
    }
    let found = rows("SELECT reason, count(*) FROM unit_quarantine GROUP BY reason ORDER BY reason");
    assert_eq!(found, reasons.iter().map(|row| row.join(",")).collect::<Vec<_>>());
}

/// A lake of purchases in yen, dollars and euros, with rates.
async fn abroad() -> SmallLake {
    let shop = SmallLake::new();
    let bought = |ts: &str, price: &str, currency: &str| {
        event(&format!("1 AS quantity, {price} AS price, '{currency}' AS currency")).replace("2026-01-05 10:00:00", ts)
    };
    let rows = [
        bought("2026-01-05 10:00:00", "1000.0", "jpy"),
        bought("2026-01-07 23:30:00", "10.0", "USD"),
        bought("2026-01-08 00:30:00", "10.0", "USD"),
        bought("2026-01-20 10:00:00", "10.0", "USD"),
        bought("2026-01-01 10:00:00", "10.0", "USD"),
        bought("2026-01-05 10:00:00", "7.0", "GBP"),
        bought("2026-01-05 10:00:00", "2.0", "EUR"),
        bought("2026-01-05 10:00:00", "2.0", "EUR"),
        bought("2026-01-05 10:00:00", "2.0", "EUR"),
    ];
    shop.write("events/a.parquet", &rows.join(" UNION ALL ")).await;
    let rates = "SELECT * FROM (VALUES ('JPY', DATE '2026-01-05', 0.006), ('USD', DATE '2026-01-02', 0.9), \
        ('usd', DATE '2026-01-08', 0.5), ('USD', DATE '2026-01-02', 0.9), ('EUR', DATE '2026-01-02', 1.0), \
        ('GBP', DATE '2026-01-06', 1.1)) AS t(currency, day, rate)";
    shop.write("rates/a.parquet", rates).await;
    shop
}

const EUR: &str = "lake.currency=EUR";

#[tokio::test(flavor = "multi_thread")]
async fn a_price_is_converted_by_the_newest_rate_up_to_its_day() {
    let shop = abroad().await;
    // 6.00 of yen; 9.00, 5.00 and 5.00 of dollars; three times 2.00. No rate of dollars or pounds is old enough for the others.
    assert_eq!(shop.rows(&[EUR], TOTALS), ["1,7,7,31.0"]);
    assert_eq!(shop.rows(&[EUR], REASONS), ["other_currency,,2"]);
    let quarantined = shop.rows(&[EUR], "SELECT row_json FROM unit_quarantine ORDER BY 1");
    assert!(quarantined.concat().contains("USD") && quarantined.concat().contains("GBP"), "{quarantined:?}");
    // The same evening is a later day in Berlin.
    assert_eq!(shop.rows(&[EUR, "lake.time_zone=Europe/Berlin"], TOTALS), ["1,7,7,27.0"]);
    assert_eq!(shop.rows(&[EUR], "SELECT DISTINCT currency FROM unit_event"), ["EUR"]);
    // Without a currency of the lake there is nothing to convert to.
    let places = shop.places();
    let refusal = refused(&shop.arguments(&places, &[], TOTALS), 3);
    assert!(refusal.contains("prices in 4 currencies") && refusal.contains("`rates`"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_rates_are_refused_by_file() {
    let shop = abroad().await;
    for (row, expected) in [
        ("' ' AS currency, DATE '2026-01-02' AS day, 1.0 AS rate", "1 rows without a currency"),
        ("'USD' AS currency, CAST(NULL AS DATE) AS day, 1.0 AS rate", "1 rows without a day"),
        (
            "'USD' AS currency, DATE '2026-01-03' AS day, CAST('NaN' AS DOUBLE) AS rate",
            "1 rows without a positive rate",
        ),
        ("'USD' AS currency, DATE '2026-01-03' AS day, 0.0 AS rate", "1 rows without a positive rate"),
        ("'USD' AS currency, DATE '2026-01-03' AS day, CAST('Infinity' AS DOUBLE) AS rate", "without a positive rate"),
        (
            "'eur' AS currency, DATE '2026-01-03' AS day, 1.1 AS rate",
            "with a rate other than 1 for the lake's own currency",
        ),
        (
            "'USD' AS currency, DATE '2026-01-02' AS day, 0.8 AS rate",
            "USD on 2026-01-02: expected one rate, found 0.8 and 0.9",
        ),
    ] {
        shop.write("rates/b.parquet", &format!("SELECT {row}")).await;
        let places = shop.places();
        let lake_only = ["--set", EUR, "sql", "--lake", &places[0], "--date", DATE, "-c", "SELECT 1"];
        let refusal = refused(&lake_only, 3);
        assert!(refusal.contains("rates/b.parquet") && refusal.contains(expected), "{refusal}");
    }
    let places = shop.places();
    let refusal = refused(&shop.arguments(&places, &[EUR], TOTALS), 3);
    assert!(refusal.contains("rates/b.parquet: USD on 2026-01-02"), "{refusal}");
    // A lake's own SQL may have the rates themselves; a wrong one names that file.
    let folder = shop.folder().join("sql/lakes/canonical");
    std::fs::create_dir_all(&folder).unwrap();
    let setting = format!("sql.folder={}", shop.folder().join("sql").display());
    let view = "-- one row per currency\nSELECT 'USD' AS currency, DATE '2026-01-01' AS day, 0.1 AS rate";
    std::fs::write(folder.join("rates.sql"), view).unwrap();
    assert_eq!(shop.rows(&[EUR, &setting], TOTALS), ["1,7,7,10.0"]);
    std::fs::write(folder.join("rates.sql"), view.replace("0.1", "-0.1")).unwrap();
    let refusal = refused(&shop.arguments(&places, &[EUR, &setting], TOTALS), 3);
    assert!(refusal.contains("sql/lakes/canonical/rates.sql: 1 rows without a positive rate"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_without_rates_plans_no_join_with_them() {
    let shop = SmallLake::new();
    shop.write("events/a.parquet", &event("1 AS quantity, 2.0 AS price")).await;
    let plan = shop.rows(&[EUR], "EXPLAIN SELECT * FROM judged_events").concat();
    assert!(plan.contains("raw_events") && !plan.contains("Join"), "{plan}");
    let places = shop.places();
    done(&shop.arguments(&places, &[EUR], "SELECT * FROM daily_rates"));
}
