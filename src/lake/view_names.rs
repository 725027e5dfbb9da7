//! The names of the canonical views.

/// The canonical views; only `events` must have files.
pub(crate) const VIEWS: [&str; 6] = ["events", "items", "users", "inventory", "promotions", "erasures"];
