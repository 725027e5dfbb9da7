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

use super::blocks::Blocks;
use super::columns::Rows;
use super::fit::Batches;
use crate::failure::{Failure, Result};

/// Padded tokens of a training batch; bounds memory whatever the lengths.
pub const TOKENS_MAX: usize = 16_384;
/// Prepared batches that wait for the device.
const READY_MAX: usize = 4;

/// How batches are made of rows.
pub trait Recipe: Send + 'static {
    type Rows: Rows;
    type Batch: Send + 'static;

    /// Looks at a new window; returns the rows that are samples.
    fn open(&mut self, window: &Self::Rows) -> Vec<usize>;

    /// Tokens of a row, where rows differ: batches hold rows of near-equal lengths.
    fn tokens(&self, _window: &Self::Rows, _row: usize) -> usize {
        1
    }

    /// Makes the batch of some of these rows.
    fn batch(&self, window: &Self::Rows, rows: &[usize], rng: &mut ChaCha8Rng) -> Result<Self::Batch>;
}

/// How much of an epoch.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// Of a batch.
    pub rows_max: usize,
    /// Of the epoch; which ones is drawn anew for each.
    pub samples_max: usize,
    /// Batches left out at the beginning.
    pub skip: u64,
}

/// The batches of one epoch.
pub fn batches<R: Recipe>(
    blocks: &Arc<Blocks<R::Rows>>,
    recipe: R,
    measure: Measure,
    mut rng: ChaCha8Rng,
) -> Result<Batches<R::Batch>> {
    let windows = blocks.windows(Some(&mut rng));
    // No window waits in the channel itself: the reader holds the next one, the cutter the present one.
    let (window_to, window_from) = sync_channel(0);
    let (batch_to, batch_from) = sync_channel(READY_MAX);
    let blocks = Arc::clone(blocks);
    spawn("windows", move || read(&blocks, &windows, &window_to))?;
    let cutter = Cutter { recipe, measure, seed: rng.random(), rng };
    spawn("batches", move || cutter.cut(&window_from, &batch_to))?;
    Ok(Box::new(Prepared { from: batch_from, ended: false }))
}

enum Message<T> {
    Next(T),
    Failed(Failure),
    /// All is said; a channel that closes without it had a thread that died.
    End,
}

fn read<R: Rows>(blocks: &Blocks<R>, windows: &[Vec<usize>], to: &SyncSender<Message<R>>) {
    for window in windows {
        let message = match blocks.read(window) {
            Ok(read) => Message::Next(read),
            Err(failure) => Message::Failed(failure),
        };
        // Nobody listens any more: the training has stopped, or the epoch has all of its samples.
        if to.send(message).is_err() {
            return;
        }
    }
    to.send(Message::End).unwrap_or_default();
}

struct Cutter<R> {
    recipe: R,
    measure: Measure,
    /// Of what batches draw.
    seed: u64,
    rng: ChaCha8Rng,
}

