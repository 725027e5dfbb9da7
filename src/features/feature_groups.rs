//! Groups of features that belong together in an explanation, each in words that can be read out.

/// A group of features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FeatureGroup {
    pub(crate) name: &'static str,
    /// Names the group where its features' values cannot be told.
    pub(crate) phrase: &'static str,
    /// Beginnings of the names of its features.
    features: &'static [&'static str],
}

/// Features that no group names. One that a shop adds is among them unless its name begins like one of a group.
pub(crate) const OTHER: FeatureGroup =
    FeatureGroup { name: "other", phrase: "what the shop's own features say", features: &[] };

/// Every group, in the order of explanations. A feature belongs to the first that names it.
pub(crate) const GROUPS: [FeatureGroup; 9] = [
    FeatureGroup {
        name: "times",
        phrase: "the hours and weekdays of the visits",
        features: &[
            "night_events",
            "morning_events",
            "afternoon_events",
            "evening_events",
            "monday_events",
            "tuesday_events",
            "wednesday_events",
            "thursday_events",
            "friday_events",
            "saturday_events",
            "sunday_events",
        ],
    },
    FeatureGroup {
        name: "visits",
        phrase: "how recently and how often the customer came",
        features: &["events_", "active_days_", "recency_hours", "age_days", "sessions_"],
    },
    FeatureGroup {
        name: "browsing",
        phrase: "how much the customer looked at",
        features: &["views_", "clicks_", "dwell_", "items_", "categories_"],
    },
    FeatureGroup { name: "searches", phrase: "how often the customer searched", features: &["searches_"] },
    FeatureGroup { name: "favorites", phrase: "how many favourites the customer chose", features: &["favorites_"] },
    FeatureGroup {
        name: "carts",
        phrase: "how much went into the cart and when",
        features: &["carts_", "cart_removals_", "cart_recency_days", "view_to_cart_"],
    },
    FeatureGroup {
        name: "purchases",
        phrase: "how much the customer bought and when",
        features: &[
            "purchases_",
            "units_",
            "spend_",
            "purchase_days_",
            "purchase_recency_days",
            "cart_to_purchase_",
            "view_to_purchase_",
            "order_value_",
            "gap_days_",
        ],
    },
    FeatureGroup {
        name: "returns",
        phrase: "how much the customer sent back",
        features: &["returns_", "refunds_", "return_share_"],
    },
    FeatureGroup { name: "reviews", phrase: "how many reviews the customer wrote", features: &["reviews_"] },
];

/// Group of the time since the last event, which the network reads besides the features.
pub(crate) const VISITS: FeatureGroup = GROUPS[1];

/// Returns the group of a feature.
pub(crate) fn group_of(feature: &str) -> FeatureGroup {
    let names = |group: &&FeatureGroup| group.features.iter().any(|beginning| feature.starts_with(beginning));
    GROUPS.iter().find(names).copied().unwrap_or(OTHER)
}

