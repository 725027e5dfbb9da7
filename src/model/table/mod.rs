//! Models of one flat table, without users, events or nights.
//!
//! In: the rows of a table. Out: predictions of its labels. `columns` and `vector_columns` turn rows into numbers with
//! the scales and categories that training learnt, `network` and `trees` compute the outputs, `bundle` writes and loads models in
//! the registry. `training::table` and `score::functions` call it.

pub mod bundle;
pub(crate) mod columns;
pub(crate) mod network;
mod scaling;
pub(crate) mod trees;
mod vector_columns;
