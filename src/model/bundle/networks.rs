//! The members of a bundle: the intent network, the trees of the intents, and the demand network with its trees.

use std::sync::Arc;
use tch::{Device, nn};

use crate::failure::{Failure, Result};
use crate::model::demand::{DemandNetwork, DemandShape};
use crate::model::intent::IntentNetwork;
use crate::model::shape::IntentShape;
use crate::model::trees::IntentTrees;

/// Both networks and the trees. Each network has its own store of weights, so that training one cannot change the other.
#[derive(Debug)]
pub struct Networks {
    pub(crate) intent: IntentNetwork,
    pub intent_store: nn::VarStore,
    pub(crate) demand: DemandNetwork,
    pub(crate) demand_store: nn::VarStore,
    /// `None` for a bundle that was trained without them.
    pub(crate) trees: Option<Arc<IntentTrees>>,
}

impl Networks {
    /// Creates both networks with initial weights, and no trees.
    pub fn new(intent: &IntentShape, demand: &DemandShape, device: Device) -> Self {
        let intent_store = nn::VarStore::new(device);
        let demand_store = nn::VarStore::new(device);
        Self {
            intent: IntentNetwork::new(&(intent_store.root() / "intent"), intent),
            intent_store,
            demand: DemandNetwork::new(&(demand_store.root() / "demand"), demand),
            demand_store,
            trees: None,
        }
    }

    /// Excludes all weights from training.
    pub(super) fn freeze(&mut self) {
        self.intent_store.freeze();
        self.demand_store.freeze();
    }

    /// Creates networks that share these weights in memory.
    pub(super) fn share(&self, intent: &IntentShape, demand: &DemandShape, device: Device) -> Result<Self> {
        let mut shared = Self::new(intent, demand, device);
        shared.freeze();
        shared.trees = self.trees.clone();
        shared.demand.trees = self.demand.trees.clone();
        for (from, to) in [(&self.intent_store, &shared.intent_store), (&self.demand_store, &shared.demand_store)] {
            let weights = from.variables();
            for (name, mut variable) in to.variables() {
                let weight = weights.get(&name).ok_or_else(|| Failure::bug(format!("no weight {name} to share")))?;
                // The variable and the network's layer are one object in libtorch; both now read the shared memory.
                variable.f_set_data(weight)?;
            }
        }
        Ok(shared)
    }
}
