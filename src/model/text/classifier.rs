//! Labels of a text: a pretrained network, its pooled states, and the head (model/labels.rs). What it was taught beside the
//! network's weights ([`Beside`]) is part of it. `training::text` teaches it, `score::text` calls it.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, nn};

use super::encoder::{batches, padded};
use super::folder::TextFolder;
use super::network::TextNetwork;
use super::pooling::Pooling;
use super::tokens::TextTokenizer;
use crate::failure::Result;
use crate::model::labels::LabelHead;

/// What stands beside the network's weights for ever. Low-rank differences do not: they are merged after training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Beside {
    Nothing,
    Adapters { bottleneck: i64 },
    Prefixes { length: i64 },
}

impl Beside {
    /// Adds it to a network, with fresh variables below `path`.
    pub fn add(self, network: &mut TextNetwork, path: &nn::Path<'_>) -> Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Adapters { bottleneck } => {
                network.add_adapters(path, bottleneck);
                Ok(())
            }
            Self::Prefixes { length } => network.add_prefixes(path, length),
        }
    }
}

#[derive(Debug)]
pub struct TextClassifier {
    pub network: TextNetwork,
    pub head: LabelHead,
    pooling: Pooling,
    device: Device,
}

impl TextClassifier {
    /// `head` has to take [`TextClassifier::width`] numbers.
    pub fn new(network: TextNetwork, pooling: &Pooling, head: LabelHead, device: Device) -> Self {
        Self { network, head, pooling: plain(pooling), device }
    }

    pub fn device(&self) -> Device {
        self.device
    }

    /// Numbers of a text's vector in a folder's network.
    pub fn width(folder: &TextFolder) -> i64 {
        folder.pooling.width(folder.shape.width)
    }

    /// Vectors of texts, float32 [texts, width]. A text without a token has zeros.
    pub fn vectors(&self, rows: &[&[i64]], train: bool) -> Result<Tensor> {
        let (ids, real) = padded(rows, self.network.shape.pad_id, self.device)?;
        let empty: Vec<bool> = rows.iter().map(|row| row.is_empty()).collect();
        if !empty.contains(&true) {
            return self.vectors_of(&ids, &real, train);
        }
        let states = self.network.states(&ids, &real, train)?;
        // A mean over no token is no number: the first place counts as read, and its vector is then taken away.
        let empty = Tensor::f_from_slice(&empty)?.f_unsqueeze(1)?.f_to_device(self.device)?;
        let first = Tensor::f_arange(real.size()[1], (Kind::Int64, self.device))?.f_eq(0)?.f_unsqueeze(0)?;
        let real = real.f_logical_or(&empty.f_logical_and(&first)?)?;
        let states = states.f_nan_to_num(0.0, None, None)?;
        Ok(self.pooling.pooled(&states, &real)?.f_masked_fill(&empty, 0.0)?)
    }

    /// Vectors of padded texts that have a token each, float32 [texts, width]: of their ids, and of what is text.
    pub fn vectors_of(&self, ids: &Tensor, real: &Tensor, train: bool) -> Result<Tensor> {
        let (ids, real) = (ids.f_to_device(self.device)?, real.f_to_device(self.device)?);
        self.pooling.pooled(&self.network.states(&ids, &real, train)?, &real)
    }

    /// Raw scores, float32 [texts, labels].
    pub fn raw(&self, rows: &[&[i64]], train: bool) -> Result<Tensor> {
        self.head.raw(&self.vectors(rows, train)?)
    }

    /// What `part` makes of batches of at most `tokens_max` padded tokens, without gradients, on the CPU and in the
    /// texts' order.
    pub fn in_batches(
        &self,
        rows: &[&[i64]],
        tokens_max: usize,
        part: impl Fn(&[&[i64]]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        // Texts without a token cost a place all the same.
        let lengths: Vec<usize> = rows.iter().map(|row| row.len().max(1)).collect();
        let (mut order, mut parts) = (Vec::with_capacity(rows.len()), Vec::new());
        for batch in batches(&lengths, tokens_max) {
            parts.push(part(&batch.iter().map(|&place| rows[place]).collect::<Vec<_>>())?.f_to_device(Device::Cpu)?);
            order.extend(batch);
        }
        let mut places = vec![0i64; rows.len()];
        order.iter().zip(0i64..).for_each(|(&place, at)| places[place] = at);
        Ok(Tensor::f_cat(&parts, 0)?.f_index_select(0, &Tensor::f_from_slice(&places)?)?)
    }

    /// The probability of each label of each text, row by row.
    pub fn probabilities(&self, tokenizer: &TextTokenizer, texts: &[&str], tokens_max: usize) -> Result<Vec<Vec<f64>>> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let ids = tokenizer.ids(texts)?;
        let rows: Vec<&[i64]> = ids.iter().map(Vec::as_slice).collect();
        let raw = self.in_batches(&rows, tokens_max, |rows| Ok(self.head.probabilities(&self.raw(rows, false)?)))?;
        Ok(Vec::<Vec<f64>>::try_from(raw.f_to_kind(Kind::Double)?)?)
    }
}

/// A head learns from vectors as they are: of length one, they would need far larger weights than a head starts with.
fn plain(pooling: &Pooling) -> Pooling {
    Pooling { normalise: false, ..pooling.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;
    use crate::lake::stores::Location;
    use crate::model::labels::Labels;

    async fn classifier(name: &str, labels: Labels) -> (TextClassifier, TextTokenizer, nn::VarStore) {
        let at = format!("{}/tests/fixtures/text/{name}", env!("CARGO_MANIFEST_DIR"));
        let folder = TextFolder::read(&Location::open(&at, &S3Config::default()).unwrap(), None).await.unwrap();
        tch::manual_seed(3);
        let store = nn::VarStore::new(Device::Cpu);
        let network = folder.network(&(store.root() / "text")).unwrap();
        let head = LabelHead::new(&(store.root() / "head"), labels, (TextClassifier::width(&folder), 3));
        (TextClassifier::new(network, &folder.pooling, head, Device::Cpu), folder.tokenizer, store)
    }

    #[tokio::test]
    async fn a_batch_gives_what_its_members_give_and_every_text_has_probabilities() {
        let long = "word ".repeat(4000);
        let texts = ["a red mug", "", "the lamp broke after two days", " \n", long.as_str(), "\0\u{fffd}"];
        for name in ["bert", "roberta", "distilbert", "gpt2", "minilm"] {
            for labels in [Labels::Single, Labels::Multi, Labels::Chain] {
                let (classifier, tokenizer, _store) = classifier(name, labels).await;
                let together = classifier.probabilities(&tokenizer, &texts, 64).unwrap();
                for (text, row) in texts.iter().zip(&together) {
                    let alone = classifier.probabilities(&tokenizer, &[text], 64).unwrap().remove(0);
                    assert!(row.iter().zip(&alone).all(|(a, b)| (a - b).abs() < 1e-5), "{name} {labels:?} {text:.20}");
                    assert!(row.iter().all(|p| (0.0..=1.0).contains(p)), "{name} {labels:?} {row:?}");
                    let sum: f64 = row.iter().sum();
                    assert!(labels != Labels::Single || (sum - 1.0).abs() < 1e-5, "{name}: {sum}");
                }
            }
        }
    }
}
