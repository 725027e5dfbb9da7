//! Batches over blocks, made ahead of the device: one thread reads windows of blocks, one builds batches from them. Both
//! wait when enough is ready.
//!
//! The order and the random numbers of a batch follow from the epoch's random numbers and the batch's number alone, so a
//! training that resumes within an epoch gets the same batches as one that was never interrupted.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::batch_channel::{BatchReceiver, Message, READY_MAX, spawn};
use super::task::{Batches, Epoch};
use crate::failure::Result;
use crate::training::datasets::{BlockRows, Blocks};

/// Padded tokens of a training batch; bounds its memory whatever the lengths of its rows.
pub(crate) const TOKENS_MAX: usize = 16_384;
/// Batches of shuffled rows that are sorted by length together.
const SORTED_BATCHES: usize = 16;

/// Builds batches from rows.
pub(crate) trait BatchBuilder: Send + 'static {
    type Rows: BlockRows;
    type Batch: Send + 'static;

    /// Selects the rows of a new window that are samples.
    fn select_rows(&mut self, window: &Self::Rows) -> Vec<usize>;

    /// Tokens of a row. Batches hold rows of near-equal lengths.
    fn tokens(&self, _window: &Self::Rows, _row: usize) -> usize {
        1
    }

    /// Builds the batch of these rows.
    fn build(&self, window: &Self::Rows, rows: &[usize], rng: &mut ChaCha8Rng) -> Result<Self::Batch>;

    /// Random numbers for the batch of this number, counted from 1, where they are those of its step.
    fn step_rng(&self, _number: u64) -> Option<ChaCha8Rng> {
        None
    }
}

/// Size of an epoch and of its batches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EpochSize {
    pub(crate) batch_rows_max: usize,
    /// Samples of the epoch; each epoch draws others.
    pub(crate) samples_max: usize,
}

/// Batches of one epoch over blocks.
pub(crate) fn batches_of_blocks<R: BatchBuilder>(
    blocks: &Arc<Blocks<R::Rows>>,
    builder: R,
    size: EpochSize,
    epoch: Epoch,
) -> Result<Batches<R::Batch>> {
    let Epoch { order: mut rng, skip, .. } = epoch;
    let windows = blocks.windows(Some(&mut rng));
    // The channel itself holds no window: the reader holds the next one, the batcher the present one.
    let (window_to, window_from) = sync_channel(0);
    let (batch_to, batch_from) = sync_channel(READY_MAX);
    let blocks = Arc::clone(blocks);
    spawn("windows", move || send_windows(&blocks, &windows, &window_to))?;
    let batcher = Batcher { builder, size, skip, seed: rng.random(), rng };
    spawn("batches", move || batcher.send_batches(&window_from, &batch_to))?;
    Ok(Box::new(BatchReceiver::new(batch_from)))
}

fn send_windows<R: BlockRows>(blocks: &Blocks<R>, windows: &[Vec<usize>], to: &SyncSender<Message<R>>) {
    for window in windows {
        // Sending fails once no one receives: the training has stopped, or the epoch has all its samples.
        if to.send(blocks.read_window(window).into()).is_err() {
            return;
        }
    }
    to.send(Message::End).unwrap_or_default();
}

/// Makes the batches of one epoch from its windows.
struct Batcher<R> {
    builder: R,
    size: EpochSize,
    /// Batches at the start that are left out.
    skip: u64,
    /// Seed for the random numbers of batches.
    seed: u64,
    rng: ChaCha8Rng,
}

