//! An image encoder in a folder: `config.json` and `model.safetensors`. Encoded pictures in, vectors out, in batches of
//! bounded size; a picture that cannot be read gives its own reason and costs nobody else anything.

use std::fmt;
use std::sync::atomic::AtomicU64;
use tch::{Device, Kind, Tensor, nn};

use super::card::ImageCard;
use super::decode::{PictureLimits, Refused, decode};
use super::decoders::side_by_side;
use super::folder::{CARD, ImageFolder, WEIGHTS};
use super::network::ImageNetwork;
use crate::config::networks::Precision;
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::memory::in_halves;
use crate::model::weights;

/// Pictures of one forward pass.
const BATCH_PICTURES: usize = 32;

/// One entry a picture, in order.
pub type Vectors = Vec<Result<Vec<f32>, Refused>>;

/// A loaded encoder. One thread owns it.
pub struct ImageEncoder {
    pub card: ImageCard,
    pub device: Device,
    limits: PictureLimits,
    network: ImageNetwork,
    /// What the network computes with.
    kind: Kind,
    /// Holds the weights of `network`.
    store: nn::VarStore,
    hash: String,
    /// How often pictures did not fit into memory together.
    halved: AtomicU64,
}

impl fmt::Debug for ImageEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageEncoder({:?} {} on {:?})", self.card.architecture, &self.hash[..8], self.device)
    }
}

impl ImageEncoder {
    /// Reads the folder, as [`ImageFolder`] says.
    pub async fn open(folder: &Location, device: Device, limits: PictureLimits) -> Result<Self> {
        Self::of(&ImageFolder::read(folder).await?, device, limits)
    }

    /// The encoder of a folder that was read.
    pub fn of(folder: &ImageFolder, device: Device, limits: PictureLimits) -> Result<Self> {
        let (mut store, network) = folder.network(device)?;
        store.freeze();
        let (card, hash) = (folder.card.clone(), folder.hash.clone());
        Ok(Self { card, device, limits, network, kind: Kind::Float, store, hash, halved: AtomicU64::new(0) })
    }

    /// The same encoder, computing in another precision.
    pub fn in_precision(mut self, precision: Precision) -> Self {
        if precision == Precision::Bf16 {
            self.store.bfloat16();
            self.kind = Kind::BFloat16;
        }
        self.hash = precision.hash_of(&self.hash);
        self
    }

    /// Writes a folder that [`ImageEncoder::open`] reads; the card goes last, so that a folder with a card is whole.
    pub async fn write(folder: &Location, card: &ImageCard, store: &nn::VarStore) -> Result<()> {
        folder.write(WEIGHTS, weights::to_bytes(&[store])?).await?;
        folder.write(CARD, card.to_bytes()?).await
    }

    /// Hex digits that change with whatever may change a vector: the card, the weights, how pictures are decoded. A cache
    /// of vectors is keyed by them, beside the picture's own hash.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Numbers of a vector.
    pub fn width(&self) -> usize {
        self.card.width() as usize
    }

    /// The vectors of some pictures, or why one has none. Fails as a whole only where libtorch does.
    pub fn encode(&self, pictures: &[&[u8]]) -> Result<Vectors> {
        let mut vectors = Vec::with_capacity(pictures.len());
        for batch in pictures.chunks(BATCH_PICTURES) {
            vectors.extend(in_halves(batch, "pictures", &self.halved, &|batch: &[&[u8]]| self.encode_batch(batch))?);
        }
        Ok(vectors)
    }

    fn encode_batch(&self, pictures: &[&[u8]]) -> Result<Vectors> {
        // What a picture holds is gone before its thread looks at the next.
        let (preprocess, limits) = (&self.card.preprocess, &self.limits);
        let decoded = side_by_side(pictures, |bytes| match decode(bytes, limits) {
            Ok(picture) => preprocess.centre(&picture).map(Ok),
            Err(refused) => Ok(Err(refused)),
        })?;
        let (mut centres, mut refusals) = (Vec::new(), Vec::new());
        for picture in decoded {
            match picture? {
                Ok(centre) => {
                    centres.push(centre);
                    refusals.push(None);
                }
                Err(refused) => refusals.push(Some(refused)),
            }
        }
        let mut rows = self.forward(&centres)?.into_iter();
        let mut vectors = Vec::with_capacity(pictures.len());
        for refused in refusals {
            vectors.push(match refused {
                Some(refused) => Err(refused),
                None => finite(rows.next().ok_or_else(|| Failure::bug("fewer vectors than pictures"))?),
            });
        }
        Ok(vectors)
    }

    /// One vector a picture, from uint8 [3, crop, crop] each.
    fn forward(&self, centres: &[Tensor]) -> Result<Vec<Vec<f32>>> {
        if centres.is_empty() {
            return Ok(Vec::new());
        }
        let _guard = tch::no_grad_guard();
        let levels = Tensor::f_stack(centres, 0)?.f_to_device(self.device)?;
        let pixels = self.card.preprocess.normalise(&levels)?.f_to_kind(self.kind)?;
        let features = self.network.features(&pixels, false)?;
        let flat = features.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?.f_view([-1])?;
        let flat = Vec::<f32>::try_from(&flat)?;
        Ok(flat.chunks(self.width()).map(<[f32]>::to_vec).collect())
    }
}

/// Finite weights can still overflow.
fn finite(vector: Vec<f32>) -> Result<Vec<f32>, Refused> {
    match vector.iter().all(|v| v.is_finite()) {
        true => Ok(vector),
        false => Err(Refused::NotFinite),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;
    use crate::model::vision::card::Architecture;
    use crate::model::vision::cnn::CnnShape;
    use crate::model::vision::formula::{fill, picture};
    use crate::model::vision::preprocess::Preprocess;

    /// A folder in memory with a network of the formula's weights.
    async fn folder(name: &str, architecture: Architecture) -> Location {
        let preprocess = Preprocess { resize: 40, crop: 32, ..Default::default() };
        let mut card = ImageCard::new(architecture, preprocess);
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
        // More than one forward pass.
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
    async fn vectors_in_half_the_bits_lie_close_and_go_by_another_hash() {
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
    async fn bad_pictures_cost_their_neighbours_nothing() {
        let encoder = opened(&folder("bad", Architecture::Cnn).await).await.unwrap();
        let (good, cut) = (picture("rgb.png"), &picture("halved.jpg")[..600]);
        let vectors = encoder.encode(&[b"", &good, cut, b"no picture", &good]).unwrap();
        assert_eq!(vectors[0], Err(Refused::Empty));
        assert_eq!(vectors[2], Err(Refused::Truncated));
        assert!(matches!(vectors[3], Err(Refused::Format(_))));
        let alone = encoder.encode(&[&good]).unwrap();
        for vector in [&vectors[1], &vectors[4]] {
            assert!(difference(vector.as_ref().unwrap(), alone[0].as_ref().unwrap()) < 1e-5);
        }
        assert_eq!(encoder.encode(&[]).unwrap(), []);
        assert_eq!(encoder.encode(&[b"", b"x"]).unwrap().iter().filter(|v| v.is_err()).count(), 2);
    }

    #[tokio::test]
    async fn the_hash_follows_card_and_weights_but_not_spaces() {
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
    async fn folders_that_are_not_whole_are_refused_with_the_file_named() {
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
        assert_eq!(vectors, [Err(Refused::NotFinite)]);
    }
}
