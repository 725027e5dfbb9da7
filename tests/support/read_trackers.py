"""Prints what MLflow and Weights & Biases hold of a training as one JSON object. Usage: read_trackers.py MLRUNS WANDB"""

import json
import pathlib
import sys

from mlflow.tracking import MlflowClient
from wandb.proto import wandb_internal_pb2

BLOCK = 32768  # bytes


def records(content):
    """Yields the records of a file of W&B: a header of 7 bytes, then LevelDB's log format, whose parts do not cross blocks."""
    at, record = 7, b""
    while at + 7 <= len(content):
        left = BLOCK - at % BLOCK
        if left < 7:
            at += left
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        record += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


mlruns, wandb = sys.argv[1:]
client = MlflowClient(f"file://{mlruns}")
[run] = client.search_runs(["0"])
of_mlflow = {
    "settings": run.data.params,
    "figures": run.data.metrics,
    "curves": {
        key: [[metric.step, metric.value] for metric in client.get_metric_history(run.info.run_id, key)]
        for key in run.data.metrics
        if "/" in key
    },
}

[kept] = pathlib.Path(wandb).glob("wandb/offline-run-*/*.wandb")
settings, figures, curves = {}, {}, {}
for data in records(kept.read_bytes()):
    record = wandb_internal_pb2.Record()
    record.ParseFromString(data)
    kind = record.WhichOneof("record_type")

    def values(items):
        return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}

    if kind == "run":
        settings.update(values(record.run.config.update))
    elif kind == "config":
        settings.update(values(record.config.update))
    elif kind == "summary":
        figures.update(values(record.summary.update))
    elif kind == "history":
        row = values(record.history.item)
        for key, value in row.items():
            if "/" in key:
                curves.setdefault(key, []).append([row["step"], value])
print(json.dumps({"mlflow": of_mlflow, "wandb": {"settings": settings, "figures": figures, "curves": curves}}))
