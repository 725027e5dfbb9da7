//! Compares feature values with numbers worked out by hand, on one small lake of two users and a few items.

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use datafusion::prelude::SessionContext;
use intentcast::config::Partition;
use std::path::Path;

use crate::support::lakes::write;
use crate::support::sessions::{config, night_session, table, training_session};

/// A Sunday. The last full day is Saturday the 28th; a week starts on the 22nd, and 28 days start on the 1st of February.
const NIGHT: &str = "2026-03-01";

/// (user, session, time, type, item, query, dwell_ms, quantity, price)
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

const NONE: &str = "NULL";

const EVENTS: [Row; 23] = [
    // Three purchase days, 21 and 41 days apart.
    ("u1", "s0", "2025-12-20T09:00:00", "purchase", "i1", NONE, NONE, "1", "10"),
    ("u1", "s1", "2026-01-10T20:00:00", "purchase", "i1", NONE, NONE, "2", "10"),
    // Tuesday, before six.
    ("u1", "s2", "2026-02-03T05:30:00", "view", "i1", NONE, "4000", NONE, "8"),
    ("u1", "s2", "2026-02-03T05:40:00", "cart", "i1", NONE, NONE, NONE, "10"),
    // Monday, morning and afternoon.
    ("u1", "s3", "2026-02-09T06:00:00", "search", NONE, "mug", NONE, NONE, NONE),
    ("u1", "s4", "2026-02-09T12:00:00", "view", "i2", NONE, "1000", NONE, "5"),
    ("u1", "s4", "2026-02-09T12:05:00", "view", "i4", NONE, NONE, NONE, NONE),
    // One session spans midnight: a purchase on Friday, a return on Saturday.
    ("u1", "s5", "2026-02-20T11:59:00", "purchase", "i2", NONE, NONE, "3", "5"),
    ("u1", "s5", "2026-02-21T10:00:00", "purchase", "i2", NONE, NONE, "-1", "5"),
    ("u1", "s6", "2026-02-22T18:00:00", "click", "i3", NONE, NONE, NONE, "7.5"),
    // Saturday: without session ids, each hour is a session.
    ("u1", NONE, "2026-02-28T00:10:00", "search", NONE, "red mug", NONE, NONE, NONE),
    ("u1", NONE, "2026-02-28T00:50:00", "view", "i1", NONE, "7000", NONE, "12"),
    ("u1", NONE, "2026-02-28T23:15:00", "search", NONE, "kettle", NONE, NONE, NONE),
    ("u1", NONE, "2026-02-28T23:30:00", "favorite", "i2", NONE, NONE, NONE, NONE),
    // Six searches, and a purchase without a quantity, which counts as one unit.
    ("u2", "t1", "2026-02-10T10:00:00", "search", NONE, "a", NONE, NONE, NONE),
    ("u2", "t1", "2026-02-10T10:01:00", "search", NONE, "b", NONE, NONE, NONE),
    ("u2", "t1", "2026-02-10T10:02:00", "search", NONE, "c", NONE, NONE, NONE),
    ("u2", "t1", "2026-02-10T10:03:00", "search", NONE, "d", NONE, NONE, NONE),
    ("u2", "t1", "2026-02-10T10:04:00", "search", NONE, "e", NONE, NONE, NONE),
    ("u2", "t1", "2026-02-10T10:05:00", "search", NONE, "f", NONE, NONE, NONE),
    ("u2", "t2", "2026-02-12T10:00:00", "purchase", "i5", NONE, NONE, NONE, "4"),
    // A guest without an id, on the day of u1's purchase and on the next day.
    (NONE, "a1", "2026-02-20T15:00:00", "purchase", "i2", NONE, NONE, "1", "8"),
    (NONE, "a2", "2026-02-21T15:00:00", "cart", "i2", NONE, NONE, NONE, NONE),
];

