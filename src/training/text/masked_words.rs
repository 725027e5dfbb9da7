//! Pretrains the encoder on masked words of the shop's texts (Devlin et al. 2018, 3.1), before it sees a label. 15 % of
//! the words are selected; of these, 80 % are masked, 10 % are replaced by a random word, and 10 % stay unchanged.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use tch::nn::{self, Module};
use tch::{Device, Tensor};

use super::strategy;
use super::text_rows::{TokenIds, group_by_length, ids_of_rows};
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::model::text::batching::{PaddedTokens, pad, sort_into_batches};
use crate::model::text::network::TextNetwork;
use crate::model::text::tokenizer::TextTokenizer;
use crate::training::fitting::{
    self, BatchLoss, Batches, Epoch, FitSettings, GroupBatch, Journal, StepOptions, TrainingTask, Validation,
    batches_of_groups,
};

const SELECTED_SHARE: f64 = 0.15;
const MASKED_SHARE: f64 = 0.8;
const REPLACED_SHARE: f64 = 0.1;
/// The head's group in the store; its weights are discarded after pretraining.
pub(crate) const GROUP: &str = "masked";

/// The texts to pretrain on.
pub(crate) struct MaskedTexts<'a> {
    pub(crate) ids: Arc<TokenIds>,
    pub(crate) train: Vec<usize>,
    pub(crate) valid: &'a [usize],
    pub(crate) tokenizer: &'a TextTokenizer,
}

/// Trains all weights of the encoder, and returns the validation loss before and after.
pub(crate) fn pretrain(
    config: &Config,
    network: &TextNetwork,
    store: &mut nn::VarStore,
    texts: MaskedTexts<'_>,
    journal: &mut Journal,
) -> Result<BTreeMap<String, f64>> {
    let Some(mask_id) = texts.tokenizer.mask_id() else {
        return Err(Failure::usage(
            "text.masked_epochs: expected 0, because the encoder's tokenizer has no mask token",
        )
        .hint("GPT-2 has no masked words; use an encoder of BERT's family"));
    };
    let head = MaskedWordHead::new(&(store.root() / GROUP), network.shape.width, network.shape.vocabulary);
    let masking = Masking { mask_id, special: texts.tokenizer.special_ids(), vocabulary: network.shape.vocabulary };
    let builder = MaskedBatchBuilder { masking, ids: Arc::clone(&texts.ids), pad_id: network.shape.pad_id };
    let device = store.device();
    let step_options = strategy::step_options(&config.text, &network.shape, store);
    let train_rows = texts.train.len();
    let mut task = MaskedWordsTask { network, head, builder, texts, step_options, config, device };
    let loss_before = task.valid_loss()?;
    let fit_settings = FitSettings {
        epochs_max: config.text.masked_epochs,
        patience_epochs: config.train.patience_epochs,
        learning_rate: config.text.learning_rate,
        weight_decay: config.train.weight_decay,
        seed: config.train.seed,
    };
    let bar = crate::progress::bar("masked words", 1);
    let fitted = fitting::fit(&mut task, store, &fit_settings, journal, &bar)?;
    bar.finish_and_clear();
    Ok(BTreeMap::from([
        ("masked_loss_valid_before".to_string(), loss_before),
        ("masked_loss_valid".to_string(), fitted.loss),
        ("masked_seconds".to_string(), fitted.seconds),
        ("masked_epochs".to_string(), fitted.epochs.into()),
        ("masked_rows_train".to_string(), train_rows as f64),
    ]))
}

/// BERT's head: a layer, then a product with the word embedding.
struct MaskedWordHead {
    layer: nn::Linear,
    norm: nn::LayerNorm,
    bias: Tensor,
}

impl MaskedWordHead {
    fn new(path: &nn::Path<'_>, width: i64, vocabulary: i64) -> Self {
        Self {
            layer: nn::linear(path / "layer", width, width, Default::default()),
            norm: nn::layer_norm(path / "norm", vec![width], Default::default()),
            bias: path.zeros("bias", &[vocabulary]),
        }
    }

