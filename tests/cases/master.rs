//! Users, items, inventory, promotions and erasures with bad, repeated or contradictory rows.

use crate::support::shop::{done, refused};
use crate::support::small_lake::{DATE, GOOD, SmallLake, event};

const BAD: &str = "SELECT view, reason, coalesce(column_name, ''), row_json FROM master_quarantine ORDER BY 1, 2, 3, 4";

/// Twenty-five good stock rows, which leave room for a bad one.
const STOCK: &str =
    "SELECT concat('s', value) AS item_id, DATE '2026-01-31' AS as_of, 5 AS on_hand FROM generate_series(1, 25)";

async fn lake_with(view: &str, good: &str, bad: &str) -> SmallLake {
    let lake = SmallLake::new();
    lake.write("events/a.parquet", GOOD).await;
    lake.write(&format!("{view}/a.parquet"), good).await;
    lake.write(&format!("{view}/b.parquet"), bad).await;
    lake
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_rows_out_of_range_are_quarantined_with_the_item() {
    let cases = [
        ("service_level", "95.0"),
        ("service_level", "1.0"),
        ("service_level", "CAST('NaN' AS DOUBLE)"),
        ("pack_size", "0"),
        ("lead_time_days", "-1"),
        ("min_order_quantity", "-5"),
        ("unit_cost", "CAST('Infinity' AS DOUBLE)"),
        ("on_order", "9223372036854775807"),
    ];
    let bad = |(case, (column, value)): (usize, &(&str, &str))| {
        format!("SELECT 'bad{case}' AS item_id, DATE '2026-01-31' AS as_of, 7 AS on_hand, {value} AS {column}")
    };
    let rows: Vec<String> = cases.iter().enumerate().map(bad).collect();
    let lake = lake_with("inventory", STOCK, &rows[0]).await;
    for (case, row) in rows.iter().enumerate().skip(1) {
        lake.write(&format!("inventory/bad{case}.parquet"), row).await;
    }
    let some_bad = ["lake.quarantine_share_max=0.5"];
    let found = lake.rows(&some_bad, BAD);
    for (case, (column, _)) in cases.iter().enumerate() {
        let is_it = |row: &&String| {
            row.starts_with(&format!("inventory,out_of_range,{column},")) && row.contains(&format!("bad{case}"))
        };
        assert_eq!(found.iter().filter(is_it).count(), 1, "{column}: {found:?}");
    }
    assert_eq!(found.len(), cases.len(), "{found:?}");
    assert_eq!(lake.rows(&some_bad, "SELECT count(*), sum(on_hand) FROM inventory"), ["25,125"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_view_of_bad_rows_stops_every_verb() {
    let bad = "SELECT 'bad' AS item_id, DATE '2026-01-31' AS as_of, 7 AS on_hand, 95.0 AS service_level";
    let lake = lake_with("inventory", bad, &bad.replace("'bad'", "'worse'")).await;
    let places = lake.places();
    let stopped = refused(&lake.arguments(&places, &[], "SELECT 1"), 4);
    assert!(stopped.contains("inventory: 2 of 2 rows are bad (out_of_range of service_level 2)"), "{stopped}");
    assert!(stopped.contains("inventory/a.parquet") && stopped.contains("bad"), "{stopped}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_of_several_places_adds_up_whatever_the_file_order() {
    let row = |file: &str, on_hand: i32, rest: &str| {
        (
            format!("inventory/{file}.parquet"),
            format!("SELECT 'i1' AS item_id, DATE '2026-01-31' AS as_of, {on_hand} AS on_hand, {rest}"),
        )
    };
    let north = row("a", 5, "1 AS on_order, 3 AS lead_time_days, 0.9 AS service_level, 6 AS pack_size");
    let south =
        row("b", 7, "CAST(NULL AS INT) AS on_order, 9 AS lead_time_days, 0.95 AS service_level, 6 AS pack_size");
    let lake = SmallLake::new();
    lake.write("events/a.parquet", GOOD).await;
    for (file, rows) in [&north, &south] {
        lake.write(file, rows).await;
    }
    let stock = "SELECT on_hand, on_order, lead_time_days, service_level, pack_size FROM inventory";
    assert_eq!(lake.rows(&[], stock), ["12,1,9,0.95,6"]);
    let (file, rows) = row("c", 1, "6 AS pack_size, 2.5 AS unit_cost");
    lake.write(&file, &rows).await;
    let (file, rows) = row("d", 1, "12 AS pack_size");
    lake.write(&file, &rows).await;
    assert_eq!(lake.rows(&[], stock), Vec::<String>::new());
    let bad = lake.rows(&[], BAD);
    assert!(bad.len() == 4 && bad.iter().all(|row| row.starts_with("inventory,conflicting_rows,,")), "{bad:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_loaded_twice_is_refused_with_both_files() {
    let lake = lake_with("inventory", STOCK, STOCK).await;
    let places = lake.places();
    let refusal = refused(&lake.arguments(&places, &[], "SELECT 1"), 3);
    assert!(refusal.contains("inventory/a.parquet") && refusal.contains("inventory/b.parquet"), "{refusal}");
    assert!(refusal.contains("the inventory rows of 2026-01-31") && refusal.contains("loaded twice"), "{refusal}");
    let lake_only = ["sql", "--lake", &places[0], "--date", DATE, "-c", "SELECT 1"];
    assert!(refused(&lake_only, 3).contains("loaded twice"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_a_users_row_never_gives_consent() {
    let good = "SELECT concat('g', value) AS user_id, TIMESTAMP '2026-01-01' AS signed_up_at, true AS consent FROM generate_series(1, 50)";
    let bad = "SELECT 'u1' AS user_id, TIMESTAMP '1970-01-01' AS signed_up_at, true AS consent";
    let lake = lake_with("users", good, bad).await;
    lake.write("events/b.parquet", &event("1 AS quantity, 1.0 AS price")).await;
    assert_eq!(lake.rows(&[], "SELECT count(*) FROM user_counts WHERE user_id = 'u1'"), ["1"]);
    let scored = "SELECT count(*), count(*) FILTER (WHERE user_id = 'u1') FROM scored_users";
    assert_eq!(lake.rows(&[], scored), ["200,0"]);
    let found = lake.rows(&[], BAD);
    assert!(found.len() == 1 && found[0].starts_with("users,time_too_early,signed_up_at,"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_without_a_user_refuses_its_file() {
    let lake = lake_with("erasures", "SELECT 'g1' AS user_id", "SELECT ' ' AS user_id UNION ALL SELECT 'g2'").await;
    let places = lake.places();
    let refusal = refused(&lake.arguments(&places, &[], "SELECT 1"), 3);
    assert!(refusal.contains("erasures/b.parquet: 1 rows without a user_id"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_promotions_and_catalogue_rows_are_quarantined() {
    let good = "SELECT concat('s', value) AS item_id, DATE '2026-02-01' AS starts_on, DATE '2026-02-03' AS ends_on FROM generate_series(1, 25)";
    let bad = "SELECT 'p' AS item_id, DATE '2026-02-05' AS starts_on, DATE '2026-02-03' AS ends_on \
               UNION ALL SELECT '', DATE '2026-02-01', DATE '2026-02-03'";
    let lake = lake_with("promotions", good, bad).await;
    let items = "SELECT concat('s', value) AS item_id, 1.0 AS price FROM generate_series(1, 25) UNION ALL SELECT 'n', CAST('NaN' AS DOUBLE)";
    lake.write("items/a.parquet", items).await;
    let found = lake.rows(&[], "SELECT view, reason, coalesce(column_name, '') FROM master_quarantine ORDER BY 1, 2");
    assert_eq!(found, ["items,out_of_range,price", "promotions,null_id,", "promotions,out_of_range,ends_on"]);
    assert_eq!(lake.rows(&[], "SELECT count(*) FROM promotions"), ["25"]);
    assert_eq!(lake.rows(&[], "SELECT count(*) FROM items"), ["25"]);
    let places = lake.places();
    let plain = ["sql", "--lake", &places[0], "--date", DATE, "--format", "csv", "-c", "SELECT count(*) FROM items"];
    assert_eq!(done(&plain), "count(*)\n25\n");
}

/// Writes one event for each user, and the pairs of guests and logins.
async fn stitched_lake(users: &[&str], pairs: &[(&str, &str)]) -> SmallLake {
    let lake = SmallLake::new();
    let events = users.iter().map(|user| event("1 AS quantity, 1.0 AS price").replace("'u1'", &format!("'{user}'")));
    lake.write("events/a.parquet", &events.collect::<Vec<_>>().join(" UNION ALL ")).await;
    let rows =
        pairs.iter().map(|(guest, login)| format!("SELECT '{guest}' AS user_id, '{login}' AS canonical_user_id"));
    lake.write("users/a.parquet", &rows.collect::<Vec<_>>().join(" UNION ALL ")).await;
    lake
}

const PERSONS: &str = "SELECT user_id, events_lifetime FROM user_counts ORDER BY user_id";

#[tokio::test(flavor = "multi_thread")]
async fn chains_and_cycles_of_ids_are_one_person() {
    let users = ["a", "b", "c", "x", "y", "g", "l1", "l2", "alone", "self"];
    let pairs =
        [("a", "b"), ("b", "c"), ("x", "y"), ("y", "x"), ("g", "l1"), ("g", "l2"), ("self", "self"), ("", "alone")];
    let lake = stitched_lake(&users, &pairs).await;
    let loose = ["lake.quarantine_share_max=0.5"];
    assert_eq!(lake.rows(&loose, PERSONS), ["alone,1", "c,3", "l1,3", "self,1", "x,2"]);
    let scored = lake.rows(&loose, "SELECT user_id FROM scored_users ORDER BY 1");
    assert_eq!(scored, ["alone", "c", "l1", "self", "x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_id_never_merges_strangers() {
    let lake = stitched_lake(&["a", "b", "c", "d", "kiosk"], &[("a", "kiosk"), ("b", "kiosk"), ("c", "d")]).await;
    assert_eq!(lake.rows(&[], PERSONS), ["d,2", "kiosk,3"]);
    let apart = ["lake.stitched_max=2"];
    assert_eq!(lake.rows(&apart, PERSONS), ["a,1", "b,1", "d,2", "kiosk,1"]);
    assert_eq!(lake.rows(&apart, "SELECT user_id FROM unstitched ORDER BY 1"), ["a", "b", "kiosk"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_id_refuses_holds_for_the_person() {
    let lake = stitched_lake(&["a", "b", "c", "d", "e"], &[("a", "b"), ("b", "c"), ("d", "e")]).await;
    lake.write("users/b.parquet", "SELECT 'a' AS user_id, false AS consent").await;
    lake.write("erasures/a.parquet", "SELECT 'd' AS user_id").await;
    assert_eq!(lake.rows(&[], PERSONS), ["c,3", "e,2"]);
    assert_eq!(lake.rows(&[], "SELECT user_id FROM scored_users"), Vec::<String>::new());
}

/// Rows of one item in two files, under either order of their names.
async fn catalogue(first: &str, second: &str) -> SmallLake {
    let lake = SmallLake::new();
    lake.write("events/a.parquet", GOOD).await;
    lake.write("items/a.parquet", first).await;
    lake.write("items/b.parquet", second).await;
    lake
}

#[tokio::test(flavor = "multi_thread")]
async fn several_rows_of_an_item_are_one_in_any_file_order() {
    let item = |id: &str, title: &str, category: &str, price: &str, brand: &str| {
        let brand = if brand.is_empty() { "CAST(NULL AS VARCHAR)".into() } else { format!("'{brand}'") };
        format!(
            "SELECT '{id}' AS item_id, '{title}' AS title, '{category}' AS category, {price} AS price, {brand} AS brand, \
             arrow_cast('{title}', 'Binary') AS image, [CAST({price} AS REAL), CAST(1.0 AS REAL)] AS video_vector"
        )
    };
    let north =
        [item("i1", "mug", "b", "2.0", ""), item("i1", "jug", "b", "9.5", "x"), item("i2", "cup", "c", "1.0", "")];
    let south =
        [item("i1", "jug", "a", "2.0", ""), item("i1", "pot", "a", "3.0", ""), item("i3", "pan", "c", "-1.0", "y")];
    let files = [north.join(" UNION ALL "), south.join(" UNION ALL ")];
    let mut found = Vec::new();
    for [first, second] in [[0, 1], [1, 0]] {
        let lake = catalogue(&files[first], &files[second]).await;
        let loose = ["lake.quarantine_share_max=0.5"];
        let items = "SELECT item_id, title, category, price, brand, arrow_cast(image, 'Utf8'), video_vector[1] FROM items ORDER BY 1";
        assert_eq!(lake.rows(&loose, items), ["i1,jug,a,2.0,x,jug,2.0", "i2,cup,c,1.0,,cup,1.0"]);
        let contents = "SELECT item_id, category, text_key = content_key('jug'), image_key = content_key('jug'), \
                        (SELECT max(price) FROM item_days) FROM item_contents WHERE item_id = 'i1'";
        assert_eq!(lake.rows(&loose, contents), ["i1,a,true,true,2.0"], "no event has a price");
        found.push(lake.rows(
            &loose,
            "SELECT * EXCLUDE (_file, image_vector, video_vector, video_frames) FROM items ORDER BY item_id",
        ));
    }
    assert_eq!(found[0], found[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_rows_of_a_user_are_one_and_no_consent_wins() {
    let row = |id: &str, country: &str, day: u32, consent: &str, excluded: &str| {
        format!(
            "SELECT '{id}' AS user_id, {country} AS country, TIMESTAMP '2026-01-{day:02}' AS signed_up_at, \
             CAST({consent} AS BOOLEAN) AS consent, CAST({excluded} AS BOOLEAN) AS excluded"
        )
    };
    let north = [
        row("g1", "'DE'", 9, "true", "NULL"),
        row("g1", "NULL", 9, "false", "NULL"),
        row("g2", "'AT'", 2, "NULL", "NULL"),
    ];
    let south = [
        row("g1", "'FR'", 3, "true", "false"),
        row("g2", "'AT'", 1, "NULL", "NULL"),
        row("g2", "'CH'", 3, "NULL", "true"),
    ];
    let files = [north.join(" UNION ALL "), south.join(" UNION ALL ")];
    for [first, second] in [[0, 1], [1, 0]] {
        let lake = lake_with("users", &files[first], &files[second]).await;
        let users = "SELECT user_id, country, CAST(signed_up_at AS DATE), consent, excluded FROM users ORDER BY 1";
        assert_eq!(lake.rows(&[], users), ["g1,DE,2026-01-09,false,false", "g2,AT,2026-01-01,,true"]);
        assert_eq!(lake.rows(&[], "SELECT count(*) FROM scored_users"), ["198"]);
    }
    let default = ["features.consent_default=false"];
    let lake = lake_with("users", &row("g1", "NULL", 9, "true", "NULL"), &row("g1", "NULL", 9, "NULL", "NULL")).await;
    let consent = "SELECT consent, (SELECT count(*) FROM scored_users) FROM users";
    assert_eq!([lake.rows(&[], consent), lake.rows(&default, consent)], [["true,200"], ["false,0"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_about_master_data_are_counted() {
    let lake = stitched_lake(
        &["a", "b", "x", "y"],
        &[("a", "b"), ("a", "c"), ("x", "y"), ("y", "x"), ("p", "q"), ("q", "r"), ("r", "s")],
    )
    .await;
    lake.write("events/b.parquet", GOOD).await;
    lake.write("items/a.parquet", "SELECT 'listed' AS item_id UNION ALL SELECT 'listed' UNION ALL SELECT 'once'").await;
    let stock =
        |id: &str, as_of: u32| format!("SELECT '{id}' AS item_id, DATE '2026-01-{as_of}' AS as_of, 1 AS on_hand");
    let rows = [stock("listed", 30), stock("listed", 30), stock("i1", 30), stock("new", 30), stock("new", 31)];
    lake.write("inventory/a.parquet", &rows.join(" UNION ALL ")).await;
    let promotion = "SELECT 'other' AS item_id, DATE '2026-02-05' AS starts_on, DATE '2026-02-06' AS ends_on";
    lake.write("promotions/a.parquet", promotion).await;
    lake.write("erasures/a.parquet", "SELECT 'e' AS user_id UNION ALL SELECT 'e' UNION ALL SELECT 'f'").await;
    let settings = ["lake.stitched_max=3"];
    let findings = "SELECT view, finding, concerned FROM master_findings WHERE concerned > 0 ORDER BY 1, 2";
    let expected = [
        "erasures,combined,1",
        "inventory,combined,1",
        "inventory,unknown_item,2",
        "items,combined,1",
        "promotions,unknown_item,1",
        "users,combined,1",
        "users,cycles,1",
        "users,unstitched,4",
    ];
    assert_eq!(lake.rows(&settings, findings), expected);

    let places = lake.places();
    let dry_run = |more: &[&str]| {
        let fixed = [
            "--set",
            settings[0],
            "nightly",
            "--lake",
            &places[0],
            "--output",
            &places[1],
            "--date",
            DATE,
            "--dry-run",
        ];
        done(&[&fixed, more].concat())
    };
    assert!(!dry_run(&[]).contains("master data:"), "the rollups are not built yet");
    let build = [
        "--set",
        settings[0],
        "sql",
        "--refresh",
        "--lake",
        &places[0],
        "--output",
        &places[1],
        "--date",
        DATE,
        "-c",
        "SELECT 1",
    ];
    done(&build);
    let shown = dry_run(&[]);
    let line = "master data: erasures: combined 1; inventory: combined 1, unknown_item 2; items: combined 1; \
                promotions: unknown_item 1; users: combined 1, cycles 1, unstitched 4";
    assert!(shown.contains(line), "{shown}");
    let json: serde_json::Value = serde_json::from_str(&dry_run(&["--format", "json"])).unwrap();
    assert_eq!(json["master_findings"]["inventory"], serde_json::json!({"combined": 1, "unknown_item": 2}));
}
