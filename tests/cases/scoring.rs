//! The scoring service and the network beneath it, with a small random model.

use arrow::array::{AsArray, RecordBatch, StructArray};
use arrow::datatypes::Float64Type;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use intentcast::config::{Config, ScoreConfig};
use intentcast::features::functions;
use intentcast::lake::stores::Location;
use intentcast::model::bundle::{Bundle, IndexedItem, Registry};
use intentcast::model::contents::Contents;
use intentcast::model::inputs::UserInputs;
use intentcast::model::shape::IntentShape;
use intentcast::model::targets::OUTPUTS;
use intentcast::score::models::{ContentWrites, Models};
use intentcast::score::operator;
use intentcast::score::service::{ScoringService, as_struct};
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::Device;
use tokio::sync::OnceCell;

use crate::support::random_model;

const OUTPUT: &str = "memory://scoring/out";

/// Returns the registry under `OUTPUT`, whose champion is a random model of one feature. It is written once for all tests of
/// the process: libtorch has one generator for all threads, so each test would get other weights.
async fn registry() -> &'static Registry {
    static WRITTEN: OnceCell<Registry> = OnceCell::const_new();
    WRITTEN.get_or_init(|| write_model(OUTPUT, [0; 3])).await
}

/// Writes a random model that reads content vectors of these dimensions.
async fn write_model(output: &str, content_dims: [i64; 3]) -> Registry {
    let registry = Registry(Location::open(output, &Default::default()).unwrap().folder("models"));
    let items = ["i1", "i2"].map(|i| IndexedItem {
        item_id: i.into(),
        category: None,
        contents: [None; 3],
        interactions_per_day: 0.0,
    });
    let intent = IntentShape { content_dims, ..random_model::intent_shape(16, 2, 2) };
    random_model::write_champion(&registry, intent, &items).await;
    registry
}

async fn bundle() -> Bundle {
    registry().await.load("", Device::Cpu).await.unwrap()
}

