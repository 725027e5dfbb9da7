//! Training data: users and items as of past dates, in blocks on disk.
//!
//! In comes the night's own SQL as of past dates ([`TrainingContext`]), joined with what happened afterwards. Out go
//! blocks of users ([`UserBlocks`]) and of items ([`ItemDatasets`]), split by id into training, validation and test
//! ([`Split`]), and the counts and scales that training needs before it starts ([`UserStatistics`], [`ItemStatistics`]).
//! `bundle` reads the data; `fitting` makes batches from the blocks; `intents`, `pretraining` and `demand` train on them.

mod augmentation;
mod block_files;
mod block_rows;
mod blocks;
mod content_vectors;
mod item_as_of_dates;
pub(in crate::training) mod item_columns;
mod item_datasets;
mod labelled_items;
mod labelled_users;
mod split;
mod training_context;
mod user_as_of_dates;
pub(in crate::training) mod user_columns;
mod user_statistics;

pub(in crate::training) use augmentation::Augmenter;
pub use block_rows::BlockRows;
pub(in crate::training) use blocks::BlockWriter;
pub(crate) use blocks::Blocks;
pub(crate) use content_vectors::ContentEncoderCards;
pub use item_columns::{ItemBlocks, ItemColumns};
pub use item_datasets::{ItemDatasets, ItemStatistics};
pub(in crate::training) use item_datasets::{is_forecast_by_network, training_rows};
pub use labelled_items::LabelledItems;
pub use labelled_users::LabelledUsers;
pub(in crate::training) use labelled_users::{ItemCatalogue, ItemPositions};
pub use split::{Split, split};
pub(in crate::training) use split::{is_in_share, require_rows};
pub(in crate::training) use training_context::{LakeExtent, TrainingContext, UserWriters};
pub(in crate::training) use user_as_of_dates::{UserAsOfDate, newest_as_of_date, require_history, user_as_of_dates};
pub use user_columns::{UserBlocks, UserColumns};
pub(in crate::training) use user_statistics::{EVENTS_MIN, UserStatistics, mark_item_buckets};
