//! Publication of nights: locks and fencing, checks, the run record, visibility, retention.
//!
//! In: the staged files of a night's tables. Out: one row in `runs`; readers see none of the tables before it and all of them
//! after it. The order is: `lock` (a generation, the fencing token) → `checks` (on staged files) → `night` (one Delta commit
//! per table, then the `runs` row) → `readers` (resolve tables through `runs`). `gc` removes what is no longer reachable;
//! `drift` fills one column of the row. The nightly job and the verbs `rollback`, `gc` and `sql` are callers.

pub mod checks;
pub(crate) mod drift;
pub(crate) mod earlier;
pub(crate) mod erase;
pub mod gc;
mod gc_contents;
pub mod lock;
pub mod night;
pub mod readers;
pub mod runs;
pub(crate) mod suppressed;
