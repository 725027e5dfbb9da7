//! Features over hand-made lakes: what they count, what they must not read, and the same bits by every way to compute them.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::prelude::SessionContext;
use intentcast::config::Config;
use intentcast::failure::Result;
use intentcast::lake::stores::Location;
use std::path::Path;

use crate::support::lakes::{events, write};
use crate::support::sessions::{config, night_session, table};

const FEATURES: &str = "SELECT * FROM user_features ORDER BY user_id";
const ITEMS: &str = "SELECT * FROM item_history ORDER BY item_id";

async fn two_days(lake: &Path) {
    let first = events(&[
        ("a", "u1", "2026-01-01T10:00:00", "view", "i1", "NULL", "5"),
        ("b", "u1", "2026-01-01T10:01:00", "cart", "i1", "NULL", "5"),
        ("c", "u1", "2026-01-01T10:02:00", "purchase", "i1", "2", "5"),
        ("d", "NULL", "2026-01-01T11:00:00", "purchase", "i2", "1", "3"),
        ("e", "u2", "2026-01-01T12:00:00", "search", "NULL", "NULL", "NULL"),
    ]);
    let second = events(&[
        ("f", "u2", "2026-01-02T10:00:00", "purchase", "i2", "1", "3"),
        ("g", "u2", "2026-01-02T11:00:00", "purchase", "i2", "-1", "3"),
        ("h", "u1", "2026-01-02T12:00:00", "view", "i2", "NULL", "3"),
    ]);
    write(lake, "events/dt=2026-01-01/a.parquet", &first).await;
    write(lake, "events/dt=2026-01-02/a.parquet", &second).await;
}

#[tokio::test]
async fn counts_are_those_of_the_events() {
    let folder = tempfile::tempdir().unwrap();
    two_days(&folder.path().join("lake")).await;
    let config = config(&folder.path().join("lake"), &folder.path().join("out"));
    let (ctx, rollups) = night_session(&config, "2026-01-03").await.unwrap();
    assert_eq!((rollups.report.rows_read, rollups.report.files_read), (8, 2));
    let got = table(
        &ctx,
        "SELECT user_id, events_1d, events_7d, purchases_7d, returns_7d, units_28d, spend_28d, recency_hours, \
         array_length(recent) AS recent, recent[1]['event_type'] AS oldest FROM user_features ORDER BY user_id",
    )
    .await;
    let expected = "\
+---------+-----------+-----------+--------------+------------+-----------+-----------+---------------+--------+--------+
| user_id | events_1d | events_7d | purchases_7d | returns_7d | units_28d | spend_28d | recency_hours | recent | oldest |
+---------+-----------+-----------+--------------+------------+-----------+-----------+---------------+--------+--------+
| u1      | 1         | 4         | 1            | 0          | 2         | 10.0      | 12.0          | 4      | view   |
| u2      | 2         | 3         | 1            | 1          | 1         | 3.0       | 13.0          | 3      | search |
+---------+-----------+-----------+--------------+------------+-----------+-----------+---------------+--------+--------+";
    assert_eq!(got, expected);
    let items = table(
        &ctx,
        "SELECT item_id, history['units'] AS units, history['days_since_first_seen'] AS days FROM item_history ORDER BY 1",
    )
    .await;
    assert!(
        items.contains("| i1      | [2.0, 0.0] | 2    |") && items.contains("| i2      | [1.0, 1.0] | 2    |"),
        "{items}"
    );
}

/// Computes the features of the night of 2026-01-03 from scratch: no earlier night left any state.
async fn rebuilt(config: &Config) -> [String; 2] {
    let output = tempfile::tempdir().unwrap();
    let mut fresh = config.clone();
    fresh.output.uri = output.path().display().to_string();
    let (ctx, rollups) = night_session(&fresh, "2026-01-03").await.unwrap();
    assert_eq!(rollups.report.units_kept, 0);
    both(&ctx).await
}

/// Returns every column of users and of items as text. The text of floats is exact, so equal text means equal bits.
async fn both(ctx: &SessionContext) -> [String; 2] {
    [table(ctx, FEATURES).await, table(ctx, ITEMS).await]
}

