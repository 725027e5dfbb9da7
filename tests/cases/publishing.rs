//! Publishing: whole nights or nothing, one owner per night, rollback, checks, retention.

use datafusion::prelude::SessionContext;
use intentcast::config::GcConfig;
use intentcast::failure::FailureKind;
use intentcast::lake::stores::Location;
use intentcast::publish::night::{self, FaultPoint, NightCommit};
use intentcast::publish::runs::{self, RunRecord};
use intentcast::publish::{gc, lock, readers};

use crate::support::nights::{self, QUICK, date, memory, publish};

#[tokio::test]
async fn a_night_becomes_visible_whole_and_a_rerun_replaces_it_alone() {
    let output = memory("whole");
    assert!(runs::visible(&output).await.unwrap().is_none());
    publish(&output, "2026-03-01", 0.2).await.unwrap();
    publish(&output, "2026-03-02", 0.25).await.unwrap();
    let again = publish(&output, "2026-03-01", 0.3).await.unwrap();
    assert_eq!(again.run.generation.0, 2);
    assert_eq!(
        nights::intents(&output).await,
        [("2026-03-01".to_string(), 4, 0.3), ("2026-03-02".to_string(), 4, 0.25)]
    );
    assert_eq!(runs::visible(&output).await.unwrap().unwrap().run_date(), date("2026-03-02"));
}

#[tokio::test]
async fn the_same_night_again_changes_nothing() {
    let output = memory("same-again");
    let first = publish(&output, "2026-03-01", 0.2).await.unwrap();
    let second = publish(&output, "2026-03-01", 0.2).await.unwrap();
    assert_eq!(first.run.table_versions, second.run.table_versions);
    assert_eq!(runs::history(&output).await.unwrap().len(), 1);
}

#[tokio::test]
async fn rollback_shows_the_previous_generation_then_the_night_before() {
    let output = memory("rollback");
    publish(&output, "2026-03-01", 0.2).await.unwrap();
    publish(&output, "2026-03-02", 0.25).await.unwrap();
    publish(&output, "2026-03-02", 0.3).await.unwrap();
    let shown = runs::rollback(&output, date("2026-03-02"), &QUICK).await.unwrap().unwrap();
    assert_eq!((shown.run_date(), shown.run.generation.0), (date("2026-03-02"), 1));
    assert_eq!(nights::intents(&output).await[1], ("2026-03-02".to_string(), 4, 0.25));
    let shown = runs::rollback(&output, date("2026-03-02"), &QUICK).await.unwrap().unwrap();
    assert_eq!(shown.run_date(), date("2026-03-01"));
    assert_eq!(nights::intents(&output).await, [("2026-03-01".to_string(), 4, 0.2)]);
    let failure = runs::rollback(&output, date("2026-03-02"), &QUICK).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Usage, "{failure}");
    publish(&output, "2026-03-02", 0.3).await.unwrap();
    assert_eq!(nights::intents(&output).await[1], ("2026-03-02".to_string(), 4, 0.3), "published again, shown again");
}

#[tokio::test]
async fn the_documented_query_finds_the_visible_nights() {
    let output = memory("documented");
    publish(&output, "2026-03-01", 0.2).await.unwrap();
    publish(&output, "2026-03-02", 0.25).await.unwrap();
    publish(&output, "2026-03-02", 0.3).await.unwrap();
    runs::rollback(&output, date("2026-03-02"), &QUICK).await.unwrap();
    let ctx = SessionContext::new();
    let nights = runs::visible_nights(&output).await.unwrap();
    readers::register_visible(&ctx, &output, &nights).await.unwrap();
    let query = include_str!("../../sql/views/visible_nights.sql");
    let batches = ctx.sql(query).await.unwrap().collect().await.unwrap();
    let text = arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string();
    assert!(text.contains("| 2026-03-01 | 1 ") && text.contains("| 2026-03-02 | 1 "), "{text}");
    for view in [include_str!("../../sql/views/orders_today.sql"), include_str!("../../sql/views/segment_trend.sql")] {
        assert!(ctx.sql(view).await.unwrap().count().await.unwrap() > 0);
    }
}

