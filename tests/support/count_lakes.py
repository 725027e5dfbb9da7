"""Counts the rows of generated lakes with DuckDB, from the documented meaning of features and quarantine reasons.

Usage: count_lakes.py FOLDER...: reads FOLDER/rows/*.json and writes FOLDER/expected.json, one JSON object a line.
"""
import json
import pathlib
import sys

import duckdb

SECOND = 1_000_000
TOLERANCE = 24 * 3600 * SECOND
FIRST = 631_152_000 * SECOND  # 1990-01-01
FUTURE = 3_786_912_000 * SECOND  # 2090-01-01: generated times are either long before or long after it
KINDS = {
    "views": "view", "clicks": "click", "searches": "search", "favorites": "favorite", "carts": "cart",
    "cart_removals": "remove_from_cart", "reviews": "review",
}
COLUMNS = {
    "events": {
        "ts": "BIGINT", "event_type": "VARCHAR", "user_id": "VARCHAR", "item_id": "VARCHAR", "event_id": "VARCHAR",
        "session_id": "VARCHAR", "arrived_at": "BIGINT", "query": "VARCHAR", "dwell_ms": "BIGINT", "quantity": "BIGINT",
        "price": "VARCHAR", "currency": "VARCHAR", "rating": "BIGINT", "text": "VARCHAR", "dt": "DATE",
    },
    "users": {
        "user_id": "VARCHAR", "canonical_user_id": "VARCHAR", "signed_up_at": "BIGINT", "consent": "BOOLEAN",
        "excluded": "BOOLEAN",
    },
    "items": {"item_id": "VARCHAR", "category": "VARCHAR"},
    "inventory": {"item_id": "VARCHAR", "as_of": "INTEGER", "on_hand": "BIGINT"},
    "erasures": {"user_id": "VARCHAR"},
}


def local(micros):
    """The wall clock of the shop at a time; null for times that no calendar has."""
    sane = f"CASE WHEN {micros} BETWEEN 0 AND {FUTURE} THEN {micros} END"
    return f"timezone(getvariable('zone'), timezone('UTC', make_timestamp({sane})))"


def instant(wall_clock):
    """Microseconds since 1970 of a wall clock of the shop."""
    return f"epoch_us(timezone(getvariable('zone'), {wall_clock}))"


def no_blank(column):
    return f"CASE WHEN trim({column}, ' ' || chr(9) || chr(160)) = '' THEN NULL ELSE {column} END AS {column}"


def prepare(con, folder):
    settings = json.loads((folder / "rows/settings.json").read_text())
    con.execute("SET TimeZone = 'UTC'")
    con.execute("SET VARIABLE zone = ?", [settings["zone"]])
    for view, columns in COLUMNS.items():
        path = folder / f"rows/{view}.json"
        con.execute(
            f"CREATE TABLE {view}_rows AS SELECT * FROM read_json(?, format = 'newline_delimited', columns = {columns})",
            [str(path)],
        )
    con.execute("SET VARIABLE run_date = ?::DATE", [settings["run_date"]])
    midnight = "getvariable('run_date')::TIMESTAMP"
    con.execute(f"SET VARIABLE as_of = (SELECT {instant(midnight)})")
    return settings


