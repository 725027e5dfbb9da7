//! Networks, model bundles and their registry.
//!
//! In: users' events and features (`inputs`), items' daily histories (`demand::history`), texts and pictures (`text`,
//! `vision`). Out: raw scores, forecasts and vectors as tensors, and bundles that are written to and loaded from a registry.
//! Only `training`, `score` and what lists or cleans up models call this room.

pub mod backbones;
pub mod bundle;
pub mod cards;
pub mod contents;
pub mod demand;
pub mod embedding;
pub mod events;
pub mod fusion;
pub mod heads;
pub mod inputs;
pub mod intent;
pub mod labels;
pub mod losses;
pub mod out_of_memory;
pub mod recurrent;
pub mod registry;
pub mod scaling;
pub mod shape;
pub mod table;
pub mod text;
pub mod vision;
pub mod weights;
