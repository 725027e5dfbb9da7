//! Parses a folder's `config.json` into a checked [`TextShape`]: family, sizes, activation. Refuses by name every
//! option that this implementation would compute differently.

use serde_json::{Map, Value};

use super::activation::Activation;
use crate::failure::{Failure, Result};

/// The supported architectures, by `model_type`. MiniLM and most sentence encoders use one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Bert,
    Roberta,
    DistilBert,
    Gpt2,
}

impl Family {
    pub(crate) const ALL: [Family; 4] = [Family::Bert, Family::Roberta, Family::DistilBert, Family::Gpt2];

    /// The value of `model_type` in `config.json`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Family::Bert => "bert",
            Family::Roberta => "roberta",
            Family::DistilBert => "distilbert",
            Family::Gpt2 => "gpt2",
        }
    }

    /// True if a token attends only to itself and earlier tokens.
    pub(crate) fn is_causal(self) -> bool {
        self == Family::Gpt2
    }
}

/// Everything that defines a network except its weights.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TextShape {
    pub(crate) family: Family,
    /// Rows of the word embedding. A tokenizer may know fewer words, never more.
    pub(crate) vocabulary: i64,
    pub(crate) width: i64,
    pub(crate) layers: i64,
    pub(crate) heads: i64,
    pub(crate) feed_forward_width: i64,
    /// Rows of the position embedding, including RoBERTa's unused first ones.
    pub(crate) position_rows: i64,
    /// Rows of the segment embedding; 0 if the family has none. Every text is in segment 0.
    pub(crate) segments: i64,
    pub(crate) pad_id: i64,
    /// Added to the variance in layer norms.
    pub(crate) epsilon: f64,
    pub(crate) activation: Activation,
    /// Dropout of hidden states in training.
    pub(crate) dropout: f64,
    /// Dropout of attention weights in training.
    pub(crate) attention_dropout: f64,
}

impl TextShape {
    /// Parses `config.json`.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let fields: Map<String, Value> = serde_json::from_slice(bytes).map_err(|e| Failure::model(e.to_string()))?;
        let fields = Fields(fields);
        let shape = match fields.family()? {
            family @ (Family::Bert | Family::Roberta) => fields.bert(family)?,
            Family::DistilBert => fields.distilbert()?,
            Family::Gpt2 => fields.gpt2()?,
        };
        shape.check()?;
        Ok(shape)
    }

    /// The position of a text's first token. RoBERTa counts from the id after its padding id.
    pub(crate) fn first_position(&self) -> i64 {
        if self.family == Family::Roberta { self.pad_id + 1 } else { 0 }
    }

    /// The number of tokens for which there are positions.
    pub(crate) fn positions(&self) -> i64 {
        self.position_rows - self.first_position()
    }

    fn check(&self) -> Result<()> {
        if self.width % self.heads != 0 {
            let (width, heads) = (self.width, self.heads);
            return Err(Failure::model(format!("a width of {width} is not divisible by {heads} attention heads")));
        }
        if !(0..self.vocabulary).contains(&self.pad_id) {
            let (id, words) = (self.pad_id, self.vocabulary);
            return Err(Failure::model(format!("pad_token_id: expected an id below {words} (vocab_size), got {id}")));
        }
        if self.positions() < 1 {
            return Err(Failure::model(format!(
                "{} positions leave none for text after pad_token_id {}",
                self.position_rows, self.pad_id
            )));
        }
        Ok(())
    }
}

/// The JSON object in `config.json`.
struct Fields(Map<String, Value>);

impl Fields {
    fn family(&self) -> Result<Family> {
        let known = || Family::ALL.map(Family::name).join(", ");
        let Some(name) = self.0.get("model_type").and_then(Value::as_str) else {
            return Err(Failure::model(format!("model_type is missing: expected one of {}", known())));
        };
        let family = Family::ALL.into_iter().find(|f| f.name() == name);
        family.ok_or_else(|| {
            Failure::model(format!("model_type: expected one of {}, got {name}", known()))
                .hint("compute the vectors elsewhere and add them to the items as a column")
        })
    }

    fn bert(&self, family: Family) -> Result<TextShape> {
        self.require("position_embedding_type", &Value::from("absolute"))?;
        self.require("is_decoder", &Value::from(false))?;
        self.require("add_cross_attention", &Value::from(false))?;
        let pad_id = if family == Family::Roberta { 1 } else { 0 };
        Ok(TextShape {
            family,
            vocabulary: self.size("vocab_size")?,
            width: self.size("hidden_size")?,
            layers: self.size("num_hidden_layers")?,
            heads: self.size("num_attention_heads")?,
            feed_forward_width: self.size("intermediate_size")?,
            position_rows: self.size("max_position_embeddings")?,
            segments: self.size_or("type_vocab_size", 2)?,
            pad_id: self.id_or("pad_token_id", pad_id)?,
            epsilon: self.fraction_or("layer_norm_eps", 1e-12)?,
            activation: self.activation("hidden_act", "gelu")?,
            dropout: self.fraction_or("hidden_dropout_prob", 0.1)?,
            attention_dropout: self.fraction_or("attention_probs_dropout_prob", 0.1)?,
        })
    }

    fn distilbert(&self) -> Result<TextShape> {
        Ok(TextShape {
            family: Family::DistilBert,
            vocabulary: self.size("vocab_size")?,
            width: self.size("dim")?,
            layers: self.size("n_layers")?,
            heads: self.size("n_heads")?,
            feed_forward_width: self.size("hidden_dim")?,
            position_rows: self.size("max_position_embeddings")?,
            segments: 0,
            pad_id: self.id_or("pad_token_id", 0)?,
            epsilon: 1e-12,
            activation: self.activation("activation", "gelu")?,
            dropout: self.fraction_or("dropout", 0.1)?,
            attention_dropout: self.fraction_or("attention_dropout", 0.1)?,
        })
    }

