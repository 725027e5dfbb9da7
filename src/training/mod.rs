//! Labels, point-in-time sets and training loops.

pub mod intent;
pub mod sets;
