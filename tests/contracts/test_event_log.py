"""The contract of the event log, run on every engine: topics, records, and the scorer's transaction."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kafka import TopicPartition

from streamlstm.adapters.kafka import python_client
from streamlstm.adapters.kafka.client import Clients
from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.adapters.kafka.log import KafkaLog
from streamlstm.adapters.kafka.session import KafkaSession
from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.core.commit import Commit, Output, StateRow
from streamlstm.core.log import EventLog, NewRecord, Record, ScorerSession
from streamlstm.errors import Fenced, LogError, OffsetExpired, PartitionBusy, TopicMissing
from tests.kafka_broker import Cluster

TOPIC = "events"
OUTPUTS = ("events.scores", "events.alerts", "events.dead-letters")
RETENTION_S = 60.0
NOW_MS = 1_700_000_000_000


class Engine(Protocol):
    """One engine under test: how to connect to its log, and how to make records old."""

    def open(self) -> EventLog:
        """Open one more connection to the same log; the engine closes it after the test."""
        ...

    def outlive_retention(self, log: EventLog, topic: str) -> None:
        """Let retention take all records of ``topic``; one new record per partition follows them."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


class SqliteEngine:
    """SQLite files in a directory, with a clock that the test moves."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "log.db"
        self._now_ms = NOW_MS
        self._opened: list[SqliteLog] = []

    def open(self) -> EventLog:
        """Connect with the test's clock."""
        self._opened.append(SqliteLog(self._path, clock=lambda: self._now_ms))
        return self._opened[-1]

    def outlive_retention(self, log: EventLog, topic: str) -> None:
        """Move the clock beyond the retention; a record that is appended trims the topic."""
        self._now_ms += int(2000 * RETENTION_S)
        append_to_all(log, topic, b"new")
        self._now_ms += int(1000 * RETENTION_S) - 1
        append_to_all(log, topic, b"newer")

    def close(self) -> None:
        """Close all connections."""
        for log in self._opened:
            log.close()


class Client(KafkaLog):
    """Closes the sessions that a test leaves open: librdkafka's may hang when they are found by the collector."""

    def __init__(self, config: KafkaConfig, clients: Clients) -> None:
        super().__init__(config, clients=clients)
        self._sessions = ExitStack()

    def open_session(self, topic: str, group: str) -> KafkaSession:
        """Open one, and keep it in mind."""
        session = super().open_session(topic, group)
        self._sessions.callback(session.close)
        return session

    def close(self) -> None:
        """Close all."""
        self._sessions.close()
        super().close()


class KafkaEngine:
    """A real broker, emptied afterwards; each connection is another process to it."""

    def __init__(self, broker: Cluster, clients: Clients) -> None:
        self._broker, self._clients = broker, clients
        self._opened: list[Client] = []

    def open(self) -> EventLog:
        """Connect as an instance of its own."""
        config = KafkaConfig((self._broker.bootstrap,), instance=str(len(self._opened)), session_timeout_ms=6_000)
        self._opened.append(Client(config, self._clients))
        return self._opened[-1]

    def outlive_retention(self, log: EventLog, topic: str) -> None:
        """Delete what a topic with a retention holds, as the broker would in time."""
        info = log.topic(topic)
        if info.retention_s is not None:
            ends = {TopicPartition(topic, p): end for p, end in enumerate(info.end_offsets)}
            with closing(self._broker.admin()) as admin:
                admin.delete_records(ends)
        append_to_all(log, topic, b"new")

    def close(self) -> None:
        """Close all connections, and remove all topics, with the groups' positions in them."""
        for log in self._opened:
            log.close()
        with closing(self._broker.admin()) as admin:
            names = [topic["name"] for topic in admin.describe_topics() if not topic["is_internal"]]
            if names:
                admin.delete_topics(names)


def sqlite(request: pytest.FixtureRequest) -> Engine:
    """Make an empty file's engine."""
    return SqliteEngine(request.getfixturevalue("tmp_path_factory").mktemp("log"))


def kafka(request: pytest.FixtureRequest) -> Engine:
    """Make an empty broker's engine, with kafka-python."""
    return KafkaEngine(request.getfixturevalue("kafka_node"), python_client.CLIENTS)


