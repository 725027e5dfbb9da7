//! Writes bundles to the registry and loads them: `weights.safetensors`, `trees.safetensors`, `demand_trees.safetensors`,
//! `item_index/`, the encoders' folders and, last, the card.

use bytes::Bytes;
use std::sync::Arc;
use tch::Device;

use super::card::{BundleCard, CARD_FILE, IMAGE_FOLDER, TEXT_FOLDER, check_encoder_hash, damaged};
use super::item_index::{IndexedItem, ItemVectors};
use super::loaded::Bundle;
use super::networks::Networks;
use crate::failure::{Failure, Result};
use crate::ids::{ContentHash, ModelVersion};
use crate::lake::stores::Location;
use crate::model::contents::Contents;
use crate::model::demand::tree_inputs::{TREE_DAY_INPUTS, TREE_LEAD_TIME_INPUTS};
use crate::model::registry::Registry;
use crate::model::table::bundle::TABLE_CARD;
use crate::model::text::bundle::TEXT_CARD;
use crate::model::text::encoder::length_max;
use crate::model::text::folder::TextFolder;
use crate::model::trees::{DemandTrees, IntentTrees};
use crate::model::vision::{IMAGE_CARD, ImageFolder};
use crate::model::weights;

const WEIGHTS_FILE: &str = "weights.safetensors";
const TREES_FILE: &str = "trees.safetensors";
const DEMAND_TREES_FILE: &str = "demand_trees.safetensors";
const ITEMS_FILE: &str = "item_index/items.json";
const VECTORS_FILE: &str = "item_index/vectors.safetensors";

/// Kinds of models that nights do not use: the file of the card, the input, and the SQL function that calls the model.
const OTHER_KINDS: [(&str, &str, &str); 3] = [
    (TABLE_CARD, "a table", "predict_table"),
    (TEXT_CARD, "a text", "classify_text"),
    (IMAGE_CARD, "an image", "classify_image"),
];

/// Everything that a bundle holds besides its card.
#[derive(Debug)]
pub struct BundleParts<'a> {
    pub networks: &'a Networks,
    /// The items that the model can recommend.
    pub items: &'a [IndexedItem],
    /// The vectors of the items' contents.
    pub contents: &'a Contents,
    /// Encoders to copy: the folder's name in the bundle and its source.
    pub encoders: &'a [(&'a str, Location)],
}

impl Registry {
    /// Writes a bundle and returns its completed card. The card is written last, so that a version with a card is complete.
    pub async fn write(&self, mut card: BundleCard, parts: BundleParts<'_>) -> Result<BundleCard> {
        let networks = parts.networks;
        let weights = weights::to_bytes(&[&networks.intent_store, &networks.demand_store])?;
        let trees = networks.trees.as_ref().map(|trees| trees.to_bytes()).transpose()?;
        card.weights_hash = ContentHash::from_bytes(&weights).short();
        let demand_trees = networks.demand.trees.as_ref().map(|trees| trees.to_bytes()).transpose()?;
        card.trees_hash = trees.as_ref().map(|trees| ContentHash::from_bytes(trees).short());
        card.demand_trees_hash = demand_trees.as_ref().map(|trees| ContentHash::from_bytes(trees).short());
        card.version = ModelVersion::new(&card.labels_end, &card.scoring_hash()?).0;
        card.items = parts.items.len() as u64;
        let folder = self.0.folder(&card.version);
        folder.write(WEIGHTS_FILE, weights).await?;
        if let Some(trees) = trees {
            folder.write(TREES_FILE, trees).await?;
        }
        if let Some(trees) = demand_trees {
            folder.write(DEMAND_TREES_FILE, trees).await?;
        }
        folder.write(ITEMS_FILE, serde_json::to_vec(parts.items).map_err(Failure::bug)?).await?;
        let device = networks.intent_store.device();
        let vectors = ItemVectors::of_trained_items(&networks.intent, parts.items, parts.contents, device)?;
        folder.write(VECTORS_FILE, vectors.to_bytes()?).await?;
        for (name, source) in parts.encoders {
            copy_encoder(source, &folder.folder(name)).await?;
        }
        // Training read the encoders before it began, and their files may have changed meanwhile.
        if let Some(text) = &card.text {
            let copied = TextFolder::load(&folder.folder(TEXT_FOLDER), length_max(text.tokens_max)).await?;
            check_encoder_hash(&card.version, TEXT_FOLDER, &text.hash, &copied.hash)?;
        }
        if let Some(image) = &card.image {
            let copied = ImageFolder::load(&folder.folder(IMAGE_FOLDER)).await?;
            check_encoder_hash(&card.version, IMAGE_FOLDER, &image.hash, &copied.hash)?;
        }
        folder.write(CARD_FILE, serde_json::to_vec_pretty(&card).map_err(Failure::bug)?).await?;
        Ok(card)
    }

    /// Returns the readable cards of all complete versions, oldest first; logs the unreadable ones.
    pub async fn versions(&self) -> Result<Vec<BundleCard>> {
        let mut cards = Vec::new();
        for version in self.0.children().await?.0 {
            let Some(bytes) = self.0.folder(&version).read_if_there(CARD_FILE).await? else { continue };
            match BundleCard::parse(&version, &bytes) {
                Ok(card) => cards.push(card),
                Err(failure) => tracing::warn!("{}", failure.message),
            }
        }
        cards.sort_by(|a, b| (&a.labels_end, &a.trained_at).cmp(&(&b.labels_end, &b.trained_at)));
        Ok(cards)
    }