impl<R: BatchBuilder> Batcher<R> {
    fn send_batches(mut self, from: &Receiver<Message<R::Rows>>, to: &SyncSender<Message<R::Batch>>) {
        // One thread: gathering gains nothing from more, and the network's own operations need them.
        tch::set_num_threads(1);
        let mut number = 0;
        let mut samples_left = self.size.samples_max;
        while samples_left > 0 {
            let window = match from.recv() {
                Ok(Message::Next(window)) => window,
                Ok(Message::Failed(failure)) => return to.send(Message::Failed(failure)).unwrap_or_default(),
                Ok(Message::End) => break,
                // The reader died; the channel closes without an end, which says so.
                Err(_) => return,
            };
            let mut samples = self.builder.select_rows(&window);
            samples.shuffle(&mut self.rng);
            samples.truncate(samples_left);
            samples_left -= samples.len();
            let tokens = |row: usize| self.builder.tokens(&window, row);
            for rows in group_by_length(samples, tokens, self.size.batch_rows_max, &mut self.rng) {
                number += 1;
                if number <= self.skip {
                    continue;
                }
                let mut rng = self.builder.step_rng(number).unwrap_or_else(|| self.batch_rng(number));
                if to.send(self.builder.build(&window, &rows, &mut rng).into()).is_err() {
                    return;
                }
            }
        }
        to.send(Message::End).unwrap_or_default();
    }

    fn batch_rng(&self, number: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(number);
        rng
    }
}

