-- raw columns of the files below inventory/: a file must have the NOT NULL ones and may have the others
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
