//! Image classifiers in the registry: `models/image-DATE-HASH/` with `image.json`, `image/` (an encoder's folder, which
//! `ImageEncoder::open` reads as any other) and `head.safetensors`.
//!
//! As with table and text models, there is no `bundle.json`, so nothing that looks for a night's model can take one of them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor, nn};

use super::card::ImageCard;
use super::decode::{PictureLimits, Refused};
use super::encoder::ImageEncoder;
use super::folder::{CARD, ImageFolder, WEIGHTS};
use crate::failure::{Failure, Result};
use crate::model::bundle::Registry;
use crate::model::cards::{Card, bytes_of, check_files, damaged, read_part};
use crate::model::labels::{LabelHead, Labels};

/// The format that is written and read.
pub const IMAGE_FORMAT: u32 = 1;
/// The file that makes a folder of the registry an image classifier.
pub const IMAGE_CARD: &str = "image.json";
const HEAD: &str = "head.safetensors";
/// The folder with the encoder.
const ENCODER: &str = "image";

/// `image.json`: everything about an image classifier but its weights and what its encoder's own card says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageModelCard {
    pub format: u32,
    pub version: String,
    pub trained_at: String,
    /// The files or folders that were read.
    pub table: Vec<String>,
    pub image_column: String,
    /// How rows were split into training, validation and test.
    pub split: String,
    /// The folder whose encoder was taught, and its hash; both empty where it began with random weights.
    pub encoder: String,
    pub encoder_hash: String,
    pub strategy: String,
    pub kind: Labels,
    pub labels: Vec<String>,
    pub weights_hash: String,
    /// Figures on the test rows, by name.
    pub figures: BTreeMap<String, f64>,
    /// The `[model]`, `[train]` and `[image]` sections of the training, for people; nothing reads them.
    #[serde(default)]
    pub settings: serde_json::Value,
}

/// What a training hands over beside the card.
#[derive(Debug)]
pub struct ImageParts<'a> {
    /// Of the encoder.
    pub card: &'a ImageCard,
    /// By their names in the encoder's folder.
    pub encoder: Vec<(String, Tensor)>,
    pub head: Vec<(String, Tensor)>,
}

/// A loaded image classifier.
#[derive(Debug)]
pub struct ImageModel {
    pub card: ImageModelCard,
    encoder: ImageEncoder,
    head: LabelHead,
    /// Holds the weights of `head`.
    _store: nn::VarStore,
}

impl ImageModel {
    /// The probability of each label of each picture, or why a picture has none.
    pub fn probabilities(&self, pictures: &[&[u8]]) -> Result<Vec<Result<Vec<f64>, Refused>>> {
        let vectors = self.encoder.encode(pictures)?;
        let found: Vec<&Vec<f32>> = vectors.iter().filter_map(|vector| vector.as_ref().ok()).collect();
        if found.is_empty() {
            return Ok(vectors.into_iter().map(|vector| vector.map(|_| Vec::new())).collect());
        }
        let _guard = tch::no_grad_guard();
        let size = [found.len() as i64, self.encoder.width() as i64];
        let flat: Vec<f32> = found.into_iter().flatten().copied().collect();
        let inputs = Tensor::f_from_slice(&flat)?.f_view(size)?.f_to_device(self.encoder.device)?;
        let probabilities = self.head.probabilities(&self.head.raw(&inputs)?);
        let rows = Vec::<Vec<f64>>::try_from(probabilities.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?)?;
        let mut rows = rows.into_iter();
        let mut each = Vec::with_capacity(vectors.len());
        for vector in vectors {
            each.push(match vector {
                Err(refused) => Err(refused),
                Ok(_) => Ok(rows.next().ok_or_else(|| Failure::bug("fewer rows of probabilities than vectors"))?),
            });
        }
        Ok(each)
    }
}

impl Card for ImageModelCard {
    const KIND: &'static str = "image";
    const FILE: &'static str = IMAGE_CARD;
    const FORMAT: u32 = IMAGE_FORMAT;

    fn trained_at(&self) -> &str {
        &self.trained_at
    }

    fn seal(&mut self, version: String, weights_hash: String) {
        (self.version, self.weights_hash) = (version, weights_hash);
    }
}

impl Registry {
    /// Writes an image classifier.
    pub async fn write_image(&self, card: ImageModelCard, parts: ImageParts<'_>) -> Result<ImageModelCard> {
        let bytes_of = |named| bytes_of(ImageModelCard::KIND, named);
        let files = vec![
            (format!("{ENCODER}/{CARD}"), parts.card.to_bytes()?.into()),
            (format!("{ENCODER}/{WEIGHTS}"), bytes_of(&parts.encoder)?),
            (HEAD.into(), bytes_of(&parts.head)?),
        ];
        self.write_files(card, files).await
    }

    /// The card of an image classifier.
    pub async fn image_card(&self, version: &str) -> Result<ImageModelCard> {
        self.card_of(version).await
    }

    /// Loads an image classifier and checks its files against the card.
    pub async fn load_image(&self, version: &str, device: Device) -> Result<ImageModel> {
        let card = self.image_card(version).await?;
        let folder = self.0.folder(version);
        let read = ImageFolder::read(&folder.folder(ENCODER)).await.map_err(damaged)?;
        let head_bytes = folder.read(HEAD).await.map_err(damaged)?;
        let own = read.files.iter().map(|(name, bytes)| (format!("{ENCODER}/{name}"), bytes.clone()));
        let files: Vec<(String, Bytes)> = own.chain([(HEAD.to_string(), head_bytes.clone())]).collect();
        check_files(folder.url.as_str(), files, &card.weights_hash)?;
        let encoder = ImageEncoder::of(&read, device, PictureLimits::default()).map_err(damaged)?;
        let sizes = (read.card.width(), card.labels.len());
        let head = |path: &nn::Path<'_>| Ok(LabelHead::new(path, card.kind, sizes));
        let (head, store) = read_part((&head_bytes, format!("{}{HEAD}", folder.url)), device, head)?;
        Ok(ImageModel { card, encoder, head, _store: store })
    }
}
