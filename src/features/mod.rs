//! Turns lake views into rollup units, merged state and feature views, all by the files under sql/.

pub mod last_events;
