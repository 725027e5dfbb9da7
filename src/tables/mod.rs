//! Schemas of the published tables, the staging writer and Delta commits.
