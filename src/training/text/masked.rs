//! Masked words (Devlin et al. 2018, 3.1): before it sees a label, the encoder guesses hidden words of the shop's own
//! texts. Of the words, 15 % are chosen; of these 80 % are hidden, 10 % become another word, 10 % stay as they are.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use tch::nn::{self, Module};
use tch::{Device, Tensor};

use super::reader::grouped;
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::model::text::batching::{PaddedTokens, pad, sort_into_batches};
use crate::model::text::network::TextNetwork;
use crate::model::text::tokenizer::TextTokenizer;
use crate::training::fitting::{
    self, BatchLoss, Batches, Epoch, FitSettings, GroupBatch, Journal, StepOptions, TrainingTask, Validation,
    batches_of_groups,
};

const CHOSEN_SHARE: f64 = 0.15;
const HIDDEN_SHARE: f64 = 0.8;
const OTHER_SHARE: f64 = 0.1;
/// Where the head's variables lie in the store; they are of no use afterwards.
pub const PART: &str = "masked";

/// Teaches all weights of the encoder, and gives the validation's loss before and after.
pub fn teach(
    config: &Config,
    network: &TextNetwork,
    store: &mut nn::VarStore,
    texts: Texts<'_>,
    step_options: impl Fn(&nn::VarStore) -> StepOptions,
    journal: &mut Journal,
) -> Result<BTreeMap<String, f64>> {
    let Some(mask_id) = texts.tokenizer.mask_id() else {
        return Err(Failure::usage("text.masked_epochs: expected 0, because the encoder's tokenizer has no mask")
            .hint("GPT-2 reads forwards and has nothing to guess; take an encoder of BERT's family"));
    };
    let guess = Guess::new(&(store.root() / PART), network.shape.width, network.shape.vocabulary);
    let words = Words { mask_id, special: texts.tokenizer.special_ids(), vocabulary: network.shape.vocabulary };
    let hiding = Hiding { words, ids: Arc::clone(&texts.ids), pad_id: network.shape.pad_id };
    let device = store.device();
    let step_options = step_options(store);
    let rows = texts.train.len();
    let mut lesson = MaskedLesson { network, guess, hiding, texts, step_options, config, device };
    let before = lesson.valid_loss()?;
    let plan = FitSettings {
        epochs_max: config.text.masked_epochs,
        patience_epochs: config.train.patience_epochs,
        learning_rate: config.text.learning_rate,
        weight_decay: config.train.weight_decay,
        seed: config.train.seed,
    };
    let bar = crate::progress::bar("masked words", 1);
    let fitted = fitting::fit(&mut lesson, store, &plan, journal, &bar)?;
    bar.finish_and_clear();
    Ok(BTreeMap::from([
        ("masked_loss_valid_before".to_string(), before),
        ("masked_loss_valid".to_string(), fitted.loss),
        ("masked_seconds".to_string(), fitted.seconds),
        ("masked_epochs".to_string(), fitted.epochs.into()),
        ("masked_rows_train".to_string(), rows as f64),
    ]))
}

/// Token ids of all rows, and which of them teach and which validate.
pub struct Texts<'a> {
    pub ids: Arc<Vec<Vec<i64>>>,
    pub train: &'a [usize],
    pub valid: &'a [usize],
    pub tokenizer: &'a TextTokenizer,
}

/// BERT's head: a layer, then the word embedding read backwards.
struct Guess {
    layer: nn::Linear,
    norm: nn::LayerNorm,
    bias: Tensor,
}

impl Guess {
    fn new(path: &nn::Path<'_>, width: i64, vocabulary: i64) -> Self {
        Self {
            layer: nn::linear(path / "layer", width, width, Default::default()),
            norm: nn::layer_norm(path / "norm", vec![width], Default::default()),
            bias: path.zeros("bias", &[vocabulary]),
        }
    }

    /// States of hidden words, float32 [words, width] → scores of all words, float32 [words, vocabulary].
    fn scores(&self, states: &Tensor, words: &Tensor) -> Result<Tensor> {
        let x = self.norm.forward(&self.layer.forward(states).f_gelu("none")?);
        Ok(x.f_linear(words, Some(&self.bias))?)
    }
}

#[derive(Clone)]
struct Words {
    mask_id: i64,
    special: HashSet<i64>,
    vocabulary: i64,
}

/// Rows with some of their words hidden; where, counted over the padded batch, and what stood there.
#[derive(Debug)]
struct Hidden {
    rows: Vec<Vec<i64>>,
    places: Vec<i64>,
    truth: Vec<i64>,
}

impl Words {
    fn hide(&self, rows: &[&[i64]], rng: &mut ChaCha8Rng) -> Hidden {
        let tokens = rows.iter().map(|row| row.len()).max().unwrap_or(0).max(1);
        let (mut places, mut truth) = (Vec::new(), Vec::new());
        let mut changed: Vec<Vec<i64>> = rows.iter().map(|row| row.to_vec()).collect();
        for (at, row) in changed.iter_mut().enumerate() {
            for (place, id) in row.iter_mut().enumerate() {
                if self.special.contains(id) || !rng.random_bool(CHOSEN_SHARE) {
                    continue;
                }
                places.push((at * tokens + place) as i64);
                truth.push(*id);
                let draw: f64 = rng.random();
                if draw < HIDDEN_SHARE {
                    *id = self.mask_id;
                } else if draw < HIDDEN_SHARE + OTHER_SHARE {
                    *id = rng.random_range(0..self.vocabulary);
                }
            }
        }
        if places.is_empty() {
            // A small batch of short texts: its first token is guessed as it stands, so that there is a loss.
            places.push(0);
            truth.push(rows.first().and_then(|row| row.first()).copied().unwrap_or(self.mask_id));
        }
        Hidden { rows: changed, places, truth }
    }
}

