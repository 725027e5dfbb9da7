//! What happens when a device's memory runs out in a forward pass: the batch is halved and both halves are tried, down to
//! one row. Users' sequences, texts and pictures go through here.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::failure::{Failure, FailureKind, Result};

/// What libtorch says when an allocation fails, on a GPU and on a CPU.
const SAID: [&str; 2] = ["out of memory", "can't allocate memory"];

/// The results of `work` over all rows, in their order. Each batch that was too large counts in `halved`; the first one is
/// told in the log, with `what` the rows are. Such a batch may fail by a panic as well: operators of the bindings that
/// return no `Result` do.
pub fn in_halves<R, T>(
    rows: &[R],
    what: &str,
    halved: &AtomicU64,
    work: &impl Fn(&[R]) -> Result<Vec<T>>,
) -> Result<Vec<T>> {
    let said = match catch_unwind(AssertUnwindSafe(|| work(rows))) {
        Ok(Err(failure)) if out_of_memory(&failure.message) => failure.message,
        Ok(done) => return done,
        Err(panic) => match panic.downcast_ref::<String>() {
            Some(text) if out_of_memory(text) => text.lines().next().unwrap_or_default().to_string(),
            _ => resume_unwind(panic),
        },
    };
    if rows.len() < 2 {
        return Err(Failure::new(FailureKind::Model, format!("not even one of {what} fits into memory: {said}"))
            .hint("use a device with more memory (score.device), or leave it more: other processes may hold some"));
    }
    if halved.fetch_add(1, Ordering::Relaxed) == 0 {
        let rows = rows.len();
        tracing::warn!("{rows} {what} do not fit into memory: halved; a smaller score.batch_tokens_max spares this");
    }
    let (left, right) = rows.split_at(rows.len() / 2);
    let mut both = in_halves(left, what, halved, work)?;
    both.extend(in_halves(right, what, halved, work)?);
    Ok(both)
}

fn out_of_memory(message: &str) -> bool {
    SAID.iter().any(|said| message.contains(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "CUDA out of memory. Tried to allocate 20.00 MiB";

    /// Doubles numbers, at most `most` of them at once; fails as libtorch does, by an error or a panic.
    fn doubled(most: usize, by_panic: bool) -> (Result<Vec<usize>>, u64) {
        let halved = AtomicU64::new(0);
        let work = |rows: &[usize]| match rows.len() > most {
            true if by_panic => panic!("{}", format!("called `Result::unwrap()` on an `Err` value: Torch(\"{FULL}\")")),
            true => Err(Failure::model(FULL)),
            false => Ok(rows.iter().map(|row| row * 2).collect()),
        };
        let found = in_halves(&(0..10).collect::<Vec<_>>(), "numbers", &halved, &work);
        (found, halved.into_inner())
    }

    #[test]
    fn a_batch_that_is_too_large_is_halved_until_it_fits_and_keeps_its_order() {
        for by_panic in [false, true] {
            // Ten: five and five, each two and three, each three one and two.
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
    fn other_failures_are_left_alone() {
        let halved = AtomicU64::new(0);
        let work = |_: &[u8]| Err::<Vec<u8>, _>(Failure::model("shapes differ"));
        assert_eq!(in_halves(&[1, 2], "numbers", &halved, &work).unwrap_err().message, "shapes differ");
        let work = |_: &[u8]| -> Result<Vec<u8>> { panic!("shapes differ, said {}", 1) };
        assert!(catch_unwind(AssertUnwindSafe(|| in_halves(&[1, 2], "numbers", &halved, &work))).is_err());
        assert_eq!(halved.into_inner(), 0);
    }
}
