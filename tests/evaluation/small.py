"""Small tasks and streams for the evaluation's tests."""

from __future__ import annotations

import functools
from dataclasses import replace

import msgspec
import numpy as np
import pandas as pd

from streamlstm.core.schema import StreamSchema
from streamlstm.evaluation import ours
from streamlstm.evaluation.stream import Decoded, Stream, decode, stream_of
from streamlstm.evaluation.task import Fault, Task, events_of, regular_times
from streamlstm.training.train import Options

SCHEMA = StreamSchema.from_toml('key = "pump"\ntimestamp_unit = "ms"\n[features.flow]\n[features.heat]\n')
HISTORY, TEST = 600, 400  # events per key
FAULT = (200, 220)  # test events of key "a" in which heat is off
KEYS = ("a", "b")


def table(seed: int = 0) -> pd.DataFrame:
    """Return two pumps with a periodic flow and a noisy heat; one has a fault in the last part."""
    rng = np.random.default_rng(seed)
    parts = []
    for place, key in enumerate(KEYS):
        step = np.arange(HISTORY + TEST)
        heat = rng.normal(50 + 10 * place, 1.0, len(step))
        if key == "a":
            heat[HISTORY + FAULT[0] : HISTORY + FAULT[1]] += 12.0
        flow = np.sin(2 * np.pi * step / 20) + rng.normal(0, 0.1, len(step))
        times = regular_times(len(step), 1000.0) + place
        parts.append(pd.DataFrame({"pump": key, "time": times, "flow": flow, "heat": heat, "step": step}))
    return pd.concat(parts).sort_values("time", kind="stable", ignore_index=True)


def task() -> Task:
    """Return the pumps as a task; the test events of both keys alternate."""
    rows = table()
    test = rows[rows["step"] >= HISTORY]
    inside = (test["step"] >= HISTORY + FAULT[0]) & (test["step"] < HISTORY + FAULT[1])
    return Task(
        name="pumps",
        schema=SCHEMA,
        history=events_of(rows[rows["step"] < HISTORY], SCHEMA),
        test=events_of(test, SCHEMA),
        label=((test["pump"] == "a") & inside).to_numpy(),
        target=0.5,
        faults=(Fault(2 * FAULT[0], 2 * FAULT[1], ("heat",)),),
    )


@functools.cache
def decoded() -> Decoded:
    """Return the task, decoded."""
    return decode(task())


@functools.cache
def stream() -> Stream:
    """Return the task as arrays."""
    return stream_of(task(), decoded())


@functools.cache
def run(*, calendar: bool = False) -> ours.Run:
    """Return the detector, briefly trained and run; ``calendar``: its network reads one."""
    mine = replace(task(), schema=msgspec.structs.replace(SCHEMA, calendar=True)) if calendar else task()
    return ours.run(mine, decoded(), stream(), Options(hidden=16, updates=60, lanes=8))
