//! Writes and loads image classifiers in the registry: `models/image-DATE-HASH/` with `image.json`, `image/` (an
//! encoder's folder, which `ImageEncoder::open` loads like any other) and `head.safetensors`.
//!
//! There is no `bundle.json`, so a night can never take such a model.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor, nn};

use super::decode::PictureLimits;
use super::encoder::ImageEncoder;
use super::encoder_card::ImageEncoderCard;
use super::folder::{CARD, ImageFolder, WEIGHTS};
use super::picture_error::PictureError;
use crate::failure::{Failure, Result};
use crate::model::cards::{Card, bytes_of, check_files, damaged, read_part};
use crate::model::labels::{HeadSizes, LabelHead, LabelStructure};
use crate::model::registry::Registry;

/// The format version of `image.json`.
pub(crate) const IMAGE_FORMAT: u32 = 1;
/// The card, whose presence marks a folder of the registry as an image classifier.
pub(crate) const IMAGE_CARD: &str = "image.json";
const HEAD: &str = "head.safetensors";
/// The subfolder of the encoder.
const ENCODER: &str = "image";

/// The contents of `image.json`: everything about an image classifier except its weights and its encoder's card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ImageModelCard {
    pub(crate) format: u32,
    pub(crate) version: String,
    pub(crate) trained_at: String,
    /// The files or folders of the training table.
    pub(crate) table: Vec<String>,
    pub(crate) image_column: String,
    /// Description of the split into training, validation and test, for people.
    pub(crate) split: String,
    /// The folder of the pretrained encoder. Empty, like its hash, if training started from random weights.
    pub(crate) encoder: String,
    pub(crate) encoder_hash: String,
    pub(crate) strategy: String,
    pub(crate) kind: LabelStructure,
    pub(crate) labels: Vec<String>,
    pub(crate) weights_hash: String,
    /// Figures on the test rows.
    pub(crate) figures: BTreeMap<String, f64>,
    /// The `[model]`, `[train]` and `[image]` settings of the training, for people; nothing reads them.
    #[serde(default)]
    pub(crate) settings: serde_json::Value,
}

/// The trained weights of an image classifier, by name, and its encoder's card.
#[derive(Debug)]
pub(crate) struct ImageModelWeights<'a> {
    pub(crate) encoder_card: &'a ImageEncoderCard,
    pub(crate) encoder: Vec<(String, Tensor)>,
    pub(crate) head: Vec<(String, Tensor)>,
}

/// A loaded image classifier.
#[derive(Debug)]
pub(crate) struct ImageModel {
    pub(crate) card: ImageModelCard,
    encoder: ImageEncoder,
    head: LabelHead,
    /// Owns the weights of `head`.
    _store: nn::VarStore,
}

impl ImageModel {
    /// Returns the probability of each label of each picture, or the error of a picture that cannot be decoded.
    pub(crate) fn probabilities(&self, pictures: &[&[u8]]) -> Result<Vec<Result<Vec<f64>, PictureError>>> {
        let vectors = self.encoder.encode(pictures)?;
        let decoded: Vec<&Vec<f32>> = vectors.iter().filter_map(|vector| vector.as_ref().ok()).collect();
        if decoded.is_empty() {
            return Ok(vectors.into_iter().map(|vector| vector.map(|_| Vec::new())).collect());
        }
        let _guard = tch::no_grad_guard();
        let size = [decoded.len() as i64, self.encoder.width() as i64];
        let flat: Vec<f32> = decoded.into_iter().flatten().copied().collect();
        let inputs = Tensor::f_from_slice(&flat)?.f_view(size)?.f_to_device(self.encoder.device)?;
        let probabilities = self.head.probabilities(&self.head.logits(&inputs)?);
        let rows = Vec::<Vec<f64>>::try_from(probabilities.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?)?;
        let mut remaining = rows.into_iter();
        let mut by_picture = Vec::with_capacity(vectors.len());
        for vector in vectors {
            by_picture.push(match vector {
                Err(error) => Err(error),
                Ok(_) => {
                    Ok(remaining.next().ok_or_else(|| Failure::bug("fewer rows of probabilities than vectors"))?)
                }
            });
        }
        Ok(by_picture)
    }
}

impl Card for ImageModelCard {
    const KIND: &'static str = "image";
    const FILE: &'static str = IMAGE_CARD;
    const FORMAT: u32 = IMAGE_FORMAT;

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
    /// Writes an image classifier.
    pub(crate) async fn write_image(
        &self,
        card: ImageModelCard,
        weights: ImageModelWeights<'_>,
    ) -> Result<ImageModelCard> {
        let to_bytes = |named| bytes_of(ImageModelCard::KIND, named);
        let files = vec![
            (format!("{ENCODER}/{CARD}"), weights.encoder_card.to_bytes()?.into()),
            (format!("{ENCODER}/{WEIGHTS}"), to_bytes(&weights.encoder)?),
            (HEAD.into(), to_bytes(&weights.head)?),
        ];
        self.write_files(card, files).await
    }

    /// Loads an image classifier and checks its files against the card.
    pub(crate) async fn load_image(&self, version: &str, device: Device) -> Result<ImageModel> {
        let card: ImageModelCard = self.card_of(version).await?;
        let folder = self.0.folder(version);
        let encoder_folder = ImageFolder::load(&folder.folder(ENCODER)).await.map_err(damaged)?;
        let head_bytes = folder.read(HEAD).await.map_err(damaged)?;
        let encoder_files = encoder_folder.files.iter();
        let mut files: Vec<(String, Bytes)> =
            encoder_files.map(|(name, bytes)| (format!("{ENCODER}/{name}"), bytes.clone())).collect();
        files.push((HEAD.to_string(), head_bytes.clone()));
        check_files(folder.url.as_str(), files, &card.weights_hash)?;

        let encoder = ImageEncoder::from_folder(&encoder_folder, device, PictureLimits::default()).map_err(damaged)?;
        let sizes = HeadSizes { width: encoder_folder.card.width(), labels: card.labels.len() };
        let build_head = |path: &nn::Path<'_>| Ok(LabelHead::new(path, card.kind, sizes));
        let (head, store) = read_part(&head_bytes, format!("{}{HEAD}", folder.url), device, build_head)?;
        Ok(ImageModel { card, encoder, head, _store: store })
    }
}
