//! Nothing of the future: events at or after `as_of()`, and events that arrived after it, move no feature.

use proptest::prelude::*;
use std::path::Path;

use crate::features::{config, night, table};
use crate::support::lakes::write;

const NIGHT: &str = "2026-01-05";
const TYPES: [&str; 8] = ["view", "click", "search", "favorite", "cart", "remove_from_cart", "purchase", "review"];

/// (hour since 2026-01-01, hours until arrival, user, type, item, quantity)
type Row = (u32, u32, u8, usize, u8, i8);

fn rows() -> impl Strategy<Value = Vec<Row>> {
    prop::collection::vec((0u32..168, 0u32..60, 0u8..5, 0usize..8, 0u8..4, -2i8..4), 1..60)
}

/// Known to the night of NIGHT: happened and arrived before 2026-01-05 00:00, hour 96.
fn known(row: &Row) -> bool {
    row.0 < 96 && row.0 + row.1 < 96
}

async fn lake_of(folder: &Path, rows: &[Row]) {
    for day in 0..7u32 {
        let of_day: Vec<String> = rows
            .iter()
            .filter(|r| r.0 / 24 == day)
            .map(|(hour, late, user, kind, item, quantity)| {
                let at = |h: u32| format!("TIMESTAMP '2026-01-{:02}T{:02}:30:00'", h / 24 + 1, h % 24);
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

async fn seen(rows: &[Row]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    lake_of(&lake, rows).await;
    let (ctx, _) = night(&config(&lake, &folder.path().join("out")), NIGHT).await.unwrap();
    let users = table(&ctx, "SELECT * FROM user_features ORDER BY user_id").await;
    users + &table(&ctx, "SELECT * FROM item_history ORDER BY item_id").await
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 20, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_feature_moves_with_the_future(past in rows(), future in rows(), other in rows()) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        // One known event, so that there always is a lake to read.
        let mut past: Vec<Row> = past.into_iter().filter(known).collect();
        past.push((1, 0, 0, 0, 0, 1));
        let with = |extra: &[Row]| -> Vec<Row> {
            past.iter().chain(extra.iter().filter(|r| !known(r))).cloned().collect()
        };
        let alone = runtime.block_on(seen(&past));
        prop_assert_eq!(&runtime.block_on(seen(&with(&future))), &alone);
        prop_assert_eq!(&runtime.block_on(seen(&with(&other))), &alone);
    }
}
