//! No future data: events and logins at or after `as_of()`, and events that arrived after it, change no feature.

use datafusion::prelude::SessionContext;
use proptest::prelude::*;
use std::path::Path;

use crate::support::lakes::{events, write};
use crate::support::sessions::{config, night_session, table, training_session};

const NIGHT: &str = "2026-01-05";
const TYPES: [&str; 8] = ["view", "click", "search", "favorite", "cart", "remove_from_cart", "purchase", "review"];

/// (hour since 2026-01-01, hours until arrival, user, type, item, quantity)
type Row = (u32, u32, u8, usize, u8, i8);

fn rows() -> impl Strategy<Value = Vec<Row>> {
    prop::collection::vec((0u32..168, 0u32..60, 0u8..5, 0usize..8, 0u8..4, -2i8..4), 1..60)
}

/// (guest, login that the guest became, hour of the login since 2026-01-01); a guest without a login has its own id twice.
type Login = (u8, u8, u32);

fn logins() -> impl Strategy<Value = Vec<Login>> {
    prop::collection::vec((0u8..5, 0u8..8, 0u32..168), 0..6)
}

/// Returns true for a row that the night knows: it happened and arrived before 2026-01-05 00:00, hour 96.
fn known(row: &Row) -> bool {
    row.0 < 96 && row.0 + row.1 < 96
}

async fn lake_of(folder: &Path, rows: &[Row], logins: &[Login]) {
    let at = |h: u32| format!("TIMESTAMP '2026-01-{:02}T{:02}:30:00'", h / 24 + 1, h % 24);
    let users: Vec<String> =
        logins.iter().map(|(guest, login, hour)| format!("('u{guest}', 'u{login}', {})", at(*hour))).collect();
    if !users.is_empty() {
        let rows = users.join(", ");
        let query = format!(
            "SELECT user_id, canonical_user_id, signed_up_at \
             FROM (VALUES {rows}) AS t(user_id, canonical_user_id, signed_up_at)"
        );
        write(folder, "users/a.parquet", &query).await;
    }
    for day in 0..7u32 {
        let of_day: Vec<String> = rows
            .iter()
            .filter(|r| r.0 / 24 == day)
            .map(|(hour, late, user, kind, item, quantity)| {
                format!(
                    "({}, {}, 'u{user}', '{}', 'i{item}', CAST({quantity} AS INT), CAST(2.5 AS DOUBLE))",
                    at(*hour),
                    at(hour + late),
                    TYPES[*kind]
                )
            })
            .collect();
        if !of_day.is_empty() {
            let query = format!(
                "SELECT ts, arrived_at, user_id, event_type, item_id, quantity, price FROM (VALUES {}) \
                 AS t(ts, arrived_at, user_id, event_type, item_id, quantity, price)",
                of_day.join(", ")
            );
            write(folder, &format!("events/dt=2026-01-{:02}/a.parquet", day + 1), &query).await;
        }
    }
}

async fn seen((rows, logins): (&[Row], &[Login])) -> String {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    lake_of(&lake, rows, logins).await;
    let (ctx, _) = night_session(&config(&lake, &folder.path().join("out")), NIGHT).await.unwrap();
    let users = table(&ctx, "SELECT * FROM user_features ORDER BY user_id").await;
    users + &table(&ctx, "SELECT * FROM item_history ORDER BY item_id").await
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 20, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_feature_changes_with_the_future(
        past in (rows(), logins()), future in (rows(), logins()), other in (rows(), logins())
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        // One known event, so that there is always a lake to read.
        let mut happened: Vec<Row> = past.0.into_iter().filter(known).collect();
        happened.push((1, 0, 0, 0, 0, 1));
        let stitched: Vec<Login> = past.1.into_iter().filter(|l| l.2 < 96).collect();
        let with = |rows: &[Row], logins: &[Login]| -> String {
            let rows: Vec<Row> = happened.iter().chain(rows.iter().filter(|r| !known(r))).cloned().collect();
            let logins: Vec<Login> = stitched.iter().chain(logins.iter().filter(|l| l.2 >= 96)).cloned().collect();
            runtime.block_on(seen((&rows, &logins)))
        };
        let alone = with(&[], &[]);
        prop_assert_eq!(&with(&future.0, &future.1), &alone);
        prop_assert_eq!(&with(&other.0, &other.1), &alone);
    }
}

