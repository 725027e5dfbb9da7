//! Measures time and memory of `last_events` against `array_agg(... ORDER BY ...)`:
//! `cargo bench --bench last_events -- [USERS] [EVENTS_A_USER]...`.
//!
//! Each variant runs in its own process, so that the peak resident memory (VmHWM of Linux) belongs to it alone. `scan` reads the
//! same columns without aggregating and is the baseline of the other two. Those two must return the same events.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a benchmark that fails should say so loudly

use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use intentcast::features::last_events::last_events;
use std::process::Command;
use std::time::Instant;

/// Events per user, the default of features.last_events.
const EVENTS_PER_USER: usize = 128;
/// First argument of a child process. The variant and the folder follow.
const CHILD: &str = "--variant";

const OURS: &str = "SELECT u, last_events(128, ts, k, event_type, item, category, price, dwell, NULL, NULL, NULL) AS r FROM e GROUP BY u";
const THEIRS: &str = "SELECT u, array_reverse(array_slice(array_agg(named_struct('ts', ts, 'event_type', event_type, \
    'item_id', item, 'category', category, 'price', price, 'dwell_ms', dwell) ORDER BY ts DESC, k DESC), 1, 128)) AS r \
    FROM e GROUP BY u";

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [mark, variant, folder] = arguments.as_slice()
        && mark == CHILD
    {
        return child(variant, folder).await;
    }
    let numbers: Vec<u64> = arguments.iter().map(|a| a.parse().expect("USERS EVENTS_A_USER...")).collect();
    let users = numbers.first().copied().unwrap_or(20_000);
    let lengths = if numbers.len() > 1 { numbers[1..].to_vec() } else { vec![50, 200, 800] };
    if cfg!(debug_assertions) {
        println!("this is a debug build: the memory is valid, the seconds are not");
    }
    println!("{users} users, newest {EVENTS_PER_USER} events\n");
    println!("| events a user | variant | seconds | peak MB | seconds more than scan | MB more than scan |");
    println!("|--:|---|--:|--:|--:|--:|");
    for events in lengths {
        let folder = std::env::temp_dir().join(format!("last-events-{}", std::process::id()));
        write(users, events, folder.to_str().unwrap()).await;
        let run = |variant: &str| {
            let output = Command::new(std::env::current_exe().unwrap())
                .args([CHILD, variant, folder.to_str().unwrap()])
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            match output.status.success() {
                true => Ok(text.trim().splitn(3, ' ').map(String::from).collect::<Vec<_>>()),
                false => Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())),
            }
        };
        let mut first_digest = None;
        let mut baseline = (0.0, 0.0);
        for variant in ["scan", "last_events", "array_agg"] {
            match run(variant) {
                Err(why) => println!("| {events} | {variant} | failed: {why} | | | |"),
                Ok(line) => {
                    let (seconds, megabytes): (f64, f64) = (line[0].parse().unwrap(), line[1].parse().unwrap());
                    if variant == "scan" {
                        baseline = (seconds, megabytes);
                    } else {
                        assert_eq!(
                            first_digest.get_or_insert(line[2].clone()),
                            &line[2],
                            "{variant}: expected the same events"
                        );
                    }
                    println!(
                        "| {events} | {variant} | {seconds:.2} | {megabytes:.0} | {:.2} | {:.0} |",
                        seconds - baseline.0,
                        megabytes - baseline.1
                    );
                }
            }
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}

fn session() -> SessionContext {
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    ctx.register_udaf(last_events());
    ctx
}

/// Writes events in order of time with users mixed, as in a lake.
async fn write(users: u64, events: u64, folder: &str) {
    let rows = session()
        .sql(&format!(
            "SELECT v * 7919 % {users} AS u, to_timestamp_micros(1700000000000000 + v * 1000) AS ts,
                 concat('e', CAST(v AS VARCHAR)) AS k,
                 CASE v % 5 WHEN 0 THEN 'cart' WHEN 1 THEN 'search' ELSE 'view' END AS event_type,
                 concat('item-', CAST(v * 31 % 20000 AS VARCHAR)) AS item, concat('c', CAST(v % 40 AS VARCHAR)) AS category,
                 CAST(v % 1000 AS DOUBLE) AS price, v % 60000 AS dwell
             FROM generate_series(1, {}) AS s(v)",
            users * events
        ))
        .await
        .unwrap();
    rows.write_parquet(folder, DataFrameWriteOptions::new(), None).await.unwrap();
}

/// Prints seconds, peak megabytes and a digest of the result: users, events, sums of the oldest and of the newest times.
async fn child(variant: &str, folder: &str) {
    let ctx = session();
    ctx.register_parquet("e", folder, ParquetReadOptions::default()).await.unwrap();
    let sql = match variant {
        "scan" => "SELECT count(DISTINCT u), max(ts), max(k), max(event_type), max(item), max(category), max(price), \
            max(dwell) FROM e"
            .to_string(),
        other => format!(
            "SELECT count(*), sum(array_length(r)), sum(CAST(r[1]['ts'] AS BIGINT) % 1000000007), \
             sum(CAST(r[-1]['ts'] AS BIGINT) % 1000000007) FROM ({})",
            if other == "array_agg" { THEIRS } else { OURS }
        ),
    };
    let clock = Instant::now();
    let batches = ctx.sql(&sql).await.unwrap().collect().await.unwrap();
    let seconds = clock.elapsed().as_secs_f64();
    let row: Vec<String> =
        batches[0].columns().iter().map(|c| arrow::util::display::array_value_to_string(c, 0).unwrap()).collect();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: f64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("{seconds} {} {}", kilobytes / 1024.0, row.join(","));
}
