//! Locks, generations and fencing, checks, the run record, what makes a night visible.
//!
//! In: the staged files of a night's tables. Out: one row in `runs`, after which readers see all of them, and before
//! which they see none. The order is: `lock` (a generation, the fencing token) → `checks` (on staged files) → `night`
//! (a Delta commit a table, then the `runs` row) → `readers` (resolve tables through `runs`). `gc` removes what nobody
//! can reach any more; `drift` fills one column of the row. The nightly job and the verbs `rollback`, `gc`
//! and `sql` call in here.

pub mod checks;
pub mod drift;
pub mod earlier;
pub mod gc;
pub mod gc_contents;
pub mod lock;
pub mod night;
pub mod readers;
pub mod runs;
