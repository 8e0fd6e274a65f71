"""Partitions that are ours: where they stand, and what a commit makes of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

from streamlstm.adapters.kafka.client import Committed
from streamlstm.adapters.kafka.names import Names
from streamlstm.adapters.kafka.restore import Table, expires, to_value
from streamlstm.core.commit import Commit
from streamlstm.errors import Fenced, LogUnavailable


@dataclass
class Claim:
    """A partition that is ours: what is committed, and which records were polled and are not committed yet."""

    number: int
    next_offset: int
    watermark_ms: int
    table: Table
    polled: list[int] = field(default_factory=list)


def check_offsets(names: Names, claims: Mapping[int, Claim], offsets: Mapping[int, tuple[int, int]]) -> None:
    """Refuse a commit that does not begin where the last one ended.

    Offsets may have gaps, so what counts is that no polled record lies between.
    """
    for partition, (first, _) in offsets.items():
        claim = claims.get(partition)
        if claim is None:
            raise LogUnavailable(f"topic {names.topic!r} partition {partition} is no longer this scorer's")
        skipped = bisect_left(claim.polled, first) - bisect_left(claim.polled, claim.next_offset)
        if first < claim.next_offset or skipped:
            raise Fenced(
                f"topic {names.topic!r} partition {partition}: this scorer read from offset {first}, but "
                f"{claim.next_offset} is committed for group {names.group!r}"
            )


def changed_states(commit: Commit, claims: Mapping[int, Claim]) -> dict[int, dict[bytes, bytes | None]]:
    """Return the changelog values to write, per partition; None for states that have expired."""
    states: dict[int, dict[bytes, bytes | None]] = {partition: {} for partition in commit.offsets}
    for (partition, key), row in commit.states.items():
        states[partition][key] = to_value(row, commit.offsets[partition][1])
    for partition, before_ms in commit.expire_before_ms.items():
        changes = states.setdefault(partition, {})
        for key in claims[partition].table.expired(before_ms):
            changes.setdefault(key, None)
        for key, value in changes.items():
            if value is not None and expires(value, before_ms):
                changes[key] = None
    return states


def watermark_after(commit: Commit, claims: Mapping[int, Claim], partition: int) -> int:
    """Return a partition's watermark (ms) once the commit is stored."""
    return max(claims[partition].watermark_ms, commit.watermarks.get(partition, 0))


def watermark_of(position: Committed) -> int:
    """Return the watermark (ms) noted beside a position."""
    return int(position.note) if position.note.isdigit() else 0
