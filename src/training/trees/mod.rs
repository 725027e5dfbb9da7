//! Trains gradient-boosted trees with LightGBM's own library, and turns them into trees that need no library for scoring.
//!
//! In: rows of features and labels ([`TreeData`]) and [`TreeSettings`]. Out: an `Ensemble` of `model::trees`. The library comes
//! with LightGBM's Python wheel, opened when a training needs it ([`LightGbm::open`]).

mod booster;
mod dump;
mod library;

pub(crate) use booster::{Objective, TreeData, TreeSettings, boost};
pub use library::LightGbm;