def confluent(request: pytest.FixtureRequest) -> Engine:
    """Make an empty broker's engine, with confluent-kafka."""
    try:
        from streamlstm.adapters.kafka.confluent_client import CLIENTS
    except ModuleNotFoundError as missing:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            f"{missing}: pip install 'streamlstm[confluent]'"
        )
    return KafkaEngine(request.getfixturevalue("kafka_node"), CLIENTS)


ENGINES: dict[str, Callable[[pytest.FixtureRequest], Engine]] = {
    "sqlite": sqlite,
    "kafka": kafka,
    "kafka+confluent": confluent,
}


@pytest.fixture(params=sorted(ENGINES))
def new_engine(request: pytest.FixtureRequest) -> Callable[[], Engine]:
    """Each kind of engine in turn."""
    return lambda: ENGINES[request.param](request)


@pytest.fixture
def engine(new_engine: Callable[[], Engine]) -> Iterator[Engine]:
    """Each engine in turn, with an empty log."""
    engine = new_engine()
    yield engine
    engine.close()


def append_to_all(log: EventLog, topic: str, value: bytes) -> None:
    """Append one record to each partition."""
    log.append(topic, [NewRecord(None, value, partition=p) for p in range(log.topic(topic).partitions)])


def log_with_topics(engine: Engine, partitions: int = 2, retention_s: float | None = None) -> EventLog:
    """Return a log with an empty input topic and its output topics."""
    log = engine.open()
    for topic in (TOPIC, *OUTPUTS):
        log.create_topic(topic, partitions, retention_s)
    return log


def fill(log: EventLog, counts: Sequence[int], topic: str = TOPIC) -> None:
    """Append so many records to each partition; each value names its partition and offset."""
    for partition, count in enumerate(counts):
        log.append(topic, [NewRecord(b"k", f"{partition}:{i}".encode(), partition=partition) for i in range(count)])


def everything(log: EventLog, topic: str) -> list[Record]:
    """Return all records of a topic, partition by partition."""
    info = log.topic(topic)
    return [
        record
        for partition in range(info.partitions)
        for record in log.read(topic, partition, info.start_offsets[partition], 1_000_000)
    ]


def places(records: Sequence[Record]) -> list[tuple[int, int]]:
    """Return where records stand: partition and offset."""
    return [(record.partition, record.offset) for record in records]


def make_commit(
    offsets: Mapping[int, tuple[int, int]],
    *,
    states: Mapping[tuple[int, bytes], StateRow] | None = None,
    watermarks: Mapping[int, int] | None = None,
    expire_before_ms: Mapping[int, int] | None = None,
    partition: int = 0,
) -> Commit:
    """Return a commit with two scores, one alert and one dead letter in ``partition``."""
    return Commit(
        scores=[Output(partition, b"a", b"score 1"), Output(partition, b"b", b"score 2")],
        alerts=[Output(partition, b"a", b"alert")],
        dead_letters=[Output(partition, None, b"\xff bad", (("reason", b"malformed"), ("offset", b"1")))],
        states={(partition, b"a"): StateRow(b"state", NOW_MS, pinned=False)} if states is None else states,
        offsets=offsets,
        watermarks=watermarks if watermarks is not None else dict.fromkeys(offsets, NOW_MS),
        expire_before_ms=expire_before_ms or {},
    )


def assert_nothing_stored(log: EventLog, group: str = "g") -> None:
    """Fail if any part of :func:`make_commit` can be seen by another connection."""
    assert [everything(log, topic) for topic in OUTPUTS] == [[], [], []]
    assert log.read_states(TOPIC, group, [(0, b"a")]) == {}


# Topics


def test_create_topic_twice_leaves_the_topic_as_it_is(engine: Engine) -> None:
    """Creating a topic that is there keeps its records."""
    log = engine.open()
    log.create_topic(TOPIC, 2)
    fill(log, [1, 1])
    log.create_topic(TOPIC, 2)
    assert log.topic(TOPIC).end_offsets == (1, 1)


