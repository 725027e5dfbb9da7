//! The nights that a server shows: the newest at its start and after each publication, and earlier ones on request.

use datafusion::prelude::{DataFrame, SessionContext};
use lru::LruCache;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

use super::access::{Account, View};
use super::live::Live;
use super::pseudonyms::PseudonymKey;
use super::stored::StoredRows;
use super::visible;
use crate::config::Config;
use crate::failure::Result;
use crate::features::erased_users::ErasedUsers;
use crate::ids::{Generation, RunDate};
use crate::model::targets::{BINARY, TARGETS};
use crate::publish::runs;
use crate::score::models::{ModelRef, Models};
use crate::workspace::descriptions::Descriptions;
use crate::workspace::{Access, Workspace};

/// Nights other than the newest whose sessions are kept.
const EARLIER_NIGHTS_MAX: NonZeroUsize = match NonZeroUsize::new(4) {
    Some(n) => n,
    None => NonZeroUsize::MIN,
};

/// Age after which a night is opened again although no other was published, so that the day's consents and erasures in the lake
/// are seen.
const AGE_MAX: Duration = Duration::from_secs(15 * 60);

/// One night as clients see it.
pub(crate) struct Night {
    /// `None` before the first published night.
    pub(crate) run_date: Option<RunDate>,
    pub(crate) model_version: Option<String>,
    /// Shows everything: only restricted sessions of it are for clients.
    unrestricted: SessionContext,
    /// Ids of those who may be shown; `None` where no users are known.
    users: Option<DataFrame>,
    schemas: Vec<(&'static str, BTreeSet<String>)>,
    descriptions: Descriptions,
    has_lake: bool,
    /// Restricted sessions by view, each made when it is first asked for.
    views: Mutex<HashMap<View, Arc<OnceCell<SessionContext>>>>,
    /// Key of pseudonyms, where a user of the server sees them.
    key: Option<PseudonymKey>,
    /// Ids of those with stored intents, by pseudonym; made when they are first asked for.
    ids: std::sync::OnceLock<HashMap<String, String>>,
    /// Published intents and recommendations of the users who may be shown.
    pub(super) intents: StoredRows,
    pub(super) recommendations: StoredRows,
    /// Mean of each probability of an intent over these users, by its column.
    pub(super) averages: BTreeMap<&'static str, f64>,
}

impl Night {
    /// Returns a session that shows only what a view may show.
    pub(super) async fn session(&self, view: View) -> Result<SessionContext> {
        let cell = Arc::clone(self.views.lock().unwrap_or_else(PoisonError::into_inner).entry(view).or_default());
        let restricted = cell.get_or_try_init(|| {
            visible::restrict(
                &self.unrestricted,
                &self.schemas,
                self.users.as_ref(),
                self.has_lake,
                view,
                self.key.as_ref(),
                &self.descriptions,
            )
        });
        restricted.await.cloned()
    }

    /// Returns the pseudonym of an id for an account that sees them, and else the id.
    pub(super) fn shown_id(&self, account: &Account, user_id: &str) -> String {
        match self.key.as_ref().filter(|_| account.pseudonyms) {
            Some(key) => key.of(user_id),
            None => user_id.into(),
        }
    }

    /// Returns the id that an account means: by its pseudonym for one that sees those, and only of users with stored intents.
    pub(super) fn meant_id(&self, account: &Account, asked: &str) -> Option<String> {
        let Some(key) = self.key.as_ref().filter(|_| account.pseudonyms) else { return Some(asked.into()) };
        let ids = self.ids.get_or_init(|| self.intents.keys().map(|id| (key.of(id), id.to_string())).collect());
        ids.get(asked).cloned()
    }
}

/// The nights that were visible at one moment.
struct Snapshot {
    workspace: Arc<Workspace>,
    key: Option<PseudonymKey>,
    /// The weights with which a user is scored now.
    champion: Option<ModelRef>,
    /// Answers for one user, read when they are first asked for.
    live: OnceCell<Arc<Live>>,
    shown: Vec<(RunDate, Generation)>,
    newest: Arc<Night>,
    earlier: Mutex<LruCache<RunDate, Arc<OnceCell<Arc<Night>>>>>,
    opening: tokio::sync::Mutex<()>,
    opened_at: Instant,
}

/// The nights that a server shows.
pub(crate) struct Nights {
    config: Config,
    models: Arc<Models>,
    snapshot: RwLock<Arc<Snapshot>>,
}

impl Nights {
    pub(crate) async fn open(config: &Config) -> Result<Self> {
        let models = Arc::new(Models::new(config)?);
        let snapshot = Snapshot::open(config, &models).await?;
        Ok(Self { config: config.clone(), models, snapshot: RwLock::new(Arc::new(snapshot)) })
    }

    /// Returns the newest visible night.
    pub(crate) fn newest(&self) -> Arc<Night> {
        Arc::clone(&self.snapshot().newest)
    }

    /// Returns the visible night of a date, or the newest; fails (usage) for a date without one.
    pub(crate) async fn at(&self, run_date: Option<RunDate>) -> Result<Arc<Night>> {
        let snapshot = self.snapshot();
        match run_date {
            Some(date) if snapshot.newest.run_date != Some(date) => snapshot.earlier(date).await,
            _ => Ok(Arc::clone(&snapshot.newest)),
        }
    }

