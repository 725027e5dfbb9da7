//! Batches made ahead, on threads of their own, while the device computes: one thread reads windows of blocks, one cuts
//! and prepares batches. Both wait when enough lies ready.
//!
//! The order and whatever a batch draws follow from the epoch's random numbers and the batch's place alone, so a training
//! that goes on within an epoch sees what an undisturbed one sees.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::blocks::UserBlocks;
use super::columns::UserColumns;
use super::fit::Batches;
use crate::failure::{Failure, Result};

/// Padded tokens of a training batch; bounds memory whatever the lengths.
pub const TOKENS_MAX: usize = 16_384;
/// Prepared batches that wait for the device.
const READY_MAX: usize = 4;

/// How batches are made of users.
pub trait Recipe: Send + 'static {
    type Batch: Send + 'static;

    /// Looks at a new window; returns the rows that are samples.
    fn open(&mut self, window: &UserColumns) -> Vec<usize>;

    /// Makes the batch of some of these rows.
    fn batch(&self, window: &UserColumns, rows: &[usize], rng: &mut ChaCha8Rng) -> Result<Self::Batch>;
}

/// The batches of one epoch without the first `skip`, at most `batch_rows` users each.
pub fn batches<R: Recipe>(
    users: &Arc<UserBlocks>,
    recipe: R,
    batch_rows: usize,
    mut rng: ChaCha8Rng,
    skip: u64,
) -> Result<Batches<R::Batch>> {
    let windows = users.windows(Some(&mut rng));
    // No window waits in the channel itself: the reader holds the next one, the cutter the present one.
    let (window_to, window_from) = sync_channel(0);
    let (batch_to, batch_from) = sync_channel(READY_MAX);
    let users = Arc::clone(users);
    spawn("windows", move || read(&users, &windows, &window_to))?;
    let cutter = Cutter { recipe, batch_rows, skip, seed: rng.random(), rng };
    spawn("batches", move || cutter.cut(&window_from, &batch_to))?;
    Ok(Box::new(Prepared { from: batch_from, ended: false }))
}

enum Message<T> {
    Next(T),
    Failed(Failure),
    /// All is said; a channel that closes without it had a thread that died.
    End,
}

fn read(users: &UserBlocks, windows: &[Vec<usize>], to: &SyncSender<Message<UserColumns>>) {
    for window in windows {
        let message = match users.read(window) {
            Ok(read) => Message::Next(read),
            Err(failure) => Message::Failed(failure),
        };
        // Nobody listens any more: the training has stopped.
        if to.send(message).is_err() {
            return;
        }
    }
    to.send(Message::End).unwrap_or_default();
}

struct Cutter<R> {
    recipe: R,
    batch_rows: usize,
    skip: u64,
    /// Of what batches draw.
    seed: u64,
    rng: ChaCha8Rng,
}

impl<R: Recipe> Cutter<R> {
    fn cut(mut self, from: &Receiver<Message<UserColumns>>, to: &SyncSender<Message<R::Batch>>) {
        // Kept a thread: gathers gain nothing from helpers, which the network's own operations need.
        tch::set_num_threads(1);
        let mut number = 0;
        loop {
            let window = match from.recv() {
                Ok(Message::Next(window)) => window,
                Ok(Message::Failed(failure)) => return to.send(Message::Failed(failure)).unwrap_or_default(),
                Ok(Message::End) => return to.send(Message::End).unwrap_or_default(),
                // The reader died; the channel's end says so.
                Err(_) => return,
            };
            let rows = self.recipe.open(&window);
            for rows in cut(&window, rows, self.batch_rows, &mut self.rng) {
                number += 1;
                if number <= self.skip {
                    continue;
                }
                let mut draws = ChaCha8Rng::seed_from_u64(self.seed);
                draws.set_stream(number);
                let message = match self.recipe.batch(&window, &rows, &mut draws) {
                    Ok(batch) => Message::Next(batch),
                    Err(failure) => Message::Failed(failure),
                };
                if to.send(message).is_err() {
                    return;
                }
            }
        }
    }
}

/// Shuffled batches of near-equal lengths within the token bound.
fn cut(window: &UserColumns, mut rows: Vec<usize>, batch_rows: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
    rows.shuffle(rng);
    let mut cut = Vec::new();
    for stretch in rows.chunks_mut(batch_rows * 16) {
        stretch.sort_by_key(|&row| window.length(row));
        let mut batch: Vec<usize> = Vec::new();
        for &row in stretch.iter() {
            if batch.len() == batch_rows || (batch.len() + 1) * window.length(row).max(1) > TOKENS_MAX {
                cut.push(std::mem::take(&mut batch));
            }
            batch.push(row);
        }
        cut.push(batch);
    }
    cut.retain(|batch| !batch.is_empty());
    cut.shuffle(rng);
    cut
}