def test_create_topic_with_other_partition_count_is_refused(engine: Engine) -> None:
    """Keys would move between partitions, so the count never changes."""
    log = engine.open()
    log.create_topic(TOPIC, 2)
    with pytest.raises(LogError, match="2 partitions, not 3"):
        log.create_topic(TOPIC, 3)
    assert log.topic(TOPIC).partitions == 2


@pytest.mark.parametrize("name", ["", "a b", "a/b", "é", "x" * 250])
def test_create_topic_with_bad_name_is_refused(engine: Engine, name: str) -> None:
    """Names follow Kafka's rule on every engine, so that a feed can move from one to another."""
    with pytest.raises(LogError, match="no topic name"):
        engine.open().create_topic(name, 1)


def test_create_topic_without_partitions_is_refused(engine: Engine) -> None:
    """A topic needs somewhere to put its records."""
    with pytest.raises(LogError, match="at least one partition"):
        engine.open().create_topic(TOPIC, 0)


def test_topics_are_listed_by_name_with_offsets_and_retention(engine: Engine) -> None:
    """The list tells partitions, first and next offsets, and how long records are kept."""
    log = engine.open()
    log.create_topic("b", 2, RETENTION_S)
    log.create_topic("a", 1)
    fill(log, [3, 0], topic="b")
    first, second = log.topics()
    assert (first.name, first.partitions, first.end_offsets, first.retention_s) == ("a", 1, (0,), None)
    assert (second.name, second.start_offsets, second.end_offsets) == ("b", (0, 0), (3, 0))
    assert second.retention_s == RETENTION_S


def test_create_topic_again_with_retention_changes_the_retention(engine: Engine) -> None:
    """The newest retention counts; leaving it out changes nothing."""
    log = engine.open()
    log.create_topic(TOPIC, 1)
    log.create_topic(TOPIC, 1, 120.0)
    log.create_topic(TOPIC, 1)
    assert log.topic(TOPIC).retention_s == 120.0


def test_topic_that_does_not_exist_is_named(engine: Engine) -> None:
    """Every way to a missing topic says which one is missing."""
    log = engine.open()
    log.create_topic("other", 1)
    with pytest.raises(TopicMissing, match=r"'events'.*other"):
        log.topic(TOPIC)
    with pytest.raises(TopicMissing, match="'events'"):
        log.append(TOPIC, [NewRecord(b"k", b"v")])
    with pytest.raises(TopicMissing, match="'events'"):
        log.read(TOPIC, 0, 0, 1)
    with pytest.raises(TopicMissing, match="'events'"):
        log.open_session(TOPIC, "g")


# Records


def test_append_then_read_returns_everything_in_order(engine: Engine) -> None:
    """Records come back with their offsets, keys, values and headers, in the order of appending."""
    log = engine.open()
    log.create_topic(TOPIC, 1)
    sent = [
        NewRecord(b"a", b"first", (("reason", b"none"), ("reason", b"\x00\xff"))),
        NewRecord(None, b"no key"),
        NewRecord(b"", b"empty key"),
        NewRecord(b"\x00\xff", b"", (("empty", b""),)),
    ]
    log.append(TOPIC, sent[:3])
    log.append(TOPIC, sent[3:])
    found = log.read(TOPIC, 0, 0, 10)
    assert [(r.key, r.value, r.headers) for r in found] == [(r.key, r.value, r.headers) for r in sent]
    assert [(r.topic, r.partition, r.offset) for r in found] == [(TOPIC, 0, i) for i in range(4)]
    assert all(record.timestamp_ms >= NOW_MS for record in found)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(st.tuples(st.none() | st.binary(max_size=9), st.binary(max_size=99)), max_size=20),
    batch=st.integers(1, 7),
)
def test_append_of_any_bytes_reads_back_the_same(
    new_engine: Callable[[], Engine], values: list[tuple[bytes | None, bytes]], batch: int
) -> None:
    """Keys and values are bytes to the log; nothing is read into them, however they are batched."""
    engine = new_engine()
    log = engine.open()
    log.create_topic(TOPIC, 1)
    for start in range(0, len(values), batch):
        log.append(TOPIC, [NewRecord(*pair) for pair in values[start : start + batch]])
    assert [(r.key, r.value) for r in everything(log, TOPIC)] == values
    engine.close()


