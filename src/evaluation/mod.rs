//! Evaluates models on past dates: the scores that a night of each date would have published, against the actual outcomes.
//!
//! In: a workspace, dates and versions of models ([`Options`]). Out: figures of each date, intent and model, and the differences
//! between two models ([`Evaluation`]). Features are as of each date; outcomes are those of `sql/labels/` over all rows that the
//! lake holds now. The command line calls [`evaluate`].

mod figures;
mod known_outcomes;
mod scored_users;

pub(crate) use figures::{Difference, IntentFigures};

use crate::config::IntentsConfig;
use crate::failure::{Failure, Result};
use crate::ids::RunDate;
use crate::model::bundle::BundleCard;
use crate::workspace::Workspace;
use figures::Judged;
use known_outcomes::KnownOutcomes;
use scored_users::ScoredUsers;

/// Dates and models of an evaluation.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Oldest first.
    pub(crate) dates: Vec<RunDate>,
    /// Version to evaluate; empty for the configured one, or else the champion.
    pub(crate) model: String,
    /// Version to compare it with.
    pub(crate) against: Option<String>,
    /// Seed of the intervals.
    pub(crate) seed: u64,
}

/// Figures of an evaluation.
#[derive(Debug, Default)]
pub(crate) struct Evaluation {
    /// By date, then model, then intent; those of all dates last where there are several.
    pub(crate) figures: Vec<IntentFigures>,
    /// The model's figures minus those of the one it is compared with, over all dates.
    pub(crate) differences: Vec<Difference>,
}

/// Evaluates on each date. Refuses a date whose outcomes are not complete yet.
pub(crate) async fn evaluate(workspace: &Workspace, options: &Options) -> Result<Evaluation> {
    let mut cards = vec![workspace.models.card(&options.model).await?];
    if let Some(against) = &options.against {
        let other = workspace.models.card(against).await?;
        if other.version == cards[0].version {
            return Err(Failure::usage(format!(
                "--against: expected another version than {against}, which is evaluated"
            ))
            .hint("--model names the version to evaluate; without it that is the champion"));
        }
        cards.push(other);
    }
    let intents = &workspace.config.intents;
    for card in &cards {
        require_horizons(card, intents)?;
    }
    let known = KnownOutcomes::find(workspace).await?;
    for date in &options.dates {
        let complete = date.plus_days(intents.horizon_days.into());
        if complete > known.end {
            return Err(Failure::input(format!(
                "evaluation as of {date}: outcomes of {} days are complete on {complete}, but the lake ends before {}",
                intents.horizon_days, known.end
            ))
            .hint(format!("the newest date is {}", known.end.plus_days(-i64::from(intents.horizon_days)))));
        }
    }
    let versions: Vec<String> = cards.iter().map(|card| card.version.clone()).collect();
    let mut all = ScoredUsers::new(versions.len());
    let mut dates_learnt = 0;
    let mut evaluation = Evaluation::default();
    for &date in &options.dates {
        let users = scored_users::read(workspace, &known, date, &versions, all.user_ids.len()).await?;
        for (model, card) in cards.iter().enumerate() {
            let judged =
                Judged { run_date: Some(date), model_version: &card.version, in_training: learnt(card, date)? };
            evaluation.figures.extend(users.figures(model, judged, options.seed));
        }
        all.append(users);
        let learnt_by = cards.iter().map(|card| learnt(card, date)).collect::<Result<Vec<_>>>()?;
        dates_learnt += usize::from(learnt_by.contains(&true));
    }
    if options.dates.len() > 1 {
        for (model, card) in cards.iter().enumerate() {
            let in_training = options.dates.iter().map(|date| learnt(card, *date)).collect::<Result<Vec<_>>>()?;
            let in_training = in_training.into_iter().any(|learnt| learnt);
            let judged = Judged { run_date: None, model_version: &card.version, in_training };
            evaluation.figures.extend(all.figures(model, judged, options.seed));
        }
    }
    if cards.len() == 2 {
        evaluation.differences = all.differences(options.seed);
        if dates_learnt > 0 {
            tracing::warn!(
                "evaluation: a model has learnt from {dates_learnt} of {} dates, which favours it; compare on later dates",
                options.dates.len()
            );
        }
    }
    Ok(evaluation)
}

/// Refuses to judge a model by the outcomes of another number of days than it predicts.
fn require_horizons(card: &BundleCard, intents: &IntentsConfig) -> Result<()> {
    let Some((setting, trained, configured)) = card.other_horizons(intents).into_iter().next() else { return Ok(()) };
    Err(Failure::usage(format!(
        "model {}: it predicts {trained} days (intents.{setting} of its training), but outcomes would be of {configured} days",
        card.version
    ))
    .hint(format!("--set intents.{setting}={trained}")))
}

/// Returns whether a model has learnt from days on or after a date.
fn learnt(card: &BundleCard, date: RunDate) -> Result<bool> {
    let end: RunDate = card.labels_end.parse().map_err(|failure: Failure| {
        Failure::model(format!("models/{}/bundle.json: labels_end: {}", card.version, failure.message))
    })?;
    Ok(date < end)
}