    /// Maps states of selected words, float32 [words, width], to logits, float32 [words, vocabulary].
    fn logits(&self, states: &Tensor, embedding: &Tensor) -> Result<Tensor> {
        let x = self.norm.forward(&self.layer.forward(states).f_gelu("none")?);
        Ok(x.f_linear(embedding, Some(&self.bias))?)
    }
}

#[derive(Clone)]
struct Masking {
    mask_id: i64,
    special: HashSet<i64>,
    vocabulary: i64,
}

/// Rows with some words masked.
#[derive(Debug)]
struct MaskedRows {
    rows: TokenIds,
    /// The positions of the selected words in the padded batch.
    positions: Vec<i64>,
    /// The ids of the selected words.
    words: Vec<i64>,
}

impl Masking {
    fn mask(&self, rows: &[&[i64]], rng: &mut ChaCha8Rng) -> MaskedRows {
        let tokens = rows.iter().map(|row| row.len()).max().unwrap_or(0).max(1);
        let mut positions = Vec::new();
        let mut words = Vec::new();
        let mut masked: TokenIds = rows.iter().map(|row| row.to_vec()).collect();
        for (row_index, row) in masked.iter_mut().enumerate() {
            for (token_index, id) in row.iter_mut().enumerate() {
                if self.special.contains(id) || !rng.random_bool(SELECTED_SHARE) {
                    continue;
                }
                positions.push((row_index * tokens + token_index) as i64);
                words.push(*id);
                let draw: f64 = rng.random();
                if draw < MASKED_SHARE {
                    *id = self.mask_id;
                } else if draw < MASKED_SHARE + REPLACED_SHARE {
                    *id = rng.random_range(0..self.vocabulary);
                }
            }
        }
        if positions.is_empty() {
            // A small batch of short texts: predict its first token, unmasked, so that there is a loss.
            positions.push(0);
            words.push(rows.first().and_then(|row| row.first()).copied().unwrap_or(self.mask_id));
        }
        MaskedRows { rows: masked, positions, words }
    }
}

/// Makes batches of texts with masked words.
#[derive(Clone)]
struct MaskedBatchBuilder {
    masking: Masking,
    ids: Arc<TokenIds>,
    pad_id: i64,
}

/// Texts with masked words, on the CPU.
struct MaskedBatch {
    tokens: PaddedTokens,
    /// int64 [words]: the positions of the selected words in the padded batch.
    positions: Tensor,
    /// int64 [words]: their ids.
    words: Tensor,
}

impl MaskedBatchBuilder {
    fn build(&self, rows: &[usize], rng: &mut ChaCha8Rng) -> Result<MaskedBatch> {
        let masked = self.masking.mask(&ids_of_rows(&self.ids, rows), rng);
        let ids: Vec<&[i64]> = masked.rows.iter().map(Vec::as_slice).collect();
        Ok(MaskedBatch {
            tokens: pad(&ids, self.pad_id, Device::Cpu)?,
            positions: Tensor::f_from_slice(&masked.positions)?,
            words: Tensor::f_from_slice(&masked.words)?,
        })
    }
}

struct MaskedWordsTask<'a> {
    network: &'a TextNetwork,
    head: MaskedWordHead,
    builder: MaskedBatchBuilder,
    texts: MaskedTexts<'a>,
    step_options: StepOptions,
    config: &'a Config,
    device: Device,
}

