//! Writes and loads table models in the registry: `models/table-DATE-HASH/` with `table.json`, `weights.safetensors` and, where there
//! are trees, `trees.safetensors`.
//!
//! There is no `bundle.json`, so a night can never take such a model, neither by name nor as champion.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::{Device, Tensor, nn};

use super::columns::{TableColumns, TableInputs};
use super::network::{TableBatch, TableLabel, TableLabelKind, TableNetwork, TableShape, row_indices};
use super::trees::{TableTrees, blended, rows_for_trees};
use crate::failure::{Failure, Result};
use crate::ids::ContentHash;
use crate::model::cards::{Card, damaged};
use crate::model::registry::Registry;
use crate::model::weights;

/// The format version of `table.json`.
pub(crate) const TABLE_FORMAT: u32 = 1;
/// The card, whose presence marks a folder of the registry as a table model.
pub(crate) const TABLE_CARD: &str = "table.json";
const WEIGHTS: &str = "weights.safetensors";
const TREES: &str = "trees.safetensors";
/// Rows per forward pass.
const BATCH_ROWS: usize = 8192;

/// The contents of `table.json`: everything about a table model except its weights and trees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableCard {
    pub(crate) format: u32,
    pub(crate) version: String,
    pub(crate) trained_at: String,
    /// The files or folders of the training table.
    pub(crate) table: Vec<String>,
    /// Description of the split into training, validation and test, for people.
    pub split: String,
    pub columns: TableColumns,
    pub(crate) labels: Vec<TableLabel>,
    pub(crate) shape: TableShape,
    pub(crate) weights_hash: String,
    /// Hash of the trees' file; none for a model without trees.
    #[serde(default)]
    pub(crate) trees_hash: Option<String>,
    /// The network's weight in the blend with the trees, of each label that has trees, by its place in `labels`.
    #[serde(default)]
    pub(crate) network_weights: BTreeMap<usize, f64>,
    /// Figures on the test rows.
    pub figures: BTreeMap<String, f64>,
    /// The `[model]`, `[train]` and `[table]` settings of the training, for people; nothing reads them.
    #[serde(default)]
    pub(crate) settings: serde_json::Value,
}

/// A loaded table model.
#[derive(Debug)]
pub(crate) struct TableModel {
    pub(crate) card: TableCard,
    network: TableNetwork,
    trees: TableTrees,
    /// Owns the weights of `network`.
    _store: nn::VarStore,
}

impl TableModel {
    /// Predicts one label, given by its index in the card, for all rows.
    pub(crate) fn predict(&self, inputs: &TableInputs, label: usize) -> Result<Vec<f64>> {
        let rows: Vec<usize> = (0..inputs.rows).collect();
        let mut predictions = predictions(&self.network, inputs, &rows, (label, self.card.labels[label].kind))?;
        if let Some(weight) = self.card.network_weights.get(&label) {
            let (rows, width) = rows_for_trees(inputs);
            let of_trees = self.trees.log_odds(&rows, width, label);
            for (prediction, trees) in predictions.iter_mut().zip(of_trees.unwrap_or_default()) {
                *prediction = blended(*weight, *prediction, trees);
            }
        }
        Ok(predictions)
    }
}

/// Predicts one label of a network, given by its place and kind, for some rows.
pub(crate) fn predictions(
    network: &TableNetwork,
    inputs: &TableInputs,
    rows: &[usize],
    (label, kind): (usize, TableLabelKind),
) -> Result<Vec<f64>> {
    let _guard = tch::no_grad_guard();
    let all_rows = TableBatch::from_inputs(inputs, &network.shape)?;
    let mut predictions = Vec::with_capacity(rows.len());
    for chunk in rows.chunks(BATCH_ROWS) {
        let raw = network.raw_outputs(&all_rows.select(&row_indices(chunk)?)?, false)?;
        predictions.extend(to_vec(&kind.prediction(&raw, label)?)?);
    }
    Ok(predictions)
}

/// Returns a tensor's numbers, in order.
pub(crate) fn to_vec(tensor: &Tensor) -> Result<Vec<f64>> {
    let flat = tensor.f_to_device(Device::Cpu)?.f_to_kind(tch::Kind::Double)?.f_contiguous()?.f_view([-1])?;
    Ok(Vec::<f64>::try_from(&flat)?)
}

impl Card for TableCard {
    const KIND: &'static str = "table";
    const FILE: &'static str = TABLE_CARD;
    const FORMAT: u32 = TABLE_FORMAT;

    fn version(&self) -> &str {
        &self.version
    }

    fn trained_at(&self) -> &str {
        &self.trained_at
    }

    fn weights_hash(&self) -> &str {
        &self.weights_hash
    }

    fn seal(&mut self, version: String, weights_hash: String) {
        (self.version, self.weights_hash) = (version, weights_hash);
    }
}

impl Registry {
    /// Writes a table model. The card is written last, so that a version with a card is complete.
    pub(crate) async fn write_table(
        &self,
        mut card: TableCard,
        store: &nn::VarStore,
        trees: &TableTrees,
    ) -> Result<TableCard> {
        let weights = weights::to_bytes(&[store])?;
        let hash = ContentHash::from_bytes(&weights).short();
        let trees = if trees.0.is_empty() { None } else { Some(trees.to_bytes()?) };
        card.trees_hash = trees.as_ref().map(|trees| ContentHash::from_bytes(trees).short());
        // Other trees make another model.
        let both = match &card.trees_hash {
            Some(of_trees) => ContentHash::from_bytes(format!("{hash}{of_trees}").as_bytes()).short(),
            None => hash.clone(),
        };
        let day: String = card.trained_at.chars().filter(char::is_ascii_digit).take(8).collect();
        card.seal(format!("table-{day}-{}", &both[..8]), hash);
        let folder = self.0.folder(&card.version);
        folder.write(WEIGHTS, weights).await?;
        if let Some(trees) = trees {
            folder.write(TREES, trees).await?;
        }
        folder.write(TABLE_CARD, serde_json::to_vec_pretty(&card).map_err(Failure::bug)?).await?;
        Ok(card)
    }

    /// Loads a table model and checks its weights against the card.
    pub(crate) async fn load_table(&self, version: &str, device: Device) -> Result<TableModel> {
        let card: TableCard = self.card_of(version).await?;
        let folder = self.0.folder(version);
        let weights = folder.read(WEIGHTS).await.map_err(damaged)?;
        if ContentHash::from_bytes(&weights).short() != card.weights_hash {
            let text = format!("{}{WEIGHTS}: checksum mismatch: the file changed since training", folder.url);
            return Err(damaged(Failure::model(text)));
        }
        let trees = match &card.trees_hash {
            None => TableTrees::default(),
            Some(expected) => {
                let bytes = folder.read(TREES).await.map_err(damaged)?;
                if ContentHash::from_bytes(&bytes).short() != *expected {
                    let text = format!("{}{TREES}: checksum mismatch: the file changed since training", folder.url);
                    return Err(damaged(Failure::model(text)));
                }
                let width = (card.shape.reals as usize) + card.shape.category_counts.len();
                TableTrees::from_bytes(&bytes, card.labels.len(), width)
                    .map_err(|f| damaged(f.at(format!("{}{TREES}", folder.url))))?
            }
        };
        let mut store = nn::VarStore::new(device);
        let network = TableNetwork::new(&store.root(), &card.shape);
        weights::from_bytes(&mut [&mut store], &weights)
            .map_err(|f| damaged(f.at(format!("{}{WEIGHTS}", folder.url))))?;
        store.freeze();
        Ok(TableModel { card, network, trees, _store: store })
    }
}
