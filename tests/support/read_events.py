"""Reads the event files of one run with TensorBoard's own reader and prints its scalars as JSON.

Usage: read_events.py RUN_FOLDER. For each tag a list of [step, wall time, value].
"""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
events.Reload()
tags = events.Tags()["scalars"]
json.dump({tag: [[e.step, e.wall_time, e.value] for e in events.Scalars(tag)] for tag in tags}, sys.stdout)