/// A fault of some users of an input.
#[derive(Clone, Copy)]
enum Bad<'a> {
    NoUser,
    /// An infinite feature, refused where a request is read.
    Feature(&'a [usize]),
    /// An infinite price in every event, which only the network turns into NaN.
    Price(&'a [usize]),
}

/// Selects `users` users with `1 + user % 17` events each; user 3 has none. No two of the first 1683 have the same events.
fn input_sql(users: usize, bad: Bad) -> String {
    let infinite = |users: &[usize], good: &str| {
        let users = users.iter().map(|user| format!("WHEN u = {user} THEN CAST('Infinity' AS DOUBLE)"));
        format!("CASE {} ELSE CAST({good} AS DOUBLE) END", users.collect::<Vec<_>>().join(" "))
    };
    let (value, price) = match bad {
        Bad::NoUser => ("u".into(), "CAST(e AS DOUBLE)".into()),
        Bad::Feature(users) => (infinite(users, "u"), "CAST(e AS DOUBLE)".into()),
        Bad::Price(users) => ("u".into(), infinite(users, "e")),
    };
    format!(
        "SELECT user_id, named_struct('user_id', user_id, 'as_of', as_of(), 'recent', recent, 'events_7d', {value}) AS features \
         FROM (SELECT u, concat('u', lpad(CAST(u AS VARCHAR), 4, '0')) AS user_id, \
           last_events(128, to_timestamp_micros(1772000000000000 - (e * 5 + u % 11) * 3600000000), CAST(e AS VARCHAR), CASE e % 3 WHEN 0 THEN 'view' WHEN 1 THEN 'cart' ELSE 'search' END, \
             concat('i', CAST((u * 7 + e) % 9 AS VARCHAR)), 'c', {price}, CAST(e * 1000 AS BIGINT), NULL, NULL, NULL) FILTER (WHERE u <> 3) AS recent \
           FROM generate_series(1, {users}) AS a(u) CROSS JOIN generate_series(1, 17) AS b(e) WHERE e <= 1 + u % 17 GROUP BY u)"
    )
}

fn session() -> SessionContext {
    let ctx = SessionContext::new();
    functions::register(&ctx, &Config::default(), "2026-03-01".parse().unwrap()).unwrap();
    ctx
}

async fn features(users: usize, bad: Bad<'_>) -> StructArray {
    let sql = format!("SELECT features FROM ({}) ORDER BY user_id", input_sql(users, bad));
    let batches = session().sql(&sql).await.unwrap().collect().await.unwrap();
    let batch = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    as_struct(batch.column(0)).unwrap().clone()
}

fn close(a: &[f32], b: &[f32]) -> bool {
    let apart = a.iter().zip(b).map(|(x, y)| (x - y).abs() / x.abs().max(1.0)).fold(0.0, f32::max);
    println!("largest relative difference {apart:.1e}");
    a.len() == b.len() && apart <= 1e-5
}

#[tokio::test]
async fn a_batch_equals_its_members_and_padding_never_leaks() {
    let features = features(40, Bad::NoUser).await;
    let service = ScoringService::start(bundle().await, &ScoreConfig::default()).unwrap();
    let all = service.score(&features).await.unwrap().scores;
    assert!(all.iter().all(|s| s.is_finite()));
    for user in [0, 2, 7, 39] {
        // A new service, so that no cached state answers.
        let alone = ScoringService::start(bundle().await, &ScoreConfig::default()).unwrap();
        let one = alone.score(&features.slice(user, 1)).await.unwrap().scores;
        assert!(close(&one, &all[user * 9..(user + 1) * 9]), "user {user}");
    }
    let tight = ScoreConfig { batch_tokens_max: 1, ..Default::default() };
    let cut = ScoringService::start(bundle().await, &tight).unwrap();
    assert!(close(&cut.score(&features).await.unwrap().scores, &all));
    assert_eq!(cut.counters.get(|c| &c.model_batches), 40);
}

#[tokio::test]
async fn the_encoder_does_not_see_the_run_date() {
    let features = features(20, Bad::NoUser).await;
    let contract = random_model::features();
    let before = UserInputs::from_struct(&features, &contract, 50, &Contents::default()).unwrap();
    let mut columns = features.columns().to_vec();
    let later = columns[1]
        .as_primitive::<arrow::datatypes::TimestampMicrosecondType>()
        .unary::<_, arrow::datatypes::TimestampMicrosecondType>(|t| t + 86_400_000_000);
    columns[1] = Arc::new(later.with_timezone("UTC"));
    let moved = StructArray::new(features.fields().clone(), columns, None);
    let after = UserInputs::from_struct(&moved, &contract, 50, &Contents::default()).unwrap();
    let keys =
        |i: &UserInputs| (0..i.user_ids.len()).map(|r| i.encoder_key(r, &Contents::default())).collect::<Vec<_>>();
    assert_eq!(keys(&before), keys(&after));
    assert_ne!(before.idle_log_hours[0], after.idle_log_hours[0]);
}

/// Opens sessions of one process over the model; returns them and the models that they share.
async fn sessions<const N: usize>(partitions: usize) -> ([SessionContext; N], Arc<Models>) {
    registry().await;
    let mut config = Config::default();
    config.output.uri = OUTPUT.into();
    let models = Arc::new(Models::new(&config).unwrap());
    let sessions = [(); N].map(|()| {
        let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(partitions));
        let ctx = operator::install(&ctx, Arc::clone(&models), ContentWrites::SessionOnly);
        functions::register(&ctx, &config, "2026-03-01".parse().unwrap()).unwrap();
        ctx
    });
    (sessions, models)
}

const SCORED: &str =
    "SELECT user_id, s['p_purchase'] AS p FROM (SELECT user_id, score_intents(features) AS s FROM model_input)";

