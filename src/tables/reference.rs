//! What each column of the published tables means; `docs/reference/tables.md` is made from this and the schemas.

use std::fmt::Write;

use crate::failure::{Failure, Result};
use crate::tables::schemas::{NIGHT_TABLES, RUNS, file_schema, key};

/// One row of each table stands for this.
const ROWS: [(&str, &str); 8] = [
    ("intent", "consenting user whom the lake knows"),
    ("recommendation", "user and rank"),
    ("demand", "item and target date"),
    ("demand_total", "category and target date, and one for the total of each date"),
    ("replenishment", "item with an inventory row"),
    ("segment", "segment with at least `segment.users_min` users"),
    ("quarantine", "bad row of the lake"),
    ("runs", "run: a night, a rollback, an erasure or an expiry"),
];

/// Meaning, unit and when null of every column, in the order of the schemas.
const INTENT: [(&str, &str); 15] = [
    ("user_id", "the user; never null"),
    ("p_view", "probability, 0 to 1, of a view or click within `intents.horizon_days` from the run date"),
    ("p_search", "probability, 0 to 1, of a search within the horizon"),
    ("p_favorite", "probability, 0 to 1, of a favourite within the horizon"),
    ("p_cart", "probability, 0 to 1, of a cart add within the horizon"),
    ("p_purchase", "probability, 0 to 1, of a purchase within the horizon"),
    ("p_review", "probability, 0 to 1, of a review within the horizon"),
    ("p_churn", "probability, 0 to 1, of no event at all within `intents.churn_days`"),
    ("expected_units", "units bought within the horizon, expected value"),
    ("expected_spend", "spend within the horizon in the lake's currency, expected value"),
    ("anomaly_score", "how unlike everybody's, and the user's own past, the last day was; about standard deviations"),
    ("segment", "the segment that the first matching rule of sql/score/segments.sql gives"),
    ("events_seen", "events of the user within the look-back, a count"),
    ("last_seen_at", "time of the newest event before the run date, UTC; null for a user without events"),
    ("model_version", "the bundle that scored"),
];
const RECOMMENDATION: [(&str, &str); 4] = [
    ("user_id", "the user; never null"),
    ("rank", "1 is the best, up to `recommendation.top_k`"),
    ("item_id", "the item"),
    ("score", "the model's affinity; orders the items of one user, compares nothing else"),
];
const DEMAND: [(&str, &str); 13] = [
    ("item_id", "the item; never null"),
    ("target_date", "the local day forecast; the run date is the first"),
    ("mean", "units demanded that day, expected value, reconciled with the purchase intents"),
    ("q05", "units that demand stays at or below with probability 0.05"),
    ("q10", "the same, 0.10"),
    ("q25", "the same, 0.25"),
    ("q50", "the same, 0.50: the median"),
    ("q75", "the same, 0.75"),
    ("q90", "the same, 0.90"),
    ("q95", "the same, 0.95"),
    (
        "intent_units",
        "units that users' purchase intents add up to for this item; null on days beyond the intents' horizon",
    ),
    ("category", "the item's category; null where the catalogue names none"),
    ("model_mean", "units that the demand network expects, before the intents were heard"),
];
const DEMAND_TOTAL: [(&str, &str); 7] = [
    ("level", "`category` or `total`"),
    ("category", "the category; empty for items without one, and for the total"),
    ("target_date", "the local day forecast; the run date is the first"),
    ("mean", "units demanded that day, expected value: the sum of demand.mean of its items"),
    ("model_mean", "the sum of demand.model_mean"),
    ("intent_units", "the sum of demand.intent_units; null on days beyond the intents' horizon"),
    ("intent_weight", "how far the forecasts moved from model_mean (0) to intent_units (1) tonight"),
];
const REPLENISHMENT: [(&str, &str); 12] = [
    ("item_id", "the item; never null"),
    ("on_hand", "units in stock, newest inventory row on or before the run date"),
    ("on_order", "units ordered and not yet there; 0 where the lake says nothing"),
    ("lead_time_days", "days from order to delivery; null where the lake says nothing"),
    ("lead_time_demand_q50", "median demand over the lead time, units"),
    ("lead_time_demand_q90", "demand over the lead time that is not exceeded with probability 0.90, units"),
    ("safety_stock", "reorder point less median demand over the lead time, units"),
    ("reorder_point", "demand over the lead time at the item's service level, units"),
    ("order_quantity", "units to order today, whole packs, at least the minimum order; 0 for none"),
    ("stock_out_risk", "probability that demand over the lead time exceeds stock and orders, 0 to 1"),
    ("days_of_cover", "days that the stock lasts at mean demand; null where no demand is expected"),
    ("reason", "why that quantity, in words"),
];
const SEGMENT: [(&str, &str); 8] = [
    ("segment", "the segment's name; never null"),
    ("users", "users in it, a count"),
    ("p_purchase_mean", "mean of intent.p_purchase, 0 to 1"),
    ("p_churn_mean", "mean of intent.p_churn, 0 to 1"),
    ("expected_units_mean", "mean of intent.expected_units, units"),
    ("expected_spend_mean", "mean of intent.expected_spend, the lake's currency"),
    ("anomaly_score_mean", "mean of intent.anomaly_score"),
    ("events_seen_mean", "mean of intent.events_seen"),
];
const QUARANTINE: [(&str, &str); 3] = [
    ("source_file", "the event file that held the row"),
    ("reason", "why it was set aside, one of a fixed list"),
    ("row_json", "the row as JSON, ids masked"),
];
const RUNS_COLUMNS: [(&str, &str); 18] = [
    ("generation", "how many times the date was started; the newest visible one counts"),
    ("kind", "night, rollback, erase or expire; see sql/views/visible_nights.sql"),
    ("status", "published, rolled back or expired"),
    ("made_visible_at", "when the row was written, UTC; decides nothing"),
    ("model_version", "the bundle that scored; null where none did"),
    ("sql_fingerprint", "hash of the SQL that made the night; null but for nights"),
    ("input_fingerprint", "hash of the source files; null but for nights"),
    ("rows_read", "event rows behind the night, a count; null but for nights"),
    ("rows_quarantined", "bad rows among them, a count; null but for nights"),
    ("quarantined_by_reason", "JSON object: bad rows by reason"),
    ("arrival_mode", "how arrival was known: arrival column, ingest date, or event time only"),
    ("manifest_hash", "names the content: two runs with one hash are the same night"),
    ("table_versions", "JSON object: the Delta version of each table whose partition holds this run"),
    ("stages", "JSON object: seconds, rows and bytes by stage"),
    ("drift", "JSON: population stability index by feature against the training set; null where it was not measured"),
    ("accuracy", "JSON: how earlier nights did, now that their outcomes are known; null where none is"),
    ("hides_generation", "the generation that a rollback hides; null otherwise"),
    ("note", "a sentence for people; null where there is nothing to say"),
];

