//! intentcast: the nightly intent and demand job.
//!
//! Read in the order of the flow: config → lake → features → metrics → model → score → engine → tables → publish →
//! cluster → workspace → nightly → side rooms (training, evaluation, simulation, importing, report, serving) → commands. A room imports only
//! from rooms to its left; side rooms meet the night through tables and through the workspace's sessions.

pub mod cluster;
pub mod commands;
pub mod config;
pub mod engine;
mod evaluation;
pub mod failure;
pub mod features;
pub mod ids;
mod importing;
pub mod lake;
pub mod metrics;
pub mod model;
pub mod nightly;
pub mod panics;
pub mod progress;
pub mod publish;
mod report;
pub mod score;
mod serving;
pub mod simulation;
pub mod sql_files;
pub mod tables;
pub mod training;
pub mod workspace;
