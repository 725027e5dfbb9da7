//! Batches over groups of rows that are known before the epoch begins, made on a thread ahead of the device.

use rand_chacha::ChaCha8Rng;
use std::sync::mpsc::sync_channel;

use super::batch_channel::{BatchReceiver, Message, READY_MAX, spawn};
use super::task::{Batches, Epoch};
use crate::failure::Result;

/// A batch made from one group of rows.
pub(crate) struct GroupBatch<B> {
    pub(crate) rows: usize,
    /// Rows count from 1.
    pub(crate) first_row: usize,
    pub(crate) data: B,
}

impl<B> GroupBatch<B> {
    /// Contents of the batch, for the error that its loss is not a number.
    pub(crate) fn describe(&self) -> String {
        format!("{} rows, the first is row {}", self.rows, self.first_row)
    }
}

/// Batches of one epoch, one for each group. `make` gets the random numbers of the batch's step.
pub(crate) fn batches_of_groups<B: Send + 'static>(
    groups: Vec<Vec<usize>>,
    epoch: Epoch,
    make: impl Fn(&[usize], &mut ChaCha8Rng) -> Result<B> + Send + 'static,
) -> Result<Batches<GroupBatch<B>>> {
    let (to, from) = sync_channel(READY_MAX);
    spawn("batches", move || {
        tch::set_num_threads(1);
        for (rows, number) in groups.iter().zip(1..).skip(epoch.skip as usize) {
            let first_row = rows.first().map_or(0, |row| row + 1);
            let made = make(rows, &mut epoch.step_seeds.rng(number));
            let batch = made.map(|data| GroupBatch { rows: rows.len(), first_row, data });
            if to.send(batch.into()).is_err() {
                return;
            }
        }
        to.send(Message::End).unwrap_or_default();
    })?;
    Ok(Box::new(BatchReceiver::new(from)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;
    use rand::Rng;
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::Duration;

    /// Timeout after which a test assumes that no batch arrives.
    const LONG: Duration = Duration::from_secs(60);

    /// Batches of groups of two rows: the rows, and a number drawn.
    fn batches(epoch: Epoch) -> Vec<Result<(Vec<usize>, u64)>> {
        let groups = (0..9).map(|group| vec![2 * group, 2 * group + 1]).collect();
        let make = |rows: &[usize], rng: &mut ChaCha8Rng| match rows[0] {
            14 => Err(Failure::transient("a scratch file is gone")),
            _ => Ok((rows.to_vec(), rng.random())),
        };
        batches_of_groups(groups, epoch, make).unwrap().map(|batch| batch.map(|b| b.data)).collect()
    }

    #[test]
    fn a_group_batch_draws_the_numbers_of_its_step() {
        let epoch = Epoch::first(1);
        let all = batches(epoch.clone());
        for (number, batch) in (1..).zip(&all[..7]) {
            let (rows, drawn) = batch.as_ref().unwrap();
            assert_eq!((rows[0], *drawn), (2 * (number as usize - 1), epoch.step_seeds.rng(number).random::<u64>()));
        }
        assert_eq!((all.len(), all[7].as_ref().unwrap_err().message.as_str()), (8, "a scratch file is gone"));
        let rest = batches(Epoch { skip: 3, ..epoch });
        assert_eq!(rest[0].as_ref().unwrap(), all[3].as_ref().unwrap());
        assert_eq!(rest.len(), 5);
    }

    #[test]
    fn group_batches_are_made_ahead_up_to_the_limit() {
        let (made_to, made) = channel();
        let make = move |rows: &[usize], _: &mut ChaCha8Rng| {
            made_to.send(rows[0]).unwrap_or_default();
            Ok(())
        };
        let batches = batches_of_groups((0..100).map(|row| vec![row]).collect(), Epoch::first(1), make).unwrap();
        for row in 0..=READY_MAX {
            assert_eq!(made.recv_timeout(LONG).unwrap(), row, "made without being asked for");
        }
        assert_eq!(made.recv_timeout(Duration::from_millis(20)), Err(RecvTimeoutError::Timeout));
        drop(batches);
        assert_eq!(made.iter().count(), 0, "the thread ends once no one takes batches");
    }
}
