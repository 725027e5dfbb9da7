//! Lets clients in.

use async_trait::async_trait;
use futures::Sink;
use pgwire::api::auth::sasl::SASLAuthStartupHandler;
use pgwire::api::auth::sasl::scram::ScramAuth;
use pgwire::api::auth::{
    AuthSource, DefaultServerParameterProvider, LoginInfo, Password, StartupHandler, finish_authentication,
    protocol_negotiation, save_startup_parameters_to_metadata,
};
use pgwire::api::{
    ClientInfo, METADATA_USER, PgWireConnectionState, PidSecretKeyGenerator, RandomPidSecretKeyGenerator,
};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use std::fmt::Debug;
use std::sync::Arc;

use super::connection::{Connection, Connections};
use super::errors;
use crate::serving::access::{Access, Account, SharedAccess};
use crate::serving::caller::Caller;
use crate::serving::pg_catalog::{SEARCH_PATH, VERSION};
use crate::serving::refusal::Refusal;

/// Lets a client in: everyone where no users are configured, else those who prove their password (SCRAM-SHA-256).
pub(super) struct Startup {
    wants_tls: bool,
    connections: Arc<Connections>,
    access: SharedAccess,
    pids: Arc<RandomPidSecretKeyGenerator>,
    parameters: Arc<DefaultServerParameterProvider>,
    /// The exchange of one connection.
    exchange: SASLAuthStartupHandler<DefaultServerParameterProvider>,
}

/// Parts that the connections of a server share.
pub(super) struct Startups {
    wants_tls: bool,
    pub(super) connections: Arc<Connections>,
    access: SharedAccess,
    pids: Arc<RandomPidSecretKeyGenerator>,
    parameters: Arc<DefaultServerParameterProvider>,
}

impl Startups {
    pub(super) fn new(access: SharedAccess, wants_tls: bool) -> Self {
        let mut parameters = DefaultServerParameterProvider::default();
        parameters.server_version = format!("{VERSION} (intentcast {})", env!("CARGO_PKG_VERSION"));
        parameters.search_path = SEARCH_PATH.into();
        parameters.is_superuser = false;
        parameters.default_transaction_read_only = true;
        Self { wants_tls, connections: Arc::default(), access, pids: Arc::default(), parameters: Arc::new(parameters) }
    }

    /// Returns the start-up of one connection.
    pub(super) fn one(&self) -> Startup {
        let scram = ScramAuth::new(Arc::new(Passwords(Arc::clone(&self.access))));
        let pids: Arc<dyn PidSecretKeyGenerator> = Arc::<RandomPidSecretKeyGenerator>::clone(&self.pids);
        let exchange = SASLAuthStartupHandler::new(Arc::clone(&self.parameters));
        Startup {
            wants_tls: self.wants_tls,
            connections: Arc::clone(&self.connections),
            access: Arc::clone(&self.access),
            pids: Arc::clone(&self.pids),
            parameters: Arc::clone(&self.parameters),
            exchange: exchange.with_pid_secret_key_generator(pids).with_scram(scram),
        }
    }
}

/// Salted passwords of the configured users.
struct Passwords(SharedAccess);

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passwords")
    }
}

#[async_trait]
impl AuthSource for Passwords {
    async fn get_password(&self, login: &LoginInfo) -> PgWireResult<Password> {
        let salted = self.0.salted_password(login.user().unwrap_or_default()).map_err(errors::refused)?;
        Ok(Password::new(Some(salted.salt), salted.password))
    }
}

#[async_trait]
impl StartupHandler for Startup {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if self.wants_tls && !client.is_secure() {
            return Err(errors::fatal("28000", "expected an encrypted connection (sslmode=require)"));
        }
        if !self.access.is_open() {
            // At each message, so that an exchange that began before others failed gets no guess either. The first message names the
            // user.
            let known = user_of(client);
            if !known.is_empty() {
                let may_try = self.access.may_try(&known);
                may_try.map_err(|refusal| errors::fatal(refusal.sqlstate, refusal.failure.message))?;
            }
            let exchanged = self.exchange.on_startup(client, message).await;
            let user = user_of(client);
            match exchanged {
                Err(PgWireError::InvalidPassword(_)) => {
                    self.access.failed(&user);
                    return Err(errors::fatal(Refusal::WRONG_CREDENTIALS, "wrong name or password"));
                }
                Err(PgWireError::UserError(info)) => return Err(errors::fatal(&info.code, info.message.clone())),
                Err(error) => return Err(errors::fatal("08P01", error.to_string())),
                Ok(()) => {}
            }
            if matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
                self.access.succeeded(&user);
                let account = self.access.account(&user);
                self.open(client, account.map_err(|r| errors::fatal(r.sqlstate, r.failure.message))?);
            }
            return Ok(());
        }
        let PgWireFrontendMessage::Startup(startup) = message else { return Ok(()) };
        protocol_negotiation(client, &startup).await?;
        save_startup_parameters_to_metadata(client, &startup);
        let (pid, key) = self.pids.generate(client);
        client.set_pid_and_secret_key(pid, key);
        self.open(client, Access::open_account(&user_of(client)));
        finish_authentication(client, self.parameters.as_ref()).await
    }
}

impl Startup {
    fn open<C: ClientInfo>(&self, client: &C, account: Account) {
        let caller = Caller { account, address: Some(client.socket_addr()), protocol: "pg" };
        let connection = Arc::new(Connection::new(caller));
        let (pid, key) = client.pid_and_secret_key();
        self.connections.add(pid, &key, &connection);
        client.session_extensions().insert::<Arc<Connection>>(connection);
    }
}

fn user_of<C: ClientInfo>(client: &C) -> String {
    client.metadata().get(METADATA_USER).cloned().unwrap_or_default()
}
