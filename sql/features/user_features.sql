-- one row per scored user_id: every column that the model sees; the numeric columns, in this order, are the feature contract
-- A new feature needs no edit here: the columns of each features/user_feature_<name>.sql, one row per user_id, are joined to
-- these and follow them (sql/README.md).
SELECT
    scored_users.user_id, -- the login, or the guest who never logged in
    coalesce(counts.events_1d, 0) AS events_1d, -- events, the day before the run date
    coalesce(counts.events_7d, 0) AS events_7d, -- events, last 7 days
    coalesce(counts.events_28d, 0) AS events_28d, -- events, last 28 days
    coalesce(counts.events_90d, 0) AS events_90d, -- events, last 90 days
    coalesce(counts.views_1d, 0) AS views_1d, -- views, the day before the run date
    coalesce(counts.views_7d, 0) AS views_7d, -- views, last 7 days
    coalesce(counts.views_28d, 0) AS views_28d, -- views, last 28 days
    coalesce(counts.views_90d, 0) AS views_90d, -- views, last 90 days
    coalesce(counts.clicks_1d, 0) AS clicks_1d, -- clicks, the day before the run date
    coalesce(counts.clicks_7d, 0) AS clicks_7d, -- clicks, last 7 days
    coalesce(counts.clicks_28d, 0) AS clicks_28d, -- clicks, last 28 days
    coalesce(counts.clicks_90d, 0) AS clicks_90d, -- clicks, last 90 days
    coalesce(counts.searches_1d, 0) AS searches_1d, -- searches, the day before the run date
    coalesce(counts.searches_7d, 0) AS searches_7d, -- searches, last 7 days
    coalesce(counts.searches_28d, 0) AS searches_28d, -- searches, last 28 days
    coalesce(counts.searches_90d, 0) AS searches_90d, -- searches, last 90 days
    coalesce(counts.favorites_1d, 0) AS favorites_1d, -- favorites, the day before the run date
    coalesce(counts.favorites_7d, 0) AS favorites_7d, -- favorites, last 7 days
    coalesce(counts.favorites_28d, 0) AS favorites_28d, -- favorites, last 28 days
    coalesce(counts.favorites_90d, 0) AS favorites_90d, -- favorites, last 90 days
    coalesce(counts.carts_1d, 0) AS carts_1d, -- cart adds, the day before the run date
    coalesce(counts.carts_7d, 0) AS carts_7d, -- cart adds, last 7 days
    coalesce(counts.carts_28d, 0) AS carts_28d, -- cart adds, last 28 days
    coalesce(counts.carts_90d, 0) AS carts_90d, -- cart adds, last 90 days
    coalesce(counts.cart_removals_1d, 0) AS cart_removals_1d, -- removals from the cart, the day before the run date
    coalesce(counts.cart_removals_7d, 0) AS cart_removals_7d, -- removals from the cart, last 7 days
    coalesce(counts.cart_removals_28d, 0) AS cart_removals_28d, -- removals from the cart, last 28 days
    coalesce(counts.cart_removals_90d, 0) AS cart_removals_90d, -- removals from the cart, last 90 days
    coalesce(counts.purchases_1d, 0) AS purchases_1d, -- purchases, the day before the run date
    coalesce(counts.purchases_7d, 0) AS purchases_7d, -- purchases, last 7 days
    coalesce(counts.purchases_28d, 0) AS purchases_28d, -- purchases, last 28 days
    coalesce(counts.purchases_90d, 0) AS purchases_90d, -- purchases, last 90 days
    coalesce(counts.returns_1d, 0) AS returns_1d, -- returns, the day before the run date
    coalesce(counts.returns_7d, 0) AS returns_7d, -- returns, last 7 days
    coalesce(counts.returns_28d, 0) AS returns_28d, -- returns, last 28 days
    coalesce(counts.returns_90d, 0) AS returns_90d, -- returns, last 90 days
    coalesce(counts.reviews_1d, 0) AS reviews_1d, -- reviews, the day before the run date
    coalesce(counts.reviews_7d, 0) AS reviews_7d, -- reviews, last 7 days
    coalesce(counts.reviews_28d, 0) AS reviews_28d, -- reviews, last 28 days
    coalesce(counts.reviews_90d, 0) AS reviews_90d, -- reviews, last 90 days
    coalesce(counts.units_28d, 0) AS units_28d, -- units bought, last 28 days
    coalesce(counts.units_90d, 0) AS units_90d, -- units bought, last 90 days
    CAST(coalesce(counts.spend_28d, 0) AS DOUBLE) AS spend_28d, -- money spent, last 28 days
    CAST(coalesce(counts.spend_90d, 0) AS DOUBLE) AS spend_90d, -- money spent, last 90 days
    CAST(coalesce(counts.refunds_28d, 0) AS DOUBLE) AS refunds_28d, -- money returned, last 28 days
    CAST(coalesce(counts.refunds_90d, 0) AS DOUBLE) AS refunds_90d, -- money returned, last 90 days
    coalesce(counts.dwell_ms_28d, 0) AS dwell_ms_28d, -- milliseconds on items, last 28 days
    coalesce(counts.dwell_ms_90d, 0) AS dwell_ms_90d, -- milliseconds on items, last 90 days
    coalesce(counts.active_days_7d, 0) AS active_days_7d, -- days with an event, last 7 days
    coalesce(counts.active_days_28d, 0) AS active_days_28d, -- days with an event, last 28 days
    coalesce(counts.active_days_90d, 0) AS active_days_90d, -- days with an event, last 90 days
    coalesce(counts.dwell_events_28d, 0) AS dwell_events_28d, -- events that say how long they took, last 28 days
    coalesce(counts.night_events_28d, 0) AS night_events_28d, -- events from 0:00 to 6:00, last 28 days
    coalesce(counts.morning_events_28d, 0) AS morning_events_28d, -- events from 6:00 to 12:00, last 28 days
    coalesce(counts.afternoon_events_28d, 0) AS afternoon_events_28d, -- events from 12:00 to 18:00, last 28 days
    coalesce(counts.evening_events_28d, 0) AS evening_events_28d, -- events from 18:00 to 24:00, last 28 days
    coalesce(counts.sunday_events_28d, 0) AS sunday_events_28d, -- events on Sundays, last 28 days
    coalesce(counts.monday_events_28d, 0) AS monday_events_28d, -- events on Mondays, last 28 days
    coalesce(counts.tuesday_events_28d, 0) AS tuesday_events_28d, -- events on Tuesdays, last 28 days
    coalesce(counts.wednesday_events_28d, 0) AS wednesday_events_28d, -- events on Wednesdays, last 28 days
    coalesce(counts.thursday_events_28d, 0) AS thursday_events_28d, -- events on Thursdays, last 28 days
    coalesce(counts.friday_events_28d, 0) AS friday_events_28d, -- events on Fridays, last 28 days
    coalesce(counts.saturday_events_28d, 0) AS saturday_events_28d, -- events on Saturdays, last 28 days
    coalesce(counts.events_lifetime, 0) AS events_lifetime, -- events since the first one
    coalesce(counts.purchases_lifetime, 0) AS purchases_lifetime, -- purchases since the first event
    coalesce(counts.units_lifetime, 0) AS units_lifetime, -- units bought since the first event
    coalesce(counts.purchase_days_lifetime, 0) AS purchase_days_lifetime, -- days with a purchase since the first event
    CAST(coalesce(counts.spend_lifetime, 0) AS DOUBLE) AS spend_lifetime, -- money spent since the first event
    CAST(date_part('epoch', as_of()) - date_part('epoch', counts.last_at) AS DOUBLE) / 3600.0
        AS recency_hours, -- hours since the last event
    CAST(date_part('epoch', as_of()) - date_part('epoch', counts.first_at) AS DOUBLE) / 86400.0
        AS age_days, -- days since the first event
    CAST(run_date() - counts.last_purchase_day AS BIGINT) AS purchase_recency_days, -- days since the last purchase; null: never
    CAST(run_date() - counts.last_cart_day AS BIGINT) AS cart_recency_days, -- days since the last cart add; null: never
    CAST(counts.purchases_90d AS DOUBLE) / nullif(counts.carts_90d, 0)
        AS cart_to_purchase_90d, -- purchases per cart add, last 90 days
    CAST(counts.carts_90d AS DOUBLE) / nullif(counts.views_90d + counts.clicks_90d, 0)
        AS view_to_cart_90d, -- cart adds per view or click, last 90 days
    CAST(counts.purchases_90d AS DOUBLE) / nullif(counts.views_90d + counts.clicks_90d, 0)
        AS view_to_purchase_90d, -- purchases per view or click, last 90 days
    CAST(counts.returns_90d AS DOUBLE) / nullif(counts.purchases_90d, 0)
        AS return_share_90d, -- returns per purchase, last 90 days
    CAST(counts.dwell_ms_28d AS DOUBLE) / nullif(counts.dwell_events_28d, 0)
        AS dwell_ms_mean_28d, -- milliseconds on an item, mean of events, last 28 days
    CAST(counts.spend_90d AS DOUBLE) / nullif(counts.purchases_90d, 0)
        AS order_value_mean_90d, -- money spent per purchase, last 90 days
    gaps.gap_days_mean, -- days between purchase days, mean
    gaps.gap_days_spread, -- days between purchase days, standard deviation
    coalesce(sessions.sessions_28d, 0) AS sessions_28d, -- sessions, last 28 days
    coalesce(items.items_28d, 0) AS items_28d, -- distinct items of events, last 28 days
    coalesce(items.categories_28d, 0) AS categories_28d, -- distinct categories of events, last 28 days
    coalesce(sessions.sessions_7d, 0) AS sessions_7d, -- sessions, last 7 days
    coalesce(items.items_7d, 0) AS items_7d, -- distinct items of events, last 7 days
    coalesce(items.categories_7d, 0) AS categories_7d, -- distinct categories of events, last 7 days
    counts.last_at, -- time of the last event
    queries.last_queries, -- the last five queries, newest first
    last_events.recent -- the last events, oldest first
FROM scored_users
    LEFT JOIN user_gaps AS gaps ON scored_users.user_id = gaps.user_id
    LEFT JOIN user_sessions AS sessions ON scored_users.user_id = sessions.user_id
    LEFT JOIN user_items AS items ON scored_users.user_id = items.user_id
    LEFT JOIN user_queries AS queries ON scored_users.user_id = queries.user_id
    -- The widest tables last: the engine holds in memory what was joined so far and streams the next table past it.
    LEFT JOIN user_counts AS counts ON scored_users.user_id = counts.user_id
    LEFT JOIN user_recent AS last_events ON scored_users.user_id = last_events.user_id
