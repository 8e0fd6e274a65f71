"""What one poll leaves behind. It is stored all together or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Output(NamedTuple):
    """One output record, bound to the partition of the input it came from."""

    partition: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class StateRow(NamedTuple):
    """A key's state after its last event of the poll.

    ``value`` is opaque to the log. A row whose ``timestamp_ms`` (of its last event) has expired may
    be dropped, unless ``pinned``: an alert is open, and its end has still to be told.
    """

    value: bytes
    timestamp_ms: int
    pinned: bool


@dataclass(frozen=True)
class Commit:
    """Scores, alerts, dead letters, changed state rows and the offsets they stand for.

    ``offsets`` maps a partition to (first offset of the poll, next offset to read): an engine must
    refuse the commit when the first is not what is committed now. ``watermarks`` are the largest
    event timestamps per partition (ms). ``expire_before_ms`` says, per partition, below which last
    event timestamp states may be dropped.
    """

    scores: Sequence[Output]
    alerts: Sequence[Output]
    dead_letters: Sequence[Output]
    states: Mapping[tuple[int, bytes], StateRow]
    offsets: Mapping[int, tuple[int, int]]
    watermarks: Mapping[int, int]
    expire_before_ms: Mapping[int, int] = field(default_factory=dict)
