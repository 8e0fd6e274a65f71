"""A task as arrays: each key's history and test events, in order, scaled alike for all detectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.event import EventBatch, EventDecoder
from streamlstm.core.log import Record
from streamlstm.errors import HistoryError
from streamlstm.evaluation.task import Task
from streamlstm.training.history import History, history_of
from streamlstm.training.scaling import fit_scaling, inputs_of, scalers_of

LEARN, CALIBRATE, TEST = 0, 1, 2  # parts: fitted on, thresholds calibrated on, judged on


@dataclass(frozen=True)
class Stream:
    """All events, sorted by key, part and time, (N, …).

    ``raw`` (N, D): values as they came, NaN where missing; ``values`` (N, D): squashed deviations, 0 where missing.
    ``gap_ms`` (N,): since the key's event before, −1 where there is none. ``label`` is false outside the test part.
    ``record_index`` (N,) points into the history's or the test's records. ``follows`` says of each
    key whether its test events come after its history.
    """

    keys: list[bytes]
    key: NDArray[np.int64]
    part: NDArray[np.int8]
    timestamp_ms: NDArray[np.int64]
    gap_ms: NDArray[np.float64]
    raw: NDArray[np.float64]
    values: NDArray[np.float32]
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
    """A task's records, decoded; ``rejected`` counts test records that were no events, ``not_learned`` those of the
    history, by reason, duplicates too."""

    history: History
    before: EventBatch
    test: EventBatch
    rejected: int
    not_learned: Mapping[str, int]


def decode(task: Task) -> Decoded:
    """Decode a task's records; raises :class:`HistoryError` if there is too little to learn from."""
    decoder = EventDecoder(task.schema)
    before, refused = decoder.decode(task.history)
    test, rejections = decoder.decode(task.test)
    try:
        history = history_of([before])
    except HistoryError as error:
        if not refused:
            raise
        first = f"the first as {refused[0].reason}: {refused[0].detail}"
        raise HistoryError(f"{error}; {len(refused)} records were refused, {first}") from None
    not_learned = Counter(rejection.reason for rejection in refused)
    if history.duplicates:
        not_learned["duplicate"] = history.duplicates
    return Decoded(history, before, test, len(rejections), not_learned)


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
    raw, gap_ms = np.concatenate([before.values, test.values])[order], _gaps_ms(timestamp_ms[order], key[order])
    scaler = scalers_of(list(names), key[order], scaling.scaler_of)
    width = scaling.width(task.schema)
    inputs, present = inputs_of(raw, gap_ms, timestamp_ms[order], scaler, width, scaling.parameters)
    return Stream(
        keys=list(names),
        key=key[order],
        part=part[order],
        timestamp_ms=timestamp_ms[order],
        gap_ms=gap_ms,
        raw=raw,
        values=inputs[:, : task.schema.values],
        present=present,
        categories=[(*before.categories, *test.categories)[i] for i in order],
        label=label[order],
        record_index=record_index[order],
        follows=_follows(key, timestamp_ms, is_test, len(names)),
    )


def _gaps_ms(timestamp_ms: NDArray[np.int64], key: NDArray[np.int64]) -> NDArray[np.float64]:
    gap_ms = np.diff(timestamp_ms, prepend=timestamp_ms[0]).astype(np.float64)
    gap_ms[np.append(True, np.diff(key) != 0)] = -1.0
    return gap_ms


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
