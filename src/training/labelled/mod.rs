//! Trains classifiers of texts and pictures: what `train --task text` and `--task image` share.
//!
//! In: a [`RowEncoder`] of the task (rows to vectors, and the head on them), [`LabelTargets`] and a [`ClassifierPlan`].
//! Out: figures; the trained weights are in the caller's store.
//!
//! `training` first fits the head alone (`linear_probe`, with `lbfgs`), then all weights (`task`), then evaluates
//! (`test_figures`). `loss` is common to both steps; `weight_groups` says where the weights are in the store.

mod lbfgs;
mod linear_probe;
mod loss;
mod options;
mod row_encoder;
mod targets;
mod task;
mod test_figures;
mod training;
mod weight_groups;

pub(in crate::training) use loss::ClassifierLoss;
pub(crate) use options::InputOptions;
pub(in crate::training) use options::refuse_flags_of_other_tasks;
pub(in crate::training) use row_encoder::{InputBuilder, RowEncoder, evaluate_logits};
pub(in crate::training) use targets::{LabelTargets, read_targets};
pub(in crate::training) use training::{ClassifierPlan, count_weights, require_enough_rows, train_classifier};
pub(in crate::training) use weight_groups::{HEAD, split_group, weights_of_group};