def test_append_is_seen_by_another_connection(engine: Engine) -> None:
    """What append returned from is durable and visible to all."""
    log, other = engine.open(), engine.open()
    log.create_topic(TOPIC, 1)
    log.append(TOPIC, [NewRecord(b"k", b"v")])
    assert [record.value for record in other.read(TOPIC, 0, 0, 10)] == [b"v"]


def test_append_with_one_bad_partition_appends_nothing(engine: Engine) -> None:
    """All records of a call are appended, or none."""
    log = engine.open()
    log.create_topic(TOPIC, 2)
    with pytest.raises(LogError, match="no partition 2"):
        log.append(TOPIC, [NewRecord(b"k", b"good", partition=0), NewRecord(b"k", b"bad", partition=2)])
    assert everything(log, TOPIC) == []


def test_append_without_partition_sends_a_key_always_to_the_same(engine: Engine) -> None:
    """A key's events stay in one partition, whoever appends them and when; keys spread over all."""
    log, other = engine.open(), engine.open()
    log.create_topic(TOPIC, 4)
    keys = [f"key-{i}".encode() for i in range(50)]
    log.append(TOPIC, [NewRecord(key, b"1") for key in keys])
    other.append(TOPIC, [NewRecord(key, b"2") for key in reversed(keys)])
    homes: dict[bytes | None, set[int]] = {}
    for record in everything(log, TOPIC):
        homes.setdefault(record.key, set()).add(record.partition)
    assert all(len(partitions) == 1 for partitions in homes.values())
    assert set.union(*homes.values()) == {0, 1, 2, 3}


def test_read_returns_at_most_the_wanted_number_from_the_offset(engine: Engine) -> None:
    """Reading is by offset and bounded; at the end there is nothing, which is no error."""
    log = log_with_topics(engine, 1)
    fill(log, [5])
    assert [record.offset for record in log.read(TOPIC, 0, 2, 2)] == [2, 3]
    assert [record.offset for record in log.read(TOPIC, 0, 4, 100)] == [4]
    assert log.read(TOPIC, 0, 5, 100) == []


def test_read_beyond_the_end_says_that_the_topic_was_made_anew(engine: Engine) -> None:
    """An offset that was never written is a sign of another topic, not of an idle one."""
    log = log_with_topics(engine, 1)
    fill(log, [5])
    with pytest.raises(LogError, match=r"'events' partition 0.*offset 6.*after the end, 5"):
        log.read(TOPIC, 0, 6, 1)


def test_read_of_a_partition_that_does_not_exist_is_refused(engine: Engine) -> None:
    """A wrong partition is an error, not an empty one."""
    with pytest.raises(LogError, match="no partition 7"):
        log_with_topics(engine, 1).read(TOPIC, 7, 0, 1)


def test_read_of_an_offset_taken_by_retention_names_topic_partition_and_offset(engine: Engine) -> None:
    """Lost events are never skipped in silence."""
    log = log_with_topics(engine, 2, RETENTION_S)
    fill(log, [3, 2])
    engine.outlive_retention(log, TOPIC)
    assert log.topic(TOPIC).start_offsets == (3, 2)
    with pytest.raises(OffsetExpired, match=r"topic 'events' partition 1: offset 0 .*first one kept is 2"):
        log.read(TOPIC, 1, 0, 10)
    assert log.read(TOPIC, 1, 2, 1)[0].value == b"new"


def test_offset_at_a_time_is_the_first_taken_since(engine: Engine) -> None:
    """A range of time is found without reading what lies before it."""
    log = log_with_topics(engine, 2)
    fill(log, [3, 0])
    taken_ms = everything(log, TOPIC)[0].timestamp_ms
    assert log.offset_at(TOPIC, 0, 0) == 0
    assert log.offset_at(TOPIC, 0, taken_ms) == 0
    assert log.offset_at(TOPIC, 0, taken_ms + 10_000_000) == 3
    assert log.offset_at(TOPIC, 1, 0) == 0


