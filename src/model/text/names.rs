//! What each family calls its tensors, and which tensors of a folder are of no use here: heads of other tasks, and buffers
//! that older versions of `transformers` wrote along.

use super::config::Family;

/// Where a block keeps what attention reads.
#[derive(Debug, Clone, Copy)]
pub enum Inputs {
    /// Queries, keys and values by a map each.
    Apart([&'static str; 3]),
    /// All three by one map, next to each other.
    Fused(&'static str),
}

/// Names without the family's prefix; those of a block without the block's own.
#[derive(Debug)]
pub struct Names {
    /// What a model with a head puts in front of all names but the head's.
    prefix: &'static str,
    pub words: &'static str,
    pub positions: &'static str,
    pub types: Option<&'static str>,
    /// The norm over summed embeddings, and the norm over the last states: a family has one of them.
    pub norm_first: Option<&'static str>,
    pub norm_last: Option<&'static str>,
    /// Block number i is `{blocks}.{i}`.
    pub blocks: &'static str,
    pub inputs: Inputs,
    pub output: &'static str,
    pub norm_attention: &'static str,
    pub widen: &'static str,
    pub narrow: &'static str,
    pub norm_feed: &'static str,
    ignored_starts: &'static [&'static str],
    ignored_ends: &'static [&'static str],
}

const BERT: Names = Names {
    prefix: "bert.",
    words: "embeddings.word_embeddings.weight",
    positions: "embeddings.position_embeddings.weight",
    types: Some("embeddings.token_type_embeddings.weight"),
    norm_first: Some("embeddings.LayerNorm"),
    norm_last: None,
    blocks: "encoder.layer",
    inputs: Inputs::Apart(["attention.self.query", "attention.self.key", "attention.self.value"]),
    output: "attention.output.dense",
    norm_attention: "attention.output.LayerNorm",
    widen: "intermediate.dense",
    narrow: "output.dense",
    norm_feed: "output.LayerNorm",
    ignored_starts: &["cls.", "pooler.", "classifier.", "qa_outputs."],
    ignored_ends: &[".position_ids", ".token_type_ids"],
};

const ROBERTA: Names =
    Names { prefix: "roberta.", ignored_starts: &["lm_head.", "pooler.", "classifier.", "qa_outputs."], ..BERT };

const DISTILBERT: Names = Names {
    prefix: "distilbert.",
    types: None,
    blocks: "transformer.layer",
    inputs: Inputs::Apart(["attention.q_lin", "attention.k_lin", "attention.v_lin"]),
    output: "attention.out_lin",
    norm_attention: "sa_layer_norm",
    widen: "ffn.lin1",
    narrow: "ffn.lin2",
    norm_feed: "output_layer_norm",
    ignored_starts: &["vocab_", "pre_classifier.", "classifier.", "qa_outputs."],
    ..BERT
};

const GPT2: Names = Names {
    prefix: "transformer.",
    words: "wte.weight",
    positions: "wpe.weight",
    types: None,
    norm_first: None,
    norm_last: Some("ln_f"),
    blocks: "h",
    inputs: Inputs::Fused("attn.c_attn"),
    output: "attn.c_proj",
    norm_attention: "ln_1",
    widen: "mlp.c_fc",
    narrow: "mlp.c_proj",
    norm_feed: "ln_2",
    ignored_starts: &["lm_head.", "score.", "classifier."],
    ignored_ends: &[".attn.bias", ".attn.masked_bias"],
};

impl Names {
    pub fn of(family: Family) -> &'static Names {
        match family {
            Family::Bert => &BERT,
            Family::Roberta => &ROBERTA,
            Family::DistilBert => &DISTILBERT,
            Family::Gpt2 => &GPT2,
        }
    }

    /// The name without the family's prefix, and with today's words for the two numbers of a layer norm, which the first
    /// BERT folders call gamma and beta.
    pub fn today(&self, name: &str) -> String {
        let name = name.strip_prefix(self.prefix).unwrap_or(name);
        for (old, new) in [(".gamma", ".weight"), (".beta", ".bias")] {
            if let Some(layer) = name.strip_suffix(old) {
                return format!("{layer}{new}");
            }
        }
        name.into()
    }

    /// Whether a tensor of this name may be there without a use.
    pub fn ignored(&self, name: &str) -> bool {
        self.ignored_starts.iter().any(|start| name.starts_with(start))
            || self.ignored_ends.iter().any(|end| name.ends_with(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_and_old_words_are_understood() {
        let bert = Names::of(Family::Bert);
        assert_eq!(bert.today("bert.embeddings.LayerNorm.gamma"), "embeddings.LayerNorm.weight");
        assert_eq!(bert.today("embeddings.LayerNorm.beta"), "embeddings.LayerNorm.bias");
        assert_eq!(Names::of(Family::Gpt2).today("transformer.h.0.ln_1.weight"), "h.0.ln_1.weight");
        // DistilBERT's own names begin with the word that is GPT-2's prefix.
        let distil = "transformer.layer.0.ffn.lin1.weight";
        assert_eq!(Names::of(Family::DistilBert).today(distil), distil);
    }

    #[test]
    fn only_heads_and_buffers_are_ignored() {
        let gpt2 = Names::of(Family::Gpt2);
        assert!(
            gpt2.ignored("h.0.attn.bias") && gpt2.ignored("h.11.attn.masked_bias") && gpt2.ignored("lm_head.weight")
        );
        assert!(!gpt2.ignored("h.0.attn.c_attn.bias") && !gpt2.ignored("h.2.ln_1.bias"));
        let bert = Names::of(Family::Bert);
        assert!(bert.ignored("cls.predictions.bias") && bert.ignored("embeddings.position_ids"));
        assert!(!bert.ignored("encoder.layer.7.output.dense.bias") && !bert.ignored("lm_head.bias"));
    }
}
