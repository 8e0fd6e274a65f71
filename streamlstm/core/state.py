"""A key's state is one row: integers, and floats whose sections the :class:`Layout` names.

All rows live in an :class:`Arena`. A poll works on copies of its keys' rows; they are written back
only after the commit succeeded, so aborting is dropping the copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.channels import state_floats
from streamlstm.core.model import Architecture

# Columns of the integer part of a row (int64).
EVENTS = 0  # events since the row was started or started anew
LAST_TIMESTAMP_MS = 1
LAST_OFFSET = 2
LAST_CHECKSUM = 3
SCALER = 4  # row of FeatureParameters.mean; 0 is the fleet's
SCORED = 5  # events that had a forecast error
PHASE = 6  # of the alert episode, see core.alert
OPENED_OFFSET = 7
OPENED_TIMESTAMP_MS = 8
EPISODE_EVENTS = 9
CALM_EVENTS = 10
COOLDOWN_EVENTS = 11
HELD_EVENTS = 12  # since the threshold last learned, see core.guard
KEPT = 13  # what is known of the tail from before an episode, see core.guard
INTEGERS = 14
LARGEST = 1 << 62  # a count below it can still be raised

# Columns of the float sections.
TAIL_START, TAIL_SCALE, TAIL_FLOATS = 0, 1, 2  # of one tail
STEADY_TAIL, KEPT_TAIL, QUICK_TAIL, TAILS = (
    0,
    2,
    4,
    6,
)  # where each tail starts, see core.guard; all floats
PEAK_SCORE, REPORTED_SCORE, EPISODE_FLOATS = 0, 1, 2

Key = tuple[int, bytes]  # partition, key


class Layout(NamedTuple):
    """Where each section of a row's floats starts; ``width`` is their number."""

    hidden: int
    cell: int
    forecast: int
    channels: int
    tail: int
    episode: int
    width: int


def layout_of(architecture: Architecture) -> Layout:
    """Return the float layout of a row of this architecture.

    Waiting forecasts take L(L+1)/2 · D · 2 floats: the forecast for horizon l waits l events, so
    only a triangle of them is ever outstanding.
    """
    recurrent = architecture.layers * architecture.hidden
    waiting = architecture.horizon * (architecture.horizon + 1) * architecture.values
    running = state_floats(architecture.values)
    starts = np.cumsum([0, recurrent, recurrent, waiting, running, TAILS, EPISODE_FLOATS])
    return Layout(*(int(start) for start in starts))


class Rows(NamedTuple):
    """Working copies of some rows: ``integers`` (B, 14) int64 and ``floats`` (B, width) float32."""

    integers: NDArray[np.int64]
    floats: NDArray[np.float32]


def to_bytes(rows: Rows, header: bytes = b"") -> list[bytes]:
    """Return each row as bytes: the header, little-endian integers, then floats."""
    start = np.broadcast_to(np.frombuffer(header, dtype=np.uint8), (len(rows.integers), len(header)))
    integers = rows.integers.astype("<i8", copy=False).view(np.uint8)
    floats = rows.floats.astype("<f4", copy=False).view(np.uint8)
    joined = np.concatenate([start, integers, floats], axis=1)
    whole_rows: list[bytes] = joined.view(f"V{joined.shape[1]}").ravel().tolist()  # a third of a tobytes per row
    return whole_rows


def from_bytes(data: bytes, layout: Layout) -> Rows:
    """Return the one row that :func:`to_bytes` wrote; raises ``ValueError`` if its size is wrong."""
    split = INTEGERS * 8
    if len(data) != split + layout.width * 4:
        raise ValueError(f"a state row of {len(data)} bytes, expected {split + layout.width * 4}")
    integers = np.frombuffer(data[:split], dtype="<i8").reshape(1, INTEGERS)
    return Rows(integers, np.frombuffer(data[split:], dtype="<f4").reshape(1, layout.width))


