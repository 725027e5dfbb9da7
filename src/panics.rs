//! Turns a panic into a failure: a damaged file can make a decoder panic, and a scheduler needs an exit code that it knows.

use futures::FutureExt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, Once, PoisonError};

use crate::failure::{Cause, Failure, Result};

/// Place and message of the newest panic.
static NEWEST: Mutex<Option<String>> = Mutex::new(None);

/// Runs a future; returns a panic within it as a failure, as which it is searched for in the lake's files before it counts as a
/// bug.
pub async fn caught<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| panic::set_hook(Box::new(remember)));
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(done) => done,
        Err(_) => {
            let newest = NEWEST.lock().unwrap_or_else(PoisonError::into_inner).take();
            let what = newest.unwrap_or_else(|| "at an unknown place".into());
            Err(Failure {
                cause: Some(Cause::Undecodable { searched: false }),
                ..Failure::bug(format!("panicked {what}"))
            })
        }
    }
}

/// Keeps the message for the failure, which `main` prints; the stack is logged at debug level.
fn remember(info: &panic::PanicHookInfo<'_>) {
    let place = info.location().map_or(String::new(), |place| format!("at {}:{}: ", place.file(), place.line()));
    let why = info.payload_as_str().unwrap_or("no message");
    tracing::debug!("panicked {place}{why}\n{}", std::backtrace::Backtrace::capture());
    *NEWEST.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{place}{why}"));
}
