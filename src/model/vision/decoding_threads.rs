//! The thread pool that decodes pictures: on one core, decoding would keep a GPU waiting.

use rayon::prelude::*;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::failure::{Failure, Result};

/// Applies `convert` to each picture, in order, with one thread per core. `convert` may call libtorch, which uses one
/// thread within each of them: resizing a small picture gains nothing from more.
pub(crate) fn map_in_parallel<P: Sync, T: Send>(pictures: &[P], convert: impl Fn(&P) -> T + Sync) -> Result<Vec<T>> {
    Ok(thread_pool()?.install(|| pictures.par_iter().map(&convert).collect()))
}

fn thread_pool() -> Result<&'static rayon::ThreadPool> {
    // Kept for the life of the process, because libtorch keeps its data of a thread.
    static THREADS: OnceLock<rayon::ThreadPool> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    let _one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(threads) = THREADS.get() {
        return Ok(threads);
    }
    let named = rayon::ThreadPoolBuilder::new().thread_name(|n| format!("pictures-{n}"));
    let threads = named.build().map_err(|e| Failure::transient(format!("cannot start threads for pictures: {e}")))?;
    // A thread that is new to libtorch takes over the last thread count set by any thread, on its first call of
    // get_num_threads. So each pool thread calls it before it sets its own count.
    let before = tch::get_num_threads();
    threads.broadcast(|_| {
        tch::get_num_threads();
        tch::set_num_threads(1);
    });
    tch::set_num_threads(before);
    Ok(THREADS.get_or_init(|| threads))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_the_thread_count_elsewhere_stay_the_same() {
        let before = tch::get_num_threads();
        let rows: Vec<usize> = (0..1000).collect();
        let made = map_in_parallel(&rows, |row| (row * 2, tch::get_num_threads())).unwrap();
        assert!(made.iter().enumerate().all(|(row, made)| *made == (row * 2, 1)));
        assert_eq!(tch::get_num_threads(), before);
        let new = std::thread::spawn(tch::get_num_threads).join().unwrap();
        assert_eq!(new, before, "in a thread that is new to libtorch");
    }
}
