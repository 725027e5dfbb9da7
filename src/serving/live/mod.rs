//! One user's intents now: the newest night's state, with the events of a request appended.
//!
//! In: events of one user. Out: what `nightly` would publish of that user after them. The features come from the night's SQL files
//! by plans made once a night ([`OneUserPlans`]); rows of the user are found by key, those on disk in
//! [`keyed_rows`].

mod events;
mod keyed_rows;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Float32Type};
use chrono::{DateTime, Utc};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{col, lit};
use datafusion::prelude::SessionContext;
use lru::LruCache;
use std::collections::{BTreeSet, HashSet};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

use self::events::UserEvents;
use self::keyed_rows::KeyedRows;
use super::stored::StoredRows;
use crate::config::Config;
use crate::engine::request_rows::RequestRows;
use crate::failure::{Failure, Result};
use crate::features::erased_users::ERASED_USER;
use crate::ids::{RunDate, date32};
use crate::publish::runs::VisibleNight;
use crate::score::live_model::LiveModel;
use crate::score::models::Models;
use crate::workspace::Workspace;
use crate::workspace::one_user::{
    ERASURES, ITEM_CONTENTS, OneUser, OneUserPlans, PERSON, PERSON_CONSENT, STITCHED, UNIT_EVENT, UNIT_USER_DAY, USERS,
};

pub(crate) use self::events::{Event, Named};

/// Run dates whose plans are kept: all that [`events::DAYS_MAX`] allows.
const DATES_MAX: NonZeroUsize = match NonZeroUsize::new(12) {
    Some(n) => n,
    None => NonZeroUsize::MIN,
};

/// Everything that answers for one user from a night's state.
pub(crate) struct Live {
    workspace: Arc<Workspace>,
    night: VisibleNight,
    /// A session with the tables of the night.
    served: SessionContext,
    stored: Stored,
    dates: Mutex<LruCache<RunDate, Arc<OnceCell<Dated>>>>,
    /// Held while plans are made: one at a time.
    preparing: tokio::sync::Mutex<()>,
    pub(crate) model: LiveModel,
    /// Items that the newest snapshot says are not in stock.
    pub(crate) out_of_stock: Arc<HashSet<String>>,
}

/// Rows of the night by key.
struct Stored {
    events: Arc<KeyedRows>,
    days: Arc<KeyedRows>,
    users: KeyedRows,
    consents: KeyedRows,
    erasures: KeyedRows,
    persons: Links,
    items: StoredRows,
    titles: StoredRows,
}

/// Ids that are another login's, found by either.
struct Links {
    by_user: KeyedRows,
    by_login: KeyedRows,
}

/// Plans and links as of a run date.
struct Dated {
    plans: OneUserPlans,
    stitched: Links,
}

/// One user's features with new events.
struct UserFeatures {
    user: OneUser,
    run_date: RunDate,
    events: usize,
    repeated: usize,
}

/// An answer for one user.
#[derive(Debug)]
pub(crate) struct LiveAnswer {
    /// That of the login, for a guest who became one.
    pub(crate) user_id: String,
    pub(crate) run_date: RunDate,
    /// The user's features, one struct, as `score_intents` takes it.
    pub(crate) features: ArrayRef,
    /// One row: fields as `score_intents` returns them.
    pub(crate) scores: StructArray,
    /// Items that are not recommended: those bought, new purchases included, where the settings say so.
    pub(crate) exclude: HashSet<String>,
    /// Events that count, and those that repeat the id of another event of their day.
    pub(crate) events: usize,
    pub(crate) repeated: usize,
}

/// Reasons for which there is no answer.
#[derive(Debug)]
pub(crate) enum LiveRefusal {
    /// Events that no night would read, each with its place and what is wrong.
    Events(String),
    /// No consent, excluded or erased.
    LeftOut,
    /// Neither the state nor the request has an event of the user.
    Unknown,
    Failed(Failure),
}

