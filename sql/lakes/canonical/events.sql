-- one row per raw event
SELECT
    event_id, -- names the event; several rows with one id and day are one event
    user_id, -- login or guest; null: unknown
    session_id, -- visit; null: one visit an hour
    ts, -- time of the event, UTC
    arrived_at, -- time at which the lake had the event, UTC
    event_type, -- view, click, search, favorite, cart, remove_from_cart, purchase, review
    item_id, -- item of the event; null: none, as of a search
    query, -- text of a search
    dwell_ms, -- time on the item, milliseconds
    quantity, -- units of a purchase; null: one; negative: a return
    price, -- price of one unit
    currency, -- currency of the price, ISO 4217
    rating, -- stars of a review
    text, -- text of a review
    _file, -- file of the row
    _dt -- date in the name of the file's folder; null: none
FROM raw_events
