//! Scoring as an operator: calls of scoring functions become a `ScoreNode`, which is planned as [`ScoreExec`]s.
//!
//! [`install`] gives a session the functions, an analyzer rule and a planner. The rule (`extract`) replaces the calls in a
//! node's expressions by columns of one `ScoreNode` below it, which computes each distinct call once; a call of another
//! call's result gets a node above that one's. Filters over scores stay above the nodes, so that no pushdown can copy a call
//! and score twice. The planner resolves versions; models are loaded, and contents refreshed, when a plan is executed. Every
//! session that scores is installed; `cluster` encodes the plans.
//!
//! In: logical plans with calls of scoring functions. Out: physical plans whose [`ScoreExec`]s load models and score rows.

mod exec;
mod extract;
mod node;
mod planner;

use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::SessionContext;
use std::sync::Arc;

use super::models::{ContentWrites, Models, SessionLake};
use super::{explain_user, functions};

pub(crate) use self::exec::{ScoreExec, Scoring, with_inputs_in_output};

/// Returns a session like `ctx` that scores with `models`, and puts what the output lacks of its lake where `content_writes`
/// says.
pub fn install(ctx: &SessionContext, models: Arc<Models>, content_writes: ContentWrites) -> SessionContext {
    // `ctx` has a catalog already; a new default one would hide its tables.
    let config = ctx.copied_config().with_create_default_catalog_and_schema(false);
    let config = config.with_extension(Arc::new(SessionLake::new(content_writes)));
    let state = SessionStateBuilder::new_from_existing(ctx.state())
        .with_config(config)
        .with_query_planner(Arc::new(planner::ScoringPlanner { models }))
        .with_analyzer_rule(Arc::new(extract::ExtractScores))
        .build();
    let ctx = SessionContext::new_with_state(state);
    for function in functions::ALL {
        ctx.register_udf(function.declare());
    }
    ctx.register_udtf(explain_user::NAME, Arc::new(explain_user::ExplainUser));
    ctx
}
