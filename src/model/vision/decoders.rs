//! Threads that decode pictures side by side: a GPU's network would wait for one core.

use rayon::prelude::*;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::failure::{Failure, Result};

/// What `of` makes of each picture, in order, on as many threads as there are cores. `of` may call libtorch, which has one thread
/// for each of them: resizing one small picture is no work for more.
pub fn side_by_side<P: Sync, T: Send>(pictures: &[P], of: impl Fn(&P) -> T + Sync) -> Result<Vec<T>> {
    Ok(threads()?.install(|| pictures.par_iter().map(&of).collect()))
}

fn threads() -> Result<&'static rayon::ThreadPool> {
    // For the life of the process: libtorch keeps what it has made for a thread.
    static THREADS: OnceLock<rayon::ThreadPool> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    let _one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(threads) = THREADS.get() {
        return Ok(threads);
    }
    let named = rayon::ThreadPoolBuilder::new().thread_name(|n| format!("pictures-{n}"));
    let threads = named.build().map_err(|e| Failure::passing(format!("no threads for pictures: {e}")))?;
    // libtorch gives a thread that is new to it what any thread was told last, and would overwrite what it was told before it
    // was asked.
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
    fn pictures_keep_their_order_and_libtorch_its_threads_elsewhere() {
        let before = tch::get_num_threads();
        let rows: Vec<usize> = (0..1000).collect();
        let made = side_by_side(&rows, |row| (row * 2, tch::get_num_threads())).unwrap();
        assert!(made.iter().enumerate().all(|(row, made)| *made == (row * 2, 1)));
        assert_eq!(tch::get_num_threads(), before);
        let new = std::thread::spawn(tch::get_num_threads).join().unwrap();
        assert_eq!(new, before, "a thread that is new to libtorch");
    }
}
