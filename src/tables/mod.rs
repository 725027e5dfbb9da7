//! Schemas of the published tables, the staging writer and Delta commits.
//!
//! In: query results and a [`Location`](crate::lake::stores::Location). Out: Parquet files inside a table's folder that
//! nobody sees yet (`write_files`), then a metadata-only Delta commit that replaces one night's partition (`delta`).
//! Which night is visible is decided in `publish`.

pub mod delta;
pub mod delta_log;
pub mod file_stats;
pub mod materialise;
pub mod reference;
pub mod schemas;
pub mod write_files;
