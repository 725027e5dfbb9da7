//! Measures users and tokens scored a second, by number of owner threads: `cargo bench --bench scoring -- [USERS] [ROUNDS] [cuda]`.
//! With `cuda`, compares all cores with a GPU's only owner, by padded tokens in one forward pass.
//!
//! Rounds alternate between the variants within one process, and the best round of each is reported. A machine's speed drifts, so
//! only ratios within one run are meaningful. Weights are random, and no cache survives a round.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a benchmark that fails should say so loudly

use arrow::array::{Array, AsArray, StructArray};
use futures::{StreamExt, TryStreamExt};
use intentcast::config::{Config, S3Config, ScoreConfig};
use intentcast::features::functions;
use intentcast::lake::stores::Location;
use intentcast::model::bundle::Registry;
use intentcast::model::shape::IntentShape;
use intentcast::model::targets::OUTPUTS;
use intentcast::score::devices;
use intentcast::score::service::ScoringService;
use std::time::Instant;

#[path = "../tests/support/random_model.rs"]
mod random_model;

/// Rows of one request, as in `ScoreExec`.
const REQUEST_ROWS: usize = 4096;

#[tokio::main]
async fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let users = numbers.first().copied().unwrap_or(20_000);
    let rounds = numbers.get(1).copied().unwrap_or(5);
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let variants = match std::env::args().any(|a| a == "cuda") {
        false => vec![Variant::cpu(1), Variant::cpu(cores as u32)],
        true => {
            let budgets = [2048, 8192, 32_768, 131_072];
            std::iter::once(Variant::cpu(cores as u32)).chain(budgets.map(Variant::cuda)).collect()
        }
    };
    if variants.iter().any(|v| v.device == "cuda") {
        // The GPU must be found before the first tensor is made.
        devices::find_cuda();
    }
    if cfg!(debug_assertions) {
        println!("this is a debug build: libtorch runs at full speed, the code around it does not");
    }
    let features = features(users).await;
    let tokens = features.column_by_name("recent").unwrap().as_list::<i32>().values().len();
    println!("{users} users, {tokens} events, {cores} cores; best of {rounds} rounds");
    for (width, layers) in [(64, 2), (128, 4)] {
        let registry = model(width, layers).await;
        let mut best = vec![f64::INFINITY; variants.len()];
        for _ in 0..rounds {
            for (best, variant) in best.iter_mut().zip(&variants) {
                *best = best.min(seconds(&registry, &features, variant, cores).await);
            }
        }
        for (seconds, variant) in best.iter().zip(&variants) {
            println!(
                "width {width}, {layers} layers, {}, {} owner(s), {} tokens a pass: {:.0} users/s, {:.0} tokens/s, x{:.2}",
                variant.device,
                variant.owner_threads,
                variant.batch_tokens_max,
                users as f64 / seconds,
                tokens as f64 / seconds,
                best[0] / seconds
            );
        }
    }
}

struct Variant {
    device: &'static str,
    owner_threads: u32,
    batch_tokens_max: u32,
}

impl Variant {
    fn cpu(owner_threads: u32) -> Self {
        Self { device: "cpu", owner_threads, batch_tokens_max: 2048 }
    }

    fn cuda(batch_tokens_max: u32) -> Self {
        Self { device: "cuda", owner_threads: 1, batch_tokens_max }
    }
}

/// Returns the seconds to score all users with the requests of a night: one partition per core, two requests of each in flight.
async fn seconds(registry: &Registry, features: &StructArray, variant: &Variant, cores: usize) -> f64 {
    let Variant { owner_threads, batch_tokens_max, .. } = *variant;
    let settings = ScoreConfig { device: variant.device.into(), owner_threads, batch_tokens_max, ..Default::default() };
    let device = devices::choose(&settings).unwrap();
    // A new service, so that no cached state is used.
    let service = ScoringService::start(registry.load("", device).await.unwrap(), &settings).unwrap();
    let parts = (0..features.len()).step_by(REQUEST_ROWS).map(|from| {
        let part = features.slice(from, REQUEST_ROWS.min(features.len() - from));
        let service = service.clone();
        async move { tokio::spawn(async move { service.score(&part).await }).await.unwrap() }
    });
    let clock = Instant::now();
    let scored: Vec<_> = futures::stream::iter(parts).buffered(2 * cores).try_collect().await.unwrap();
    let seconds = clock.elapsed().as_secs_f64();
    assert_eq!(scored.iter().map(|s| s.scores.len()).sum::<usize>(), features.len() * OUTPUTS.len());
    seconds
}

async fn model(width: i64, layers: i64) -> Registry {
    let place = Location::open(&format!("memory://bench-{width}-{layers}"), &S3Config::default()).unwrap();
    let registry = Registry(place);
    let intent = IntentShape { item_buckets: 20_000, ..random_model::intent_shape(width, layers, 4) };
    tch::manual_seed(3);
    random_model::write_champion(&registry, intent, &[]).await;
    registry
}

/// Returns feature structs of users with 1 to 128 events: a median of about 18 and a long tail.
async fn features(users: usize) -> StructArray {
    let ctx = intentcast::engine::session(&Config::default()).unwrap();
    functions::register(&ctx, &Config::default(), "2026-03-01".parse().unwrap()).unwrap();
    let sql = format!(
        "WITH people AS (
             SELECT u, least(128, 1 + CAST(exp(2.85 + 1.3 * sin(u * 12.9898)) AS BIGINT)) AS n FROM generate_series(1, {users}) AS a(u)
         ), events AS (
             SELECT u, unnest(generate_series(1, n)) AS e FROM people
         ), recents AS (
             SELECT u, last_events(128, to_timestamp_micros(1772000000000000 - (e * 5 + u % 11) * 3600000000),
                 CAST(e AS VARCHAR), CASE e % 3 WHEN 0 THEN 'view' WHEN 1 THEN 'cart' ELSE 'search' END,
                 concat('i', CAST((u * 7 + e * 13) % 9973 AS VARCHAR)), 'c', CAST(e AS DOUBLE), CAST(e * 1000 AS BIGINT), NULL, NULL, NULL) AS recent
             FROM events GROUP BY u
         )
         SELECT named_struct('user_id', CAST(u AS VARCHAR), 'as_of', as_of(), 'recent', recent, 'events_7d', u) AS features
         FROM recents"
    );
    let batches = ctx.sql(&sql).await.unwrap().collect().await.unwrap();
    let all = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    all.column(0).as_struct().clone()
}
