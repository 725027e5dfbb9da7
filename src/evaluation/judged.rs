//! Models that are judged, and the dates that they have learnt from.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::ids::RunDate;
use crate::model::bundle::BundleCard;
use crate::model::targets::Target;

/// The predictions that are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Task {
    Intents,
    Recommendations,
    Demand,
}

/// Subject of figures.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judged<'a> {
    /// `None` for all dates together.
    pub(super) run_date: Option<RunDate>,
    pub(super) model_version: &'a str,
    /// Set where the model has learnt from days on or after the date.
    pub(super) in_training: bool,
    /// The figures of its training, which hold the thresholds; `None` for several models.
    pub(super) trained: Option<&'a BTreeMap<String, f64>>,
}

impl Judged<'_> {
    /// The probability above which the model predicts a target.
    pub(super) fn threshold(&self, target: &Target) -> Option<f64> {
        self.trained?.get(&target.threshold_name()).copied()
    }
}

pub(super) fn judged_on(card: &BundleCard, date: RunDate) -> Result<Judged<'_>> {
    let in_training = learnt(card, date)?;
    Ok(Judged { run_date: Some(date), model_version: &card.version, in_training, trained: Some(&card.figures) })
}

pub(super) fn judged_on_all<'a>(card: &'a BundleCard, dates: &[RunDate]) -> Result<Judged<'a>> {
    let in_training = dates.iter().map(|date| learnt(card, *date)).collect::<Result<Vec<_>>>()?.contains(&true);
    Ok(Judged { run_date: None, model_version: &card.version, in_training, trained: Some(&card.figures) })
}

/// Refuses to judge a model by the outcomes of another number of days than it predicts.
pub(super) fn require_horizons(card: &BundleCard, config: &Config, wanted: &impl Fn(Task) -> bool) -> Result<()> {
    let mut others = Vec::new();
    if wanted(Task::Intents) || wanted(Task::Recommendations) {
        let of_intents = card.other_horizons(&config.intents).into_iter();
        others.extend(of_intents.map(|(name, trained, configured)| (format!("intents.{name}"), trained, configured)));
    }
    let trained = u32::try_from(card.demand.horizon_days).unwrap_or(u32::MAX);
    if wanted(Task::Demand) && trained != config.demand.horizon_days {
        others.push(("demand.horizon_days".into(), trained, config.demand.horizon_days));
    }
    let Some((setting, trained, configured)) = others.into_iter().next() else { return Ok(()) };
    Err(Failure::usage(format!(
        "model {}: it predicts {trained} days ({setting} of its training), but outcomes would be of {configured} days",
        card.version
    ))
    .hint(format!("--set {setting}={trained}")))
}

/// Returns whether a model has learnt from days on or after a date.
pub(super) fn learnt(card: &BundleCard, date: RunDate) -> Result<bool> {
    Ok(date < labels_end(card)?)
}

/// Returns the first date that a model has learnt nothing of.
pub(super) fn labels_end(card: &BundleCard) -> Result<RunDate> {
    card.labels_end.parse().map_err(|failure: Failure| {
        Failure::model(format!("models/{}/bundle.json: labels_end: {}", card.version, failure.message))
    })
}