def test_records_within_retention_are_kept(engine: Engine) -> None:
    """Retention takes what is older, and nothing else; without one, records stay for ever."""
    log = log_with_topics(engine, 1, RETENTION_S)
    log.create_topic("kept", 1)
    fill(log, [2])
    fill(log, [2], topic="kept")
    engine.outlive_retention(log, TOPIC)
    engine.outlive_retention(log, "kept")
    assert everything(log, TOPIC)[0].value == b"new"
    assert everything(log, "kept")[0].value == b"0:0"


# Sessions


def open_session(log: EventLog, group: str = "g", topic: str = TOPIC) -> ScorerSession:
    """Open a session on a topic, and wait until it has all partitions."""
    session = log.open_session(topic, group)
    claim(session, log.topic(topic).partitions)
    return session


def claim(session: ScorerSession, partitions: int) -> None:
    """Poll without taking records until the session has so many partitions."""
    until_s = time.monotonic() + 60
    while len(session.claims()) != partitions:
        assert time.monotonic() < until_s, f"claims {session.claims()} instead of {partitions} partitions"
        session.poll(0, 0.1)


def poll(session: ScorerSession, max_records: int) -> list[Record]:
    """Poll until there are records, for as long as an idle topic may take."""
    return list(session.poll(max_records, 10.0))


def poll_all(session: ScorerSession, count: int) -> list[Record]:
    """Poll until so many records came."""
    records: list[Record] = []
    while len(records) < count:
        polled = poll(session, count - len(records))
        assert polled, f"only {len(records)} of {count} records came"
        records += polled
    return records


def test_session_with_all_its_claims_stands_ready(engine: Engine) -> None:
    """Joined, and nothing to be read back; on the way there, what it has is either claimed or being restored."""
    log = log_with_topics(engine)
    session = log.open_session(TOPIC, "g")
    until_s = time.monotonic() + 60
    while len(session.claims()) != log.topic(TOPIC).partitions:
        assert time.monotonic() < until_s
        session.poll(0, 0.5)
        assert not set(session.claims()) & set(session.standing().restoring)
    assert session.standing() == (True, {})
    session.close()


def test_poll_returns_each_record_once_and_in_order(engine: Engine) -> None:
    """Polls of any size together return each partition's records in order, then nothing."""
    log = log_with_topics(engine)
    fill(log, [5, 7])
    session = open_session(log)
    polled: list[Record] = []
    while records := session.poll(4, 1.0):
        assert len(records) <= 4
        polled += records
    for partition, count in enumerate([5, 7]):
        assert [r.offset for r in polled if r.partition == partition] == list(range(count))
    session.close()


def test_poll_of_an_empty_topic_returns_nothing(engine: Engine) -> None:
    """An idle topic is no error."""
    session = open_session(log_with_topics(engine))
    assert list(session.poll(10, 0.0)) == []
    session.close()


def test_poll_sees_records_appended_after_the_session_opened(engine: Engine) -> None:
    """A session follows its topic."""
    log, writer = log_with_topics(engine, 1), engine.open()
    session = open_session(log)
    assert list(session.poll(10, 0.0)) == []
    fill(writer, [2])
    assert places(poll_all(session, 2)) == [(0, 0), (0, 1)]
    session.close()


def test_poll_at_an_offset_taken_by_retention_raises(engine: Engine) -> None:
    """A scorer that was away for too long must not go on as if nothing were missing."""
    log = log_with_topics(engine, 1, RETENTION_S)
    fill(log, [3])
    session = open_session(log)
    poll_all(session, 1)
    session.commit(make_commit({0: (0, 1)}))
    session.close()
    engine.outlive_retention(log, TOPIC)
    session = log.open_session(TOPIC, "g")
    with pytest.raises(OffsetExpired, match=r"topic 'events' partition 0: offset 1 "):
        poll_all(session, 1)
    session.close()


