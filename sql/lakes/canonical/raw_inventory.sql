-- one row per row of a raw file below inventory/: the columns that a file may have (NOT NULL: must have)
CREATE TABLE raw_inventory (
    item_id VARCHAR NOT NULL,
    as_of DATE NOT NULL,
    on_hand BIGINT NOT NULL,
    on_order BIGINT,
    lead_time_days BIGINT,
    pack_size BIGINT,
    min_order_quantity BIGINT,
    unit_cost DOUBLE,
    service_level DOUBLE
)
