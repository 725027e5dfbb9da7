//! The retry policy for store operations that may fail for a passing reason, such as a conditional put that a rival won.
//!
//! Delays grow exponentially and are randomised, so that rivals separate ("Exponential Backoff And Jitter", AWS Architecture
//! Blog, 2015). Clock and randomness are injected. By hand rather than by `backon`: the loop is twenty lines, and it has to
//! read [`FailureKind`].

use rand::Rng;
use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

use crate::failure::{Failure, FailureKind, Result};

/// Limits of the retries of an operation: their number, their delays and their total time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryPolicy {
    pub(crate) attempts_max: u32,
    /// Largest delay after the first attempt; it doubles with every further attempt.
    pub(crate) delay_first: Duration,
    pub(crate) delay_max: Duration,
    /// No attempt starts later than this after the first one.
    pub(crate) budget: Duration,
}

/// Time and randomness of a retry loop.
pub(crate) trait RetryClock {
    fn now(&self) -> Instant;
    fn sleep(&self, delay: Duration) -> impl Future<Output = ()> + Send;
    /// Returns a random number in [0, 1).
    fn random(&self) -> f64;
}

/// The machine's clock and random numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SystemClock;

impl RetryClock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    async fn sleep(&self, delay: Duration) {
        tokio::time::sleep(delay).await;
    }

    fn random(&self) -> f64 {
        rand::rng().random()
    }
}

impl RetryPolicy {
    /// Runs `operation` until it succeeds, fails for a reason that does not pass, or exhausts the policy. The last failure is
    /// returned. `what` names the operation in the log.
    pub(crate) async fn run<T, F>(
        &self,
        clock: &impl RetryClock,
        what: impl Display,
        mut operation: impl FnMut() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let started = clock.now();
        let mut attempt = 1;
        loop {
            let failure: Failure = match operation().await {
                Err(failure) if failure.kind == FailureKind::Transient => failure,
                settled => return settled,
            };
            let delay = self.delay(attempt, clock.random());
            if attempt >= self.attempts_max || clock.now() + delay > started + self.budget {
                return Err(failure);
            }
            tracing::info!("{what}: attempt {attempt} failed, trying again in {} ms: {failure}", delay.as_millis());
            clock.sleep(delay).await;
            attempt += 1;
        }
    }

    /// Returns the delay after an attempt: between half of the exponential delay and all of it.
    fn delay(&self, attempt: u32, random: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(16);
        let exponential = self.delay_first.saturating_mul(1 << doublings).min(self.delay_max);
        exponential.mul_f64(0.5 + random / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    const POLICY: RetryPolicy = RetryPolicy {
        attempts_max: 5,
        delay_first: Duration::from_millis(20),
        delay_max: Duration::from_millis(100),
        budget: Duration::from_secs(10),
    };

    /// A clock that moves by the delays alone.
    struct ManualClock {
        started: Instant,
        delays: Mutex<Vec<Duration>>,
        random: f64,
    }

    impl ManualClock {
        fn new(random: f64) -> Self {
            Self { started: Instant::now(), delays: Mutex::default(), random }
        }

        fn delays(&self) -> Vec<u128> {
            self.delays.lock().unwrap().iter().map(Duration::as_millis).collect()
        }
    }

    impl RetryClock for ManualClock {
        fn now(&self) -> Instant {
            self.started + self.delays.lock().unwrap().iter().sum::<Duration>()
        }

        async fn sleep(&self, delay: Duration) {
            self.delays.lock().unwrap().push(delay);
        }

        fn random(&self) -> f64 {
            self.random
        }
    }

    /// Fails `failures` times for a passing reason, then returns the number of attempts.
    async fn run(policy: RetryPolicy, clock: &ManualClock, failures: u32) -> Result<u32> {
        let mut attempts = 0;
        let operation = || {
            attempts += 1;
            let result = if attempts > failures { Ok(attempts) } else { Err(Failure::transient("busy")) };
            std::future::ready(result)
        };
        policy.run(clock, "test", operation).await
    }

    #[tokio::test]
    async fn delays_double_up_to_the_largest_and_are_randomised() {
        let clock = ManualClock::new(0.0);
        assert_eq!(run(POLICY, &clock, 4).await.unwrap(), 5);
        assert_eq!(clock.delays(), [10, 20, 40, 50]);
        let clock = ManualClock::new(0.5);
        run(POLICY, &clock, 2).await.unwrap();
        assert_eq!(clock.delays(), [15, 30]);
    }

    #[tokio::test]
    async fn attempts_and_budget_are_limits() {
        let clock = ManualClock::new(0.0);
        assert_eq!(run(POLICY, &clock, 5).await.unwrap_err().kind, FailureKind::Transient);
        assert_eq!(clock.delays().len(), 4, "no delay after the last attempt");
        let clock = ManualClock::new(0.0);
        let policy = RetryPolicy { budget: Duration::from_millis(30), ..POLICY };
        run(policy, &clock, 5).await.unwrap_err();
        assert_eq!(clock.delays(), [10, 20], "a third delay would exceed the budget");
    }

    #[tokio::test]
    async fn a_failure_that_does_not_pass_is_returned_at_once() {
        let clock = ManualClock::new(0.0);
        let operation = || std::future::ready(Err::<(), _>(Failure::fenced("newer generation")));
        assert_eq!(POLICY.run(&clock, "test", operation).await.unwrap_err().kind, FailureKind::Fenced);
        assert!(clock.delays().is_empty());
    }
}
