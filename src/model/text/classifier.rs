//! Predicts the labels of a text with a pretrained network, pooling and a head (model/labels.rs), and with the modules
//! that fine-tuning added to the network ([`AddedModules`]). `training::text` trains it, `score::functions` calls it.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, nn};

use super::batching::{PaddedTokens, pad, sort_into_batches};
use super::folder::TextFolder;
use super::network::TextNetwork;
use super::pooling::Pooling;
use super::tokenizer::TextTokenizer;
use crate::failure::Result;
use crate::model::labels::LabelHead;

/// The modules that fine-tuning added to the network. Low-rank differences are not among them: they are merged into the
/// weights after training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AddedModules {
    #[serde(rename = "nothing")]
    None,
    Adapters {
        bottleneck: i64,
    },
    Prefixes {
        length: i64,
    },
}

impl AddedModules {
    /// Adds them to a network, with fresh variables below `path`.
    pub(crate) fn add_to(self, network: &mut TextNetwork, path: &nn::Path<'_>) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Adapters { bottleneck } => {
                network.add_adapters(path, bottleneck);
                Ok(())
            }
            Self::Prefixes { length } => network.add_prefixes(path, length),
        }
    }
}

#[derive(Debug)]
pub(crate) struct TextClassifier {
    pub(crate) network: TextNetwork,
    pub(crate) head: LabelHead,
    pooling: Pooling,
    device: Device,
}

impl TextClassifier {
    /// The input width of `head` must be [`TextClassifier::width`].
    pub(crate) fn new(network: TextNetwork, pooling: &Pooling, head: LabelHead, device: Device) -> Self {
        Self { network, head, pooling: without_normalisation(pooling), device }
    }

    pub(crate) fn device(&self) -> Device {
        self.device
    }

    /// The length of a text's vector in a folder's network.
    pub(crate) fn width(folder: &TextFolder) -> i64 {
        folder.pooling.width(folder.shape.width)
    }

    /// Returns the vectors of texts: float32 [texts, width]. A text without tokens gives zeros.
    pub(crate) fn embed(&self, rows: &[&[i64]], train: bool) -> Result<Tensor> {
        let batch = pad(rows, self.network.shape.pad_id, self.device)?;
        let is_empty: Vec<bool> = rows.iter().map(|row| row.is_empty()).collect();
        if !is_empty.contains(&true) {
            return self.embed_padded(&batch, train);
        }
        let states = self.network.states(&batch, train)?;
        // A mean over no tokens is NaN: an empty text is pooled over its first position, and its vector is then zeroed.
        let is_token = batch.is_token;
        let empty = Tensor::f_from_slice(&is_empty)?.f_unsqueeze(1)?.f_to_device(self.device)?;
        let first = Tensor::f_arange(is_token.size()[1], (Kind::Int64, self.device))?.f_eq(0)?.f_unsqueeze(0)?;
        let pooled_over = is_token.f_logical_or(&empty.f_logical_and(&first)?)?;
        let finite_states = states.f_nan_to_num(0.0, None, None)?;
        Ok(self.pooling.pool(&finite_states, &pooled_over)?.f_masked_fill(&empty, 0.0)?)
    }

    /// Returns the vectors of padded texts, each with at least one token: float32 [texts, width].
    pub(crate) fn embed_padded(&self, batch: &PaddedTokens, train: bool) -> Result<Tensor> {
        let on_device = batch.to_device(self.device)?;
        self.pooling.pool(&self.network.states(&on_device, train)?, &on_device.is_token)
    }

    /// Returns float32 [texts, labels].
    pub(crate) fn logits(&self, rows: &[&[i64]], train: bool) -> Result<Tensor> {
        self.head.logits(&self.embed(rows, train)?)
    }

