//! Turns encoded pictures into vectors with an image encoder from a folder, in batches of bounded size. A picture that
//! cannot be decoded gives an error of its own and does not affect the others.

use std::fmt;
use std::sync::atomic::AtomicU64;
use tch::{Device, Kind, Tensor, nn};

use super::decode::{PictureLimits, decode};
use super::decoding_threads::map_in_parallel;
use super::encoder_card::ImageEncoderCard;
use super::folder::{CARD, ImageFolder, WEIGHTS};
use super::network::ImageNetwork;
use super::picture_error::PictureError;
use crate::config::networks::Precision;
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::out_of_memory::retry_in_halves;
use crate::model::weights;

/// Pictures per forward pass.
const BATCH_PICTURES: usize = 32;

/// One entry per picture, in order.
pub(crate) type PictureVectors = Vec<Result<Vec<f32>, PictureError>>;

/// A loaded image encoder, owned by one thread.
pub struct ImageEncoder {
    pub(crate) card: ImageEncoderCard,
    pub(crate) device: Device,
    limits: PictureLimits,
    network: ImageNetwork,
    /// The type that the network computes in.
    kind: Kind,
    /// Owns the weights of `network`.
    store: nn::VarStore,
    hash: String,
    /// Counts batches that were halved because they did not fit in memory.
    halved: AtomicU64,
}

impl fmt::Debug for ImageEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageEncoder({:?} {} on {:?})", self.card.architecture, &self.hash[..8], self.device)
    }
}

impl ImageEncoder {
    /// Loads a folder; see [`ImageFolder`].
    pub(crate) async fn open(folder: &Location, device: Device, limits: PictureLimits) -> Result<Self> {
        Self::from_folder(&ImageFolder::load(folder).await?, device, limits)
    }

    /// Builds the encoder of a loaded folder.
    pub(crate) fn from_folder(folder: &ImageFolder, device: Device, limits: PictureLimits) -> Result<Self> {
        let (mut store, network) = folder.network(device)?;
        store.freeze();
        let card = folder.card.clone();
        let hash = folder.hash.clone();
        Ok(Self { card, device, limits, network, kind: Kind::Float, store, hash, halved: AtomicU64::new(0) })
    }

    /// Converts the encoder to another precision.
    pub(crate) fn in_precision(mut self, precision: Precision) -> Self {
        if precision == Precision::Bf16 {
            self.store.bfloat16();
            self.kind = Kind::BFloat16;
        }
        self.hash = precision.hash_of(&self.hash);
        self
    }

    /// Writes a folder for [`ImageEncoder::open`]. The card is written last, so that a folder with a card is complete.
    pub async fn write(folder: &Location, card: &ImageEncoderCard, store: &nn::VarStore) -> Result<()> {
        folder.write(WEIGHTS, weights::to_bytes(&[store])?).await?;
        folder.write(CARD, card.to_bytes()?).await
    }

    /// A hash of everything that a vector depends on besides its picture: the card, the weights, how pictures are
    /// decoded. Caches of vectors use it in their keys.
    pub(crate) fn hash(&self) -> &str {
        &self.hash
    }

    /// The length of a vector.
    pub(crate) fn width(&self) -> usize {
        self.card.width() as usize
    }

    /// Returns a vector or an error per picture. Fails as a whole only if libtorch does.
    pub(crate) fn encode(&self, pictures: &[&[u8]]) -> Result<PictureVectors> {
        let mut vectors = Vec::with_capacity(pictures.len());
        for batch in pictures.chunks(BATCH_PICTURES) {
            vectors
                .extend(retry_in_halves(batch, "pictures", &self.halved, &|batch: &[&[u8]]| self.encode_batch(batch))?);
        }
        Ok(vectors)
    }

    fn encode_batch(&self, pictures: &[&[u8]]) -> Result<PictureVectors> {
        // A thread frees the pixels of a picture before it decodes the next.
        let preprocess = &self.card.preprocess;
        let limits = &self.limits;
        let decoded = map_in_parallel(pictures, |bytes| match decode(bytes, limits) {
            Ok(picture) => preprocess.centre_crop(&picture).map(Ok),
            Err(error) => Ok(Err(error)),
        })?;
        let mut crops = Vec::new();
        let mut errors = Vec::new();
        for picture in decoded {
            match picture? {
                Ok(crop) => {
                    crops.push(crop);
                    errors.push(None);
                }
                Err(error) => errors.push(Some(error)),
            }
        }
        let mut rows = self.encode_crops(&crops)?.into_iter();
        let mut vectors = Vec::with_capacity(pictures.len());
        for error in errors {
            vectors.push(match error {
                Some(error) => Err(error),
                None => check_finite(rows.next().ok_or_else(|| Failure::bug("fewer vectors than pictures"))?),
            });
        }
        Ok(vectors)
    }