    /// Points `champion` at a complete version. The pointer is one object, so the change is atomic.
    pub async fn promote(&self, version: &str) -> Result<()> {
        self.card(version).await?;
        self.0.write("champion", format!("{version}\n")).await
    }

    /// Reads the card of a version; refuses models of other kinds.
    pub(crate) async fn card(&self, version: &str) -> Result<BundleCard> {
        match self.0.folder(version).read_if_there(CARD_FILE).await? {
            Some(bytes) => BundleCard::parse(version, &bytes),
            None => Err(self.missing_card(version).await?),
        }
    }

    /// Explains why a version has no `bundle.json`: it is a model of another kind, or there is no such model.
    async fn missing_card(&self, version: &str) -> Result<Failure> {
        for (card, input, function) in OTHER_KINDS {
            if self.0.folder(version).read_if_there(card).await?.is_some() {
                return Ok(Failure::model(format!("{version}: expected a night's model, got one of {input}")).hint(
                    format!("{function}(...) calls it in SQL; nights need a model of `intentcast train --date`"),
                ));
            }
        }
        Ok(Failure::model(format!("{}: no such model", self.0.folder(version).url))
            .hint("`intentcast models` lists the versions; `intentcast train` makes one"))
    }

    /// Reads the card of the named version, or of the champion if `version` is empty.
    pub async fn resolve(&self, version: &str) -> Result<BundleCard> {
        if !version.is_empty() {
            return self.card(version).await;
        }
        match self.champion().await? {
            Some(champion) => self.card(&champion).await,
            None => Err(Failure::model(format!("{}champion: there is no model yet", self.0.url))
                .hint("run `intentcast train` with the same --lake and --output")),
        }
    }

    /// Loads a version, or the champion if `version` is empty, and checks its weights against the card.
    pub async fn load(&self, version: &str, device: Device) -> Result<Bundle> {
        let card = self.resolve(version).await?;
        let folder = self.0.folder(&card.version);
        let weights = read_verified(&folder, WEIGHTS_FILE, &card.weights_hash).await?;
        let trees = match &card.trees_hash {
            Some(hash) => {
                let bytes = read_verified(&folder, TREES_FILE, hash).await?;
                let trees = IntentTrees::from_bytes(&bytes, card.features.0.len());
                Some(Arc::new(trees.map_err(|f| damaged(f.at(format!("{}{TREES_FILE}", folder.url))))?))
            }
            None => None,
        };
        let demand_trees = match &card.demand_trees_hash {
            Some(hash) => {
                let bytes = read_verified(&folder, DEMAND_TREES_FILE, hash).await?;
                let trees = DemandTrees::from_bytes(&bytes, TREE_DAY_INPUTS, TREE_LEAD_TIME_INPUTS);
                Some(Arc::new(trees.map_err(|f| damaged(f.at(format!("{}{DEMAND_TREES_FILE}", folder.url))))?))
            }
            None => None,
        };
        let has_trees = |target: usize| trees.as_ref().is_some_and(|trees| trees.has(target));
        card.blend
            .check(has_trees)
            .and_then(|()| card.demand.blend.check())
            .and_then(|()| card.latest_items.map_or(Ok(()), |latest| latest.check()))
            .map_err(|f| damaged(f.at(format!("{}{CARD_FILE}", folder.url))))?;
        let items: Vec<IndexedItem> = serde_json::from_slice(&folder.read(ITEMS_FILE).await.map_err(damaged)?)
            .map_err(|e| Failure::model(format!("{}{ITEMS_FILE}: {e}", folder.url)))?;
        let vectors = folder.read(VECTORS_FILE).await.map_err(damaged)?;
        let item_vectors = ItemVectors::from_bytes(&vectors, items.len(), card.intent.width)
            .map_err(|f| damaged(f.at(format!("{}{VECTORS_FILE}", folder.url))))?;
        let mut networks = Networks::new(&card.intent, &card.demand, device);
        weights::from_bytes(&mut [&mut networks.intent_store, &mut networks.demand_store], &weights)
            .map_err(|f| damaged(f.at(format!("{}{WEIGHTS_FILE}", folder.url))))?;
        networks.freeze();
        networks.trees = trees;
        networks.demand.trees = demand_trees;
        Ok(Bundle { card, device, networks, items, item_vectors })
    }
}

/// Reads a file of a bundle; refuses one that is not as the card's hash says.
async fn read_verified(folder: &Location, name: &str, hash: &str) -> Result<Bytes> {
    let bytes = folder.read(name).await.map_err(damaged)?;
    if ContentHash::from_bytes(&bytes).short() != hash {
        let text = format!("{}{name}: checksum mismatch: the file changed since training", folder.url);
        return Err(damaged(Failure::model(text)));
    }
    Ok(bytes)
}

/// Copies the files of an encoder that are read: JSON and safetensors. Other files of its folder are skipped.
async fn copy_encoder(from: &Location, to: &Location) -> Result<()> {
    for file in from.list().await? {
        let name = file.location.prefix_match(&from.prefix).map(|rest| {
            let parts: Vec<String> = rest.map(|part| part.as_ref().to_string()).collect();
            parts.join("/")
        });
        let Some(name) = name.filter(|name| name.ends_with(".json") || name.ends_with(".safetensors")) else {
            continue;
        };
        to.write(&name, from.read(&name).await?).await?;
    }
    Ok(())
}
