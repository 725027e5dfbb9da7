//! Names that the parts of this catalogue share.

/// The version of PostgreSQL whose clients are answered as they expect.
pub(crate) const VERSION: &str = "16.6";

pub(super) const PG_CATALOG: &str = "pg_catalog";
pub(super) const INFORMATION_SCHEMA: &str = "information_schema";

/// The schemas in which a bare name is looked up.
pub(crate) const SEARCH_PATH: &str = "tables, features, lake, report";
