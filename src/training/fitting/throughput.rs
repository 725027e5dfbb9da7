//! Throughput of an epoch: samples per second, and the share of the time spent waiting for batches.

use std::time::Duration;

/// Measures one epoch.
pub(super) struct ThroughputMeter<C> {
    /// Returns the time since the epoch began.
    clock: C,
    waited: Duration,
    total: Duration,
    samples: u64,
}

impl<C: Fn() -> Duration> ThroughputMeter<C> {
    pub(crate) fn new(clock: C) -> Self {
        Self { clock, waited: Duration::ZERO, total: Duration::ZERO, samples: 0 }
    }

    /// Counts the time that `next` takes as waiting.
    pub(crate) fn wait<T>(&mut self, next: impl FnOnce() -> T) -> T {
        let since = (self.clock)();
        let got = next();
        self.waited += (self.clock)() - since;
        got
    }

    pub(crate) fn add_samples(&mut self, samples: u64) {
        self.samples += samples;
    }

    pub(crate) fn stop(&mut self) {
        self.total = (self.clock)();
    }

    pub(crate) fn samples_per_second(&self) -> f64 {
        self.samples as f64 / self.total.as_secs_f64().max(1e-9)
    }

    pub(crate) fn waiting_share(&self) -> f64 {
        self.waited.as_secs_f64() / self.total.as_secs_f64().max(1e-9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_is_samples_by_the_whole_time_of_an_epoch() {
        let clock = std::cell::Cell::new(0u64);
        let pass = |seconds: u64| clock.set(clock.get() + seconds);
        let mut meter = ThroughputMeter::new(|| Duration::from_secs(clock.get()));
        assert_eq!((meter.samples_per_second(), meter.waiting_share()), (0.0, 0.0), "nothing yet");
        for (waits, computes) in [(2, 4), (1, 5)] {
            meter.wait(|| pass(waits));
            pass(computes);
            meter.add_samples(300);
        }
        meter.stop();
        assert_eq!((meter.samples_per_second(), meter.waiting_share()), (50.0, 0.25));
    }
}