/// Returns (number of the user, p_purchase) in row order.
fn purchases(batches: &[RecordBatch]) -> Vec<(usize, f64)> {
    let mut found = Vec::new();
    for batch in batches {
        let users = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8).unwrap();
        for (user, p) in users.as_string::<i32>().iter().zip(batch.column(1).as_primitive::<Float64Type>().values()) {
            found.push((user.unwrap()[1..].parse().unwrap(), *p));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_and_sessions_share_one_loaded_model() {
    let ([ctx, other], models) = sessions(4).await;
    for ctx in [&ctx, &other] {
        let input = ctx.sql(&input_sql(400, Bad::NoUser)).await.unwrap();
        ctx.register_table("model_input", input.into_view()).unwrap();
    }
    let plan = ctx.sql(SCORED).await.unwrap().create_physical_plan().await.unwrap();
    assert!(plan.properties().partitioning.partition_count() > 1, "{plan:?}");
    assert_eq!(models.loaded(), 0, "planning reads the card alone");
    // Two sessions at once, so that several partitions of both ask for a model that is not loaded yet.
    let (one, two) = tokio::join!(async { ctx.sql(SCORED).await.unwrap().collect().await.unwrap() }, async {
        other.sql(SCORED).await.unwrap().collect().await.unwrap()
    });
    let service = models.service("").await.unwrap();
    assert_eq!(models.loaded(), 1);
    assert_eq!(service.counters.get(|c| &c.users_scored), 800);

    let alone = service.score(&features(400, Bad::NoUser).await).await.unwrap().scores;
    for batches in [one, two] {
        let mut scored = purchases(&batches);
        scored.iter().for_each(|(user, p)| assert!((f64::from(alone[(user - 1) * 9 + 4]) - p).abs() < 1e-5, "{user}"));
        scored.sort_by_key(|(user, _)| *user);
        assert!(scored.into_iter().map(|(user, _)| user).eq(1..=400));
    }

    // A filter over scores, and the same call twice: each row is scored once.
    let before = service.counters.get(|c| &c.users_scored);
    let filtered = format!("SELECT user_id FROM ({SCORED}) WHERE p > 0.0 AND p < 0.9");
    ctx.sql(&filtered).await.unwrap().collect().await.unwrap();
    ctx.sql("SELECT score_intents(features)['p_view'], score_intents(features)['p_cart'] FROM model_input WHERE score_intents(features)['p_churn'] > 2")
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    assert_eq!(service.counters.get(|c| &c.users_scored), before + 800);
}

/// Scores more rows than two requests hold, in small batches of one partition, with several owners.
#[tokio::test(flavor = "multi_thread")]
async fn rows_keep_their_order() {
    let ([ctx], models) = sessions(1).await;
    let users = 8300;
    // One or two events each keep this short; the feature distinguishes the users.
    let rows = format!(
        "SELECT user_id, named_struct('user_id', user_id, 'as_of', as_of(), 'recent', recent, 'events_7d', u) AS features \
         FROM (SELECT u, concat('u', lpad(CAST(u AS VARCHAR), 5, '0')) AS user_id, last_events(128, to_timestamp_micros(1772000000000000 - e * 3600000000), CAST(e AS VARCHAR), 'view', \
             concat('i', CAST(u % 9 AS VARCHAR)), 'c', 1.5, NULL, NULL, NULL, NULL) AS recent \
           FROM generate_series(1, {users}) AS a(u) CROSS JOIN generate_series(1, 2) AS b(e) WHERE e <= 1 + u % 2 GROUP BY u) \
         ORDER BY user_id DESC"
    );
    let sorted = ctx.sql(&rows).await.unwrap().collect().await.unwrap();
    let sorted = arrow::compute::concat_batches(&sorted[0].schema(), &sorted).unwrap();
    let small: Vec<_> = (0..users).step_by(37).map(|at| sorted.slice(at, 37.min(users - at))).collect();
    let input = MemTable::try_new(sorted.schema(), vec![small]).unwrap();
    ctx.register_table("model_input", Arc::new(input)).unwrap();
    let scored = ctx.sql(SCORED).await.unwrap().collect().await.unwrap();
    let service = models.service("").await.unwrap();
    assert_eq!(service.counters.get(|c| &c.requests), 3, "two full requests and what is left");

    let scored = purchases(&scored);
    assert!(scored.iter().map(|(user, _)| *user).eq((1..=users).rev()));
    let alone = service.score(as_struct(sorted.column(1)).unwrap()).await.unwrap().scores;
    for (row, (user, p)) in scored.iter().enumerate() {
        assert!((f64::from(alone[row * 9 + 4]) - p).abs() < 1e-5, "row {row}, user {user}");
    }
    let different: std::collections::BTreeSet<_> = scored.iter().map(|(_, p)| p.to_bits()).collect();
    assert!(different.len() > users / 2, "scores that are all alike would fit any order");
}

/// The engine sorts below the scoring operator, which keeps the order, and merges the partitions above it.
#[tokio::test(flavor = "multi_thread")]
async fn scores_of_several_partitions_keep_the_requested_order() {
    let ([ctx], models) = sessions(4).await;
    let input = ctx.sql(&input_sql(400, Bad::NoUser)).await.unwrap();
    ctx.register_table("model_input", input.into_view()).unwrap();
    let plain = "SELECT user_id, score_intents(features) AS s FROM model_input";
    let plan = ctx.sql(plain).await.unwrap().create_physical_plan().await.unwrap();
    assert!(plan.properties().partitioning.partition_count() > 1, "{plan:?}");
    let service = models.service("").await.unwrap();
    let alone = service.score(&features(400, Bad::NoUser).await).await.unwrap().scores;
    for (by, ascending) in [("user_id", true), ("user_id DESC", false)] {
        let ordered = ctx.sql(&format!("{plain} ORDER BY {by}")).await.unwrap().collect().await.unwrap();
        let fields: Vec<RecordBatch> = ordered
            .iter()
            .map(|batch| {
                let p = as_struct(batch.column(1)).unwrap().column_by_name("p_purchase").unwrap().clone();
                RecordBatch::try_from_iter([("user_id", batch.column(0).clone()), ("p", p)]).unwrap()
            })
            .collect();
        let scored = purchases(&fields);
        assert_eq!(scored.len(), 400);
        assert!(scored.windows(2).all(|two| (two[0].0 < two[1].0) == ascending), "{by}");
        scored.iter().for_each(|(user, p)| assert!((f64::from(alone[(user - 1) * 9 + 4]) - p).abs() < 1e-5, "{user}"));
    }
}

/// Opens a session of a new process over a model that reads image vectors of two numbers. Its lake has an image, which user 1
/// has seen, and an item that the model does not know.
async fn image_session(output: &str, content_writes: ContentWrites) -> (SessionContext, Arc<Models>) {
    let mut config = Config::default();
    config.output.uri = output.into();
    let models = Arc::new(Models::new(&config).unwrap());
    let ctx = operator::install(&SessionContext::new(), Arc::clone(&models), content_writes);
    functions::register(&ctx, &config, "2026-03-01".parse().unwrap()).unwrap();
    for view in [
        "item_vectors AS SELECT 'image' AS modality, CAST(5 AS BIGINT) AS content_key, [[3.0, -4.0]] AS vectors",
        "recommendable_items AS SELECT 'new' AS item_id, CAST(NULL AS VARCHAR) AS category, CAST(NULL AS BIGINT) AS text_key, \
         CAST(5 AS BIGINT) AS image_key, CAST(NULL AS BIGINT) AS video_key, 1.0 AS met_per_day",
        "model_input AS SELECT user_id, named_struct('user_id', user_id, 'as_of', as_of(), 'recent', recent, 'events_7d', 1) AS \
         features FROM (SELECT 'u1' AS user_id, last_events(128, to_timestamp_micros(1772000000000000), 'e', 'view', 'i1', 'c', \
         1.5, NULL, NULL, CAST(5 AS BIGINT), NULL) AS recent)",
    ] {
        ctx.sql(&format!("CREATE VIEW {view}")).await.unwrap();
    }
    (ctx, models)
}

/// Returns paths and bytes of the files below an output.
async fn files(output: &str) -> BTreeMap<String, Vec<u8>> {
    let place = Location::open(output, &Default::default()).unwrap();
    let mut files = BTreeMap::new();
    for meta in place.list().await.unwrap() {
        let path = meta.location.to_string();
        let name = path.strip_prefix("out/").unwrap().to_string();
        files.insert(name.clone(), place.read(&name).await.unwrap().to_vec());
    }
    files
}

const RECOMMENDED: &str = "SELECT s['p_purchase'] AS p, recommend(s['taste'], NULL, NULL, 1)[1]['item_id'] AS item \
                           FROM (SELECT score_intents(features) AS s FROM model_input)";

async fn recommended(ctx: &SessionContext) -> (f64, String) {
    let rows = ctx.sql(RECOMMENDED).await.unwrap().collect().await.unwrap();
    let items = arrow::compute::cast(rows[0].column(1), &arrow::datatypes::DataType::Utf8).unwrap();
    (rows[0].column(0).as_primitive::<Float64Type>().value(0), items.as_string::<i32>().value(0).into())
}

#[tokio::test(flavor = "multi_thread")]
async fn explaining_a_scoring_query_loads_and_writes_nothing() {
    let output = "memory://scoring-explain/out";
    write_model(output, [0, 2, 0]).await;
    let before = files(output).await;
    for content_writes in [ContentWrites::Output, ContentWrites::SessionOnly] {
        let (ctx, models) = image_session(output, content_writes).await;
        let plan = ctx.sql(&format!("EXPLAIN FORMAT indent {RECOMMENDED}")).await.unwrap().collect().await.unwrap();
        let plan = arrow::util::pretty::pretty_format_batches(&plan).unwrap().to_string();
        assert!(plan.contains("= score_intents, model=") && plan.contains("= recommend, model="), "{plan}");
        assert_eq!(models.loaded(), 0);
        assert!(files(output).await == before, "{content_writes:?}");
        let service = models.service("").await.unwrap();
        assert_eq!(service.counters.get(|c| &c.requests), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_session_scores_as_one_that_writes() {
    let output = "memory://scoring-read-only/out";
    write_model(output, [0, 2, 0]).await;
    let before = files(output).await;
    let (without_vectors, _) = image_session(output, ContentWrites::SessionOnly).await;
    without_vectors.sql("DROP VIEW item_vectors").await.unwrap();
    let unseen = recommended(&without_vectors).await;
    let (read_only, _) = image_session(output, ContentWrites::SessionOnly).await;
    let scored = recommended(&read_only).await;
    assert_eq!(scored.1, "new", "an item of the session's lake");
    assert_ne!(scored.0, unseen.0, "the image counts");
    assert!(files(output).await == before, "nothing is written");

    let (writing, _) = image_session(output, ContentWrites::Output).await;
    assert_eq!(recommended(&writing).await, scored);
    let added = files(output).await.into_keys().filter(|name| !before.contains_key(name));
    let folders: Vec<String> = added.map(|name| name[..name.rfind('/').unwrap()].to_string()).collect();
    assert_eq!(folders, ["state/catalogue", "state/content/image"]);
}

#[tokio::test]
async fn an_error_names_the_first_bad_user_and_affects_no_other() {
    let service = ScoringService::start(bundle().await, &ScoreConfig::default()).unwrap();
    let (good, bad) = (features(30, Bad::NoUser).await, features(30, Bad::Feature(&[20, 12, 25])).await);
    let (ok, failed) = tokio::join!(service.score(&good), service.score(&bad));
    assert_eq!(ok.unwrap().scores.len(), 30 * 9);
    let failed = failed.unwrap_err();
    assert!(failed.message.contains("user u0012"), "{failed}");
    assert_eq!(service.score(&good).await.unwrap().scores.len(), 30 * 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_in_a_pool_fails_alone() {
    let all = features(1640, Bad::NoUser).await;
    // The network reads 1638 first, who has the fewest events; the error names the first row.
    let with_bad = features(1640, Bad::Price(&[1638, 1625, 1622])).await;
    let service = busy(&all.slice(0, 1600)).await;
    let (good, bad, later) = (all.slice(1600, 20), with_bad.slice(1620, 20), all.slice(1620, 20));
    let (good, bad) = tokio::join!(service.score(&good), service.score(&bad));
    assert_eq!(service.counters.get(|c| &c.pools), 2, "the good request stood in the bad one's pool");
    let bad = bad.unwrap_err();
    assert!(bad.message.contains("user u1622: p_view is not finite"), "{bad}");

    let fresh = ScoringService::start(bundle().await, &ScoreConfig::default()).unwrap();
    let expected = fresh.score(&all.slice(1600, 40)).await.unwrap().scores;
    assert!(close(&good.unwrap().scores, &expected[..20 * 9]));
    assert!(close(&service.score(&later).await.unwrap().scores, &expected[20 * 9..]), "the owner works on");
    assert_eq!(service.counters.get(|c| &c.users_scored), 1600 + 20 + 20, "those that were answered");
}

/// Starts a service of one owner that works on a long request: later requests wait and are taken together.
async fn busy(long: &StructArray) -> ScoringService {
    let alone = ScoreConfig { owner_threads: 1, ..Default::default() };
    let service = ScoringService::start(bundle().await, &alone).unwrap();
    let (working, long) = (service.clone(), long.clone());
    tokio::spawn(async move { working.score(&long).await.unwrap() });
    while service.counters.get(|c| &c.pools) == 0 {
        tokio::task::yield_now().await;
    }
    service
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_share_one_model_and_give_the_scores_of_a_single_one() {
    let features = features(200, Bad::NoUser).await;
    let single = ScoreConfig { owner_threads: 1, ..Default::default() };
    let single = ScoringService::start(bundle().await, &single).unwrap();
    let expected = single.score(&features).await.unwrap();
    let several = ScoreConfig { owner_threads: 3, pool_rows_max: 60, ..Default::default() };
    let service = ScoringService::start(bundle().await, &several).unwrap();
    let parts = (0..10).map(|part| {
        let (service, part) = (service.clone(), features.slice(part * 20, 20));
        tokio::spawn(async move { service.score(&part).await.unwrap() })
    });
    for (part, scored) in futures::future::join_all(parts).await.into_iter().enumerate() {
        let scored = scored.unwrap();
        assert!(close(&scored.scores, &expected.scores[part * 20 * 9..(part + 1) * 20 * 9]), "part {part}");
        assert!(close(&scored.tastes, &expected.tastes[part * 20 * 16..(part + 1) * 20 * 16]), "part {part}");
    }
    assert_eq!(service.counters.get(|c| &c.users_scored), 200);
}

#[tokio::test]
async fn a_shared_model_reads_the_very_same_weights() {
    let loaded = bundle().await;
    let shared = loaded.share().unwrap();
    let (own, theirs) = (loaded.weights(), shared.weights());
    assert!(!own.is_empty() && own.len() == theirs.len() && loaded.parameters() == shared.parameters());
    for (name, weight) in &theirs {
        assert!(weight.data_ptr() == own[name].data_ptr() && !weight.requires_grad(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_while_the_owner_works_share_model_batches() {
    let all = features(1680, Bad::NoUser).await;
    let (long, small) = (all.slice(0, 1600), (0..8).map(|part| all.slice(1600 + part * 10, 10)).collect::<Vec<_>>());
    let service = busy(&long).await;
    let answers = futures::future::join_all(small.iter().map(|part| service.score(part))).await;
    assert!(answers.iter().all(|a| a.as_ref().is_ok_and(|s| s.scores.len() == 10 * OUTPUTS.len())));
    let (pools, requests) = (service.counters.get(|c| &c.pools), service.counters.get(|c| &c.requests));
    // The machine decides how many wait together; at least two must.
    assert!(requests == 9 && pools < requests, "{pools} pools of {requests} requests");

    // The users of the small requests were not encoded before, and the long request alone always takes the same batches.
    let fresh = ScoringService::start(bundle().await, &ScoreConfig::default()).unwrap();
    fresh.score(&long).await.unwrap();
    let batches = |of: &ScoringService| of.counters.get(|c| &c.model_batches);
    assert_eq!((service.counters.get(|c| &c.users_encoded), service.counters.get(|c| &c.users_kept)), (1680, 0));
    let grown = batches(&service) - batches(&fresh);
    assert!((1..8).contains(&grown), "{grown} model batches for eight requests");
}

#[tokio::test]
async fn gc_keeps_the_newest_states_of_the_champion() {
    use intentcast::publish::gc;
    let champion = registry().await.resolve("").await.unwrap().weights_hash;
    let output = Location::open(OUTPUT, &Default::default()).unwrap();
    for night in [format!("{champion}/2026-03-01"), format!("{champion}/2026-03-02"), "gone/2026-03-02".into()] {
        output.write(&format!("state/encoded/{night}.parquet"), "states").await.unwrap();
    }
    let settings = intentcast::config::GcConfig { nights_kept: 1, orphan_age_hours: 0 };
    let plan = gc::plan(&output, &settings).await.unwrap();
    let mut gone: Vec<String> = plan.old_encoder_states.iter().map(|(path, _)| path.to_string()).collect();
    gone.sort();
    let mut expected = [
        format!("out/state/encoded/{champion}/2026-03-01.parquet"),
        "out/state/encoded/gone/2026-03-02.parquet".into(),
    ];
    expected.sort();
    assert_eq!((gone.as_slice(), plan.old_catalogues.len()), (expected.as_slice(), 0));
}
