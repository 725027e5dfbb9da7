//! The model of a night: an immutable folder in the registry, its card, and the loaded networks.
//!
//! In: what training made ([`BundleCard`], [`BundleParts`]). Out: a loaded [`Bundle`]. [`Registry`] writes, lists, promotes and
//! loads bundles (`files.rs`).

mod card;
mod files;
mod item_index;
mod loaded;
mod networks;

pub use super::registry::Registry;
pub use card::{BundleCard, FORMAT};
pub(crate) use card::{BundledImageEncoder, BundledTextEncoder};
pub(crate) use card::{IMAGE_FOLDER, TEXT_FOLDER, check_encoder_hash};
pub use files::BundleParts;
pub use item_index::IndexedItem;
pub(crate) use item_index::ItemVectors;
pub use loaded::Bundle;
pub use networks::Networks;