    fn gpt2(&self) -> Result<TextShape> {
        self.require("scale_attn_weights", &Value::from(true))?;
        self.require("scale_attn_by_inverse_layer_idx", &Value::from(false))?;
        self.require("add_cross_attention", &Value::from(false))?;
        let width = self.size("n_embd")?;
        Ok(TextShape {
            family: Family::Gpt2,
            vocabulary: self.size("vocab_size")?,
            width,
            layers: self.size("n_layer")?,
            heads: self.size("n_head")?,
            feed_forward_width: self.size_or("n_inner", width.saturating_mul(4))?,
            position_rows: self.size("n_positions")?,
            segments: 0,
            // GPT-2 has no padding token; padded positions are masked.
            pad_id: self.id_or("pad_token_id", 0)?,
            epsilon: self.fraction_or("layer_norm_epsilon", 1e-5)?,
            activation: self.activation("activation_function", "gelu_new")?,
            dropout: self.fraction_or("resid_pdrop", 0.1)?,
            attention_dropout: self.fraction_or("attn_pdrop", 0.1)?,
        })
    }

    /// Returns a value; JSON's null is absent, as in `transformers`.
    fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// Refuses any other value of an option than the supported one, which is also its default.
    fn require(&self, name: &str, supported: &Value) -> Result<()> {
        match self.value(name) {
            Some(got) if got != supported => {
                Err(Failure::model(format!("{name}: expected {supported}, the only supported value, got {got}")))
            }
            _ => Ok(()),
        }
    }

    fn size(&self, name: &str) -> Result<i64> {
        match self.value(name) {
            None => Err(Failure::model(format!("{name} is missing"))),
            Some(value) => value
                .as_i64()
                .filter(|size| (1..=i64::from(i32::MAX)).contains(size))
                .ok_or_else(|| Failure::model(format!("{name}: expected a whole number of at least 1, got {value}"))),
        }
    }

    fn size_or(&self, name: &str, default: i64) -> Result<i64> {
        if self.value(name).is_some() { self.size(name) } else { Ok(default) }
    }

    fn id_or(&self, name: &str, default: i64) -> Result<i64> {
        match self.value(name) {
            None => Ok(default),
            Some(value) => {
                value.as_i64().ok_or_else(|| Failure::model(format!("{name}: expected a token id, got {value}")))
            }
        }
    }

    fn fraction_or(&self, name: &str, default: f64) -> Result<f64> {
        match self.value(name) {
            None => Ok(default),
            Some(value) => value
                .as_f64()
                .filter(|fraction| (0.0..1.0).contains(fraction))
                .ok_or_else(|| Failure::model(format!("{name}: expected a number from 0 to below 1, got {value}"))),
        }
    }

    fn activation(&self, name: &str, default: &str) -> Result<Activation> {
        let text = self.value(name).map_or(default.to_string(), |v| v.as_str().map_or(v.to_string(), String::from));
        Activation::from_name(&text).ok_or_else(|| {
            let known = Activation::NAMES.map(|(name, _)| name).join(", ");
            Failure::model(format!("{name}: expected one of {known}, got {text}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bert() -> Value {
        json!({"model_type": "bert", "vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1,
               "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 12})
    }

    fn refused(changes: Value) -> String {
        let mut config = bert();
        config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let failure = TextShape::parse(config.to_string().as_bytes()).unwrap_err();
        assert_eq!(failure.kind.exit_code(), 6, "{failure}");
        failure.message
    }

    #[test]
    fn an_unknown_architecture_or_activation_is_refused() {
        let message = refused(json!({"model_type": "t5"}));
        assert_eq!(message, "model_type: expected one of bert, roberta, distilbert, gpt2, got t5");
        assert!(refused(json!({"model_type": null})).starts_with("model_type is missing"));
        let message = refused(json!({"hidden_act": "mish"}));
        assert!(
            message.starts_with("hidden_act: expected one of gelu, ") && message.ends_with("got mish"),
            "{message}"
        );
    }

    #[test]
    fn unsupported_options_are_refused() {
        let message = refused(json!({"position_embedding_type": "relative_key"}));
        assert!(message.contains("position_embedding_type: expected \"absolute\""), "{message}");
        assert!(refused(json!({"is_decoder": true})).starts_with("is_decoder: expected false"));
        let gpt2 = json!({"model_type": "gpt2", "scale_attn_by_inverse_layer_idx": true});
        assert!(refused(gpt2).starts_with("scale_attn_by_inverse_layer_idx: expected false"));
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert_eq!(refused(json!({"hidden_size": null})), "hidden_size is missing");
        assert!(refused(json!({"hidden_size": -8})).contains("hidden_size: expected a whole number"));
        assert!(refused(json!({"vocab_size": 1u64 << 40})).contains("vocab_size: expected a whole number"));
        assert_eq!(refused(json!({"num_attention_heads": 3})), "a width of 8 is not divisible by 3 attention heads");
        assert!(refused(json!({"pad_token_id": 30})).starts_with("pad_token_id: expected an id below 30"));
        assert!(refused(json!({"model_type": "roberta", "pad_token_id": 11})).contains("leave none for text"));
        assert!(TextShape::parse(b"[]").is_err() && TextShape::parse(b"").is_err());
    }

    #[test]
    fn the_first_positions_of_roberta_are_unused() {
        let mut config = bert();
        assert_eq!(TextShape::parse(config.to_string().as_bytes()).unwrap().positions(), 12);
        config["model_type"] = json!("roberta");
        assert_eq!(TextShape::parse(config.to_string().as_bytes()).unwrap().positions(), 10);
    }
}
