//! The sizes and parts of the intent network.

use serde::{Deserialize, Serialize};

use super::contents::MODALITIES;
use crate::config::networks::{BackboneName, FusionName, HeadName};

/// The sizes and parts of the intent network; stored in the bundle's card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IntentShape {
    pub backbone: BackboneName,
    pub head: HeadName,
    /// Width of event embeddings, encoder states and item vectors.
    pub width: i64,
    /// Layers of the backbone.
    pub layers: i64,
    /// Attention heads; recurrent backbones ignore them.
    pub heads: i64,
    /// Hash buckets of item ids.
    pub item_buckets: u64,
    /// Events of one user that the encoder reads, at most.
    pub events_max: i64,
    pub dropout: f64,
    /// Tabular features of a user.
    pub features: usize,
    /// Dimensions of text, image and video vectors; 0 for a modality that the network does not read.
    pub content_dims: [i64; MODALITIES.len()],
    pub fusion: FusionName,
}

#[cfg(test)]
impl IntentShape {
    /// Returns a small shape that tests adapt: one tabular feature, no contents, no dropout.
    pub(crate) fn tiny(backbone: BackboneName, head: HeadName) -> Self {
        Self {
            backbone,
            head,
            width: 8,
            layers: 1,
            heads: 2,
            item_buckets: 1000,
            events_max: 8,
            dropout: 0.0,
            features: 1,
            content_dims: [0; MODALITIES.len()],
            fusion: FusionName::Sum,
        }
    }
}