async fn lake(root: &Path) {
    let rows: Vec<String> = EVENTS
        .iter()
        .enumerate()
        .map(|(n, (user, session, ts, kind, item, query, dwell, quantity, price))| {
            let text = |t: &str| if t == NONE { "CAST(NULL AS VARCHAR)".into() } else { format!("'{t}'") };
            let texts = [user, session, kind, item, query].map(|t| text(t)).join(", ");
            let numbers = format!("CAST({dwell} AS BIGINT), CAST({quantity} AS INT), CAST({price} AS DOUBLE)");
            format!("('e{n:02}', TIMESTAMP '{ts}', {texts}, {numbers})")
        })
        .collect();
    let named = "t(event_id, ts, user_id, session_id, event_type, item_id, query, dwell_ms, quantity, price)";
    // The cart event has a text of its own.
    let said = "CASE event_id WHEN 'e03' THEN 'so nice' END AS text";
    write(root, "events/a.parquet", &format!("SELECT *, {said} FROM (VALUES {}) AS {named}", rows.join(", "))).await;
    // Two items of one category and one of another; the catalogue does not have i4 and i5.
    let items = "SELECT * FROM (VALUES ('i1', 'mugs', 11.0, 'Red mug'), ('i2', 'mugs', 6.0, NULL), ('i3', 'lamps', 7.5, NULL)) \
                 AS t(item_id, category, price, title)";
    write(root, "items/a.parquet", items).await;
    let stock = "SELECT item_id, CAST(as_of AS DATE) AS as_of, on_hand FROM (VALUES ('i2', '2026-02-19', 0), \
                 ('i2', '2026-02-20', 0), ('i2', '2026-02-21', 4)) AS t(item_id, as_of, on_hand)";
    write(root, "inventory/a.parquet", stock).await;
    let promotions =
        "SELECT 'i2' AS item_id, DATE '2026-02-20' AS starts_on, DATE '2026-02-21' AS ends_on, 4.0 AS price";
    write(root, "promotions/a.parquet", promotions).await;
}

async fn features() -> (tempfile::TempDir, SessionContext) {
    let folder = tempfile::tempdir().unwrap();
    lake(&folder.path().join("lake")).await;
    let mut config = config(&folder.path().join("lake"), &folder.path().join("out"));
    config.lake.partition = Partition::None;
    let (ctx, rollups) = night_session(&config, NIGHT).await.unwrap();
    assert_eq!((rollups.report.rows_read, rollups.report.quarantined.len()), (EVENTS.len() as u64, 0));
    (folder, ctx)
}

/// Compares columns of a user's row; `NaN` stands for null.
async fn expect(ctx: &SessionContext, user: &str, expected: &[(&str, f64)]) {
    let sql = format!("SELECT * FROM user_features WHERE user_id = '{user}'");
    let rows = ctx.sql(&sql).await.unwrap().collect().await.unwrap();
    let row = rows.iter().find(|batch| batch.num_rows() == 1).unwrap();
    for (name, value) in expected {
        let column = row.column_by_name(name).unwrap_or_else(|| panic!("{name} is missing"));
        let column = cast(column, &DataType::Float64).unwrap();
        let found = if column.is_null(0) { f64::NAN } else { column.as_primitive::<Float64Type>().value(0) };
        let same = found.is_nan() && value.is_nan() || (found - value).abs() < 1e-9;
        assert!(same, "{user}: {name} is {found}, expected {value}");
    }
}

#[tokio::test]
async fn actions_are_counted_by_window_session_item_and_hour() {
    let (_folder, ctx) = features().await;
    expect(
        &ctx,
        "u1",
        &[
            ("events_1d", 4.0),
            ("events_7d", 5.0),
            ("events_28d", 12.0),
            ("events_90d", 14.0),
            ("views_7d", 1.0),
            ("views_28d", 4.0),
            ("clicks_28d", 1.0),
            ("searches_28d", 3.0),
            ("favorites_1d", 1.0),
            ("carts_28d", 1.0),
            ("purchases_28d", 1.0),
            ("purchases_90d", 3.0),
            ("returns_28d", 1.0),
            ("units_28d", 3.0),
            ("units_90d", 6.0),
            ("spend_28d", 15.0),
            ("spend_90d", 45.0),
            ("refunds_28d", 5.0),
            ("active_days_7d", 2.0),
            ("active_days_28d", 6.0),
            ("active_days_90d", 8.0),
            ("purchase_days_lifetime", 3.0),
            // s2 to s6 and two hours of the last Saturday; s6 and the two hours are within a week.
            ("sessions_28d", 7.0),
            ("sessions_7d", 3.0),
            ("items_28d", 4.0),
            ("items_7d", 3.0),
            // i1 and i2 share a category, i4 has none.
            ("categories_28d", 2.0),
            ("categories_7d", 2.0),
            ("dwell_ms_28d", 12_000.0),
            ("dwell_events_28d", 3.0),
            ("dwell_ms_mean_28d", 4_000.0),
            ("night_events_28d", 4.0),
            ("morning_events_28d", 3.0),
            ("afternoon_events_28d", 2.0),
            ("evening_events_28d", 3.0),
            ("sunday_events_28d", 1.0),
            ("monday_events_28d", 3.0),
            ("tuesday_events_28d", 2.0),
            ("wednesday_events_28d", 0.0),
            ("thursday_events_28d", 0.0),
            ("friday_events_28d", 1.0),
            ("saturday_events_28d", 5.0),
        ],
    )
    .await;
    // A purchase without a quantity is one unit, and six searches in one session are one session.
    let few = [("events_28d", 7.0), ("units_28d", 1.0), ("spend_28d", 4.0), ("sessions_28d", 2.0), ("items_28d", 1.0)];
    expect(&ctx, "u2", &few).await;
    expect(&ctx, "u2", &[("categories_28d", 0.0), ("tuesday_events_28d", 6.0), ("thursday_events_28d", 1.0)]).await;
}

