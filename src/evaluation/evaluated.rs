//! The figures of an evaluation.

use super::curves::{Fan, IntentCurves};
use super::demand_figures::{DemandDifference, DemandFigures};
use super::figures::{Difference, IntentFigures};
use super::recommended::{RecommendationDifference, RecommendationFigures};

/// Figures of an evaluation.
#[derive(Debug, Default)]
pub(crate) struct Evaluation {
    /// By date, then model, then intent; those of all dates last where there are several.
    pub(crate) figures: Vec<IntentFigures>,
    /// The model's figures minus those of the one it is compared with, over all dates.
    pub(crate) differences: Vec<Difference>,
    /// By date, then model, then length of the list; those of all dates last where there are several.
    pub(crate) recommendations: Vec<RecommendationFigures>,
    pub(crate) recommendation_differences: Vec<RecommendationDifference>,
    /// By date, then model, then demand pattern; those of all dates last where there are several.
    pub(crate) demand: Vec<DemandFigures>,
    pub(crate) demand_differences: Vec<DemandDifference>,
    /// By model, then intent, over all dates.
    pub(crate) curves: Vec<IntentCurves>,
    /// Forecasts of the newest date of the items with the largest demand, by item, then model.
    pub(crate) fans: Vec<Fan>,
}