impl From<Failure> for LiveRefusal {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Live {
    /// Reads what it needs of a night, of which `served` has the tables. The users' state is taken from `before` where that is of the
    /// same night.
    pub(crate) async fn open(
        workspace: Arc<Workspace>,
        night: VisibleNight,
        served: SessionContext,
        models: &Models,
        before: Option<&Live>,
    ) -> Result<Self> {
        if !workspace.has_lake() {
            return Err(Failure::usage("scoring a user with new events needs the lake, which has the consents")
                .hint("start the server with --lake"));
        }
        let model = LiveModel::load(models, &served).await?;
        let same = |live: &&Live| {
            (live.night.run_date(), live.night.run.generation) == (night.run_date(), night.run.generation)
        };
        let state = before.filter(same).map(|live| live.stored.state());
        let stored = Stored::read(&served, &workspace.config, night.run_date(), state).await?;
        let live = Self {
            out_of_stock: Arc::new(out_of_stock(&served).await?),
            night,
            workspace,
            served,
            stored,
            dates: Mutex::new(LruCache::new(DATES_MAX)),
            preparing: tokio::sync::Mutex::default(),
            model,
        };
        // Of the day that most requests are of.
        live.dated(live.night.run_date().plus_days(1)).await?;
        Ok(live)
    }

    pub(crate) fn config(&self) -> &Config {
        &self.workspace.config
    }

    /// Scores a user with new events.
    pub(crate) async fn answer(
        &self,
        user: Named<'_>,
        events: &[Event],
        now: DateTime<Utc>,
    ) -> Result<LiveAnswer, LiveRefusal> {
        let found = self.features(user, events, now).await?;
        let features = found.user.row.column(0);
        // The model reads no more events than these.
        let texts_of = self.config().features.last_events as usize;
        let scores = self.model.score(features, events::newest_texts(events, texts_of)).await?;
        Ok(LiveAnswer {
            user_id: found.user.user_id,
            run_date: found.run_date,
            exclude: texts(found.user.row.column(1))?,
            features: Arc::clone(features),
            scores,
            events: found.events,
            repeated: found.repeated,
        })
    }

    /// Returns what the catalogue calls an item; `None` where it has no title.
    pub(crate) fn title(&self, item_id: &str) -> Result<Option<String>> {
        Ok(column_texts([&self.stored.titles.of(item_id)], "title")?.into_iter().next())
    }

    /// Computes a user's features with new events.
    async fn features(
        &self,
        user: Named<'_>,
        events: &[Event],
        now: DateTime<Utc>,
    ) -> Result<UserFeatures, LiveRefusal> {
        let config = &self.workspace.config;
        let sent = UserEvents::check(user, events, config, self.night.run_date(), now)
            .map_err(|failure| LiveRefusal::Events(failure.to_string()))?;
        let dated = self.dated(sent.run_date).await?;
        let dated = dated.get().ok_or_else(|| Failure::bug("plans that were made are gone"))?;
        let mut rows = self.stored.of_user(user.user_id, &dated.stitched)?;
        let new = sent.rows(&dated.plans.events, config)?;
        let (good, bad) = dated.plans.check(new, rows.of(UNIT_EVENT)).await?;
        let (repeated, refused): (Vec<_>, Vec<_>) = bad.into_iter().partition(|bad| bad.reason == REPEATED);
        if refused.iter().any(|bad| bad.reason == ERASED_USER) {
            return Err(LiveRefusal::LeftOut);
        }
        if !refused.is_empty() {
            let named: Vec<String> =
                refused.iter().take(10).map(|bad| format!("{}: {}", bad.place, bad.reason)).collect();
            return Err(LiveRefusal::Events(format!(
                "{} of {} events would be put into quarantine: {}",
                refused.len(),
                events.len(),
                named.join(", ")
            )));
        }
        let items = column_texts(rows.of(UNIT_EVENT).iter().chain(&good), "item_id")?;
        rows.add(ITEM_CONTENTS, self.stored.items.of_all(items.iter().map(String::as_str))?);
        let used = good.iter().map(|rows| known_rows(rows, sent.run_date)).sum();
        let is_known = used > 0 || [UNIT_EVENT, UNIT_USER_DAY, USERS].iter().any(|table| !rows.of(table).is_empty());
        let left_out = if is_known { LiveRefusal::LeftOut } else { LiveRefusal::Unknown };
        let user = dated.plans.features(rows, good).await?.ok_or(left_out)?;
        Ok(UserFeatures { user, run_date: sent.run_date, events: used, repeated: repeated.len() })
    }

