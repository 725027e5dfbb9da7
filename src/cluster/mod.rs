//! More than one machine: Ballista processes of this same binary run the night's physical plans.
//!
//! The driver plans, decides and commits; schedulers split plans into stages; executors read, score and write. The
//! driver submits *physical* plans, so that no rule, view or table provider has to be known anywhere else: operators
//! are all that crosses the wire, and [`codec::PlanCodec`] is the only code on which all three must agree.

mod client;
mod codec;
pub(crate) mod processes;

pub use client::connect;
