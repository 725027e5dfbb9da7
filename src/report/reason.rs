//! The reason of an order line in the report's language.

use serde_json::{Map, Value};

use super::labels::Labels;
use crate::config::Language;

/// Returns the reason of a line. In English it is the one that the night published, which the SQL may have changed.
pub(super) fn reason(line: &Map<String, Value>, language: Language, labels: &Labels) -> String {
    let number = |name: &str| line.get(name).and_then(Value::as_f64);
    let published = line.get("reason").and_then(Value::as_str).unwrap_or_default();
    let (Some(reorder_point), Some(on_hand), Some(on_order)) =
        (number("reorder_point"), number("on_hand"), number("on_order"))
    else {
        return labels.get("reason_no_inventory").into();
    };
    // Nights of older versions lack numbers of the sentence.
    let (Some(service_level), Some(mean)) = (number("service_level"), number("lead_time_demand_mean")) else {
        return published.into();
    };
    if language == Language::English {
        return published.into();
    }
    let fill = |key: &str, values: &[(&str, String)]| {
        values
            .iter()
            .fold(labels.get(key).to_string(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
    };
    let whole = |value: f64| format!("{value:.0}");
    let value = |name: &str| number(name).unwrap_or(0.0);
    let review = value("review_period_days");
    let days = [("days", whole(value("lead_time_days"))), ("review", whole(review))];
    let values = [
        ("period", fill(if review > 1.0 { "period_review" } else { "period" }, &days)),
        ("position", whole(on_hand + on_order)),
        ("on_hand", whole(on_hand)),
        ("on_order", whole(on_order)),
        ("reorder_point", whole(reorder_point)),
        ("service_level", format!("{} %", (service_level * 1e4).round() / 1e2)),
        ("mean", format!("{mean:.1}")),
        ("median", format!("{:.1}", value("lead_time_demand_q50"))),
        ("order_quantity", whole(value("order_quantity"))),
    ];
    if reorder_point <= 0.0 {
        return fill("reason_none_expected", &values);
    }
    if on_hand + on_order > reorder_point {
        return fill("reason_above", &values);
    }
    let (minimum, pack) = (value("min_order_quantity"), value("pack_size"));
    let mut text = fill("reason_order", &values);
    if minimum > 0.0 {
        text.push_str(&fill("reason_minimum", &[("minimum", whole(minimum))]));
    }
    if pack > 1.0 {
        text.push_str(&fill("reason_packs", &[("pack", whole(pack))]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reasons_name_the_numbers_that_they_rest_on() {
        let line = json!({
            "on_hand": 3, "on_order": 2, "reorder_point": 7, "order_quantity": 12, "lead_time_days": 9, "review_period_days": 7,
            "service_level": 0.975, "lead_time_demand_mean": 2.31, "lead_time_demand_q50": 2, "min_order_quantity": 4,
            "pack_size": 6, "reason": "published",
        });
        let Value::Object(line) = line else { panic!("no object") };
        let (english, chinese) = (Labels::load(Language::English).unwrap(), Labels::load(Language::Chinese).unwrap());
        assert_eq!(reason(&line, Language::English, &english), "published");
        let text = reason(&line, Language::Chinese, &chinese);
        for part in
            ["5", "现有 3", "在途 2", "再订货点 7", "97.5 %", "9 天加每 7 天", "2.3", "订 12", "至少 4", "每包 6"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains('{'), "{text}");
        let mut without = line.clone();
        without.remove("reorder_point");
        assert_eq!(reason(&without, Language::English, &english), english.get("reason_no_inventory"));
    }
}