    /// Applies `compute` to batches of at most `tokens_max` padded tokens, without gradients. Returns one row per text,
    /// on the CPU and in the texts' order.
    pub(crate) fn map_batches(
        &self,
        rows: &[&[i64]],
        tokens_max: usize,
        compute: impl Fn(&[&[i64]]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        // Texts without tokens take up one position.
        let lengths: Vec<usize> = rows.iter().map(|row| row.len().max(1)).collect();
        let mut order = Vec::with_capacity(rows.len());
        let mut computed = Vec::new();
        for batch in sort_into_batches(&lengths, tokens_max) {
            let texts: Vec<&[i64]> = batch.iter().map(|&text| rows[text]).collect();
            computed.push(compute(&texts)?.f_to_device(Device::Cpu)?);
            order.extend(batch);
        }
        let mut positions = vec![0i64; rows.len()];
        for (&text, position) in order.iter().zip(0i64..) {
            positions[text] = position;
        }
        Ok(Tensor::f_cat(&computed, 0)?.f_index_select(0, &Tensor::f_from_slice(&positions)?)?)
    }

    /// Returns the probability of each label of each text.
    pub(crate) fn probabilities(
        &self,
        tokenizer: &TextTokenizer,
        texts: &[&str],
        tokens_max: usize,
    ) -> Result<Vec<Vec<f64>>> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let ids = tokenizer.ids(texts)?;
        let rows: Vec<&[i64]> = ids.iter().map(Vec::as_slice).collect();
        let raw =
            self.map_batches(&rows, tokens_max, |rows| Ok(self.head.probabilities(&self.logits(rows, false)?)))?;
        Ok(Vec::<Vec<f64>>::try_from(raw.f_to_kind(Kind::Double)?)?)
    }
}

/// A head trains on vectors that are not normalised: with vectors of length one, it would need far larger weights than
/// it starts with.
fn without_normalisation(pooling: &Pooling) -> Pooling {
    Pooling { normalise: false, ..pooling.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;
    use crate::lake::stores::Location;
    use crate::model::labels::{HeadSizes, LabelStructure};

    async fn classifier(name: &str, labels: LabelStructure) -> (TextClassifier, TextTokenizer, nn::VarStore) {
        let at = format!("{}/tests/fixtures/text/{name}", env!("CARGO_MANIFEST_DIR"));
        let folder = TextFolder::load(&Location::open(&at, &S3Config::default()).unwrap(), None).await.unwrap();
        tch::manual_seed(3);
        let store = nn::VarStore::new(Device::Cpu);
        let network = folder.network(&(store.root() / "text")).unwrap();
        let head = LabelHead::new(
            &(store.root() / "head"),
            labels,
            HeadSizes { width: TextClassifier::width(&folder), labels: 3 },
        );
        (TextClassifier::new(network, &folder.pooling, head, Device::Cpu), folder.tokenizer, store)
    }

    #[tokio::test]
    async fn a_batch_equals_its_members_and_every_text_has_probabilities() {
        let long = "word ".repeat(4000);
        let texts = ["a red mug", "", "the lamp broke after two days", " \n", long.as_str(), "\0\u{fffd}"];
        for name in ["bert", "roberta", "distilbert", "gpt2", "minilm"] {
            for labels in [LabelStructure::Single, LabelStructure::Multi, LabelStructure::Chain] {
                let (classifier, tokenizer, _store) = classifier(name, labels).await;
                let together = classifier.probabilities(&tokenizer, &texts, 64).unwrap();
                for (text, row) in texts.iter().zip(&together) {
                    let alone = classifier.probabilities(&tokenizer, &[text], 64).unwrap().remove(0);
                    assert!(row.iter().zip(&alone).all(|(a, b)| (a - b).abs() < 1e-5), "{name} {labels:?} {text:.20}");
                    assert!(row.iter().all(|p| (0.0..=1.0).contains(p)), "{name} {labels:?} {row:?}");
                    let sum: f64 = row.iter().sum();
                    assert!(labels != LabelStructure::Single || (sum - 1.0).abs() < 1e-5, "{name}: {sum}");
                }
            }
        }
    }
}
