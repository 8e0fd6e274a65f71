"""States in the changelog: how a key's state is written, and read back when a partition is claimed.

The changelog is a compacted topic, partitioned as the input: the last record of a key is its state. A record's value
is a prefix and the state, which is opaque here.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import structlog

from streamlstm.adapters.kafka.client import Reader
from streamlstm.core.commit import StateRow
from streamlstm.core.log import Record
from streamlstm.errors import LogError, LogUnavailable

CHANGELOG_VERSION = 1
PREFIX = struct.Struct("<B?qq")  # version, pinned, last event's timestamp (ms), offset committed with it
REPORT_EVERY_S = 5.0
EXPIRE_AT_ONCE = 1_000  # keys looked at per commit: expiry never holds a poll up

logger = structlog.get_logger()


def to_value(row: StateRow, next_offset: int) -> bytes:
    """Return a changelog record's value."""
    return PREFIX.pack(CHANGELOG_VERSION, row.pinned, row.timestamp_ms, next_offset) + row.value


def to_state(value: bytes) -> bytes:
    """Return the state in a changelog record's value."""
    return value[PREFIX.size :]


class Limits(NamedTuple):
    """Where to read a changelog partition, and the input offset that its states cannot lie beyond."""

    start: int
    end: int
    committed: int


@dataclass
class Table:
    """The committed states of one partition, as changelog values by key."""

    values: dict[bytes, bytes] = field(default_factory=dict)
    _unchecked: Iterator[bytes] = field(default_factory=lambda: iter(()))

    def apply(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Take in committed changes; None deletes."""
        for key, value in changes.items():
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value

    def expired(self, before_ms: int) -> list[bytes]:
        """Return keys that may be dropped, of the next few; asked often enough, all of them."""
        keys = list(islice(self._unchecked, EXPIRE_AT_ONCE))
        if not keys:
            self._unchecked = iter(list(self.values))
            keys = list(islice(self._unchecked, EXPIRE_AT_ONCE))
        return [key for key in keys if key in self.values and expires(self.values[key], before_ms)]


def expires(value: bytes, before_ms: int) -> bool:
    """Say whether a changelog value's key was silent since before ``before_ms``, with no alert open."""
    _, pinned, timestamp_ms, _ = PREFIX.unpack_from(value)
    return not pinned and timestamp_ms < before_ms


class Restore:
    """Reads the states of newly claimed partitions, a slice at a time.

    ``committed_now`` looks a partition's committed offset up anew, where a state lies beyond the limit.
    """

    def __init__(
        self, reader: Reader, topic: str, limits: Mapping[int, Limits], committed_now: Callable[[int], int]
    ) -> None:
        self._limits, self._committed_now = limits, committed_now
        self._topic = topic
        self.tables = {partition: Table() for partition in limits}
        self._batches = reader.read(
            {partition: limit.start for partition, limit in limits.items()},
            {partition: limit.end for partition, limit in limits.items()},
        )
        self._next = {partition: limit.start for partition, limit in limits.items()}
        self._records, self._started_s = 0, time.monotonic()
        self._reported_s = self._started_s

    def step(self, budget_s: float) -> bool:
        """Read for about so long; return whether everything is restored."""
        until_s = time.monotonic() + budget_s
        for batch in self._batches:
            self._take(batch)
            now_s = time.monotonic()
            if now_s - self._reported_s >= REPORT_EVERY_S:
                self._report("restoring")
                self._reported_s = now_s
            if now_s >= until_s:
                return False
        self._report("restored")
        return True

    def remaining(self) -> dict[int, int]:
        """Return how many records of each partition are left, at most: compaction removes some of the offsets."""
        return {partition: limit.end - self._next[partition] for partition, limit in self._limits.items()}

    def _take(self, batch: Sequence[Record]) -> None:
        self._records += len(batch)
        for _, partition, offset, _, key, value, _ in batch:
            values = self.tables[partition].values
            self._next[partition] = offset + 1
            if not value:
                values.pop(key or b"", None)
                continue
            version, _, _, next_offset = PREFIX.unpack_from(value) if len(value) >= PREFIX.size else (0, 0, 0, 0)
            if version != CHANGELOG_VERSION:
                raise LogError(
                    f"topic {self._topic!r} partition {partition} offset {offset}: no state of this release (version "
                    f"{version}, expected {CHANGELOG_VERSION}): another program writes there, or use a new --group"
                )
            if next_offset > self._limits[partition].committed:
                if next_offset <= self._committed_now(partition):
                    raise LogUnavailable(f"partition {partition} of the input is another scorer's: it commits there")
                raise LogError(
                    f"topic {self._topic!r} partition {partition} offset {offset}: a state after input offset "
                    f"{next_offset - 1}, but the group has committed {self._limits[partition].committed} only: its "
                    "offsets were reset, or another program wrote there. Use a new --group"
                )
            values[key or b""] = value

    def _report(self, event: str) -> None:
        seconds = max(time.monotonic() - self._started_s, 1e-9)
        logger.info(
            event,
            partitions=sorted(self._limits),
            keys=sum(len(table.values) for table in self.tables.values()),
            records=self._records,
            of_at_most=sum(limit.end - limit.start for limit in self._limits.values()),
            records_per_s=round(self._records / seconds),
            seconds=round(seconds, 2),
        )