#[tokio::test]
async fn failed_checks_name_every_finding_and_publish_nothing() {
    let output = memory("checks");
    publish(&output, "2026-03-01", 0.2).await.unwrap();
    let ctx = SessionContext::new();
    let held = lock::acquire(&output, date("2026-03-02"), &QUICK).await.unwrap();
    let mut tables = nights::tables_of(0.9);
    let with_null = of_user("u2", 0.9).replace("CAST(0.9 AS DOUBLE) AS p_view", "CAST(NULL AS DOUBLE) AS p_view");
    let with_nan = of_user("u3", 0.9).replace("CAST(0.9 AS DOUBLE) AS p_search", "CAST('NaN' AS DOUBLE) AS p_search");
    let planted = [tables[0].1.clone(), of_user("u1", 1.5), with_null, with_nan];
    tables[0].1 = planted.join(" UNION ALL ");
    tables[2].1 = tables[2].1.replace("3 AS q75", "1 AS q75");
    let (_, shadow) = tables.iter_mut().find(|(table, _)| *table == "intent_shadow").unwrap();
    *shadow = shadow.replace("CAST(0.9 AS DOUBLE) AS p_cart", "CAST(1.5 AS DOUBLE) AS p_cart");
    let staged = nights::stage(&ctx, &output, &held, &tables).await;
    let failure = nights::check(&ctx, &output, held.run_date, &staged).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Check);
    for finding in [
        "row_counts: ",
        "probabilities: intent.p_cart: expected every row between 0 and 1, got 1 rows",
        "probabilities: intent.p_view: expected every row between 0 and 1, got 2 rows",
        "probabilities: intent.p_search: expected every row between 0 and 1, got 2 rows",
        "probabilities: intent_shadow.p_cart: expected every row between 0 and 1, got 4 rows",
        "values: intent.p_view: expected finite numbers, none null, got 1 rows that are not",
        "values: intent.p_search: expected finite numbers, none null, got 1 rows that are not",
        "quantiles: demand of item i1",
        "keys: keys of intent (user_id): expected each once, none null, got 3 keys",
        "change: mean of intent.p_purchase",
    ] {
        assert!(failure.message.contains(finding), "expected {finding:?} in\n{failure}");
    }
    assert_eq!(nights::intents(&output).await, [("2026-03-01".to_string(), 4, 0.2)]);
}

/// Selects one user's row of `intent`, with `p` as every probability.
fn of_user(user: &str, p: f64) -> String {
    let scores = nights::probabilities(p);
    format!(
        "SELECT '{user}' AS user_id, {scores}, 1.5 AS expected_units, 9.0 AS expected_spend, 0.1 AS anomaly_score, 'loyal' AS segment, 3 AS events_seen, TIMESTAMP '2026-02-28T12:00:00Z' AS last_seen_at, 'm1' AS model_version, false AS hold_out"
    )
}

#[tokio::test]
async fn a_share_of_users_without_scores_is_found() {
    let output = memory("share");
    let ctx = SessionContext::new();
    let held = lock::acquire(&output, date("2026-03-01"), &QUICK).await.unwrap();
    let mut tables = nights::tables_of(0.2);
    tables[0].1 = format!("SELECT * FROM ({}) WHERE user_id <> 'u4'", tables[0].1);
    let staged = nights::stage(&ctx, &output, &held, &tables).await;
    let failure = nights::check(&ctx, &output, held.run_date, &staged).await.unwrap_err();
    assert!(
        failure.message.contains("scored_share: share of users scored: expected at least 0.999, got 3 of 4"),
        "{failure}"
    );
}

