//! Decisions that a night derives from scores and forecasts: orders with reasons, recommendations, segments.

use datafusion::prelude::SessionContext;
use intentcast::config::Config;
use intentcast::sql_files::SqlFiles;

use crate::support::sessions::table;
use crate::support::shop::{self, done, night, shop};

const NIGHT: &str = "2026-02-21";

/// Returns the numbers of the only row of a query over the lake and the tables of the night.
fn numbers(lake: &str, output: &str, sql: &str) -> Vec<f64> {
    shop::numbers(&["--lake", lake, "--output", output, "--date", NIGHT], sql)
}

#[test]
fn orders_are_whole_packs_where_stock_is_low_with_a_reason() {
    let (_own, lake, output) = shop();
    // A review period of two weeks more, so that enough lines order and enough do not.
    let places = ["--lake", &lake, "--output", &output, "--date", NIGHT];
    done(&[&["--set", "replenishment.review_period_days=14", "nightly"], &places[..]].concat());
    let lines = format!(
        "WITH stock AS (SELECT *, row_number() OVER (PARTITION BY item_id ORDER BY as_of DESC) AS recency \
           FROM inventory WHERE as_of <= DATE '{NIGHT}'), \
         lines AS (SELECT r.*, s.pack_size, s.min_order_quantity AS minimum, \
             s.on_hand + s.on_order <= r.reorder_point AND r.reorder_point > 0 AS low \
           FROM replenishment r JOIN stock s ON s.item_id = r.item_id AND s.recency = 1)"
    );
    let of = |what: &str| numbers(&lake, &output, &format!("{lines} SELECT {what} FROM lines"));

    let counts = of("count(*), (SELECT count(*) AS n FROM replenishment) AS published, count(*) FILTER (WHERE low), \
                     count(*) FILTER (WHERE NOT low), count(*) FILTER (WHERE order_quantity > 0 AND pack_size > 1), \
                     count(*) FILTER (WHERE order_quantity = minimum AND minimum > pack_size)");
    assert!(counts[0] > 20.0 && counts[0] == counts[1], "every line has its item's stock: {counts:?}");
    assert!(counts[2..5].iter().all(|n| *n > 0.0), "ordered, not ordered, ordered in packs: {counts:?}");

    let wrong = of("count(*) FILTER (WHERE order_quantity % pack_size <> 0), \
                    count(*) FILTER (WHERE order_quantity <> 0 AND order_quantity < minimum), \
                    count(*) FILTER (WHERE (order_quantity > 0) <> low), \
                    count(*) FILTER (WHERE reason IS NULL OR length(trim(reason)) < 20 \
                      OR (order_quantity > 0) <> (strpos(reason, 'at or below the reorder point') > 0))");
    assert_eq!(wrong, [0.0; 4], "not in packs, below the minimum, at the wrong time, without a reason");
}

#[test]
fn a_weekly_review_period_orders_more_stock() {
    let (_own, lake, output) = shop();
    let points = |review_period_days: &str| {
        let setting = format!("replenishment.review_period_days={review_period_days}");
        done(&["--set", &setting, "nightly", "--lake", &lake, "--output", &output, "--date", NIGHT]);
        numbers(&lake, &output, "SELECT sum(reorder_point), sum(order_quantity) FROM replenishment")
    };
    let (daily, weekly) = (points("1"), points("7"));
    assert!(weekly[0] > 1.2 * daily[0] && weekly[1] >= daily[1], "{daily:?} {weekly:?}");
}

#[test]
fn bought_items_are_recommended_only_if_configured() {
    let (_own, lake, output) = shop();
    // A purchase counts under the login that a guest had become by the night.
    let again = format!(
        "WITH bought AS (SELECT DISTINCT coalesce(u.canonical_user_id, e.user_id) AS user_id, e.item_id \
           FROM events e LEFT JOIN users u ON u.user_id = e.user_id AND u.signed_up_at < TIMESTAMP '{NIGHT}' \
           WHERE e.event_type = 'purchase' AND e.quantity > 0 AND e.ts < TIMESTAMP '{NIGHT}' \
             AND e.arrived_at < TIMESTAMP '{NIGHT}') \
         SELECT count(*), count(b.item_id) FROM recommendation r \
         LEFT JOIN bought b ON b.user_id = r.user_id AND b.item_id = r.item_id"
    );
    night(&lake, &output, NIGHT);
    let left_out = numbers(&lake, &output, &again);
    assert!(left_out[0] > 100.0 && left_out[1] == 0.0, "{left_out:?}");
    let kept = ["--set", "recommendation.exclude_bought=false"];
    done(&[&kept[..], &["nightly", "--lake", &lake, "--output", &output, "--date", NIGHT]].concat());
    let kept = numbers(&lake, &output, &again);
    assert!(kept[1] > 0.0, "{kept:?}");
}

