//! The lock of a night: create-only objects whose number, the generation, is the fencing token of the owner's commits.
//!
//! `state/lock/<run_date>/<generation>.json` names the owner. The owner rewrites `<generation>.heartbeat` while it runs and
//! writes `<generation>.done` when it releases the night. A generation without `.done` whose heartbeat is older than
//! `lock.expiry_seconds` is dead, and the next one may be created. Ages are differences of the store's own timestamps (a probe
//! object gives the store's time), so the clocks of machines do not matter. The lock is advisory: an owner that was paused
//! beyond its expiry is stopped by [`NightLock::check`] and, if it is between check and commit, by the transaction in each
//! table.

use chrono::{DateTime, TimeDelta, Utc};
use object_store::{ObjectMeta, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::config::LockConfig;
use crate::failure::{Failure, Result};
use crate::ids::{Generation, RunDate};
use crate::lake::stores::Location;

/// Owner of a generation, with what a person needs to find that process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Owner {
    pub host: String,
    pub(crate) pid: u32,
    pub(crate) uuid: String,
    pub(crate) started_at: DateTime<Utc>,
}

impl Owner {
    fn this_process() -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "unknown host".into());
        let uuid = uuid::Uuid::new_v4().simple().to_string();
        Self { host: host.trim().into(), pid: std::process::id(), uuid, started_at: Utc::now() }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on {}, since {}", self.pid, self.host, self.started_at.format("%Y-%m-%d %H:%M:%S UTC"))
    }
}

/// Lock on a night, held until it is released or until another process finds its heartbeat expired.
#[derive(Debug)]
pub struct NightLock {
    pub run_date: RunDate,
    pub generation: Generation,
    pub owner: Owner,
    /// Name of the locked thing, in messages.
    what: String,
    folder: Location,
    heartbeat: tokio::task::JoinHandle<()>,
}

/// The lock objects of one night, as listed.
#[derive(Debug, Default)]
struct LockState {
    newest: u64,
    done: bool,
    last_heartbeat: Option<DateTime<Utc>>,
}

/// Folder of the locks, below the output.
const FOLDER: &str = "state/lock";

/// Folder of the lock of erasures.
const ERASURE_FOLDER: &str = "state/lock/erasure";

pub(crate) fn lock_folder(output: &Location, run_date: RunDate) -> Location {
    output.folder(&format!("{FOLDER}/{run_date}"))
}

/// Locks the night, or fails with [`Failure::fenced`] naming the owner, also while an erasure runs.
pub async fn acquire(output: &Location, run_date: RunDate, settings: &LockConfig) -> Result<NightLock> {
    let held = acquire_during_erasure(output, run_date, settings).await?;
    unless_erasing(output, settings, held).await
}

/// Notes that this process writes state below the output outside a night, until [`NightLock::end_writing`]; several may do so. Fails
/// with [`Failure::fenced`] while an erasure runs.
pub(crate) async fn begin_writing(output: &Location, what: &str, settings: &LockConfig) -> Result<NightLock> {
    let folder = output.folder(&format!("{FOLDER}/{what}-{}", uuid::Uuid::new_v4().simple()));
    let today = RunDate(Utc::now().date_naive());
    let held = acquire_folder(output, folder, &format!("this {what}"), today, settings).await?;
    unless_erasing(output, settings, held).await
}

/// Gives a lock back where an erasure runs. Looked at after the lock is taken: an erasure looks for other locks after its own.
async fn unless_erasing(output: &Location, settings: &LockConfig, held: NightLock) -> Result<NightLock> {
    let failure = match is_held(output, &output.folder(ERASURE_FOLDER), settings).await {
        Ok(false) => return Ok(held),
        Ok(true) => Failure::fenced(format!("{}: an erasure of persons is running", held.what))
            .hint("run it again when `intentcast erase` has ended"),
        Err(failure) => failure,
    };
    held.release().await?;
    Err(failure)
}

/// Locks the output for an erasure; fails with [`Failure::fenced`] while another erasure, a night or a training runs. Takes the
/// locks of dead owners, so that a process that was paused finds that it has lost its own.
pub(crate) async fn acquire_erasure(output: &Location, settings: &LockConfig) -> Result<NightLock> {
    let today = RunDate(Utc::now().date_naive());
    let held = acquire_folder(output, output.folder(ERASURE_FOLDER), "the erasure of persons", today, settings).await?;
    let failure = match take_all_others(output, settings).await {
        Ok(running) if running.is_empty() => return Ok(held),
        Ok(running) => Failure::fenced(format!("expected no running night or training, found {}", running.join(", ")))
            .hint("run it again when that has ended"),
        Err(failure) => failure,
    };
    held.release().await?;
    Err(failure)
}

