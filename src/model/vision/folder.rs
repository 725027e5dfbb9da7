//! Loads the folder of an image encoder: `config.json` and `model.safetensors`. Training takes the weights from here;
//! scoring uses [`super::encoder::ImageEncoder`].

use bytes::Bytes;
use tch::{Device, nn};

use super::encoder_card::ImageEncoderCard;
use super::network::{ImageNetwork, load_weights};
use crate::failure::{Failure, Result};
use crate::ids::ContentHash;
use crate::lake::stores::Location;

pub(crate) const CARD: &str = "config.json";
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// Part of the hash. Raise it when decoding or resizing gives other pixels than before, so that cached vectors are
/// renewed.
const DECODING: &[u8] = b"intentcast pictures 1";

#[derive(Debug)]
pub(crate) struct ImageFolder {
    pub(crate) card: ImageEncoderCard,
    /// A hash of everything that a vector depends on besides its picture.
    pub(crate) hash: String,
    /// The names and bytes of both files.
    pub(crate) files: [(&'static str, Bytes); 2],
    /// Names the weights file in messages.
    weights_url: String,
}

impl ImageFolder {
    /// Reads both files. Refuses a missing file or an invalid card.
    pub(crate) async fn load(folder: &Location) -> Result<Self> {
        let card_bytes = read_required(folder, CARD).await?;
        let card = ImageEncoderCard::from_bytes(&card_bytes).map_err(|f| f.at(display_path(folder, CARD)))?;
        let weights = read_required(folder, WEIGHTS).await?;
        let hash = hash_folder(&card, &weights)?;
        let files = [(CARD, card_bytes), (WEIGHTS, weights)];
        Ok(Self { card, hash, files, weights_url: display_path(folder, WEIGHTS) })
    }

    /// Builds the network with its weights. Refuses by name weights that are missing, unused, misshapen or not finite.
    pub(crate) fn network(&self, device: Device) -> Result<(nn::VarStore, ImageNetwork)> {
        let mut store = nn::VarStore::new(device);
        let network = ImageNetwork::new(&store.root(), &self.card);
        let [_, (_, weights)] = &self.files;
        load_weights(&mut store, weights).map_err(|f| {
            let hint = format!("expected the weights of {:?} under torchvision's names", self.card.architecture);
            f.at(&self.weights_url).hint(hint)
        })?;
        Ok((store, network))
    }
}

async fn read_required(folder: &Location, name: &str) -> Result<Bytes> {
    let found = folder.read_if_there(name).await?;
    found.ok_or_else(|| {
        Failure::model(format!("{} is missing", display_path(folder, name)))
            .hint("an image encoder is a folder with config.json and model.safetensors; see docs/models/vision.md")
    })
}

fn display_path(folder: &Location, name: &str) -> String {
    folder.display(&folder.path(name))
}

fn hash_folder(card: &ImageEncoderCard, weights: &[u8]) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let card = card.to_bytes()?;
    hasher.update(DECODING).update(&(card.len() as u64).to_le_bytes()).update(&card).update(weights);
    Ok(ContentHash::from_hasher(&hasher).full())
}
