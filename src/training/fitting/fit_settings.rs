//! Settings of a fit: epochs, early stopping, learning rates and how steps are taken.

use std::collections::BTreeMap;

/// Length, speed and seed of a training.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FitSettings {
    pub(crate) epochs_max: u32,
    /// Early stopping: epochs in a row without a better validation loss.
    pub(crate) patience_epochs: u32,
    pub(crate) learning_rate: f64,
    pub(crate) weight_decay: f64,
    pub(crate) seed: u64,
}

/// Options of the optimizer's steps, where a task needs other than the defaults.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StepOptions {
    pub(crate) schedule: Schedule,
    /// Gradients are clipped to this norm over all weights.
    pub(crate) gradient_norm_max: f64,
    /// Batches whose gradients make one step, at least 1; the last step of an epoch may have fewer. With more than 1 there
    /// are no checkpoints: a partial sum of gradients is not saved.
    pub(crate) accumulation_steps: u32,
    /// Factor on the learning rate of a weight, by the weight's name; 1 for a weight without an entry.
    pub(crate) rate_factors: BTreeMap<String, f64>,
}

impl Default for StepOptions {
    fn default() -> Self {
        Self {
            schedule: Schedule::Cosine,
            gradient_norm_max: 1.0,
            accumulation_steps: 1,
            rate_factors: BTreeMap::new(),
        }
    }
}

/// The learning rate over the course of a training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Schedule {
    /// Linear warm-up over the first twentieth, then a cosine down to a twentieth of the rate.
    Cosine,
    /// Linear warm-up over the first `warmup_share`, then linear down to zero (Devlin et al. 2018).
    Linear { warmup_share: f64 },
}

impl Schedule {
    /// The rate after this share of all samples.
    pub(super) fn rate(self, learning_rate: f64, share: f64) -> f64 {
        match self {
            Self::Cosine => {
                let warm = (share / 0.05).min(1.0);
                let decay = 0.5 * (1.0 + (std::f64::consts::PI * share.min(1.0)).cos());
                learning_rate * warm * decay.max(0.05)
            }
            Self::Linear { warmup_share } if share < warmup_share => learning_rate * share / warmup_share,
            Self::Linear { warmup_share } => learning_rate * ((1.0 - share) / (1.0 - warmup_share)).max(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_warms_up_and_decays() {
        let rates: Vec<f64> = [0.025, 0.05, 0.5, 1.0].iter().map(|&s| Schedule::Cosine.rate(0.5, s)).collect();
        assert!(rates[0] < rates[1] && rates[1] > rates[2] && rates[2] > rates[3]);
        assert_eq!(rates[3], 0.5 * 0.05);
        let linear = Schedule::Linear { warmup_share: 0.2 };
        let rates = [0.1, 0.2, 0.6, 1.0].map(|share| (linear.rate(0.5, share) * 1e9).round() / 1e9);
        assert_eq!(rates, [0.25, 0.5, 0.25, 0.0]);
        assert_eq!(Schedule::Linear { warmup_share: 0.0 }.rate(0.5, 0.0), 0.5);
    }
}