impl FeatureGroup {
    /// Says what a user's features of this group are, to complete "the customer …": "made 3 purchases in 90 days, the last one 12
    /// days ago". `value` returns a feature's value; `None` where the features that would say it are not there.
    pub(crate) fn facts(&self, value: &dyn Fn(&str) -> Option<f64>) -> Option<String> {
        match self.name {
            "times" => times(value),
            "visits" => visits(value),
            "browsing" => {
                let items = value("items_28d")?;
                let looks = value("views_28d")? + value("clicks_28d")?;
                Some(match (items > 0.0, looks > 0.0) {
                    (true, true) => {
                        format!("looked at {} in 28 days ({})", counted(items, "item"), counted(looks, "view"))
                    }
                    (true, false) => format!("had to do with {} in 28 days", counted(items, "item")),
                    (false, true) => format!("looked around in 28 days ({})", counted(looks, "view")),
                    (false, false) => "looked at nothing in 28 days".into(),
                })
            }
            "searches" => Some(match recent(value, "searches")? {
                (0.0, days) => format!("did not search in {days} days"),
                (count, days) => format!("searched {} in {days} days", counted(count, "time")),
            }),
            "favorites" => Some(match recent(value, "favorites")? {
                (0.0, days) => format!("chose no favourite in {days} days"),
                (count, days) => format!("chose {} in {days} days", counted(count, "favourite")),
            }),
            "carts" => Some(match recent(value, "carts")? {
                (0.0, days) => format!("put nothing into the cart in {days} days"),
                (count, days) => format!(
                    "put {} into the cart in {days} days{}",
                    counted(count, "item"),
                    last(value, "cart_recency_days")
                ),
            }),
            "purchases" => Some(match recent(value, "purchases")? {
                (0.0, _) if value("purchases_lifetime") == Some(0.0) => "has never bought anything".into(),
                (0.0, days) => format!("bought nothing in {days} days{}", last(value, "purchase_recency_days")),
                (count, days) => format!(
                    "made {} in {days} days{}",
                    counted(count, "purchase"),
                    last(value, "purchase_recency_days")
                ),
            }),
            "returns" => Some(match recent(value, "returns")? {
                (0.0, days) => format!("sent nothing back in {days} days"),
                (count, days) => format!("sent back {} in {days} days", counted(count, "purchase")),
            }),
            "reviews" => Some(match recent(value, "reviews")? {
                (0.0, days) => format!("wrote no review in {days} days"),
                (count, days) => format!("wrote {} in {days} days", counted(count, "review")),
            }),
            _ => None,
        }
    }
}

/// Returns a count in the last 28 days, or in 90 where there is none in 28, and these days.
fn recent(value: &dyn Fn(&str) -> Option<f64>, counts: &str) -> Option<(f64, u32)> {
    let of_days = |days: u32| Some((value(&format!("{counts}_{days}d"))?, days));
    of_days(28).filter(|(count, _)| *count > 0.0).or_else(|| of_days(90))
}

fn visits(value: &dyn Fn(&str) -> Option<f64>) -> Option<String> {
    let days = value("active_days_28d")?;
    let last = match value("recency_hours")? {
        hours if hours < 24.0 => "was here on the last day".into(),
        hours => format!("was last here {} ago", counted((hours / 24.0).floor(), "day")),
    };
    Some(match days {
        0.0 => last,
        days => format!("{last} and came on {days:.0} of the last 28 days"),
    })
}

fn times(value: &dyn Fn(&str) -> Option<f64>) -> Option<String> {
    let most = |of: &[&'static str]| -> Option<(&'static str, f64, f64)> {
        let counts: Vec<f64> = of.iter().map(|part| value(&format!("{part}_events_28d"))).collect::<Option<_>>()?;
        let (part, count) = of.iter().zip(&counts).max_by(|a, b| a.1.total_cmp(b.1))?;
        Some((part, *count, counts.iter().sum()))
    };
    let (part, of_part, all) = most(&["night", "morning", "afternoon", "evening"])?;
    let (day, of_day, _) = most(&["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"])?;
    if all <= 0.0 {
        return Some("was not here in 28 days".into());
    }
    let part = if part == "night" { "at night".into() } else { format!("in the {part}") };
    let day = format!("on {}{}s", day[..1].to_uppercase(), &day[1..]);
    let percent = |count: f64| format!("{:.0} %", count / all * 100.0);
    Some(format!("came mostly {part} ({}) and {day} ({})", percent(of_part), percent(of_day)))
}

/// Says how long ago the last one was.
fn last(value: &dyn Fn(&str) -> Option<f64>, recency_days: &str) -> String {
    value(recency_days).map_or_else(String::new, |days| format!(", the last one {} ago", counted(days, "day")))
}

