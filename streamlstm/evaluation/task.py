"""What a detector is judged on: a stream to learn from, the stream after it, and what was wrong when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from streamlstm.core.event import LATEST_MS
from streamlstm.core.log import Record
from streamlstm.core.schema import StreamSchema

START_MS = 1_577_836_800_000  # 2020-01-01: of series that come without times


@dataclass(frozen=True)
class Fault:
    """Which features were at fault in a range of test events, ``start`` up to, not including, ``end``."""

    start: int
    end: int
    features: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """One labelled stream.

    ``history`` comes before ``test``, both as records in the order in which they arrive; ``label`` has one entry per
    test record. ``target``: the average precision to reach, of the mean of all tasks of the ``group`` if there is one.
    ``faults`` are for attribution, where they are known.
    """

    name: str
    schema: StreamSchema
    history: Sequence[Record]
    test: Sequence[Record]
    label: NDArray[np.bool_]
    target: float | None = None
    group: str = ""
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        assert len(self.test) == len(self.label), self.name


def events_of(table: pd.DataFrame, schema: StreamSchema) -> list[Record]:
    """Return a table's rows as records; with frames, each run of ``frame_samples`` rows as one.

    **Trap**: with frames, the table must hold one key only.
    """
    return [Record("test", 0, i, LATEST_MS, None, msgspec.json.encode(e)) for i, e in enumerate(_events(table, schema))]


def _events(table: pd.DataFrame, schema: StreamSchema) -> Iterator[dict[str, Any]]:
    frame = schema.frame_samples
    whole = len(table) // frame * frame
    names = [*([schema.key] if schema.key else []), schema.timestamp, *schema.categorical]
    single = {name: table[name].iloc[frame - 1 : whole : frame].tolist() for name in names}
    sampled = {}
    for name in schema.numeric:
        column = table[name].to_numpy(dtype=np.float64)[:whole]
        sampled[name] = column.tolist() if frame == 1 else column.reshape(-1, frame).tolist()
    columns = single | sampled
    for row in zip(*columns.values(), strict=True):
        yield dict(zip(columns, row, strict=True))


def frame_label(label: NDArray[np.generic], schema: StreamSchema) -> NDArray[np.bool_]:
    """Return the label of each event: whether any of its samples is labelled."""
    whole = len(label) // schema.frame_samples * schema.frame_samples
    return np.asarray(label[:whole].astype(bool).reshape(-1, schema.frame_samples).any(axis=1))


def regular_times(events: int, step_ms: float, first: int = 0) -> NDArray[np.int64]:
    """Return made-up times (ms) of samples that come at a fixed rate, from the ``first`` on."""
    return (START_MS + (first + np.arange(events)) * step_ms).round().astype(np.int64)
