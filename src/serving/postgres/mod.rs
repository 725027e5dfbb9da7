//! SQL over PostgreSQL's wire protocol: simple and extended queries, portals with row limits, cancellation, `COPY … TO STDOUT`.
//!
//! `pgwire` speaks the protocol, `datafusion-postgres` and its companions rewrite clients' SQL, describe the tables in
//! `pg_catalog` and encode rows. The rest is here, because that crate's own server has no authentication, no time limit on
//! rows and no row limits (docs/decisions/0012-server.md).

mod connection;
mod conversation;
mod copy_out;
mod errors;
mod extended;
mod parameters;
mod settings;
mod simple;
mod startup;

use std::sync::Arc;
use tokio_util::task::TaskTracker;

use super::access::Acceptor;
use super::queries::Queries;
use conversation::Handlers;
use extended::Extended;
use simple::Simple;
use startup::Startups;

/// Accepts connections until the server stops; those that are open live until their clients close them or `queries` is closed.
pub(super) async fn serve(acceptor: Acceptor, queries: Arc<Queries>, open: TaskTracker) {
    let handlers = Arc::new(Handlers {
        startups: Startups::new(Arc::clone(&queries.access), acceptor.tls.is_some()),
        simple: Arc::new(Simple::new(Arc::clone(&queries))),
        extended: Arc::new(Extended::new(Arc::clone(&queries))),
    });
    while let Some((socket, address, place)) = acceptor.next().await {
        let (handlers, tls, closed) = (Arc::clone(&handlers), acceptor.tls.clone(), queries.closed.clone());
        open.spawn(async move {
            let _place = place;
            tokio::select! {
                ended = conversation::answer(socket, tls, &handlers) => {
                    if let Err(error) = ended {
                        tracing::debug!("pg: connection of {address} ended: {error}");
                    }
                }
                () = closed.cancelled() => {}
            }
        });
    }
}
