//! Figures of probabilities against outcomes, and of the difference between two models.

use std::collections::BTreeMap;

use super::judged::Judged;
use super::scored_users::{ScoredUsers, USER_GROUPS};
use crate::ids::RunDate;
use crate::metrics::{
    accuracy, auc, average_precision, bootstrap_interval_over_indices, brier_score, expected_calibration_error, f1,
    log_loss, share_at_top,
};
use crate::model::targets::{BINARY, TARGETS};

/// Beyond so many rows an interval takes long and says little.
const INTERVAL_ROWS_MAX: usize = 200_000;
const BOOTSTRAP_ROUNDS: usize = 200;
/// Shares of the users with the highest scores.
const TOPS: [f64; 3] = [0.01, 0.05, 0.10];
/// In place of an intent: the means over all.
const MACRO: &str = "macro";

/// Figures of one model for one intent on one date, or on all.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IntentFigures {
    pub(crate) run_date: Option<RunDate>,
    pub(crate) model_version: String,
    pub(crate) in_training: bool,
    pub(crate) intent: &'static str,
    /// The users that are looked at: "all", or one of [`USER_GROUPS`].
    pub(crate) group: &'static str,
    pub(crate) users: u64,
    pub(crate) positives: u64,
    pub(crate) mean_score: f64,
    /// `None` where all outcomes are alike.
    pub(crate) auc: Option<f64>,
    /// Bounds of 95 % intervals over users drawn with replacement.
    pub(crate) auc_interval: Option<(f64, f64)>,
    pub(crate) average_precision: Option<f64>,
    pub(crate) log_loss: f64,
    pub(crate) log_loss_interval: Option<(f64, f64)>,
    pub(crate) brier: f64,
    pub(crate) expected_calibration_error: f64,
    /// At a probability of 0.5.
    pub(crate) f1: f64,
    pub(crate) accuracy: f64,
    /// The probability that training chose on validation users for the highest F1; `None` for a model of earlier versions, or several.
    pub(crate) threshold: Option<f64>,
    pub(crate) f1_at_threshold: Option<f64>,
    pub(crate) accuracy_at_threshold: Option<f64>,
    /// Share of positives among the 1, 5 and 10 % of users with the highest scores, and the mean of these scores.
    pub(crate) tops: [(f64, f64); TOPS.len()],
}

impl IntentFigures {
    /// The means over several targets, each counting alike; a figure that one of them lacks is `None`.
    fn macro_mean(rows: &[Self]) -> Option<Self> {
        let first = rows.first().filter(|_| rows.len() > 1)?;
        let count = rows.len() as f64;
        let mean = |of: fn(&Self) -> f64| rows.iter().map(of).sum::<f64>() / count;
        let some_mean = |of: fn(&Self) -> Option<f64>| Some(rows.iter().map(of).sum::<Option<f64>>()? / count);
        Some(Self {
            intent: MACRO,
            users: rows.iter().map(|row| row.users).max().unwrap_or_default(),
            positives: rows.iter().map(|row| row.positives).sum(),
            mean_score: mean(|row| row.mean_score),
            auc: some_mean(|row| row.auc),
            auc_interval: None,
            average_precision: some_mean(|row| row.average_precision),
            log_loss: mean(|row| row.log_loss),
            log_loss_interval: None,
            brier: mean(|row| row.brier),
            expected_calibration_error: mean(|row| row.expected_calibration_error),
            f1: mean(|row| row.f1),
            accuracy: mean(|row| row.accuracy),
            threshold: None,
            f1_at_threshold: some_mean(|row| row.f1_at_threshold),
            accuracy_at_threshold: some_mean(|row| row.accuracy_at_threshold),
            tops: std::array::from_fn(|top| {
                let sums = rows.iter().fold((0.0, 0.0), |sum, row| (sum.0 + row.tops[top].0, sum.1 + row.tops[top].1));
                (sums.0 / count, sums.1 / count)
            }),
            ..first.clone()
        })
    }

    /// The share of positives among the users; `None` for the means of all intents.
    pub(crate) fn share(&self) -> Option<f64> {
        (self.intent != MACRO).then(|| self.positives as f64 / self.users as f64)
    }