#[tokio::test]
async fn late_and_corrected_files_give_the_bits_of_a_rebuild() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    let mut config = config(&lake, &folder.path().join("out"));
    config.lake.quarantine_share_max = 0.5;
    two_days(&lake).await;
    let (first, _) = night_session(&config, "2026-01-02").await.unwrap();
    let (ctx, second) = night_session(&config, "2026-01-03").await.unwrap();
    assert_eq!((second.report.files_read, second.report.units_kept), (1, 1));
    let by_nights = both(&ctx).await;
    assert_ne!(both(&first).await, by_nights);
    assert_eq!(by_nights, rebuilt(&config).await, "night after night");
    let (_, again) = night_session(&config, "2026-01-03").await.unwrap();
    assert_eq!((again.report.bytes_read, again.report.units_kept), (0, 2));

    let late = events(&[
        ("z", "u1", "2026-01-01T09:00:00", "favorite", "i2", "NULL", "3"),
        ("y", "u2", "2026-01-01T09:00:00", "purchase", "i2", "4", "3"),
        ("a", "u1", "2026-01-01T10:00:00", "view", "i1", "NULL", "5"), // delivered a second time
    ]);
    write(&lake, "events/dt=2026-01-01/late.parquet", &late).await;
    let (ctx, after_late) = night_session(&config, "2026-01-03").await.unwrap();
    let late_bytes = std::fs::metadata(lake.join("events/dt=2026-01-01/late.parquet")).unwrap().len();
    assert_eq!((after_late.report.files_read, after_late.report.bytes_read), (1, late_bytes));
    assert_eq!(after_late.report.quarantined.get("repeated_event_id"), Some(&1));
    let by_state = both(&ctx).await;
    assert!(by_state.iter().zip(&by_nights).all(|(late, before)| late != before));
    assert_eq!(by_state, rebuilt(&config).await, "after a late file");

    let corrected = events(&[("f", "u2", "2026-01-02T10:00:00", "purchase", "i2", "7", "3")]);
    write(&lake, "events/dt=2026-01-02/a.parquet", &corrected).await;
    let (ctx, after_correction) = night_session(&config, "2026-01-03").await.unwrap();
    assert_eq!(after_correction.report.files_read, 1);
    let by_correction = both(&ctx).await;
    assert!(by_correction.iter().zip(&by_state).all(|(corrected, before)| corrected != before));
    assert_eq!(by_correction, rebuilt(&config).await, "after a correction");
}

#[tokio::test]
async fn more_bad_rows_than_allowed_stop_the_night_and_keep_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (lake, config) = (folder.path().join("lake"), config(&folder.path().join("lake"), &folder.path().join("out")));
    two_days(&lake).await;
    let bad = events(&[
        ("n1", "u1", "NULL", "view", "i1", "NULL", "5"),
        ("n2", "u1", "2026-01-02T10:00:00", "gaze", "i1", "NULL", "5"),
        ("n3", "u1", "2026-01-09T10:00:00", "view", "i1", "NULL", "5"),
        ("n4", "u1", "2026-01-02T10:00:00", "view", "i1", "NULL", "-5"),
        ("n5", "u1", "2026-01-02T10:00:00", "view", "i1", "NULL", "'NaN'"),
        ("n6", "u1", "2199-01-02T10:00:00", "view", "i1", "NULL", "5"),
        ("n7", "u1", "2026-01-02T10:00:00", "view", "i1", "NULL", "'Infinity'"),
    ]);
    write(&lake, "events/dt=2026-01-02/bad.parquet", &bad).await;
    for _ in 0..2 {
        let stopped = night_session(&config, "2026-01-03").await.map(|_| ()).unwrap_err();
        assert_eq!(stopped.kind.exit_code(), 4, "{stopped}");
        for reason in [
            "null_time: 1",
            "unknown_event_type: 1",
            "time_outside_partition: 1",
            "negative_price: 1",
            "nan_price: 1",
            "infinite_price: 1",
            "time_in_future: 1",
        ] {
            assert!(stopped.message.contains(reason), "{reason} in {stopped}");
        }
    }
    let mut loose = config.clone();
    loose.lake.quarantine_share_max = 0.9;
    let (ctx, rollups) = night_session(&loose, "2026-01-03").await.unwrap();
    assert_eq!((rollups.report.rows_read, rollups.report.quarantined.values().sum::<u64>()), (15, 7));
    let kept = table(&ctx, "SELECT reason, source_file, row_json FROM unit_quarantine ORDER BY reason").await;
    assert!(
        kept.contains("bad.parquet") && kept.contains("\"event_type\":\"gaze\"") && !kept.contains("\"u1\""),
        "{kept}"
    );
}

