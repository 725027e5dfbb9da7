//! A model bundle (an immutable folder) and the registry of bundles with its one champion pointer.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use tch::{Device, Kind, Tensor, nn};

use super::contents::{ContentKeys, ContentRows, Contents, rows_tensor};
use super::demand::{DemandNetwork, DemandShape};
use super::inputs::{CATEGORY_BUCKETS, bucket};
use super::intent::{IntentNetwork, IntentShape, Scaling};
use super::table::bundle::TABLE_CARD;
use super::text::bundle::TEXT_CARD;
use super::text::encoder::length_max;
use super::text::folder::TextFolder;
use super::vision::{IMAGE_CARD, ImageFolder};
use super::weights;
use crate::failure::{Failure, Result};
use crate::features::contract::FeatureContract;
use crate::lake::stores::Location;
use crate::metrics::drift::Deciles;

/// The format that is written and read. Another number is refused before anything else of a card is looked at.
pub const FORMAT: u32 = 4;

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
    /// What reads texts; its folder lies in the bundle, as `text/`.
    #[serde(default)]
    pub text: Option<TextCard>,
    /// What reads pictures; its folder lies in the bundle, as `image/`.
    #[serde(default)]
    pub image: Option<ImageEncoderCard>,
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
    /// The `[model]`, `[demand]` and `[train]` sections of the training, for people; nothing reads them.
    #[serde(default)]
    pub settings: serde_json::Value,
}

/// The pretrained network that reads texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextCard {
    /// Where its folder was in training.
    pub source: String,
    /// Of all that its vectors follow from.
    pub hash: String,
    /// Tokens of a text that are read; 0 where the folder says it.
    pub tokens_max: u32,
}

/// The network that reads pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageEncoderCard {
    /// Where its folder was in training.
    pub source: String,
    /// Of all that its vectors follow from.
    pub hash: String,
}

/// Models of other kinds: the file that tells one, what it is of, and what calls it.
const OTHERS: [(&str, &str, &str); 3] = [
    (TABLE_CARD, "a table", "predict_table"),
    (TEXT_CARD, "a text", "classify_text"),
    (IMAGE_CARD, "an image", "classify_image"),
];

/// The encoders' folders in a bundle.
pub const TEXT_FOLDER: &str = "text";
pub const IMAGE_FOLDER: &str = "image";

/// One item that the model can recommend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IndexedItem {
    pub item_id: String,
    pub category: Option<String>,
    /// What its title, picture and video say.
    pub contents: ContentKeys,
    /// How often it was met of late on a day on which it was there.
    pub met_per_day: f64,
}

impl IndexedItem {
    /// Buckets of the id and of the category (0 for none), as the event inputs have them.
    pub fn buckets(&self, item_buckets: u64) -> (i64, i64) {
        (bucket(&self.item_id, item_buckets), self.category_bucket())
    }

    fn category_bucket(&self) -> i64 {
        self.category.as_deref().map_or(0, |c| bucket(c, CATEGORY_BUCKETS))
    }
}

/// A loaded model: both networks on one device.
pub struct Bundle {
    pub card: BundleCard,
    pub device: Device,
    networks: Networks,
    /// The recommendation index.
    pub items: Vec<IndexedItem>,
    pub item_vectors: ItemVectors,
}

/// Items whose contents are gathered at once.
const MAPPED_ITEMS: usize = 8192;

/// What the network makes of the indexed items, on the CPU.
#[derive(Debug)]
pub struct ItemVectors {
    /// float32 [items, width].
    pub vectors: Tensor,
    /// float32 [items].
    pub bias: Tensor,
}

impl ItemVectors {
    /// `contents`: where the items' contents stand. `met`: whether training knew an item. The id of one that it did not
    /// know says nothing (its bucket may be another item's), so it is hidden, as now and then in training.
    fn of(
        network: &IntentNetwork,
        (items, met): (&[IndexedItem], impl Fn(&IndexedItem) -> bool),
        contents: &Contents,
        device: Device,
    ) -> Result<Self> {
        let buckets = |item: &IndexedItem| match met(item) {
            true => item.buckets(network.shape.item_buckets),
            false => (0, item.category_bucket()),
        };
        let on = |ids: &[i64]| -> Result<Tensor> { Ok(Tensor::f_from_slice(ids)?.f_to_device(device)?) };
        let _no_gradients = tch::no_grad_guard();
        // Of an empty catalogue, too, they have their shapes.
        let mut vectors = vec![Tensor::f_zeros([0, network.shape.width], (Kind::Float, Device::Cpu))?];
        let mut biases = vec![Tensor::f_zeros([0], (Kind::Float, Device::Cpu))?];
        // Some at a time: contents are much longer than what the network makes of them.
        for items in items.chunks(MAPPED_ITEMS) {
            let (ids, categories): (Vec<i64>, Vec<i64>) = items.iter().map(buckets).unzip();
            let rows: Vec<ContentRows> = items.iter().map(|item| contents.rows(&item.contents)).collect();
            let shown = contents.gather(&rows_tensor(&rows)?)?;
            let shown = shown.iter().map(|of| of.to(device)).collect::<Result<Vec<_>>>()?;
            let (mapped, bias) = network.items(&on(&ids)?, &on(&categories)?, &shown)?;
            vectors.push(mapped.f_to_device(Device::Cpu)?);
            biases.push(bias.f_to_device(Device::Cpu)?);
        }
        Ok(Self { vectors: Tensor::f_cat(&vectors, 0)?, bias: Tensor::f_cat(&biases, 0)? })
    }

