//! Numbers of cases and seeds of tests with random input.

/// Variables of these tests, which the program would take for its settings.
pub const VARIABLES: [&str; 2] = ["INTENTCAST_CASES", "INTENTCAST_SEED"];

#[allow(clippy::disallowed_methods)] // no setting of the job
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|n| n.parse::<u64>().unwrap())
}

/// Returns true where one seed is repeated.
pub fn is_repeated() -> bool {
    number(VARIABLES[1]).is_some()
}

/// Returns the seeds to run: `INTENTCAST_CASES` of them, or the one of `INTENTCAST_SEED`.
pub fn seeds(default: u64) -> Vec<u64> {
    match number(VARIABLES[1]) {
        Some(seed) => vec![seed],
        None => (0..number(VARIABLES[0]).unwrap_or(default)).collect(),
    }
}

/// Runs a check for each seed on all cores; fails with everything that was found, and how to repeat it.
pub fn check_all(seeds: &[u64], check: impl Fn(u64) -> Result<(), String> + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let found = std::sync::Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(&seed) = seeds.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    if let Err(what) = check(seed) {
                        found.lock().unwrap().push(format!("seed {seed} (INTENTCAST_SEED={seed} repeats it): {what}"));
                    }
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    assert!(found.is_empty(), "{} of {} cases failed\n{}", found.len(), seeds.len(), found.join("\n"));
}
