//! Successive halving: trains the trials rung by rung, stores each, and resumes an interrupted search.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Instant;

use super::sweep_file::Sweep;
use crate::config::Config;
use crate::failure::{Failure, FailureKind, Result};
use crate::lake::stores::Location;
use crate::training::bundle::training_sets::TrainingSets;

/// One trial of one rung, as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trial {
    pub(crate) number: u32,
    pub(crate) rung: u32,
    pub(crate) epochs_max: u32,
    pub(crate) settings: BTreeMap<String, String>,
    /// The metric on the validation set; null where the training failed or the set is too small.
    pub(crate) value: Option<f64>,
    pub(crate) failure: Option<String>,
    pub(crate) seconds: f64,
}

/// Settings that are still in the search.
struct Candidate {
    number: u32,
    settings: BTreeMap<String, String>,
}

impl Candidate {
    fn configure(&self, config: &Config, epochs_max: u32) -> Result<Config> {
        let mut pairs: Vec<(String, String)> = self.settings.clone().into_iter().collect();
        pairs.push(("train.epochs_max".into(), epochs_max.to_string()));
        config.with(&pairs)
    }
}

impl Sweep {
    /// Runs the trials, rung by rung. Returns the configuration with the settings of the best trial, and all trials. `train`
    /// returns the figures of one training. A training that fails because of its model (its loss is not a number) is a lost
    /// trial; any other failure ends the search.
    pub(crate) async fn search(
        &self,
        config: &Config,
        folder: &Location,
        mut train: impl AsyncFnMut(&Config) -> Result<BTreeMap<String, f64>>,
    ) -> Result<(Config, Vec<Trial>)> {
        let mut candidates: Vec<Candidate> =
            (0..).zip(self.draw()).map(|(number, settings)| Candidate { number, settings }).collect();
        // Invalid combinations of settings fail before hours are spent.
        for candidate in &candidates {
            candidate.configure(config, 1)?;
        }
        let mut all = Vec::new();
        let mut epochs_max = self.sweep.epochs_min;
        for rung in 0.. {
            let mut done = Vec::new();
            for candidate in &candidates {
                let trial_config = candidate.configure(config, epochs_max)?;
                done.push(self.load_or_train(candidate, rung, &trial_config, folder, &mut train).await?);
            }
            let cost = |t: &Trial| t.value.map_or(f64::INFINITY, |v| self.sweep.metric.cost(v));
            // Ties go to the earlier trial, so that a resumed search ends like an uninterrupted one.
            done.sort_by(|a, b| cost(a).total_cmp(&cost(b)).then(a.number.cmp(&b.number)));
            let count = done.len().div_ceil(self.sweep.eta as usize);
            let best = done.iter().filter(|t| t.value.is_some()).take(count);
            candidates = best.map(|t| Candidate { number: t.number, settings: t.settings.clone() }).collect();
            all.append(&mut done);
            epochs_max = epochs_max.saturating_mul(self.sweep.eta);
            if candidates.len() <= 1 {
                break;
            }
        }
        let Some(Candidate { number, settings }) = candidates.pop() else {
            let reason = all.iter().find_map(|t| t.failure.clone()).unwrap_or("the validation set is too small".into());
            return Err(Failure::model(format!("sweep: no trial has a {}: {reason}", self.sweep.metric.figure())));
        };
        tracing::info!("sweep: trial {number} wins: {settings:?}");
        let winner: Vec<(String, String)> = settings.into_iter().collect();
        Ok((config.with(&winner)?, all))
    }

    /// Loads the trial of an interrupted search, or trains and stores it.
    async fn load_or_train(
        &self,
        candidate: &Candidate,
        rung: u32,
        config: &Config,
        folder: &Location,
        train: &mut impl AsyncFnMut(&Config) -> Result<BTreeMap<String, f64>>,
    ) -> Result<Trial> {
        let name = format!("rung-{rung}-trial-{}.json", candidate.number);
        let bytes = match folder.read_if_there(&name).await? {
            Some(bytes) => bytes.to_vec(),
            None => {
                let trial = self.train(candidate, rung, config, train).await?;
                let encoded = serde_json::to_vec(&trial).map_err(Failure::bug)?;
                folder.write(&name, encoded.clone()).await?;
                encoded
            }
        };
        // A trial is read back even when fresh: JSON may round a number, and a resumed search must compare the same ones.
        let trial: Trial = serde_json::from_slice(&bytes).map_err(|e| {
            Failure::input(format!("{}: {e}", folder.display(&folder.path(&name)))).hint("delete this file")
        })?;
        tracing::info!(
            "sweep: rung {rung}, trial {}: {} {:?} after {} epochs, {:?}",
            trial.number,
            self.sweep.metric.figure(),
            trial.value,
            trial.epochs_max,
            trial.settings
        );
        Ok(trial)
    }

