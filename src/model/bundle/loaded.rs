//! A model in memory.

use std::collections::BTreeMap;
use std::fmt;
use tch::{Device, Tensor};

use super::card::BundleCard;
use super::item_index::{IndexedItem, ItemVectors};
use super::networks::Networks;
use crate::failure::Result;
use crate::model::contents::Contents;
use crate::model::demand::DemandNetwork;
use crate::model::intent::IntentNetwork;
use crate::model::trees::IntentTrees;
use crate::model::weights::parameter_count;

/// A loaded model: both networks on one device, and the recommendation index.
pub struct Bundle {
    pub card: BundleCard,
    pub(crate) device: Device,
    pub(super) networks: Networks,
    /// The items of the recommendation index.
    pub(crate) items: Vec<IndexedItem>,
    pub(crate) item_vectors: ItemVectors,
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bundle({} on {:?})", self.card.version, self.device)
    }
}

impl Bundle {
    /// Returns the same model for another thread: its own network objects that share the weights in memory.
    pub fn share(&self) -> Result<Bundle> {
        Ok(Bundle {
            card: self.card.clone(),
            device: self.device,
            networks: self.networks.share(&self.card.intent, &self.card.demand, self.device)?,
            items: self.items.clone(),
            item_vectors: self.item_vectors.share(),
        })
    }

    /// Computes the vectors of a catalogue whose items may be newer than the training (cold start).
    pub(crate) fn catalogue_vectors(&self, items: &[IndexedItem], contents: &Contents) -> Result<ItemVectors> {
        ItemVectors::of_catalogue(&self.networks.intent, &self.items, items, contents, self.device)
    }

    pub(crate) fn intent(&self) -> &IntentNetwork {
        &self.networks.intent
    }

    pub(crate) fn trees(&self) -> Option<&IntentTrees> {
        self.networks.trees.as_deref()
    }

    pub(crate) fn demand(&self) -> &DemandNetwork {
        &self.networks.demand
    }

    /// Returns every weight of both networks by name.
    pub fn weights(&self) -> BTreeMap<String, Tensor> {
        self.networks.intent_store.variables().into_iter().chain(self.networks.demand_store.variables()).collect()
    }

    /// Returns the number of weights of both networks.
    pub fn parameters(&self) -> i64 {
        parameter_count(&self.networks.intent_store) + parameter_count(&self.networks.demand_store)
    }
}
