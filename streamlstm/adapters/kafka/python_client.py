"""The Kafka log's default client: kafka-python.

Found in its source (3.0.12) and on a real broker:

- ``commit_transaction`` and its like wait for ever. What they begin is begun here, and waited for as long as a broker
  lets a transaction be open. How it ended is found out when the next one is opened.
- ``close`` flushes first, and raises if that takes too long. So pending records are given up before.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError

from streamlstm.adapters.kafka.client import Clients, Committed, Written
from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.adapters.kafka.faults import Access, cause_of, translated
from streamlstm.adapters.kafka.python_member import PythonMember, to_record
from streamlstm.adapters.kafka.python_options import (
    FETCH_BYTES,
    RETRY_BACKOFF_MS,
    TRANSACTION_TIMEOUT_MS,
    client_options,
    producer_options,
)
from streamlstm.core.log import NewRecord, Record
from streamlstm.errors import LogUnavailable

READ_WAIT_MS = 100
ABORT_MS = 2_000


class PythonTransactions:
    """:class:`~streamlstm.adapters.kafka.client.Transactions`."""

    def __init__(self, config: KafkaConfig, transactional_id: str, topic: str) -> None:
        self._config, self._topic = config, topic
        self._access = Access(topic, transactional_id=transactional_id)
        self._futures: list[Any] = []
        self._known: set[str] = set()  # topics that a committed transaction wrote to …
        self._written: set[str] = set()  # … and those of this one
        with translated(config, f"begin transactions as {transactional_id!r}", self._access):
            self._producer = KafkaProducer(
                **producer_options(
                    config,
                    transactional_id=transactional_id,
                    transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
                    retry_backoff_ms=RETRY_BACKOFF_MS,
                )
            )
            try:
                self._producer.init_transactions()
            except BaseException:
                self.close()
                raise

    def begin(self, places: Mapping[str, Set[int]]) -> None:
        """Begin a transaction that will write to these partitions of topics.

        They are added to it before the first record wakes the client's thread: that would ask the broker for those
        it finds, wait for the answer, and ask again for the others. Only those that are there: it would ask for ever.
        """
        self._futures.clear()
        self._written.clear()
        with translated(self._config, "begin a transaction", self._access):
            self._producer.begin_transaction()
        for topic in self._known & places.keys():
            with translated(self._config, f"write to topic {topic!r}", self._access):
                for partition in places[topic] & self._producer.partitions_for(topic):
                    place = TopicPartition(topic, partition)
                    self._manager.maybe_add_partition_to_transaction(place)

    def write(self, topic: str, records: Iterable[Written]) -> None:
        """Add records."""
        send, sent = self._producer.send, self._futures.append
        with translated(self._config, f"write to topic {topic!r}", self._access):
            for partition, key, value, headers in records:
                sent(send(topic, value, key, list(headers), partition))
        self._written.add(topic)

    def send_offsets(self, positions: Mapping[int, Committed], membership: object) -> None:
        """Add the group's positions."""
        offsets = {
            TopicPartition(self._topic, partition): OffsetAndMetadata(place.offset, place.note, -1)
            for partition, place in positions.items()
        }
        with translated(self._config, "add positions to the transaction", self._access), self._reason():
            self._answered(self._manager.send_offsets_to_transaction(offsets, membership))

    def commit(self) -> None:
        """Wait for every record, then commit.

        Each future is looked at: a record that the broker refused is named, and nothing is committed.
        """
        with translated(self._config, "commit the transaction", self._access):
            self._producer.flush(TRANSACTION_TIMEOUT_MS / 1000)
            self._raise_failed()
            with self._reason():
                self._answered(self._manager.begin_commit())
        self._known |= self._written

    def _raise_failed(self) -> None:
        for future in self._futures:
            if future.exception is not None:
                raise future.exception

    @contextmanager
    def _reason(self) -> Iterator[None]:
        """Raise why a transaction has failed: the client may say only that it has, or that a request had no answer."""
        try:
            yield
        except KafkaError as error:
            self._raise_failed()
            if type(cause_of(error)) is KafkaError:
                raise LogUnavailable(f"{self._config.url}: a transaction failed: {error}") from error
            raise

    def abort(self) -> None:
        """Abort the transaction; where a broker is away, it does so itself when the time of the transaction is over."""
        with translated(self._config, "abort the transaction", self._access):
            self._answered(self._manager.begin_abort(), ABORT_MS)

    def end_again(self, places: Mapping[str, Set[int]], group: str, *, commit: bool) -> None:
        """Begin and end a transaction without records, so that its mark is written to these partitions of topics, and
        to where the positions of the group are kept."""
        self._known |= places.keys()
        self.begin(places)
        with translated(self._config, "end the last transaction again", self._access):
            self._answered(self._manager.send_offsets_to_transaction({}, group))  # and so those before it
            added = {(place.topic, place.partition) for place in self._manager._partitions_in_transaction}
            self._answered(self._manager.begin_commit() if commit else self._manager.begin_abort())
        missing = {(topic, partition) for topic, partitions in places.items() for partition in partitions} - added
        if missing:
            raise LogUnavailable(f"{self._config.url}: not all partitions could be added to a transaction yet")

    @property
    def _manager(self) -> Any:
        return self._producer._transaction_manager

    def _answered(self, result: Any, wait_ms: int = TRANSACTION_TIMEOUT_MS) -> None:
        """Wait for an answer; the producer's own methods would wait for ever."""
        self._producer._sender.wakeup()
        if not result.wait(wait_ms):
            raise LogUnavailable(f"{self._config.url}: no answer about a transaction")

    def close(self) -> None:
        """Close without waiting for a broker that may be gone."""
        self._producer._sender.force_close()
        with suppress(KafkaTimeoutError):  # its thread comes to its end by itself
            self._producer.close(timeout=1)