/// Takes the locks of dead owners. Returns the names of those whose owners live.
async fn take_all_others(output: &Location, settings: &LockConfig) -> Result<Vec<String>> {
    let all = output.folder(FOLDER);
    let mut running = Vec::new();
    for name in all.list_by_folder().await?.into_keys() {
        let folder = all.folder(&name);
        if folder.prefix == output.folder(ERASURE_FOLDER).prefix || read_state(&folder).await?.done {
            continue;
        }
        if is_held(output, &folder, settings).await? {
            running.push(name);
            continue;
        }
        match name.parse::<RunDate>() {
            Ok(date) => acquire_during_erasure(output, date, settings).await?.release().await?,
            Err(_) => {
                let what = name.clone();
                acquire_folder(output, folder, &what, RunDate(Utc::now().date_naive()), settings)
                    .await?
                    .release()
                    .await?;
            }
        }
    }
    Ok(running)
}

async fn is_held(output: &Location, folder: &Location, settings: &LockConfig) -> Result<bool> {
    let state = read_state(folder).await?;
    let (Some(last), false) = (state.last_heartbeat, state.done) else { return Ok(false) };
    Ok(store_now(output).await? - last < TimeDelta::seconds(settings.expiry_seconds.into()))
}

/// Locks a night for the erasure that holds the output.
pub(crate) async fn acquire_during_erasure(
    output: &Location,
    run_date: RunDate,
    settings: &LockConfig,
) -> Result<NightLock> {
    acquire_folder(output, lock_folder(output, run_date), &format!("night {run_date}"), run_date, settings).await
}

async fn acquire_folder(
    output: &Location,
    folder: Location,
    what: &str,
    run_date: RunDate,
    settings: &LockConfig,
) -> Result<NightLock> {
    let state = read_state(&folder).await?;
    if let (Some(last), false) = (state.last_heartbeat, state.done) {
        let age = store_now(output).await? - last;
        if age < TimeDelta::seconds(settings.expiry_seconds.into()) {
            return Err(held_by_another(&folder, what, state.newest).await.hint(format!(
                "wait for it; if it is dead, its lock expires {} s after its last heartbeat ({} s ago)",
                settings.expiry_seconds,
                age.num_seconds().max(0)
            )));
        }
        tracing::warn!(%run_date, generation = state.newest, age_seconds = age.num_seconds(), "taking {what} from a dead owner");
    }
    let generation = Generation(state.newest + 1);
    let owner = Owner::this_process();
    let text = serde_json::to_vec(&owner).map_err(Failure::bug)?;
    if !folder.create(&format!("{generation}.json"), text).await? {
        return Err(held_by_another(&folder, what, generation.0).await.hint("both started at the same time"));
    }
    let period = Duration::from_secs(settings.heartbeat_seconds.max(1).into());
    let heartbeat = tokio::spawn(keep_heartbeat(folder.clone(), generation, period));
    let held = NightLock { run_date, generation, owner, what: what.into(), folder, heartbeat };
    held.check().await?;
    Ok(held)
}

impl NightLock {
    /// Fails with [`Failure::fenced`] when a newer generation exists. Called before each commit.
    pub(crate) async fn check(&self) -> Result<()> {
        let state = read_state(&self.folder).await?;
        if state.newest <= self.generation.0 {
            return Ok(());
        }
        Err(held_by_another(&self.folder, &self.what, state.newest)
            .await
            .hint(format!("this run was generation {} and lost its lock while paused", self.generation)))
    }

    /// Releases the night. Called on success and on failure: a run that ends without it holds the night until the lock expires.
    pub async fn release(&self) -> Result<()> {
        self.heartbeat.abort();
        self.folder.write(&format!("{}.done", self.generation), Vec::new()).await
    }

    /// Ends what [`begin_writing`] began, and leaves nothing of it. Fails with [`Failure::fenced`] if it was taken meanwhile.
    pub(crate) async fn end_writing(self) -> Result<()> {
        self.check().await?;
        self.heartbeat.abort();
        let objects = self.folder.list().await?;
        self.folder.delete(objects.into_iter().map(|object| object.location).collect()).await
    }

    /// Stops the heartbeat without releasing the night, as a paused or killed process does (tests).
    #[doc(hidden)]
    pub fn stop_heartbeat(&self) {
        self.heartbeat.abort();
    }
}

impl Drop for NightLock {
    fn drop(&mut self) {
        self.heartbeat.abort();
    }
}