    /// Returns the days within which intents and churn are predicted.
    pub(crate) fn horizons(&self) -> (u32, u32) {
        (self.config.intents.horizon_days, self.config.intents.churn_days)
    }

    /// Returns what answers for one user now, from the newest night's state.
    pub(crate) async fn live(&self) -> Result<Arc<Live>> {
        self.snapshot().live(&self.models, None).await
    }

    /// Looks which nights are visible now, and shows them if they have changed; returns whether they have. Running queries keep the
    /// night that they have.
    pub(crate) async fn refresh(&self) -> Result<bool> {
        let snapshot = self.snapshot();
        let changed = shown(&runs::visible_nights(snapshot.workspace.output()?).await?) != snapshot.shown;
        let has_other_model = self.models.pin("").await.is_ok_and(|pinned| snapshot.champion.as_ref() != Some(&pinned));
        let erased = ErasedUsers::read(snapshot.workspace.output()?).await?;
        let has_other_erased = erased != **snapshot.workspace.erased();
        let is_old = snapshot.workspace.has_lake() && snapshot.opened_at.elapsed() > AGE_MAX;
        if !changed && !is_old && !has_other_model && !has_other_erased {
            return Ok(false);
        }
        let opened = Arc::new(Snapshot::open(&self.config, &self.models).await?);
        if let Some(before) = snapshot.live.get() {
            // Before it is shown, so that no request waits for it.
            if let Err(failure) = opened.live(&self.models, Some(before)).await {
                // Not in the way of a new night or of the day's consents.
                tracing::warn!("users cannot be scored with new events: {failure}");
            }
        }
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = opened;
        Ok(changed)
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Snapshot {
    async fn open(config: &Config, models: &Arc<Models>) -> Result<Self> {
        let key = match config.serve.pseudonym_key.as_str() {
            "" => None,
            path => Some(PseudonymKey::read(path)?),
        };
        let workspace = Arc::new(Workspace::open(config, Arc::clone(models), Access::ReadOnly).await?);
        let newest =
            open_night(&workspace, workspace.nights().last().map(|night| night.run_date()), key.clone()).await?;
        Ok(Self {
            shown: shown(workspace.nights()),
            newest: Arc::new(newest),
            key,
            champion: models.pin("").await.ok(),
            live: OnceCell::new(),
            earlier: Mutex::new(LruCache::new(EARLIER_NIGHTS_MAX)),
            opening: tokio::sync::Mutex::default(),
            opened_at: Instant::now(),
            workspace,
        })
    }

    async fn live(&self, models: &Models, before: Option<&Arc<Live>>) -> Result<Arc<Live>> {
        let opened = self.live.get_or_try_init(|| async {
            let night = self.workspace.visible_night(None)?.clone();
            let served = self.newest.unrestricted.clone();
            Live::open(Arc::clone(&self.workspace), night, served, models, before.map(Arc::as_ref)).await.map(Arc::new)
        });
        opened.await.map(Arc::clone)
    }

    async fn earlier(&self, run_date: RunDate) -> Result<Arc<Night>> {
        self.workspace.visible_night(Some(run_date))?;
        let cell = {
            let mut earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(earlier.get_or_insert(run_date, Arc::default))
        };
        let opened = cell.get_or_try_init(|| async {
            // One at a time: each holds tables in memory.
            let _turn = self.opening.lock().await;
            open_night(&self.workspace, Some(run_date), self.key.clone()).await.map(Arc::new)
        });
        opened.await.map(Arc::clone)
    }
}

async fn open_night(workspace: &Workspace, run_date: Option<RunDate>, key: Option<PseudonymKey>) -> Result<Night> {
    let night = run_date.map(|date| workspace.visible_night(Some(date))).transpose()?;
    let session = workspace.served_session(night).await?;
    let users = visible::shown_users(&session.ctx, workspace.has_lake()).await?;
    let (intents, recommendations) = (session.ctx.table("intent").await?, session.ctx.table("recommendation").await?);
    let of_users = |rows: DataFrame| match &users {
        Some(users) => visible::rows_of(users, rows),
        None => Ok(rows),
    };
    let intents = StoredRows::read(of_users(intents)?, "user_id", None).await?;
    let recommendations = StoredRows::read(of_users(recommendations)?, "user_id", Some("rank")).await?;
    let model_version = night.and_then(|night| night.run.model_version.as_ref().map(|version| version.0.clone()));
    let night = Night {
        run_date,
        model_version,
        unrestricted: session.ctx,
        users,
        schemas: workspace.schemas(),
        descriptions: Descriptions::read(&workspace.sql)?,
        has_lake: workspace.has_lake(),
        views: Mutex::default(),
        key,
        ids: std::sync::OnceLock::new(),
        averages: TARGETS[..BINARY]
            .iter()
            .filter_map(|target| Some((target.output, intents.mean(target.output)?)))
            .collect(),
        intents,
        recommendations,
    };
    // The most used one, before the night is shown.
    night.session(View::Analyst { free_text: false, pseudonyms: false }).await?;
    Ok(night)
}

fn shown(nights: &[runs::VisibleNight]) -> Vec<(RunDate, Generation)> {
    nights.iter().map(|night| (night.run_date(), night.run.generation)).collect()
}