    /// The share of positives among the highest scores divided by that among all users.
    pub(crate) fn lift(&self, top: usize) -> Option<f64> {
        let share = self.share().filter(|share| *share > 0.0)?;
        Some(self.tops[top].0 / share)
    }
}

/// The first model's figure minus the second's.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Difference {
    pub(crate) intent: &'static str,
    pub(crate) figure: &'static str,
    pub(crate) difference: f64,
    /// 95 % interval over users drawn with replacement, the same users for both models.
    pub(crate) interval: Option<(f64, f64)>,
}

/// Scores and outcomes of the rows of which an outcome is known, and the rows of each user.
struct Rows {
    scores: Vec<Vec<f64>>,
    outcomes: Vec<bool>,
    by_user: Vec<Vec<usize>>,
}

type Metric = fn(&[f64], &[bool]) -> Option<f64>;

/// A figure by which two models are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Figure {
    Auc,
    AveragePrecision,
    LogLoss,
    Brier,
    Ece,
}

impl Figure {
    pub(super) const ALL: [Self; 5] = [Self::Auc, Self::AveragePrecision, Self::LogLoss, Self::Brier, Self::Ece];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Auc => "auc",
            Self::AveragePrecision => "average_precision",
            Self::LogLoss => "log_loss",
            Self::Brier => "brier",
            Self::Ece => "ece",
        }
    }

    pub(super) fn higher_is_better(self) -> bool {
        matches!(self, Self::Auc | Self::AveragePrecision)
    }

    fn metric(self) -> Metric {
        // Means over no rows are none.
        match self {
            Self::Auc => auc,
            Self::AveragePrecision => average_precision,
            Self::LogLoss => |scores, outcomes| (!outcomes.is_empty()).then(|| log_loss(scores, outcomes)),
            Self::Brier => |scores, outcomes| (!outcomes.is_empty()).then(|| brier_score(scores, outcomes)),
            Self::Ece => {
                |scores, outcomes| (!outcomes.is_empty()).then(|| expected_calibration_error(scores, outcomes))
            }
        }
    }
}

impl Rows {
    fn of(&self, model: usize, metric: Metric) -> Option<f64> {
        metric(&self.scores[model], &self.outcomes)
    }

    /// The metric of some rows.
    fn of_rows(&self, model: usize, rows: &[usize], metric: Metric) -> Option<f64> {
        let scores: Vec<f64> = rows.iter().map(|&row| self.scores[model][row]).collect();
        let outcomes: Vec<bool> = rows.iter().map(|&row| self.outcomes[row]).collect();
        metric(&scores, &outcomes)
    }

    /// The same as [`Self::interval`]; of every second, third or further user where there are too many rows, which makes it wider.
    fn sampled_interval(&self, seed: u64, value: impl Fn(&[usize]) -> Option<f64>) -> Option<Interval> {
        let step = self.outcomes.len().div_ceil(INTERVAL_ROWS_MAX).max(1);
        let users: Vec<&Vec<usize>> = self.by_user.iter().step_by(step).collect();
        bootstrap_interval_over_indices(users.len(), BOOTSTRAP_ROUNDS, seed, |drawn| {
            let rows: Vec<usize> = drawn.iter().flat_map(|&user| users[user].iter().copied()).collect();
            value(&rows)
        })
    }

    /// 95 % interval of a value of some rows: all rows of a user are drawn together.
    fn interval(&self, seed: u64, value: impl Fn(&[usize]) -> Option<f64>) -> Option<(f64, f64)> {
        (self.outcomes.len() <= INTERVAL_ROWS_MAX).then(|| self.sampled_interval(seed, value)).flatten()
    }
}

impl ScoredUsers {
    /// The rows of a group, or of all, whose outcome of a target is known.
    fn known(&self, target: usize, group: Option<usize>) -> Rows {
        let outcomes = &self.outcomes[target];
        let within = |row: usize| group.is_none_or(|group| self.groups[row] == group);
        let rows: Vec<usize> = (0..outcomes.len()).filter(|&row| !outcomes[row].is_nan() && within(row)).collect();
        let mut by_user: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (place, &row) in rows.iter().enumerate() {
            by_user.entry(&self.user_ids[row]).or_default().push(place);
        }
        let scores_of = |model: &Vec<Vec<f32>>| rows.iter().map(|&row| f64::from(model[target][row])).collect();
        Rows {
            scores: self.scores.iter().map(scores_of).collect(),
            outcomes: rows.iter().map(|&row| outcomes[row] > 0.5).collect(),
            by_user: by_user.into_values().collect(),
        }
    }

