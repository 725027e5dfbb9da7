//! The names of the canonical views.

/// The canonical views; only `events` must have files.
pub(crate) const VIEWS: [&str; 7] = ["events", "items", "users", "inventory", "promotions", "erasures", RATES];

/// The view of exchange rates, which rollups read; the others but `events` are master data.
pub(crate) const RATES: &str = "rates";
