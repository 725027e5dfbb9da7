//! Vectors of texts, images and videos, and the items that can be recommended.
//!
//! In: the views `item_vectors`, `content_texts`, `content_pictures` and `recommendable_items` of a session. Out: files below
//! `state/content/`, `state/content_used/` and `state/catalogue/`, and the vectors in memory. `models` refreshes them before
//! a night scores, training reads the vectors of its dates, and `gc` removes what no night needs.

pub(crate) mod catalogue;
mod lake_vectors;
pub(crate) mod refresh;
pub(crate) mod store;
pub(crate) mod vector_files;
mod vector_sink;

pub(crate) use lake_vectors::training_vectors;
pub use store::ContentStore;
pub(crate) use vector_sink::VectorSink;
