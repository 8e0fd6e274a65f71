"""A key's heat strip: how unusual the worst event was in each stretch of time."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

BUCKETS = 360  # per key, 720 bytes

# What a bucket holds; the larger one counts. From 0 on: tenths of decades of the worst tail probability.
NONE, WARMING, NO_VALUE = -3, -2, -1
IN_ALERT = 100  # added while an alert is open
MOST = IN_ALERT - 1

WIDTHS_MS = tuple(
    1000 * seconds for seconds in (10, 30, 60, 300, 900, 3_600, 21_600, 86_400)
)  # so that a strip is an hour to a year


def width_for(typical_gap_ms: float) -> int:
    """Return how long a bucket is (ms) for a stream whose keys send an event so often.

    >>> width_for(62.5), width_for(1_800_000.0)
    (10000, 3600000)
    """
    return next((width for width in WIDTHS_MS if width >= 2 * typical_gap_ms), WIDTHS_MS[-1])


def heat(tail_probability: float, *, in_alert: bool) -> int:
    """Return what a scored event puts into its bucket.

    >>> heat(0.001, in_alert=False), heat(0.001, in_alert=True), heat(0.0, in_alert=False)
    (30, 130, 99)
    """
    tenths = MOST if tail_probability <= 0 else min(MOST, max(0, round(-10 * math.log10(tail_probability))))
    return tenths + IN_ALERT if in_alert else tenths


class Strip:
    """The last :data:`BUCKETS` buckets of a key; buckets are numbered from the epoch on."""

    def __init__(self) -> None:
        self.last = -1  # the newest bucket that holds something
        self._ring = array("h", [NONE]) * BUCKETS

    def put(self, bucket: int, value: int) -> None:
        """Put a value into a bucket, if it is unusual there; one that is too old is left out."""
        if bucket > self.last:
            for between in range(max(self.last + 1, bucket - BUCKETS + 1), bucket + 1):
                self._ring[between % BUCKETS] = NONE
            self.last = bucket
        if bucket > self.last - BUCKETS and value > self._ring[bucket % BUCKETS]:
            self._ring[bucket % BUCKETS] = value

    def worst(self, until: int, buckets: int) -> int:
        """Return the largest value of the last ``buckets`` up to ``until``."""
        return max((self._at(bucket) for bucket in range(until - buckets + 1, until + 1)), default=NONE)

    def window(self, until: int) -> list[int]:
        """Return all buckets up to ``until``, the oldest first."""
        place = (until + 1) % BUCKETS
        if until == self.last:
            return self._ring[place:].tolist() + self._ring[:place].tolist()
        return [self._at(bucket) for bucket in range(until - BUCKETS + 1, until + 1)]

    def _at(self, bucket: int) -> int:
        return self._ring[bucket % BUCKETS] if self.last - BUCKETS < bucket <= self.last else NONE


def changed_tail(old: Sequence[int], new: Sequence[int], shift: int) -> list[int]:
    """Return the end of ``new`` from the first bucket on that the reader of ``old`` cannot know.

    The windows have one length; ``new`` ends ``shift`` buckets later. The reader moves what it has, and fills up
    with :data:`NONE`.

    >>> changed_tail([1, 2, 3], [2, 3, 4], 1), changed_tail([1, 2, 3], [2, 3, -3], 1), changed_tail([1, 2], [1, 5], 0)
    ([4], [], [5])
    """
    if shift >= len(new):
        known: Sequence[int] = [NONE] * len(new)
    else:
        known = [*old[shift:], *[NONE] * shift]
    first = next((i for i, (was, now) in enumerate(zip(known, new, strict=True)) if was != now), len(new))
    return list(new[first:])
