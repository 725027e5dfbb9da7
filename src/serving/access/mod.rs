//! Lets clients in, and says what each may do.

mod backoff;
mod hashes;
mod incoming;
#[cfg(test)]
mod test_clock;
mod tls;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

use super::refusal::{Refusal, Result};
use crate::config::{Config, Role, ServedUser, UserIds, cores};
use crate::failure;
use crate::ids::ContentHash;
use backoff::Backoff;

pub(super) use hashes::SaltedPassword;
pub(crate) use hashes::hash_password;
pub(super) use incoming::{Acceptor, Incoming};
pub(super) use tls::{Tls, load as load_tls};

/// Tokens that are kept; more are refused.
const TOKENS_MAX: usize = 100_000;

/// Someone who was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) free_text: bool,
    /// Sees pseudonyms instead of ids.
    pub(super) pseudonyms: bool,
}

/// Part of a night that an account sees by SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum View {
    Analyst { free_text: bool, pseudonyms: bool },
    Planner,
}

impl Account {
    /// Returns what the account sees by SQL; refuses one that has no SQL.
    pub(super) fn view(&self) -> Result<View> {
        match self.role {
            Role::Analyst | Role::Admin => Ok(View::Analyst { free_text: self.free_text, pseudonyms: self.pseudonyms }),
            Role::Planner => Ok(View::Planner),
            Role::Service => Err(Refusal::new(
                Refusal::NOT_ALLOWED,
                format!("{}: the role service has no SQL, only HTTP", self.name),
            )),
        }
    }

    /// Refuses an account that may not ask for one user's answers.
    pub(super) fn may_ask_for_users(&self) -> Result<()> {
        match self.role {
            Role::Planner => {
                Err(Refusal::new(Refusal::NOT_ALLOWED, format!("{}: the role planner has only SQL", self.name)))
            }
            Role::Analyst | Role::Service | Role::Admin => Ok(()),
        }
    }

    /// Refuses an account that may not open the page of support agents: a service asks for answers, below `/v1`.
    pub(super) fn may_open_page(&self) -> Result<()> {
        self.may_ask_for_users()?;
        match self.role {
            Role::Service => {
                let message = format!("{}: the role service has /v1 alone, and no page", self.name);
                Err(Refusal::new(Refusal::NOT_ALLOWED, message))
            }
            Role::Analyst | Role::Planner | Role::Admin => Ok(()),
        }
    }

    /// Refuses an account that may not send a user's events. Where everyone is let in (`open`), an analyst may.
    pub(super) fn may_send_events(&self, open: bool) -> Result<()> {
        match self.role {
            Role::Service | Role::Admin => Ok(()),
            Role::Analyst if open => Ok(()),
            Role::Analyst | Role::Planner => Err(Refusal::new(
                Refusal::NOT_ALLOWED,
                format!("{}: sending events takes the role service or admin", self.name),
            )),
        }
    }
}

/// Decides who is let in.
pub(super) struct Access {
    /// Without users everyone on this machine is let in.
    users: BTreeMap<String, ServedUser>,
    tokens: Mutex<HashMap<String, (Account, Instant)>>,
    token_life: Duration,
    /// The clock.
    now: fn() -> Instant,
    backoff: Backoff,
    /// Hashes of passwords that are computed at once: each takes 19 MiB.
    hashing: Semaphore,
    /// Key of the salts of unknown users.
    secret: String,
}

impl Access {
    pub(super) fn new(config: &Config) -> failure::Result<Self> {
        Self::with_clock(config, Instant::now)
    }

    fn with_clock(config: &Config, now: fn() -> Instant) -> failure::Result<Self> {
        for user in &config.serve.users {
            hashes::check(user)?;
        }
        Ok(Self {
            users: config.serve.users.iter().map(|user| (user.name.clone(), user.clone())).collect(),
            tokens: Mutex::default(),
            token_life: Duration::from_secs(u64::from(config.serve.token_minutes) * 60),
            now,
            backoff: Backoff::new(now),
            hashing: Semaphore::new(cores()),
            secret: uuid::Uuid::new_v4().to_string(),
        })
    }

