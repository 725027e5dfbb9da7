"""Runs intentcast for a task: imports or simulates its lake, trains, and asks SQL. Results are kept in the work folder."""

import datetime
import glob
import hashlib
import io
import os
import re
import subprocess
import time

import pandas

from tasks import CODES


def later(day, days):
    return (datetime.date.fromisoformat(day) + datetime.timedelta(days=days)).isoformat()


class Job:
    def __init__(self, binary, data, work, task):
        self.binary, self.task = binary, task
        # Another binary or other settings start afresh.
        with open(binary, "rb") as file:
            of_binary = hashlib.file_digest(file, "sha256").hexdigest()
        key = hashlib.sha256(repr((of_binary, task)).encode()).hexdigest()[:8]
        self.lake = os.path.join(work, "lakes", f"{task.lake.name}-{of_binary[:8]}")
        self.output = os.path.join(work, "outputs", f"{task.name}-{key}")
        self.cache = os.path.join(work, "cache", f"{task.name}-{key}")
        self.log = os.path.join(work, f"{task.name}.log")
        for folder in (os.path.dirname(self.lake), self.cache):
            os.makedirs(folder, exist_ok=True)
        if task.kind != "table" and not os.path.exists(self.lake + ".done"):
            self._make_lake(data)

    def _make_lake(self, data):
        lake = self.task.lake
        if lake.simulate:
            self._run("simulate", "--to", self.lake, *lake.simulate)
        else:
            files = [path for pattern in lake.files for path in sorted(glob.glob(os.path.join(data, pattern)))]
            self._run("import", lake.name, *files, "--to", self.lake)
        open(self.lake + ".done", "w", encoding="utf-8").close()

    def _run(self, verb, *options, more=()):
        settings = [part for setting in (*self.task.settings, *more) for part in ("--set", setting)]
        with open(self.log, "a", encoding="utf-8") as log:
            done = subprocess.run(
                [self.binary, *settings, verb, *options], stdout=subprocess.PIPE, stderr=log, text=True, check=False
            )
        if done.returncode != 0:
            raise SystemExit(f"{self.task.name}: {verb} ended in {done.returncode}; see {self.log}")
        return done.stdout

    def train(self, *options):
        """Trains once with default settings; returns seconds, also of an earlier call."""
        path = os.path.join(self.cache, "train_seconds")
        if not os.path.exists(path):
            began = time.monotonic()
            self._run("train", "--lake", self.lake, "--output", self.output, "--date", self.task.date, *options)
            with open(path, "w", encoding="utf-8") as file:
                file.write(f"{time.monotonic() - began:.0f}")
        with open(path, encoding="utf-8") as file:
            return float(file.read())

    def sql(self, day, query, *more):
        """Asks SQL as of a day, with further settings; answers are kept."""
        name = hashlib.sha256(" ".join((day, query, *more)).encode()).hexdigest()[:16]
        path = os.path.join(self.cache, f"{name}.csv")
        if not os.path.exists(path):
            with open(path + ".part", "w", encoding="utf-8") as file:
                file.write(
                    self._run(
                        "sql",
                        "--lake",
                        self.lake,
                        "--output",
                        self.output,
                        "--date",
                        day,
                        "--format",
                        "csv",
                        "-c",
                        query,
                        more=more,
                    )
                )
            os.rename(path + ".part", path)
        return pandas.read_csv(path, dtype={"user_id": str, "item_id": str})

    def train_table(self, known, unknown, columns):
        """Trains a table model on one Parquet file and predicts the rows of another; returns the predictions and seconds."""
        label = self.task.target
        began = time.monotonic()
        codes = [part for name in CODES for part in ("--category", name)]
        said = self._run(
            "train", "--task", "table", "--table", known, "--label", label, *codes, "--output", self.output
        )
        seconds = time.monotonic() - began
        version = re.search(r"predict_table\(.*'(table-[^']+)'", said).group(1)
        fields = ", ".join(f"'{name}', \"{name}\"" for name in columns if name != label)
        query = (
            f"CREATE EXTERNAL TABLE unknown STORED AS PARQUET LOCATION '{unknown}'; "
            f"SELECT predict_table(named_struct({fields}), '{version}') AS p FROM unknown"
        )
        said = self._run("sql", "--output", self.output, "--format", "csv", "-c", query)
        return pandas.read_csv(io.StringIO(said)).p.to_numpy(), seconds
