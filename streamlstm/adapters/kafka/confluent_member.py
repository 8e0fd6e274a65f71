"""A member of a group by confluent-kafka, and what its readers share with it: options, batches, records.

Found with librdkafka 2.16 on a real broker, and why things are as they are here:

- A member that did not poll for ``max.poll.interval.ms`` loses its member id at once and keeps its generation, so that
  the broker refuses a commit with it (kafka-python's then has generation -1, which the broker accepts). Only one that
  never joined has -1. A membership without an id is never returned, so that neither matters.
- A static member that was replaced is told so once, as an error among the records; then it hears nothing for ever. So
  is one without an answer for as long as the session time-out: it forgets its name, sends a heartbeat without one, and
  takes the broker's refusal for being replaced. So what the group says counts, and a member nobody replaced joins anew.
- ``consume(n, timeout)`` waits until there are n records. So take what is there, and wait only for the first.
- A partition that was paused delivers up to a second after it was resumed. So none is paused: what the group gives is
  assigned, that is fetched, when its records are wanted, and at its position.
- ``position()`` knows records only. How far the marks of transactions go is told by end-of-partition events.
- ``close`` hangs where an assignment waits to be taken (librdkafka issue 4884). So give everything back first.
- The broker answers a connection's requests one after another, and one that joins when the whole group has joined. So
  positions are asked for over a connection that never joins; over the member's, a slow other one held them up.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import AbstractContextManager, suppress
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streamlstm.adapters.kafka.client import Changes, Committed
from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.adapters.kafka.confluent_options import OF_CONSUMERS, Voice, options_of, understood
from streamlstm.adapters.kafka.faults import Access
from streamlstm.adapters.kafka.python_member import (
    MAX_POLL_INTERVAL_MS,
    SESSION_TIMEOUT_MS,
    STABLE_MS,
    displaced_by,
    leave_group,
)
from streamlstm.adapters.kafka.python_options import FETCH_BYTES
from streamlstm.core.log import Record
from streamlstm.errors import LogError

WAIT_S = 0.1  # at a time: a wait hears no signal, and does not end when partitions come
FETCH_WAIT_MS = 100  # a seek at the end of a topic waits for the fetch under way
QUEUE_BACKOFF_MS = 20  # at the default, 1000, a fast reader waits for most of a second whenever the queue was full
PROBE_S = 5.0
GENERATION = struct.Struct("=7si")  # a membership begins with a mark and the generation
MARK = b"CGMDv2:"

logger = structlog.get_logger()


def new_consumer(config: KafkaConfig, ours: Mapping[str, object]) -> Consumer:
    """Connect a consumer: the user's options, and ours over them."""
    options = {
        "fetch.wait.max.ms": FETCH_WAIT_MS,
        **options_of(config, OF_CONSUMERS),
        **Voice(config).options(),
        "isolation.level": "read_committed",  # also asks for positions that no open transaction may move
        "enable.auto.commit": "false",
        "auto.offset.reset": "error",  # skipping what retention took would be silent loss
        "enable.partition.eof": "true",
        "fetch.message.max.bytes": FETCH_BYTES,
        "fetch.queue.backoff.ms": QUEUE_BACKOFF_MS,
        **ours,
    }
    with understood(config, "connect", Access()):
        return Consumer(options)


def batch(consumer: Consumer, most: int, wait_s: float) -> list[Message]:
    """Return what is there; if that is nothing, wait for it."""
    messages = consumer.consume(most, 0)
    if not messages and wait_s > 0:
        messages = consumer.consume(1, wait_s)
        if messages and most > 1:
            messages += consumer.consume(most - 1, 0)
    return messages


def to_record(message: Message) -> Record:
    """Return a record as the log's readers have it."""
    headers: Any = message.headers()
    kept = tuple((name, value or b"") for name, value in headers) if headers else ()
    place = message.topic(), message.partition(), message.offset(), message.timestamp()[1]
    value = message.value() or b""  # a deleted value reads as an empty one
    return Record._make((*place, message.key(), value, kept))  # by names it would take longer


