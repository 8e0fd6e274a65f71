"""The Kafka log's faster client: confluent-kafka, which is librdkafka. ``pip install 'streamlstm[confluent]'``.

Found with librdkafka 2.16 on a real broker, and why things are as they are here:

- A member that did not poll for ``max.poll.interval.ms`` loses its member id at once and keeps its generation, so that
  the broker refuses a commit with it (kafka-python's then has generation -1, which the broker accepts). Only one that
  never joined has -1. A membership without an id is never returned, so that neither matters.
- A static member that was replaced is told so once, as an error among the records; then it hears nothing for ever.
- ``consume(n, timeout)`` waits until there are n records. So take what is there, and wait only for the first.
- A partition that was paused delivers up to a second after it was resumed. So none is paused: what the group gives is
  assigned, that is fetched, when its records are wanted, and at its position.
- ``position()`` knows records only. How far the marks of transactions go is told by end-of-partition events.
- ``close`` hangs where an assignment waits to be taken (librdkafka issue 4884). So give everything back first.
- ``flush`` after a fatal error raises a SystemError; ``commit_transaction`` then says what it was.
- A producer creates missing topics where the broker lets it, and cannot be told not to.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, closing, suppress
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from streamlstm.adapters.kafka.client import Changes, Clients, Committed, Written
from streamlstm.adapters.kafka.cluster import Cluster
from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.adapters.kafka.confluent_options import OF_CONSUMERS, OF_PRODUCERS, Voice, options_of, understood
from streamlstm.adapters.kafka.faults import Access
from streamlstm.adapters.kafka.python_member import MAX_POLL_INTERVAL_MS, SESSION_TIMEOUT_MS, displaced_by, leave_group
from streamlstm.adapters.kafka.python_options import FETCH_BYTES, MAX_REQUEST_BYTES, TRANSACTION_TIMEOUT_MS
from streamlstm.core.log import Headers, NewRecord, Record
from streamlstm.errors import LogError

READ_RECORDS = 5_000
WAIT_S = 0.1  # at a time: a wait hears no signal, and does not end when partitions come
RETRY_BACKOFF_MS = 5  # at the default, 100, a transaction of 10 records takes 119 ms; at 1 to 5, 5 to 10 ms
FETCH_WAIT_MS = 100  # a seek at the end of a topic waits for the fetch under way
QUEUE_BACKOFF_MS = 20  # at the default, 1000, a fast reader waits for most of a second whenever the queue was full
DELIVERY_TIMEOUT_MS = 120_000
ANSWER_S = 30.0
PROBE_S = 5.0
CLOSE_S = 5.0  # for a producer to come to its end; then it is left to itself
GENERATION = struct.Struct("=7si")  # a membership begins with a mark and the generation
MARK = b"CGMDv2:"


def _consumer(config: KafkaConfig, ours: Mapping[str, object]) -> Consumer:
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


def _producer(config: KafkaConfig, ours: Mapping[str, object]) -> Producer:
    options = {
        **options_of(config, OF_PRODUCERS),
        **Voice(config).options(),
        "acks": "all",
        "enable.idempotence": "true",
        "message.max.bytes": MAX_REQUEST_BYTES,
        "retry.backoff.ms": RETRY_BACKOFF_MS,
        "partitioner": "murmur2_random",  # as kafka-python and Java: a key stays in its partition, whoever writes it
        "delivery.report.only.error": True,
        **ours,
    }
    with understood(config, "connect", Access()):
        return Producer(options)


class ConfluentMember:
    """A :class:`~streamlstm.adapters.kafka.client.Member`."""

    def __init__(self, config: KafkaConfig, group: str, topic: str) -> None:
        self._config, self._group, self._topic = config, group, topic
        self._access = Access(topic, group=group)
        self._given: set[int] = set()
        self._taken: set[int] = set()
        self._resumed: set[int] = set()  # polls return their records …
        self._fetched: set[int] = set()  # … once they are fetched
        self._positions: dict[int, int] = {}
        self._member_id = ""  # the last that was valid
        self._fenced: KafkaError | None = None
        session_timeout_ms = config.session_timeout_ms or SESSION_TIMEOUT_MS
        self._consumer = _consumer(
            config,
            {
                "group.id": group,
                "group.instance.id": config.instance,  # a restart within the session time-out moves nothing
                "partition.assignment.strategy": "cooperative-sticky",  # others keep theirs on a rebalance
                "session.timeout.ms": session_timeout_ms,
                "heartbeat.interval.ms": session_timeout_ms // 6,
                "max.poll.interval.ms": max(config.max_poll_interval_ms or MAX_POLL_INTERVAL_MS, session_timeout_ms),
                "topic.metadata.refresh.interval.ms": 10_000,  # new partitions are seen within this time
            },
        )
        self._consumer.subscribe([topic], on_assign=self._assign, on_revoke=self._revoke, on_lost=self._revoke)

    def _assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        """Note what came. Nothing is fetched of it until :meth:`resume`."""
        consumer.incremental_assign([])
        for place in assigned:
            self._given.add(place.partition)
            self._taken.discard(place.partition)

    def _revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        """Note what is gone, and fetch no more of it."""
        consumer.incremental_unassign([place for place in revoked if place.partition in self._fetched])
        for place in revoked:
            self._taken.add(place.partition)
            self._given.discard(place.partition)
            self._resumed.discard(place.partition)
            self._fetched.discard(place.partition)

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """Return the next records; see the protocol. Returns early when partitions come or go."""
        until_s = time.monotonic() + timeout_s
        with self._understood(f"read topic {self._topic!r}"):
            self._fetch(self._resumed if max_records else set())
            while True:
                now_s = time.monotonic()
                records = self._taken_from(_batch(self._consumer, max(1, max_records), min(until_s - now_s, WAIT_S)))
                if records or self._given or self._taken or now_s >= until_s:
                    return records

    def _fetch(self, wanted: set[int]) -> None:
        """Fetch these partitions from their positions on, and no others."""
        if stopped := self._fetched - wanted:
            self._consumer.incremental_unassign([TopicPartition(self._topic, partition) for partition in stopped])
        if started := wanted - self._fetched:
            self._consumer.incremental_assign([TopicPartition(self._topic, p, self._positions[p]) for p in started])
        self._fetched = set(wanted)

    def _taken_from(self, messages: Sequence[Message]) -> list[Record]:
        """Return the records among what came, and heed the rest."""
        if self._fenced is not None:
            raise KafkaException(self._fenced)
        records = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(_record(message))
            elif error.code() == KafkaError._PARTITION_EOF:
                self._positions[message.partition()] = message.offset()  # type: ignore[index, assignment]
            elif error.code() == KafkaError._FATAL:  # of a consumer, there is one kind
                self._fenced = KafkaError(KafkaError.FENCED_INSTANCE_ID, error.str())
                raise KafkaException(self._fenced)
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
        if generation <= 0 or not member_id or self._fenced is not None:
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
            found = self._consumer.committed(places, timeout=ANSWER_S)
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
        with suppress(KafkaException):
            self._give_back()
        self._consumer.close()
        if leave and self._member_id:
            leave_group(self._config, self._access, self._member_id)

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


class ConfluentTransactions:
    """:class:`~streamlstm.adapters.kafka.client.Transactions`."""

    def __init__(self, config: KafkaConfig, transactional_id: str, topic: str) -> None:
        self._config, self._topic = config, topic
        self._access = Access(topic, transactional_id=transactional_id)
        self._refused: list[tuple[KafkaError, str]] = []
        self._topics: set[str] = set()
        self._producer = _producer(
            config,
            {
                "transactional.id": transactional_id,
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                "on_delivery": self._refuse,
            },
        )
        try:
            with self._understood(f"begin transactions as {transactional_id!r}"):
                self._producer.init_transactions(TRANSACTION_TIMEOUT_MS / 1000)
        except BaseException:
            self.close()
            raise

    def begin(self, _: Mapping[str, Set[int]]) -> None:
        """Begin a transaction; librdkafka adds partitions together by itself."""
        self._refused.clear()
        with self._understood("begin a transaction"):
            self._producer.begin_transaction()

    def write(self, topic: str, records: Iterable[Written]) -> None:
        """Add records."""
        with self._understood(f"write to topic {topic!r}"):
            if topic not in self._topics:
                self._look_up(topic)
            for partition, key, value, headers in records:
                _produce(self._producer, topic, partition, key, value, headers)

    def send_offsets(self, positions: Mapping[int, Committed], membership: object) -> None:
        """Add the group's positions."""
        offsets = [
            TopicPartition(self._topic, partition, place.offset, metadata=place.note)
            for partition, place in positions.items()
        ]
        with self._understood("add positions to the transaction"):
            try:
                self._producer.send_offsets_to_transaction(offsets, membership, TRANSACTION_TIMEOUT_MS / 1000)
            except KafkaException:
                self._raise_refused()  # it may only say that the transaction has failed, not why
                raise

    def commit(self) -> None:
        """Wait for every record, then commit.

        A record that the broker refused is named, and nothing is committed.
        """
        with suppress(SystemError):
            self._producer.flush(TRANSACTION_TIMEOUT_MS / 1000)
        self._raise_refused()
        with self._understood("commit the transaction"):
            self._producer.commit_transaction(TRANSACTION_TIMEOUT_MS / 1000)

    def abort(self) -> None:
        """Abort the transaction."""
        with self._understood("abort the transaction"):
            self._producer.abort_transaction(TRANSACTION_TIMEOUT_MS / 1000)

    def close(self) -> None:
        """Close without waiting for a broker that may be gone: while one hangs, librdkafka does not come to an end."""

        def close() -> None:
            with suppress(SystemError):
                self._producer.purge()
            with suppress(KafkaException):  # what was fatal to it, which was told
                self._producer.close()

        beside = threading.Thread(target=close, name="close", daemon=True)
        beside.start()
        beside.join(CLOSE_S)

    def _refuse(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._refused.append((error, message.topic() or ""))

    def _raise_refused(self) -> None:
        for error, topic in self._refused:
            with understood(self._config, f"write to topic {topic!r}", Access(topic, "Write")):
                raise KafkaException(error)

    def _look_up(self, topic: str) -> None:
        """Refuse a topic that is not there: sending to it would create it, with the broker's defaults."""
        self._topics = set(self._producer.list_topics(timeout=ANSWER_S).topics)
        if topic not in self._topics:
            with closing(Cluster(self._config)) as cluster:
                cluster.partitions(topic)  # raises, and says why

    def _understood(self, doing: str) -> AbstractContextManager[None]:
        return understood(self._config, doing, self._access)


class ConfluentReader:
    """A :class:`~streamlstm.adapters.kafka.client.Reader`."""

    def __init__(self, config: KafkaConfig, topic: str) -> None:
        self._config, self._topic = config, topic
        # librdkafka wants a group to assign partitions; nothing is ever joined or committed under this name.
        self._consumer = _consumer(config, {"group.id": f"{topic}.reader"})

    def read(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[Sequence[Record]]:
        """Yield batches until each position is at its end; see the protocol."""
        waiting = {partition for partition in starts if starts[partition] < ends[partition]}
        with self._understood():
            self._consumer.assign([TopicPartition(self._topic, partition, starts[partition]) for partition in waiting])
        while waiting:
            with self._understood():
                batch, reached = self._taken_from(_batch(self._consumer, READ_RECORDS, WAIT_S), ends)
                if done := waiting & reached:
                    self._consumer.incremental_unassign([TopicPartition(self._topic, partition) for partition in done])
                    waiting -= done
            yield batch

    def _taken_from(self, messages: Sequence[Message], ends: Mapping[int, int]) -> tuple[list[Record], set[int]]:
        """Return the records before the ends, and the partitions whose end is reached."""
        records, positions = [], {}
        for message in messages:
            error = message.error()
            if error is None:
                record = _record(message)
                positions[record.partition] = record.offset + 1
                if record.offset < ends[record.partition]:
                    records.append(record)
            elif error.code() == KafkaError._PARTITION_EOF:
                positions[message.partition()] = message.offset()  # type: ignore[index, assignment]
            elif error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:  # there is no group to be used
                raise KafkaException(error)
        return records, {partition for partition, position in positions.items() if position >= ends[partition]}

    def close(self) -> None:
        """Close."""
        self._consumer.close()

    def _understood(self) -> AbstractContextManager[None]:
        return understood(self._config, f"read topic {self._topic!r}", Access(self._topic))


class ConfluentAppender:
    """An :class:`~streamlstm.adapters.kafka.client.Appender`."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._refused: list[KafkaError] = []
        self._producer = _producer(config, {"message.timeout.ms": DELIVERY_TIMEOUT_MS, "on_delivery": self._refuse})

    def append(self, topic: str, records: Sequence[NewRecord]) -> None:
        """Append records to a topic that exists; see the protocol."""
        self._refused.clear()
        with understood(self._config, f"append to topic {topic!r}", Access(topic, "Write")):
            for record in records:
                partition = -1 if record.partition is None else record.partition
                _produce(self._producer, topic, partition, record.key, record.value, record.headers)
            while self._producer.flush(1.0):  # each record ends, by its time-out at the latest; signals come between
                pass
            if self._refused:
                raise KafkaException(self._refused[0])

    def close(self) -> None:
        """Close."""
        with suppress(KafkaException):
            self._producer.close()

    def _refuse(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._refused.append(error)


def _produce(
    producer: Producer, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Headers
) -> None:
    """Hand a record over; where the queue is full, wait until the broker took some."""
    while True:
        try:
            if headers:
                producer.produce(topic, value, key, partition, headers=list(headers))
            else:
                producer.produce(topic, value, key, partition)
        except BufferError:
            producer.poll(0.1)
        else:
            return


def _batch(consumer: Consumer, most: int, wait_s: float) -> list[Message]:
    """Return what is there; if that is nothing, wait for it."""
    messages = consumer.consume(most, 0)
    if not messages and wait_s > 0:
        messages = consumer.consume(1, wait_s)
        if messages and most > 1:
            messages += consumer.consume(most - 1, 0)
    return messages


def _record(message: Message) -> Record:
    headers: Any = message.headers()
    kept = tuple((name, value or b"") for name, value in headers) if headers else ()
    place = message.topic(), message.partition(), message.offset(), message.timestamp()[1]
    value = message.value() or b""  # a deleted value reads as an empty one
    return Record._make((*place, message.key(), value, kept))  # by names it would take longer


CLIENTS = Clients(ConfluentMember, ConfluentTransactions, ConfluentReader, ConfluentAppender)
