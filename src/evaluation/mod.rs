//! Evaluates models on past dates: the scores that a night of each date would have published, against the actual outcomes.
//!
//! In: a workspace, dates and versions of models ([`Options`]). Out: figures of each date, intent and model, of each date, demand
//! pattern and model, and the differences between two models ([`Evaluation`]). Features and histories are as of each date; outcomes
//! are those of `sql/labels/` over all rows that the lake holds now. Forecasts are those of the model, which a night still reconciles
//! with purchase intents. The command line calls [`evaluate`], and [`evaluate_each`] for models that were trained at each date;
//! [`Judge`] says whether a model should become champion.

mod curves;
mod demand_figures;
mod evaluated;
mod figures;
mod item_forecasts;
mod judged;
mod known_outcomes;
mod page;
mod promotion;
mod recommended;
mod scored_users;

pub(crate) use demand_figures::{DemandDifference, DemandFigures};
pub(crate) use evaluated::Evaluation;
pub(crate) use figures::{Difference, IntentFigures};
pub(crate) use judged::Task;
pub(crate) use promotion::{Compared, Comparison, Judge, Verdict, compare_with_baselines};
pub(crate) use recommended::{RecommendationDifference, RecommendationFigures};

use crate::failure::{Failure, Result};
use crate::ids::RunDate;
use crate::model::bundle::BundleCard;
use crate::workspace::Workspace;
use curves::Fans;
use demand_figures::DemandSums;
use judged::{Judged, judged_on, judged_on_all, learnt, require_horizons};
use known_outcomes::KnownOutcomes;
use recommended::Recommended;
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
    /// `None` for all.
    pub(crate) task: Option<Task>,
    /// Groups of users and categories of items are judged too.
    pub(crate) slices: bool,
    /// Seed of the intervals.
    pub(crate) seed: u64,
}

/// A past date with the model of it, which has learnt nothing of later days.
#[derive(Debug, Clone)]
pub(crate) struct Backtested {
    pub(crate) date: RunDate,
    pub(crate) card: BundleCard,
}

impl Evaluation {
    /// Renders the figures, curves and forecasts as a page, one file that makes no request.
    pub(crate) fn page(&self) -> Result<String> {
        page::render(self)
    }
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
    let wanted = |task: Task| options.task.is_none_or(|only| only == task);
    for card in &cards {
        require_horizons(card, &workspace.config, &wanted)?;
    }
    let known = KnownOutcomes::find(workspace).await?;
    let mut evaluation = Evaluation::default();
    if wanted(Task::Intents) {
        evaluate_intents(workspace, options, &cards, &known, &mut evaluation).await?;
    }
    if wanted(Task::Recommendations) {
        evaluate_recommendations(workspace, options, &cards, &known, &mut evaluation).await?;
    }
    if wanted(Task::Demand) {
        evaluate_demand(workspace, options, &cards, &known, &mut evaluation).await?;
    }
    let mut dates_learnt = 0;
    for &date in &options.dates {
        let by_cards = cards.iter().map(|card| learnt(card, date)).collect::<Result<Vec<_>>>()?;
        dates_learnt += usize::from(by_cards.contains(&true));
    }
    if cards.len() == 2 && dates_learnt > 0 {
        tracing::warn!(
            "evaluation: a model has learnt from {dates_learnt} of {} dates, which favours it; compare on later dates",
            options.dates.len()
        );
    }
    Ok(evaluation)
}

/// Refuses dates whose outcomes are not complete yet; those of the demand only where it alone is asked for.
pub(crate) async fn require_complete(workspace: &Workspace, dates: &[RunDate], task: Option<Task>) -> Result<()> {
    let known = KnownOutcomes::find(workspace).await?;
    let config = &workspace.config;
    let days = match task {
        Some(Task::Demand) => config.demand.horizon_days,
        _ => config.intents.horizon_days,
    };
    dates.iter().try_for_each(|&date| require_outcomes(&known, date, days))
}

