//! Compares plans with the approved ones in `tests/approved/`: what is pruned, what is pushed down, where scoring runs.

use crate::support::approved::approve;
use crate::support::lakes::{events, write};
use crate::support::sessions::{config, night_session, table};

#[tokio::test]
async fn dates_prune_files_and_scans_get_filters_and_columns() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    for day in ["2026-01-01", "2026-01-02", "2026-01-03"] {
        let rows = events(&[(day, "u1", &format!("{day}T10:00:00"), "view", "i1", "NULL", "5")]);
        write(&lake, &format!("events/dt={day}/a.parquet"), &rows).await;
    }
    let (ctx, _) = night_session(&config(&lake, &folder.path().join("out")), "2026-01-04").await.unwrap();
    let plan = table(
        &ctx,
        "EXPLAIN FORMAT indent SELECT user_id, ts FROM events WHERE _dt = DATE '2026-01-02' AND event_type = 'purchase'",
    )
    .await;
    let root = folder.path().display().to_string();
    let lines: Vec<String> = plan
        .lines()
        .map(|l| l.replace(root.trim_start_matches('/'), "ROOT"))
        .map(|l| l.trim_matches(['|', ' ']).trim_end().to_string())
        .filter(|l| !l.starts_with('+'))
        .collect();
    approve("events_of_one_day", &lines.join("\n"));
}
