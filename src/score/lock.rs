//! Locks of shared state.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks shared state, even if a thread panicked while it held the lock: the other callers continue with what it left.
pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
