//! `intentcast import`: turns a public data set's files into a lake.

use async_trait::async_trait;
use clap::Args;
use std::path::PathBuf;

use super::command::Command;
use crate::config::Config;
use crate::failure::Result;
use crate::importing;

/// Convert a public data set's original files (also .gz and .zst) into a lake.
///
/// Writes the publisher's own columns below URI/events/dt=DAY/, item and user facts that are repeated on event lines once
/// below URI/items/ and URI/users/, and URI/lake.toml, so that the other verbs need no settings for this lake.
/// sql/lakes/NAME/ defines what the columns mean. Damaged lines are counted by reason and skipped; more than 1 % of them
/// refuses the import. A failed import leaves nothing behind. A URI that already holds a lake is refused: its events would
/// count twice.
#[derive(Debug, Args)]
pub struct Import {
    /// Import this set: taobao, tmall, rees46, retailrocket, online-retail-ii, complete-journey, cdnow or amazon-all-beauty.
    name: String,
    /// Read all files of the set; complete-journey: the transactions and, for categories, the products.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Write the lake below this root, which must not hold a lake yet.
    #[arg(long, value_name = "URI")]
    to: String,
}

#[async_trait(?Send)]
impl Command for Import {
    async fn run(&self, config: &Config) -> Result<()> {
        let report = importing::import(config, &self.name, &self.files, &self.to).await?;
        say!("{report}");
        let query = "SELECT event_type, count(*) FROM events GROUP BY event_type";
        say!("next: intentcast sql --lake {} -c '{query}'", self.to);
        Ok(())
    }
}
