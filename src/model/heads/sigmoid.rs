//! Independent intents: one logistic score each.

use tch::{Kind, Tensor};

use super::intent_head::IntentHead;
use crate::model::losses;

#[derive(Debug)]
pub(crate) struct Sigmoid;

impl IntentHead for Sigmoid {
    fn probabilities(&self, raw: &Tensor) -> Tensor {
        raw.sigmoid()
    }

    fn decode(&self, raw: &Tensor) -> Tensor {
        raw.gt(0.0).to_kind(raw.kind())
    }

    fn negative_log_likelihood(&self, raw: &Tensor, labels: &Tensor) -> Tensor {
        losses::cross_entropy(raw, labels, None).sum_dim_intlist(-1i64, false, None::<Kind>)
    }
}