struct Prepared<B> {
    from: Receiver<Message<B>>,
    ended: bool,
}

impl<B> Iterator for Prepared<B> {
    type Item = Result<B>;

    fn next(&mut self) -> Option<Result<B>> {
        if self.ended {
            return None;
        }
        match self.from.recv() {
            Ok(Message::Next(batch)) => Some(Ok(batch)),
            Ok(Message::End) => {
                self.ended = true;
                None
            }
            Ok(Message::Failed(failure)) => {
                self.ended = true;
                Some(Err(failure))
            }
            Err(_) => {
                self.ended = true;
                Some(Err(Failure::bug("training: the thread that makes batches has died")))
            }
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = std::thread::Builder::new().name(name.into()).spawn(work);
    started.map(drop).map_err(|e| Failure::passing(format!("no thread for training ({name}): {e}")))
}

#[cfg(test)]
mod tests {
    use super::super::blocks::BlockWriter;
    use super::super::columns::tests::{day, random};
    use super::*;
    use crate::config::Config;

    /// Ids of even users and a number drawn; dies or fails where told.
    struct Ids {
        fails_at: Option<&'static str>,
        dies_at: Option<&'static str>,
    }

    const PLAIN: Ids = Ids { fails_at: None, dies_at: None };

    impl Recipe for Ids {
        type Batch = (Vec<String>, u64);

        fn open(&mut self, window: &UserColumns) -> Vec<usize> {
            let even = |row: &usize| window.user_id(*row)[1..].parse::<usize>().unwrap() % 2 == 0;
            (0..window.len()).filter(even).collect()
        }

        fn batch(&self, window: &UserColumns, rows: &[usize], rng: &mut ChaCha8Rng) -> Result<Self::Batch> {
            let ids: Vec<String> = rows.iter().map(|&row| window.user_id(row).to_string()).collect();
            let holds = |id: Option<&str>| id.is_some_and(|id| ids.iter().any(|of| of == id));
            assert!(!holds(self.dies_at), "dies");
            match holds(self.fails_at) {
                true => Err(Failure::passing("a scratch file is gone")),
                false => Ok((ids, rng.random())),
            }
        }
    }

    fn blocks() -> Arc<UserBlocks> {
        let users = UserColumns::of(&random(600, 20, 2), 1, day()).unwrap();
        let mut config = Config::default();
        config.train.memory_bytes_max = users.bytes() * 2;
        let mut writer = BlockWriter::new(&config, 1, users.bytes()).unwrap();
        writer.add(&users).unwrap();
        Arc::new(writer.finish().unwrap())
    }

    fn epoch(users: &Arc<UserBlocks>, recipe: Ids, seed: u64, skip: u64) -> Vec<Result<(Vec<String>, u64)>> {
        batches(users, recipe, 16, ChaCha8Rng::seed_from_u64(seed), skip).unwrap().collect()
    }

    #[test]
    fn an_epoch_is_every_sample_once_in_an_order_of_its_own_and_the_rest_of_it_is_the_same() {
        let users = blocks();
        let plain = |seed, skip| epoch(&users, PLAIN, seed, skip).into_iter().map(Result::unwrap).collect::<Vec<_>>();
        let all = plain(1, 0);
        let mut ids: Vec<&str> = all.iter().flat_map(|(ids, _)| ids).map(String::as_str).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((ids.len(), all.iter().map(|(ids, _)| ids.len()).sum::<usize>()), (300, 300));
        assert!(all.iter().all(|(ids, _)| ids.len() <= 16));
        assert_eq!(plain(1, 0), all);
        assert_eq!(plain(1, 5), all[5..]);
        assert_ne!(plain(2, 0), all);
        assert!(plain(1, 1000).is_empty());
    }

    #[test]
    fn a_failure_is_handed_on_and_a_thread_that_dies_is_no_short_epoch() {
        let users = blocks();
        let failed = epoch(&users, Ids { fails_at: Some("u2"), ..PLAIN }, 1, 0);
        assert_eq!(failed.last().unwrap().as_ref().unwrap_err().message, "a scratch file is gone");
        let died = epoch(&users, Ids { dies_at: Some("u2"), ..PLAIN }, 1, 0);
        assert!(died.last().unwrap().as_ref().unwrap_err().message.contains("has died"));
    }

    #[test]
    fn batches_hold_near_equal_lengths_within_the_token_bound() {
        let window = UserColumns::of(&random(200, 500, 6), 1, day()).unwrap();
        let cut = cut(&window, (0..200).collect(), 64, &mut ChaCha8Rng::seed_from_u64(1));
        for rows in &cut {
            let longest = rows.iter().map(|&row| window.length(row)).max().unwrap();
            assert!(rows.len() <= 64 && rows.len() * longest.max(1) <= TOKENS_MAX);
        }
        assert_eq!(cut.iter().map(Vec::len).sum::<usize>(), 200);
    }
}
