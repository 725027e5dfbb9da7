//! Texts into token ids, by a folder's `tokenizer.json` and nothing else: its own truncation and padding are switched off,
//! so that a text's ids depend on the text and on `max_length` alone.

use std::collections::HashSet;
use tokenizers::{PostProcessor, Tokenizer, TruncationParams};

use super::config::TextShape;
use crate::failure::{Failure, Result};

/// Tokens of a text that are read where neither caller nor folder says otherwise.
pub const MAX_LENGTH: usize = 512;

/// Characters of a text that a tokenizer looks at, for each token that is read, and at least so many for
/// [`MAX_LENGTH`] tokens. A text of 10 MB costs no more than one of 32,768 characters; only a text whose first tokens are
/// on average longer than that (white space by the page) reads otherwise than uncut.
const CHARACTERS_A_TOKEN: usize = 64;

/// What a tokenizer must get through when it is opened, so that no text fails later: a word that it cannot know, bytes that
/// are no text, white space.
const PROBE: &str = "\u{10fffd}\0\u{7f} 木\u{301}🙂\u{200d}x \n";

#[derive(Debug)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    max_length: usize,
}

impl TextTokenizer {
    /// Reads `tokenizer.json`. `max_length` counts the special tokens that are added; it is cut to the network's positions.
    /// Refuses a tokenizer whose ids do not fit the word embedding.
    pub fn open(bytes: &[u8], max_length: usize, shape: &TextShape) -> Result<Self> {
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| Failure::model(e.to_string()))?;
        let max_length = max_length.min(usize::try_from(shape.positions()).unwrap_or(usize::MAX));
        let added = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        if max_length <= added {
            return Err(Failure::model(format!(
                "a length of {max_length} tokens leaves none for text: {added} are special ones"
            )));
        }
        for (word, id) in tokenizer.get_vocab(true) {
            fits(id, &word, shape)?;
        }
        let truncation = TruncationParams { max_length, ..Default::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(|e| Failure::model(e.to_string()))?;
        tokenizer.with_padding(None);
        let opened = Self { tokenizer, max_length };
        for id in opened.ids(&[PROBE])?.concat() {
            fits(u32::try_from(id).unwrap_or(u32::MAX), "a special token", shape)?;
        }
        Ok(opened)
    }

    /// Tokens of a text that are read, special ones among them.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The ids of each text, without padding. A text of nothing that the tokenizer knows gives its special tokens alone, or
    /// no token where it adds none. Special tokens that are typed into a text count as such, as in `transformers`.
    pub fn ids(&self, texts: &[&str]) -> Result<Vec<Vec<i64>>> {
        let cut = texts.iter().map(|text| self.cut(text)).collect();
        let encoded = self.tokenizer.encode_batch_fast(cut, true);
        let encoded = encoded.map_err(|e| Failure::model(format!("tokenizer.json: {e}")))?;
        Ok(encoded.iter().map(|of| of.get_ids().iter().map(|id| i64::from(*id)).collect()).collect())
    }

    /// The id of the word that stands for a hidden one; `None` where the tokenizer has none (GPT-2).
    pub fn mask_id(&self) -> Option<i64> {
        ["[MASK]", "<mask>"].iter().find_map(|word| self.tokenizer.token_to_id(word)).map(i64::from)
    }

    /// The ids of special tokens: they stand for no word.
    pub fn special_ids(&self) -> HashSet<i64> {
        let added = self.tokenizer.get_added_tokens_decoder().into_iter();
        added.filter(|(_, token)| token.special).map(|(id, _)| i64::from(id)).collect()
    }

    fn cut<'a>(&self, text: &'a str) -> &'a str {
        let characters = CHARACTERS_A_TOKEN * self.max_length.max(MAX_LENGTH);
        text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end])
    }
}

fn fits(id: u32, word: &str, shape: &TextShape) -> Result<()> {
    if i64::from(id) < shape.vocabulary {
        return Ok(());
    }
    Err(Failure::model(format!(
        "expected ids below {} (vocab_size of config.json), got {id} for {word:?}",
        shape.vocabulary
    ))
    .hint("tokenizer.json and config.json are of two models"))
}
