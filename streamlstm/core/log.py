"""The port to an event log: records, topics, and the scorer's transaction.

Engines live in ``streamlstm.adapters``; one contract suite runs on each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from streamlstm.core.commit import Commit
from streamlstm.errors import LogError, OffsetExpired

Headers = tuple[tuple[str, bytes], ...]


class Record(NamedTuple):
    """One record as the log stores it; nothing decoded.

    ``timestamp_ms`` is the moment at which the log took the record (UTC milliseconds).
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes
    headers: Headers = ()


class NewRecord(NamedTuple):
    """A record on its way into the log; ``partition=None`` lets the log choose by key."""

    key: bytes | None
    value: bytes
    headers: Headers = ()
    partition: int | None = None


@dataclass(frozen=True)
class TopicInfo:
    """What the log knows of a topic: per partition, the first offset kept and the next one.

    ``retention_s`` is None for ever, NaN if this user may not know.
    """

    name: str
    start_offsets: tuple[int, ...]
    end_offsets: tuple[int, ...]
    retention_s: float | None = None

    @property
    def partitions(self) -> int:
        """Number of partitions."""
        return len(self.end_offsets)


class Standing(NamedTuple):
    """Where a session stands in its group.

    ``joined``: it has a place, maybe without a partition. ``restoring``: the partitions given to it whose states
    are still being read, each with the records left at most; None where that is not known yet.
    """

    joined: bool
    restoring: Mapping[int, int | None]


class ScorerSession(Protocol):
    """One scorer's exclusive claims on partitions of one input topic.

    Used by one thread at a time: ``poll``, ``claims``, then ``load_states`` and ``commit`` once or more often, again.
    Claims come and go only within ``poll`` and ``rewind``: what a poll returned can be committed until the next.
    """

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        """Return the next records, in offset order per partition; empty after ``timeout_s``.

        A record is returned again only after :meth:`rewind` or a restart, or where a claim was lost and
        made anew. With ``max_records`` 0 no record is taken, only claims are kept alive. Raises
        :class:`~streamlstm.errors.OffsetExpired` when the next offset is gone.
        """
        ...

    def claims(self) -> Mapping[int, int]:
        """Return the claimed partitions whose records may come, each with a number that is new with each claim.

        Under another number somebody else may have scored the partition in between: what is
        remembered of it no longer counts.
        """
        ...

    def standing(self) -> Standing:
        """Return where this session stands in its group since the last poll. Asks nobody, and costs nothing."""
        ...

    def lag(self) -> Mapping[int, int]:
        """Return, per claimed partition, how many offsets lie between what was polled and the end."""
        ...

    def load_states(self, keys: Iterable[tuple[int, bytes]]) -> Mapping[tuple[int, bytes], bytes]:
        """Return the committed state of those (partition, key) pairs that have one."""
        ...

    def watermarks(self) -> Mapping[int, int]:
        """Return, per partition, the largest event timestamp (ms) committed so far."""
        ...

    def commit(self, commit: Commit) -> None:
        """Store scores, alerts, dead letters, states and offsets, all or none.

        Raises :class:`~streamlstm.errors.Fenced` if another scorer moved an offset in between,
        :class:`~streamlstm.errors.LogUnavailable` if it could not be stored now, or its answer was lost.
        """
        ...

    def rewind(self) -> None:
        """Go back to the committed offsets and states, after a commit that failed."""
        ...

    def close(self) -> None:
        """Give the partitions back."""
        ...


class EventLog(Protocol):
    """Topics of partitioned, ordered records."""

    def create_topic(self, topic: str, partitions: int, retention_s: float | None = None) -> None:
        """Create the topic; a topic that exists with as many partitions is left as it is."""
        ...

    def topics(self) -> list[TopicInfo]:
        """Return all topics, by name."""
        ...

    def topic(self, topic: str) -> TopicInfo:
        """Return one topic; raises :class:`~streamlstm.errors.TopicMissing`."""
        ...

    def append(self, topic: str, records: Sequence[NewRecord]) -> None:
        """Append records; they are durable on return. After an error some may be there."""
        ...

    def read(self, topic: str, partition: int, offset: int, max_records: int) -> list[Record]:
        """Return committed records from ``offset`` on, at most ``max_records``, maybe none.

        Raises :class:`~streamlstm.errors.OffsetExpired` if ``offset`` was removed by retention.
        """
        ...

    def offset_at(self, topic: str, partition: int, timestamp_ms: int) -> int:
        """Return the first offset that the log took at or after this time; the end if there is none."""
        ...

    def read_states(
        self, topic: str, group: str, keys: Iterable[tuple[int, bytes]]
    ) -> Mapping[tuple[int, bytes], bytes]:
        """Return the committed state of those (partition, key) pairs that have one; for looking only."""
        ...

    def open_session(self, topic: str, group: str) -> ScorerSession:
        """Claim partitions of the topic for scoring under ``group``; no two sessions of a group share one.

        SQLite claims all at once, or raises :class:`~streamlstm.errors.PartitionBusy` if a live process has them;
        Kafka spreads them over the live sessions, as they poll.
        """
        ...

    def close(self) -> None:
        """Release files and connections."""
        ...


def check_offset(topic: str, partition: int, offset: int, start: int, end: int) -> None:
    """Refuse to go on at an offset that is not kept; ``start`` and ``end`` are the first kept and the next new one."""
    if offset < start:
        raise OffsetExpired(
            f"topic {topic!r} partition {partition}: offset {offset} was removed by retention, the first one kept "
            f"is {start}; {start - offset} records are lost. Give the topic a longer retention, and continue "
            "under a new --group"
        )
    if offset > end:
        raise LogError(
            f"topic {topic!r} partition {partition}: offset {offset} lies after the end, {end}: was the topic "
            "made anew? Use a new --group"
        )