class PythonReader:
    """A :class:`~streamlstm.adapters.kafka.client.Reader`."""

    def __init__(self, config: KafkaConfig, topic: str) -> None:
        self._config, self._topic, self._access = config, topic, Access(topic)
        with translated(config, f"read topic {topic!r}", self._access):
            self._consumer = KafkaConsumer(
                **client_options(
                    config,
                    KafkaConsumer,
                    isolation_level="read_committed",
                    enable_auto_commit=False,
                    auto_offset_reset="none",
                    max_partition_fetch_bytes=FETCH_BYTES,
                    max_poll_records=5_000,
                )
            )

    def read(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[Sequence[Record]]:
        """Yield batches until each position is at its end; see the protocol.

        The position is what counts, not the last record: transactions leave marks behind that are no records.
        """
        waiting = {
            TopicPartition(self._topic, partition) for partition in starts if starts[partition] < ends[partition]
        }
        consumer = self._consumer
        consumer.assign(list(waiting))
        for place in waiting:
            consumer.seek(place, starts[place.partition])
        while waiting:
            with translated(self._config, f"read topic {self._topic!r}", self._access):
                polled = consumer.poll(timeout_ms=READ_WAIT_MS)
                waiting = {place for place in waiting if consumer.position(place) < ends[place.partition]}
            yield [
                to_record(record)
                for record in itertools.chain.from_iterable(polled.values())
                if record.offset < ends[record.partition]
            ]

    def close(self) -> None:
        """Close."""
        self._consumer.close(timeout_ms=1_000)


class PythonAppender:
    """An :class:`~streamlstm.adapters.kafka.client.Appender`."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        with translated(config, "connect"):
            self._producer = KafkaProducer(**producer_options(config))

    def append(self, topic: str, records: Sequence[NewRecord]) -> None:
        """Append records; see the protocol."""
        with translated(self._config, f"append to topic {topic!r}", Access(topic, "Write")):
            send = self._producer.send
            sent = [send(topic, r.value, r.key, list(r.headers), r.partition) for r in records]
            self._producer.flush()
            for future in sent:
                if future.failed():
                    raise future.exception

    def close(self) -> None:
        """Close."""
        self._producer.close(timeout=5)


CLIENTS = Clients(PythonMember, PythonTransactions, PythonReader, PythonAppender)
