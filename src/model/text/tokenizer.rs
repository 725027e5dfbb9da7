//! Turns texts into token ids with a folder's `tokenizer.json`. The file's truncation and padding settings are
//! disabled, so that a text's ids depend only on the text and on `max_length`.

use std::collections::HashSet;
use tokenizers::{PostProcessor, Tokenizer, TruncationParams};

use super::shape::TextShape;
use crate::failure::{Failure, Result};

/// The maximum length in tokens if neither the caller nor the folder sets one.
pub(crate) const MAX_LENGTH: usize = 512;

/// Texts are cut to this number of characters per token of the maximum length, and never below that of [`MAX_LENGTH`]
/// tokens. A text of 10 MB costs no more than one of 32,768 characters. The cut changes the ids only of a text whose
/// first tokens are longer on average, such as pages of white space.
const CHARACTERS_PER_TOKEN: usize = 64;

/// Tokenized once on loading, so that no text fails later: a word that no tokenizer knows, control characters, white
/// space.
const ROBUSTNESS_SAMPLE: &str = "\u{10fffd}\0\u{7f} 木\u{301}🙂\u{200d}x \n";

#[derive(Debug)]
pub(crate) struct TextTokenizer {
    tokenizer: Tokenizer,
    max_length: usize,
}

impl TextTokenizer {
    /// Parses `tokenizer.json`. `length` includes the special tokens that are added and is limited to the network's
    /// positions. Refuses a tokenizer whose ids do not fit the word embedding.
    pub(crate) fn from_bytes(bytes: &[u8], length: usize, shape: &TextShape) -> Result<Self> {
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| Failure::model(e.to_string()))?;
        let max_length = length.min(usize::try_from(shape.positions()).unwrap_or(usize::MAX));
        let added = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        if max_length <= added {
            return Err(Failure::model(format!(
                "a maximum length of {max_length} tokens leaves none for text: {added} are special tokens"
            )));
        }
        for (word, id) in tokenizer.get_vocab(true) {
            check_id_fits(id, &word, shape)?;
        }
        let truncation = TruncationParams { max_length, ..Default::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(|e| Failure::model(e.to_string()))?;
        tokenizer.with_padding(None);
        let opened = Self { tokenizer, max_length };
        for id in opened.ids(&[ROBUSTNESS_SAMPLE])?.concat() {
            check_id_fits(u32::try_from(id).unwrap_or(u32::MAX), "a special token", shape)?;
        }
        Ok(opened)
    }

    /// The maximum number of tokens of a text, including special tokens.
    pub(crate) fn max_length(&self) -> usize {
        self.max_length
    }

    /// Returns the ids of each text, without padding. An empty text gives only special tokens, or none if the tokenizer
    /// adds none. Special tokens written literally in a text are treated as such, as in `transformers`.
    pub(crate) fn ids(&self, texts: &[&str]) -> Result<Vec<Vec<i64>>> {
        let cut = texts.iter().map(|text| self.cut(text)).collect();
        let encoded = self.tokenizer.encode_batch_fast(cut, true);
        let encoded = encoded.map_err(|e| Failure::model(format!("tokenizer.json: {e}")))?;
        Ok(encoded.iter().map(|text| text.get_ids().iter().map(|id| i64::from(*id)).collect()).collect())
    }

    /// The id of the mask token; `None` if the tokenizer has none (GPT-2).
    pub(crate) fn mask_id(&self) -> Option<i64> {
        ["[MASK]", "<mask>"].iter().find_map(|word| self.tokenizer.token_to_id(word)).map(i64::from)
    }

    /// The ids of special tokens.
    pub(crate) fn special_ids(&self) -> HashSet<i64> {
        let added = self.tokenizer.get_added_tokens_decoder().into_iter();
        added.filter(|(_, token)| token.special).map(|(id, _)| i64::from(id)).collect()
    }

    fn cut<'a>(&self, text: &'a str) -> &'a str {
        let characters = CHARACTERS_PER_TOKEN * self.max_length.max(MAX_LENGTH);
        text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end])
    }
}

fn check_id_fits(id: u32, word: &str, shape: &TextShape) -> Result<()> {
    if i64::from(id) < shape.vocabulary {
        return Ok(());
    }
    Err(Failure::model(format!(
        "expected ids below {} (vocab_size of config.json), got {id} for {word:?}",
        shape.vocabulary
    ))
    .hint("tokenizer.json and config.json belong to different models"))
}
