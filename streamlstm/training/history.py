"""A training history: the decoded events of many keys, sorted, and split into a part to learn from
and a held-out tail of each key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.event import EventBatch
from streamlstm.errors import HistoryError

HELD_OUT_SHARE = 0.25  # of each key's events, the latest: early stopping and calibration
MIN_EVENTS = 200  # fewer cannot be split into something to learn from and something to calibrate on

OUTSIDE_SHARE = 0.5  # of a feature's held-out values beyond all that is learned from: it counts up, or wanders off
ORDERLY_SHARE = 0.01  # of a key's events may repeat a time or come late: clocks are set, senders try again


@dataclass(frozen=True)
class History:
    """Events sorted by key, then time, (n, …).

    Key ``k`` has the events ``starts[k]:starts[k + 1]``; those from ``held_out[k]`` on are held out.
    ``gap_ms`` is negative at a key's first event. ``is_late``: an event of its key with a later time came before it.
    """

    keys: list[bytes]
    starts: NDArray[np.int64]
    held_out: NDArray[np.int64]
    timestamp_ms: NDArray[np.int64]
    gap_ms: NDArray[np.float64]
    values: NDArray[np.float64]
    categories: list[tuple[str | None, ...]]
    duplicates: int
    is_late: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.timestamp_ms)

    @property
    def key_index(self) -> NDArray[np.int64]:
        """Which key each event belongs to, (n,)."""
        return np.repeat(np.arange(len(self.keys)), np.diff(self.starts))

    @property
    def is_held_out(self) -> NDArray[np.bool_]:
        """Whether each event is held out, (n,)."""
        return np.arange(len(self)) >= np.repeat(self.held_out, np.diff(self.starts))


def share_outside(history: History) -> NDArray[np.float64]:
    """Return, per value, (D,), the share of held-out ones beyond the range of those learned from of their key."""
    outside, held = np.zeros(history.values.shape[1]), np.zeros(history.values.shape[1])
    for start, middle, end in zip(history.starts[:-1], history.held_out, history.starts[1:], strict=True):
        learned, late = history.values[start:middle], history.values[middle:end]
        lowest = np.fmin.reduce(learned, axis=0, initial=np.inf)
        highest = np.fmax.reduce(learned, axis=0, initial=-np.inf)
        known = lowest <= highest
        outside += (known & ((late < lowest) | (late > highest))).sum(axis=0)
        held += (known & ~np.isnan(late)).sum(axis=0)
    share: NDArray[np.float64] = outside / np.maximum(held, 1)
    return share


def history_of(batches: Sequence[EventBatch]) -> History:
    """Sort decoded batches into a history; exact duplicates are left out, late events put in place.

    Raises :class:`HistoryError` if there is too little to learn from.
    """
    keys = [key for batch in batches for key in batch.keys]
    if len(keys) < MIN_EVENTS:
        raise HistoryError(
            f"the history holds {len(keys)} usable events; at least {MIN_EVENTS} are needed, "
            "and some thousands are better"
        )
    timestamp_ms = np.concatenate([batch.timestamp_ms for batch in batches])
    checksum = np.concatenate([batch.checksum for batch in batches])
    values = np.concatenate([batch.values for batch in batches])
    categories = [row for batch in batches for row in batch.categories]
    names, key_index = np.unique(np.array(keys, dtype=object), return_inverse=True)

    order = np.lexsort((timestamp_ms, key_index))
    is_late = _late(key_index, order)
    same = np.zeros(len(order), dtype=bool)
    same[1:] = (np.diff(key_index[order]) == 0) & (np.diff(timestamp_ms[order]) == 0) & (np.diff(checksum[order]) == 0)
    order, is_late = order[~same], is_late[~same]
    key_index, timestamp_ms = key_index[order], timestamp_ms[order]

    counts = np.bincount(key_index, minlength=len(names))
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    gap_ms = np.diff(timestamp_ms, prepend=timestamp_ms[0]).astype(np.float64)
    gap_ms[starts[:-1]] = -1.0
    return History(
        keys=list(names),
        starts=starts,
        held_out=starts[1:] - (counts * HELD_OUT_SHARE).astype(np.int64),
        timestamp_ms=timestamp_ms,
        gap_ms=gap_ms,
        values=values[order],
        categories=[categories[i] for i in order],
        duplicates=int(same.sum()),
        is_late=is_late,
    )


def _late(key_index: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return, for events in ``order`` of key and time, whether one behind it in that order arrived before it.

    Only events of its key count: arrivals are numbered key by key, so those of later keys have larger numbers.
    """
    arrival = np.empty(len(order), dtype=np.int64)
    arrival[np.argsort(key_index, kind="stable")] = np.arange(len(order))
    arrived = arrival[order]
    return np.minimum.accumulate(arrived[::-1])[::-1] < arrived
