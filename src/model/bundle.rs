//! A model bundle (an immutable folder) and the registry of bundles with its one champion pointer.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use tch::{Device, nn};

use super::demand::{DemandNetwork, DemandShape};
use super::inputs::{CATEGORY_BUCKETS, bucket};
use super::intent::{IntentNetwork, IntentShape, Scaling};
use crate::failure::{Failure, Result};
use crate::features::contract::FeatureContract;
use crate::lake::stores::Location;
use crate::metrics::drift::Deciles;

/// `bundle.json`: everything about a model but its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BundleCard {
    pub format: u32,
    pub version: String,
    pub trained_at: String,
    /// Nothing on or after this date was read in training.
    pub labels_end: String,
    pub as_of_dates: Vec<String>,
    pub intent: IntentShape,
    pub scaling: Scaling,
    pub demand: DemandShape,
    pub features: FeatureContract,
    pub features_fingerprint: String,
    /// Deciles of each feature over the training rows, in the network's scale: what drift is measured against. Cards of
    /// earlier versions have none.
    #[serde(default)]
    pub feature_deciles: BTreeMap<String, Deciles>,
    pub horizon_days: u32,
    pub churn_days: u32,
    pub sql_fingerprint: String,
    pub input_fingerprint: String,
    pub weights_hash: String,
    /// Items that the model can recommend.
    pub items: u64,
    /// Figures on the held-out test users and dates, by name.
    pub figures: BTreeMap<String, f64>,
}

/// One item that the model can recommend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedItem {
    pub item_id: String,
    pub category: Option<String>,
}

impl IndexedItem {
    /// Buckets of the id and of the category (0 for none), as the event inputs have them.
    pub fn buckets(&self, item_buckets: u64) -> (i64, i64) {
        let category = self.category.as_deref().map_or(0, |c| bucket(c, CATEGORY_BUCKETS));
        (bucket(&self.item_id, item_buckets), category)
    }
}

/// A loaded model: both networks on one device.
pub struct Bundle {
    pub card: BundleCard,
    pub device: Device,
    pub intent: IntentNetwork,
    pub demand: DemandNetwork,
    /// The recommendation index.
    pub items: Vec<IndexedItem>,
    store: nn::VarStore,
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bundle({} on {:?})", self.card.version, self.device)
    }
}

/// Builds both networks in one variable store.
pub fn networks(
    intent: &IntentShape,
    demand: &DemandShape,
    device: Device,
) -> (nn::VarStore, IntentNetwork, DemandNetwork) {
    let store = nn::VarStore::new(device);
    let networks = (
        IntentNetwork::new(&(store.root() / "intent"), intent),
        DemandNetwork::new(&(store.root() / "demand"), demand),
    );
    (store, networks.0, networks.1)
}

/// The registry folder: `<output>/models`.
#[derive(Debug, Clone)]
pub struct Registry(pub Location);

impl Registry {
    /// Writes a bundle; the card goes last, so that a version with a card is whole.
    pub async fn write(&self, mut card: BundleCard, store: &nn::VarStore, items: &[IndexedItem]) -> Result<BundleCard> {
        let weights = save(store)?;
        let hash = blake3::hash(&weights).to_hex();
        card.weights_hash = hash[..16].to_string();
        card.version = format!("{}-{}", card.labels_end.replace('-', ""), &hash[..8]);
        card.items = items.len() as u64;
        let folder = self.0.folder(&card.version);
        folder.write("weights.safetensors", weights).await?;
        folder.write("item_index/items.json", serde_json::to_vec(items).map_err(Failure::bug)?).await?;
        folder.write("calibration.json", "{\"method\": \"identity\"}\n").await?;
        folder.write("bundle.json", serde_json::to_vec_pretty(&card).map_err(Failure::bug)?).await?;
        Ok(card)
    }

    /// The cards of all whole versions, oldest first.
    pub async fn versions(&self) -> Result<Vec<BundleCard>> {
        let mut cards = Vec::new();
        for version in self.0.children().await?.0 {
            if let Some(bytes) = self.0.folder(&version).read_if_there("bundle.json").await? {
                cards.push(parse(&version, &bytes)?);
            }
        }
        cards.sort_by(|a, b| (&a.labels_end, &a.trained_at).cmp(&(&b.labels_end, &b.trained_at)));
        Ok(cards)
    }

    pub async fn champion(&self) -> Result<Option<String>> {
        let pointer = self.0.read_if_there("champion").await?;
        Ok(pointer.map(|b| String::from_utf8_lossy(&b).trim().to_string()))
    }

