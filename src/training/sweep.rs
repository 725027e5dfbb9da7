//! `train --sweep FILE`: settings searched by successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943).
//!
//! Many trials are trained for few epochs, the best of them anew for more, until one is left; that one is trained as the
//! configuration says and written as a bundle. Trials are compared on the validation set alone: nothing is chosen by the test
//! set. Every finished trial is kept below `state/sweeps/<fingerprint of file, data and settings>/`, so a
//! search that was cut off goes on where it was.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use super::TrainingSets;
use crate::config::Config;
use crate::failure::{Failure, FailureKind, Result};
use crate::lake::stores::Location;

/// Sections that a training follows from, but for what the training sets are read by: they are read once.
const SEARCHED: [&str; 3] = ["model", "train", "demand"];
const READ_BY: [&str; 16] = [
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

/// Draws before a space is taken to hold no further trial.
const DRAWS_PER_TRIAL: u32 = 32;

/// What FILE says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    #[serde(default)]
    pub sweep: Halving,
    /// By setting (`model.width`): what is tried.
    pub space: BTreeMap<String, Choice>,
}

/// How the trials are thinned out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Halving {
    /// Trials of the first rung.
    pub trials: u32,
    /// Epochs of the first rung.
    pub epochs_min: u32,
    /// Of so many trials one goes on, with so many times the epochs.
    pub eta: u32,
    pub seed: u64,
    pub metric: Metric,
}

impl Default for Halving {
    fn default() -> Self {
        Self { trials: 9, epochs_min: 1, eta: 3, seed: 42, metric: Metric::LogLoss }
    }
}

/// What trials are compared by, on the validation set; comparable whatever the loss that they are trained by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Mean over the six intents and churn.
    LogLoss,
    AucPurchase,
    /// Of daily demand.
    Pinball,
}

impl Metric {
    pub fn figure(self) -> &'static str {
        match self {
            Self::LogLoss => "log_loss_valid",
            Self::AucPurchase => "auc_valid_purchase",
            Self::Pinball => "pinball_valid",
        }
    }

    /// Smaller is better.
    fn cost(self, value: f64) -> f64 {
        if self == Self::AucPurchase { -value } else { value }
    }
}

/// Values of one setting: a list, or a range.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Choice {
    Values(Vec<toml::Value>),
    Range {
        low: f64,
        high: f64,
        /// Drawn evenly over the logarithm.
        #[serde(default)]
        log: bool,
        /// Whole numbers only.
        #[serde(default)]
        whole: bool,
    },
}

impl Choice {
    /// One value, as `--set` takes it.
    fn draw(&self, rng: &mut ChaCha8Rng) -> String {
        match self {
            Self::Values(values) => match &values[rng.random_range(0..values.len())] {
                toml::Value::String(text) => text.clone(),
                other => other.to_string(),
            },
            Self::Range { low, high, log, whole } => {
                let at: f64 = rng.random();
                let value = match log {
                    true => (low.ln() + at * (high.ln() - low.ln())).exp(),
                    false => low + at * (high - low),
                };
                if *whole { format!("{:.0}", value.round()) } else { format!("{value:?}") }
            }
        }
    }

