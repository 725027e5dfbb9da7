//! Demand forecasts of earlier nights, as an input of a later night and of training at its date: the same nights for both.
//!
//! A night reads the nights that were visible before it, at most as many as `gc` keeps, so that a rerun after `gc` reads the
//! same ones. Nights whose model was trained on labels from their run date on are left out: a night that was backfilled with
//! a later model would leak the future and overweight intents.

use datafusion::common::JoinType;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::prelude::{SessionContext, ident};

use crate::config::Config;
use crate::failure::Result;
use crate::features::EARLIER_DEMAND;
use crate::ids::{ModelVersion, RunDate};
use crate::lake::{files_table, stores::Location};
use crate::publish::readers;
use crate::publish::runs::{self, VisibleNight};
use crate::publish::suppressed;
use crate::tables::{schemas, write_files::table_location};

/// The nights that a night reads, oldest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct EarlierNights(Vec<VisibleNight>);

impl EarlierNights {
    /// Selects the nights that the night of `date` reads from all visible nights (ordered by date).
    pub(crate) fn before(date: RunDate, nights: &[VisibleNight], config: &Config) -> Self {
        let oldest = date.plus_days(-i64::from(config.demand.history_days));
        let in_window = |night: &&VisibleNight| night.run_date() >= oldest && night.run_date() < date;
        let mut read: Vec<VisibleNight> =
            nights.iter().filter(in_window).filter(|n| knew_no_future(n)).cloned().collect();
        read.drain(..read.len().saturating_sub(config.gc.nights_kept.max(1) as usize - 1));
        Self(read)
    }

    /// Returns a hash that changes when these nights or their content change.
    pub(crate) fn fingerprint(&self) -> String {
        let parts = self.0.iter().flat_map(|night| [night.run_date().to_string(), night.run.manifest_hash.clone()]);
        let parts: Vec<String> = parts.collect();
        runs::manifest_hash(parts.iter().map(String::as_str))
    }

    /// Registers `earlier_demand`: the columns of `demand`, and the run date as `_dt`.
    pub(crate) async fn register(&self, ctx: &SessionContext, output: &Location) -> Result<()> {
        let files = readers::night_files(output, "demand", &self.0).await?;
        ctx.deregister_table(EARLIER_DEMAND)?;
        let folder = table_location(output, "demand");
        let published = files_table(ctx, &folder, schemas::file_schema("demand")?, files)?;
        let Some(kept) = suppressed::kept_units(ctx, output, &self.0).await? else {
            ctx.register_table(EARLIER_DEMAND, published)?;
            return Ok(());
        };
        let published = ctx.read_table(published)?.alias("published")?;
        // Of a night's rows only those are kept that it did not publish.
        let columns: Vec<String> = published.schema().fields().iter().map(|field| field.name().clone()).collect();
        let kept = kept.select([
            ident("item_id").alias("kept_item_id"),
            ident("target_date").alias("kept_target_date"),
            ident("intent_units").alias("kept_intent_units"),
            ident("_dt").alias("kept_dt"),
        ])?;
        let kept = kept.alias("kept")?;
        let keys = (["item_id", "target_date", "_dt"], ["kept_item_id", "kept_target_date", "kept_dt"]);
        let all = kept.join(published, JoinType::Right, &keys.1, &keys.0, None)?;
        let units = coalesce(vec![ident("intent_units"), ident("kept_intent_units")]).alias("intent_units");
        let columns = columns.iter().map(|column| match column.as_str() {
            "intent_units" => units.clone(),
            other => ident(other),
        });
        ctx.register_table(EARLIER_DEMAND, all.select(columns.collect::<Vec<_>>())?.into_view())?;
        Ok(())
    }
}

/// Returns true if all labels of the night's model end on or before the run date.
fn knew_no_future(night: &VisibleNight) -> bool {
    let labels_end = night.run.model_version.as_ref().and_then(ModelVersion::labels_end);
    labels_end.is_some_and(|end| end <= night.run_date().0)
}
