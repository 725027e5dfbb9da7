//! Settings of training.

use super::declare::settings;
use super::machine::cores;
use super::networks::{Augmentation, BackboneName, Pretraining, Unlabelled, name_of};
use crate::failure::{Failure, Result};

settings! {
    /// Training (`intentcast train`).
    TrainConfig {
        /// Days after the end of what a model has learnt from until nights say in `runs.note` that training is due.
        due_days: u32 = 35, 1..=3650;
        /// Past as-of dates in the training set of users, `as_of_step_days` apart. A young lake has fewer, at least three.
        as_of_dates: u32 = 12, 2..=520;
        /// Days between two as-of dates; at least the intents' horizon.
        as_of_step_days: u32 = 7, 1..=366;
        /// Largest number of epochs (passes over the training set).
        epochs_max: u32 = 12, 1..=1_000_000;
        /// Early stopping: epochs without a better validation loss before training stops.
        patience_epochs: u32 = 3, 0..=1_000_000;
        /// Epochs that the behaviour network, and three times as many that the demand network, trains once its figures are known, also on
        /// what was held out. 0: none, and the trees of the demand don't learn from it either.
        refit_epochs: u32 = 1, 0..=1_000;
        /// Largest number of users in a batch.
        batch_rows: u32 = 256, 1..=1_000_000;
        /// Largest number of users, and of items, over all dates. Training reads a sample if there are more.
        rows_max: u32 = 200_000, 1..=1_000_000_000;
        /// Memory in bytes for the users in training, and as much again for the items. The rest is read from scratch files
        /// below `engine.spill_folder`.
        memory_bytes_max: u64 = 1 << 30;
        /// Learning rate of AdamW.
        learning_rate: f64 = 1e-3, 1e-8..=10.0;
        /// Weight decay of AdamW for everything but the behaviour network, which has `model.weight_decay`.
        weight_decay: f64 = 0.01, 0.0..=1.0;
        /// Label smoothing: how far labels are moved towards one half.
        label_smoothing: f64 = 0.0, 0.0..=0.5;
        /// Share of events whose item id is masked in training, so that the network learns from the other inputs.
        item_dropout: f64 = 0.0, 0.0..=0.9;
        /// Augmentation of users' events.
        augmentation: Augmentation = Augmentation::None;
        /// Catalogues up to this size are ranked in full in every step, larger ones against a weighted sample.
        full_softmax_items_max: u32 = 8192, 0..=1_000_000;
        /// Self-supervised pretraining of the backbone before it sees labels.
        pretraining: Pretraining = Pretraining::None;
        /// Largest number of pretraining epochs.
        pretraining_epochs: u32 = 5, 1..=1_000_000;
        /// Share of users in the training split whose labels are used.
        labels_share: f64 = 1.0, 0.0001..=1.0;
        /// Use of the other users of the training split.
        unlabelled: Unlabelled = Unlabelled::None;
        /// Weight of the unlabelled users' loss relative to that of the labelled users.
        unlabelled_weight: f64 = 0.3, 0.0..=100.0;
        /// Threads of libtorch, at most one per core. 0: one per core. More than one helps only wide networks on an idle machine:
        /// where cores are shared, they wait for one another.
        threads: u32 = 1, 0..=1024;
        /// LightGBM's library, which trains the trees: the path of a `lib_lightgbm.so`. Empty: that of the `lightgbm` package next to
        /// libtorch's, or else the system's.
        lightgbm_library: String = String::new();
        /// Seed of initial weights, samples and batch order.
        seed: u64 = 42;
        /// Steps between checkpoints, from which an interrupted training resumes. 0: by time only.
        checkpoint_steps: u32 = 0, 0..=1_000_000_000;
        /// Seconds between checkpoints. 0: by steps only. With both at 0 there are no checkpoints.
        checkpoint_seconds: u32 = 120, 0..=86_400;
    }
}

settings! {
    /// When a trained model becomes champion (`intentcast promote`), and which one nights try before that.
    PromotionConfig {
        /// Figure by which a model has to be better than the champion, beyond the 95 % interval of their difference: a figure (`auc`,
        /// `average_precision`, `log_loss`, `brier`, `ece`) and a target such as `purchase`, or `pinball` for the demand.
        better: String = String::from("log_loss_purchase");
        /// Figures by which it must not be worse, beyond that interval. One without outcomes yet does not count.
        guard: Vec<String> = ["auc_purchase", "ece_purchase", "log_loss_churn", "pinball"].map(String::from).to_vec();
        /// Version with which nights score every user a second time, into `intent_shadow` (docs/howto/shadow.md). `newest`: the newest of
        /// those that were trained after the night's own model and not rolled back. Empty: none.
        shadow_version: String = String::new();
    }
}

impl TrainConfig {
    /// Returns the number of libtorch's threads in training.
    pub(crate) fn libtorch_threads(&self) -> u32 {
        let cores = u32::try_from(cores()).unwrap_or(u32::MAX);
        match self.threads {
            0 => cores,
            set => set.min(cores),
        }
    }

    pub(super) fn check(&self, backbone: BackboneName) -> Result<()> {
        if self.pretraining == Pretraining::NextEvent && backbone.looks_ahead() {
            return Err(Failure::usage(format!(
                "train.pretraining: expected none, masked or contrastive, because model.backbone is {}, which sees the next \
                 event, got next_event",
                name_of(&backbone)
            ))
            .hint("set model.backbone=causal for next events"));
        }
        if self.unlabelled != Unlabelled::None && self.labels_share == 1.0 {
            return Err(Failure::usage(format!(
                "train.unlabelled: expected none, because train.labels_share is 1 and no user is unlabelled, got {}",
                name_of(&self.unlabelled)
            ))
            .hint("set train.labels_share below 1"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::resolved;

    #[test]
    fn a_backbone_that_looks_ahead_cannot_predict_the_next_event() {
        let failure = resolved(&[("train.pretraining", "next_event")]).unwrap_err();
        assert!(failure.message.contains("because model.backbone is transformer, which sees"), "{failure}");
        resolved(&[("train.pretraining", "next_event"), ("model.backbone", "causal")]).unwrap();
    }
}