    /// Figures of one model for each intent, and for churn, whose outcome is known of any user, and the means of all of them; then
    /// the same for each group of users, where asked for.
    pub(super) fn figures(&self, model: usize, judged: Judged<'_>, groups: bool, seed: u64) -> Vec<IntentFigures> {
        let mut figures = self.figures_of(model, judged, None, seed);
        if groups {
            figures.extend((0..USER_GROUPS.len()).flat_map(|group| self.figures_of(model, judged, Some(group), seed)));
        }
        figures
    }

    fn figures_of(&self, model: usize, judged: Judged<'_>, group: Option<usize>, seed: u64) -> Vec<IntentFigures> {
        let of_target = |target: usize| {
            let rows = self.known(target, group);
            let threshold = judged.threshold(&TARGETS[target]);
            let (scores, outcomes) = (&rows.scores[model], &rows.outcomes);
            let users = outcomes.len();
            (users > 0).then(|| IntentFigures {
                run_date: judged.run_date,
                model_version: judged.model_version.into(),
                in_training: judged.in_training,
                intent: TARGETS[target].name,
                group: group.map_or("all", |group| USER_GROUPS[group]),
                users: users as u64,
                positives: outcomes.iter().filter(|&&outcome| outcome).count() as u64,
                mean_score: scores.iter().sum::<f64>() / users as f64,
                auc: auc(scores, outcomes),
                auc_interval: rows.interval(seed, |drawn| rows.of_rows(model, drawn, auc)),
                average_precision: average_precision(scores, outcomes),
                log_loss: log_loss(scores, outcomes),
                log_loss_interval: rows.interval(seed, |drawn| rows.of_rows(model, drawn, Figure::LogLoss.metric())),
                brier: brier_score(scores, outcomes),
                expected_calibration_error: expected_calibration_error(scores, outcomes),
                f1: f1(scores, outcomes, 0.5),
                accuracy: accuracy(scores, outcomes, 0.5),
                threshold,
                f1_at_threshold: threshold.map(|threshold| f1(scores, outcomes, threshold)),
                accuracy_at_threshold: threshold.map(|threshold| accuracy(scores, outcomes, threshold)),
                tops: TOPS.map(|share| share_at_top(scores, outcomes, share)),
            })
        };
        let mut figures: Vec<IntentFigures> = (0..BINARY).filter_map(of_target).collect();
        figures.extend(IntentFigures::macro_mean(&figures));
        figures
    }

    /// Differences between the first and the second model.
    pub(super) fn differences(&self, seed: u64) -> Vec<Difference> {
        let mut differences = Vec::new();
        for (target, name) in TARGETS[..BINARY].iter().map(|target| target.name).enumerate() {
            for figure in [Figure::Auc, Figure::LogLoss, Figure::Ece] {
                let Some(([first, second], interval)) = self.compared(target, figure, seed) else { continue };
                let difference = first - second;
                differences.push(Difference { intent: name, figure: figure.name(), difference, interval });
            }
        }
        differences
    }

    /// A figure of both models, and the interval of the first one's minus the second one's. `None` where no outcome is known, or all are
    /// alike.
    pub(super) fn compared(&self, target: usize, figure: Figure, seed: u64) -> Option<([f64; 2], Option<Interval>)> {
        let (rows, metric) = (self.known(target, None), figure.metric());
        let figures = [rows.of(0, metric)?, rows.of(1, metric)?];
        let difference = |drawn: &[usize]| Some(rows.of_rows(0, drawn, metric)? - rows.of_rows(1, drawn, metric)?);
        Some((figures, rows.sampled_interval(seed, difference)))
    }
}

/// Bounds of an interval.
pub(super) type Interval = (f64, f64);
