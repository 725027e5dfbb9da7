//! Groups of features that belong together in an explanation, each in words that can be read out.

/// A group of features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FeatureGroup {
    pub(crate) name: &'static str,
    /// Completes "… makes it likelier".
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
}
