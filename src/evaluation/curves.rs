//! Curves of probabilities against outcomes, and forecasts next to the demand that followed, for the page.

use serde::Serialize;

use super::demand_figures::ItemOutcome;
use super::scored_users::ScoredUsers;
use crate::metrics::auc;
use crate::model::demand::ItemHistory;
use crate::model::targets::{BINARY, TARGETS};

/// Points of a curve at most.
const POINTS_MAX: usize = 200;
/// Groups of equally many users in the reliability curve.
const GROUPS: usize = 10;
/// Standard errors of a 95 % interval.
const Z: f64 = 1.96;
/// Days of the past in front of a forecast.
const PAST_DAYS: usize = 28;
/// Items whose forecasts are drawn: those with the largest demand.
pub(super) const FANS: usize = 6;

/// Curves of one model for one intent, over all dates.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct IntentCurves {
    pub(crate) intent: &'static str,
    pub(crate) model_version: String,
    pub(crate) users: usize,
    pub(crate) positives: usize,
    pub(crate) auc: Option<f64>,
    /// Share of the others (x) and of the positives (y) at or above each score.
    pub(crate) roc: Vec<(f64, f64)>,
    /// Share of the positives (x) at or above each score, and share of positives among these users (y).
    pub(crate) precision_recall: Vec<(f64, f64)>,
    /// Share of all users (x) and of the positives (y) at or above each score.
    pub(crate) lift: Vec<(f64, f64)>,
    pub(crate) reliability: Vec<Reliability>,
}

/// Users with similar scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Reliability {
    pub(crate) mean_score: f64,
    /// Share of positives, and its 95 % interval (Wilson 1927).
    pub(crate) share: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) users: usize,
}

/// The forecast of an item, the demand before it and the demand that followed.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Fan {
    pub(crate) item_id: String,
    pub(crate) model_version: String,
    /// The as-of day, counted from 1970-01-01; the days of `past` end before it, those of the forecast begin with it.
    pub(crate) as_of_day: i64,
    pub(crate) past: Vec<f64>,
    /// `None` on days without stock.
    pub(crate) units: Vec<Option<f64>>,
    pub(crate) q05: Vec<f64>,
    pub(crate) q25: Vec<f64>,
    pub(crate) q50: Vec<f64>,
    pub(crate) q75: Vec<f64>,
    pub(crate) q95: Vec<f64>,
}

impl Fan {
    pub(super) fn of(outcome: &ItemOutcome<'_>, model_version: &str) -> Self {
        let daily = &outcome.forecast.daily;
        let number = |at: usize| daily.iter().map(|forecast| forecast[at]).collect();
        let stocked = |day: usize| outcome.in_stock.get(day) == Some(&true);
        Self {
            item_id: outcome.history.item_id.clone(),
            model_version: model_version.into(),
            as_of_day: outcome.history.as_of_day(),
            past: past(&outcome.history.units).to_vec(),
            units: (0..daily.len()).map(|day| stocked(day).then(|| outcome.units[day])).collect(),
            q05: number(1),
            q25: number(3),
            q50: number(4),
            q75: number(5),
            q95: number(7),
        }
    }

    fn sold(&self) -> f64 {
        self.past.iter().sum()
    }
}

/// The last days of a history.
fn past(units: &[f64]) -> &[f64] {
    &units[units.len().saturating_sub(PAST_DAYS)..]
}

/// The items with the largest demand before the as-of date, the largest first.
#[derive(Debug, Default)]
pub(super) struct Fans(Vec<Fan>);

impl Fans {
    /// Returns the place of an item among the largest, for forecasts of so many models; `None` where it is not one of them.
    pub(super) fn place(&self, history: &ItemHistory, models: usize) -> Option<usize> {
        let sold: f64 = past(&history.units).iter().sum();
        let larger = |known: &[Fan]| {
            let of_known = known[0].sold();
            of_known > sold || (of_known == sold && known[0].item_id < history.item_id)
        };
        let place = self.0.chunks(models.max(1)).take_while(|known| larger(known)).count();
        (place < FANS).then_some(place)
    }

    /// Inserts the forecasts of one item by each model.
    pub(super) fn insert(&mut self, place: usize, of_models: Vec<Fan>) {
        let models = of_models.len();
        self.0.splice(place * models..place * models, of_models);
        self.0.truncate(FANS * models);
    }

    pub(super) fn into_vec(self) -> Vec<Fan> {
        self.0
    }
}

impl ScoredUsers {
    /// Curves of one model for each intent of which an outcome is known.
    pub(super) fn curves(&self, model: usize, model_version: &str) -> Vec<IntentCurves> {
        (0..BINARY).filter_map(|target| self.curves_of(model, model_version, target)).collect()
    }