#[tokio::test]
async fn ratios_values_recency_and_gaps_follow_the_events() {
    let (_folder, ctx) = features().await;
    expect(
        &ctx,
        "u1",
        &[
            ("cart_to_purchase_90d", 3.0 / 1.0),
            ("view_to_cart_90d", 1.0 / 5.0),
            ("view_to_purchase_90d", 3.0 / 5.0),
            ("return_share_90d", 1.0 / 3.0),
            ("order_value_mean_90d", 45.0 / 3.0),
            ("recency_hours", 0.5),
            // 15 hours, and 11 days across December, January and February.
            ("age_days", 15.0 / 24.0 + 11.0 + 31.0 + 28.0),
            ("purchase_recency_days", 9.0),
            ("cart_recency_days", 26.0),
            // 21 and 41 days: the mean is 31, the deviation 10.
            ("gap_days_mean", 31.0),
            ("gap_days_spread", 10.0),
        ],
    )
    .await;
    expect(
        &ctx,
        "u2",
        &[
            ("cart_to_purchase_90d", f64::NAN),
            ("view_to_purchase_90d", f64::NAN),
            ("return_share_90d", 0.0),
            ("order_value_mean_90d", 4.0),
            ("dwell_ms_mean_28d", f64::NAN),
            ("cart_recency_days", f64::NAN),
            ("gap_days_mean", f64::NAN),
            ("gap_days_spread", f64::NAN),
        ],
    )
    .await;
}

#[tokio::test]
async fn queries_are_newest_first_and_events_oldest_first() {
    let (_folder, ctx) = features().await;
    let queries = table(&ctx, "SELECT user_id, last_queries FROM user_features ORDER BY user_id").await;
    assert!(queries.contains("| u1      | [kettle, red mug, mug] |"), "{queries}");
    assert!(queries.contains("| u2      | [f, e, d, c, b]        |"), "the last five of six:\n{queries}");
    let recent = "WITH events AS (SELECT unnest(recent) AS e FROM user_features WHERE user_id = 'u1') \
                  SELECT date_part('epoch', e['ts']) % 86400 / 60 AS minute, e['event_type'] AS type, \
                    e['item_id'] AS item, e['category'] AS category, e['price'] AS price, e['dwell_ms'] AS dwell FROM events";
    let expected = "\
+--------+----------+------+----------+-------+-------+
| minute | type     | item | category | price | dwell |
+--------+----------+------+----------+-------+-------+
| 540.0  | purchase | i1   | mugs     | 10.0  |       |
| 1200.0 | purchase | i1   | mugs     | 10.0  |       |
| 330.0  | view     | i1   | mugs     | 8.0   | 4000  |
| 340.0  | cart     | i1   | mugs     | 10.0  |       |
| 360.0  | search   |      |          |       |       |
| 720.0  | view     | i2   | mugs     | 5.0   | 1000  |
| 725.0  | view     | i4   |          |       |       |
| 719.0  | purchase | i2   | mugs     | 5.0   |       |
| 600.0  | purchase | i2   | mugs     | 5.0   |       |
| 1080.0 | click    | i3   | lamps    | 7.5   |       |
| 10.0   | search   |      |          |       |       |
| 50.0   | view     | i1   | mugs     | 12.0  | 7000  |
| 1395.0 | search   |      |          |       |       |
| 1410.0 | favorite | i2   | mugs     |       |       |
+--------+----------+------+----------+-------+-------+";
    assert_eq!(table(&ctx, recent).await, expected);
}

#[tokio::test]
async fn the_text_of_an_event_wins_over_the_title_of_its_item() {
    let (_folder, ctx) = features().await;
    let said = "WITH events AS (SELECT unnest(recent) AS e FROM user_features WHERE user_id = 'u1') \
                SELECT CASE e['text_key'] WHEN content_key('Red mug') THEN 'title' WHEN content_key('so nice') THEN 'text' \
                  WHEN content_key('mug') THEN 'mug' WHEN content_key('red mug') THEN 'red mug' \
                  WHEN content_key('kettle') THEN 'kettle' ELSE CAST(e['text_key'] AS VARCHAR) END AS says, \
                  count(*) AS events FROM events GROUP BY says ORDER BY says";
    let expected = "\
+---------+--------+
| says    | events |
+---------+--------+
| kettle  | 1      |
| mug     | 1      |
| red mug | 1      |
| text    | 1      |
| title   | 4      |
|         | 6      |
+---------+--------+";
    assert_eq!(table(&ctx, said).await, expected);
}