def check_numbers(rows: Rows, scalers: int) -> None:
    """Raise ``ValueError`` for numbers that no scorer writes; compiled code takes the scaler as an index, and scores
    that come of what is not finite would be none.

    ``scalers``: rows of ``FeatureParameters.mean``, of which a state names one.
    """
    integers = rows.integers
    if integers[:, SCALER].max() >= scalers or integers.min() < -1 or integers.max() > LARGEST:
        raise ValueError("a state row with a number that no scorer writes: another program wrote it")
    if integers[:, SCALER].min() < 0 or integers[:, EVENTS].min() < 0 or integers[:, SCORED].min() < 0:
        raise ValueError("a state row with a negative count: another program wrote it")
    if not np.isfinite(rows.floats).all():
        raise ValueError("a state row with a number that is not finite: another program wrote it")


class Arena:
    """All rows in memory, at most ``max_keys``; the least recently touched key leaves first.

    A key that left is not lost: its row was committed with its last event, and the caller loads it
    from the log when the key comes back.
    """

    def __init__(self, layout: Layout, max_keys: int) -> None:
        self.layout = layout
        self.max_keys = max_keys
        self.evicted = 0
        self._row_of: dict[Key, int] = {}  # in order of last touch
        self._free: list[int] = []
        self._integers = np.zeros((0, INTEGERS), dtype=np.int64)
        self._floats = np.zeros((0, layout.width), dtype=np.float32)

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, key: Key) -> bool:
        return key in self._row_of

    @property
    def nbytes(self) -> int:
        """Bytes held by the rows' arrays."""
        return self._integers.nbytes + self._floats.nbytes

    def missing(self, keys: Iterable[Key]) -> list[Key]:
        """Return those keys that have no row in memory."""
        return [key for key in keys if key not in self._row_of]

    def gather(self, keys: Sequence[Key], tail: tuple[float, float]) -> Rows:
        """Return copies of the keys' rows; a key without one gets a fresh row with this tail."""
        at = np.array([self._row_of.get(key, -1) for key in keys], dtype=np.int64)
        known = at >= 0
        if known.all():
            return Rows(self._integers.take(at, axis=0), self._floats.take(at, axis=0))
        rows = Rows(np.zeros((len(keys), INTEGERS), np.int64), np.zeros((len(keys), self.layout.width), np.float32))
        rows.floats[:, self.layout.tail : self.layout.tail + TAIL_FLOATS] = tail
        rows.integers[known] = self._integers.take(at[known], axis=0)
        rows.floats[known] = self._floats.take(at[known], axis=0)
        return rows

    def put(self, keys: Sequence[Key], rows: Rows) -> None:
        """Make the rows current, and the keys the most recently touched ones."""
        at = np.array([self._place(key) for key in keys], dtype=np.int64)
        self._integers[at] = rows.integers
        self._floats[at] = rows.floats
        # All at once: to find the first key, a dict passes by all that left before it.
        for key in list(islice(self._row_of, max(0, len(self._row_of) - self.max_keys))):
            self._free.append(self._row_of.pop(key))
            self.evicted += 1

    def drop_partition(self, partition: int) -> None:
        """Forget the rows of a partition that now belongs to another scorer."""
        for key in [key for key in self._row_of if key[0] == partition]:
            self._free.append(self._row_of.pop(key))

    def _place(self, key: Key) -> int:
        row = self._row_of.pop(key, -1)
        if row < 0:
            if not self._free:
                self._grow()
            row = self._free.pop()
        self._row_of[key] = row
        return row

    def _grow(self) -> None:
        """Double the arrays (at least 64 rows)."""
        old = len(self._integers)
        new = max(64, old * 2)
        self._free.extend(range(new - 1, old - 1, -1))
        integers, floats = np.zeros((new, INTEGERS), np.int64), np.zeros((new, self.layout.width), np.float32)
        integers[:old], floats[:old] = self._integers, self._floats  # rows not yet used take no memory
        self._integers, self._floats = integers, floats