#[tokio::test]
async fn an_owner_that_was_paused_cannot_publish() {
    let output = memory("paused");
    let ctx = SessionContext::new();
    let paused = lock::acquire(&output, date("2026-03-01"), &QUICK).await.unwrap();
    let staged = nights::stage(&ctx, &output, &paused, &nights::tables_of(0.9)).await;
    paused.stop_heartbeat();
    tokio::time::sleep(std::time::Duration::from_millis(2300)).await;
    publish(&output, "2026-03-01", 0.2).await.unwrap();
    let record = RunRecord::new(&paused, "paused");
    let fault = FaultPoint::default();
    let commit = NightCommit { output: &output, held: &paused, staged: &staged, visible: None, fault: &fault };
    let late = night::commit_night(commit, record).await.unwrap_err();
    assert_eq!(late.kind, FailureKind::Fenced, "{late}");
    assert_eq!(nights::intents(&output).await, [("2026-03-01".to_string(), 4, 0.2)]);
}

#[tokio::test]
async fn a_half_published_rerun_stays_hidden_after_a_later_night() {
    let output = memory("half");
    publish(&output, "2026-03-01", 0.2).await.unwrap();
    let ctx = SessionContext::new();
    let dead = lock::acquire(&output, date("2026-03-01"), &QUICK).await.unwrap();
    let staged = nights::stage(&ctx, &output, &dead, &nights::tables_of(0.9)).await;
    let commit = intentcast::tables::delta::TableCommit {
        table: "intent",
        run_date: dead.run_date,
        generation: dead.generation,
        files: &staged["intent"],
        manifest_hash: "half",
    };
    intentcast::tables::delta::replace_partition(&output, &commit).await.unwrap();
    publish(&output, "2026-03-02", 0.25).await.unwrap();
    assert_eq!(
        nights::intents(&output).await,
        [("2026-03-01".to_string(), 4, 0.2), ("2026-03-02".to_string(), 4, 0.25)]
    );
}

#[tokio::test]
async fn gc_drops_old_nights_and_orphans_and_no_visible_file() {
    let output = memory("gc");
    for (day, p) in [("01", 0.2), ("02", 0.21), ("03", 0.22), ("03", 0.23), ("04", 0.24)] {
        publish(&output, &format!("2026-03-{day}"), p).await.unwrap();
    }
    let ctx = SessionContext::new();
    let staging = lock::acquire(&output, date("2026-03-05"), &QUICK).await.unwrap();
    nights::stage(&ctx, &output, &staging, &nights::tables_of(0.9)).await; // never committed
    let young = GcConfig { nights_kept: 2, orphan_age_hours: 48 };
    assert_eq!(gc::plan(&output, &young).await.unwrap().orphan_files, [], "young files may belong to a running night");

    let settings = GcConfig { nights_kept: 2, orphan_age_hours: 0 };
    let plan = gc::plan(&output, &settings).await.unwrap();
    assert_eq!(plan.expired_nights, [date("2026-03-01"), date("2026-03-02")]);
    let tables = nights::tables_of(0.9).len();
    assert_eq!(plan.orphan_files.len(), tables, "one staged file for each table: {plan:?}");
    assert_eq!(plan.lock_objects.len(), 3, "generation 1 of the night that ran twice");
    let rows = plan.rows(&output);
    let of_kind = |kind: &str| rows.iter().filter(|row| row.kind == kind).count();
    assert_eq!(
        (of_kind("night"), of_kind("data file"), of_kind("lock"), rows.len()),
        (2, tables, 3, tables + 5),
        "{rows:?}"
    );
    let data_bytes: u64 = rows.iter().filter(|row| row.kind == "data file").map(|row| row.bytes).sum();
    assert_eq!(data_bytes, plan.orphan_bytes());
    assert!(rows.iter().all(|row| !row.reason.is_empty()), "{rows:?}");
    gc::execute(&output, &plan, &QUICK).await.unwrap();
    let plan = gc::plan(&output, &settings).await.unwrap();
    assert_eq!(plan.orphan_files.len(), 2 * tables, "the files of two expired nights: {plan:?}");
    gc::execute(&output, &plan, &QUICK).await.unwrap();

    let kept = [("2026-03-03".to_string(), 4, 0.23), ("2026-03-04".to_string(), 4, 0.24)];
    assert_eq!(nights::intents(&output).await, kept);
    runs::rollback(&output, date("2026-03-03"), &QUICK).await.unwrap();
    assert_eq!(
        nights::intents(&output).await[0],
        ("2026-03-03".to_string(), 4, 0.22),
        "rollback still finds its files"
    );
    publish(&output, "2026-03-01", 0.2).await.unwrap();
    assert_eq!(nights::intents(&output).await[0], ("2026-03-01".to_string(), 4, 0.2), "an expired night can run again");
}

