//! Networks, bundles and their registry.

pub mod bundle;
pub mod demand;
pub mod inputs;
pub mod intent;
