//! Networks, bundles and their registry. What comes in: users' events and features (`inputs`), items' histories
//! (`demand::history`), pictures (`vision`). What goes out: raw scores, forecasts and vectors as tensors, whole bundles.
//! `training` and `score` call.

pub mod backbones;
pub mod bundle;
pub mod cards;
pub mod contents;
pub mod demand;
pub mod events;
pub mod fusion;
pub mod heads;
pub mod inputs;
pub mod intent;
pub mod labels;
pub mod losses;
pub mod memory;
pub mod recurrent;
pub mod table;
pub mod text;
pub mod vision;
pub mod weights;