    /// Returns the plans of a run date, made when they are first needed.
    async fn dated(&self, run_date: RunDate) -> Result<Arc<OnceCell<Dated>>> {
        let cell = {
            let mut dates = self.dates.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(dates.get_or_insert(run_date, Arc::default))
        };
        cell.get_or_try_init(|| async {
            let _turn = self.preparing.lock().await;
            let stitched = self.workspace.stitched(run_date, &self.served).await?;
            Ok::<_, Failure>(Dated {
                plans: self.workspace.one_user_plans(&self.night, run_date, &self.served).await?,
                stitched: Links::read(stitched, &self.workspace.config.engine.spill_path()).await?,
            })
        })
        .await?;
        Ok(cell)
    }
}

/// The reason of an event whose id another one of its day has.
const REPEATED: &str = "repeated_event_id";

impl Stored {
    /// Returns the users' event and day rows, which a night does not change.
    fn state(&self) -> (Arc<KeyedRows>, Arc<KeyedRows>) {
        (Arc::clone(&self.events), Arc::clone(&self.days))
    }

    async fn read(
        ctx: &SessionContext,
        config: &Config,
        run_date: RunDate,
        state: Option<(Arc<KeyedRows>, Arc<KeyedRows>)>,
    ) -> Result<Self> {
        let folder = &config.engine.spill_path();
        let (events, days) = match state {
            Some(state) => state,
            None => Self::read_state(ctx, config, run_date, folder).await?,
        };
        Ok(Self {
            events,
            days,
            users: KeyedRows::write(ctx.table(USERS).await?, "user_id", folder).await?,
            consents: KeyedRows::write(ctx.table(PERSON_CONSENT).await?, "person_id", folder).await?,
            erasures: KeyedRows::write(ctx.table(ERASURES).await?, "user_id", folder).await?,
            persons: Links::read(ctx.table(PERSON).await?, folder).await?,
            titles: StoredRows::read(ctx.table("items").await?.select_columns(&["item_id", "title"])?, "item_id", None)
                .await?,
            items: StoredRows::read(ctx.table(ITEM_CONTENTS).await?, "item_id", None).await?,
        })
    }

    /// Reads the rows of days before the night: a client sends the events since then.
    async fn read_state(
        ctx: &SessionContext,
        config: &Config,
        run_date: RunDate,
        folder: &Path,
    ) -> Result<(Arc<KeyedRows>, Arc<KeyedRows>)> {
        let day = |date: RunDate| lit(ScalarValue::Date32(Some(date32(date.0))));
        let look_back = run_date.plus_days(-i64::from(config.features.look_back_days));
        let before = col("event_day").lt(day(run_date));
        let events = ctx.table(UNIT_EVENT).await?;
        let events = events.filter(before.clone().and(col("event_day").gt_eq(day(look_back))))?;
        let days = ctx.table(UNIT_USER_DAY).await?.filter(before)?;
        Ok((
            Arc::new(KeyedRows::write(events, "user_id", folder).await?),
            Arc::new(KeyedRows::write(days, "user_id", folder).await?),
        ))
    }

