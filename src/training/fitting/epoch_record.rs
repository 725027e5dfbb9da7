//! The record of one epoch, as the log, the curves and the checkpoints hold it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::tensorboard::Scalars;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EpochRecord {
    /// Name of the task.
    pub(crate) task: String,
    pub(crate) epoch: u32,
    pub(crate) step: u64,
    /// Unix seconds.
    pub(crate) wall_time: f64,
    /// Values by name: `loss_train`, `loss_valid`, `learning_rate`, `samples_per_second`, `waiting_share`, the task's figures.
    pub(crate) values: BTreeMap<String, f64>,
}

impl EpochRecord {
    /// The record of an epoch that ends now.
    pub(crate) fn new(task: &str, epoch: u32, step: u64, values: BTreeMap<String, f64>) -> Self {
        let wall_time = chrono::Utc::now().timestamp_millis() as f64 / 1000.0;
        Self { task: task.into(), epoch, step, wall_time, values }
    }

    /// The values under TensorBoard tags: `intents/loss_train`.
    pub(crate) fn scalars(&self) -> Scalars {
        let values = self.values.iter().map(|(name, value)| (format!("{}/{name}", self.task), *value)).collect();
        Scalars { wall_time: self.wall_time, step: self.step, values }
    }

    /// One flat JSON object, as experiment trackers import it.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let mut line = serde_json::Map::new();
        line.insert("epoch".into(), self.epoch.into());
        line.insert("step".into(), self.step.into());
        line.insert("wall_time".into(), self.wall_time.into());
        line.extend(self.scalars().values.into_iter().map(|(tag, value)| (tag, value.into())));
        line.into()
    }

    /// `intents: epoch 3: loss_train 0.1234, …`, in the order of the names.
    pub(crate) fn summary(&self) -> String {
        let values: Vec<String> = self.values.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
        format!("{}: epoch {}: {}", self.task, self.epoch, values.join(", "))
    }
}
