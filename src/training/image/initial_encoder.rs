//! The encoder from which training starts: a folder's, or one with random weights.

use tch::nn;

use super::strategy;
use crate::config::networks::{ImageNetworkName, ImageStrategy, NormStatistics};
use crate::config::{Config, ImageConfig};
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::vision::{Architecture, ImageEncoderCard, ImageFolder, ImageNetwork, Preprocess};
use crate::training::labelled::split_group;

pub(crate) struct InitialEncoder {
    pub(crate) card: ImageEncoderCard,
    /// `None` for random weights.
    pretrained: Option<Pretrained>,
    /// True if batch normalisation in training uses the statistics of the batch.
    pub(crate) uses_batch_statistics: bool,
}

struct Pretrained {
    uri: String,
    folder: ImageFolder,
}

impl InitialEncoder {
    /// Loads the folder of `--encoder`, or makes a card for random weights.
    pub(crate) async fn load(config: &Config, uri: Option<&str>) -> Result<Self> {
        let Some(uri) = uri else {
            refuse_settings_of_pretrained(&config.image)?;
            return Ok(Self { card: random_card(&config.image), pretrained: None, uses_batch_statistics: true });
        };
        let folder = ImageFolder::load(&Location::open(uri, &config.s3)?).await.map_err(|f| f.at("--encoder"))?;
        Ok(Self {
            card: folder.card.clone(),
            pretrained: Some(Pretrained { uri: uri.to_string(), folder }),
            uses_batch_statistics: config.image.norm_statistics == NormStatistics::Batch,
        })
    }

    pub(crate) fn has_random_weights(&self) -> bool {
        self.pretrained.is_none()
    }

    /// The folder of the encoder; empty for random weights.
    pub(crate) fn uri(&self) -> String {
        self.pretrained.as_ref().map_or_else(String::new, |pretrained| pretrained.uri.clone())
    }

    /// The hash of the encoder; empty for random weights.
    pub(crate) fn hash(&self) -> String {
        self.pretrained.as_ref().map_or_else(String::new, |pretrained| pretrained.folder.hash.clone())
    }

    /// Builds the network in the encoder's group of a store that is still empty.
    pub(crate) fn network(&self, store: &nn::VarStore) -> Result<ImageNetwork> {
        let network = ImageNetwork::new(&(store.root() / strategy::ENCODER), &self.card);
        if let Some(pretrained) = &self.pretrained {
            let (source, _) = pretrained.folder.network(store.device()).map_err(|f| f.at("--encoder"))?;
            let weights = source.variables();
            let _guard = tch::no_grad_guard();
            for (name, mut variable) in store.variables() {
                let weight = weights.get(split_group(&name).1);
                variable.f_copy_(weight.ok_or_else(|| Failure::bug(format!("{name} was not loaded")))?)?;
            }
        }
        Ok(network)
    }
}

/// Refuses settings that apply only to the weights of a folder.
fn refuse_settings_of_pretrained(config: &ImageConfig) -> Result<()> {
    for (setting, is_set) in [
        ("image.strategy: expected all, got frozen", config.strategy == ImageStrategy::Frozen),
        ("image.norm_statistics: expected auto or batch, got kept", config.norm_statistics == NormStatistics::Frozen),
        ("image.frozen_stages: expected 0, got more", config.frozen_stages > 0),
    ] {
        if is_set {
            return Err(Failure::usage(format!("{setting}, because without --encoder all weights are random"))
                .hint("pass --encoder and a folder of weights"));
        }
    }
    Ok(())
}

/// Makes the card of an encoder with random weights. The margin in which the crop can move is an eighth of its side, as
/// in torchvision's presets.
fn random_card(config: &ImageConfig) -> ImageEncoderCard {
    let architecture = match config.network {
        ImageNetworkName::Cnn => Architecture::Cnn,
        ImageNetworkName::Resnet18 => Architecture::ResNet18,
        ImageNetworkName::Resnet34 => Architecture::ResNet34,
        ImageNetworkName::Resnet50 => Architecture::ResNet50,
    };
    let crop = i64::from(config.side_pixels);
    ImageEncoderCard::new(architecture, Preprocess { resize: crop + crop / 8, crop, ..Default::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_weights_have_a_margin_and_no_settings_of_folders() {
        let config = ImageConfig { network: ImageNetworkName::Resnet18, side_pixels: 224, ..Default::default() };
        let card = random_card(&config);
        assert_eq!((card.preprocess.resize, card.preprocess.crop, card.width()), (252, 224, 512));
        refuse_settings_of_pretrained(&ImageConfig::default()).unwrap();
        for config in [
            ImageConfig { strategy: ImageStrategy::Frozen, ..Default::default() },
            ImageConfig { norm_statistics: NormStatistics::Frozen, ..Default::default() },
            ImageConfig { frozen_stages: 1, ..Default::default() },
        ] {
            let refused = refuse_settings_of_pretrained(&config).unwrap_err();
            assert!(refused.kind.exit_code() == 2 && refused.message.contains("without --encoder"), "{refused}");
        }
    }
}