/// Writes a count with its noun.
fn counted(count: f64, noun: &str) -> String {
    let plural = if count == 1.0 { "" } else { "s" };
    format!("{count:.0} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_of_the_sql_has_a_group() {
        let sql = include_str!("../../sql/features/user_features.sql");
        let columns = sql.lines().filter_map(|line| {
            let (line, _) = line.trim().split_once(" -- ")?;
            let line = line.trim_end_matches(',');
            let name = line.rsplit_once("AS ").map(|(_, name)| name).or(line.strip_prefix("gaps."))?;
            let starts = ["coalesce", "CAST", "gaps.", "AS "];
            starts.iter().any(|start| line.starts_with(start)).then_some(name)
        });
        let columns: Vec<&str> = columns.collect();
        assert!(columns.len() > 80, "{columns:?}");
        let without: Vec<&&str> = columns.iter().filter(|name| group_of(name) == OTHER).collect();
        assert!(without.is_empty(), "{without:?}: name them in GROUPS");
        assert_eq!(group_of("events_7d").name, "visits");
        assert_eq!(group_of("sunday_events_28d").name, "times");
        assert_eq!(group_of("loyalty_points").name, "other");
    }

    #[test]
    fn facts_name_the_values() {
        let facts = |name: &str, values: &[(&str, f64)]| {
            let group = GROUPS.iter().find(|group| group.name == name).unwrap();
            group.facts(&|feature| values.iter().find(|(known, _)| *known == feature).map(|(_, value)| *value))
        };
        let never = [("purchases_28d", 0.0), ("purchases_90d", 0.0), ("purchases_lifetime", 0.0)];
        let long_ago = [("purchases_28d", 0.0), ("purchases_90d", 0.0), ("purchase_recency_days", 120.0)];
        let of_days = |day: f64| {
            [("night", 1.0), ("morning", 0.0), ("afternoon", 0.0), ("evening", 3.0), ("monday", 0.0)]
                .into_iter()
                .chain(["tuesday", "wednesday", "thursday", "friday", "sunday"].map(|name| (name, 0.0)))
                .chain([("saturday", 4.0)])
                .map(move |(name, count)| (format!("{name}_events_28d"), count * day))
                .collect::<Vec<_>>()
        };
        let (some, none) = (of_days(1.0), of_days(0.0));
        let named = |days: &'static str, counts: &[(String, f64)]| {
            let counts: Vec<(&str, f64)> = counts.iter().map(|(name, count)| (name.as_str(), *count)).collect();
            facts(days, &counts)
        };
        for (found, expected) in [
            (facts("purchases", &never), "has never bought anything"),
            (facts("purchases", &long_ago), "bought nothing in 90 days, the last one 120 days ago"),
            (
                facts("purchases", &[("purchases_28d", 1.0), ("purchase_recency_days", 1.0)]),
                "made 1 purchase in 28 days, the last one 1 day ago",
            ),
            (facts("returns", &[("returns_28d", 0.0), ("returns_90d", 2.0)]), "sent back 2 purchases in 90 days"),
            (facts("returns", &[("returns_28d", 0.0), ("returns_90d", 0.0)]), "sent nothing back in 90 days"),
            (
                facts("visits", &[("recency_hours", 3.5), ("active_days_28d", 5.0)]),
                "was here on the last day and came on 5 of the last 28 days",
            ),
            (facts("visits", &[("recency_hours", 960.0), ("active_days_28d", 0.0)]), "was last here 40 days ago"),
            (
                facts("browsing", &[("items_28d", 9.0), ("views_28d", 12.0), ("clicks_28d", 2.0)]),
                "looked at 9 items in 28 days (14 views)",
            ),
            (named("times", &some), "came mostly in the evening (75 %) and on Saturdays (100 %)"),
            (named("times", &none), "was not here in 28 days"),
        ] {
            assert_eq!(found.as_deref(), Some(expected));
        }
        assert!(GROUPS.iter().all(|group| group.facts(&|_| Some(2.0)).is_some()), "a group without facts");
        assert!(
            GROUPS.iter().chain([&OTHER]).all(|group| group.facts(&|_| None).is_none()),
            "a shop that left the feature out"
        );
    }
}
