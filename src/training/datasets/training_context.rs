//! Point-in-time access to the lake: the night's own feature SQL as of past dates, joined with what happened afterwards.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Date32Type, UInt64Type};
use datafusion::prelude::SessionContext;
use futures::StreamExt;

use super::block_rows::BlockRows;
use super::blocks::BlockWriter;
use super::item_columns::ItemColumns;
use super::labelled_items::{ITEMS_SQL, LabelledItems};
use super::labelled_users::{ItemCatalogue, LabelledUsers, users_sql};
use super::split::{Split, split};
use super::user_as_of_dates::UserAsOfDate;
use super::user_columns::UserColumns;
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::features::{self, Scope, contract::FeatureContract, parts::Part, rollups::Rollups};
use crate::ids::RunDate;
use crate::model::bundle::IndexedItem;
use crate::score::contents::catalogue;
use crate::workspace::Workspace;

/// Items decoded from Arrow at a time; their histories are long.
const ITEM_ROWS_MAX: usize = 1024;

/// Everything that a session as of a past date needs.
pub(crate) struct TrainingContext<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) rollups: &'a Rollups,
    /// Nothing on or after this date is read.
    pub(crate) labels_end: RunDate,
}

/// Number of ids that the lake held before a date, and their first day.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LakeExtent {
    /// Ids with events, estimated by a HyperLogLog sketch to within one or two percent.
    pub(crate) ids: u64,
    /// Day of the first event.
    pub(crate) first_day: Option<RunDate>,
}

/// Blocks that users are written to, by split.
pub(crate) struct UserWriters {
    /// Users of the training split.
    pub(crate) train: BlockWriter<UserColumns>,
    /// Users of the validation and test splits.
    pub(crate) held_out: BlockWriter<UserColumns>,
    /// Users of the training split at the dates that hold their labels out.
    pub(crate) newest: BlockWriter<UserColumns>,
}

/// Users written at one date.
pub(crate) struct UserCounts {
    pub(crate) train: usize,
    pub(crate) held_out: usize,
}

impl TrainingContext<'_> {
    pub(crate) fn config(&self) -> &Config {
        &self.workspace.config
    }

    /// Opens a session in which a night as of `as_of` sees a part of the users and of the items.
    async fn session(&self, as_of: RunDate, users: Part, items: Part) -> Result<SessionContext> {
        let scope = Scope { run_date: as_of, labels_end: self.labels_end, users, items };
        self.workspace.session_as_of(self.rollups, scope).await
    }

    /// Opens a session that sees all users and items.
    pub(super) async fn whole_session(&self, as_of: RunDate) -> Result<SessionContext> {
        self.session(as_of, Part::ALL, Part::ALL).await
    }

    /// The features that the night's SQL makes.
    pub(crate) async fn contract(&self, as_of: RunDate) -> Result<FeatureContract> {
        features::contract::register_model_input(&self.whole_session(as_of).await?).await
    }

    /// The items that can be recommended, ordered by id.
    pub(crate) async fn item_index(&self, as_of: RunDate) -> Result<Vec<IndexedItem>> {
        catalogue::session_items(&self.whole_session(as_of).await?).await
    }

    pub(crate) async fn user_extent(&self, as_of: RunDate) -> Result<LakeExtent> {
        let sql = "SELECT approx_distinct(user_id), min(event_day) FROM unit_user_day WHERE event_day < run_date()";
        self.query_extent(as_of, sql).await
    }

    pub(crate) async fn item_extent(&self, as_of: RunDate) -> Result<LakeExtent> {
        self.query_extent(as_of, features::ITEMS_SEEN_SQL).await
    }

    /// Runs a query that returns one row: the number of ids and their first day.
    async fn query_extent(&self, as_of: RunDate, sql: &str) -> Result<LakeExtent> {
        let batches = self.whole_session(as_of).await?.sql(sql).await?.collect().await?;
        let Some(row) = batches.first().filter(|rows| rows.num_rows() == 1) else {
            return Err(Failure::bug("training: a count returned no row"));
        };
        let days = row.column(1).as_primitive::<Date32Type>();
        let first_day = days.is_valid(0).then(|| days.value_as_date(0)).flatten();
        let ids = row.column(0).as_primitive::<UInt64Type>().value(0);
        Ok(LakeExtent { ids, first_day: first_day.map(RunDate) })
    }

    /// Writes the users before a date, sampled by hash to about a `share` of them. Each goes to the writer of its split,
    /// if the date uses any of its labels there.
    pub(crate) async fn write_users(
        &self,
        date: &UserAsOfDate,
        share: f64,
        catalogue: ItemCatalogue<'_>,
        writers: &mut UserWriters,
    ) -> Result<UserCounts> {
        let mut counts = UserCounts { train: 0, held_out: 0 };
        // Sampling where the events are read avoids making features of a million users to keep fifty thousand.
        for part in Part::for_share(self.config(), self.rollups, share) {
            let ctx = self.session(date.as_of, part, Part::ALL).await?;
            self.workspace.check_added_features(&ctx).await?;
            let contract = features::contract::register_model_input(&ctx).await?;
            let mut batches = ctx.sql(&users_sql()).await?.execute_stream().await?;
            while let Some(batch) = batches.next().await {
                let buckets = self.config().model.item_buckets.into();
                let mut users = LabelledUsers::from_rows(&batch?, &contract, buckets, catalogue)?;
                let splits: Vec<Split> = users.inputs.user_ids.iter().map(|id| split(id)).collect();
                if date.is_newest() {
                    let labels = users.labels.clone();
                    users.keep_newest_labels(date, &splits);
                    let columns = UserColumns::from_users(&users, contract.0.len(), date.as_of)?;
                    writers.newest.add(&columns.take(&columns.rows_in(Split::Train))?)?;
                    users.labels = labels;
                }
                users.mask_labels(date, &splits);
                let columns = UserColumns::from_users(&users, contract.0.len(), date.as_of)?;
                let used = |row: &usize| date.is_used_for(splits[*row]);
                let (train, held_out): (Vec<usize>, Vec<usize>) =
                    (0..columns.len()).filter(used).partition(|&row| splits[row] == Split::Train);
                counts.train += train.len();
                writers.train.add(&columns.take(&train)?)?;
                counts.held_out += held_out.len();
                writers.held_out.add(&columns.take(&held_out)?)?;
            }
        }
        Ok(counts)
    }

    /// Passes the items before a date with the horizon that followed to `take`, some at a time, in no order. `ids` is about
    /// how many there are; the exact number is returned.
    pub(crate) async fn read_items(
        &self,
        as_of: RunDate,
        ids: u64,
        mut take: impl FnMut(&ItemColumns) -> Result<()>,
    ) -> Result<usize> {
        let mut count = 0;
        for part in Part::for_items(self.config(), ids) {
            let ctx = self.session(as_of, Part::ALL, part).await?;
            let mut batches = ctx.sql(ITEMS_SQL).await?.execute_stream().await?;
            while let Some(batch) = batches.next().await {
                let batch = batch?;
                for start in (0..batch.num_rows()).step_by(ITEM_ROWS_MAX) {
                    let rows = batch.slice(start, ITEM_ROWS_MAX.min(batch.num_rows() - start));
                    let items = LabelledItems::from_rows(&rows)?;
                    take(&ItemColumns::from_items(&items, &self.config().demand)?)?;
                    count += items.items.len();
                }
            }
        }
        Ok(count)
    }
}
