//! Embedding tables with small initial values.

use tch::nn;

/// Initial values of embeddings: small, so that no summand dominates the others before training.
pub(crate) const SMALL: nn::Init = nn::Init::Randn { mean: 0.0, stdev: 0.05 };

/// Returns an embedding table, float32 [rows, width], with [`SMALL`] initial values below `path`.
pub(crate) fn small_embedding(path: nn::Path<'_>, rows: i64, width: i64) -> nn::Embedding {
    nn::embedding(path, rows, width, nn::EmbeddingConfig { ws_init: SMALL, ..Default::default() })
}
