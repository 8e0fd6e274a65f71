"""The Kafka log's default client: kafka-python.

What differs from the library's defaults, and why, stands beside each option. Found in its source (3.0.12) and on a
real broker: rebalance listeners run on the I/O thread, where any blocking call raises, so they only note, pause and
place; ``commit_transaction`` and its like wait for ever, so the caller keeps a watchdog; and a member that was
dropped for not polling holds generation -1, with which the broker would accept its commit: such a
membership is never returned. A member that leads its group, and joins it anew because its topic has grown or came
back, forgets to look for the answer if a poll ends while it waits (:meth:`PythonMember.membership`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import KafkaAdminClient, MemberToRemove
from kafka.codec import has_gzip, has_lz4, has_snappy, has_zstd
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.base import MemberState
from kafka.errors import KafkaError
from kafka.net.sasl.oauth import AbstractTokenProvider

from streamlstm.adapters.kafka.client import Changes, Clients, Committed, Written
from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.adapters.kafka.connections import new_client
from streamlstm.adapters.kafka.faults import Access, cause_of, translated
from streamlstm.adapters.kafka.options import TOKEN
from streamlstm.adapters.kafka.secret import SecretSource
from streamlstm.adapters.kafka.tls import OURS_TO_LOAD, tls_context
from streamlstm.core.log import NewRecord, Record
from streamlstm.errors import LogUnavailable, SettingsError

MAX_REQUEST_BYTES = 8 * 1024 * 1024  # the topic's own limit decides, not the client's 1 MiB
BATCH_BYTES = 256 * 1024  # a poll's records of one partition go in few requests
TRANSACTION_TIMEOUT_MS = 10_000  # a dead process's open transaction holds readers back no longer than this
RETRY_BACKOFF_MS = 10  # at the default, 100, a transaction takes 30 ms instead of 10
SESSION_TIMEOUT_MS = 20_000  # of silence, and another process takes a dead one's partitions
MAX_POLL_INTERVAL_MS = 120_000
FETCH_BYTES = 4 * 1024 * 1024  # per partition: fewer round trips when there is a backlog
READ_WAIT_MS = 100
STABLE_MS = 1_000  # for the group's position in a partition; longer only where a transaction is open
RECONNECT_MS = 1_000  # between tries to reach a broker, at most; at the default, 30 s, an outage ends that much later
CODECS = {"gzip": has_gzip, "snappy": has_snappy, "lz4": has_lz4, "zstd": has_zstd}


class Token(AbstractTokenProvider):  # type: ignore[misc]
    """The token of OAUTHBEARER, read anew for each log-in: somebody else keeps it fresh."""

    def __init__(self, source: SecretSource) -> None:
        super().__init__()
        self._source = source

    def token(self) -> str:
        """Return the token."""
        return self._source.read()


def _options(config: KafkaConfig, of: type, **ours: object) -> dict[str, Any]:
    """Return the user's options, as far as this class of client knows them, and ours over them."""
    given = {name: value for name, value in config.options.items() if name in of.DEFAULT_CONFIG}  # type: ignore[attr-defined]
    if isinstance(source := config.options.get(TOKEN), SecretSource):
        given["sasl_oauth_token_provider"] = Token(source)
    if not set(OURS_TO_LOAD).isdisjoint(config.options):
        given["ssl_context"] = tls_context(config.options)
    return {
        "reconnect_backoff_max_ms": RECONNECT_MS,
        **given,
        "bootstrap_servers": config.servers,
        "kafka_client": partial(new_client, config),
        "allow_auto_create_topics": False,
        **ours,
    }


def producer_options(config: KafkaConfig, **ours: object) -> dict[str, Any]:
    """Return the options of an idempotent producer that loses nothing it acknowledged."""
    codec = config.options.get("compression_type")
    if codec is not None and not CODECS[str(codec)]():
        raise SettingsError(
            f"--log-config: compression_type {codec} needs a package: pip install kafka-python[{codec}]"
        )
    return _options(
        config, KafkaProducer, acks="all", max_request_size=MAX_REQUEST_BYTES, batch_size=BATCH_BYTES, **ours
    )


def admin(config: KafkaConfig) -> KafkaAdminClient:
    """Connect an admin client."""
    options = _options(config, KafkaAdminClient)
    del options["allow_auto_create_topics"]
    with translated(config, "connect"):
        return KafkaAdminClient(**options)