    fn to_bytes(&self) -> Result<Vec<u8>> {
        let named = [("vectors", &self.vectors), ("bias", &self.bias)];
        weights::tensors_to_bytes(&named.map(|(name, tensor)| (name.to_string(), tensor.shallow_clone())))
    }

    fn from_bytes(bytes: &[u8], items: usize, width: i64) -> Result<Self> {
        let mut named = weights::tensors_from_bytes(bytes)?;
        let mut take = |name: &str, shape: &[i64]| match named.remove(name) {
            Some(tensor) if tensor.size() == shape => Ok(tensor),
            other => {
                let got = other.map_or("none".into(), |tensor| format!("{:?}", tensor.size()));
                Err(Failure::model(format!("{name}: expected the shape {shape:?}, got {got}")))
            }
        };
        Ok(Self { vectors: take("vectors", &[items as i64, width])?, bias: take("bias", &[items as i64])? })
    }
}

/// What bias training gave to items that are met so often: a line through the known items' by the log of how often, as the
/// best ranking without any taste has it. An item of after the training starts there.
#[derive(Debug)]
struct PopularityLine {
    at_mean: f64,
    mean_log: f64,
    slope: f64,
    /// Beyond these the line says nothing.
    logs: (f64, f64),
}

impl PopularityLine {
    /// `known`: how often an item is met, and its bias. `None` where there is none.
    fn of(known: &[(f64, f64)]) -> Option<Self> {
        let logs: Vec<f64> = known.iter().map(|(met, _)| met.ln_1p()).collect();
        let n = known.len() as f64;
        let (mean_log, at_mean) = (logs.iter().sum::<f64>() / n, known.iter().map(|(_, bias)| bias).sum::<f64>() / n);
        let both = logs.iter().zip(known).map(|(log, (_, bias))| (log - mean_log) * (bias - at_mean)).sum::<f64>();
        let spread = logs.iter().map(|log| (log - mean_log).powi(2)).sum::<f64>();
        let slope = if spread > 0.0 { (both / spread).max(0.0) } else { 0.0 };
        let least = logs.iter().copied().reduce(f64::min)?;
        let most = logs.iter().copied().reduce(f64::max)?;
        Some(Self { at_mean, mean_log, slope, logs: (least, most) })
    }

    fn at(&self, met: f64) -> f64 {
        self.at_mean + self.slope * (met.max(0.0).ln_1p().clamp(self.logs.0, self.logs.1) - self.mean_log)
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bundle({} on {:?})", self.card.version, self.device)
    }
}

/// Both networks, each with the store of its weights: training one must not touch the other's.
#[derive(Debug)]
pub struct Networks {
    pub intent: IntentNetwork,
    pub intent_store: nn::VarStore,
    pub demand: DemandNetwork,
    pub demand_store: nn::VarStore,
}

impl Networks {
    /// Fresh weights.
    pub fn new(intent: &IntentShape, demand: &DemandShape, device: Device) -> Self {
        let (intent_store, demand_store) = (nn::VarStore::new(device), nn::VarStore::new(device));
        Self {
            intent: IntentNetwork::new(&(intent_store.root() / "intent"), intent),
            intent_store,
            demand: DemandNetwork::new(&(demand_store.root() / "demand"), demand),
            demand_store,
        }
    }

    /// No weight is to change any more.
    fn freeze(&mut self) {
        self.intent_store.freeze();
        self.demand_store.freeze();
    }

    /// Networks of their own over the very same weights.
    fn share(&self, intent: &IntentShape, demand: &DemandShape, device: Device) -> Result<Self> {
        let mut other = Self::new(intent, demand, device);
        other.freeze();
        for (own, theirs) in [(&self.intent_store, &other.intent_store), (&self.demand_store, &other.demand_store)] {
            let weights = own.variables();
            for (name, mut variable) in theirs.variables() {
                let shared = weights.get(&name).ok_or_else(|| Failure::bug(format!("no weight {name} to share")))?;
                // The variable and the network's layer are one object in libtorch; both now read the shared memory.
                variable.f_set_data(shared)?;
            }
        }
        Ok(other)
    }
}

