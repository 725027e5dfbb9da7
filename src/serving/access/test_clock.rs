//! A clock that tests move by hand, one for each thread and so for each test.

use std::cell::Cell;
use std::time::{Duration, Instant};

thread_local! {
    static NOW: Cell<Instant> = Cell::new(Instant::now());
}

pub(super) fn now() -> Instant {
    NOW.get()
}

pub(super) fn advance(seconds: u64) {
    NOW.set(NOW.get() + Duration::from_secs(seconds));
}