/// Makes batches of texts with hidden words.
#[derive(Clone)]
struct Hiding {
    words: Words,
    ids: Arc<Vec<Vec<i64>>>,
    pad_id: i64,
}

/// Texts with hidden words, on the CPU.
struct MaskedBatch {
    tokens: PaddedTokens,
    /// int64 [words]: where words were hidden, counted over the padded batch, and which.
    places: Tensor,
    truth: Tensor,
}

impl Hiding {
    fn make(&self, rows: &[usize], rng: &mut ChaCha8Rng) -> Result<MaskedBatch> {
        let texts: Vec<&[i64]> = rows.iter().map(|&row| self.ids[row].as_slice()).collect();
        let hidden = self.words.hide(&texts, rng);
        let changed: Vec<&[i64]> = hidden.rows.iter().map(Vec::as_slice).collect();
        Ok(MaskedBatch {
            tokens: pad(&changed, self.pad_id, Device::Cpu)?,
            places: Tensor::f_from_slice(&hidden.places)?,
            truth: Tensor::f_from_slice(&hidden.truth)?,
        })
    }
}

struct MaskedLesson<'a> {
    network: &'a TextNetwork,
    guess: Guess,
    hiding: Hiding,
    texts: Texts<'a>,
    step_options: StepOptions,
    config: &'a Config,
    device: Device,
}

impl MaskedLesson<'_> {
    fn loss_of(&self, batch: &MaskedBatch, train: bool) -> Result<Tensor> {
        let on = |tensor: &Tensor| tensor.f_to_device(self.device);
        let states = self.network.states(&batch.tokens.to_device(self.device)?, train)?;
        let states = states.f_reshape([-1, self.network.shape.width])?;
        let scores = self.guess.scores(&states.f_index_select(0, &on(&batch.places)?)?, self.network.words())?;
        Ok(scores.cross_entropy_for_logits(&on(&batch.truth)?))
    }

    /// The mean over the hidden words of the validation rows, always the same ones.
    fn valid_loss(&self) -> Result<f64> {
        let _guard = tch::no_grad_guard();
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.train.seed);
        let lengths: Vec<usize> = self.texts.valid.iter().map(|&row| self.texts.ids[row].len()).collect();
        let (mut sum, mut words) = (0.0, 0);
        for batch in sort_into_batches(&lengths, self.config.text.batch_tokens_max as usize) {
            let rows: Vec<usize> = batch.into_iter().map(|place| self.texts.valid[place]).collect();
            let batch = self.hiding.make(&rows, &mut rng)?;
            let count = batch.places.numel();
            sum += self.loss_of(&batch, false)?.double_value(&[]) * count as f64;
            words += count;
        }
        Ok(sum / words.max(1) as f64)
    }
}

impl TrainingTask for MaskedLesson<'_> {
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
        let groups = grouped(self.texts.train, &self.texts.ids, tokens_max, &mut epoch.order);
        let hiding = self.hiding.clone();
        batches_of_groups(groups, epoch, move |rows, rng| hiding.make(rows, rng))
    }

    fn loss(&mut self, batch: &Self::Batch, _: &mut ChaCha8Rng) -> Result<BatchLoss> {
        Ok(self.loss_of(&batch.data, true)?.into())
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
    fn fifteen_of_a_hundred_words_are_chosen_and_special_tokens_never() {
        let words = Words { mask_id: 4, special: HashSet::from([0, 1, 2, 3, 4]), vocabulary: 1_000_000 };
        let row: Vec<i64> = (0..20_000i64).map(|i| if i % 4 == 0 { 2 } else { 10 + i }).collect();
        let hidden = words.hide(&[&row, &row[..3]], &mut ChaCha8Rng::seed_from_u64(1));
        let chosen: Vec<usize> = hidden.places.iter().map(|&p| p as usize).filter(|&p| p < row.len()).collect();
        let share = chosen.len() as f64 / 15_000.0;
        assert!((0.14..0.16).contains(&share), "{share}");
        let of = |is: &dyn Fn(usize) -> bool| chosen.iter().filter(|&&p| is(p)).count() as f64 / chosen.len() as f64;
        let (masked, same) = (of(&|p| hidden.rows[0][p] == 4), of(&|p| hidden.rows[0][p] == row[p]));
        assert!((0.77..0.83).contains(&masked) && (0.07..0.13).contains(&same), "{masked} {same}");
        assert!(chosen.iter().zip(&hidden.truth).all(|(&p, &truth)| row[p] == truth && truth >= 10));
        let untouched = (0..row.len()).filter(|p| !chosen.contains(p)).all(|p| hidden.rows[0][p] == row[p]);
        assert!(untouched && hidden.rows[1].len() == 3);
    }

    #[test]
    fn a_batch_in_which_no_word_was_chosen_still_has_a_loss() {
        let words = Words { mask_id: 4, special: HashSet::from([1, 2]), vocabulary: 9 };
        let hidden = words.hide(&[&[1, 2]], &mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!((hidden.places, hidden.truth), (vec![0], vec![1]));
    }
}
