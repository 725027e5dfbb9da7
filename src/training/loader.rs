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
use super::fit::{Batches, Epoch};
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

    /// What the batch of this number draws, counted from 1, where that is what its step draws.
    fn draws_of_step(&self, _number: u64) -> Option<ChaCha8Rng> {
        None
    }
}

/// How much of an epoch.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// Of a batch.
    pub rows_max: usize,
    /// Of the epoch; which ones is drawn anew for each.
    pub samples_max: usize,
}

/// The batches of one epoch over blocks.
pub fn batches<R: Recipe>(
    blocks: &Arc<Blocks<R::Rows>>,
    recipe: R,
    measure: Measure,
    epoch: Epoch,
) -> Result<Batches<R::Batch>> {
    let Epoch { order: mut rng, skip, .. } = epoch;
    let windows = blocks.windows(Some(&mut rng));
    // No window waits in the channel itself: the reader holds the next one, the cutter the present one.
    let (window_to, window_from) = sync_channel(0);
    let (batch_to, batch_from) = sync_channel(READY_MAX);
    let blocks = Arc::clone(blocks);
    spawn("windows", move || read(&blocks, &windows, &window_to))?;
    let cutter = Cutter { recipe, measure, skip, seed: rng.random(), rng };
    spawn("batches", move || cutter.cut(&window_from, &batch_to))?;
    Ok(Box::new(Prepared { from: batch_from, ended: false }))
}

/// What was made of a group of rows.
pub struct OfRows<B> {
    pub rows: usize,
    /// Counted from 1.
    pub first_row: usize,
    pub made: B,
}

impl<B> OfRows<B> {
    /// For the message that its loss is no number.
    pub fn describe(&self) -> String {
        format!("{} rows, the first is row {}", self.rows, self.first_row)
    }
}

/// The batches of one epoch over groups of rows that are known beforehand. `make` is given what the batch's step draws.
pub fn of_groups<B: Send + 'static>(
    groups: Vec<Vec<usize>>,
    epoch: Epoch,
    make: impl Fn(&[usize], &mut ChaCha8Rng) -> Result<B> + Send + 'static,
) -> Result<Batches<OfRows<B>>> {
    let (to, from) = sync_channel(READY_MAX);
    spawn("batches", move || {
        tch::set_num_threads(1);
        for (rows, number) in groups.iter().zip(1..).skip(epoch.skip as usize) {
            let first_row = rows.first().map_or(0, |row| row + 1);
            let made = make(rows, &mut epoch.draws.of(number));
            if to.send(Message::of(made.map(|made| OfRows { rows: rows.len(), first_row, made }))).is_err() {
                return;
            }
        }
        to.send(Message::End).unwrap_or_default();
    })?;
    Ok(Box::new(Prepared { from, ended: false }))
}

enum Message<T> {
    Next(T),
    Failed(Failure),
    /// All is said; a channel that closes without it had a thread that died.
    End,
}

impl<T> Message<T> {
    fn of(made: Result<T>) -> Self {
        match made {
            Ok(made) => Self::Next(made),
            Err(failure) => Self::Failed(failure),
        }
    }
}

fn read<R: Rows>(blocks: &Blocks<R>, windows: &[Vec<usize>], to: &SyncSender<Message<R>>) {
    for window in windows {
        // Nobody listens any more: the training has stopped, or the epoch has all of its samples.
        if to.send(Message::of(blocks.read(window))).is_err() {
            return;
        }
    }
    to.send(Message::End).unwrap_or_default();
}