def judge(con, settings):
    """Table `judged`: the rows of the files that the night reads, each with its reason if it is bad."""
    partition, arrival, currency = settings["partition"], settings["arrival"], settings["currency"]
    last_folder = {
        "event_date_utc": "make_timestamp(getvariable('as_of') - 1)::DATE",
        "event_date_local": "getvariable('run_date') - 1",
        "ingest_date": "getvariable('run_date') - 1",
        "none": "DATE '9999-12-31'",
    }[partition]
    ends = "dt::TIMESTAMP + INTERVAL 1 DAY"
    outside = {
        "event_date_utc": f"(ts < epoch_us(dt::TIMESTAMP) - {TOLERANCE} OR ts >= epoch_us({ends}) + {TOLERANCE})",
        "event_date_local": f"(ts < {instant('dt::TIMESTAMP')} - {TOLERANCE} OR ts >= {instant(ends)} + {TOLERANCE})",
        "ingest_date": f"ts >= {instant(ends)} + {TOLERANCE}",
        "none": "false",
    }[partition]
    arrived = {
        "column": "coalesce(arrived_at, ts)",
        "ingest_date": "coalesce(epoch_us(dt::TIMESTAMP), ts)",
        "none": "ts",
    }[arrival]
    arrival_day = {
        "column": f"coalesce({local('arrived_at')}, {local('ts')})::DATE",
        "ingest_date": f"coalesce(dt, {local('ts')}::DATE)",
        "none": f"{local('ts')}::DATE",
    }[arrival]
    by_column = arrival == "column"
    types = ", ".join(f"'{name}'" for name in ["purchase", *KINDS.values()])
    con.execute(f"""
CREATE TABLE judged AS
WITH raw AS (
    SELECT ts, arrived_at, event_type, query, dwell_ms, quantity, price::DOUBLE AS price, upper(currency) AS currency, rating, dt,
        {", ".join(no_blank(name) for name in ["event_id", "user_id", "session_id", "item_id"])}
    FROM events_rows
    WHERE dt IS NULL OR dt <= {last_folder}
),
named AS (
    SELECT *, {local('ts')} AS clock, {local('ts')}::DATE AS day, {arrived} AS arrived, {arrival_day} AS arrival_day,
        CASE
            WHEN ts IS NULL THEN 'null_time'
            WHEN ts < {FIRST} OR ({by_column} AND arrived_at < {FIRST}) THEN 'time_too_early'
            WHEN event_type IS NULL OR event_type NOT IN ({types}) THEN 'unknown_event_type'
            WHEN ts > {FUTURE} THEN 'time_in_future'
            WHEN {by_column} AND arrived_at > {FUTURE} THEN 'arrival_in_future'
            WHEN {outside} THEN 'time_outside_partition'
            WHEN price < 0 THEN 'negative_price'
            WHEN isnan(price) THEN 'nan_price'
            WHEN isinf(price) THEN 'infinite_price'
            WHEN price >= 1e14 - 1 OR quantity NOT BETWEEN -2147483648 AND 2147483647 OR dwell_ms NOT BETWEEN 0 AND 1e12
                OR rating NOT BETWEEN -128 AND 127 THEN 'out_of_range'
            WHEN '{currency}' <> '' AND price IS NOT NULL AND trim(currency) NOT IN ('', '{currency}') THEN 'other_currency'
        END AS fault
    FROM raw
)
SELECT * EXCLUDE (fault),
    CASE
        WHEN fault IS NOT NULL THEN fault
        -- The first of them to arrive counts.
        WHEN event_id IS NOT NULL
            AND row_number() OVER (PARTITION BY event_id, day ORDER BY fault IS NOT NULL, arrived) > 1 THEN 'repeated_event_id'
    END AS reason,
    CASE
        WHEN reason = 'out_of_range' AND price >= 1e14 - 1 THEN 'price'
        WHEN reason = 'out_of_range' AND quantity NOT BETWEEN -2147483648 AND 2147483647 THEN 'quantity'
        WHEN reason = 'out_of_range' AND dwell_ms NOT BETWEEN 0 AND 1e12 THEN 'dwell_ms'
        WHEN reason = 'out_of_range' THEN 'rating'
        WHEN reason = 'time_too_early' AND ts >= {FIRST} THEN 'arrived_at'
        ELSE ''
    END AS column_name
FROM named""")


def know(con):
    """Table `known`: the good events before the run date that had arrived before it, under the logins that guests became."""
    con.execute("""
CREATE TABLE good AS
SELECT *,
    CASE WHEN event_type = 'purchase' THEN coalesce(quantity, 1) END AS units,
    CAST(CAST(price AS DECIMAL(18, 4)) AS DECIMAL(38, 4)) AS price_4,
    CASE
        WHEN event_type <> 'purchase' THEN NULL
        WHEN CAST(CAST(price AS DECIMAL(18, 4)) AS DOUBLE) = price
            THEN CAST(CAST(price AS DECIMAL(18, 4)) AS DECIMAL(28, 4)) * CAST(coalesce(quantity, 1) AS DECIMAL(10, 0))
        ELSE CAST(round(coalesce(quantity, 1) * price, 4) AS DECIMAL(38, 4))
    END AS amount
FROM judged WHERE reason IS NULL""")
    con.execute("""
CREATE TABLE item_known AS
SELECT * FROM good WHERE day < getvariable('run_date') AND arrival_day < getvariable('run_date')""")
    con.execute("""
CREATE TABLE guests AS
SELECT user_id, canonical_user_id AS login, signed_up_at IS NULL OR signed_up_at < getvariable('as_of') AS known_by_then
FROM users_rows WHERE canonical_user_id IS NOT NULL AND canonical_user_id <> user_id""")
    con.execute("""
CREATE TABLE known AS
SELECT item_known.* REPLACE (coalesce(guests.login, item_known.user_id) AS user_id)
FROM item_known LEFT JOIN guests ON guests.user_id = item_known.user_id AND guests.known_by_then
WHERE item_known.user_id IS NOT NULL""")
    con.execute("""
CREATE TABLE scored AS
WITH seen AS (
    SELECT user_id FROM known
    UNION
    SELECT coalesce(guests.login, users_rows.user_id)
    FROM users_rows LEFT JOIN guests ON guests.user_id = users_rows.user_id AND guests.known_by_then
    WHERE users_rows.signed_up_at IS NULL OR users_rows.signed_up_at < getvariable('as_of')
),
-- A refusal or an erasure holds for every id of a person, whenever the ids came to be known as one.
persons AS (SELECT seen.user_id, coalesce(guests.login, seen.user_id) AS person FROM seen LEFT JOIN guests USING (user_id)),
refused AS (
    SELECT coalesce(guests.login, users_rows.user_id) AS person
    FROM users_rows LEFT JOIN guests ON guests.user_id = users_rows.user_id
    WHERE users_rows.consent = false OR users_rows.excluded
    UNION ALL
    SELECT coalesce(guests.login, erasures_rows.user_id)
    FROM erasures_rows LEFT JOIN guests ON guests.user_id = erasures_rows.user_id
)
SELECT user_id FROM persons WHERE person NOT IN (SELECT person FROM refused)""")


