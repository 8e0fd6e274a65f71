"""The Kafka log's faster client: confluent-kafka, which is librdkafka. ``pip install 'streamlstm[confluent]'``.

Found with librdkafka 2.16 on a real broker, and why things are as they are here:

- ``flush`` after a fatal error raises a SystemError; ``commit_transaction`` then says what it was.
- A producer creates missing topics where the broker lets it, and cannot be told not to.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, closing, suppress

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from streamlstm.adapters.kafka.client import Clients, Committed, Written
from streamlstm.adapters.kafka.cluster import Cluster
from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.adapters.kafka.confluent_member import WAIT_S, ConfluentMember, batch, new_consumer, to_record
from streamlstm.adapters.kafka.confluent_options import OF_PRODUCERS, Voice, options_of, understood
from streamlstm.adapters.kafka.faults import Access
from streamlstm.adapters.kafka.python_options import MAX_REQUEST_BYTES, TRANSACTION_TIMEOUT_MS
from streamlstm.core.log import Headers, NewRecord, Record

READ_RECORDS = 5_000
RETRY_BACKOFF_MS = 5  # at the default, 100, a transaction of 10 records takes 119 ms; at 1 to 5, 5 to 10 ms
DELIVERY_TIMEOUT_MS = 120_000
ANSWER_S = 30.0
CLOSE_S = 5.0  # for a producer to come to its end; then it is left to itself


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
        self._consumer = new_consumer(config, {"group.id": f"{topic}.reader"})

    def read(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[Sequence[Record]]:
        """Yield batches until each position is at its end; see the protocol."""
        waiting = {partition for partition in starts if starts[partition] < ends[partition]}
        with self._understood():
            self._consumer.assign([TopicPartition(self._topic, partition, starts[partition]) for partition in waiting])
        while waiting:
            with self._understood():
                records, reached = self._taken_from(batch(self._consumer, READ_RECORDS, WAIT_S), ends)
                if done := waiting & reached:
                    self._consumer.incremental_unassign([TopicPartition(self._topic, partition) for partition in done])
                    waiting -= done
            yield records

    def _taken_from(self, messages: Sequence[Message], ends: Mapping[int, int]) -> tuple[list[Record], set[int]]:
        """Return the records before the ends, and the partitions whose end is reached."""
        records, positions = [], {}
        for message in messages:
            error = message.error()
            if error is None:
                record = to_record(message)
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


CLIENTS = Clients(ConfluentMember, ConfluentTransactions, ConfluentReader, ConfluentAppender)
