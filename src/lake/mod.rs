//! Opens a Parquet lake: stores, source files and their fingerprints, canonical views, validation and quarantine.

pub mod declared;
pub mod files_table;
pub mod stores;
