//! The published tables: their declarations, the staging writer and Delta commits.
//!
//! In: query results and a [`Location`](crate::lake::stores::Location). Out: Parquet files inside a table's folder that no
//! reader sees yet (`write_files`), then a metadata-only Delta commit that replaces one night's partition (`delta`).
//! `published` declares every table once. `publish` decides which night is visible. `materialise` and `rows_in_memory` keep the
//! rows of a query for the queries after it, as files or in memory.

mod constant_filters;
pub mod delta;
pub(crate) mod delta_log;
mod file_stats;
pub mod generated_checks;
pub(crate) mod left_out_rows;
pub(crate) mod materialise;
mod published;
pub mod reference;
pub(crate) mod rows_in_memory;
pub mod schemas;
mod table_spec;
pub mod write_files;
