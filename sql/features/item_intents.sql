-- one row per item_id and past day that an earlier night forecast: the units that its purchase intents added up to
-- Has the items of the session's part (engine.item_parts), no further back than a history goes.
-- earlier_demand has what the nights before this one published, with the run date as _dt. Of several nights that forecast a
-- day the newest counts; none of them knew the day itself.
SELECT item_id, target_date AS day, last_value(intent_units ORDER BY _dt) AS intent_units
FROM earlier_demand
WHERE intent_units IS NOT NULL AND target_date < run_date() AND _dt <= target_date
    AND target_date >= run_date() - CAST(demand_history_days() AS INT)
    AND item_bucket(item_id) BETWEEN item_bucket_first() AND item_bucket_last()
GROUP BY item_id, target_date
