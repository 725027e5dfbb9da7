//! Locks, generations and fencing, checks, the run record, what makes a night visible.
