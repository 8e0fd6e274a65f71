"""The Numenta Anomaly Benchmark: a key per file, one model for all; each file's probation is history.

Probation is the first 15 % of a file's rows, 750 at most, as in :mod:`streamlstm.evaluation.nab_score`. The windows are
NAB's combined ones. Times that a file sets back (a summer time that ends) are late events and get no score.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from streamlstm.core.schema import StreamSchema
from streamlstm.evaluation.detection import Detection
from streamlstm.evaluation.metrics import stretches
from streamlstm.evaluation.nab_score import (
    PROFILES,
    File,
    optimise,
    optimise_alarms,
    probation_rows,
    score_detections,
)
from streamlstm.evaluation.stream import Stream
from streamlstm.evaluation.task import Task, events_of

ABOUT = "NAB, the files given, a key each and one model for all; each file's probation is history"
FOLDERS = ("nab",)
NAME = "NAB"
SCHEMA = StreamSchema.from_toml('key = "file"\ntimestamp = "timestamp"\n[features.value]\n')


def tasks(data: Path) -> Iterator[Task]:
    """Yield one task: all files."""
    windows = json.loads((data / "nab" / "labels" / "combined_windows.json").read_text())
    before, after = [], []
    for path in sorted((data / "nab" / "data").glob("*/*.csv")):
        name = f"{path.parent.name}/{path.name}"
        table = pd.read_csv(path).assign(file=path.stem)
        moments = pd.to_datetime(table["timestamp"])
        label = np.zeros(len(table), dtype=bool)
        for first, last in windows[name]:
            label |= ((moments >= first) & (moments <= last)).to_numpy()
        cut = probation_rows(len(table))
        before.append(table[:cut])
        after.append(table[cut:].assign(label=label[cut:]))
    test = pd.concat(after)
    yield Task(
        name=NAME,
        schema=SCHEMA,
        history=events_of(pd.concat(before), SCHEMA),
        test=events_of(test, SCHEMA),
        label=test["label"].to_numpy(),
    )


def own_measures(stream: Stream, detection: Detection) -> dict[str, float]:
    """Return NAB's scores: by its own rule, by that with one alarm per refractory span, and of the alerts as they came.

    The first two choose the best threshold for each profile with the labels, as NAB does for every detector; the third
    is one label-free rate for all files.
    """
    files, alerts = [], []
    for part in stream.of_each_key():
        windows = [(stretch.start, stretch.end - 1) for stretch in stretches(stream.label[part])]
        score = np.where(stream.test[part], detection.score[part], np.nan)
        files.append(File(score, windows))
        numbers, first = np.unique(detection.alert[part], return_index=True)
        opened = np.zeros(len(score), dtype=bool)
        opened[first[numbers >= 0]] = True
        alerts.append((opened, windows))
    found: dict[str, float] = {}
    for name, profile in PROFILES.items():
        found[f"{name}, NAB's rule"] = optimise(files, profile).score
        found[f"{name}, one alarm per 3 %"] = optimise_alarms(files, profile).score
        found[f"{name}, label-free"] = score_detections(alerts, profile)
    return found
