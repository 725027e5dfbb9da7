//! intentcast: the nightly intent and demand job.
//!
//! Read in the order of the flow: config → lake → features → metrics → model → score → engine → tables → publish →
//! nightly. A room imports only from rooms to its left; side rooms (training, simulation, importing) meet the night
//! through tables.

pub mod cli;
pub mod cluster;
pub mod config;
pub mod dry_run;
pub mod engine;
pub mod failure;
pub mod features;
pub mod ids;
pub mod importing;
pub mod lake;
pub mod metrics;
pub mod model;
pub mod nightly;
pub mod progress;
pub mod publish;
pub mod score;
pub mod shell;
pub mod simulation;
pub mod sql_files;
pub mod tables;
pub mod training;
pub mod verbs;
