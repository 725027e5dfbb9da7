//! Declares every published table once.
//!
//! To add a table: write `sql/tables/NAME.sql`, declare it here, add it to [`NIGHT`] behind the tables that its SQL reads,
//! name it in README.md and run `make docs`.

use super::table_spec::ColumnType::{Boolean, Date, Float64, Int32, Int64, Text, Time};
use super::table_spec::{Column, TableSpec, column, concatenated};
use crate::model::targets::TARGETS;

/// The tables of a night, in the order in which they are built and committed; `runs` comes after all of them.
pub(crate) const NIGHT: &[&TableSpec] = &[
    &INTENT,
    &INTENT_SHADOW,
    &RECOMMENDATION,
    &DEMAND,
    &DEMAND_TOTAL,
    &REPLENISHMENT,
    &SEGMENT,
    &QUARANTINE,
    &LAKE_DAY,
];

pub(super) const INTENT: TableSpec = TableSpec {
    name: "intent",
    grain: "user of the lake who consents",
    key: &["user_id"],
    also_unique: &[],
    columns: &INTENT_COLUMNS,
};

#[rustfmt::skip]
const INTENT_COLUMNS: [Column; 7 + TARGETS.len()] = concatenated(&[
    &[column("user_id", Text, "the user; never null")],
    &TARGET_COLUMNS,
    &[
        column("anomaly_score", Float64, "how unusual the user's last day was compared with the user's past and with all users, in roughly standard deviations"),
        column("segment", Text, "the segment of the first matching rule in sql/score/segments.sql"),
        column("events_seen", Int64, "number of the user's events before the run date"),
        column("last_seen_at", Time, "time of the newest event before the run date, UTC; null for a user without events"),
        column("model_version", Text, "version of the model that scored the user"),
        column("hold_out", Boolean, "true for users to leave out of every action (`intents.hold_out_share` of them), so that you can measure what acting on the scores is worth; null in nights of older versions, and where your sql/tables/intent.sql does not select it"),
    ],
]);

pub(super) const INTENT_SHADOW: TableSpec = TableSpec {
    name: "intent_shadow",
    grain: "user of the lake who consents, in nights with `promotion.shadow_version`",
    key: &["user_id"],
    also_unique: &[],
    columns: &INTENT_SHADOW_COLUMNS,
};

#[rustfmt::skip]
const INTENT_SHADOW_COLUMNS: [Column; 2 + TARGETS.len()] = concatenated(&[
    &[column("user_id", Text, "the user; never null")],
    &TARGET_COLUMNS,
    &[column("model_version", Text, "version of the model that scored the user, not that of `intent`")],
]);

const TARGET_COLUMNS: [Column; TARGETS.len()] = {
    let mut columns = [column("", Float64, ""); TARGETS.len()];
    let mut at = 0;
    while at < columns.len() {
        columns[at] = column(TARGETS[at].output, Float64, TARGETS[at].meaning);
        at += 1;
    }
    columns
};

#[rustfmt::skip]
const RECOMMENDATION: TableSpec = TableSpec {
    name: "recommendation",
    grain: "user and rank",
    key: &["user_id", "rank"],
    also_unique: &[&["user_id", "item_id"]],
    columns: &[
        column("user_id", Text, "the user; never null"),
        column("rank", Int32, "1 is the best; at most `recommendation.top_k`"),
        column("item_id", Text, "the recommended item"),
        column("score", Float64, "affinity; orders the items of one user and is not comparable across users"),
    ],
};

#[rustfmt::skip]
const DEMAND: TableSpec = TableSpec {
    name: "demand",
    grain: "item and target date",
    key: &["item_id", "target_date"],
    also_unique: &[],
    columns: &[
        column("item_id", Text, "the item; never null"),
        column("target_date", Date, "the forecast day in the lake's time zone; the first is the run date"),
        column("mean", Float64, "expected units demanded that day, reconciled with the purchase intents"),
        column("q05", Float64, "0.05 quantile of the units demanded that day"),
        column("q10", Float64, "0.10 quantile"),
        column("q25", Float64, "0.25 quantile"),
        column("q50", Float64, "0.50 quantile, the median"),
        column("q75", Float64, "0.75 quantile"),
        column("q90", Float64, "0.90 quantile"),
        column("q95", Float64, "0.95 quantile"),
        column("intent_units", Float64, "expected units according to the users' purchase intents; null on days beyond `intents.horizon_days`, where fewer than `privacy.k_min` users are behind them, and for one more item of such a category"),
        column("category", Text, "the item's category; null where the catalogue has none"),
        column("model_mean", Float64, "expected units according to the demand network, before reconciliation with intents"),
    ],
};

