//! The weights that a plan names.

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

/// Names one set of weights: a version may be trained again, which changes the hash. Travels in plans.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ModelRef {
    pub(crate) version: String,
    pub(crate) weights_hash: String,
    /// Fingerprint of the files of content vectors that the call reads; empty for a call that reads none.
    #[serde(default)]
    pub(crate) contents: String,
    /// Hash of the items that `recommend` ranks; empty for the bundle's own.
    #[serde(default)]
    pub(crate) catalogue: String,
}

impl ModelRef {
    pub(crate) fn new(version: String, weights_hash: String) -> Self {
        Self { version, weights_hash, contents: String::new(), catalogue: String::new() }
    }

    /// Refuses other weights of the same version.
    pub(super) fn refuse_other(&self, loaded_hash: &str) -> Result<()> {
        if self.weights_hash == loaded_hash {
            return Ok(());
        }
        let Self { version, weights_hash, .. } = self;
        Err(Failure::model(format!("model {version}: the plan expects weights {weights_hash}, found {loaded_hash}"))
            .hint("every process must read the same models/ folder; restart those that loaded an older bundle"))
    }
}