    /// Returns one vector per crop, each uint8 [3, crop, crop].
    fn encode_crops(&self, crops: &[Tensor]) -> Result<Vec<Vec<f32>>> {
        if crops.is_empty() {
            return Ok(Vec::new());
        }
        let _guard = tch::no_grad_guard();
        let levels = Tensor::f_stack(crops, 0)?.f_to_device(self.device)?;
        let pixels = self.card.preprocess.normalise(&levels)?.f_to_kind(self.kind)?;
        let features = self.network.features(&pixels, false)?;
        let flat = features.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?.f_view([-1])?;
        let numbers = Vec::<f32>::try_from(&flat)?;
        Ok(numbers.chunks(self.width()).map(<[f32]>::to_vec).collect())
    }
}

/// Refuses a vector with NaN or infinity: finite weights can still overflow.
fn check_finite(vector: Vec<f32>) -> Result<Vec<f32>, PictureError> {
    match vector.iter().all(|v| v.is_finite()) {
        true => Ok(vector),
        false => Err(PictureError::NotFinite),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;
    use crate::model::vision::cnn::CnnShape;
    use crate::model::vision::encoder_card::Architecture;
    use crate::model::vision::fixtures::{fill, picture};
    use crate::model::vision::preprocess::Preprocess;

    /// Writes a folder in memory whose network has the fixture's weights.
    async fn folder(name: &str, architecture: Architecture) -> Location {
        let preprocess = Preprocess { resize: 40, crop: 32, ..Default::default() };
        let mut card = ImageEncoderCard::new(architecture, preprocess);
        if architecture == Architecture::Cnn {
            card.cnn = Some(CnnShape { channels: vec![8, 16], width: 12 });
        }
        let store = nn::VarStore::new(Device::Cpu);
        ImageNetwork::new(&store.root(), &card);
        fill(&store);
        let folder = Location::open(&format!("memory://vision-{name}/encoder"), &S3Config::default()).unwrap();
        ImageEncoder::write(&folder, &card, &store).await.unwrap();
        folder
    }

    async fn opened(folder: &Location) -> Result<ImageEncoder> {
        ImageEncoder::open(folder, Device::Cpu, PictureLimits::default()).await
    }

    fn difference(a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[tokio::test]
    async fn a_batch_equals_its_members_one_by_one() {
        let names = ["photo.jpg", "rgba.png", "tall.png", "lossy.webp", "grey16.png", "dot.png"];
        // These need more than one forward pass.
        let pictures: Vec<Vec<u8>> = names.iter().cycle().take(BATCH_PICTURES + 3).map(|n| picture(n)).collect();
        let pictures: Vec<&[u8]> = pictures.iter().map(Vec::as_slice).collect();
        for (name, architecture) in [("resnet", Architecture::ResNet18), ("cnn", Architecture::Cnn)] {
            let encoder = opened(&folder(name, architecture).await).await.unwrap();
            let together = encoder.encode(&pictures).unwrap();
            let alone = |picture: &&[u8]| encoder.encode(&[picture]).unwrap().remove(0).unwrap();
            let alone: Vec<Vec<f32>> = pictures[..names.len()].iter().map(alone).collect();
            let mut largest = 0f32;
            for (vector, alone) in together.iter().zip(alone.iter().cycle()) {
                assert_eq!(alone.len(), encoder.width());
                largest = largest.max(difference(vector.as_ref().unwrap(), alone));
            }
            println!("{architecture:?}: batch and members differ by {largest:.1e}");
            assert!(largest < 1e-5, "{architecture:?}: {largest}");
            assert!(difference(together[0].as_ref().unwrap(), together[1].as_ref().unwrap()) > 1e-3);
        }
    }

    #[tokio::test]
    async fn bfloat16_vectors_are_close_and_have_another_hash() {
        let pictures = ["photo.jpg", "rgba.png", "tall.png"].map(picture);
        let pictures: Vec<&[u8]> = pictures.iter().map(Vec::as_slice).collect();
        for (name, architecture) in [("resnet-bf16", Architecture::ResNet18), ("cnn-bf16", Architecture::Cnn)] {
            let folder = folder(name, architecture).await;
            let whole = opened(&folder).await.unwrap();
            let half = opened(&folder).await.unwrap().in_precision(Precision::Bf16);
            assert_eq!(half.hash(), format!("{}-bf16", whole.hash()));
            for (a, b) in whole.encode(&pictures).unwrap().iter().zip(half.encode(&pictures).unwrap()) {
                let (a, b) = (a.as_ref().unwrap(), b.unwrap());
                let off = difference(a, &b) / a.iter().fold(0f32, |most, v| most.max(v.abs()));
                println!("{architecture:?}: {off:.1e} of the largest number");
                assert!(off > 0.0 && off < 0.03, "{architecture:?}: {off}");
            }
        }
    }

    #[tokio::test]
    async fn bad_pictures_do_not_affect_the_others() {
        let encoder = opened(&folder("bad", Architecture::Cnn).await).await.unwrap();
        let (good, cut) = (picture("rgb.png"), &picture("halved.jpg")[..600]);
        let vectors = encoder.encode(&[b"", &good, cut, b"no picture", &good]).unwrap();
        assert_eq!(vectors[0], Err(PictureError::Empty));
        assert_eq!(vectors[2], Err(PictureError::Truncated));
        assert!(matches!(vectors[3], Err(PictureError::Format(_))));
        let alone = encoder.encode(&[&good]).unwrap();
        for vector in [&vectors[1], &vectors[4]] {
            assert!(difference(vector.as_ref().unwrap(), alone[0].as_ref().unwrap()) < 1e-5);
        }
        assert_eq!(encoder.encode(&[]).unwrap(), []);
        assert_eq!(encoder.encode(&[b"", b"x"]).unwrap().iter().filter(|v| v.is_err()).count(), 2);
    }

    #[tokio::test]
    async fn the_hash_covers_card_and_weights_but_not_white_space() {
        let folder = folder("hash", Architecture::Cnn).await;
        let first = opened(&folder).await.unwrap();
        let card = String::from_utf8(first.card.to_bytes().unwrap()).unwrap();
        folder.write(CARD, card.replace('\n', " \n ").into_bytes()).await.unwrap();
        assert_eq!(opened(&folder).await.unwrap().hash(), first.hash());
        folder.write(CARD, card.replace("\"resize\": 40", "\"resize\": 41").into_bytes()).await.unwrap();
        assert_ne!(opened(&folder).await.unwrap().hash(), first.hash());
        let store = nn::VarStore::new(Device::Cpu);
        ImageNetwork::new(&store.root(), &first.card);
        ImageEncoder::write(&folder, &first.card, &store).await.unwrap();
        assert_ne!(opened(&folder).await.unwrap().hash(), first.hash());
    }

    #[tokio::test]
    async fn incomplete_folders_are_refused_by_the_files_name() {
        let empty = Location::open("memory://vision-empty/encoder", &S3Config::default()).unwrap();
        let failure = opened(&empty).await.unwrap_err();
        assert_eq!(failure.kind.exit_code(), 6);
        assert!(failure.message.ends_with("config.json is missing"), "{failure}");
        let folder = folder("whole", Architecture::Cnn).await;
        folder.write(CARD, &br#"{"architecture": "resnet18"}"#[..]).await.unwrap();
        let failure = opened(&folder).await.unwrap_err();
        assert!(failure.message.contains("model.safetensors: "), "{failure}");
        assert!(failure.hint.unwrap().contains("ResNet18"));
        folder.write(WEIGHTS, &b"PK no weights"[..]).await.unwrap();
        assert_eq!(opened(&folder).await.unwrap_err().kind.exit_code(), 6);
        folder.write(CARD, &br#"{"architecture": "vgg16"}"#[..]).await.unwrap();
        assert!(opened(&folder).await.unwrap_err().message.contains("config.json: unknown architecture vgg16"));
    }

    #[tokio::test]
    async fn vectors_that_overflow_are_refused() {
        let folder = folder("overflow", Architecture::Cnn).await;
        let card = opened(&folder).await.unwrap().card;
        let store = nn::VarStore::new(Device::Cpu);
        ImageNetwork::new(&store.root(), &card);
        let _ = tch::no_grad(|| store.variables()["outputs.weight"].shallow_clone().fill_(f64::from(f32::MAX)));
        ImageEncoder::write(&folder, &card, &store).await.unwrap();
        let vectors = opened(&folder).await.unwrap().encode(&[&picture("rgb.png")]).unwrap();
        assert_eq!(vectors, [Err(PictureError::NotFinite)]);
    }
}