    /// Points `champion` at a whole version; one object, so the change is atomic.
    pub async fn promote(&self, version: &str) -> Result<()> {
        self.card(version).await?;
        self.0.write("champion", format!("{version}\n")).await
    }

    pub async fn card(&self, version: &str) -> Result<BundleCard> {
        match self.0.folder(version).read_if_there("bundle.json").await? {
            Some(bytes) => parse(version, &bytes),
            None => Err(Failure::model(format!("{}: no such model", self.0.folder(version).url))
                .hint("`intentcast models` lists the versions; `intentcast train` makes one")),
        }
    }

    /// The named version, or the champion where `version` is empty.
    pub async fn resolve(&self, version: &str) -> Result<BundleCard> {
        let version = match (version, self.champion().await?) {
            ("", Some(champion)) => champion,
            ("", None) => {
                return Err(Failure::model(format!("{}champion: there is no model yet", self.0.url))
                    .hint("run `intentcast train` with the same --lake and --output"));
            }
            (named, _) => named.into(),
        };
        self.card(&version).await
    }

    /// Loads a version whole and checks its weights against the card.
    pub async fn load(&self, version: &str, device: Device) -> Result<Bundle> {
        let card = self.resolve(version).await?;
        let folder = self.0.folder(&card.version);
        let weights = folder.read("weights.safetensors").await.map_err(damaged)?;
        if blake3::hash(&weights).to_hex()[..16] != card.weights_hash {
            return Err(damaged(Failure::model(format!(
                "{}weights.safetensors: not the bytes that were trained",
                folder.url
            ))));
        }
        let items = serde_json::from_slice(&folder.read("item_index/items.json").await.map_err(damaged)?)
            .map_err(|e| Failure::model(format!("{}item_index/items.json: {e}", folder.url)))?;
        let (mut store, intent, demand) = networks(&card.intent, &card.demand, device);
        load(&mut store, &weights).map_err(|f| f.at(folder.url.as_str()))?;
        store.freeze();
        Ok(Bundle { card, device, intent, demand, items, store })
    }
}

impl Bundle {
    /// The same model for another thread: networks of its own over the very same weights.
    pub fn share(&self) -> Result<Bundle> {
        let (mut store, intent, demand) = networks(&self.card.intent, &self.card.demand, self.device);
        store.freeze();
        let weights = self.store.variables();
        for (name, mut variable) in store.variables() {
            let shared = weights.get(&name).ok_or_else(|| Failure::bug(format!("no weight {name} to share")))?;
            // The variable and the network's layer are one object in libtorch; both now read the shared memory.
            variable.f_set_data(shared)?;
        }
        let items = self.items.clone();
        Ok(Bundle { card: self.card.clone(), device: self.device, intent, demand, items, store })
    }

    /// Number of weights.
    pub fn parameters(&self) -> i64 {
        self.store.variables().values().map(|t| t.numel() as i64).sum()
    }
}

fn damaged(failure: Failure) -> Failure {
    Failure { kind: crate::failure::FailureKind::Model, ..failure }.hint("train again, or promote another version")
}

fn parse(version: &str, bytes: &[u8]) -> Result<BundleCard> {
    serde_json::from_slice(bytes).map_err(|e| damaged(Failure::model(format!("models/{version}/bundle.json: {e}"))))
}

/// libtorch's bindings read and write safetensors by path only; the bytes pass through a temporary file.
fn save(store: &nn::VarStore) -> Result<Vec<u8>> {
    let path = temporary();
    store.save(&path)?;
    let bytes = std::fs::read(&path).map_err(|e| Failure::passing(format!("{}: {e}", path.display())))?;
    std::fs::remove_file(&path).unwrap_or_default();
    Ok(bytes)
}

fn load(store: &mut nn::VarStore, weights: &[u8]) -> Result<()> {
    let path = temporary();
    std::fs::write(&path, weights).map_err(|e| Failure::passing(format!("{}: {e}", path.display())))?;
    let loaded = store.load(&path);
    std::fs::remove_file(&path).unwrap_or_default();
    loaded.map_err(|e| Failure::model(format!("weights.safetensors: {}", e.to_string().lines().next().unwrap_or(""))))
}

fn temporary() -> std::path::PathBuf {
    std::env::temp_dir().join(format!("intentcast-{}.safetensors", uuid::Uuid::new_v4()))
}