impl<R: Recipe> Cutter<R> {
    fn cut(mut self, from: &Receiver<Message<R::Rows>>, to: &SyncSender<Message<R::Batch>>) {
        // Kept a thread: gathers gain nothing from helpers, which the network's own operations need.
        tch::set_num_threads(1);
        let (mut number, mut samples_left) = (0, self.measure.samples_max);
        while samples_left > 0 {
            let window = match from.recv() {
                Ok(Message::Next(window)) => window,
                Ok(Message::Failed(failure)) => return to.send(Message::Failed(failure)).unwrap_or_default(),
                Ok(Message::End) => break,
                // The reader died; the channel's end says so.
                Err(_) => return,
            };
            let mut rows = self.recipe.open(&window);
            rows.shuffle(&mut self.rng);
            rows.truncate(samples_left);
            samples_left -= rows.len();
            let tokens = |row: usize| self.recipe.tokens(&window, row);
            for rows in cut(rows, tokens, self.measure.rows_max, &mut self.rng) {
                number += 1;
                if number <= self.measure.skip {
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
        to.send(Message::End).unwrap_or_default();
    }
}

/// Batches of shuffled rows, of near-equal lengths within the token bound.
fn cut(
    mut rows: Vec<usize>,
    tokens: impl Fn(usize) -> usize,
    rows_max: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<Vec<usize>> {
    let mut cut = Vec::new();
    for stretch in rows.chunks_mut(rows_max * 16) {
        stretch.sort_by_key(|&row| tokens(row));
        let mut batch: Vec<usize> = Vec::new();
        for &row in stretch.iter() {
            if batch.len() == rows_max || (batch.len() + 1) * tokens(row).max(1) > TOKENS_MAX {
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
    use super::super::user_columns::UserColumns;
    use super::super::user_columns::tests::{day, random};
    use super::*;
    use crate::config::Config;
    use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
    use std::time::Duration;

    /// Ids of even users and a number drawn; dies or fails where told.
    struct Ids {
        fails_at: Option<&'static str>,
        dies_at: Option<&'static str>,
    }

    const PLAIN: Ids = Ids { fails_at: None, dies_at: None };

    impl Recipe for Ids {
        type Rows = UserColumns;
        type Batch = (Vec<String>, u64);

        fn open(&mut self, window: &UserColumns) -> Vec<usize> {
            let even = |row: &usize| window.id(*row)[1..].parse::<usize>().unwrap() % 2 == 0;
            (0..window.len()).filter(even).collect()
        }

        fn batch(&self, window: &UserColumns, rows: &[usize], rng: &mut ChaCha8Rng) -> Result<Self::Batch> {
            let ids: Vec<String> = rows.iter().map(|&row| window.id(row).to_string()).collect();
            let holds = |id: Option<&str>| id.is_some_and(|id| ids.iter().any(|of| of == id));
            assert!(!holds(self.dies_at), "dies");
            match holds(self.fails_at) {
                true => Err(Failure::passing("a scratch file is gone")),
                false => Ok((ids, rng.random())),
            }
        }
    }

    /// Says the rows of each batch that it has made.
    struct Telling(Sender<Vec<usize>>);

    impl Recipe for Telling {
        type Rows = UserColumns;
        type Batch = Vec<usize>;

        fn open(&mut self, window: &UserColumns) -> Vec<usize> {
            (0..window.len()).collect()
        }

        fn batch(&self, _: &UserColumns, rows: &[usize], _: &mut ChaCha8Rng) -> Result<Vec<usize>> {
            // Nobody listens where the test has failed.
            self.0.send(rows.to_vec()).unwrap_or_default();
            Ok(rows.to_vec())
        }
    }

    /// An epoch, and what is said of its batches.
    fn telling() -> (Batches<Vec<usize>>, Receiver<Vec<usize>>) {
        let (said_to, said) = channel();
        (batches(&blocks(), Telling(said_to), ALL, ChaCha8Rng::seed_from_u64(1)).unwrap(), said)
    }

    /// Only what never comes takes so long.
    const LONG: Duration = Duration::from_secs(60);

    fn blocks() -> Arc<Blocks<UserColumns>> {
        let users = UserColumns::of(&random(600, 20, 2), 1, day()).unwrap();
        let mut config = Config::default();
        config.train.memory_bytes_max = users.bytes() * 2;
        let mut writer = BlockWriter::new(&config, UserColumns::schema(1), users.bytes()).unwrap();
        writer.add(&users).unwrap();
        Arc::new(writer.finish().unwrap())
    }

    const ALL: Measure = Measure { rows_max: 16, samples_max: usize::MAX, skip: 0 };

    fn epoch(
        users: &Arc<Blocks<UserColumns>>,
        recipe: Ids,
        seed: u64,
        measure: Measure,
    ) -> Vec<Result<(Vec<String>, u64)>> {
        batches(users, recipe, measure, ChaCha8Rng::seed_from_u64(seed)).unwrap().collect()
    }

    #[test]
    fn an_epoch_is_every_sample_once_in_an_order_of_its_own_and_the_rest_of_it_is_the_same() {
        let users = blocks();
        let plain = |seed, skip| {
            let measure = Measure { skip, ..ALL };
            epoch(&users, PLAIN, seed, measure).into_iter().map(Result::unwrap).collect::<Vec<_>>()
        };
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
    fn an_epoch_of_fewer_samples_has_so_many_and_others_each_time() {
        let users = blocks();
        let some = |seed: u64| {
            let measure = Measure { samples_max: 40, ..ALL };
            let batches = epoch(&users, PLAIN, seed, measure).into_iter().map(Result::unwrap);
            batches.flat_map(|(ids, _)| ids).collect::<std::collections::BTreeSet<String>>()
        };
        assert_eq!((some(1).len(), some(1) == some(1), some(1) == some(2)), (40, true, false));
    }

    #[test]
    fn a_failure_is_handed_on_and_a_thread_that_dies_is_no_short_epoch() {
        let users = blocks();
        let failed = epoch(&users, Ids { fails_at: Some("u2"), ..PLAIN }, 1, ALL);
        assert_eq!(failed.last().unwrap().as_ref().unwrap_err().message, "a scratch file is gone");
        let died = epoch(&users, Ids { dies_at: Some("u2"), ..PLAIN }, 1, ALL);
        assert!(died.last().unwrap().as_ref().unwrap_err().message.contains("has died"));
    }

    #[test]
    fn the_next_batch_is_made_while_the_one_before_is_still_held() {
        let (mut batches, made) = telling();
        let held = batches.next().unwrap().unwrap();
        assert_eq!(made.recv_timeout(LONG).unwrap(), held);
        // Nobody has asked for it.
        assert_ne!(made.recv_timeout(LONG).unwrap(), held);
    }

    #[test]
    fn no_more_batches_are_made_ahead_than_may_lie_ready_and_one_in_hand() {
        let (mut batches, made) = telling();
        let rests = || made.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout);
        for _ in 0..=READY_MAX {
            made.recv_timeout(LONG).unwrap();
        }
        assert!(rests());
        batches.next().unwrap().unwrap();
        made.recv_timeout(LONG).unwrap();
        assert!(rests(), "one that is taken makes room for one");
        drop(batches);
        assert_eq!(made.iter().count(), 0, "the thread ends once nobody takes any");
    }

    #[test]
    fn batches_hold_near_equal_lengths_within_the_token_bound() {
        let window = UserColumns::of(&random(200, 500, 6), 1, day()).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let cut = cut((0..200).collect(), |row| window.length(row), 64, &mut rng);
        for rows in &cut {
            let longest = rows.iter().map(|&row| window.length(row)).max().unwrap();
            assert!(rows.len() <= 64 && rows.len() * longest.max(1) <= TOKENS_MAX);
        }
        assert_eq!(cut.iter().map(Vec::len).sum::<usize>(), 200);
    }
}