#[rustfmt::skip]
const DEMAND_TOTAL: TableSpec = TableSpec {
    name: "demand_total",
    grain: "category and target date, and one for the total of each target date",
    key: &["level", "category", "target_date"],
    also_unique: &[],
    columns: &[
        column("level", Text, "`category` or `total`"),
        column("category", Text, "the category; empty for items without one and for the total"),
        column("target_date", Date, "the forecast day in the lake's time zone; the first is the run date"),
        column("mean", Float64, "expected units demanded that day: the sum of demand.mean over the items"),
        column("model_mean", Float64, "the sum of demand.model_mean"),
        column("intent_units", Float64, "the sum of the published demand.intent_units; null on days beyond `intents.horizon_days`, and where no item publishes any"),
        column("intent_weight", Float64, "how far tonight's forecasts are moved from model_mean (0) to intent_units (1)"),
    ],
};

#[rustfmt::skip]
const REPLENISHMENT: TableSpec = TableSpec {
    name: "replenishment",
    grain: "item with an inventory row",
    key: &["item_id"],
    also_unique: &[],
    columns: &[
        column("item_id", Text, "the item; never null"),
        column("on_hand", Float64, "units in stock, from the newest inventory row on or before the run date"),
        column("on_order", Float64, "units ordered and not yet delivered; 0 where the lake has no value"),
        column("lead_time_days", Int32, "days from order to delivery"),
        column("review_period_days", Int32, "days between two looks at the stock: `replenishment.review_period_days`"),
        column("service_level", Float64, "probability, between 0 and 1, with which the reorder point covers the demand"),
        column("pack_size", Float64, "units per pack; 1 where the lake has no value"),
        column("min_order_quantity", Float64, "least units of an order; 0 where the lake has no value"),
        column("lead_time_demand_mean", Float64, "expected units demanded over the lead time, reconciled with the purchase intents"),
        column("lead_time_demand_q05", Float64, "0.05 quantile of the units demanded over the lead time"),
        column("lead_time_demand_q10", Float64, "0.10 quantile"),
        column("lead_time_demand_q25", Float64, "0.25 quantile"),
        column("lead_time_demand_q50", Float64, "0.50 quantile, the median"),
        column("lead_time_demand_q75", Float64, "0.75 quantile"),
        column("lead_time_demand_q90", Float64, "0.90 quantile"),
        column("lead_time_demand_q95", Float64, "0.95 quantile"),
        column("safety_stock", Float64, "reorder point minus lead_time_demand_q50, units"),
        column("reorder_point", Float64, "whole units that cover the demand until the delivery after the next review with probability service_level"),
        column("order_quantity", Float64, "units to order today: whole packs, at least the minimum order; 0 for no order"),
        column("stock_out_risk", Float64, "probability, 0 to 1, that demand over the lead time exceeds stock and orders"),
        column("days_of_cover", Float64, "days until the stock is used up at mean demand; null where no demand is expected"),
        column("reason", Text, "why that quantity, in words"),
    ],
};

#[rustfmt::skip]
const SEGMENT: TableSpec = TableSpec {
    name: "segment",
    grain: "segment with at least `segment.users_min` and `privacy.k_min` users",
    key: &["segment"],
    also_unique: &[],
    columns: &[
        column("segment", Text, "the segment's name; never null"),
        column("users", Int64, "number of users in the segment"),
        column("p_purchase_mean", Float64, "mean of intent.p_purchase, 0 to 1"),
        column("p_churn_mean", Float64, "mean of intent.p_churn, 0 to 1"),
        column("expected_units_mean", Float64, "mean of intent.expected_units, units"),
        column("expected_spend_mean", Float64, "mean of intent.expected_spend, in the lake's currency"),
        column("anomaly_score_mean", Float64, "mean of intent.anomaly_score"),
        column("events_seen_mean", Float64, "mean of intent.events_seen"),
    ],
};