/// Groups shuffled rows into batches of near-equal lengths, within the bounds on rows and tokens.
fn group_by_length(
    mut rows: Vec<usize>,
    tokens: impl Fn(usize) -> usize,
    rows_max: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<Vec<usize>> {
    let mut batches = Vec::new();
    for stretch in rows.chunks_mut(rows_max * SORTED_BATCHES) {
        stretch.sort_by_key(|&row| tokens(row));
        let mut batch: Vec<usize> = Vec::new();
        for &row in stretch.iter() {
            if batch.len() == rows_max || (batch.len() + 1) * tokens(row).max(1) > TOKENS_MAX {
                batches.push(std::mem::take(&mut batch));
            }
            batch.push(row);
        }
        batches.push(batch);
    }
    batches.retain(|batch| !batch.is_empty());
    batches.shuffle(rng);
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::failure::Failure;
    use crate::training::datasets::user_columns::tests::{day, random};
    use crate::training::datasets::{BlockWriter, UserColumns};
    use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
    use std::time::Duration;

    /// Builds batches of the ids of even users and a number drawn; panics or fails at a given user.
    struct Ids {
        fails_at: Option<&'static str>,
        panics_at: Option<&'static str>,
    }

    const PLAIN: Ids = Ids { fails_at: None, panics_at: None };

    impl BatchBuilder for Ids {
        type Rows = UserColumns;
        type Batch = (Vec<String>, u64);

        fn select_rows(&mut self, window: &UserColumns) -> Vec<usize> {
            let even = |row: &usize| window.id(*row)[1..].parse::<usize>().unwrap() % 2 == 0;
            (0..window.len()).filter(even).collect()
        }

        fn build(&self, window: &UserColumns, rows: &[usize], rng: &mut ChaCha8Rng) -> Result<Self::Batch> {
            let ids: Vec<String> = rows.iter().map(|&row| window.id(row).to_string()).collect();
            let holds = |wanted: Option<&str>| wanted.is_some_and(|wanted| ids.iter().any(|id| id == wanted));
            assert!(!holds(self.panics_at), "dies");
            match holds(self.fails_at) {
                true => Err(Failure::transient("a scratch file is gone")),
                false => Ok((ids, rng.random())),
            }
        }
    }

    /// Reports the rows of each batch that it builds.
    struct Reporting(Sender<Vec<usize>>);

    impl BatchBuilder for Reporting {
        type Rows = UserColumns;
        type Batch = Vec<usize>;

        fn select_rows(&mut self, window: &UserColumns) -> Vec<usize> {
            (0..window.len()).collect()
        }

        fn build(&self, _: &UserColumns, rows: &[usize], _: &mut ChaCha8Rng) -> Result<Vec<usize>> {
            // No one receives once the test has failed.
            self.0.send(rows.to_vec()).unwrap_or_default();
            Ok(rows.to_vec())
        }
    }

    /// The batches of an epoch, and the reports of those that are built.
    fn reported_batches() -> (Batches<Vec<usize>>, Receiver<Vec<usize>>) {
        let (report, reports) = channel();
        (batches_of_blocks(&blocks(), Reporting(report), ALL, Epoch::first(1)).unwrap(), reports)
    }

    /// Timeout after which a test assumes that no batch arrives.
    const LONG: Duration = Duration::from_secs(60);

    fn blocks() -> Arc<Blocks<UserColumns>> {
        let users = UserColumns::from_users(&random(600, 20, 2), 1, day()).unwrap();
        let mut config = Config::default();
        config.train.memory_bytes_max = users.bytes() * 2;
        let mut writer = BlockWriter::new(&config, UserColumns::schema(1), users.bytes()).unwrap();
        writer.add(&users).unwrap();
        Arc::new(writer.finish().unwrap())
    }

    const ALL: EpochSize = EpochSize { batch_rows_max: 16, samples_max: usize::MAX };

    fn batches(users: &Arc<Blocks<UserColumns>>, builder: Ids, epoch: Epoch) -> Vec<Result<(Vec<String>, u64)>> {
        batches_of_blocks(users, builder, ALL, epoch).unwrap().collect()
    }

    #[test]
    fn an_epoch_has_every_sample_once_and_its_rest_is_the_same() {
        let users = blocks();
        let plain = |seed: u64, skip: u64| {
            let batches = batches(&users, PLAIN, Epoch { skip, ..Epoch::first(seed) });
            batches.into_iter().map(Result::unwrap).collect::<Vec<_>>()
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
    fn an_epoch_of_fewer_samples_draws_others_each_time() {
        let users = blocks();
        let some = |seed: u64| {
            let size = EpochSize { samples_max: 40, ..ALL };
            let batches = batches_of_blocks(&users, PLAIN, size, Epoch::first(seed)).unwrap().map(Result::unwrap);
            batches.flat_map(|(ids, _)| ids).collect::<std::collections::BTreeSet<String>>()
        };
        assert_eq!((some(1).len(), some(1) == some(1), some(1) == some(2)), (40, true, false));
    }

    #[test]
    fn a_failure_or_a_dead_thread_is_not_a_short_epoch() {
        let users = blocks();
        let failed = batches(&users, Ids { fails_at: Some("u2"), ..PLAIN }, Epoch::first(1));
        assert_eq!(failed.last().unwrap().as_ref().unwrap_err().message, "a scratch file is gone");
        let died = batches(&users, Ids { panics_at: Some("u2"), ..PLAIN }, Epoch::first(1));
        assert!(died.last().unwrap().as_ref().unwrap_err().message.contains("has died"));
    }

    #[test]
    fn the_next_batch_is_built_while_one_is_in_use() {
        let (mut batches, reports) = reported_batches();
        let held = batches.next().unwrap().unwrap();
        assert_eq!(reports.recv_timeout(LONG).unwrap(), held);
        // Built without being asked for.
        assert_ne!(reports.recv_timeout(LONG).unwrap(), held);
    }

    #[test]
    fn batches_are_built_ahead_up_to_the_limit() {
        let (mut batches, reports) = reported_batches();
        let rests = || reports.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout);
        for _ in 0..=READY_MAX {
            reports.recv_timeout(LONG).unwrap();
        }
        assert!(rests());
        batches.next().unwrap().unwrap();
        reports.recv_timeout(LONG).unwrap();
        assert!(rests(), "one that is taken makes room for one");
        drop(batches);
        assert_eq!(reports.iter().count(), 0, "the thread ends once no one takes batches");
    }

    #[test]
    fn batches_hold_near_equal_lengths_within_the_token_bound() {
        let window = UserColumns::from_users(&random(200, 500, 6), 1, day()).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let batches = group_by_length((0..200).collect(), |row| window.event_count(row), 64, &mut rng);
        for rows in &batches {
            let longest = rows.iter().map(|&row| window.event_count(row)).max().unwrap();
            assert!(rows.len() <= 64 && rows.len() * longest.max(1) <= TOKENS_MAX);
        }
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 200);
    }
}
