//! Prefix-tuning (Li and Liang 2021): trainable keys and values in front of those of each text.

use tch::{Tensor, nn};

use super::shape::TextShape;
use crate::failure::Result;

/// Keys and values, each float32 [heads, prefix, width of a head].
#[derive(Debug)]
pub(crate) struct Prefix {
    pub(crate) keys: Tensor,
    pub(crate) values: Tensor,
}

impl Prefix {
    pub(crate) fn new(path: &nn::Path<'_>, shape: &TextShape, length: i64) -> Result<Self> {
        let size = [shape.heads, length, shape.width / shape.heads];
        Ok(Self { keys: path.f_randn("keys", &size, 0.0, 0.02)?, values: path.f_randn("values", &size, 0.0, 0.02)? })
    }
}