def test_new_group_starts_at_the_first_record_kept(engine: Engine) -> None:
    """A group without offsets has lost nothing by retention."""
    log = log_with_topics(engine, 1, RETENTION_S)
    fill(log, [3])
    engine.outlive_retention(log, TOPIC)
    session = open_session(log)
    (first,) = poll_all(session, 1)
    assert first.value == b"new"
    session.commit(make_commit({0: (first.offset, first.offset + 1)}))
    session.rewind()
    append_to_all(log, TOPIC, b"newest")
    assert poll_all(session, 1)[0].offset > first.offset
    session.close()


def test_rewind_goes_back_to_the_committed_offsets(engine: Engine) -> None:
    """After a failed commit the same records come again; committed ones never do."""
    log = log_with_topics(engine)
    fill(log, [4, 4])
    session = open_session(log)
    poll_all(session, 4)
    session.commit(make_commit({0: (0, 2), 1: (0, 2)}))
    session.rewind()
    again = sorted(places(poll_all(session, 4)))
    session.rewind()
    assert sorted(places(poll_all(session, 4))) == again == [(0, 2), (0, 3), (1, 2), (1, 3)]
    session.close()


def test_commit_stores_everything_together(engine: Engine) -> None:
    """Another connection sees scores, alerts, dead letters, states, offsets and watermarks."""
    log, other = log_with_topics(engine), engine.open()
    fill(log, [2, 2])
    session = open_session(log)
    poll_all(session, 4)
    session.commit(make_commit({0: (0, 2)}, watermarks={0: NOW_MS + 5}))
    scores, alerts, dead_letters = (everything(other, topic) for topic in OUTPUTS)
    assert [(r.partition, r.offset, r.key, r.value) for r in scores] == [
        (0, 0, b"a", b"score 1"),
        (0, 1, b"b", b"score 2"),
    ]
    assert [(r.key, r.value) for r in alerts] == [(b"a", b"alert")]
    assert [(r.key, r.value) for r in dead_letters] == [(None, b"\xff bad")]
    assert dead_letters[0].headers == (("reason", b"malformed"), ("offset", b"1"))
    assert other.read_states(TOPIC, "g", [(0, b"a"), (1, b"a")]) == {(0, b"a"): b"state"}
    session.close()
    session = open_session(other)
    assert session.watermarks() == {0: NOW_MS + 5}
    assert session.load_states([(0, b"a")]) == {(0, b"a"): b"state"}
    assert places(poll_all(session, 2)) == [(1, 0), (1, 1)]
    session.close()


def test_commits_follow_each_other(engine: Engine) -> None:
    """Each commit starts where the one before ended, and appends to what that one stored."""
    log = log_with_topics(engine, 1)
    fill(log, [4])
    session = open_session(log)
    for first in (0, 2):
        poll_all(session, 2)
        session.commit(make_commit({0: (first, first + 2)}))
    assert [record.value for record in everything(log, OUTPUTS[0])] == 2 * [b"score 1", b"score 2"]
    session.close()


def test_commit_of_one_partition_leaves_the_offsets_of_the_others(engine: Engine) -> None:
    """A poll that touched one partition moves only that one."""
    log = log_with_topics(engine)
    fill(log, [2, 2])
    session = open_session(log)
    poll_all(session, 4)
    session.commit(make_commit({1: (0, 1)}, partition=1))
    session.rewind()
    assert sorted(places(poll_all(session, 3))) == [(0, 0), (0, 1), (1, 1)]
    session.close()


@pytest.mark.parametrize("first", [0, 1, 3])
def test_commit_from_another_offset_than_the_committed_one_is_fenced(engine: Engine, first: int) -> None:
    """A scorer that read before another one's commit, or skipped events, leaves nothing behind."""
    log, other = log_with_topics(engine), engine.open()
    fill(log, [5, 5])
    session = open_session(log)
    poll_all(session, 10)
    session.commit(Commit([], [], [], {}, {0: (0, 2)}, {0: NOW_MS}))
    with pytest.raises(Fenced, match=rf"topic 'events' partition 0.*{first}.* 2 is committed"):
        session.commit(make_commit({1: (0, 5), 0: (first, 5)}))
    assert_nothing_stored(other)
    assert session.watermarks() == {0: NOW_MS}
    session.rewind()
    assert sorted(places(poll_all(session, 8))) == [(0, 2), (0, 3), (0, 4), (1, 0), (1, 1), (1, 2), (1, 3), (1, 4)]
    session.close()