def displaced(config: KafkaConfig, access: Access, member_id: str) -> bool:
    """Ask a group whether this instance's place belongs to another member; who was never a member has none to lose."""
    if not member_id:
        return False
    with translated(config, f"look up group {access.group!r}", access), closing(admin(config)) as client:
        members = client.describe_groups([access.group])[access.group]["members"]
    places = {member["group_instance_id"]: member["member_id"] for member in members}
    return bool(places.get(config.instance, member_id) != member_id)


def leave_group(config: KafkaConfig, access: Access, member_id: str) -> None:
    """Let a static member leave its group; by itself it never does.

    The member id stands beside the instance, else it would be whoever has the instance's place now that leaves.
    """
    with translated(config, f"leave group {access.group!r}", access), closing(admin(config)) as client:
        client.remove_group_members(access.group, [MemberToRemove(member_id, config.instance, "stopped")])


class PythonMember(ConsumerRebalanceListener):  # type: ignore[misc]
    """A :class:`~streamlstm.adapters.kafka.client.Member`."""

    def __init__(self, config: KafkaConfig, group: str, topic: str) -> None:
        self._config, self._group, self._topic = config, group, topic
        self._access = Access(topic, group=group)
        self._given: set[int] = set()
        self._taken: set[int] = set()
        self._member_id = ""  # the last that was valid
        with translated(config, f"join group {group!r}", self._access):
            self._consumer = KafkaConsumer(
                **_options(
                    config,
                    KafkaConsumer,
                    group_id=group,
                    group_instance_id=config.instance,  # a restart within the session time-out moves nothing
                    partition_assignment_strategy=[CooperativeStickyAssignor],  # others keep theirs on a rebalance
                    isolation_level="read_committed",  # also asks for positions that no open transaction may move
                    enable_auto_commit=False,
                    auto_offset_reset="none",  # skipping what retention took would be silent loss
                    session_timeout_ms=config.session_timeout_ms or SESSION_TIMEOUT_MS,
                    heartbeat_interval_ms=(config.session_timeout_ms or SESSION_TIMEOUT_MS) // 6,
                    max_poll_interval_ms=config.max_poll_interval_ms or MAX_POLL_INTERVAL_MS,
                    max_partition_fetch_bytes=FETCH_BYTES,
                    metadata_max_age_ms=10_000,  # new partitions are seen within this time
                )
            )
            try:
                self._subscribe()
            except BaseException:
                self._consumer.close(timeout_ms=0)
                raise

    def _subscribe(self) -> None:
        self._consumer.subscribe([self._topic], listener=self)
        # Else the group's leader may know no partitions of it yet, deal out none, and never look again (3.0.12).
        if not self._consumer.partitions_for_topic(self._topic):
            raise LogUnavailable(f"topic {self._topic!r} is not there yet, or {self._config.principal} may not see it")

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Pause what is new, and give it a place so that the client looks for none."""
        for place in assigned:
            self._consumer.pause(place)
            self._consumer.seek(place, 0)
            self._given.add(place.partition)
            self._taken.discard(place.partition)

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Note what is gone."""
        for place in revoked:
            self._taken.add(place.partition)
            self._given.discard(place.partition)

    on_partitions_lost = on_partitions_revoked

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """Return the next records; see the protocol."""
        consumer = self._consumer
        active = [] if max_records else list(consumer.assignment() - consumer.paused())
        consumer.pause(*active)
        try:
            with translated(self._config, f"read topic {self._topic!r}", self._access):
                polled = consumer.poll(timeout_ms=timeout_s * 1000, max_records=max(1, max_records))
        finally:
            consumer.resume(*(place for place in active if place in consumer.assignment()))
        return [_record(record) for records in polled.values() for record in records]

    def changes(self) -> Changes:
        """Return what polls gave and took since this was last asked."""
        changes = Changes(self._given, self._taken)
        self._given, self._taken = set(), set()
        return changes

    def membership(self) -> object | None:
        """Return a snapshot of the membership, or None while there is no valid one.

        While it joins, the client is told that it is to join: it takes a partition that it has just dealt out for one
        that it has, no longer wants to join, and would be of no generation for ever (3.0.12).
        """
        metadata = self._consumer.group_metadata()
        if metadata.state is MemberState.REBALANCING:
            self._consumer._coordinator.request_rejoin()
        if not (metadata.generation_id > 0 and metadata.member_id and metadata.state is MemberState.STABLE):
            return None
        self._member_id = metadata.member_id
        return metadata  # type: ignore[no-any-return]

    def displaced(self) -> bool:
        """Ask the group who has this instance's place."""
        return displaced(self._config, self._access, self._member_id)

    def committed(self, partitions: Iterable[int]) -> Mapping[int, Committed]:
        """Return the group's committed positions."""
        found = {}
        for partition in partitions:
            with translated(self._config, f"read the positions of group {self._group!r}", self._access):
                position = self._consumer.committed(
                    TopicPartition(self._topic, partition), metadata=True, timeout_ms=STABLE_MS
                )
            if position is not None and position.offset >= 0:
                note = (position.metadata or "").rstrip("\0")  # confluent-kafka writes the string's end too
                found[partition] = Committed(position.offset, note)
        return found

    def seek(self, partition: int, offset: int) -> None:
        """Continue a partition at an offset."""
        self._consumer.seek(TopicPartition(self._topic, partition), offset)

    def position(self, partition: int) -> int:
        """Return the offset that comes next."""
        return int(self._consumer.position(TopicPartition(self._topic, partition), timeout_ms=5_000))

    def resume(self, partition: int) -> None:
        """Let polls return records of a partition."""
        self._consumer.resume(TopicPartition(self._topic, partition))

    def reachable(self) -> None:
        """Ask for an end offset; see the protocol."""
        with translated(self._config, f"reach topic {self._topic!r}", self._access):
            self._consumer.end_offsets([TopicPartition(self._topic, 0)], timeout_ms=5_000)

    def close(self, *, leave: bool) -> None:
        """Close, and leave the group if asked to."""
        try:
            if leave and self._member_id:
                leave_group(self._config, self._access, self._member_id)
        finally:
            self._consumer.close(timeout_ms=5_000)


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
                    self._producer._transaction_manager.maybe_add_partition_to_transaction(place)

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
            self._producer.send_offsets_to_transaction(offsets, membership)

    def commit(self) -> None:
        """Wait for every record, then commit.

        Each future is looked at: a record that the broker refused is named, and nothing is committed.
        """
        with translated(self._config, "commit the transaction", self._access):
            self._producer.flush()
            self._raise_failed()
            with self._reason():
                self._producer.commit_transaction()
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
        """Abort the transaction."""
        with translated(self._config, "abort the transaction", self._access):
            self._producer.abort_transaction()

    def end_again(self, places: Mapping[str, Set[int]], group: str, *, commit: bool) -> None:
        """Begin and end a transaction without records, so that its mark is written to these partitions of topics, and
        to where the positions of the group are kept."""
        self._known |= places.keys()
        self.begin(places)
        manager = self._producer._transaction_manager
        with translated(self._config, "end the last transaction again", self._access):
            self._answered(manager.send_offsets_to_transaction({}, group))  # and so those before it
            added = {(place.topic, place.partition) for place in manager._partitions_in_transaction}
            self._answered(manager.begin_commit() if commit else manager.begin_abort())
        missing = {(topic, partition) for topic, partitions in places.items() for partition in partitions} - added
        if missing:
            raise LogUnavailable(f"{self._config.url}: not all partitions could be added to a transaction yet")

    def _answered(self, result: Any) -> None:
        """Wait for an answer; the producer's own methods would wait for ever."""
        self._producer._sender.wakeup()
        if not result.wait(TRANSACTION_TIMEOUT_MS):
            raise LogUnavailable(f"{self._config.url}: no answer about a transaction")

    def close(self) -> None:
        """Close without waiting for a broker that may be gone."""
        self._producer.close(timeout=1)


class PythonReader:
    """A :class:`~streamlstm.adapters.kafka.client.Reader`."""

    def __init__(self, config: KafkaConfig, topic: str) -> None:
        self._config, self._topic, self._access = config, topic, Access(topic)
        with translated(config, f"read topic {topic!r}", self._access):
            self._consumer = KafkaConsumer(
                **_options(
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
                _record(record)
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


def _record(record: Any) -> Record:
    return Record(
        record.topic,
        record.partition,
        record.offset,
        record.timestamp,
        record.key,
        record.value or b"",  # a deleted value reads as an empty one
        # and an absent header as well; most records have none, and to find that out so costs a third of this
        tuple((name, value or b"") for name, value in record.headers) if record.headers else (),
    )


CLIENTS = Clients(PythonMember, PythonTransactions, PythonReader, PythonAppender)
