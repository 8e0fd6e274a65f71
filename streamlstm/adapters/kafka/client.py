"""What the Kafka log needs of a client library. Two fill it: ``python_client`` and ``confluent_client``.

All methods raise our own errors: :class:`~streamlstm.errors.LogUnavailable` for a passing fault,
:class:`~streamlstm.errors.Fenced` when another process took over this one's identity, and
:class:`~streamlstm.errors.LogError` for what waiting does not mend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.core.log import Headers, NewRecord, Record


class Committed(NamedTuple):
    """A group's committed position in a partition: the next offset to read, and a note of ours."""

    offset: int
    note: str


@dataclass
class Changes:
    """Partitions that a poll gave to this member of the group, and those it took away."""

    given: set[int]
    taken: set[int]


class Member(Protocol):
    """A member of a consumer group on one topic. It reads ``read_committed`` and never commits by itself.

    A partition that was given is paused until :meth:`seek` and :meth:`resume`. Used by one thread.
    """

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """Return records of the partitions that are not paused; no record is taken if ``max_records`` is 0.

        Raises :class:`~streamlstm.errors.OffsetExpired` where retention overtook the position.
        """
        ...

    def changes(self) -> Changes:
        """Return what polls gave and took since this was last asked."""
        ...

    def membership(self) -> object | None:
        """Return this membership as the broker knows it now, to fence a commit with; None if it is not valid."""
        ...

    def displaced_by(self) -> str | None:
        """Return who has this one's place in the group, a process that runs as the same instance; None if it has it."""
        ...

    def committed(self, partitions: Iterable[int]) -> Mapping[int, Committed]:
        """Return the group's committed positions, as far as there are any.

        Raises :class:`~streamlstm.errors.LogUnavailable` soon where a transaction is open that may move one.
        """
        ...

    def seek(self, partition: int, offset: int) -> None:
        """Continue a partition at an offset."""
        ...

    def position(self, partition: int) -> int:
        """Return the offset that comes next."""
        ...

    def resume(self, partition: int) -> None:
        """Let polls return records of a partition."""
        ...

    def reachable(self) -> None:
        """Ask the cluster for a sign of life; raises :class:`~streamlstm.errors.LogUnavailable` without one."""
        ...

    def close(self, *, leave: bool) -> None:
        """Close; with ``leave``, others get the partitions at once instead of after the session time-out."""
        ...


Written = tuple[int, bytes | None, bytes | None, Headers]  # partition, key, value, headers


class Transactions(Protocol):
    """A transactional producer. Opening one ends what an earlier one of the same id left behind."""

    def begin(self, places: Mapping[str, Set[int]]) -> None:
        """Begin a transaction that will write to these partitions of topics."""
        ...

    def write(self, topic: str, records: Iterable[Written]) -> None:
        """Add records; a value of None deletes the key from a compacted topic."""
        ...

    def send_offsets(self, positions: Mapping[int, Committed], membership: object) -> None:
        """Add the group's positions, fenced by a membership. Waits for the answer."""
        ...

    def commit(self) -> None:
        """Wait for every record, then commit. After an error the outcome is unknown until a new one is opened."""
        ...

    def abort(self) -> None:
        """Abort the transaction."""
        ...

    def close(self) -> None:
        """Close, at once."""
        ...


class Reader(Protocol):
    """A reader of one topic outside any group, ``read_committed``."""

    def read(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[Sequence[Record]]:
        """Yield batches of the partitions of ``starts`` from those offsets on, until each position is at its end.

        ``ends`` count transactions that are still open: their end is waited for. A batch may be
        empty, so that the caller can do other things; at least one comes every 0.1 s. Values may be None (deleted).
        """
        ...

    def close(self) -> None:
        """Close."""
        ...


class Appender(Protocol):
    """An idempotent producer that loses nothing it acknowledged."""

    def append(self, topic: str, records: Sequence[NewRecord]) -> None:
        """Append records; they are on all in-sync replicas on return. After an error some may be there."""
        ...

    def close(self) -> None:
        """Close."""
        ...


class Clients(NamedTuple):
    """How a library's clients are connected."""

    member: Callable[[KafkaConfig, str, str], Member]  # of a group, on a topic
    transactions: Callable[[KafkaConfig, str, str], Transactions]  # under an id, with positions in a topic
    reader: Callable[[KafkaConfig, str], Reader]  # of a topic
    appender: Callable[[KafkaConfig], Appender]
