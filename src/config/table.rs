//! Settings of models of flat tables.

use super::declare::settings;
use crate::failure::{Failure, Result};

settings! {
    /// Models of flat tables (`intentcast train --task table`, docs/models/tables.md).
    TableConfig {
        /// Field delimiter of CSV files, one ASCII character.
        delimiter: String = ",".into();
        /// Most frequent categories of a column that get an embedding of their own; all others share one.
        categories_max: u32 = 256, 1..=1_000_000;
        /// Train gradient-boosted trees next to the network for labels that are probabilities, and predict with a blend of both.
        trees: bool = true;
    }
}

impl TableConfig {
    pub(super) fn check(&self) -> Result<()> {
        if self.delimiter.len() != 1 {
            return Err(Failure::usage(format!(
                "table.delimiter: expected one ASCII character, got {:?}",
                self.delimiter
            )));
        }
        Ok(())
    }
}