    /// Returns whether everyone is let in.
    pub(super) fn is_open(&self) -> bool {
        self.users.is_empty()
    }

    /// Returns the account of everyone where no users are configured.
    pub(super) fn open_account(name: &str) -> Account {
        Account { name: name.into(), role: Role::Analyst, free_text: false, pseudonyms: false }
    }

    /// Returns the account of a user who has proved who they are.
    pub(super) fn account(&self, name: &str) -> Result<Account> {
        let user = self.users.get(name).ok_or_else(|| refused("wrong name or password"))?;
        let pseudonyms = user.user_ids == UserIds::Pseudonym;
        Ok(Account { name: name.into(), role: user.role, free_text: user.free_text, pseudonyms })
    }

    /// Returns the salted password of a user. An unknown user gets a salt too, the same at each attempt, so that names cannot be
    /// guessed; no password matches it.
    pub(super) fn salted_password(&self, name: &str) -> Result<SaltedPassword> {
        let known = self.users.get(name).filter(|user| !user.scram.is_empty());
        match known {
            Some(user) => SaltedPassword::parse(&user.scram).map_err(Refusal::from),
            None => Ok(SaltedPassword::unmatched(&ContentHash::from_bytes(format!("{}\0{name}", self.secret)).full())),
        }
    }

    /// Refuses an attempt that comes too soon after wrong passwords.
    pub(super) fn may_try(&self, name: &str) -> Result<()> {
        self.backoff.check(name)
    }

    /// Forgets a name's wrong passwords.
    pub(super) fn succeeded(&self, name: &str) {
        self.backoff.succeeded(name);
    }

    /// Notes a wrong password.
    pub(super) fn failed(&self, name: &str) {
        let wait = self.backoff.failed(name);
        tracing::warn!("a wrong password for user {name:?}; the next attempt waits {} s", wait.as_secs());
    }

    /// Returns the account that the header `Authorization` proves: a token, or name and password.
    pub(super) async fn account_of_header(&self, header: Option<&str>) -> Result<Account> {
        if self.is_open() {
            return Ok(Self::open_account("analyst"));
        }
        let header = header.ok_or_else(|| refused("expected credentials, got none"))?;
        if let Some(token) = strip_scheme(header, "bearer") {
            return self.of_token(token).ok_or_else(|| refused("this token is unknown or has expired"));
        }
        let encoded = strip_scheme(header, "basic").ok_or_else(|| refused("expected Basic or Bearer credentials"))?;
        let decoded = STANDARD.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let decoded = decoded.ok_or_else(|| refused("malformed Basic credentials"))?;
        let (name, password) = decoded.split_once(':').ok_or_else(|| refused("malformed Basic credentials"))?;
        self.check_password(name, password).await
    }

    async fn check_password(&self, name: &str, password: &str) -> Result<Account> {
        self.backoff.check(name)?;
        let _turn = self.hashing.acquire().await.map_err(|_| refused("the server is stopping"))?;
        // Others may have failed while this one waited.
        self.backoff.check(name)?;
        let hash = self.users.get(name).map(|user| user.argon2.clone()).filter(|hash| !hash.is_empty());
        let password = password.to_string();
        let is_right = tokio::task::spawn_blocking(move || hashes::is_password(&password, hash.as_deref())).await;
        if !is_right.unwrap_or(false) {
            self.failed(name);
            return Err(refused("wrong name or password"));
        }
        self.backoff.succeeded(name);
        self.account(name)
    }