    fn check(&self, key: &str) -> Result<()> {
        let wrong = |got: String| Err(Failure::usage(format!("sweep: space.{key}: {got}")));
        if READ_BY.contains(&key) || !SEARCHED.iter().any(|s| key.strip_prefix(s).is_some_and(|k| k.starts_with('.'))) {
            return wrong("no setting that a sweep can search: it stays the same for all trials".into());
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

/// One trial of one rung, as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    pub number: u32,
    pub rung: u32,
    pub epochs_max: u32,
    pub settings: BTreeMap<String, String>,
    /// The metric on the validation set; null where the training failed or the set is too small for it.
    pub value: Option<f64>,
    pub failure: Option<String>,
    pub seconds: f64,
}

impl Sweep {
    pub fn read(path: &Path) -> Result<Self> {
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

    /// Distinct settings, the same for the same seed; fewer than `trials` where the space holds fewer.
    fn draw(&self) -> Vec<BTreeMap<String, String>> {
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

    /// Every trial, rung by rung, and the configuration with the winner's settings. `train` returns the figures of one
    /// training; a training that fails as a model (its loss is no number) is a lost trial, any other failure ends the search.
    pub async fn search(
        &self,
        config: &Config,
        kept: &Location,
        mut train: impl AsyncFnMut(&Config) -> Result<BTreeMap<String, f64>>,
    ) -> Result<(Config, Vec<Trial>)> {
        let with = |settings: &BTreeMap<String, String>, epochs_max: u32| -> Result<Config> {
            let mut pairs: Vec<(String, String)> = settings.clone().into_iter().collect();
            pairs.push(("train.epochs_max".into(), epochs_max.to_string()));
            config.with(&pairs)
        };
        let mut going: Vec<(u32, BTreeMap<String, String>)> = (0..).zip(self.draw()).collect();
        // Settings that do not fit together are found before hours are spent.
        going.iter().try_for_each(|(_, settings)| with(settings, 1).map(drop))?;
        let (mut all, mut epochs_max) = (Vec::new(), self.sweep.epochs_min);
        for rung in 0.. {
            let mut done = Vec::new();
            for (number, settings) in &going {
                let name = format!("rung-{rung}-trial-{number}.json");
                let bytes = match kept.read_if_there(&name).await? {
                    Some(bytes) => bytes.to_vec(),
                    None => {
                        let trial =
                            self.train(*number, rung, settings, &with(settings, epochs_max)?, &mut train).await?;
                        let bytes = serde_json::to_vec(&trial).map_err(Failure::bug)?;
                        kept.write(&name, bytes.clone()).await?;
                        bytes
                    }
                };
                // Fresh ones are read back too: JSON may round a number, and a resumed search compares the same ones.
                let trial: Trial = serde_json::from_slice(&bytes).map_err(|e| {
                    Failure::input(format!("{}: {e}", kept.display(&kept.path(&name)))).hint("delete this file")
                })?;
                tracing::info!(
                    "sweep: rung {rung}, trial {number}: {} {:?} after {epochs_max} epochs, {:?}",
                    self.sweep.metric.figure(),
                    trial.value,
                    trial.settings
                );
                done.push(trial);
            }
            let cost = |t: &Trial| t.value.map_or(f64::INFINITY, |v| self.sweep.metric.cost(v));
            // Ties go to the earlier trial, so that a search resumed is the search undisturbed.
            done.sort_by(|a, b| cost(a).total_cmp(&cost(b)).then(a.number.cmp(&b.number)));
            let left = done.len().div_ceil(self.sweep.eta as usize);
            let best = done.iter().filter(|t| t.value.is_some()).take(left);
            going = best.map(|t| (t.number, t.settings.clone())).collect();
            all.append(&mut done);
            epochs_max = epochs_max.saturating_mul(self.sweep.eta);
            if going.len() <= 1 {
                break;
            }
        }
        let Some((number, settings)) = going.pop() else {
            let reason = all.iter().find_map(|t| t.failure.clone()).unwrap_or("the validation set is too small".into());
            return Err(Failure::model(format!("sweep: no trial reached a {}: {reason}", self.sweep.metric.figure())));
        };
        tracing::info!("sweep: trial {number} wins: {settings:?}");
        let winner: Vec<(String, String)> = settings.into_iter().collect();
        Ok((config.with(&winner)?, all))
    }

    async fn train(
        &self,
        number: u32,
        rung: u32,
        settings: &BTreeMap<String, String>,
        config: &Config,
        train: &mut impl AsyncFnMut(&Config) -> Result<BTreeMap<String, f64>>,
    ) -> Result<Trial> {
        let clock = Instant::now();
        let outcome = match train(config).await {
            Err(failure) if failure.kind != FailureKind::Model => return Err(failure),
            other => other,
        };
        Ok(Trial {
            number,
            rung,
            epochs_max: config.train.epochs_max,
            settings: settings.clone(),
            value: outcome.as_ref().ok().and_then(|f| f.get(self.sweep.metric.figure()).copied()),
            failure: outcome.err().map(|failure| failure.to_string()),
            seconds: clock.elapsed().as_secs_f64(),
        })
    }

    /// Where the trials of this search lie: of all that a training from these sets follows from, and of the file.
    pub fn kept(&self, config: &Config, sets: &TrainingSets, output: &Location) -> Result<Location> {
        let mut fingerprint = sets.fingerprint(config)?;
        fingerprint.bytes(&serde_json::to_vec(self).map_err(Failure::bug)?);
        Ok(output.folder(&format!("state/sweeps/{}", &fingerprint.finish()[..16])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;

    const FILE: &str = r#"
        [sweep]
        trials = 9
        metric = "log_loss"
        [space]
        "model.width" = [16, 32, 64]
        "train.learning_rate" = { low = 1e-4, high = 1e-1, log = true }
    "#;

    /// The best learning rate is 0.01, and more epochs help.
    async fn figures(config: &Config) -> Result<BTreeMap<String, f64>> {
        let wrong = (config.train.learning_rate.log10() + 2.0).abs() + 1.0 / f64::from(config.train.epochs_max);
        Ok([("log_loss_valid".to_string(), wrong)].into())
    }

    fn place(name: &str) -> Location {
        Location::open(&format!("memory://sweep-{name}"), &S3Config::default()).unwrap()
    }

    #[tokio::test]
    async fn of_nine_three_and_then_one_go_on_with_three_times_the_epochs() {
        let sweep: Sweep = toml::from_str(FILE).unwrap();
        let (winner, trials) = sweep.search(&Config::default(), &place("halving"), figures).await.unwrap();
        let of = |rung: u32| trials.iter().filter(|t| t.rung == rung).collect::<Vec<_>>();
        assert_eq!((of(0).len(), of(1).len(), of(2).len()), (9, 3, 0));
        assert!(of(0).iter().all(|t| t.epochs_max == 1) && of(1).iter().all(|t| t.epochs_max == 3));
        let distance = |t: &Trial| (t.settings["train.learning_rate"].parse::<f64>().unwrap().log10() + 2.0).abs();
        let best = of(0).into_iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap();
        assert_eq!(winner.train.learning_rate, best.settings["train.learning_rate"].parse::<f64>().unwrap());
        assert_eq!(winner.train.epochs_max, Config::default().train.epochs_max);
    }

    #[tokio::test]
    async fn a_search_that_was_cut_off_trains_only_what_is_left_and_ends_alike() {
        let sweep: Sweep = toml::from_str(FILE).unwrap();
        let undisturbed = sweep.search(&Config::default(), &place("whole"), figures).await.unwrap();
        let (kept, mut trained) = (place("cut"), 0);
        let dies = async |config: &Config| {
            trained += 1;
            if trained > 10 { Err(Failure::passing("killed")) } else { figures(config).await }
        };
        assert_eq!(sweep.search(&Config::default(), &kept, dies).await.unwrap_err().kind, FailureKind::Passing);
        let mut again = 0;
        let counted = async |config: &Config| {
            again += 1;
            figures(config).await
        };
        let (winner, trials) = sweep.search(&Config::default(), &kept, counted).await.unwrap();
        assert_eq!((winner, again), (undisturbed.0, 2));
        let values = |trials: &[Trial]| trials.iter().map(|t| (t.number, t.rung, t.value)).collect::<Vec<_>>();
        assert_eq!(values(&trials), values(&undisturbed.1));
    }

    #[tokio::test]
    async fn a_trial_whose_loss_is_no_number_loses_and_the_search_goes_on() {
        let sweep: Sweep = toml::from_str(FILE).unwrap();
        let sick = async |config: &Config| match config.train.learning_rate > 0.003 {
            true => Err(Failure::model("the loss is NaN")),
            false => figures(config).await,
        };
        let (winner, trials) = sweep.search(&Config::default(), &place("sick"), sick).await.unwrap();
        assert!(winner.train.learning_rate <= 0.003 && trials.iter().any(|t| t.failure.is_some()));
        let all_sick = async |_: &Config| Err(Failure::model("the loss is NaN"));
        let failure = sweep.search(&Config::default(), &place("all-sick"), all_sick).await.unwrap_err();
        assert!(failure.message.contains("the loss is NaN"), "{failure}");
    }

    #[tokio::test]
    async fn wrong_files_and_settings_are_refused_by_name() {
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
        let sweep: Sweep = toml::from_str("[space]\n\"model.wide\" = [1, 2]").unwrap();
        let failure = sweep.search(&Config::default(), &place("unknown"), figures).await.unwrap_err();
        assert!(failure.message.contains("model.wide"), "{failure}");
    }

    #[test]
    fn a_small_space_holds_fewer_trials() {
        let sweep: Sweep = toml::from_str("[space]\n\"model.width\" = [16, 32]").unwrap();
        assert_eq!(sweep.draw().len(), 2);
    }
}
