//! Summary of a training on one screen: each task's figures next to its members' and its baselines', and warnings.
//!
//! In: the figures of a card. Out: rows to print, and a warning for everything that is worse than a baseline.

use std::collections::BTreeMap;

use crate::model::targets::{BINARY, TARGETS};

/// With fewer labelled users and dates in training, their number is the likely cause of bad figures.
const USERS_FEW: f64 = 2_000.0;
/// The share of outcomes that a 90 % quantile should cover, and the least that is no cause for a warning.
const Q90: f64 = 0.9;
const Q90_COVERAGE_MIN: f64 = 0.85;

/// One figure of one task; texts are empty where there is no such figure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SummaryRow {
    pub(crate) task: String,
    pub(crate) figure: &'static str,
    /// With its 95 % interval where there is one.
    pub(crate) model: String,
    pub(crate) network: String,
    pub(crate) trees: String,
    pub(crate) baseline: String,
}

/// Factor by which recommendations with bought items have to be better for a warning.
const NEW_ONLY_FACTOR: f64 = 1.1;

type Figures = BTreeMap<String, f64>;

/// The figures of test users and test dates that say how good a model is.
pub(crate) fn rows(figures: &Figures) -> Vec<SummaryRow> {
    let mut rows = Vec::new();
    for name in TARGETS[..BINARY].iter().map(|target| target.name) {
        for (figure, key, baseline) in [
            ("AUC", format!("auc_test_{name}"), format!("auc_test_{name}_recency_frequency")),
            ("log loss", format!("log_loss_test_{name}"), format!("log_loss_test_{name}_base_rate")),
        ] {
            let baseline_name = if figure == "AUC" { "recency and frequency" } else { "base rate" };
            rows.extend(row(figures, name, figure, &key, (&baseline, baseline_name)));
        }
    }
    let alone = ("ndcg_20_test_next_item_taste_alone", "without latest items");
    rows.extend(row(figures, "next item", "NDCG@20", "ndcg_20_test_next_item", alone));
    let naive = ("pinball_test_seasonal_naive", "seasonal naive");
    rows.extend(row(figures, "demand", "pinball", "pinball_test", naive));
    rows.extend(row(figures, "demand", "days at or below q90", "coverage_test_q90", ("", "")));
    rows
}

/// `None` where the figure is missing, as for an intent that no test user had.
fn row(
    figures: &Figures,
    task: &str,
    figure: &'static str,
    key: &str,
    (baseline, baseline_name): (&str, &str),
) -> Option<SummaryRow> {
    let text = |key: String| figures.get(&key).map(|value| format!("{value:.4}"));
    let model = text(key.into())?;
    let interval = text(format!("{key}_low")).zip(text(format!("{key}_high")));
    Some(SummaryRow {
        task: task.into(),
        figure,
        model: interval.map_or(model.clone(), |(low, high)| format!("{model} ({low} to {high})")),
        network: text(format!("{key}_network")).unwrap_or_default(),
        trees: text(format!("{key}_trees")).unwrap_or_default(),
        baseline: text(baseline.into()).map_or(String::new(), |value| format!("{value} {baseline_name}")),
    })
}