async fn keep_heartbeat(folder: Location, generation: Generation, period: Duration) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(fault) = folder.write(&format!("{generation}.heartbeat"), Vec::new()).await {
            tracing::warn!(%generation, "heartbeat not written: {fault}");
        }
    }
}

async fn read_state(folder: &Location) -> Result<LockState> {
    let listed = folder.list().await?;
    let newest = listed.iter().filter_map(|m| generation_of(m, "json")).max().unwrap_or(0);
    let mut state = LockState { newest, ..LockState::default() };
    for object in &listed {
        let is = |suffix| generation_of(object, suffix) == Some(state.newest);
        state.done |= is("done");
        if is("json") || is("heartbeat") {
            state.last_heartbeat = state.last_heartbeat.max(Some(object.last_modified));
        }
    }
    Ok(state)
}

/// Returns the number in `<generation>.<suffix>`.
pub(crate) fn generation_of(object: &ObjectMeta, suffix: &str) -> Option<u64> {
    object.location.filename()?.strip_suffix(suffix)?.strip_suffix('.')?.parse().ok()
}

/// Returns the store's time: the timestamp of an object that is written now.
pub(crate) async fn store_now(output: &Location) -> Result<DateTime<Utc>> {
    let name = format!("state/probe/{}", uuid::Uuid::new_v4().simple());
    output.write(&name, Vec::new()).await?;
    let path = output.path(&name);
    let now = output.store.head(&path).await?.last_modified;
    output.delete(vec![path]).await?;
    Ok(now)
}

async fn held_by_another(folder: &Location, what: &str, generation: u64) -> Failure {
    let owner = match folder.read(&format!("{generation}.json")).await {
        Ok(bytes) => serde_json::from_slice::<Owner>(&bytes).map_or("an unknown owner".into(), |o| o.to_string()),
        Err(_) => "an unknown owner".into(),
    };
    Failure::fenced(format!("{what} is held by generation {generation}: {owner}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;
    use crate::failure::FailureKind;

    fn night() -> RunDate {
        "2026-03-01".parse().unwrap()
    }

    fn output(name: &str) -> Location {
        Location::open(&format!("memory://{name}/out"), &S3Config::default()).unwrap()
    }

    /// Four heartbeats fit into an expiry, so that a loaded machine does not fail the test.
    const QUICK: LockConfig = LockConfig { heartbeat_seconds: 1, expiry_seconds: 4 };

    #[tokio::test]
    async fn one_of_fifty_rivals_gets_the_night() {
        let folder = tempfile::tempdir().unwrap();
        for output in [
            output("fifty-rivals"),
            Location::open(&folder.path().display().to_string(), &S3Config::default()).unwrap(),
        ] {
            let tries = (0..50).map(|_| {
                let output = output.clone();
                tokio::spawn(async move { acquire(&output, night(), &LockConfig::default()).await })
            });
            let results: Vec<_> =
                futures::future::join_all(tries).await.into_iter().map(|joined| joined.unwrap()).collect();
            assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1, "{}", output.url);
            for failure in results.into_iter().filter_map(|r| r.err()) {
                assert_eq!(failure.kind, FailureKind::Fenced);
                assert!(failure.message.contains(&format!("process {}", std::process::id())), "{failure}");
            }
        }
    }

    #[tokio::test]
    async fn a_released_night_goes_to_the_next_generation() {
        let output = output("released");
        let first = acquire(&output, night(), &LockConfig::default()).await.unwrap();
        first.release().await.unwrap();
        let second = acquire(&output, night(), &LockConfig::default()).await.unwrap();
        assert_eq!((first.generation.0, second.generation.0), (1, 2));
        assert_eq!(first.check().await.unwrap_err().kind, FailureKind::Fenced);
    }

    #[tokio::test]
    async fn only_an_owner_without_heartbeat_loses_its_night() {
        let output = output("silent");
        let silent = acquire(&output, night(), &QUICK).await.unwrap();
        tokio::time::sleep(Duration::from_millis(4500)).await;
        assert_eq!(
            acquire(&output, night(), &QUICK).await.unwrap_err().kind,
            FailureKind::Fenced,
            "its heartbeat is recent"
        );
        silent.stop_heartbeat();
        tokio::time::sleep(Duration::from_millis(4300)).await;
        let heir = acquire(&output, night(), &QUICK).await.unwrap();
        assert_eq!(heir.generation.0, 2);
        assert_eq!(silent.check().await.unwrap_err().kind, FailureKind::Fenced);
        heir.check().await.unwrap();
    }
}
