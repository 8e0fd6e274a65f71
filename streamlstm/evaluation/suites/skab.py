"""SKAB's valve1: 16 experiments with a pump, a key each; the first 400 rows of each are history, as in its protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from streamlstm.core.schema import StreamSchema
from streamlstm.evaluation.task import Task, events_of

ABOUT = "SKAB valve1, 16 experiments of 8 sensors at 1 Hz, a key each; 400 rows of each are history"
FOLDERS = ("skab",)
TARGET = 0.75
HISTORY_ROWS = 400
LABELS = ("anomaly", "changepoint")


def tasks(data: Path) -> Iterator[Task]:
    """Yield one task: all experiments, one model."""
    files = sorted((data / "skab" / "valve1").glob("*.csv"), key=lambda path: int(path.stem))
    tables = [pd.read_csv(path, sep=";").assign(experiment=path.stem) for path in files]
    sensors = [name for name in tables[0].columns if name not in ("datetime", "experiment", *LABELS)]
    schema = StreamSchema.from_toml(
        'key = "experiment"\ntimestamp = "datetime"\n' + "".join(f"[features.{json.dumps(n)}]\n" for n in sensors)
    )
    test = pd.concat([table[HISTORY_ROWS:] for table in tables])
    yield Task(
        name="SKAB valve1",
        schema=schema,
        history=events_of(pd.concat([table[:HISTORY_ROWS] for table in tables]), schema),
        test=events_of(test, schema),
        label=test["anomaly"].to_numpy() > 0,
        target=TARGET,
    )
