//! One-line set-ups that the integration tests share.

pub mod device;
pub mod job;
pub mod journal;
pub mod lakes;
pub mod nights;
pub mod published;
pub mod s3;
pub mod stopping_store;
