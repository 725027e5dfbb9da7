//! A nested analytics export becomes a lake by the SQL of docs/howto/lake-analytics-export.md; DuckDB counts the same events.

use std::path::Path;
use std::process::Command;

use crate::support::shop::done;

/// Writes two days of an export, and prints what DuckDB counts in it.
const EXPORT: &str = "
import sys, os, duckdb
lake = sys.argv[1]
con = duckdb.connect()
con.execute('''CREATE TABLE export AS
WITH events AS (
    SELECT i, ['view_item', 'add_to_cart', 'purchase', 'search', 'page_view', 'refund', 'view_item'][1 + i % 7] AS event_name,
        TIMESTAMP '2026-03-01 00:00:00' + INTERVAL (i * 7) MINUTE AS happened
    FROM range(400) t(i)
)
SELECT
    epoch_us(happened) AS event_timestamp, event_name, 'device' || (i % 23) AS user_pseudo_id,
    CASE WHEN i % 23 < 5 AND i % 3 = 0 THEN 'login' || (i % 23) END AS user_id,
    list_filter([
        {'key': 'ga_session_id', 'value': {'string_value': NULL::VARCHAR, 'int_value': i // 5, 'float_value': NULL::DOUBLE, 'double_value': NULL::DOUBLE}},
        {'key': 'currency', 'value': {'string_value': 'EUR', 'int_value': NULL, 'float_value': NULL, 'double_value': NULL}},
        {'key': CASE event_name WHEN 'search' THEN 'search_term' ELSE 'page' END,
         'value': {'string_value': 'word' || (i % 4), 'int_value': NULL, 'float_value': NULL, 'double_value': NULL}}
    ], lambda p: p.key <> 'page' OR i % 2 = 0) AS event_params,
    {'transaction_id': CASE event_name WHEN 'purchase' THEN 't' || i END, 'purchase_revenue': 1.5} AS ecommerce,
    CASE WHEN event_name IN ('search', 'page_view') THEN [] ELSE list_transform(range(1 + i % 3), lambda k: {
        'item_id': 'item' || ((i + k) % 11), 'item_name': 'name' || ((i + k) % 11), 'item_brand': NULL::VARCHAR,
        'item_variant': NULL::VARCHAR, 'item_category': 'a', 'item_category2': CASE (i + k) % 11 WHEN 4 THEN 'b' END,
        'price': 1.25::DOUBLE * (1 + (i + k) % 11), 'quantity': 1 + k, 'coupon': 'none'}) END AS items,
    {'country': 'FR'} AS geo, CAST(happened + INTERVAL 1 HOUR AS DATE) AS day
FROM events''')
for (day,) in con.execute('SELECT DISTINCT day FROM export').fetchall():
    folder = f'{lake}/events/dt={day}'
    os.makedirs(folder)
    con.execute(f\"COPY (SELECT * EXCLUDE (day) FROM export WHERE day = DATE '{day}') TO '{folder}/000.parquet' (FORMAT PARQUET)\")
os.makedirs(f'{lake}/items')
os.makedirs(f'{lake}/users')
con.execute('CREATE VIEW lines AS SELECT event_name, day, unnest(items) AS item FROM export')
for query in sys.argv[2:]:
    print(';'.join(','.join(str(value) for value in row) for row in con.execute(query).fetchall()))
";

const COUNTED: [&str; 5] = [
    "SELECT event_name, count(*), sum(item.quantity), sum(item.price * item.quantity) FROM lines GROUP BY 1 ORDER BY 1",
    "SELECT count(*) FROM export WHERE event_name = 'search'",
    "SELECT count(DISTINCT event_params[3].value.string_value) FROM export WHERE event_name = 'search'",
    "SELECT count(DISTINCT item.item_id) FROM lines WHERE day = '2026-03-01'",
    "SELECT count(DISTINCT user_pseudo_id) FROM export WHERE user_id IS NOT NULL AND day = '2026-03-01'",
];

/// Returns the code blocks of one language in the page, in order.
fn documented(language: &str) -> Vec<String> {
    let text = include_str!("../../docs/howto/lake-analytics-export.md");
    let open = format!("```{language}\n");
    text.split(open.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap().to_string()).collect()
}

#[test]
fn a_nested_analytics_export_needs_sql_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let ran = Command::new(python).args(["-c", EXPORT, &path("lake")]).args(COUNTED).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let counted: Vec<String> = String::from_utf8(ran.stdout).unwrap().lines().map(String::from).collect();
    let [toml, sql] = ["toml", "sql"].map(documented);
    std::fs::write(path("lake/lake.toml"), &toml[0]).unwrap();
    std::fs::create_dir_all(path("shop-sql/lakes/ga4")).unwrap();
    std::fs::write(path("shop-sql/lakes/ga4/raw_events.sql"), &sql[0]).unwrap();
    std::fs::write(path("shop-sql/lakes/ga4/events.sql"), &sql[1]).unwrap();
    let (set, lake, output) = (format!("sql.folder={}", path("shop-sql")), path("lake"), path("out"));
    let asked = |query: &str| {
        let places = ["--lake", &lake, "--output", &output, "--date", "2026-03-03", "--format", "csv", "-c", query];
        let printed = done(&[&["--set", &set, "sql"], &places[..]].concat());
        printed.lines().skip(1).map(String::from).collect::<Vec<_>>().join(";")
    };

    for copy in &sql[2..] {
        asked(&copy.replace("'lake/", &format!("'{lake}/")));
    }
    let by_type = "SELECT CASE WHEN event_type = 'purchase' AND quantity < 0 THEN 'refund' WHEN event_type = 'view' THEN 'view_item' \
                   WHEN event_type = 'cart' THEN 'add_to_cart' ELSE event_type END AS name, count(*), \
                   abs(sum(quantity)), abs(sum(price * quantity)) FROM events WHERE event_type <> 'search' GROUP BY 1 ORDER BY 1";
    assert_eq!(asked(by_type), counted[0]);
    // Up to state: every row is good, and a device's events are its login's.
    let facts = [
        ("SELECT count(*) FROM events WHERE event_type = 'search'", counted[1].as_str()),
        ("SELECT count(DISTINCT query) FROM events", counted[2].as_str()),
        ("SELECT count(*) FROM items", counted[3].as_str()),
        ("SELECT count(*) FROM users", counted[4].as_str()),
        ("SELECT max(concat_ws(',', title, category, price)) FROM items WHERE item_id = 'item4'", "name4,a/b,6.25"),
        ("SELECT count(*) FROM unit_quarantine", "0"),
        ("SELECT (SELECT count(*) FROM unit_event) - count(*) FROM events", "0"),
        ("SELECT count(*) FROM user_counts WHERE user_id LIKE 'login%'", "5"),
        ("SELECT count(*) FROM user_counts WHERE user_id IN ('device0', 'device4')", "0"),
    ];
    let at = |fact: usize| format!("({}) AS f{fact}", facts[fact].0);
    let query = format!(
        "SELECT concat_ws(';', f0, f1, f2, f3, f4, f5, f6, f7, f8) FROM (SELECT {})",
        (0..facts.len()).map(at).collect::<Vec<_>>().join(", ")
    );
    assert_eq!(asked(&query).trim_matches('"'), facts.map(|(_, expected)| expected).join(";"));
}
