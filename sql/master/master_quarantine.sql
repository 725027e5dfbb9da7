-- one row per bad row of users, items, inventory and promotions; of a user_id only the first two characters are kept
SELECT
    'users' AS view,
    _file AS source_file,
    reason,
    column_name,
    row_json(named_struct(
        'user_id', concat(substr(user_id, 1, 2), '…'), 'signed_up_at', CAST(CAST(signed_up_at AS BIGINT) AS VARCHAR)
    )) AS row_json
FROM checked_users
WHERE reason IS NOT NULL
UNION ALL
SELECT
    'items' AS view,
    _file AS source_file,
    reason,
    column_name,
    row_json(named_struct('item_id', item_id, 'title', title, 'price', CAST(price AS VARCHAR))) AS row_json
FROM checked_items
WHERE reason IS NOT NULL
UNION ALL
SELECT
    'inventory' AS view,
    checked_inventory._file AS source_file,
    coalesce(checked_inventory.reason, 'conflicting_rows') AS reason,
    checked_inventory.column_name,
    row_json(named_struct(
        'item_id', checked_inventory.item_id,
        'as_of', CASE WHEN checked_inventory.as_of BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'
            THEN CAST(checked_inventory.as_of AS VARCHAR)
            ELSE CAST(CAST(checked_inventory.as_of AS INT) AS VARCHAR) END,
        'on_hand', checked_inventory.on_hand,
        'on_order', checked_inventory.on_order,
        'lead_time_days', checked_inventory.lead_time_days,
        'pack_size', checked_inventory.pack_size,
        'min_order_quantity', checked_inventory.min_order_quantity,
        'unit_cost', CAST(checked_inventory.unit_cost AS VARCHAR),
        'service_level', CAST(checked_inventory.service_level AS VARCHAR)
    )) AS row_json
-- The engine holds a join's first table in memory and streams the second, so the small one comes first. Its keys have names of
-- their own: DataFusion 55.2, when it moves struct fields down, takes a column that both sides have from the first side.
FROM (SELECT item_id AS conflicting_item_id, as_of AS conflicting_as_of FROM conflicting_inventory) AS conflicting
    RIGHT JOIN checked_inventory
        ON conflicting.conflicting_item_id = checked_inventory.item_id
            AND conflicting.conflicting_as_of = checked_inventory.as_of
WHERE checked_inventory.reason IS NOT NULL OR conflicting.conflicting_item_id IS NOT NULL
UNION ALL
SELECT
    'promotions' AS view,
    _file AS source_file,
    reason,
    column_name,
    row_json(named_struct('item_id', item_id, 'price', CAST(price AS VARCHAR))) AS row_json
FROM checked_promotions
WHERE reason IS NOT NULL
