"""Reads the visible night of a published output with the deltalake and duckdb packages, and prints it as JSON.

Usage: read_back.py TABLES_FOLDER. It knows nothing of intentcast but the documented rule: `runs` says which run_date is
visible, and at which version of each table its partition is.
"""

import json
import sys
from pathlib import Path

import duckdb
from deltalake import DeltaTable, QueryBuilder

folder = sys.argv[1]
visible_nights = (Path(__file__).parents[2] / "sql/views/visible_nights.sql").read_text()


def rows(reader):
    return [dict(zip(reader.schema.names, row)) for row in zip(*(column.to_pylist() for column in reader.columns))]


def query(table, name, sql):
    return rows(QueryBuilder().register(name, table).execute(sql).read_all())


def read_night(table, version, run_date):
    """The partition by deltalake's own engine, and the same files by DuckDB."""
    opened = DeltaTable(f"{folder}/{table}", version=version)
    by_delta = query(opened, "t", f"SELECT * FROM t WHERE run_date = DATE '{run_date}'")
    files = [uri for uri in opened.file_uris() if f"/run_date={run_date}/" in uri]
    if not files:
        return by_delta, []
    # As JSON: fetching a timestamp with time zone as a Python value would need one more package.
    found = duckdb.execute("SELECT to_json(t) FROM read_parquet(?, hive_partitioning = true) AS t", [files])
    by_duckdb = [json.loads(text) for (text,) in found.fetchall()]
    return by_delta, by_duckdb



runs = DeltaTable(f"{folder}/runs")
nights = query(runs, "runs", visible_nights.rstrip())
night = max(nights, key=lambda n: n["run_date"])
report = {"run_date": str(night["run_date"]), "nights": len(nights), "tables": {}}
for table, version in json.loads(night["table_versions"]).items():
    by_delta, by_duckdb = read_night(table, version, night["run_date"])
    same = [r.keys() for r in by_delta[:1]] == [r.keys() for r in by_duckdb[:1]] and len(by_delta) == len(by_duckdb)
    report["tables"][table] = {
        "rows": len(by_delta),
        "duckdb_rows": len(by_duckdb),
        "columns": sorted(by_delta[0]) if by_delta else [],
        "same_columns_and_rows": same,
    }
intent, duck = read_night("intent", json.loads(night["table_versions"])["intent"], night["run_date"])
report["p_purchase"] = sorted(r["p_purchase"] for r in intent)
report["duckdb_p_purchase"] = sorted(r["p_purchase"] for r in duck)
report["last_seen_at"] = str(intent[0]["last_seen_at"])
json.dump(report, sys.stdout)
