//! The tensor names of each family, and the tensors of a folder that are ignored: heads of other tasks, and buffers
//! that older versions of `transformers` saved.

use super::shape::Family;

/// The linear maps that give attention its queries, keys and values.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AttentionInputs {
    /// One map each.
    Separate([&'static str; 3]),
    /// One map for all three, concatenated.
    Fused(&'static str),
}

/// Tensor names without the family's prefix; those of a block also without the block's prefix.
#[derive(Debug)]
pub(crate) struct TensorNames {
    /// Precedes all names but the head's in a model with a head.
    prefix: &'static str,
    pub(crate) words: &'static str,
    pub(crate) positions: &'static str,
    pub(crate) segments: Option<&'static str>,
    /// The norm of the summed embeddings. A family has either this one or `norm_last`.
    pub(crate) norm_first: Option<&'static str>,
    /// The norm of the last block's states.
    pub(crate) norm_last: Option<&'static str>,
    /// Block number i is `{blocks}.{i}`.
    pub(crate) blocks: &'static str,
    pub(crate) inputs: AttentionInputs,
    pub(crate) output: &'static str,
    pub(crate) norm_attention: &'static str,
    pub(crate) widen: &'static str,
    pub(crate) narrow: &'static str,
    pub(crate) norm_feed_forward: &'static str,
    ignored_starts: &'static [&'static str],
    ignored_ends: &'static [&'static str],
}

const BERT: TensorNames = TensorNames {
    prefix: "bert.",
    words: "embeddings.word_embeddings.weight",
    positions: "embeddings.position_embeddings.weight",
    segments: Some("embeddings.token_type_embeddings.weight"),
    norm_first: Some("embeddings.LayerNorm"),
    norm_last: None,
    blocks: "encoder.layer",
    inputs: AttentionInputs::Separate(["attention.self.query", "attention.self.key", "attention.self.value"]),
    output: "attention.output.dense",
    norm_attention: "attention.output.LayerNorm",
    widen: "intermediate.dense",
    narrow: "output.dense",
    norm_feed_forward: "output.LayerNorm",
    ignored_starts: &["cls.", "pooler.", "classifier.", "qa_outputs."],
    ignored_ends: &[".position_ids", ".token_type_ids"],
};

const ROBERTA: TensorNames =
    TensorNames { prefix: "roberta.", ignored_starts: &["lm_head.", "pooler.", "classifier.", "qa_outputs."], ..BERT };

const DISTILBERT: TensorNames = TensorNames {
    prefix: "distilbert.",
    segments: None,
    blocks: "transformer.layer",
    inputs: AttentionInputs::Separate(["attention.q_lin", "attention.k_lin", "attention.v_lin"]),
    output: "attention.out_lin",
    norm_attention: "sa_layer_norm",
    widen: "ffn.lin1",
    narrow: "ffn.lin2",
    norm_feed_forward: "output_layer_norm",
    ignored_starts: &["vocab_", "pre_classifier.", "classifier.", "qa_outputs."],
    ..BERT
};

const GPT2: TensorNames = TensorNames {
    prefix: "transformer.",
    words: "wte.weight",
    positions: "wpe.weight",
    segments: None,
    norm_first: None,
    norm_last: Some("ln_f"),
    blocks: "h",
    inputs: AttentionInputs::Fused("attn.c_attn"),
    output: "attn.c_proj",
    norm_attention: "ln_1",
    widen: "mlp.c_fc",
    narrow: "mlp.c_proj",
    norm_feed_forward: "ln_2",
    ignored_starts: &["lm_head.", "score.", "classifier."],
    ignored_ends: &[".attn.bias", ".attn.masked_bias"],
};

impl TensorNames {
    pub(crate) fn for_family(family: Family) -> &'static TensorNames {
        match family {
            Family::Bert => &BERT,
            Family::Roberta => &ROBERTA,
            Family::DistilBert => &DISTILBERT,
            Family::Gpt2 => &GPT2,
        }
    }

    /// Removes the family's prefix and renames gamma and beta of a layer norm, as in the first BERT folders, to weight
    /// and bias.
    pub(crate) fn canonical(&self, name: &str) -> String {
        let name = name.strip_prefix(self.prefix).unwrap_or(name);
        for (old, new) in [(".gamma", ".weight"), (".beta", ".bias")] {
            if let Some(layer) = name.strip_suffix(old) {
                return format!("{layer}{new}");
            }
        }
        name.into()
    }

    /// True if a folder may hold a tensor of this name that is not loaded.
    pub(crate) fn is_ignored(&self, name: &str) -> bool {
        self.ignored_starts.iter().any(|start| name.starts_with(start))
            || self.ignored_ends.iter().any(|end| name.ends_with(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_removed_and_old_names_replaced() {
        let bert = TensorNames::for_family(Family::Bert);
        assert_eq!(bert.canonical("bert.embeddings.LayerNorm.gamma"), "embeddings.LayerNorm.weight");
        assert_eq!(bert.canonical("embeddings.LayerNorm.beta"), "embeddings.LayerNorm.bias");
        assert_eq!(TensorNames::for_family(Family::Gpt2).canonical("transformer.h.0.ln_1.weight"), "h.0.ln_1.weight");
        // DistilBERT's names begin with GPT-2's prefix.
        let distil = "transformer.layer.0.ffn.lin1.weight";
        assert_eq!(TensorNames::for_family(Family::DistilBert).canonical(distil), distil);
    }

    #[test]
    fn only_heads_and_buffers_are_ignored() {
        let gpt2 = TensorNames::for_family(Family::Gpt2);
        assert!(
            gpt2.is_ignored("h.0.attn.bias")
                && gpt2.is_ignored("h.11.attn.masked_bias")
                && gpt2.is_ignored("lm_head.weight")
        );
        assert!(!gpt2.is_ignored("h.0.attn.c_attn.bias") && !gpt2.is_ignored("h.2.ln_1.bias"));
        let bert = TensorNames::for_family(Family::Bert);
        assert!(bert.is_ignored("cls.predictions.bias") && bert.is_ignored("embeddings.position_ids"));
        assert!(!bert.is_ignored("encoder.layer.7.output.dense.bias") && !bert.is_ignored("lm_head.bias"));
    }
}