#[tokio::test]
async fn a_file_that_is_not_parquet_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (lake, config) = (folder.path().join("lake"), config(&folder.path().join("lake"), &folder.path().join("out")));
    two_days(&lake).await;
    let cut = std::fs::read(lake.join("events/dt=2026-01-01/a.parquet")).unwrap();
    for (name, bytes) in
        [("text.parquet", b"not parquet at all".to_vec()), ("cut.parquet", cut[..cut.len() / 2].to_vec())]
    {
        let path = lake.join("events/dt=2026-01-02").join(name);
        std::fs::write(&path, bytes).unwrap();
        let refused = night_session(&config, "2026-01-03").await.map(|_| ()).unwrap_err();
        assert_eq!(refused.kind.exit_code(), 3);
        assert!(refused.message.contains(path.to_str().unwrap()), "{refused}");
        std::fs::remove_file(path).unwrap();
    }
    write(
        &lake,
        "events/dt=2026-01-02/b.parquet",
        "SELECT 1 AS ts, 'view' AS event_type, 'u' AS user_id, 'i' AS item_id",
    )
    .await;
    let refused = night_session(&config, "2026-01-03").await.map(|_| ()).unwrap_err().message;
    assert!(refused.contains("column ts: expected Timestamp") && refused.contains("found Int64"), "{refused}");
}

#[tokio::test]
async fn pictures_are_read_a_few_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let (lake, config) = (folder.path().join("lake"), config(&folder.path().join("lake"), &folder.path().join("out")));
    two_days(&lake).await;
    let items = "SELECT concat('i', value) AS item_id, CASE WHEN value % 3 > 0 THEN arrow_cast(concat('p', value), 'Binary') \
                 END AS image FROM generate_series(1, 300)";
    write(&lake, "items/a.parquet", items).await;
    let (ctx, _) = night_session(&config, "2026-01-03").await.unwrap();
    let rows = async |sql: &str| ctx.sql(sql).await.unwrap().collect().await.unwrap();
    let sizes: Vec<usize> = rows("SELECT image FROM items").await.iter().map(RecordBatch::num_rows).collect();
    assert!(sizes.iter().sum::<usize>() == 300 && sizes.iter().all(|&rows| rows <= 32), "{sizes:?}");
    // Only operators that stream batches read pictures; operators that gather rows have their keys alone. Small files are
    // distributed batch by batch, large ones are split.
    ctx.sql("SET datafusion.optimizer.repartition_file_min_size = 0").await.unwrap();
    for view in ["item_contents", "content_pictures", "item_vectors"] {
        let plan = ctx.table(view).await.unwrap().create_physical_plan().await.unwrap();
        let mut nodes = vec![plan];
        while let Some(node) = nodes.pop() {
            let passes_on = ["DataSourceExec", "ProjectionExec", "UnionExec"].contains(&node.name());
            let pictures = node.schema().fields().iter().any(|field| *field.data_type() == DataType::Binary);
            assert!(passes_on || !pictures, "{view}: {}", node.name());
            nodes.extend(node.children().into_iter().cloned());
        }
    }
    let shown = rows("SELECT count(*) AS n FROM item_contents WHERE image_key IS NOT NULL").await;
    assert_eq!(shown[0].column(0).as_primitive::<Int64Type>().value(0), 200);
}

#[tokio::test]
async fn a_row_outside_its_partition_is_quarantined_past_tolerance() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    // The day of the partition begins on the 10th at 00:00 and ends on the 11th at 00:00.
    let around = events(&[
        ("25 h before", "u1", "2026-01-08T23:00:00", "view", "i1", "NULL", "5"),
        ("23 h before", "u1", "2026-01-09T01:00:00", "view", "i1", "NULL", "5"),
        ("within", "u1", "2026-01-10T12:00:00", "view", "i1", "NULL", "5"),
        ("23 h after", "u1", "2026-01-11T23:00:00", "view", "i1", "NULL", "5"),
        ("25 h after", "u1", "2026-01-12T01:00:00", "view", "i1", "NULL", "5"),
        ("49 h after", "u1", "2026-01-13T01:00:00", "view", "i1", "NULL", "5"),
    ]);
    write(&lake, "events/dt=2026-01-10/a.parquet", &around).await;
    let mut config = config(&lake, &folder.path().join("out"));
    config.lake.quarantine_share_max = 0.9;
    assert_eq!(config.lake.time_tolerance_hours, 24, "the default");
    for (hours, out) in [(24, "25 h after, 25 h before, 49 h after"), (48, "49 h after"), (50, "")] {
        config.lake.time_tolerance_hours = hours;
        let (ctx, rollups) = night_session(&config, "2026-01-20").await.unwrap();
        let reasons: Vec<&str> = rollups.report.quarantined.keys().map(String::as_str).collect();
        let expected: &[&str] = if out.is_empty() { &[] } else { &["time_outside_partition"] };
        assert_eq!(reasons, expected, "{hours} h");
        let good = table(&ctx, "SELECT event_id FROM unit_event ORDER BY event_id").await;
        for row in ["25 h before", "23 h before", "within", "23 h after", "25 h after", "49 h after"] {
            assert_eq!(good.contains(row), !out.contains(row), "tolerance of {hours} h: {row} in\n{good}");
        }
    }
}