#[tokio::test]
async fn a_later_login_joins_the_guest_in_labels_only() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    let before = events(&[("a", "g1", "2026-01-04T10:00:00", "view", "i1", "NULL", "5")]);
    write(&lake, "events/dt=2026-01-04/a.parquet", &before).await;
    let after = events(&[
        ("b", "u1", "2026-01-07T10:00:00", "purchase", "i2", "2", "3"),
        ("c", "u2", "2026-01-07T11:00:00", "view", "i1", "NULL", "5"),
    ]);
    write(&lake, "events/dt=2026-01-07/a.parquet", &after).await;
    let users = "SELECT * FROM (VALUES ('g1', 'u1', TIMESTAMP '2026-01-07T09:00:00'), \
                 ('u1', NULL, TIMESTAMP '2026-01-07T09:00:00'), \
                 ('u3', NULL, TIMESTAMP '2026-01-02T00:00:00')) AS t(user_id, canonical_user_id, signed_up_at)";
    write(&lake, "users/a.parquet", users).await;
    let config = config(&lake, &folder.path().join("out"));

    let scored = "SELECT user_id, events_lifetime FROM user_features ORDER BY user_id";
    let ctx = training_session(&config, NIGHT, "2026-01-09").await;
    let rows = table(&ctx, scored).await;
    assert!(rows.contains("| g1      | 1 ") && rows.contains("| u3      | 0 ") && !rows.contains("u1"), "{rows}");
    let labels = "SELECT l.user_id, y_view, y_purchase, y_units, next_items FROM intent_labels l \
                  JOIN next_items n ON n.user_id = l.user_id ORDER BY l.user_id";
    let rows = table(&ctx, labels).await;
    for row in [
        "| g1      | 0      | 1          | 2.0     | [i2] ",
        "| u1      | 0      | 1          | 2.0     | [i2] ",
        "| u2      | 1      | 0          | 0.0     | [i1] ",
    ] {
        assert!(rows.contains(row), "{row} in\n{rows}");
    }
    let too_early = table(&training_session(&config, NIGHT, "2026-01-07").await, labels).await;
    assert!(!too_early.contains("i2"), "{too_early}");

    let (ctx, _) = night_session(&config, "2026-01-08").await.unwrap();
    let rows = table(&ctx, scored).await;
    assert!(rows.contains("| u1      | 2 ") && !rows.contains("g1"), "{rows}");
}

#[tokio::test]
async fn refusals_and_erasures_hold_for_the_guest_that_a_person_was() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    let seen = events(&[
        ("a", "g1", "2026-01-04T10:00:00", "view", "i1", "NULL", "5"),
        ("b", "g2", "2026-01-04T10:00:00", "view", "i1", "NULL", "5"),
        ("c", "g3", "2026-01-04T10:00:00", "view", "i1", "NULL", "5"),
    ]);
    write(&lake, "events/dt=2026-01-04/a.parquet", &seen).await;
    let users = "SELECT *, TIMESTAMP '2026-01-07T09:00:00' AS signed_up_at \
                 FROM (VALUES ('g1', 'u1', CAST(NULL AS BOOLEAN)), \
                 ('u1', NULL, false), ('g2', 'u2', NULL), ('u2', NULL, true), ('g3', 'u3', NULL)) \
                 AS t(user_id, canonical_user_id, consent)";
    write(&lake, "users/a.parquet", users).await;
    write(&lake, "erasures/a.parquet", "SELECT 'u2' AS user_id, TIMESTAMP '2026-02-01T00:00:00' AS requested_at").await;
    let (ctx, _) = night_session(&config(&lake, &folder.path().join("out")), NIGHT).await.unwrap();
    let rows = table(&ctx, "SELECT user_id FROM user_features ORDER BY user_id").await;
    assert!(rows.contains("g3") && !rows.contains("g1") && !rows.contains("g2"), "{rows}");
}

#[tokio::test]
async fn an_intent_counts_only_within_the_horizon() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    let before = events(&[
        ("a", "early", "2026-01-04T10:00:00", "view", "i1", "NULL", "5"),
        ("b", "late", "2026-01-04T10:00:00", "view", "i1", "NULL", "5"),
        ("c", "later", "2026-01-04T10:00:00", "view", "i1", "NULL", "5"),
    ]);
    write(&lake, "events/dt=2026-01-04/a.parquet", &before).await;
    // The third, fourth and eighth day; the run date is the first.
    for (day, user, units) in [("07", "early", "2"), ("08", "late", "1"), ("12", "later", "1")] {
        let time = format!("2026-01-{day}T23:59:00");
        let bought = events(&[("p", user, time.as_str(), "purchase", "i1", units, "3")]);
        write(&lake, &format!("events/dt=2026-01-{day}/a.parquet"), &bought).await;
    }
    let mut config = config(&lake, &folder.path().join("out"));
    let rows = async |ctx: &SessionContext, sql: &str| -> Vec<String> {
        let text = table(ctx, sql).await;
        let cells = text.lines().skip(3).filter_map(|line| line.split('|').nth(1));
        cells.map(|cell| cell.trim().to_string()).collect()
    };
    for (horizon_days, buyers) in [(3, &["early"][..]), (7, &["early", "late"]), (8, &["early", "late", "later"])] {
        config.intents.horizon_days = horizon_days;
        let ctx = training_session(&config, NIGHT, "2026-02-15").await;
        let bought = "SELECT user_id FROM intent_labels WHERE y_purchase = 1 AND y_units > 0 ORDER BY user_id";
        assert_eq!(rows(&ctx, bought).await, buyers, "{horizon_days} days");
        assert_eq!(rows(&ctx, "SELECT user_id FROM next_items ORDER BY user_id").await, buyers, "{horizon_days} days");
        // All three came back within the 28 days of churn, whatever the horizon of intents.
        assert_eq!(rows(&ctx, "SELECT count(*) FROM intent_labels").await, ["3"]);
    }
}