#[test]
fn items_of_the_last_events_rank_higher_than_by_taste_alone() {
    let (_own, lake, output) = shop();
    // Mean rank by both ways of the items that a user met last, of all items.
    let mean_rank = |latest: &str| {
        format!(
            "(SELECT avg(r['rank']) FROM (SELECT user_id, unnest(recommend(taste, {latest}, NULL, 1000)) AS r FROM scored) b \
             JOIN (SELECT user_id, unnest(latest) AS l FROM scored) m \
             ON b.user_id = m.user_id AND b.r['item_id'] = m.l['item_id'])"
        )
    };
    let query = format!(
        "WITH scored AS (SELECT user_id, score_intents(features)['taste'] AS taste, latest_items(features) AS latest \
           FROM model_input) \
         SELECT (SELECT count(*) FROM scored WHERE cardinality(latest) > 0) AS users, {} AS with_latest, {} AS taste_alone",
        mean_rank("latest"),
        mean_rank("NULL")
    );
    let found = numbers(&lake, &output, &query);
    assert!(found[0] > 100.0 && found[1] < 0.8 * found[2], "{found:?}");
}

/// Tests the built-in rules of sql/score/segments.sql, which users may edit.
#[tokio::test]
async fn the_first_matching_rule_decides_a_users_segment() {
    let ctx = SessionContext::new();
    let scores = "CREATE VIEW intent_scores AS SELECT * FROM (VALUES \
        ('01 suspicious', 8.0, 0.1, 0.1, 9), ('02 about to buy', 0.0, 0.5, 0.1, 9), ('03 at risk', 0.0, 0.1, 0.7, 20), \
        ('04 loyal', 0.0, 0.1, 0.1, 90), ('05 bargain hunter', 0.0, 0.1, 0.1, 9), ('06 browsing', 0.0, 0.1, 0.1, 9), \
        ('07 odd and about to buy', 9.0, 0.9, 0.9, 90), ('08 about to buy and loyal', 7.9, 0.6, 0.9, 90), \
        ('09 loyal and at risk', 0.0, 0.4, 0.8, 90), ('10 at risk after few events', 0.0, 0.1, 0.9, 19), \
        ('11 loyal, but for the refunds', 0.0, 0.1, 0.1, 90), ('12 nothing known', 0.0, 0.1, 0.1, 0)) \
        AS t(user_id, anomaly_score, p_purchase, p_churn, events_seen)";
    // The typical user has bought twice and has a full cart; the table below lists users who differ.
    let features = "CREATE VIEW user_features AS SELECT s.user_id, \
          coalesce(f.purchase_days_lifetime, 2) AS purchase_days_lifetime, \
          coalesce(f.refunds_90d, 0.0) AS refunds_90d, coalesce(f.spend_90d, 50.0) AS spend_90d, \
          coalesce(f.cart_removals_28d, 0) AS cart_removals_28d, coalesce(f.purchases_28d, 1) AS purchases_28d, \
          coalesce(f.carts_28d, 3) AS carts_28d \
        FROM intent_scores s LEFT JOIN (VALUES \
          ('04 loyal', 3, 10.0, 50.0, 9, 0, 9), ('05 bargain hunter', 1, 0.0, 9.0, 2, 1, 3), \
          ('08 about to buy and loyal', 5, 0.0, 90.0, 0, 4, 4), ('09 loyal and at risk', 5, 0.0, 90.0, 0, 4, 4), \
          ('11 loyal, but for the refunds', 5, 50.0, 50.0, 0, 4, 4), ('12 nothing known', 0, 0.0, 0.0, 0, 0, 0)) \
        AS f(user_id, purchase_days_lifetime, refunds_90d, spend_90d, cart_removals_28d, purchases_28d, carts_28d) \
        ON f.user_id = s.user_id";
    for view in [scores, features] {
        ctx.sql(view).await.unwrap().collect().await.unwrap();
    }
    let rules = SqlFiles::load(&Config::default()).unwrap().get("score/segments").unwrap().to_string();
    let found = table(&ctx, &format!("WITH rules AS ({rules}) SELECT * FROM rules ORDER BY user_id")).await;
    let expected = "\
+-------------------------------+----------------+
| user_id                       | segment        |
+-------------------------------+----------------+
| 01 suspicious                 | suspicious     |
| 02 about to buy               | about to buy   |
| 03 at risk                    | at risk        |
| 04 loyal                      | loyal          |
| 05 bargain hunter             | bargain hunter |
| 06 browsing                   | browsing       |
| 07 odd and about to buy       | suspicious     |
| 08 about to buy and loyal     | about to buy   |
| 09 loyal and at risk          | at risk        |
| 10 at risk after few events   | browsing       |
| 11 loyal, but for the refunds | browsing       |
| 12 nothing known              | browsing       |
+-------------------------------+----------------+";
    assert_eq!(found, expected);
}
