//! Counts of what a night read, and the refusal of too many bad rows.

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::erased_users::ERASED_USER;
use super::quarantine::OTHER_CURRENCY;
use crate::failure::{Failure, Result};

/// Event files that are read again because a table changed that every unit reads whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Outdated {
    /// The tables that changed.
    pub tables: BTreeSet<String>,
    pub files: u64,
    pub bytes: u64,
}

impl fmt::Display for Outdated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables: Vec<&str> = self.tables.iter().map(String::as_str).collect();
        let Self { files, bytes, .. } = self;
        write!(
            f,
            "changed since the rollups were built: {}; reads {files} event files ({bytes} bytes) again",
            tables.join(", ")
        )
    }
}

/// Counts of what a night read and skipped.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ReadReport {
    pub files_read: u64,
    pub bytes_read: u64,
    /// Event files among those that earlier units covered until a table changed.
    pub outdated: Outdated,
    pub(crate) files_skipped: u64,
    pub(crate) bytes_skipped: u64,
    /// Objects below the folders of the lake's tables that are no data, by reason.
    pub(crate) files_ignored: BTreeMap<String, u64>,
    pub rows_read: u64,
    pub(crate) units_built: u64,
    pub units_kept: u64,
    /// Bad rows of the newly read files, by reason.
    pub quarantined: BTreeMap<String, u64>,
}

impl ReadReport {
    /// Fails (exit 4) where more than `share_max` of the newly read rows are bad.
    pub(super) fn refuse_bad_share(&self, share_max: f64) -> Result<()> {
        let foreign = self.quarantined.get(OTHER_CURRENCY).copied().unwrap_or_default();
        let mut bad: u64 = self.quarantined.values().sum();
        bad -= self.quarantined.get(ERASED_USER).copied().unwrap_or_default();
        // Such rows are normal in a shop that also sells abroad; where they are the majority, the setting is wrong.
        if 2 * foreign <= self.rows_read {
            bad -= foreign;
        }
        let share = bad as f64 / self.rows_read.max(1) as f64;
        if share <= share_max {
            return Ok(());
        }
        let reasons: Vec<String> = self.quarantined.iter().map(|(reason, rows)| format!("{reason}: {rows}")).collect();
        Err(Failure::check(format!(
            "{:.2} % of {} newly read rows are bad ({}), more than lake.quarantine_share_max = {:.2} %; nothing was stored",
            share * 100.0,
            self.rows_read,
            reasons.join(", "),
            share_max * 100.0
        ))
        .hint("fix the files or raise the share, then run the same command again"))
    }
}
