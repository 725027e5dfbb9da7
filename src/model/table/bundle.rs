//! Writes and loads table models in the registry: `models/table-DATE-HASH/` with `table.json` and
//! `weights.safetensors`.
//!
//! There is no `bundle.json`, so a night can never take such a model, neither by name nor as champion.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::{Device, Tensor, nn};

use super::columns::{TableColumns, TableInputs};
use super::network::{TableBatch, TableLabel, TableNetwork, TableShape, row_indices};
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
/// Rows per forward pass.
const BATCH_ROWS: usize = 8192;

/// The contents of `table.json`: everything about a table model except its weights.
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
    /// Owns the weights of `network`.
    _store: nn::VarStore,
}

impl TableModel {
    /// Predicts one label, given by its index in the card, for all rows.
    pub(crate) fn predict(&self, inputs: &TableInputs, label: usize) -> Result<Vec<f64>> {
        let _guard = tch::no_grad_guard();
        let kind = self.card.labels[label].kind;
        let all_rows = TableBatch::from_inputs(inputs, &self.network.shape)?;
        let rows: Vec<usize> = (0..inputs.rows).collect();
        let mut predictions = Vec::with_capacity(inputs.rows);
        for chunk in rows.chunks(BATCH_ROWS) {
            let raw = self.network.raw_outputs(&all_rows.select(&row_indices(chunk)?)?, false)?;
            predictions.extend(to_vec(&kind.prediction(&raw, label)?)?);
        }
        Ok(predictions)
    }
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
    pub(crate) async fn write_table(&self, mut card: TableCard, store: &nn::VarStore) -> Result<TableCard> {
        let weights = weights::to_bytes(&[store])?;
        let hash = ContentHash::from_bytes(&weights).short();
        let day: String = card.trained_at.chars().filter(char::is_ascii_digit).take(8).collect();
        card.seal(format!("table-{day}-{}", &hash[..8]), hash);
        let folder = self.0.folder(&card.version);
        folder.write(WEIGHTS, weights).await?;
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
        let mut store = nn::VarStore::new(device);
        let network = TableNetwork::new(&store.root(), &card.shape);
        weights::from_bytes(&mut [&mut store], &weights)
            .map_err(|f| damaged(f.at(format!("{}{WEIGHTS}", folder.url))))?;
        store.freeze();
        Ok(TableModel { card, network, _store: store })
    }
}
