//! Renders an evaluation as a page: one file that makes no request.

use minijinja::value::Serde;
use minijinja::{Environment, context};
use serde_json::{Value, json};

use super::evaluated::Evaluation;
use crate::failure::{Failure, Result};
use crate::ids::RunDate;

const TEMPLATE: &str = include_str!("assets/page.html");

/// Renders the page; the figures are those of all dates where there are several.
pub(super) fn render(evaluation: &Evaluation) -> Result<String> {
    let Evaluation { figures, demand, recommendations, curves, fans, .. } = evaluation;
    let number = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.4}"));
    let with_interval = |value: Option<f64>, interval: Option<(f64, f64)>| match interval {
        Some((low, high)) => format!("{} ({low:.4} to {high:.4})", number(value)),
        None => number(value),
    };
    let date = |date: Option<RunDate>| date.map_or("all dates".into(), |date| date.to_string());
    let pooled = figures.iter().any(|row| row.run_date.is_none());
    let intents = figures.iter().filter(|row| row.run_date.is_none() == pooled).map(|row| {
        json!({
            "date": date(row.run_date), "model": row.model_version, "in_training": row.in_training, "intent": row.intent, "group": row.group,
            "users": row.users, "auc": with_interval(row.auc, row.auc_interval),
            "average_precision": number(row.average_precision),
            "log_loss": with_interval(Some(row.log_loss), row.log_loss_interval),
            "brier": number(Some(row.brier)), "ece": number(Some(row.expected_calibration_error)),
            "mean_score": number(Some(row.mean_score)), "share": number(row.share()),
            "tops": row.tops.map(|(share, _)| number(Some(share))),
        })
    });
    let pooled = demand.iter().any(|row| row.run_date.is_none());
    let demand = demand.iter().filter(|row| row.run_date.is_none() == pooled).map(|row| {
        json!({
            "date": date(row.run_date), "model": row.model_version, "in_training": row.in_training, "pattern": row.pattern,
            "category": row.category,
            "items": row.items, "days": row.days, "pinball": with_interval(Some(row.pinball), Some(row.pinball_interval)),
            "naive": number(Some(row.pinball_seasonal_naive)), "bias": number(row.bias), "mae": number(Some(row.mae)),
            "covered_q90": with_interval(Some(row.covered_q90), Some(row.covered_q90_interval)),
            "within": row.within.map(|share| number(Some(share))),
            "lead_time_covered_q90": number(row.lead_time_covered_q90),
        })
    });
    let pooled = recommendations.iter().any(|row| row.run_date.is_none());
    let recommendations = recommendations.iter().filter(|row| row.run_date.is_none() == pooled).map(|row| {
        json!({
            "date": date(row.run_date), "model": row.model_version, "in_training": row.in_training, "length": row.length,
            "users": row.users, "recall": number(Some(row.recall)), "mrr": number(Some(row.mrr)),
            "ndcg": with_interval(Some(row.ndcg), row.ndcg_interval),
        })
    });
    let (intents, demand): (Vec<Value>, Vec<Value>) = (intents.collect(), demand.collect());
    let recommendations: Vec<Value> = recommendations.collect();
    let data = json!({ "curves": curves, "fans": fans });
    let data = serde_json::to_string(&data).map_err(Failure::bug)?;
    let mut environment = Environment::new();
    environment.add_template("page.html", TEMPLATE).map_err(Failure::bug)?;
    let template = environment.get_template("page.html").map_err(Failure::bug)?;
    let rendered = template.render(context! {
        intents => minijinja::Value::from(Serde(&intents)),
        demand => minijinja::Value::from(Serde(&demand)),
        recommendations => minijinja::Value::from(Serde(&recommendations)),
        // No text of it ends the script element around it.
        data => data.replace('<', "\\u003c"),
        page_css => include_str!("assets/page.css"),
        page_js => include_str!("assets/page.js"),
        uplot_css => include_str!("../report/assets/uplot.css"),
        uplot_js => include_str!("../report/assets/uplot.js"),
        uplot_license => include_str!("../report/assets/uplot-license.txt"),
    });
    rendered.map_err(Failure::bug)
}