/// Evaluates the model of each date on that date; the figures of all dates together are those of how models are trained.
pub(crate) async fn evaluate_each(
    workspace: &Workspace,
    backtested: &[Backtested],
    task: Option<Task>,
    slices: bool,
    seed: u64,
) -> Result<Evaluation> {
    let known = KnownOutcomes::find(workspace).await?;
    let wanted = |asked: Task| task.is_none_or(|only| only == asked);
    let mut evaluation = Evaluation::default();
    let mut users = ScoredUsers::new(1);
    let mut recommended = Recommended::new(1);
    let mut sums = DemandSums::new(slices);
    let mut fans = Fans::default();
    let demand_days = i64::from(workspace.config.demand.horizon_days);
    for Backtested { date, card } in backtested {
        let judged = judged_on(card, *date)?;
        let versions = [card.version.clone()];
        if wanted(Task::Intents) {
            let rows_before = users.user_ids.len();
            let of_date = scored_users::read(workspace, &known, *date, &versions, slices, rows_before).await?;
            evaluation.figures.extend(of_date.figures(0, judged, slices, seed));
            users.append(of_date);
        }
        if wanted(Task::Recommendations) {
            let of_date = recommended::read(workspace, &known, *date, &versions, recommended.users()).await?;
            evaluation.recommendations.extend(of_date.figures(0, judged, seed));
            recommended.append(of_date);
        }
        let forecasts = wanted(Task::Demand) && card.require_demand().is_ok();
        let complete = date.plus_days(demand_days) <= known.end;
        if forecasts && !complete {
            tracing::info!("evaluation: the demand of {date} is left out, whose {demand_days} days are not complete");
        }
        if forecasts && complete {
            let mut of_date = [DemandSums::new(slices)];
            let all = std::slice::from_mut(&mut sums);
            fans = Fans::default();
            let cards = std::slice::from_ref(card);
            item_forecasts::read(workspace, &known, *date, cards, &mut [&mut of_date, all], &mut fans).await?;
            evaluation.demand.extend(of_date[0].figures(judged));
        }
    }
    evaluation.curves = users.curves(0, "of each date");
    evaluation.fans = fans.into_vec();
    if backtested.len() > 1 {
        let all = Judged { run_date: None, model_version: "of each date", in_training: false, trained: None };
        if wanted(Task::Intents) {
            evaluation.figures.extend(users.figures(0, all, slices, seed));
        }
        evaluation.recommendations.extend(recommended.figures(0, all, seed));
        if !evaluation.demand.is_empty() {
            evaluation.demand.extend(sums.figures(all));
        }
    }
    Ok(evaluation)
}

async fn evaluate_intents(
    workspace: &Workspace,
    options: &Options,
    cards: &[BundleCard],
    known: &KnownOutcomes,
    evaluation: &mut Evaluation,
) -> Result<()> {
    let horizon_days = workspace.config.intents.horizon_days;
    options.dates.iter().try_for_each(|&date| require_outcomes(known, date, horizon_days))?;
    let versions: Vec<String> = cards.iter().map(|card| card.version.clone()).collect();
    let mut all = ScoredUsers::new(versions.len());
    for &date in &options.dates {
        let users = scored_users::read(workspace, known, date, &versions, options.slices, all.user_ids.len()).await?;
        for (model, card) in cards.iter().enumerate() {
            evaluation.figures.extend(users.figures(model, judged_on(card, date)?, options.slices, options.seed));
        }
        all.append(users);
    }
    if options.dates.len() > 1 {
        for (model, card) in cards.iter().enumerate() {
            let judged = judged_on_all(card, &options.dates)?;
            evaluation.figures.extend(all.figures(model, judged, options.slices, options.seed));
        }
    }
    for (model, card) in cards.iter().enumerate() {
        evaluation.curves.extend(all.curves(model, &card.version));
    }
    if cards.len() == 2 {
        evaluation.differences = all.differences(options.seed);
    }
    Ok(())
}