/// Returns the columns and rows of `user_features` as one text.
async fn features_with(lake: &Path, files: &[(&str, &str)]) -> Result<String> {
    let (output, overlay) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (file, text) in files {
        let path = overlay.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let mut config = config(lake, output.path());
    config.sql.folder = overlay.path().display().to_string();
    let (ctx, _) = night_session(&config, "2026-01-03").await?;
    Ok(table(&ctx, FEATURES).await)
}

#[tokio::test]
async fn a_file_in_sql_folder_adds_a_user_feature() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    two_days(&lake).await;
    let built_in = features_with(&lake, &[]).await.unwrap();
    let gifts = "-- one row per user_id with an event of i1\nSELECT user_id, count(*) AS i1_events, 0.5 AS i1_share FROM \
                 user_event WHERE item_id = 'i1' GROUP BY user_id;\n";
    // A feature of the rollups needs one more column of one rollup file, and no other change of a built-in file.
    let counted = include_str!("../../sql/rollups/unit_user_day.sql").replace(
        "    count(dwell_ms) AS dwell_events,\n",
        "    count(dwell_ms) AS dwell_events,\n    count(*) FILTER (WHERE event_type = 'purchase' AND item_id = 'i2') AS i2_purchases,\n",
    );
    let bought = "-- one row per user_id: purchases of i2, returns included\nSELECT user_id, sum(i2_purchases) AS i2_purchases \
                  FROM user_day_rows GROUP BY user_id";
    let files = [
        ("features/user_feature_z_gifts.sql", gifts),
        ("features/user_feature_z_i2.sql", bought),
        ("rollups/unit_user_day.sql", &counted),
    ];
    let added = features_with(&lake, &files).await.unwrap();
    let rows = |text: &str| text.lines().filter(|line| line.starts_with('|')).map(String::from).collect::<Vec<_>>();
    let ends = [
        "| i1_events | i1_share | i2_purchases |",
        "| 3         | 0.5      | 0            |",
        "|           |          | 2            |",
    ];
    let (before, after) = (rows(&built_in), rows(&added));
    assert_eq!((before.len(), after.len()), (3, 3), "{added}");
    for ((before, after), end) in before.iter().zip(&after).zip(ends) {
        assert_eq!(after, &format!("{}{}", before.trim_end_matches('|'), end), "{added}");
    }
}

#[tokio::test]
async fn an_added_feature_file_that_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    two_days(&lake).await;
    for (text, expected) in [
        ("SELECT 1 AS x", "sql/features/user_feature_a.sql: no column user_id; it has x"),
        (
            "SELECT 'u1' AS user_id, 1 AS views_7d",
            "sql/features/user_feature_a.sql: column views_7d is in user_features already",
        ),
        (
            "SELECT user_id, 1 AS x FROM user_features",
            "circular dependency between views: user_feature_a, user_features",
        ),
        ("SELECT user_id, nonsense AS x FROM user_event", "sql/features/user_feature_a.sql: "),
    ] {
        let refused = features_with(&lake, &[("features/user_feature_a.sql", text)]).await.unwrap_err();
        assert_eq!(refused.kind.exit_code(), 2, "{refused}");
        assert!(refused.message.contains(expected), "{refused}");
    }
}

#[tokio::test]
async fn a_lake_in_memory_has_the_features_of_the_same_lake_in_files() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    two_days(&lake).await;
    let mut config = config(&lake, &folder.path().join("out"));
    let (ctx, from_files) = night_session(&config, "2026-01-03").await.unwrap();
    let expected = both(&ctx).await;

    let memory = Location::open("memory://a-lake/lake", &config.s3).unwrap();
    for file in ["events/dt=2026-01-01/a.parquet", "events/dt=2026-01-02/a.parquet"] {
        memory.write(file, std::fs::read(lake.join(file)).unwrap()).await.unwrap();
    }
    config.lake.uri = "memory://a-lake/lake".into();
    config.output.uri = folder.path().join("other").display().to_string();
    std::fs::remove_dir_all(&lake).unwrap();
    let (ctx, from_memory) = night_session(&config, "2026-01-03").await.unwrap();
    assert_eq!(both(&ctx).await, expected);
    assert_eq!(from_memory.report.bytes_read, from_files.report.bytes_read);
}