/// How many numbers a store holds.
pub fn parameters(store: &nn::VarStore) -> i64 {
    store.variables().values().map(|t| t.numel() as i64).sum()
}

/// The registry folder: `<output>/models`.
#[derive(Debug, Clone)]
pub struct Registry(pub Location);

impl Registry {
    /// Writes a bundle; the card goes last, so that a version with a card is whole. `encoders`: folders that it takes along.
    pub async fn write(
        &self,
        mut card: BundleCard,
        networks: &Networks,
        (items, contents): (&[IndexedItem], &Contents),
        encoders: &[(&str, Location)],
    ) -> Result<BundleCard> {
        let weights = weights::to_bytes(&[&networks.intent_store, &networks.demand_store])?;
        let hash = blake3::hash(&weights).to_hex();
        card.weights_hash = hash[..16].to_string();
        card.version = format!("{}-{}", card.labels_end.replace('-', ""), &hash[..8]);
        card.items = items.len() as u64;
        let folder = self.0.folder(&card.version);
        folder.write("weights.safetensors", weights).await?;
        folder.write("item_index/items.json", serde_json::to_vec(items).map_err(Failure::bug)?).await?;
        let device = networks.intent_store.device();
        let vectors = ItemVectors::of(&networks.intent, (items, |_: &IndexedItem| true), contents, device)?;
        folder.write("item_index/vectors.safetensors", vectors.to_bytes()?).await?;
        for (name, source) in encoders {
            copy_encoder(source, &folder.folder(name)).await?;
        }
        // It was read before the training began, and may be another one by now.
        if let Some(text) = &card.text {
            let read = TextFolder::load(&folder.folder(TEXT_FOLDER), length_max(text.tokens_max)).await?;
            refuse_other_encoder(&card.version, TEXT_FOLDER, &text.hash, &read.hash)?;
        }
        if let Some(image) = &card.image {
            let read = ImageFolder::load(&folder.folder(IMAGE_FOLDER)).await?;
            refuse_other_encoder(&card.version, IMAGE_FOLDER, &image.hash, &read.hash)?;
        }
        folder.write("calibration.json", "{\"method\": \"identity\"}\n").await?;
        folder.write("bundle.json", serde_json::to_vec_pretty(&card).map_err(Failure::bug)?).await?;
        Ok(card)
    }

    /// The cards of all whole versions that can be read, oldest first; the log names the others.
    pub async fn versions(&self) -> Result<Vec<BundleCard>> {
        let mut cards = Vec::new();
        for version in self.0.children().await?.0 {
            let Some(bytes) = self.0.folder(&version).read_if_there("bundle.json").await? else { continue };
            match parse(&version, &bytes) {
                Ok(card) => cards.push(card),
                Err(failure) => tracing::warn!("{}", failure.message),
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
            None => Err(self.not_of_a_night(version).await?),
        }
    }

    /// Why a version without a night's card is none that a night can take.
    async fn not_of_a_night(&self, version: &str) -> Result<Failure> {
        for (card, of, function) in OTHERS {
            if self.0.folder(version).read_if_there(card).await?.is_some() {
                return Ok(Failure::model(format!("{version}: expected a night's model, got one of {of}")).hint(
                    format!("{function}(...) calls it in SQL; nights need one that `intentcast train --date` made"),
                ));
            }
        }
        Ok(Failure::model(format!("{}: no such model", self.0.folder(version).url))
            .hint("`intentcast models` lists the versions; `intentcast train` makes one"))
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
        let items: Vec<IndexedItem> =
            serde_json::from_slice(&folder.read("item_index/items.json").await.map_err(damaged)?)
                .map_err(|e| Failure::model(format!("{}item_index/items.json: {e}", folder.url)))?;
        let vectors = folder.read("item_index/vectors.safetensors").await.map_err(damaged)?;
        let item_vectors = ItemVectors::from_bytes(&vectors, items.len(), card.intent.width)
            .map_err(|f| damaged(f.at(format!("{}item_index/vectors.safetensors", folder.url))))?;
        let mut networks = Networks::new(&card.intent, &card.demand, device);
        weights::from_bytes(&mut [&mut networks.intent_store, &mut networks.demand_store], &weights)
            .map_err(|f| damaged(f.at(format!("{}weights.safetensors", folder.url))))?;
        networks.freeze();
        Ok(Bundle { card, device, networks, items, item_vectors })
    }
}

impl Bundle {
    /// The same model for another thread: networks of its own over the very same weights.
    pub fn share(&self) -> Result<Bundle> {
        let networks = self.networks.share(&self.card.intent, &self.card.demand, self.device)?;
        let ItemVectors { vectors, bias } = &self.item_vectors;
        let item_vectors = ItemVectors { vectors: vectors.shallow_clone(), bias: bias.shallow_clone() };
        Ok(Bundle { card: self.card.clone(), device: self.device, networks, items: self.items.clone(), item_vectors })
    }