/// Returns every object below `state/` except locks, without the output's prefix.
async fn state(output: &Location) -> Vec<String> {
    let place = output.folder("state");
    let names = place.list().await.unwrap().into_iter().map(|o| o.location.to_string());
    let names = names.filter_map(|n| n.strip_prefix(&format!("{}/", place.prefix)).map(String::from));
    names.filter(|n| !n.starts_with("lock/")).collect()
}

#[tokio::test]
async fn gc_drops_state_that_no_night_can_use_and_keeps_what_one_can() {
    let output = memory("gc-state");
    let first = publish(&output, "2026-03-01", 0.2).await.unwrap();
    let second = publish(&output, "2026-03-02", 0.21).await.unwrap();
    let place = output.folder("state");
    let shown: Vec<String> = [&first, &second]
        .map(|night| format!("features/{}/{}/user_features/a.parquet", night.run_date(), night.run.manifest_hash))
        .into();
    // Checkpoints of a night whose inputs changed before it was published, and of a night that died.
    let superseded = "features/2026-03-02/superseded/user_features/a.parquet";
    let died = "features/2026-03-03/died/user_features/a.parquet";
    for name in shown.iter().map(String::as_str).chain([superseded, died]) {
        place.write(name, "rows").await.unwrap();
        place.write(&name.replace("a.parquet", "done"), "").await.unwrap();
    }
    // Encoder states of a model that is no longer used; without a bundle no state is useful.
    place.write("encoded/forgotten/2026-03-01.parquet", "states").await.unwrap();
    let before = state(&output).await;

    let young = GcConfig { nights_kept: 9, orphan_age_hours: 48 };
    let plan = gc::plan(&output, &young).await.unwrap();
    assert_eq!(plan.old_state(), (0, 0), "young state may be of a running or a resumable night: {plan:?}");

    let settings = GcConfig { nights_kept: 9, orphan_age_hours: 0 };
    let plan = gc::plan(&output, &settings).await.unwrap();
    assert_eq!(plan.old_state(), (5, 4 + 4 + 6), "{plan:?}");
    let running = lock::acquire(&output, date("2026-03-03"), &QUICK).await.unwrap();
    gc::execute(&output, &plan, &QUICK).await.unwrap();
    let left = state(&output).await;
    assert!(left.iter().any(|name| name == died), "a night that is held keeps its state: {left:?}");
    running.release().await.unwrap();
    gc::execute(&output, &gc::plan(&output, &settings).await.unwrap(), &QUICK).await.unwrap();
    let left = state(&output).await;
    let expected: Vec<String> =
        before.into_iter().filter(|n| shown.iter().any(|s| n.starts_with(&s[..s.len() - 9]))).collect();
    assert_eq!(left, expected, "what published nights were scored from stays");

    // Once a night expires, its checkpoints are removed too, one run of gc after its row.
    let one = GcConfig { nights_kept: 1, orphan_age_hours: 0 };
    for _ in 0..2 {
        gc::execute(&output, &gc::plan(&output, &one).await.unwrap(), &QUICK).await.unwrap();
    }
    let left = state(&output).await;
    assert!(left.iter().all(|n| n.starts_with("features/2026-03-02/")) && left.len() == 2, "{left:?}");
}
