"""A task as arrays: each key's history and test events, in order, scaled alike for all detectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.event import EventBatch, EventDecoder
from streamlstm.core.feature import write_all_inputs
from streamlstm.core.log import Record
from streamlstm.core.schema import StreamSchema
from streamlstm.evaluation.task import Task
from streamlstm.training.history import History, history_of
from streamlstm.training.scaling import Scaling, fit_scaling

LEARN, CALIBRATE, TEST = 0, 1, 2  # parts: fitted on, thresholds calibrated on, judged on


@dataclass(frozen=True)
class Stream:
    """All events, sorted by key, part and time, (N, …).

    ``values`` (N, D) are squashed deviations, 0 where missing; ``inputs`` (N, width) all that the network reads;
    ``label`` is false outside the test part. ``record_index`` (N,) points into the history's or the test's records.
    ``follows`` says of each key whether its test events come after its history.
    """

    keys: list[bytes]
    key: NDArray[np.int64]
    part: NDArray[np.int8]
    timestamp_ms: NDArray[np.int64]
    values: NDArray[np.float32]
    inputs: NDArray[np.float32]
    present: NDArray[np.bool_]
    categories: list[tuple[str | None, ...]]
    label: NDArray[np.bool_]
    record_index: NDArray[np.int64]
    follows: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.key)

    @property
    def test(self) -> NDArray[np.bool_]:
        """Which events are judged, (N,)."""
        test: NDArray[np.bool_] = self.part == TEST
        return test

    def of_each_key(self) -> Iterator[slice]:
        """Yield where each key's events stand."""
        bounds = np.searchsorted(self.key, np.arange(len(self.keys) + 1))
        for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            yield slice(start, end)


@dataclass(frozen=True)
class Decoded:
    """A task's records, decoded; ``rejected`` counts test records that were none."""

    history: History
    before: EventBatch
    test: EventBatch
    rejected: int


def decode(task: Task) -> Decoded:
    """Decode a task's records; raises :class:`HistoryError` if there is too little to learn from."""
    decoder = EventDecoder(task.schema)
    before, _ = decoder.decode(task.history)
    test, rejections = decoder.decode(task.test)
    return Decoded(history_of([before]), before, test, len(rejections))


def stream_of(task: Task, decoded: Decoded) -> Stream:
    """Return a task as arrays."""
    history, before, test = decoded.history, decoded.before, decoded.test
    both = [*before.keys, *test.keys]
    names, key = np.unique(np.array(both, dtype=object), return_inverse=True)
    timestamp_ms = np.concatenate([before.timestamp_ms, test.timestamp_ms])
    held_out_ms = {k: history.timestamp_ms[at] for k, at in zip(history.keys, history.held_out.tolist(), strict=True)}
    since_ms = np.array([held_out_ms.get(name, 0) for name in names])
    is_test = np.arange(len(both)) >= len(before)
    part = np.where(is_test, TEST, np.where(timestamp_ms >= since_ms[key], CALIBRATE, LEARN)).astype(np.int8)
    arrived = np.where(is_test, np.arange(len(both)), 0)
    order = np.lexsort((np.where(is_test, arrived, timestamp_ms), part, key))
    label = np.concatenate([np.zeros(len(before), dtype=bool), task.label[test.record_index]])
    record_index = np.concatenate([before.record_index, test.record_index])
    scaling = fit_scaling(history, task.schema)
    values = np.concatenate([before.values, test.values])[order]
    inputs, present = _inputs(values, timestamp_ms[order], key[order], names, task.schema, scaling)
    return Stream(
        keys=list(names),
        key=key[order],
        part=part[order],
        timestamp_ms=timestamp_ms[order],
        values=inputs[:, : task.schema.values],
        inputs=inputs,
        present=present,
        categories=[(*before.categories, *test.categories)[i] for i in order],
        label=label[order],
        record_index=record_index[order],
        follows=_follows(key, timestamp_ms, is_test, len(names)),
    )


def _inputs(
    values: NDArray[np.float64],
    timestamp_ms: NDArray[np.int64],
    key: NDArray[np.int64],
    names: NDArray[np.object_],
    schema: StreamSchema,
    scaling: Scaling,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    gap_ms = np.diff(timestamp_ms, prepend=timestamp_ms[0]).astype(np.float64)
    gap_ms[np.append(True, np.diff(key) != 0)] = -1.0
    scalers = np.array([scaling.scaler_of.get(name.decode(), 0) for name in names], dtype=np.int64)
    inputs = np.zeros((len(values), scaling.width(schema)), dtype=np.float32)
    present = np.zeros((len(values), schema.values), dtype=np.bool_)
    write_all_inputs(inputs, present, values, gap_ms, timestamp_ms, scalers[key], scaling.parameters)
    return inputs, present


def _follows(
    key: NDArray[np.int64], timestamp_ms: NDArray[np.int64], is_test: NDArray[np.bool_], keys: int
) -> NDArray[np.bool_]:
    last, first = np.full(keys, np.iinfo(np.int64).min), np.full(keys, np.iinfo(np.int64).max)
    np.maximum.at(last, key[~is_test], timestamp_ms[~is_test])
    np.minimum.at(first, key[is_test], timestamp_ms[is_test])
    return last < first


def in_order(records: Sequence[Record]) -> list[Record]:
    """Return records with offsets that count from 0, as a log would have them."""
    return [record._replace(offset=offset) for offset, record in enumerate(records)]