    /// Of items of which training may not have known all.
    pub fn vectors_of(&self, items: &[IndexedItem], contents: &Contents) -> Result<ItemVectors> {
        let known: HashSet<&str> = self.items.iter().map(|item| item.item_id.as_str()).collect();
        let met = |item: &IndexedItem| known.contains(item.item_id.as_str());
        let ItemVectors { vectors, bias } =
            ItemVectors::of(&self.networks.intent, (items, met), contents, self.device)?;
        let mut biases = Vec::<f32>::try_from(&bias)?;
        let pairs: Vec<(f64, f64)> =
            items.iter().zip(&biases).filter(|(i, _)| met(i)).map(|(i, &b)| (i.met_per_day, b.into())).collect();
        if let Some(line) = PopularityLine::of(&pairs) {
            let new = items.iter().zip(&mut biases).filter(|(item, _)| !met(item));
            new.for_each(|(item, bias)| *bias = line.at(item.met_per_day) as f32);
        }
        Ok(ItemVectors { vectors, bias: Tensor::f_from_slice(&biases)? })
    }

    pub fn intent(&self) -> &IntentNetwork {
        &self.networks.intent
    }

    pub fn demand(&self) -> &DemandNetwork {
        &self.networks.demand
    }

    /// Every weight by name, of the intent network and of the demand network.
    pub fn weights(&self) -> BTreeMap<String, Tensor> {
        self.networks.intent_store.variables().into_iter().chain(self.networks.demand_store.variables()).collect()
    }

    /// Number of weights.
    pub fn parameters(&self) -> i64 {
        parameters(&self.networks.intent_store) + parameters(&self.networks.demand_store)
    }
}

/// The files that an encoder is read from; others of its folder are left.
/// Refuses an encoder that is not the one whose vectors a model learnt from. Hashes may be cut, and their precision differs from
/// machine to machine: the first digits tell.
pub fn refuse_other_encoder(version: &str, folder: &str, trained: &str, here: &str) -> Result<()> {
    let digits = |hash: &str| hash.get(..16).unwrap_or(hash).to_string();
    match digits(trained) == digits(here) {
        true => Ok(()),
        false => Err(Failure::model(format!(
            "models/{version}/{folder}: expected the encoder {}, by which the model was trained, got {}: its files were changed",
            digits(trained),
            digits(here)
        ))
        .hint(format!("put the files of {folder}/ back, or train again with an encoder that stays as it is meanwhile"))),
    }
}

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

fn damaged(failure: Failure) -> Failure {
    Failure { kind: crate::failure::FailureKind::Model, ..failure }.hint("train again, or promote another version")
}

fn parse(version: &str, bytes: &[u8]) -> Result<BundleCard> {
    let refuse = |text: String| Failure::model(format!("models/{version}/bundle.json: {text}"));
    let card: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| damaged(refuse(e.to_string())))?;
    match card.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format > FORMAT.into() => {
            return Err(refuse(format!("expected format {FORMAT}, got {format}, which a newer intentcast wrote"))
                .hint("upgrade intentcast here, or promote another version"));
        }
        Some(format) if format < FORMAT.into() => {
            return Err(damaged(refuse(format!("expected format {FORMAT}, got {format}, which an older one wrote"))));
        }
        _ => {}
    }
    serde_json::from_value(card).map_err(|e| damaged(refuse(e.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_item_has_the_bias_of_known_ones_that_are_met_as_often() {
        let known = [(0.0, -1.0), (f64::exp(1.0) - 1.0, 0.0), (f64::exp(2.0) - 1.0, 1.0)];
        let line = PopularityLine::of(&known).unwrap();
        for (met, bias) in known {
            assert!((line.at(met) - bias).abs() < 1e-9, "{line:?}");
        }
        assert!((line.at(1e9) - 1.0).abs() < 1e-9 && (line.at(-3.0) + 1.0).abs() < 1e-9, "{line:?}");
        assert!(PopularityLine::of(&[]).is_none());
        assert_eq!(PopularityLine::of(&[(2.0, 0.5), (2.0, 1.5)]).unwrap().at(9.0), 1.0);
        assert_eq!(
            PopularityLine::of(&[(1.0, 1.0), (2.0, 0.0)]).unwrap().at(1.0),
            0.5,
            "popularity never speaks against"
        );
    }
}
