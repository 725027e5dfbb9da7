//! Recovers when a device runs out of memory in a forward pass: halves the batch and retries both halves, down to one row.
//! Users' sequences, texts and images are encoded this way.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::failure::{Cause, Failure, FailureKind, Result, reads_as_out_of_memory};

/// Returns the results of `work` for all rows, in order. `what` names the rows in messages, in the plural. `halved` counts the
/// batches that were too large; the first one is logged.
///
/// A batch can also run out of memory by a panic, because some operators of the bindings return no `Result`.
pub(crate) fn retry_in_halves<R, T>(
    rows: &[R],
    what: &str,
    halved: &AtomicU64,
    work: &impl Fn(&[R]) -> Result<Vec<T>>,
) -> Result<Vec<T>> {
    let message = match catch_unwind(AssertUnwindSafe(|| work(rows))) {
        Ok(Err(failure)) if failure.cause == Some(Cause::OutOfMemory) => failure.message,
        Ok(done) => return done,
        Err(panic) => match panic.downcast_ref::<String>() {
            Some(text) if reads_as_out_of_memory(text) => text.lines().next().unwrap_or_default().to_string(),
            _ => resume_unwind(panic),
        },
    };
    if rows.len() < 2 {
        return Err(Failure::new(FailureKind::Model, format!("not even one of {what} fits into memory: {message}"))
            .hint("use a device with more memory (score.device), or free memory that other processes hold"));
    }
    if halved.fetch_add(1, Ordering::Relaxed) == 0 {
        let rows = rows.len();
        tracing::warn!(
            "{rows} {what} do not fit into memory; halved the batch (a smaller score.batch_tokens_max avoids this)"
        );
    }
    let (left, right) = rows.split_at(rows.len() / 2);
    let mut results = retry_in_halves(left, what, halved, work)?;
    results.extend(retry_in_halves(right, what, halved, work)?);
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "CUDA out of memory. Tried to allocate 20.00 MiB";

    /// Doubles numbers, at most `most` at once; fails like libtorch, by an error or a panic. Returns how often a batch was
    /// halved too.
    fn doubled(most: usize, by_panic: bool) -> (Result<Vec<usize>>, u64) {
        let halved = AtomicU64::new(0);
        let work = |rows: &[usize]| match rows.len() > most {
            true if by_panic => panic!("{}", format!("called `Result::unwrap()` on an `Err` value: Torch(\"{FULL}\")")),
            true => Err(tch::TchError::Torch(FULL.into()).into()),
            false => Ok(rows.iter().map(|row| row * 2).collect()),
        };
        let found = retry_in_halves(&(0..10).collect::<Vec<_>>(), "numbers", &halved, &work);
        (found, halved.into_inner())
    }

    #[test]
    fn a_large_batch_is_halved_until_it_fits_in_order() {
        for by_panic in [false, true] {
            // Ten rows: five and five, each two and three, each three one and two.
            for (most, halved) in [(10, 0), (5, 1), (2, 5), (1, 9)] {
                let (found, counted) = doubled(most, by_panic);
                assert_eq!(found.unwrap(), (0..10).map(|row| row * 2).collect::<Vec<_>>());
                assert_eq!(counted, halved, "{most} at most");
            }
            let failure = doubled(0, by_panic).0.unwrap_err();
            assert!(failure.message.contains("not even one of numbers") && failure.message.contains(FULL), "{failure}");
        }
    }

    #[test]
    fn other_failures_are_returned_unchanged() {
        let halved = AtomicU64::new(0);
        let work = |_: &[u8]| Err::<Vec<u8>, _>(Failure::model("shapes differ"));
        assert_eq!(retry_in_halves(&[1, 2], "numbers", &halved, &work).unwrap_err().message, "shapes differ");
        let work = |_: &[u8]| -> Result<Vec<u8>> { panic!("shapes differ: {}", 1) };
        assert!(catch_unwind(AssertUnwindSafe(|| retry_in_halves(&[1, 2], "numbers", &halved, &work))).is_err());
        assert_eq!(halved.into_inner(), 0);
    }
}
