//! Slows down guessing of passwords.

use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::serving::refusal::{Refusal, Result};

/// Wrong passwords of a name before its attempts wait.
const FREE_FAILURES: u32 = 5;

/// Longest wait.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Names whose failures are remembered.
const NAMES_MAX: usize = 10_000;

/// Failures of a name, and when it may try again.
#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    until: Instant,
}

/// Counts wrong passwords by name; from the fifth on, each doubles the wait for the next attempt, up to a minute.
pub(super) struct Backoff {
    now: fn() -> Instant,
    failures: Mutex<LruCache<String, Failures>>,
}

impl Backoff {
    /// `now` is the clock.
    pub(super) fn new(now: fn() -> Instant) -> Self {
        let max = NonZeroUsize::new(NAMES_MAX).unwrap_or(NonZeroUsize::MIN);
        Self { now, failures: Mutex::new(LruCache::new(max)) }
    }

    /// Refuses an attempt that comes too early.
    pub(super) fn check(&self, name: &str) -> Result<()> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = failures.get(name) else { return Ok(()) };
        match known.until.saturating_duration_since((self.now)()) {
            Duration::ZERO => Ok(()),
            wait => Err(Refusal::new(
                Refusal::WRONG_CREDENTIALS,
                format!("too many wrong passwords; try again in {} s", wait.as_secs() + 1),
            )),
        }
    }

    /// Notes a wrong password; returns the wait for the next attempt.
    pub(super) fn failed(&self, name: &str) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.get(name).map_or(0, |known| known.count).saturating_add(1);
        let wait = match count.checked_sub(FREE_FAILURES) {
            None => Duration::ZERO,
            Some(doublings) => Duration::from_secs(1 << doublings.min(6)).min(WAIT_MAX),
        };
        failures.put(name.into(), Failures { count, until: (self.now)() + wait });
        wait
    }

    pub(super) fn succeeded(&self, name: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).pop(name);
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_clock::{advance, now};
    use super::*;

    #[test]
    fn guesses_wait_ever_longer_up_to_a_minute_and_other_names_do_not() {
        let backoff = Backoff::new(now);
        for _ in 1..FREE_FAILURES {
            assert_eq!(backoff.failed("anna"), Duration::ZERO);
            backoff.check("anna").unwrap();
        }
        let mut guesses = 0;
        for _ in 0..500 {
            // One attempt a second.
            advance(1);
            if backoff.check("anna").is_ok() {
                guesses += 1;
                backoff.failed("anna");
            }
        }
        assert!((10..20).contains(&guesses), "{guesses} guesses in 500 seconds");
        assert!(backoff.check("anna").unwrap_err().failure.message.contains("try again in"));
        backoff.check("berta").unwrap();
        backoff.succeeded("anna");
        backoff.check("anna").unwrap();
    }
}