def test_first_commit_that_skips_records_is_fenced(engine: Engine) -> None:
    """Before anything is committed, a commit must start at the first record too."""
    log, other = log_with_topics(engine), engine.open()
    fill(log, [5, 0])
    session = open_session(log)
    poll_all(session, 5)
    with pytest.raises(Fenced, match="partition 0"):
        session.commit(make_commit({0: (2, 4)}))
    assert_nothing_stored(other)
    session.close()


def test_commit_that_fails_half_way_leaves_nothing(engine: Engine) -> None:
    """An output that cannot be stored takes scores, states and offsets with it."""
    log, other = log_with_topics(engine), engine.open()
    fill(log, [2, 2])
    session = open_session(log)
    poll_all(session, 4)
    impossible = Output(7, b"a", b"no such partition")
    good = make_commit({0: (0, 2)})
    bad = Commit(good.scores, good.alerts, [impossible], good.states, good.offsets, good.watermarks)
    with pytest.raises(LogError):
        session.commit(bad)
    assert_nothing_stored(other)
    assert session.watermarks() == {}
    session.rewind()
    claim(session, 2)
    poll_all(session, 4)
    session.commit(good)
    assert len(everything(other, OUTPUTS[0])) == 2
    session.close()


def test_watermark_of_a_poll_without_good_events_stays(engine: Engine) -> None:
    """A poll whose records are all bad tells no time; the largest one seen so far still holds."""
    log = log_with_topics(engine, 1)
    fill(log, [4])
    session = open_session(log)
    poll_all(session, 2)
    session.commit(make_commit({0: (0, 2)}, watermarks={0: NOW_MS}))
    poll_all(session, 2)
    session.commit(make_commit({0: (2, 4)}, watermarks={}))
    assert session.watermarks() == {0: NOW_MS}
    session.close()


def test_two_sessions_of_one_group_never_share_a_partition(engine: Engine) -> None:
    """SQLite refuses the second and says what to do; Kafka gives each its part, or makes it wait."""
    log, other = log_with_topics(engine), engine.open()
    session = open_session(log)
    try:
        second = other.open_session(TOPIC, "g")
    except PartitionBusy as error:
        assert re.search(r"group 'g'.*topic 'events'.*--group", str(error))  # noqa: PT017, Kafka raises nothing
        session.close()
        open_session(other).close()
        return
    until_s = time.monotonic() + 60
    with ThreadPoolExecutor(2) as threads:  # as two processes would poll: neither waits for the other
        while len(session.claims()) + len(second.claims()) != 2 or not second.claims():
            assert time.monotonic() < until_s
            list(threads.map(lambda one: one.poll(0, 0.5), (session, second)))
            assert not set(session.claims()) & set(second.claims())
    session.close()
    claim(second, 2)
    second.close()


def test_session_of_confluent_goes_on_while_another_is_slow_to_join(request: pytest.FixtureRequest) -> None:
    """It keeps what it has, and commits: the group waits for the other; so would a member that asks for positions."""
    with closing(confluent(request)) as engine:
        log = log_with_topics(engine)
        fill(log, [2, 2])
        session = open_session(log)
        before, _ = session.claims(), engine.open().open_session(TOPIC, "g")
        while len(kept := session.claims()) == 2:
            session.poll(0, 0.5)
        for _ in range(3):
            session.poll(0, 0.5)
        assert session.claims() == kept
        (partition,) = kept
        assert before[partition] == kept[partition]
        session.commit(make_commit({partition: (0, 1)}, partition=partition))