    async fn train(
        &self,
        candidate: &Candidate,
        rung: u32,
        config: &Config,
        train: &mut impl AsyncFnMut(&Config) -> Result<BTreeMap<String, f64>>,
    ) -> Result<Trial> {
        let clock = Instant::now();
        let outcome = match train(config).await {
            Err(failure) if failure.kind != FailureKind::Model => return Err(failure),
            other => other,
        };
        Ok(Trial {
            number: candidate.number,
            rung,
            epochs_max: config.train.epochs_max,
            settings: candidate.settings.clone(),
            value: outcome.as_ref().ok().and_then(|f| f.get(self.sweep.metric.figure()).copied()),
            failure: outcome.err().map(|failure| failure.to_string()),
            seconds: clock.elapsed().as_secs_f64(),
        })
    }

    /// The folder of the trials, by everything that the training follows from and by the file.
    pub(crate) fn trials_folder(&self, config: &Config, sets: &TrainingSets, output: &Location) -> Result<Location> {
        let mut fingerprint = sets.fingerprint(config)?;
        fingerprint.add_bytes(&serde_json::to_vec(self).map_err(Failure::bug)?);
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

    fn folder(name: &str) -> Location {
        Location::open(&format!("memory://sweep-{name}"), &S3Config::default()).unwrap()
    }

    #[tokio::test]
    async fn nine_trials_become_three_with_three_times_the_epochs() {
        let sweep: Sweep = toml::from_str(FILE).unwrap();
        let (winner, trials) = sweep.search(&Config::default(), &folder("halving"), figures).await.unwrap();
        let in_rung = |rung: u32| trials.iter().filter(|t| t.rung == rung).collect::<Vec<_>>();
        assert_eq!((in_rung(0).len(), in_rung(1).len(), in_rung(2).len()), (9, 3, 0));
        assert!(in_rung(0).iter().all(|t| t.epochs_max == 1) && in_rung(1).iter().all(|t| t.epochs_max == 3));
        let distance = |t: &Trial| (t.settings["train.learning_rate"].parse::<f64>().unwrap().log10() + 2.0).abs();
        let best = in_rung(0).into_iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap();
        assert_eq!(winner.train.learning_rate, best.settings["train.learning_rate"].parse::<f64>().unwrap());
        assert_eq!(winner.train.epochs_max, Config::default().train.epochs_max);
    }

    #[tokio::test]
    async fn an_interrupted_search_resumes_and_ends_the_same() {
        let sweep: Sweep = toml::from_str(FILE).unwrap();
        let uninterrupted = sweep.search(&Config::default(), &folder("whole"), figures).await.unwrap();
        let interrupted = folder("interrupted");
        let mut trained = 0;
        let dies = async |config: &Config| {
            trained += 1;
            if trained > 10 { Err(Failure::transient("killed")) } else { figures(config).await }
        };
        assert_eq!(
            sweep.search(&Config::default(), &interrupted, dies).await.unwrap_err().kind,
            FailureKind::Transient
        );
        let mut again = 0;
        let counted = async |config: &Config| {
            again += 1;
            figures(config).await
        };
        let (winner, trials) = sweep.search(&Config::default(), &interrupted, counted).await.unwrap();
        assert_eq!((winner, again), (uninterrupted.0, 2));
        let values = |trials: &[Trial]| trials.iter().map(|t| (t.number, t.rung, t.value)).collect::<Vec<_>>();
        assert_eq!(values(&trials), values(&uninterrupted.1));
    }

    #[tokio::test]
    async fn a_trial_with_a_nan_loss_is_lost_and_the_search_continues() {
        let sweep: Sweep = toml::from_str(FILE).unwrap();
        let diverges = async |config: &Config| match config.train.learning_rate > 0.003 {
            true => Err(Failure::model("the loss is NaN")),
            false => figures(config).await,
        };
        let (winner, trials) = sweep.search(&Config::default(), &folder("diverges"), diverges).await.unwrap();
        assert!(winner.train.learning_rate <= 0.003 && trials.iter().any(|t| t.failure.is_some()));
        let all_diverge = async |_: &Config| Err(Failure::model("the loss is NaN"));
        let failure = sweep.search(&Config::default(), &folder("all-diverge"), all_diverge).await.unwrap_err();
        assert!(failure.message.contains("the loss is NaN"), "{failure}");
    }

    #[tokio::test]
    async fn an_unknown_setting_is_refused_before_any_trial() {
        let sweep: Sweep = toml::from_str("[space]\n\"model.wide\" = [1, 2]").unwrap();
        let failure = sweep.search(&Config::default(), &folder("unknown"), figures).await.unwrap_err();
        assert!(failure.message.contains("model.wide"), "{failure}");
    }
}
