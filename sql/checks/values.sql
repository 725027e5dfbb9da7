-- check (stops the night): one row per column with values that its declaration excludes: null, NaN or infinite
-- Generated from src/tables/published.rs by `make docs`. Each table is read once.
WITH counted AS (
    SELECT unnest(make_array(
        named_struct('name', 'intent.user_id', 'expected', 'none null', 'bad', count(*) FILTER (WHERE user_id IS NULL)),
        named_struct('name', 'intent.p_view', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE p_view IS NULL OR isnan(p_view) OR abs(p_view) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'intent.p_search', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE p_search IS NULL OR isnan(p_search) OR abs(p_search) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'intent.p_favorite', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE p_favorite IS NULL OR isnan(p_favorite) OR abs(p_favorite) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'intent.p_cart', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE p_cart IS NULL OR isnan(p_cart) OR abs(p_cart) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'intent.p_purchase', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE p_purchase IS NULL OR isnan(p_purchase) OR abs(p_purchase) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'intent.p_review', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE p_review IS NULL OR isnan(p_review) OR abs(p_review) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'intent.p_churn', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE p_churn IS NULL OR isnan(p_churn) OR abs(p_churn) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'intent.expected_units', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE expected_units IS NULL OR isnan(expected_units) OR abs(expected_units) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'intent.expected_spend', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE expected_spend IS NULL OR isnan(expected_spend) OR abs(expected_spend) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'intent.anomaly_score', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE anomaly_score IS NULL OR isnan(anomaly_score) OR abs(anomaly_score) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'intent.segment', 'expected', 'none null', 'bad', count(*) FILTER (WHERE segment IS NULL)),
        named_struct('name', 'intent.events_seen', 'expected', 'none null', 'bad', count(*) FILTER (WHERE events_seen IS NULL)),
        named_struct('name', 'intent.model_version', 'expected', 'none null', 'bad', count(*) FILTER (WHERE model_version IS NULL))
    )) AS found FROM intent
    UNION ALL
    SELECT unnest(make_array(
        named_struct('name', 'intent_shadow.user_id', 'expected', 'none null', 'bad', count(*) FILTER (WHERE user_id IS NULL)),
        named_struct('name', 'intent_shadow.p_view', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE p_view IS NULL OR isnan(p_view) OR abs(p_view) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'intent_shadow.p_search', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE p_search IS NULL OR isnan(p_search) OR abs(p_search) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'intent_shadow.p_favorite', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE p_favorite IS NULL OR isnan(p_favorite) OR abs(p_favorite) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'intent_shadow.p_cart', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE p_cart IS NULL OR isnan(p_cart) OR abs(p_cart) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'intent_shadow.p_purchase', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE p_purchase IS NULL OR isnan(p_purchase) OR abs(p_purchase) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'intent_shadow.p_review', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE p_review IS NULL OR isnan(p_review) OR abs(p_review) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'intent_shadow.p_churn', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE p_churn IS NULL OR isnan(p_churn) OR abs(p_churn) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'intent_shadow.expected_units', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE expected_units IS NULL OR isnan(expected_units) OR abs(expected_units) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'intent_shadow.expected_spend', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE expected_spend IS NULL OR isnan(expected_spend) OR abs(expected_spend) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'intent_shadow.model_version', 'expected', 'none null', 'bad', count(*) FILTER (WHERE model_version IS NULL))
    )) AS found FROM intent_shadow
    UNION ALL
    SELECT unnest(make_array(
        named_struct('name', 'recommendation.user_id', 'expected', 'none null', 'bad', count(*) FILTER (WHERE user_id IS NULL)),
        named_struct('name', 'recommendation.rank', 'expected', 'none null', 'bad', count(*) FILTER (WHERE rank IS NULL)),
        named_struct('name', 'recommendation.item_id', 'expected', 'none null', 'bad', count(*) FILTER (WHERE item_id IS NULL)),
        named_struct('name', 'recommendation.score', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE score IS NULL OR isnan(score) OR abs(score) = CAST('Infinity' AS DOUBLE)))
    )) AS found FROM recommendation
    UNION ALL
    SELECT unnest(make_array(
        named_struct('name', 'demand.item_id', 'expected', 'none null', 'bad', count(*) FILTER (WHERE item_id IS NULL)),
        named_struct('name', 'demand.target_date', 'expected', 'none null', 'bad', count(*) FILTER (WHERE target_date IS NULL)),
        named_struct('name', 'demand.mean', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE mean IS NULL OR isnan(mean) OR abs(mean) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'demand.q05', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE q05 IS NULL OR isnan(q05) OR abs(q05) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'demand.q10', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE q10 IS NULL OR isnan(q10) OR abs(q10) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'demand.q25', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE q25 IS NULL OR isnan(q25) OR abs(q25) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'demand.q50', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE q50 IS NULL OR isnan(q50) OR abs(q50) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'demand.q75', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE q75 IS NULL OR isnan(q75) OR abs(q75) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'demand.q90', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE q90 IS NULL OR isnan(q90) OR abs(q90) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'demand.q95', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE q95 IS NULL OR isnan(q95) OR abs(q95) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'demand.intent_units', 'expected', 'finite numbers or null', 'bad', count(*) FILTER (WHERE isnan(intent_units) OR abs(intent_units) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'demand.model_mean', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE model_mean IS NULL OR isnan(model_mean) OR abs(model_mean) = CAST('Infinity' AS DOUBLE)))
    )) AS found FROM demand
    UNION ALL
    SELECT unnest(make_array(
        named_struct('name', 'demand_total.level', 'expected', 'none null', 'bad', count(*) FILTER (WHERE level IS NULL)),
        named_struct('name', 'demand_total.category', 'expected', 'none null', 'bad', count(*) FILTER (WHERE category IS NULL)),
        named_struct('name', 'demand_total.target_date', 'expected', 'none null', 'bad', count(*) FILTER (WHERE target_date IS NULL)),
        named_struct('name', 'demand_total.mean', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE mean IS NULL OR isnan(mean) OR abs(mean) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'demand_total.model_mean', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE model_mean IS NULL OR isnan(model_mean) OR abs(model_mean) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'demand_total.intent_units', 'expected', 'finite numbers or null', 'bad', count(*) FILTER (WHERE isnan(intent_units) OR abs(intent_units) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'demand_total.intent_weight', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE intent_weight IS NULL OR isnan(intent_weight) OR abs(intent_weight) = CAST('Infinity' AS DOUBLE)))
    )) AS found FROM demand_total
    UNION ALL
    SELECT unnest(make_array(
        named_struct('name', 'replenishment.item_id', 'expected', 'none null', 'bad', count(*) FILTER (WHERE item_id IS NULL)),
        named_struct('name', 'replenishment.on_hand', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE on_hand IS NULL OR isnan(on_hand) OR abs(on_hand) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'replenishment.on_order', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE on_order IS NULL OR isnan(on_order) OR abs(on_order) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'replenishment.lead_time_days', 'expected', 'none null', 'bad', count(*) FILTER (WHERE lead_time_days IS NULL)),
        named_struct('name', 'replenishment.review_period_days', 'expected', 'none null', 'bad', count(*) FILTER (WHERE review_period_days IS NULL)),
        named_struct('name', 'replenishment.service_level', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE service_level IS NULL OR isnan(service_level) OR abs(service_level) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'replenishment.pack_size', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE pack_size IS NULL OR isnan(pack_size) OR abs(pack_size) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'replenishment.min_order_quantity', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE min_order_quantity IS NULL OR isnan(min_order_quantity) OR abs(min_order_quantity) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'replenishment.lead_time_demand_mean', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE lead_time_demand_mean IS NULL OR isnan(lead_time_demand_mean) OR abs(lead_time_demand_mean) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'replenishment.lead_time_demand_q05', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE lead_time_demand_q05 IS NULL OR isnan(lead_time_demand_q05) OR abs(lead_time_demand_q05) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'replenishment.lead_time_demand_q10', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE lead_time_demand_q10 IS NULL OR isnan(lead_time_demand_q10) OR abs(lead_time_demand_q10) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'replenishment.lead_time_demand_q25', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE lead_time_demand_q25 IS NULL OR isnan(lead_time_demand_q25) OR abs(lead_time_demand_q25) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'replenishment.lead_time_demand_q50', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE lead_time_demand_q50 IS NULL OR isnan(lead_time_demand_q50) OR abs(lead_time_demand_q50) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'replenishment.lead_time_demand_q75', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE lead_time_demand_q75 IS NULL OR isnan(lead_time_demand_q75) OR abs(lead_time_demand_q75) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'replenishment.lead_time_demand_q90', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE lead_time_demand_q90 IS NULL OR isnan(lead_time_demand_q90) OR abs(lead_time_demand_q90) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'replenishment.lead_time_demand_q95', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE lead_time_demand_q95 IS NULL OR isnan(lead_time_demand_q95) OR abs(lead_time_demand_q95) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'replenishment.safety_stock', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE safety_stock IS NULL OR isnan(safety_stock) OR abs(safety_stock) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'replenishment.reorder_point', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE reorder_point IS NULL OR isnan(reorder_point) OR abs(reorder_point) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'replenishment.order_quantity', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE order_quantity IS NULL OR isnan(order_quantity) OR abs(order_quantity) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'replenishment.stock_out_risk', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE stock_out_risk IS NULL OR isnan(stock_out_risk) OR abs(stock_out_risk) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'replenishment.days_of_cover', 'expected', 'finite numbers or null', 'bad', count(*) FILTER (WHERE isnan(days_of_cover) OR abs(days_of_cover) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'replenishment.reason', 'expected', 'none null', 'bad', count(*) FILTER (WHERE reason IS NULL))
    )) AS found FROM replenishment
    UNION ALL
    SELECT unnest(make_array(
        named_struct('name', 'segment.segment', 'expected', 'none null', 'bad', count(*) FILTER (WHERE segment IS NULL)),
        named_struct('name', 'segment.users', 'expected', 'none null', 'bad', count(*) FILTER (WHERE users IS NULL)),
        named_struct('name', 'segment.p_purchase_mean', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE p_purchase_mean IS NULL OR isnan(p_purchase_mean) OR abs(p_purchase_mean) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'segment.p_churn_mean', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE p_churn_mean IS NULL OR isnan(p_churn_mean) OR abs(p_churn_mean) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'segment.expected_units_mean', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE expected_units_mean IS NULL OR isnan(expected_units_mean) OR abs(expected_units_mean) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'segment.expected_spend_mean', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE expected_spend_mean IS NULL OR isnan(expected_spend_mean) OR abs(expected_spend_mean) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'segment.anomaly_score_mean', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE anomaly_score_mean IS NULL OR isnan(anomaly_score_mean) OR abs(anomaly_score_mean) = CAST('Infinity' AS DOUBLE))),
        named_struct('name', 'segment.events_seen_mean', 'expected', 'finite numbers, none null', 'bad', count(*) FILTER (WHERE events_seen_mean IS NULL OR isnan(events_seen_mean) OR abs(events_seen_mean) = CAST('Infinity' AS DOUBLE)))
    )) AS found FROM segment
    UNION ALL
    SELECT unnest(make_array(
        named_struct('name', 'quarantine.view', 'expected', 'none null', 'bad', count(*) FILTER (WHERE view IS NULL)),
        named_struct('name', 'quarantine.reason', 'expected', 'none null', 'bad', count(*) FILTER (WHERE reason IS NULL)),
        named_struct('name', 'quarantine.row_json', 'expected', 'none null', 'bad', count(*) FILTER (WHERE row_json IS NULL))
    )) AS found FROM quarantine
    UNION ALL
    SELECT unnest(make_array(
        named_struct('name', 'lake_day.day', 'expected', 'none null', 'bad', count(*) FILTER (WHERE day IS NULL)),
        named_struct('name', 'lake_day.rows_read', 'expected', 'none null', 'bad', count(*) FILTER (WHERE rows_read IS NULL)),
        named_struct('name', 'lake_day.events', 'expected', 'none null', 'bad', count(*) FILTER (WHERE events IS NULL)),
        named_struct('name', 'lake_day.kind', 'expected', 'none null', 'bad', count(*) FILTER (WHERE kind IS NULL))
    )) AS found FROM lake_day
)
SELECT
    found['name'] AS subject,
    found['expected'] AS expected,
    concat(found['bad'], ' rows that are not') AS got
FROM counted
WHERE found['bad'] > 0
ORDER BY subject