/// Name and meaning of every column of a table but the partition column.
fn meanings(table: &str) -> Vec<(&'static str, &'static str)> {
    match table {
        "intent" => INTENT.to_vec(),
        "recommendation" => RECOMMENDATION.to_vec(),
        "demand" => DEMAND.to_vec(),
        "demand_total" => DEMAND_TOTAL.to_vec(),
        "replenishment" => REPLENISHMENT.to_vec(),
        "segment" => SEGMENT.to_vec(),
        "quarantine" => QUARANTINE.to_vec(),
        RUNS => RUNS_COLUMNS.to_vec(),
        _ => Vec::new(),
    }
}

/// The table reference as Markdown. Fails where a column has no meaning, or a meaning no column.
pub fn markdown() -> Result<String> {
    let mut text = String::from(
        "# The published tables\n\n\
         Made from src/tables by `make docs`; a test compares them. Delta tables below `<output>/tables/`, partitioned by\n\
         `run_date` (a date, the last column of each). Which nights are visible is said by `runs` alone:\n\
         sql/views/visible_nights.sql is the query. Times are UTC; all columns always exist.\n",
    );
    for table in NIGHT_TABLES.into_iter().chain([RUNS]) {
        let rows = ROWS.iter().find(|(name, _)| *name == table).map_or("", |(_, rows)| rows);
        let schema = file_schema(table)?;
        let meanings = meanings(table);
        let (columns, meant): (Vec<&str>, Vec<&str>) = (
            schema.fields().iter().map(|f| f.name().as_str()).collect(),
            meanings.iter().map(|(name, _)| *name).collect(),
        );
        if columns != meant {
            return Err(Failure::bug(format!("table {table}: columns {columns:?}, but meanings of {meant:?}")));
        }
        let unique = match key(table) {
            [] => String::new(),
            columns => format!(" Key within a night: {}.", columns.join(", ")),
        };
        let lines = schema.fields().iter().zip(meanings);
        let lines: String =
            lines.map(|(field, (name, meaning))| format!("| {name} | {} | {meaning} |\n", field.data_type())).collect();
        write!(
            text,
            "\n## {table}\n\nOne row per {rows}.{unique}\n\n| column | type | meaning |\n|---|---|---|\n{lines}"
        )
        .map_err(Failure::bug)?;
    }
    Ok(text)
}
