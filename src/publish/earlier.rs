//! What earlier nights said of demand, for a later night and for training at its date: the same nights for both.
//!
//! A night reads those that were visible before it, no more than `gc` keeps (so that a night run anew after `gc` reads the
//! same), and only such whose model had been trained on nothing from their run date on: a night that was backfilled with a
//! later model knows what came, and would teach a network to trust intents more than any night deserves.

use datafusion::prelude::SessionContext;

use crate::config::Config;
use crate::failure::Result;
use crate::features::EARLIER_DEMAND;
use crate::ids::RunDate;
use crate::lake::{register_files, stores::Location};
use crate::publish::readers;
use crate::publish::runs::{self, VisibleNight};
use crate::tables::{schemas, write_files::table_location};

/// The nights that a night of some date reads, oldest first.
#[derive(Debug, Clone, Default)]
pub struct EarlierNights(Vec<VisibleNight>);

impl EarlierNights {
    /// What the night of `date` reads, of all visible nights (by date).
    pub fn before(date: RunDate, nights: &[VisibleNight], config: &Config) -> Self {
        let oldest = date.plus_days(-i64::from(config.demand.history_days));
        let read = |night: &&VisibleNight| night.run_date() >= oldest && night.run_date() < date && in_time(night);
        let mut read: Vec<VisibleNight> = nights.iter().filter(read).cloned().collect();
        read.drain(..read.len().saturating_sub(config.gc.nights_kept.max(1) as usize - 1));
        Self(read)
    }

    /// Changes when what these nights published does.
    pub fn fingerprint(&self) -> String {
        let parts = self.0.iter().flat_map(|night| [night.run_date().to_string(), night.run.manifest_hash.clone()]);
        let parts: Vec<String> = parts.collect();
        runs::manifest_hash(parts.iter().map(String::as_str))
    }

    /// Registers `earlier_demand`: the columns of `demand`, and the run date as `_dt`.
    pub async fn register(&self, ctx: &SessionContext, output: &Location) -> Result<()> {
        let files = readers::night_files(output, "demand", &self.0).await?;
        ctx.deregister_table(EARLIER_DEMAND)?;
        let place = table_location(output, "demand");
        register_files(ctx, EARLIER_DEMAND, &place, schemas::file_schema("demand")?, files)
    }
}

/// Whether the night's model was trained on what came before its run date alone; a version begins with the day on which
/// its labels end.
fn in_time(night: &VisibleNight) -> bool {
    let day = night.run.model_version.as_deref().and_then(|version| version.get(..8));
    let labels_end = day.and_then(|day| chrono::NaiveDate::parse_from_str(day, "%Y%m%d").ok());
    labels_end.is_some_and(|end| end <= night.run_date().0)
}