impl MaskedWordsTask<'_> {
    fn batch_loss(&self, batch: &MaskedBatch, train: bool) -> Result<Tensor> {
        let states = self.network.states(&batch.tokens.to_device(self.device)?, train)?;
        let flat_states = states.f_reshape([-1, self.network.shape.width])?;
        let selected = flat_states.f_index_select(0, &batch.positions.f_to_device(self.device)?)?;
        let logits = self.head.logits(&selected, self.network.words())?;
        Ok(logits.cross_entropy_for_logits(&batch.words.f_to_device(self.device)?))
    }

    /// Returns the mean over the selected words of the validation rows, which are the same in every call.
    fn valid_loss(&self) -> Result<f64> {
        let _guard = tch::no_grad_guard();
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.train.seed);
        let lengths: Vec<usize> = self.texts.valid.iter().map(|&row| self.texts.ids[row].len()).collect();
        let mut sum = 0.0;
        let mut words = 0;
        for indices in sort_into_batches(&lengths, self.config.text.batch_tokens_max as usize) {
            let rows: Vec<usize> = indices.into_iter().map(|index| self.texts.valid[index]).collect();
            let batch = self.builder.build(&rows, &mut rng)?;
            let count = batch.positions.numel();
            sum += self.batch_loss(&batch, false)?.double_value(&[]) * count as f64;
            words += count;
        }
        Ok(sum / words.max(1) as f64)
    }
}

impl TrainingTask for MaskedWordsTask<'_> {
    type Batch = GroupBatch<MaskedBatch>;

    fn name(&self) -> &'static str {
        "masked_words"
    }

    fn samples_per_epoch(&self) -> usize {
        self.texts.train.len()
    }

    fn batch_samples(&self, batch: &Self::Batch) -> usize {
        batch.rows
    }

    fn batches(&self, mut epoch: Epoch) -> Result<Batches<Self::Batch>> {
        let tokens_max = self.config.text.batch_tokens_max as usize;
        let groups = group_by_length(&self.texts.train, &self.texts.ids, tokens_max, &mut epoch.order);
        let builder = self.builder.clone();
        batches_of_groups(groups, epoch, move |rows, rng| builder.build(rows, rng))
    }

    fn loss(&mut self, batch: &Self::Batch, _: &mut ChaCha8Rng) -> Result<BatchLoss> {
        Ok(self.batch_loss(&batch.data, true)?.into())
    }

    fn describe_batch(&self, batch: &Self::Batch) -> String {
        format!("{} texts, the first is of row {}", batch.rows, batch.first_row)
    }

    fn validate(&mut self) -> Result<Option<Validation>> {
        Ok(Some(Validation { loss: self.valid_loss()?, figures: Vec::new() }))
    }

    fn step_options(&self) -> StepOptions {
        self.step_options.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifteen_percent_of_words_are_selected_but_no_special_tokens() {
        let masking = Masking { mask_id: 4, special: HashSet::from([0, 1, 2, 3, 4]), vocabulary: 1_000_000 };
        let row: Vec<i64> = (0..20_000i64).map(|i| if i % 4 == 0 { 2 } else { 10 + i }).collect();
        let masked = masking.mask(&[&row, &row[..3]], &mut ChaCha8Rng::seed_from_u64(1));
        let selected: Vec<usize> = masked.positions.iter().map(|&p| p as usize).filter(|&p| p < row.len()).collect();
        let share = selected.len() as f64 / 15_000.0;
        assert!((0.14..0.16).contains(&share), "{share}");
        let share_of =
            |is: &dyn Fn(usize) -> bool| selected.iter().filter(|&&p| is(p)).count() as f64 / selected.len() as f64;
        let hidden = share_of(&|p| masked.rows[0][p] == 4);
        let unchanged = share_of(&|p| masked.rows[0][p] == row[p]);
        assert!((0.77..0.83).contains(&hidden) && (0.07..0.13).contains(&unchanged), "{hidden} {unchanged}");
        assert!(selected.iter().zip(&masked.words).all(|(&p, &word)| row[p] == word && word >= 10));
        let others_unchanged = (0..row.len()).filter(|p| !selected.contains(p)).all(|p| masked.rows[0][p] == row[p]);
        assert!(others_unchanged && masked.rows[1].len() == 3);
    }

    #[test]
    fn a_batch_without_a_selected_word_still_has_a_loss() {
        let masking = Masking { mask_id: 4, special: HashSet::from([1, 2]), vocabulary: 9 };
        let masked = masking.mask(&[&[1, 2]], &mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!((masked.positions, masked.words), (vec![0], vec![1]));
    }
}
