//! Networks, bundles and their registry.

pub mod inputs;
pub mod intent;
