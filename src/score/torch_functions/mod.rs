//! `CREATE FUNCTION name(args) RETURNS type LANGUAGE TORCH AS 'uri'`: a user's TorchScript module as a SQL function.
//!
//! In: statements of a session, and modules in the folders that the configuration names. Out: SQL functions. Rows of a batch
//! go into one forward pass, at most `functions.batch_values_max` numbers at once. A scalar argument is a tensor [rows],
//! `T[n]` is [rows, n]; `T[]` takes lists of any length, and rows are grouped by length, so that no row is ever padded. A null
//! in an argument (or in its list) makes the row's result null, and the module does not see the row.
//!
//! These are plain scalar functions, not calls of a `ScoreNode` as `functions` are: a module reads only the arguments of a row,
//! so SQL may call it in a join's condition, or in a branch of `CASE` that only some rows take.
//!
//! `engine` gives every session the factory, `shell` checks its statements, and `cluster` sends declarations.

mod create_function;
mod modules;
mod probe;
mod torch_function;
mod value_types;

use datafusion::prelude::SessionContext;

pub(crate) use self::create_function::{TorchFunctions, check_statement};
pub(crate) use self::torch_function::Declaration;
pub use self::torch_function::{TorchFunction, as_torch_function};

/// Fingerprint of a session's user functions, modules included: when it changes, so do the rows that they compute.
pub(crate) fn fingerprint(ctx: &SessionContext) -> String {
    let state = ctx.state();
    let functions = state.scalar_functions().values().filter_map(|f| as_torch_function(f));
    let mut all: Vec<String> = functions.map(|f| format!("{:?}", f.declaration)).collect();
    all.sort();
    all.concat()
}
