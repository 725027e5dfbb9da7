//! Gradient-boosted trees: how they are stored and scored. `training::trees` trains them.
//!
//! In: tabular features of users, as the behaviour network reads them, or numbers of items' histories. Out: log-odds, or forecasts.
//! Every tree is stored as a perfect one of [`DEPTH`] tests (as in arXiv 2010.04804), so that a block of rows
//! passes it without a branch, and no second library is needed for scoring.

mod block_tree;
mod demand_trees;
mod ensemble;
mod intent_trees;
mod perfect_tree;

pub(crate) use demand_trees::{DemandTrees, FORECAST_NUMBERS, SpanTrees};
pub(crate) use ensemble::{Ensemble, each_block};
pub(crate) use intent_trees::IntentTrees;
pub(crate) use perfect_tree::{DEPTH, NODES, PLACES, PerfectTree};
