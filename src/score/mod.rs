//! Everything that runs a model: the functions that SQL calls, the operator that evaluates them, and what they load.
//!
//! Queries come in through [`operator::install`], which gives a session the functions of [`functions`]; columns of scores
//! come out. Nights and trainings also call [`models`] and [`contents`] directly. Imports go from right to left in
//! `lock`, `devices`, `load_cache`, `permitted`, `torch_functions`, `encoders`, `contents`, `service`, `models`, `sql_model`,
//! `functions`, `live_model`, `explain_user`, `operator`.

pub mod contents;
pub mod devices;
pub(crate) mod encoders;
pub(crate) mod explain_user;
pub(crate) mod functions;
pub(crate) mod live_model;
mod load_cache;
mod lock;
pub mod models;
pub mod operator;
mod permitted;
pub mod service;
pub(crate) mod sql_model;
pub mod torch_functions;