struct Cutter<R> {
    recipe: R,
    measure: Measure,
    /// Batches left out at the beginning.
    skip: u64,
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
                if number <= self.skip {
                    continue;
                }
                let mut draws = self.recipe.draws_of_step(number).unwrap_or_else(|| self.draws(number));
                if to.send(Message::of(self.recipe.batch(&window, &rows, &mut draws))).is_err() {
                    return;
                }
            }
        }
        to.send(Message::End).unwrap_or_default();
    }

    fn draws(&self, number: u64) -> ChaCha8Rng {
        let mut draws = ChaCha8Rng::seed_from_u64(self.seed);
        draws.set_stream(number);
        draws
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
        (batches(&blocks(), Telling(said_to), ALL, Epoch::first(1)).unwrap(), said)
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

    const ALL: Measure = Measure { rows_max: 16, samples_max: usize::MAX };

    fn epoch(
        users: &Arc<Blocks<UserColumns>>,
        recipe: Ids,
        (seed, skip): (u64, u64),
        measure: Measure,
    ) -> Vec<Result<(Vec<String>, u64)>> {
        batches(users, recipe, measure, Epoch { skip, ..Epoch::first(seed) }).unwrap().collect()
    }

    #[test]
    fn an_epoch_is_every_sample_once_in_an_order_of_its_own_and_the_rest_of_it_is_the_same() {
        let users = blocks();
        let plain =
            |seed, skip| epoch(&users, PLAIN, (seed, skip), ALL).into_iter().map(Result::unwrap).collect::<Vec<_>>();
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
            let batches = epoch(&users, PLAIN, (seed, 0), measure).into_iter().map(Result::unwrap);
            batches.flat_map(|(ids, _)| ids).collect::<std::collections::BTreeSet<String>>()
        };
        assert_eq!((some(1).len(), some(1) == some(1), some(1) == some(2)), (40, true, false));
    }

    #[test]
    fn a_failure_is_handed_on_and_a_thread_that_dies_is_no_short_epoch() {
        let users = blocks();
        let failed = epoch(&users, Ids { fails_at: Some("u2"), ..PLAIN }, (1, 0), ALL);
        assert_eq!(failed.last().unwrap().as_ref().unwrap_err().message, "a scratch file is gone");
        let died = epoch(&users, Ids { dies_at: Some("u2"), ..PLAIN }, (1, 0), ALL);
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

    /// Groups of two rows, and what is made of each.
    fn groups(epoch: Epoch) -> Vec<Result<(Vec<usize>, u64)>> {
        let groups = (0..9).map(|group| vec![2 * group, 2 * group + 1]).collect();
        let make = |rows: &[usize], rng: &mut ChaCha8Rng| match rows[0] {
            14 => Err(Failure::passing("a scratch file is gone")),
            _ => Ok((rows.to_vec(), rng.random())),
        };
        of_groups(groups, epoch, make).unwrap().map(|batch| batch.map(|of| of.made)).collect()
    }

    #[test]
    fn batches_of_known_groups_draw_what_their_steps_do_and_the_rest_of_an_epoch_is_the_same() {
        let epoch = Epoch::first(1);
        let all = groups(epoch.clone());
        for (number, batch) in (1..).zip(&all[..7]) {
            let (rows, drawn) = batch.as_ref().unwrap();
            assert_eq!((rows[0], *drawn), (2 * (number as usize - 1), epoch.draws.of(number).random::<u64>()));
        }
        assert_eq!((all.len(), all[7].as_ref().unwrap_err().message.as_str()), (8, "a scratch file is gone"));
        let rest = groups(Epoch { skip: 3, ..epoch });
        assert_eq!(rest[0].as_ref().unwrap(), all[3].as_ref().unwrap());
        assert_eq!(rest.len(), 5);
    }

    #[test]
    fn batches_of_known_groups_are_made_ahead_too_and_no_more_than_may_lie_ready() {
        let (said_to, made) = channel();
        let make = move |rows: &[usize], _: &mut ChaCha8Rng| {
            said_to.send(rows[0]).unwrap_or_default();
            Ok(())
        };
        let batches = of_groups((0..100).map(|row| vec![row]).collect(), Epoch::first(1), make).unwrap();
        for row in 0..=READY_MAX {
            assert_eq!(made.recv_timeout(LONG).unwrap(), row, "nobody has asked for it");
        }
        assert_eq!(made.recv_timeout(Duration::from_millis(20)), Err(RecvTimeoutError::Timeout));
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