def feature_columns():
    """The event-derived columns of user_features, each with its aggregate over `known` of one user."""
    since = lambda days: f"day >= getvariable('run_date') - {days}"
    count = lambda test, days: f"count(*) FILTER (WHERE ({test}) AND {since(days)})"
    tests = {"events": "true"} | {name: f"event_type = '{kind}'" for name, kind in KINDS.items()}
    tests |= {"purchases": "units > 0", "returns": "units < 0"}
    columns = {f"{name}_{days}d": count(test, days) for name, test in tests.items() for days in (1, 7, 28, 90)}
    total = lambda value, test, days: f"coalesce(sum({value}) FILTER (WHERE ({test}) AND {since(days)}), 0)"
    for days in (28, 90):
        columns[f"units_{days}d"] = total("units", "units > 0", days)
        columns[f"spend_{days}d"] = total("amount", "units > 0", days)
        columns[f"refunds_{days}d"] = total("-amount", "units < 0", days)
        columns[f"dwell_ms_{days}d"] = total("dwell_ms", "true", days)
    for days in (7, 28, 90):
        columns[f"active_days_{days}d"] = f"count(DISTINCT day) FILTER (WHERE {since(days)})"
    columns["dwell_events_28d"] = count("dwell_ms IS NOT NULL", 28)
    for part, (first, last) in {"night": (0, 5), "morning": (6, 11), "afternoon": (12, 17), "evening": (18, 23)}.items():
        columns[f"{part}_events_28d"] = count(f"hour(clock) BETWEEN {first} AND {last}", 28)
    for at, weekday in enumerate(["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"]):
        columns[f"{weekday}_events_28d"] = count(f"dayofweek(day) = {at}", 28)
    columns["events_lifetime"] = "count(*)"
    columns["purchases_lifetime"] = "count(*) FILTER (WHERE units > 0)"
    columns["units_lifetime"] = "coalesce(sum(units) FILTER (WHERE units > 0), 0)"
    columns["purchase_days_lifetime"] = "count(DISTINCT day) FILTER (WHERE units > 0)"
    columns["spend_lifetime"] = "coalesce(sum(amount) FILTER (WHERE units > 0), 0)"
    columns["recency_hours"] = "(getvariable('as_of') - max(ts)) / 3.6e9"
    columns["age_days"] = "(getvariable('as_of') - min(ts)) / 86.4e9"
    columns["purchase_recency_days"] = "getvariable('run_date') - max(day) FILTER (WHERE units > 0)"
    columns["cart_recency_days"] = "getvariable('run_date') - max(day) FILTER (WHERE event_type = 'cart')"
    # Windows with days are of wall clocks; sessions without an id are hours.
    session = "coalesce(session_id, 'hour ' || ts // 3600000000)"
    for days in (7, 28):
        columns[f"sessions_{days}d"] = f"count(DISTINCT {session}) FILTER (WHERE {since(days)})"
        columns[f"items_{days}d"] = f"count(DISTINCT item_id) FILTER (WHERE {since(days)})"
        columns[f"categories_{days}d"] = f"count(DISTINCT category) FILTER (WHERE {since(days)})"
    return columns


# Ratios are null where they mean nothing; spend per order and dwell time per event are means.
RATIOS = {
    "cart_to_purchase_90d": ("purchases_90d", "carts_90d"),
    "view_to_cart_90d": ("carts_90d", "views_90d + clicks_90d"),
    "view_to_purchase_90d": ("purchases_90d", "views_90d + clicks_90d"),
    "return_share_90d": ("returns_90d", "purchases_90d"),
    "dwell_ms_mean_28d": ("dwell_ms_28d", "dwell_events_28d"),
    "order_value_mean_90d": ("spend_90d", "purchases_90d"),
}


