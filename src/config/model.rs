//! Settings of the behaviour network.

use super::declare::settings;
use super::networks::{AmountLossName, BackboneName, ClassWeights, FusionName, HeadName, LossName, name_of};
use crate::failure::{Failure, Result};

settings! {
    /// The behaviour network, which predicts intents, churn, units and spend. All settings but `version` take effect with the
    /// next training.
    ModelConfig {
        /// Version to score with. Empty: the champion.
        version: String = String::new();
        /// Network that reads a user's events (docs/models/sequences.md).
        backbone: BackboneName = BackboneName::Transformer;
        /// Head of the intents. `crf` needs `loss = "crf"`.
        head: HeadName = HeadName::Sigmoid;
        /// Loss of the intents.
        loss: LossName = LossName::Bce;
        /// Exponent of the focal loss: larger values give well-classified users less weight.
        focal_gamma: f64 = 2.0, 0.0..=10.0;
        /// Class weights of the loss `bce`.
        class_weights: ClassWeights = ClassWeights::None;
        /// Purchases' share of the initial loss of intents and churn, for the losses `bce` and `focal`, if it is more than their
        /// unweighted share. 0: unweighted.
        purchase_share: f64 = 0.5, 0.0..=0.9;
        /// Loss of expected units and spend.
        amount_loss: AmountLossName = AmountLossName::Poisson;
        /// Width of each event's vector: a multiple of `heads`.
        width: u32 = 64, 8..=4096;
        /// Layers of the backbone.
        layers: u32 = 2, 1..=64;
        /// Attention heads per layer.
        heads: u32 = 4, 1..=64;
        /// Rows of the item embedding. Items share them by the hash of their ids; raise it for large catalogues.
        item_buckets: u32 = 20_000, 1..=100_000_000;
        /// Dropout: share of activations set to zero in training.
        dropout: f64 = 0.1, 0.0..=0.9;
        /// Weight decay of AdamW for the behaviour network. High, because few users buy and large weights overfit them.
        weight_decay: f64 = 0.3, 0.0..=10.0;
        /// Use the vectors of items' pictures and videos as an input, if the lake has them.
        content_inputs: bool = true;
        /// Method that joins content vectors to the embeddings of an item's id and category (docs/models/fusion.md).
        fusion: FusionName = FusionName::Sum;
        /// Hugging Face folder of an encoder that reads titles, queries and reviews. Empty: no texts.
        text_encoder: String = String::new();
        /// Tokens of a text that the encoder reads. 0: the encoder's own limit, or 512 if it states none.
        text_tokens_max: u32 = 0, 0..=8192;
        /// Folder of an encoder that reads `items.image`, instead of the vectors in `items.image_vector`. Empty: none.
        image_encoder: String = String::new();
    }
}

impl ModelConfig {
    pub(super) fn check(&self) -> Result<()> {
        self.check_losses()?;
        if !self.width.is_multiple_of(self.heads.max(1)) {
            return Err(Failure::usage(format!(
                "model.width: expected a multiple of model.heads ({}), got {}",
                self.heads, self.width
            )));
        }
        Ok(())
    }

    /// Refuses combinations of head, loss and class weights that do not work together: the chain needs its own likelihood as
    /// loss and that loss needs the chain; only cross-entropy applies class weights, all other losses would ignore them.
    fn check_losses(&self) -> Result<()> {
        if self.class_weights != ClassWeights::None && self.loss != LossName::Bce {
            return Err(Failure::usage(format!(
                "model.class_weights: expected none, because model.loss is {}, got {}",
                name_of(&self.loss),
                name_of(&self.class_weights)
            ))
            .hint("class weights go with model.loss=bce"));
        }
        match (self.head, self.loss) {
            (HeadName::Crf, LossName::Crf) | (HeadName::Sigmoid, LossName::Bce | LossName::Focal | LossName::Iou) => {
                Ok(())
            }
            (HeadName::Crf, _) => Err(Failure::usage(format!(
                "model.loss: expected crf, because model.head is crf, got {}",
                name_of(&self.loss)
            ))
            .hint("set model.loss=crf, or model.head=sigmoid")),
            (HeadName::Sigmoid, LossName::Crf) => {
                Err(Failure::usage("model.head: expected crf, because model.loss is crf, got sigmoid")
                    .hint("set model.head=crf, or model.loss to bce, focal or iou"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::resolved;

    #[test]
    fn losses_heads_and_weights_that_do_not_fit_are_refused() {
        resolved(&[("model.head", "crf"), ("model.loss", "crf")]).unwrap();
        resolved(&[("model.loss", "focal")]).unwrap();
        for (pairs, part) in [
            (vec![("model.head", "crf")], "model.loss: expected crf, because model.head is crf, got bce"),
            (vec![("model.head", "crf"), ("model.loss", "iou")], "got iou"),
            (vec![("model.loss", "crf")], "model.head: expected crf, because model.loss is crf, got sigmoid"),
            (
                vec![("model.loss", "focal"), ("model.class_weights", "balanced")],
                "model.class_weights: expected none, because model.loss is focal, got balanced",
            ),
        ] {
            let failure = resolved(&pairs).unwrap_err();
            assert_eq!(failure.kind.exit_code(), 2);
            assert!(failure.message.contains(part), "{failure}");
        }
    }
}