class ConfluentMember:
    """A :class:`~streamlstm.adapters.kafka.client.Member`."""

    def __init__(self, config: KafkaConfig, group: str, topic: str) -> None:
        self._config, self._group, self._topic = config, group, topic
        self._access = Access(topic, group=group)
        self._owned: set[int] = set()
        self._given: set[int] = set()  # since they were last asked for …
        self._taken: set[int] = set()  # … the changes
        self._resumed: set[int] = set()  # polls return their records …
        self._fetched: set[int] = set()  # … once they are fetched
        self._positions: dict[int, int] = {}
        self._member_id = ""  # the last that was valid
        self._fatal: KafkaError | None = None
        self._outsider = new_consumer(config, {"group.id": group})
        self._consumer = self._join()

    def _join(self) -> Consumer:
        config, session_timeout_ms = self._config, self._config.session_timeout_ms or SESSION_TIMEOUT_MS
        consumer = new_consumer(
            config,
            {
                "group.id": self._group,
                "group.instance.id": config.instance,  # a restart within the session time-out moves nothing
                "partition.assignment.strategy": "cooperative-sticky",  # others keep theirs on a rebalance
                "session.timeout.ms": session_timeout_ms,
                "heartbeat.interval.ms": session_timeout_ms // 6,
                "max.poll.interval.ms": max(config.max_poll_interval_ms or MAX_POLL_INTERVAL_MS, session_timeout_ms),
                "topic.metadata.refresh.interval.ms": 10_000,  # new partitions are seen within this time
            },
        )
        consumer.subscribe([self._topic], on_assign=self._assign, on_revoke=self._revoke, on_lost=self._revoke)
        return consumer

    def _assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        """Note what came. Nothing is fetched of it until :meth:`resume`."""
        consumer.incremental_assign([])
        for place in assigned:
            self._owned.add(place.partition)
            self._given.add(place.partition)
            self._taken.discard(place.partition)

    def _revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        """Note what is gone, and fetch no more of it."""
        consumer.incremental_unassign([place for place in revoked if place.partition in self._fetched])
        self._forget({place.partition for place in revoked})

    def _forget(self, gone: Set[int]) -> None:
        self._taken |= gone
        for partitions in (self._owned, self._given, self._resumed, self._fetched):
            partitions -= gone

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """Return the next records; see the protocol. Returns early when partitions come or go."""
        until_s = time.monotonic() + timeout_s
        self._outsider.poll(0)  # what it has to say would stay in memory
        if self._fatal is not None:
            self._join_anew(self._fatal)
        with self._understood(f"read topic {self._topic!r}"):
            self._fetch(self._resumed if max_records else set())
            while True:
                now_s = time.monotonic()
                records = self._taken_from(batch(self._consumer, max(1, max_records), min(until_s - now_s, WAIT_S)))
                if records or self._given or self._taken or now_s >= until_s:
                    return records

    def _fetch(self, wanted: set[int]) -> None:
        """Fetch these partitions from their positions on, and no others."""
        if stopped := self._fetched - wanted:
            self._consumer.incremental_unassign([TopicPartition(self._topic, partition) for partition in stopped])
        if started := wanted - self._fetched:
            self._consumer.incremental_assign([TopicPartition(self._topic, p, self._positions[p]) for p in started])
        self._fetched = set(wanted)

    def _join_anew(self, fatal: KafkaError) -> None:
        """Join as another member where this one has come to its end; raises if another process has its place."""
        with self._understood(f"be in group {self._group!r}"):
            if not self._member_id or self.displaced_by():
                raise KafkaException(fatal)
        logger.warning("out of its group, joins anew", group=self._group, says=fatal.str())
        self._drop()
        self._consumer, self._fatal = self._join(), None

    def _taken_from(self, messages: Sequence[Message]) -> list[Record]:
        """Return the records among what came, and heed the rest."""
        records = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(to_record(message))
            elif error.code() == KafkaError._PARTITION_EOF:
                self._positions[message.partition()] = message.offset()  # type: ignore[index, assignment]
            elif error.code() == KafkaError._FATAL:  # of a consumer, there is one kind
                self._fatal = KafkaError(KafkaError.FENCED_INSTANCE_ID, error.str())
                self._forget(set(self._owned))
                return []
            elif error.code() != KafkaError._MAX_POLL_EXCEEDED:  # that it lost all, it is told apart
                raise KafkaException(error)
        self._positions |= {record.partition: record.offset + 1 for record in records}
        return records

    def changes(self) -> Changes:
        """Return what polls gave and took since this was last asked."""
        changes = Changes(self._given, self._taken)
        self._given, self._taken = set(), set()
        return changes

    def membership(self) -> object | None:
        """Return a snapshot of the membership, or None while there is no valid one."""
        metadata: bytes = self._consumer.consumer_group_metadata()
        mark, generation = GENERATION.unpack_from(metadata)
        if mark != MARK:
            raise LogError("this confluent-kafka writes group memberships in another form; install another version")
        _, member_id, _ = metadata[GENERATION.size :].split(b"\0", 2)
        if generation <= 0 or not member_id or self._fatal is not None:
            return None
        self._member_id = member_id.decode()
        return metadata

    def displaced_by(self) -> str | None:
        """Ask the group who has this instance's place."""
        return displaced_by(self._config, self._access, self._member_id)

    def committed(self, partitions: Iterable[int]) -> Mapping[int, Committed]:
        """Return the group's committed positions."""
        places = [TopicPartition(self._topic, partition) for partition in partitions]
        with self._understood(f"read the positions of group {self._group!r}"):
            found = self._outsider.committed(places, timeout=STABLE_MS / 1000)
            for place in found:
                if place.error is not None:
                    raise KafkaException(place.error)
        return {place.partition: Committed(place.offset, place.metadata or "") for place in found if place.offset >= 0}

    def seek(self, partition: int, offset: int) -> None:
        """Continue a partition at an offset, with the next poll."""
        self._positions[partition] = offset
        with self._understood(f"continue topic {self._topic!r}"):
            self._fetch(self._fetched - {partition})

    def position(self, partition: int) -> int:
        """Return the offset that comes next."""
        return self._positions[partition]

    def resume(self, partition: int) -> None:
        """Let polls return records of a partition."""
        self._resumed.add(partition)

    def reachable(self) -> None:
        """Ask for the end offsets; see the protocol."""
        with self._understood(f"reach topic {self._topic!r}"):
            self._consumer.get_watermark_offsets(TopicPartition(self._topic, 0), timeout=PROBE_S)

    def close(self, *, leave: bool) -> None:
        """Close, and leave the group if asked to."""
        self._drop()
        self._outsider.close()
        if leave and self._member_id:
            leave_group(self._config, self._access, self._member_id)

    def _drop(self) -> None:
        with suppress(KafkaException):
            self._give_back()
        self._consumer.close()
        self._forget(set(self._owned))

    def _give_back(self) -> None:
        """Let go of all partitions, and of those that are on their way here."""
        until_s = time.monotonic() + PROBE_S
        self._consumer.consume(1, 0)
        self._consumer.unsubscribe()
        while self._consumer.consume(1, 0.02) or self._consumer.assignment():
            if time.monotonic() > until_s:
                break

    def _understood(self, doing: str) -> AbstractContextManager[None]:
        return understood(self._config, doing, self._access)