    fn curves_of(&self, model: usize, model_version: &str, target: usize) -> Option<IntentCurves> {
        let known = self.outcomes[target].iter().zip(&self.scores[model][target]);
        let known = known.filter(|(outcome, _)| !outcome.is_nan());
        let mut rows: Vec<(f64, bool)> = known.map(|(&outcome, &score)| (score.into(), outcome > 0.5)).collect();
        rows.sort_by(|a, b| b.0.total_cmp(&a.0));
        let positives = rows.iter().filter(|(_, outcome)| *outcome).count();
        if positives == 0 || positives == rows.len() {
            return None;
        }
        let (scores, outcomes): (Vec<f64>, Vec<bool>) = rows.iter().copied().unzip();
        let mut curves = IntentCurves {
            intent: TARGETS[target].name,
            model_version: model_version.into(),
            users: rows.len(),
            positives,
            auc: auc(&scores, &outcomes),
            roc: vec![(0.0, 0.0)],
            precision_recall: Vec::new(),
            lift: vec![(0.0, 0.0)],
            reliability: rows.chunks(rows.len().div_ceil(GROUPS)).rev().map(reliability).collect(),
        };
        let others = (rows.len() - positives) as f64;
        let (mut found, mut drawn) = (0.0, 0);
        for (place, &(score, outcome)) in rows.iter().enumerate() {
            found += f64::from(u8::from(outcome));
            let count = (place + 1) as f64;
            // Users with equal scores have one point together.
            let is_last = place + 1 == rows.len();
            if !is_last && (rows[place + 1].0 == score || (place + 1) * POINTS_MAX < (drawn + 1) * rows.len()) {
                continue;
            }
            drawn = (place + 1) * POINTS_MAX / rows.len();
            let recall = found / positives as f64;
            curves.roc.push(((count - found) / others, recall));
            curves.precision_recall.push((recall, found / count));
            curves.lift.push((count / rows.len() as f64, recall));
        }
        Some(curves)
    }
}

/// Compares the mean score of some users with the share of positives among them.
fn reliability(rows: &[(f64, bool)]) -> Reliability {
    let n = rows.len() as f64;
    let share = rows.iter().filter(|(_, outcome)| *outcome).count() as f64 / n;
    let centre = (share + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    Reliability {
        mean_score: rows.iter().map(|(score, _)| score).sum::<f64>() / n,
        share,
        low: (centre - half).max(0.0),
        high: (centre + half).min(1.0),
        users: rows.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(scores: &[f32], outcomes: &[f32]) -> ScoredUsers {
        let mut users = ScoredUsers::new(1);
        users.user_ids = (0..scores.len()).map(|user| format!("u{user:04}")).collect();
        users.outcomes = vec![outcomes.to_vec(); BINARY];
        users.scores = vec![vec![scores.to_vec(); BINARY]];
        users
    }

    #[test]
    fn curves_are_those_of_the_definitions() {
        let scored = users(&[0.9, 0.8, 0.8, 0.1], &[1.0, 0.0, 1.0, 0.0]);
        let curves = scored.curves(0, "v").swap_remove(0);
        assert_eq!((curves.users, curves.positives), (4, 2));
        assert_eq!(curves.roc, [(0.0, 0.0), (0.0, 0.5), (0.5, 1.0), (1.0, 1.0)]);
        assert_eq!(curves.precision_recall, [(0.5, 1.0), (1.0, 2.0 / 3.0), (1.0, 0.5)]);
        assert_eq!(curves.lift, [(0.0, 0.0), (0.25, 0.5), (0.75, 1.0), (1.0, 1.0)]);
        // The area below the curve is the AUC.
        let area: f64 = curves.roc.windows(2).map(|w| (w[1].0 - w[0].0) * (w[1].1 + w[0].1) / 2.0).sum();
        assert!((area - curves.auc.unwrap()).abs() < 1e-12);
    }

    #[test]
    fn curves_have_few_points_and_groups_go_from_low_to_high() {
        let scores: Vec<f32> = (0..5_000).map(|user| user as f32 / 5_000.0).collect();
        let outcomes: Vec<f32> = (0..5_000).map(|user| f32::from(u8::from(user % 3 == 0))).collect();
        let curves = users(&scores, &outcomes).curves(0, "v").swap_remove(0);
        assert!((100..=POINTS_MAX + 2).contains(&curves.roc.len()), "{}", curves.roc.len());
        assert_eq!(curves.lift.last(), Some(&(1.0, 1.0)));
        assert_eq!(curves.reliability.len(), GROUPS);
        assert!(curves.reliability.windows(2).all(|w| w[0].mean_score < w[1].mean_score));
        let group = curves.reliability[4];
        assert!(group.low < group.share && group.share < group.high && group.users == 500, "{group:?}");
        // statsmodels.stats.proportion.proportion_confint(167, 500, method="wilson")
        let of_share = reliability(&(0..500).map(|row| (0.5, row < 167)).collect::<Vec<_>>());
        assert!((of_share.low - 0.294).abs() < 1e-3 && (of_share.high - 0.3765).abs() < 1e-3, "{of_share:?}");
    }

    #[test]
    fn the_items_that_sold_most_are_kept_in_order_with_all_models() {
        let mut fans = Fans::default();
        for (number, sold) in [3.0, 9.0, 1.0, 9.0, 5.0, 2.0, 8.0, 4.0].into_iter().enumerate() {
            let units = vec![sold];
            let history = ItemHistory { item_id: format!("i{number}"), units, ..ItemHistory::default() };
            let fan = |model: &str| Fan {
                item_id: history.item_id.clone(),
                model_version: model.into(),
                past: history.units.clone(),
                ..Fan::default()
            };
            if let Some(place) = fans.place(&history, 2) {
                fans.insert(place, vec![fan("a"), fan("b")]);
            }
        }
        let kept = fans.into_vec();
        let items: Vec<_> = kept.iter().step_by(2).map(|fan| fan.item_id.as_str()).collect();
        assert_eq!(items, ["i1", "i3", "i6", "i4", "i7", "i0"]);
        assert!(kept.chunks(2).all(|pair| pair[0].item_id == pair[1].item_id && pair[1].model_version == "b"));
    }

    #[test]
    fn an_intent_without_both_outcomes_has_no_curves() {
        assert!(users(&[0.3, 0.4], &[0.0, 0.0]).curves(0, "v").is_empty());
        assert!(users(&[0.3, 0.4], &[f32::NAN, 1.0]).curves(0, "v").is_empty());
    }
}
