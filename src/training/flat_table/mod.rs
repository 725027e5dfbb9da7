//! Flat tables of CSV or Parquet files, shared by `train --task table`, `text` and `image`.
//!
//! In: the files and columns of [`TableOptions`]. Out: a [`FlatTable`] in memory whose rows are split into training,
//! validation and test; the values of label columns; losses and figures that the three tasks share.
//!
//! `reader` reads with the help of `files`, `csv_schema`, `row_filter` and `splits`.

mod class_losses;
mod csv_schema;
mod figures;
mod files;
mod label_columns;
mod options;
mod reader;
mod row_filter;
mod single_thread;
mod splits;
mod table;

pub(in crate::training) use class_losses::{class_loss, class_overlap_loss, limit_class_weight};
pub(in crate::training) use figures::{BOOTSTRAP_ROUNDS, binary_figures};
pub(in crate::training) use label_columns::{binary_labels, class_names, constant_label, is_text, numeric_labels};
pub use options::TableOptions;
pub(in crate::training) use reader::{InputColumn, feature_names, read_all_columns, read_input_column};
pub(in crate::training) use single_thread::SingleThread;
pub(in crate::training) use table::FlatTable;