#[rustfmt::skip]
const LAKE_DAY: TableSpec = TableSpec {
    name: "lake_day",
    grain: "day of the lake before the run date; older days than the demand history only where rows were read",
    key: &["day"],
    also_unique: &[],
    columns: &[
        column("day", Date, "the day in the lake's time zone"),
        column("rows_read", Int64, "rows of `events` on that day, before deduplication, quarantine and erasure"),
        column("events", Int64, "good events"),
        column("kind", Text, "`open` with events; without any `closed` (a weekday on which the shop is closed) or `quiet` (a small lake), both days of zero demand, or `missing` (left out of demand histories)"),
    ],
};

#[rustfmt::skip]
const QUARANTINE: TableSpec = TableSpec {
    name: "quarantine",
    grain: "bad row of the lake",
    key: &[],
    also_unique: &[],
    columns: &[
        column("view", Text, "the canonical view that the row would belong to: events, items, …"),
        column("source_file", Text, "the file that holds the row; null where the lake's SQL does not pass `_file` through"),
        column("reason", Text, "why the row was set aside; sql/rollups/judged_events.sql has the list"),
        column("column_name", Text, "the column that is bad; null where the reason says it or the row is bad as a whole"),
        column("row_json", Text, "the row as JSON, with ids masked"),
    ],
};

/// Erased persons. Not a table of a night: rows are appended, never replaced, and `run_date` is the day of the erasure.
#[rustfmt::skip]
pub(crate) const ERASURE: TableSpec = TableSpec {
    name: "erasure",
    grain: "erased id of a person",
    key: &[],
    also_unique: &[],
    columns: &[
        column("user_hash", Text, "keyed hash of the id; the key is in the output's state"),
        column("requested_at", Time, "when the person asked for it, as far as the lake says so, or when the command was started first, UTC"),
        column("gone_at", Time, "when no file below the output held the id any more, UTC"),
        column("files_rewritten", Int64, "files that were written again without the persons of the same command"),
    ],
};

/// Runs, and the nights that they made visible. Not a table of a night: rows are appended, never replaced.
#[rustfmt::skip]
pub(crate) const RUNS: TableSpec = TableSpec {
    name: "runs",
    grain: "run: a night, a rollback, an erasure or an expiry",
    key: &[],
    also_unique: &[],
    columns: &[
        column("generation", Int64, "how many times the date was started; the newest visible generation is shown"),
        column("kind", Text, "night, rollback, erase or expire; see sql/views/visible_nights.sql"),
        column("status", Text, "published, rolled back or expired"),
        column("made_visible_at", Time, "when the row was written, UTC, and for an erasure, when the night was published first; informational"),
        column("model_version", Text, "version of the model that scored; null where none did"),
        column("sql_fingerprint", Text, "hash of the SQL that made the night; null except for nights"),
        column("input_fingerprint", Text, "hash of the source files; null except for nights"),
        column("rows_read", Int64, "number of event rows the night is based on; null except for nights"),
        column("rows_quarantined", Int64, "number of bad rows among them; null except for nights"),
        column("quarantined_by_reason", Text, "JSON object: number of bad rows by reason"),
        column(
            "master_findings",
            Text,
            "JSON object: by view of master data, how many keys have several rows (combined), how many rows name an item that is \
             neither in the catalogue nor in an event (unknown_item), how many persons have only ids that form a cycle (cycles), \
             how many ids are connected to too many others (unstitched); counts of zero are left out",
        ),
        column("arrival_mode", Text, "how arrival times are known: arrival column, ingest date, or event time only"),
        column("manifest_hash", Text, "identifies the content: two runs with the same hash are the same night"),
        column("table_versions", Text, "JSON object: the Delta version of each table whose partition holds this run"),
        column("stages", Text, "JSON object: seconds, rows and bytes by stage"),
        column("drift", Text, "JSON: population stability index of each feature against the training set; null where it was not measured"),
        column("accuracy", Text, "JSON: accuracy of earlier nights whose outcomes are now known; null where there are none"),
        column("hides_generation", Int64, "the generation that a rollback hides; null otherwise"),
        column("note", Text, "a sentence for people; null where there is nothing to say"),
    ],
};