#[tokio::test]
async fn an_items_days_have_units_returns_carts_prices_and_stock() {
    let (_folder, ctx) = features().await;
    let days = "SELECT item_id AS item, day, units, returns, revenue, views, carts, price, promoted, in_stock, \
                  days_since_first_seen AS age \
                FROM item_days WHERE item_id = 'i1' AND day = DATE '2026-02-03' OR item_id = 'i2' AND day IN \
                  (DATE '2026-02-09', DATE '2026-02-18', DATE '2026-02-19', DATE '2026-02-20', DATE '2026-02-21', \
                   DATE '2026-02-28') ORDER BY item_id, day";
    // A day's price is the mean of its events' prices, else the catalogue's. On the 20th the snapshot shows no stock, but four
    // units were sold; a guest without an id bought one of them at a higher price.
    let expected = "\
+------+------------+-------+---------+---------+-------+-------+-------+----------+----------+-----+
| item | day        | units | returns | revenue | views | carts | price | promoted | in_stock | age |
+------+------------+-------+---------+---------+-------+-------+-------+----------+----------+-----+
| i1   | 2026-02-03 | 0.0   | 0.0     | 0.0     | 1.0   | 1.0   | 9.0   | false    | true     | 45  |
| i2   | 2026-02-09 | 0.0   | 0.0     | 0.0     | 1.0   | 0.0   | 5.0   | false    | true     | 0   |
| i2   | 2026-02-18 | 0.0   | 0.0     | 0.0     | 0.0   | 0.0   | 6.0   | false    | true     | 9   |
| i2   | 2026-02-19 | 0.0   | 0.0     | 0.0     | 0.0   | 0.0   | 6.0   | false    | false    | 10  |
| i2   | 2026-02-20 | 4.0   | 0.0     | 23.0    | 0.0   | 0.0   | 6.5   | true     | true     | 11  |
| i2   | 2026-02-21 | 0.0   | 1.0     | 0.0     | 0.0   | 1.0   | 5.0   | true     | true     | 12  |
| i2   | 2026-02-28 | 0.0   | 0.0     | 0.0     | 0.0   | 0.0   | 6.0   | false    | true     | 19  |
+------+------------+-------+---------+---------+-------+-------+-------+----------+----------+-----+";
    assert_eq!(table(&ctx, days).await, expected);
    // i1 was first seen on the 20th of December, 71 days before; i2 20 days before, i3 7, i4 20, i5 17.
    let counts = "SELECT item_id, count(*) AS days, min(days_since_first_seen) AS first FROM item_days \
                  GROUP BY item_id ORDER BY item_id";
    let expected = "\
+---------+------+-------+
| item_id | days | first |
+---------+------+-------+
| i1      | 71   | 0     |
| i2      | 20   | 0     |
| i3      | 7    | 0     |
| i4      | 20   | 0     |
| i5      | 17   | 0     |
+---------+------+-------+";
    assert_eq!(table(&ctx, counts).await, expected);
}

/// A demand label with wrong stock would count a stock-out as a lack of demand.
#[tokio::test]
async fn labels_mark_days_without_stock_and_sales_as_stock_out() {
    let folder = tempfile::tempdir().unwrap();
    lake(&folder.path().join("lake")).await;
    let mut config = config(&folder.path().join("lake"), &folder.path().join("out"));
    (config.lake.partition, config.demand.horizon_days) = (Partition::None, 4);
    let ctx = training_session(&config, "2026-02-18", NIGHT).await;
    let labels = "SELECT item_id, future_units AS units, future_in_stock AS in_stock FROM demand_labels \
                  WHERE item_id IN ('i1', 'i2') ORDER BY item_id";
    let expected = "\
+---------+----------------------+----------------------+
| item_id | units                | in_stock             |
+---------+----------------------+----------------------+
| i1      | [0.0, 0.0, 0.0, 0.0] | [1.0, 1.0, 1.0, 1.0] |
| i2      | [0.0, 0.0, 4.0, 0.0] | [1.0, 0.0, 1.0, 1.0] |
+---------+----------------------+----------------------+";
    assert_eq!(table(&ctx, labels).await, expected);
}
