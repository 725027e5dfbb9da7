//! The file of a sweep: which settings it searches, over which values, and how.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

use crate::failure::{Failure, Result};

/// Sections whose settings a sweep can search.
const SEARCHED_SECTIONS: [&str; 3] = ["model", "train", "demand"];
/// Settings in them that it cannot search: the training sets, which are read once, follow from them.
const FIXED_SETTINGS: [&str; 16] = [
    "model.version",
    "model.item_buckets",
    "model.content_inputs",
    "model.text_encoder",
    "model.text_tokens_max",
    "model.image_encoder",
    "train.as_of_dates",
    "train.as_of_step_days",
    "train.rows_max",
    "train.memory_bytes_max",
    "train.epochs_max",
    "demand.horizon_days",
    "demand.history_days",
    "demand.history_days_min",
    "demand.as_of_dates",
    "demand.calibration_dates",
];

/// Draws per trial after which the space is taken to have no further trial.
const DRAWS_PER_TRIAL: u32 = 32;

/// The contents of FILE.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sweep {
    #[serde(default)]
    pub(crate) sweep: Halving,
    /// Values to try, by setting (`model.width`).
    pub(crate) space: BTreeMap<String, Choice>,
}

/// Settings of successive halving.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Halving {
    /// Trials of the first rung.
    pub(crate) trials: u32,
    /// Epochs of the first rung.
    pub(crate) epochs_min: u32,
    /// One trial of this many continues to the next rung, with this many times the epochs.
    pub(crate) eta: u32,
    pub(crate) seed: u64,
    pub(crate) metric: Metric,
}

impl Default for Halving {
    fn default() -> Self {
        Self { trials: 9, epochs_min: 1, eta: 3, seed: 42, metric: Metric::LogLoss }
    }
}

/// Figure that trials are compared by, on the validation set; comparable whatever loss they are trained with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    /// Mean over the intents and churn.
    LogLoss,
    AucPurchase,
    /// Mean pinball loss of daily demand.
    Pinball,
}

impl Metric {
    pub(crate) fn figure(self) -> &'static str {
        match self {
            Self::LogLoss => "log_loss_valid",
            Self::AucPurchase => "auc_valid_purchase",
            Self::Pinball => "pinball_valid",
        }
    }

    /// The value with a sign such that smaller is better.
    pub(super) fn cost(self, value: f64) -> f64 {
        if self == Self::AucPurchase { -value } else { value }
    }
}

/// Values of one setting: a list, or a range.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Choice {
    Values(Vec<toml::Value>),
    Range {
        low: f64,
        high: f64,
        /// Draws uniformly over the logarithm.
        #[serde(default)]
        log: bool,
        /// Draws whole numbers only.
        #[serde(default)]
        whole: bool,
    },
}

impl Choice {
    /// Draws a value, written as for `--set`.
    fn draw(&self, rng: &mut ChaCha8Rng) -> String {
        match self {
            Self::Values(values) => match &values[rng.random_range(0..values.len())] {
                toml::Value::String(text) => text.clone(),
                other => other.to_string(),
            },
            Self::Range { low, high, log, whole } => {
                let share: f64 = rng.random();
                let value = match log {
                    true => (low.ln() + share * (high.ln() - low.ln())).exp(),
                    false => low + share * (high - low),
                };
                if *whole { format!("{:.0}", value.round()) } else { format!("{value:?}") }
            }
        }
    }

    fn check(&self, key: &str) -> Result<()> {
        let wrong = |got: String| Err(Failure::usage(format!("sweep: space.{key}: {got}")));
        let in_section = |section: &str| key.strip_prefix(section).is_some_and(|k| k.starts_with('.'));
        if FIXED_SETTINGS.contains(&key) || !SEARCHED_SECTIONS.into_iter().any(in_section) {
            return wrong("a sweep cannot search this setting: it is the same for all trials".into());
        }
        match self {
            Self::Values(values) if values.is_empty() => wrong("expected at least one value".into()),
            Self::Range { low, high, log, .. } if low >= high || (*log && *low <= 0.0) => {
                let above = if *log { ", above 0 where log = true" } else { "" };
                wrong(format!("expected low < high{above}, got {low} and {high}"))
            }
            _ => Ok(()),
        }
    }
}

impl Sweep {
    /// Reads and checks a file.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let place = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| Failure::usage(format!("{place}: {e}")))?;
        let sweep: Self = toml::from_str(&text).map_err(|e| Failure::usage(format!("{place}: {e}")))?;
        sweep.check().map_err(|failure| failure.at(place))?;
        Ok(sweep)
    }

    fn check(&self) -> Result<()> {
        let Halving { trials, epochs_min, eta, .. } = self.sweep;
        if trials < 2 || eta < 2 || epochs_min < 1 || self.space.is_empty() {
            return Err(Failure::usage(format!(
                "sweep: expected trials and eta of at least 2, epochs_min of at least 1 and a space, got {trials}, {eta}, \
                 {epochs_min} and {} settings",
                self.space.len()
            )));
        }
        self.space.iter().try_for_each(|(key, choice)| choice.check(key))
    }

    /// Draws distinct settings, the same for the same seed; fewer than `trials` if the space has fewer.
    pub(super) fn draw(&self) -> Vec<BTreeMap<String, String>> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.sweep.seed);
        let mut drawn: Vec<BTreeMap<String, String>> = Vec::new();
        for _ in 0..self.sweep.trials * DRAWS_PER_TRIAL {
            let settings = self.space.iter().map(|(key, choice)| (key.clone(), choice.draw(&mut rng))).collect();
            if !drawn.contains(&settings) {
                drawn.push(settings);
            }
            if drawn.len() == self.sweep.trials as usize {
                break;
            }
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_files_and_settings_are_refused_by_name() {
        let refused = |text: &str| {
            toml::from_str::<Sweep>(text).map_err(|e| e.to_string()).and_then(|s| s.check().map_err(|f| f.message))
        };
        assert!(refused("[space]\n\"model.width\" = []").unwrap_err().contains("space.model.width"));
        assert!(
            refused("[space]\n\"model.dropout\" = { low = 0, high = 1, log = true }").unwrap_err().contains("above 0")
        );
        assert!(
            refused("[sweep]\nmetric = \"auc_test\"\n[space]\n\"model.width\" = [1]").unwrap_err().contains("auc_test")
        );
        assert!(refused("[space]\n\"train.rows_max\" = [1]").unwrap_err().contains("space.train.rows_max"));
        assert!(refused("[space]\n\"model.text_encoder\" = [\"\"]").unwrap_err().contains("space.model.text_encoder"));
        assert!(refused("[space]\n\"lake.uri\" = [\"a\"]").unwrap_err().contains("space.lake.uri"));
    }

    #[test]
    fn a_small_space_has_fewer_trials() {
        let sweep: Sweep = toml::from_str("[space]\n\"model.width\" = [16, 32]").unwrap();
        assert_eq!(sweep.draw().len(), 2);
    }
}