def count_users(con):
    columns = feature_columns()
    no_events = {"recency_hours", "age_days", "purchase_recency_days", "cart_recency_days"}
    plain = [f"counts.{c}" if c in no_events else f"coalesce(counts.{c}, 0)::DOUBLE AS {c}" for c in columns]
    ratios = [f"(counts.{a.replace(' + ', ' + counts.')}) / nullif(counts.{b.replace(' + ', ' + counts.')}, 0)::DOUBLE AS {name}"
              for name, (a, b) in RATIOS.items()]
    con.execute(f"""
CREATE TABLE user_counts AS
WITH counts AS (
    SELECT user_id, {", ".join(f"{sql} AS {name}" for name, sql in columns.items())}, max(ts) AS last_at
    FROM known LEFT JOIN items_rows USING (item_id) GROUP BY user_id
),
buying_days AS (SELECT DISTINCT user_id, day FROM known WHERE units > 0),
gaps AS (SELECT user_id, day - lag(day) OVER (PARTITION BY user_id ORDER BY day) AS gap FROM buying_days),
gap_counts AS (SELECT user_id, avg(gap) AS gap_days_mean, stddev_pop(gap) AS gap_days_spread FROM gaps GROUP BY user_id),
searches AS (
    SELECT user_id, list(query ORDER BY ts DESC)[:5] AS last_queries
    FROM known
    WHERE event_type = 'search' AND query IS NOT NULL AND day >= getvariable('run_date') - 90 GROUP BY user_id
),
newest AS (
    SELECT user_id, list([ts::VARCHAR, event_type, item_id, category, price_4::DOUBLE::VARCHAR, dwell_ms::VARCHAR]) AS recent
    FROM known LEFT JOIN items_rows USING (item_id) WHERE day >= getvariable('run_date') - 90 GROUP BY user_id
)
SELECT scored.user_id, {", ".join(plain)}, {", ".join(ratios)}, gap_days_mean, gap_days_spread, last_queries, last_at, recent
FROM scored LEFT JOIN counts USING (user_id) LEFT JOIN gap_counts USING (user_id) LEFT JOIN searches USING (user_id)
    LEFT JOIN newest USING (user_id)""")


ITEM_COUNTS = """
    coalesce(sum(units) FILTER (WHERE units > 0), 0)::DOUBLE AS units,
    coalesce(sum(-units) FILTER (WHERE units < 0), 0)::DOUBLE AS returns,
    coalesce(sum(amount) FILTER (WHERE units > 0), 0)::DOUBLE AS revenue,
    count(*) FILTER (WHERE event_type IN ('view', 'click')) AS views,
    count(*) FILTER (WHERE event_type = 'cart') AS carts,
    coalesce(sum(price_4), 0)::DOUBLE AS price_sum,
    count(price) AS price_events"""
QUERIES = {
    "user": "SELECT * FROM user_counts",
    "item_day": f"SELECT item_id, day::VARCHAR AS event_day, {ITEM_COUNTS} FROM item_known WHERE item_id IS NOT NULL GROUP BY 1, 2",
    "unit_item_day": f"SELECT {ITEM_COUNTS} FROM good WHERE item_id IS NOT NULL",
    "quarantine": "SELECT reason, column_name, count(*) AS n FROM judged WHERE reason IS NOT NULL GROUP BY 1, 2",
    "inventory": "SELECT item_id, (DATE '1970-01-01' + as_of)::VARCHAR AS as_of, on_hand FROM inventory_rows",
    "filtered": """
        SELECT user_id AS wanted, count(*) AS n FROM raw_events
        WHERE user_id IS NOT NULL AND ts >= getvariable('as_of') - 30 * 86400000000 AND ts < getvariable('as_of')
            AND (quantity >= 1 OR price > 5) GROUP BY 1""",
}


def main():
    for folder in map(pathlib.Path, sys.argv[1:]):
        con = duckdb.connect(config={"threads": 1})
        settings = prepare(con, folder)
        judge(con, settings)
        con.execute("CREATE VIEW raw_events AS SELECT * FROM judged")
        know(con)
        count_users(con)
        with open(folder / "expected.json", "w") as out:
            for part, query in QUERIES.items():
                found = con.execute(query)
                names = [column[0] for column in found.description]
                for row in found.fetchall():
                    out.write(json.dumps({"part": part} | dict(zip(names, row)), default=float) + "\n")
        con.close()


main()
