//! Numbers of cases and seeds of tests with random input.

/// Returns the seeds to run: `TEST_CASES` of them, or the one of `TEST_SEED`.
pub fn seeds(default: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().unwrap());
    match number("TEST_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("TEST_CASES").unwrap_or(default)).collect(),
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
                        found.lock().unwrap().push(format!("seed {seed} (TEST_SEED={seed} repeats it): {what}"));
                    }
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    assert!(found.is_empty(), "{} of {} cases failed\n{}", found.len(), seeds.len(), found.join("\n"));
}