    /// Returns the stored rows of a user, under each of the user's ids. Items are missing.
    fn of_user(&self, user_id: &str, stitched: &Links) -> Result<RequestRows> {
        let mut rows = RequestRows::default();
        let (login, links) = stitched.of(user_id)?;
        let mut ids = BTreeSet::from([user_id.to_string(), login.clone()]);
        ids.extend(column_texts(&links, "user_id")?);
        rows.add(STITCHED, links);
        // All that are known as one person today, for consents and erasures.
        let (person, links) = self.persons.of(&login)?;
        let mut person_ids = ids.clone();
        person_ids.extend(column_texts(&links, "user_id")?);
        person_ids.insert(person.clone());
        rows.add(PERSON, links);
        rows.add(PERSON_CONSENT, self.consents.of(&person)?);
        for id in &person_ids {
            rows.add(ERASURES, self.erasures.of(id)?);
        }
        for id in &ids {
            rows.add(USERS, self.users.of(id)?);
            rows.add(UNIT_EVENT, self.events.of(id)?);
            rows.add(UNIT_USER_DAY, self.days.of(id)?);
        }
        Ok(rows)
    }
}

impl Links {
    async fn read(rows: datafusion::prelude::DataFrame, folder: &Path) -> Result<Self> {
        Ok(Self {
            by_user: KeyedRows::write(rows.clone(), "user_id", folder).await?,
            by_login: KeyedRows::write(rows, LOGIN, folder).await?,
        })
    }

    /// Returns the login of an id, which may be the id itself, and the rows of all ids of that login.
    fn of(&self, user_id: &str) -> Result<(String, Vec<RecordBatch>)> {
        let login = column_texts(&self.by_user.of(user_id)?, LOGIN)?.into_iter().next();
        let login = login.unwrap_or_else(|| user_id.to_string());
        let rows = self.by_login.of(&login)?;
        Ok((login, rows))
    }
}

const LOGIN: &str = "canonical_user_id";

/// Counts the rows that had arrived before a date.
fn known_rows(rows: &RecordBatch, run_date: RunDate) -> usize {
    let arrived = rows.column_by_name("arrival_day").and_then(|days| days.as_primitive_opt::<Date32Type>());
    arrived.map_or(0, |days| days.iter().flatten().filter(|day| *day < date32(run_date.0)).count())
}

/// Returns the distinct values of a text column.
fn column_texts<'a>(rows: impl IntoIterator<Item = &'a RecordBatch>, column: &str) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for rows in rows {
        let Some(column) = rows.column_by_name(column) else { continue };
        let texts = cast(column, &DataType::Utf8)?;
        found.extend(texts.as_string::<i32>().iter().flatten().map(String::from));
    }
    Ok(found)
}

/// Returns the texts of a column of one list.
fn texts(lists: &ArrayRef) -> Result<HashSet<String>> {
    let lists = cast(lists, &DataType::new_list(DataType::Utf8, true))?;
    let lists = lists.as_list::<i32>();
    let mut found = HashSet::new();
    for list in lists.iter().flatten() {
        found.extend(list.as_string::<i32>().iter().flatten().map(String::from));
    }
    Ok(found)
}

impl LiveAnswer {
    /// Returns the user's taste, as `recommend` takes it.
    pub(crate) fn taste(&self) -> Vec<f32> {
        let taste = self.scores.column_by_name("taste").and_then(|taste| taste.as_list_opt::<i32>());
        let taste = taste.filter(|taste| !taste.is_empty()).map(|taste| taste.value(0));
        taste.map(|taste| taste.as_primitive::<Float32Type>().values().to_vec()).unwrap_or_default()
    }
}

/// Finds the items that the newest snapshot of each says are not in stock.
async fn out_of_stock(ctx: &SessionContext) -> Result<HashSet<String>> {
    let sql = "SELECT item_id FROM (SELECT item_id, last_value(on_hand ORDER BY as_of) AS on_hand FROM inventory \
        GROUP BY item_id) WHERE on_hand <= 0";
    let mut found = HashSet::new();
    for rows in ctx.sql(sql).await?.collect().await? {
        found.extend(column_texts([&rows], "item_id")?);
    }
    Ok(found)
}
