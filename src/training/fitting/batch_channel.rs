//! The channel between the threads that prepare batches and the training loop.

use std::sync::mpsc::Receiver;

use crate::failure::{Failure, Result};

/// Prepared batches that wait for the device.
pub(super) const READY_MAX: usize = 4;

/// A message from one thread to the next.
pub(super) enum Message<T> {
    Next(T),
    Failed(Failure),
    /// Nothing follows. A channel that closes without this message lost its thread.
    End,
}

impl<T> From<Result<T>> for Message<T> {
    fn from(result: Result<T>) -> Self {
        match result {
            Ok(next) => Self::Next(next),
            Err(failure) => Self::Failed(failure),
        }
    }
}

/// Receives the batches of one epoch.
pub(super) struct BatchReceiver<B> {
    batches: Receiver<Message<B>>,
    ended: bool,
}

impl<B> BatchReceiver<B> {
    pub(crate) fn new(batches: Receiver<Message<B>>) -> Self {
        Self { batches, ended: false }
    }
}

impl<B> Iterator for BatchReceiver<B> {
    type Item = Result<B>;

    fn next(&mut self) -> Option<Result<B>> {
        if self.ended {
            return None;
        }
        let message = self.batches.recv();
        self.ended = !matches!(message, Ok(Message::Next(_)));
        match message {
            Ok(Message::Next(batch)) => Some(Ok(batch)),
            Ok(Message::Failed(failure)) => Some(Err(failure)),
            Ok(Message::End) => None,
            Err(_) => Some(Err(Failure::bug("training: the thread that makes batches has died"))),
        }
    }
}

pub(super) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = std::thread::Builder::new().name(name.into()).spawn(work);
    started.map(drop).map_err(|e| Failure::transient(format!("cannot start a training thread ({name}): {e}")))
}
