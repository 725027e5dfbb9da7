//! More than one machine: Ballista processes of this same binary run the night's physical plans.
//!
//! The driver plans, decides and commits; schedulers split plans into stages; executors read, score and write. The
//! driver submits *physical* plans, so that no rule, view or table provider has to be known anywhere else: what crosses
//! the wire is operators, and [`codec::PlanCodec`], the same in all three, is the only thing that they must agree on.

mod client;
mod codec;
pub mod processes;

pub use client::connect;
