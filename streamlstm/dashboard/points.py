"""The last scores of a key, packed."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

POINTS = 1_024  # per key: 32 KiB
SCORED, WARMING_UP, NO_VALUE = 0, 1, 2
STATUSES = {"scored": SCORED, "warming_up": WARMING_UP, "no_value": NO_VALUE}

POINT = np.dtype(
    [
        ("offset", "<i8"),
        ("time_ms", "<i8"),
        ("score", "<f4"),
        ("probability", "<f4"),
        ("threshold", "<f4"),
        ("status", "i1"),
        ("alert", "i1"),
    ]
)
_PACK = struct.Struct("<qqfffbb")


class Points:
    """A ring of :data:`POINTS` points; memory is taken as it fills."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._count = 0

    def add(
        self, offset: int, time_ms: int, score: float, probability: float, threshold: float, status: int, alert: bool
    ) -> None:
        """Add the next event's point; NaN where there is no score."""
        at = self._count % POINTS
        if self._count < POINTS:
            self._data += _PACK.pack(offset, time_ms, score, probability, threshold, status, alert)
        else:
            _PACK.pack_into(self._data, at * _PACK.size, offset, time_ms, score, probability, threshold, status, alert)
        self._count += 1

    def all(self) -> NDArray[Any]:
        """Return a copy of all points, (n,) of :data:`POINT`, in the order in which they came."""
        found = np.frombuffer(bytes(self._data), dtype=POINT)
        return np.roll(found, -(self._count % POINTS)) if self._count > POINTS else found
