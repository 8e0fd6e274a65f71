"""Readers for the layout that InterFusion publishes servers' metrics in: arrays, and which of them were at fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from streamlstm.core.schema import StreamSchema
from streamlstm.evaluation.task import Fault, Task, events_of, regular_times


def machine_tasks(
    folder: Path, prefix: str, *, step_ms: float, targets: Mapping[str, float], group: str = ""
) -> Iterator[Task]:
    """Yield a task per ``.npz`` of train, test and label; faults from ``interpretation/NAME.txt``.

    ``targets``: by file, or by group.
    """
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as arrays:
            train, test, label = arrays["train"], arrays["test"], arrays["label"]
        features = "".join(f"[features.m{d + 1}]\n" for d in range(train.shape[1]))
        schema = StreamSchema.from_toml('timestamp_unit = "ms"\n' + features)
        yield Task(
            name=f"{prefix} {path.stem.removeprefix('machine-')}",
            schema=schema,
            history=events_of(_table(train, 0, step_ms), schema),
            test=events_of(_table(test, len(train), step_ms), schema),
            label=label > 0,
            target=targets.get(group or path.stem),
            group=group,
            faults=read_faults(folder / "interpretation" / f"{path.stem}.txt"),
        )


def _table(values: NDArray[np.float32], first: int, step_ms: float) -> pd.DataFrame:
    table = pd.DataFrame(values.astype(np.float64), columns=[f"m{d + 1}" for d in range(values.shape[1])])
    return table.assign(time=regular_times(len(values), step_ms, first))


def read_faults(path: Path) -> tuple[Fault, ...]:
    """Read lines of ``start-end:metric,metric`` whose metrics count from 1; none if there is no such file."""
    if not path.is_file():
        return ()
    faults = []
    for line in path.read_text().split():
        span, metrics = line.split(":")
        start, end = span.split("-")
        faults.append(Fault(int(start), int(end), tuple(f"m{int(metric)}" for metric in metrics.split(","))))
    return tuple(faults)