    /// Makes a token for name and password; a token makes no other one. It expires after `serve.token_minutes`.
    pub(super) fn issue_token(&self, account: &Account, header: Option<&str>) -> Result<String> {
        if header.is_some_and(|header| strip_scheme(header, "bearer").is_some()) {
            return Err(refused("expected Basic credentials for a new token"));
        }
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let now = (self.now)();
        tokens.retain(|_, (_, expires)| *expires > now);
        if tokens.len() >= TOKENS_MAX {
            return Err(Refusal::new(Refusal::BUSY, "too many tokens are in use").hint("use a token until it expires"));
        }
        let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        tokens.insert(ContentHash::from_bytes(&token).full(), (account.clone(), now + self.token_life));
        Ok(token)
    }

    fn of_token(&self, token: &str) -> Option<Account> {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        // By hash, so that the time of a look-up tells nothing about tokens.
        let (account, expires) = tokens.get(&ContentHash::from_bytes(token).full())?;
        (*expires > (self.now)()).then(|| account.clone())
    }
}

fn refused(message: &str) -> Refusal {
    Refusal::new(Refusal::WRONG_CREDENTIALS, message)
}

fn strip_scheme<'a>(header: &'a str, scheme: &str) -> Option<&'a str> {
    let (given, rest) = header.split_once(' ')?;
    given.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

/// [`Access`] that all protocols share.
pub(super) type SharedAccess = Arc<Access>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_expires() {
        let mut config = Config::default();
        config.serve.token_minutes = 2;
        let access = Access::with_clock(&config, test_clock::now).unwrap();
        let account = Access::open_account("anna");
        let token = access.issue_token(&account, Some("Basic YW5uYTp4")).unwrap();
        test_clock::advance(119);
        assert_eq!(access.of_token(&token), Some(account));
        test_clock::advance(1);
        assert_eq!(access.of_token(&token), None);
        assert!(access.issue_token(&Access::open_account("anna"), Some("Bearer x")).is_err());
    }

    /// Lets in anna, whose password is `right`.
    fn access_of_anna() -> Access {
        let hashes = hash_password("right").unwrap();
        let argon2 = hashes.lines().find_map(|line| line.strip_prefix("argon2 = ")).unwrap().trim_matches('"').into();
        let mut config = Config::default();
        config.serve.users = vec![ServedUser {
            name: "anna".into(),
            role: Role::Analyst,
            scram: String::new(),
            argon2,
            free_text: false,
            user_ids: UserIds::Plain,
        }];
        Access::new(&config).unwrap()
    }

    #[tokio::test]
    async fn passwords_wait_for_a_free_place_to_be_hashed() {
        let access = access_of_anna();
        let places = cores();
        assert_eq!(access.hashing.available_permits(), places);
        let taken = access.hashing.acquire_many(u32::try_from(places).unwrap()).await.unwrap();
        for (name, password) in [("anna", "right"), ("anna", "wrong"), ("no one", "x")] {
            let checked = tokio::time::timeout(Duration::from_millis(20), access.check_password(name, password));
            assert!(checked.await.is_err(), "{name} was checked without a place");
        }
        // None of them was looked at, so none has failed.
        access.may_try("anna").unwrap();
        drop(taken);
        assert_eq!(access.check_password("anna", "right").await.unwrap().name, "anna");
        assert_eq!(access.check_password("anna", "wrong").await.unwrap_err().sqlstate, Refusal::WRONG_CREDENTIALS);
        assert_eq!(access.hashing.available_permits(), places, "each check gives its place back");
    }

    #[tokio::test]
    async fn a_password_that_waited_is_refused_after_failures_of_others() {
        let access = access_of_anna();
        let taken = access.hashing.acquire_many(u32::try_from(cores()).unwrap()).await.unwrap();
        let waiting = access.check_password("anna", "right");
        let failing = async {
            (0..5).for_each(|_| access.failed("anna"));
            drop(taken);
        };
        let (checked, ()) = tokio::join!(waiting, failing);
        let message = checked.unwrap_err().failure.message;
        assert!(message.contains("too many wrong passwords"), "{message}");
    }
}
