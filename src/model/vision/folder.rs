//! The folder of an image encoder, read whole: `config.json` and `model.safetensors`. Who trains takes the weights from
//! here; who only wants vectors takes [`super::encoder::ImageEncoder`].

use bytes::Bytes;
use tch::{Device, nn};

use super::card::ImageCard;
use super::network::{ImageNetwork, load};
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;

/// The names of its files.
pub const CARD: &str = "config.json";
pub const WEIGHTS: &str = "model.safetensors";
/// Part of the hash: raised when decoding or resizing gives other pixels than before, so that kept vectors are renewed.
const DECODING: &[u8] = b"intentcast pictures 1";

#[derive(Debug)]
pub struct ImageFolder {
    pub card: ImageCard,
    /// Of all that a vector follows from besides its picture.
    pub hash: String,
    /// Both files, by their names, as they are.
    pub files: [(&'static str, Bytes); 2],
    /// What refusals call the weights.
    weights_url: String,
}

impl ImageFolder {
    /// Reads both files; refuses one that is missing and a card that says what is not known.
    pub async fn read(folder: &Location) -> Result<Self> {
        let card_bytes = read(folder, CARD).await?;
        let card = ImageCard::from_bytes(&card_bytes).map_err(|f| f.at(named(folder, CARD)))?;
        let weights = read(folder, WEIGHTS).await?;
        let hash = hash(&card, &weights)?;
        let files = [(CARD, card_bytes), (WEIGHTS, weights)];
        Ok(Self { card, hash, files, weights_url: named(folder, WEIGHTS) })
    }

    /// The network with its weights. Refuses weights that are missing, left over, of another shape or not finite, each by
    /// its name.
    pub fn network(&self, device: Device) -> Result<(nn::VarStore, ImageNetwork)> {
        let mut store = nn::VarStore::new(device);
        let network = ImageNetwork::new(&store.root(), &self.card);
        let [_, (_, weights)] = &self.files;
        load(&mut store, weights).map_err(|f| {
            let hint = format!("expected the weights of {:?} under torchvision's names", self.card.architecture);
            f.at(&self.weights_url).hint(hint)
        })?;
        Ok((store, network))
    }
}

async fn read(folder: &Location, name: &str) -> Result<Bytes> {
    let found = folder.read_if_there(name).await?;
    found.ok_or_else(|| {
        Failure::model(format!("{} is missing", named(folder, name)))
            .hint("an image encoder is a folder with config.json and model.safetensors; see docs/models/vision.md")
    })
}

fn named(folder: &Location, name: &str) -> String {
    folder.display(&folder.path(name))
}

fn hash(card: &ImageCard, weights: &[u8]) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let card = card.to_bytes()?;
    hasher.update(DECODING).update(&(card.len() as u64).to_le_bytes()).update(&card).update(weights);
    Ok(hasher.finalize().to_hex().to_string())
}
