//! Settings of what a night computes and publishes: features, intents, demand, recommendations, reorder lines, segments, and
//! the checks before publication.

use super::declare::{choices, settings};
use super::networks::DemandNetworkName;

settings! {
    /// Features of users. Train again after a change.
    FeaturesConfig {
        /// Newest events of each user that the sequence encoder reads.
        last_events: u32 = 128, 1..=4096;
        /// Look-back window in days: older events count only in lifetime features.
        look_back_days: u32 = 90, 90..=3650;
        /// Consent of users for whom the lake has no value. False leaves them out of scoring and training.
        consent_default: bool = true;
    }
}

settings! {
    /// Purchase intents and churn. Train again after a change.
    IntentsConfig {
        /// Horizon in days: an intent is the probability of an event within this many days from the run date.
        horizon_days: u32 = 7, 1..=90;
        /// A user without any event for this many days from the run date has churned.
        churn_days: u32 = 28, 1..=730;
        /// Train gradient-boosted trees next to the network and publish a blend of both. Takes effect with the next training.
        trees: bool = true;
        /// Share of the users for whom `intent.hold_out` is true: leave them out when you act on the scores, and compare them with
        /// the others later.
        hold_out_share: f64 = 0.0, 0.0..=1.0;
        /// Text that decides who these users are. Another text chooses others.
        hold_out_salt: String = String::new();
    }
}

settings! {
    /// The demand forecast. Train again after a change.
    DemandConfig {
        /// Forecast demand. With false, training leaves it out, and nights publish `demand`, `demand_total` and `replenishment` without
        /// rows and say so in `runs.note`: for shops that want intents alone, and for lakes too young for forecasts.
        enabled: bool = true;
        /// Days that are forecast.
        horizon_days: u32 = 28, 1..=366;
        /// Days of an item's history that the network reads.
        history_days: u32 = 112, 28..=1000;
        /// Items first seen fewer days ago than this get the fallback forecast instead of the network's.
        history_days_min: u32 = 14, 0..=1000;
        /// Network that reads an item's daily history (docs/models/demand.md).
        network: DemandNetworkName = DemandNetworkName::Gru;
        /// Width of the network's state.
        width: u32 = 48, 4..=4096;
        /// Layers of `lstm`, `gru` and `rnn`. `tcn` has as many as the history needs.
        layers: u32 = 1, 1..=16;
        /// Train gradient-boosted trees next to the network and publish a blend of both. Takes effect with the next training.
        trees: bool = true;
        /// Items that sell fewer units per day than this get quantiles of a count distribution, in whole units.
        slow_units_per_day: f64 = 0.5, 0.0..=10.0;
        /// Past dates in the training set, on all weekdays, spread over the days for which the lake has half of `history_days`.
        as_of_dates: u32 = 8, 1..=520;
        /// Later dates, one horizon apart, on which training calibrates the quantiles. A young lake has fewer.
        calibration_dates: u32 = 3, 0..=52;
        /// Use the purchase intents of earlier nights as an input, if there are such nights.
        intent_inputs: bool = true;
        /// Use the items' content vectors (pictures, videos) as an input, if most items have one.
        content_inputs: bool = true;
        /// Move forecasts towards the sum of purchase intents, as far as earlier nights show that this reduces the error.
        reconcile_intents: bool = true;
    }
}

settings! {
    /// Recommendations.
    RecommendationConfig {
        /// Items recommended to each user.
        top_k: u32 = 10, 1..=10_000;
        /// Leave out items that the user has bought before.
        exclude_bought: bool = true;
    }
}

settings! {
    /// Reorder lines. These are defaults for items whose inventory row has no value.
    ReplenishmentConfig {
        /// Service level: wanted share of lead times without a stock-out.
        service_level: f64 = 0.95, 0.5..=0.9999;
        /// Days from order to delivery.
        lead_time_days: u32 = 7, 1..=3650;
        /// Days between stock reviews. The reorder point covers demand until the delivery that follows the next review.
        review_period_days: u32 = 1, 1..=3650;
    }
}

choices! {
    /// Language of the report's page and order sheet.
    Language {
        /// English
        English = "en",
        /// simplified Chinese
        Chinese = "zh",
    }
}

settings! {
    /// The planner's report.
    ReportConfig {
        /// Language of labels, numbers and dates.
        language: Language = Language::English;
    }
}

settings! {
    /// Segments of users.
    SegmentConfig {
        /// Segments with fewer users are not published, for privacy.
        users_min: u32 = 20, 0..=1_000_000;
    }
}

settings! {
    /// Checks of a night's tables. A failed check stops the night with exit code 4 and publishes nothing.
    ChecksConfig {
        /// Largest accepted relative change of the mean purchase probability from the night before.
        change_share_max: f64 = 0.5, 0.0..=1_000_000.0;
        /// Smallest accepted share of consenting users who have a score.
        scored_share_min: f64 = 0.999, 0.0..=1.0;
    }
}
