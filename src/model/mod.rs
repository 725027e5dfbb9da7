//! Networks, model bundles and their registry.
//!
//! In: users' events and features (`inputs`), items' daily histories (`demand::history`), texts and pictures (`text`,
//! `vision`). Out: raw scores, forecasts and vectors as tensors, and bundles that are written to and loaded from a registry.
//! Only `training`, `score` and what lists or cleans up models call this room.

pub(crate) mod attributions;
mod backbones;
pub mod blend;
pub mod bundle;
pub(crate) mod cards;
pub mod contents;
pub mod demand;
mod embedding;
pub(crate) mod events;
mod fusion;
pub(crate) mod heads;
pub mod inputs;
pub(crate) mod intent;
pub(crate) mod labels;
pub mod latest_items;
pub(crate) mod losses;
pub(crate) mod out_of_memory;
pub(crate) mod promotions;
mod recurrent;
pub(crate) mod registry;
pub mod scaling;
pub mod shape;
pub mod table;
pub mod targets;
pub(crate) mod text;
pub(crate) mod trees;
pub mod vision;
pub(crate) mod weights;