/// Describes everything that is worse than a baseline or misses its level, with the likely cause and the setting to try.
/// `excludes_bought` says whether nights leave out items that the user bought.
pub(crate) fn warnings(figures: &Figures, excludes_bought: bool) -> Vec<String> {
    let figure = |key: &str| figures.get(key).copied();
    let users = figure("users_train").unwrap_or_default();
    let remedy = match users < USERS_FEW {
        true => format!(
            "{users} users and dates are few to learn from: train on a later --date, or raise train.as_of_dates if the lake is older"
        ),
        false => "search settings with --sweep, for instance model.weight_decay and train.learning_rate".into(),
    };
    let mut warnings = Vec::new();
    if let Some(held_out) = figure("users_test") {
        let targets = TARGETS[..BINARY].iter().map(|target| target.name);
        let unmeasured: Vec<&str> = targets.filter(|name| figure(&format!("auc_test_{name}")).is_none()).collect();
        if !unmeasured.is_empty() {
            warnings.push(format!(
                "{}: not measured, because too few (or all) of the {held_out} users that were held out did it; the model predicts it \
                 nevertheless",
                unmeasured.join(", ")
            ));
        }
    }
    for name in TARGETS[..BINARY].iter().map(|target| target.name) {
        for (what, key, baseline, baseline_name, sign) in [
            ("AUC", format!("auc_test_{name}"), "recency_frequency", "recency and frequency alone", 1.0),
            ("log loss", format!("log_loss_test_{name}"), "base_rate", "the base rate alone", -1.0),
        ] {
            let both = figure(&key).zip(figure(&format!("{key}_{baseline}")));
            if let Some((ours, theirs)) = both.filter(|(ours, theirs)| sign * (ours - theirs) < 0.0) {
                warnings
                    .push(format!("{name}: {what} {ours:.4} is worse than {theirs:.4} of {baseline_name}; {remedy}"));
            }
        }
    }
    if let Some((all, new)) = figure("ndcg_20_test_next_item").zip(figure("ndcg_20_test_next_item_new_only"))
        && all > new * NEW_ONLY_FACTOR
        && excludes_bought
    {
        warnings.push(format!(
            "recommendations: customers buy items again, NDCG@20 is {all:.4} with items bought before and {new:.4} without: set \
             recommendation.exclude_bought=false, unless the shop only wants to show what is new"
        ));
    }
    let more_dates = "raise demand.as_of_dates, or train on a later --date";
    if let Some((ours, naive)) = figure("pinball_test").zip(figure("pinball_test_seasonal_naive"))
        && ours > naive
    {
        warnings.push(format!("demand: pinball {ours:.4} is worse than {naive:.4} of seasonal naive; {more_dates}"));
    }
    if let Some(covered) = figure("coverage_test_q90").filter(|&covered| covered < Q90_COVERAGE_MIN) {
        warnings.push(format!(
            "demand: {covered:.2} of the days are at or below q90, expected {Q90:.2}: stock that rests on it runs short; {more_dates}"
        ));
    }
    for (key, high) in figures {
        let pattern = key.strip_prefix("coverage_test_lead_time_q90_").and_then(|rest| rest.strip_suffix("_high"));
        if let Some(pattern) = pattern.filter(|_| *high < Q90_COVERAGE_MIN) {
            warnings.push(format!(
                "demand: lead times of {pattern} items are at or below q90 in at most {high:.2} of the cases, expected {Q90:.2}: \
                 reorder points run short; {more_dates}"
            ));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(pairs: &[(&str, f64)]) -> Figures {
        pairs.iter().map(|(key, value)| (key.to_string(), *value)).collect()
    }

    #[test]
    fn rows_have_members_baselines_and_intervals() {
        let rows = rows(&figures(&[
            ("auc_test_purchase", 0.8),
            ("auc_test_purchase_low", 0.75),
            ("auc_test_purchase_high", 0.85),
            ("auc_test_purchase_network", 0.79),
            ("auc_test_purchase_trees", 0.78),
            ("auc_test_purchase_recency_frequency", 0.7),
            ("pinball_test", 1.5),
        ]));
        let texts: Vec<_> = rows.iter().map(|r| (r.task.as_str(), r.figure, r.model.as_str())).collect();
        assert_eq!(texts, [("purchase", "AUC", "0.8000 (0.7500 to 0.8500)"), ("demand", "pinball", "1.5000")]);
        assert_eq!((rows[0].network.as_str(), rows[0].trees.as_str()), ("0.7900", "0.7800"));
        assert_eq!((rows[0].baseline.as_str(), rows[1].baseline.as_str()), ("0.7000 recency and frequency", ""));
    }

    #[test]
    fn everything_worse_than_a_baseline_is_a_warning() {
        let good = figures(&[
            ("users_train", 5_000.0),
            ("auc_test_purchase", 0.8),
            ("auc_test_purchase_recency_frequency", 0.7),
            ("log_loss_test_cart", 0.2),
            ("log_loss_test_cart_base_rate", 0.3),
            ("pinball_test", 1.0),
            ("pinball_test_seasonal_naive", 2.0),
            ("coverage_test_q90", 0.9),
            ("coverage_test_lead_time_q90_smooth_high", 0.95),
        ]);
        assert_eq!(warnings(&good, true), Vec::<String>::new());
        for (key, value, part) in [
            ("auc_test_purchase", 0.6, "purchase: AUC 0.6000 is worse than 0.7000 of recency"),
            ("log_loss_test_cart", 0.4, "cart: log loss 0.4000 is worse than 0.3000 of the base rate"),
            ("pinball_test", 3.0, "demand: pinball 3.0000 is worse than 2.0000 of seasonal naive"),
            ("coverage_test_q90", 0.6, "demand: 0.60 of the days are at or below q90"),
            ("coverage_test_lead_time_q90_smooth_high", 0.7, "lead times of smooth items"),
        ] {
            let mut bad = good.clone();
            bad.insert(key.into(), value);
            let warnings = warnings(&bad, true);
            assert!(warnings.len() == 1 && warnings[0].contains(part), "{warnings:?}");
        }
        let mut again = good.clone();
        again.extend(figures(&[("ndcg_20_test_next_item", 0.3), ("ndcg_20_test_next_item_new_only", 0.2)]));
        assert!(warnings(&again, false).is_empty());
        assert!(warnings(&again, true)[0].contains("recommendation.exclude_bought=false"));
        let mut few = good;
        few.extend(figures(&[("users_train", 300.0), ("auc_test_purchase", 0.6)]));
        assert!(warnings(&few, true)[0].contains("300 users and dates are few"));
    }
}
