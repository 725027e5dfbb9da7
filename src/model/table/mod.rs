//! Models of one flat table: columns in, labels out; no users, no events, no night.
//!
//! `columns` and `vectors` turn rows into numbers as training learnt to, `network` reads them, `bundle` keeps both in the
//! registry, where no night looks for them. `training::table` and `score::table` call.

pub mod bundle;
pub mod columns;
pub mod network;
pub mod vectors;