async fn evaluate_recommendations(
    workspace: &Workspace,
    options: &Options,
    cards: &[BundleCard],
    known: &KnownOutcomes,
    evaluation: &mut Evaluation,
) -> Result<()> {
    let horizon_days = workspace.config.intents.horizon_days;
    options.dates.iter().try_for_each(|&date| require_outcomes(known, date, horizon_days))?;
    let versions: Vec<String> = cards.iter().map(|card| card.version.clone()).collect();
    let mut all = Recommended::new(versions.len());
    for &date in &options.dates {
        let users = recommended::read(workspace, known, date, &versions, all.users()).await?;
        for (model, card) in cards.iter().enumerate() {
            evaluation.recommendations.extend(users.figures(model, judged_on(card, date)?, options.seed));
        }
        all.append(users);
    }
    if options.dates.len() > 1 {
        for (model, card) in cards.iter().enumerate() {
            let judged = judged_on_all(card, &options.dates)?;
            evaluation.recommendations.extend(all.figures(model, judged, options.seed));
        }
    }
    evaluation.recommendation_differences = all.differences(options.seed);
    Ok(())
}

/// Evaluates the dates whose whole horizon has passed. Where the demand alone was asked for, there has to be one.
async fn evaluate_demand(
    workspace: &Workspace,
    options: &Options,
    cards: &[BundleCard],
    known: &KnownOutcomes,
    evaluation: &mut Evaluation,
) -> Result<()> {
    let horizon_days = workspace.config.demand.horizon_days;
    if let Some(failure) = cards.iter().find_map(|card| card.require_demand().err()) {
        if options.task == Some(Task::Demand) {
            return Err(failure);
        }
        tracing::info!("evaluation: the demand is left out: {}", failure.message);
        return Ok(());
    }
    if options.task == Some(Task::Demand) {
        options.dates.iter().try_for_each(|&date| require_outcomes(known, date, horizon_days))?;
    }
    let passed = |date: &&RunDate| date.plus_days(horizon_days.into()) <= known.end;
    let dates: Vec<RunDate> = options.dates.iter().filter(passed).copied().collect();
    if dates.len() < options.dates.len() {
        tracing::info!(
            "evaluation: the demand of {} dates is left out, whose {horizon_days} days are not complete",
            options.dates.len() - dates.len()
        );
    }
    let sums_of_models = || -> Vec<DemandSums> { cards.iter().map(|_| DemandSums::new(options.slices)).collect() };
    let mut all = sums_of_models();
    let mut fans = Fans::default();
    for &date in &dates {
        let mut of_date = sums_of_models();
        fans = Fans::default();
        item_forecasts::read(workspace, known, date, cards, &mut [&mut of_date, &mut all], &mut fans).await?;
        for (sums, card) in of_date.iter().zip(cards) {
            evaluation.demand.extend(sums.figures(judged_on(card, date)?));
        }
    }
    if dates.len() > 1 {
        for (sums, card) in all.iter().zip(cards) {
            evaluation.demand.extend(sums.figures(judged_on_all(card, &dates)?));
        }
    }
    evaluation.fans = fans.into_vec();
    if let [ours, other] = &all[..] {
        evaluation.demand_differences = ours.differences(other);
    }
    Ok(())
}

/// Refuses a date whose days are not complete yet.
fn require_outcomes(known: &KnownOutcomes, date: RunDate, days: u32) -> Result<()> {
    let complete = date.plus_days(days.into());
    if complete <= known.end {
        return Ok(());
    }
    Err(Failure::input(format!(
        "evaluation as of {date}: outcomes of {days} days are complete on {complete}, but the lake ends before {}",
        known.end
    ))
    .hint(format!("the newest date is {}", known.end.plus_days(-i64::from(days)))))
}