def test_open_session_of_another_group_or_topic_is_independent(engine: Engine) -> None:
    """Groups have their own offsets, states and claims."""
    log, other = log_with_topics(engine), engine.open()
    log.create_topic("second", 1)
    fill(log, [2, 2])
    first, second, third = open_session(log), open_session(other, "h"), open_session(other, "g", "second")
    poll_all(first, 4)
    first.commit(make_commit({0: (0, 2)}))
    assert len(poll_all(second, 4)) == 4
    assert second.load_states([(0, b"a")]) == {}
    assert second.watermarks() == third.watermarks() == {}
    second.commit(make_commit({0: (0, 1)}, watermarks={0: 7}))
    for session, watermark_ms, following in ((first, NOW_MS, (1, 0)), (second, 7, (0, 1))):
        session.rewind()
        assert session.watermarks() == {0: watermark_ms}
        left = 2 if session is first else 3
        assert following in places(poll_all(session, left))
    for session in (first, second, third):
        session.close()


@pytest.mark.parametrize(("one", "two"), [(("a", "b.c"), ("a.b", "c")), (("a/b", "c"), ("a_b", "c"))])
def test_open_session_of_groups_with_similar_names_is_independent(
    engine: Engine, one: tuple[str, str], two: tuple[str, str]
) -> None:
    """A claim belongs to exactly one group and topic, whatever their names look like together."""
    log = engine.open()
    sessions = []
    for group, topic in (one, two):
        log.create_topic(topic, 1)
        sessions.append(log.open_session(topic, group))
    for session in sessions:
        session.close()


def test_load_states_of_unknown_keys_returns_only_known_ones(engine: Engine) -> None:
    """A key without a state is absent, so that it starts new."""
    log = log_with_topics(engine)
    fill(log, [1, 1])
    session = open_session(log)
    session.commit(make_commit({0: (0, 1)}))
    assert session.load_states([(0, b"a"), (1, b"a"), (0, b"zzz")]) == {(0, b"a"): b"state"}
    assert session.load_states([]) == {}
    session.close()


def test_states_are_replaced_by_later_commits(engine: Engine) -> None:
    """The last committed state of a key is the one that counts."""
    log = log_with_topics(engine, 1)
    fill(log, [2])
    session = open_session(log)
    for first, value in enumerate((b"old", b"new")):
        session.commit(make_commit({0: (first, first + 1)}, states={(0, b"a"): StateRow(value, NOW_MS, pinned=False)}))
    assert session.load_states([(0, b"a")]) == {(0, b"a"): b"new"}
    session.close()


def test_states_expire_below_the_limit_but_pinned_ones_stay(engine: Engine) -> None:
    """A silent key's state goes, unless an alert is open or it belongs to another partition."""
    log = log_with_topics(engine)
    fill(log, [3, 1])
    session = open_session(log)
    states = {
        (0, b"old"): StateRow(b"1", NOW_MS - 1, pinned=False),
        (0, b"edge"): StateRow(b"2", NOW_MS, pinned=False),
        (0, b"pinned"): StateRow(b"3", NOW_MS - 1, pinned=True),
        (1, b"old"): StateRow(b"4", NOW_MS - 1, pinned=False),
    }
    session.commit(make_commit({0: (0, 1), 1: (0, 1)}, states=states))
    assert len(session.load_states(states)) == 4
    session.commit(make_commit({0: (1, 2)}, states={}, expire_before_ms={0: NOW_MS}))
    assert set(session.load_states(states)) == {(0, b"edge"), (0, b"pinned"), (1, b"old")}
    unpinned = {(0, b"pinned"): StateRow(b"3", NOW_MS - 1, pinned=False)}
    session.commit(make_commit({0: (2, 3)}, states=unpinned, expire_before_ms={0: NOW_MS}))
    assert set(session.load_states(states)) == {(0, b"edge"), (1, b"old")}
    session.close()


def test_zombie_whose_claim_was_taken_is_fenced(engine: Engine) -> None:
    """A scorer that lost its claim without noticing cannot commit after the new owner did."""
    log, other = log_with_topics(engine), engine.open()
    fill(log, [4, 0])
    zombie = open_session(log)
    poll_all(zombie, 4)
    zombie.close()
    owner = open_session(other)
    poll_all(owner, 4)
    owner.commit(Commit([], [], [], {}, {0: (0, 2)}, {0: NOW_MS}))
    with pytest.raises(Fenced):
        zombie.commit(make_commit({0: (0, 2)}))
    assert_nothing_stored(other)
    owner.close()
