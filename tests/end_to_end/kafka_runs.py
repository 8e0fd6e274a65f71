"""What the Kafka tests share: a feed in a topic, processes on it, and the oracle that compares what they left.

The oracle takes the input as it stands in the topic, runs the core over it event by event, and wants the committed
outputs (``read_committed``), the states and the positions to be the same, bit for bit.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition

from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.adapters.kafka.log import KafkaLog
from streamlstm.adapters.kafka.names import changelog_topic, group_id
from streamlstm.adapters.kafka.restore import PREFIX, to_state
from streamlstm.core.bundle import Bundle
from streamlstm.core.log import Headers, NewRecord, Record
from streamlstm.core.record import decode_score
from streamlstm.core.scorer import Scorer
from streamlstm.core.topic import alerts_topic, dead_letters_topic, feedback_topic, scores_topic
from streamlstm.services.scorer import Totals, run
from streamlstm.services.settings import ScoreSettings
from tests import builders
from tests.builders import START_MS, STEP_MS
from tests.end_to_end.kafka_process import Fault, Gate, Job, score
from tests.kafka_broker import Cluster

LONG = bool(os.environ.get("TEST_LONG"))  # also what takes minutes
CONFLUENT = bool(os.environ.get("TEST_CONFLUENT"))  # with this client, as far as a test does not say which
PARTITIONS = 4
GROUP = "streamlstm"
TIMEOUT_S = 90.0  # for anything that a process does; far more than it takes
SESSION_TIMEOUT_MS = 4_000
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tests.end_to_end.kafka_process"])


def feed(steps: int = 200, keys_per_partition: int = 3, partitions: int = PARTITIONS) -> list[NewRecord]:
    """Return a feed of some keys in each partition, with everything that happens to one.

    Spikes that open alerts; bytes that are no JSON; events that lack a field; duplicates; late events;
    values that are empty; records without a key; and one key per partition that is silent with an alert open.
    """
    names = [f"{'abcdefgh'[number]}{place}" for number in range(keys_per_partition) for place in range(partitions)]
    found: list[NewRecord] = []
    for record in builders.make_feed(steps, names):
        event = msgspec.json.decode(record.value)
        name, step = event["sensor"], (event["time"] - START_MS) // STEP_MS
        place = names.index(name)
        key, partition = name.encode(), place % partitions
        silent = place < partitions
        if silent and 90 <= step < 175:
            continue
        if (silent and 87 <= step < 90) or (step + 7 * place) % 70 in range(60, 64):
            event["flow"] += 3.0 * (1 + step % 4)
        value = msgspec.json.encode(event)
        found.append(NewRecord(key, value, (("source", b"test"),), partition))
        if (step + place) % 41 == 0:
            found.append(NewRecord(key, value, (), partition))
        if (step + place) % 59 == 58:
            late = msgspec.json.encode({**event, "time": event["time"] - 10 * STEP_MS})
            found.append(NewRecord(key, late, (), partition))
        if (step + place) % 37 == 0:
            found.append(NewRecord(key, b"\xff{ no json", (("empty", b""), ("trace", b"\x00\xff")), partition))
        if (step + place) % 53 == 0:
            found.append(NewRecord(None, b'{"sensor": "a"}', (), partition))
            found.append(NewRecord(key, b"", (), partition))
    return found


class Stored(NamedTuple):
    """An output record without the place and moment at which the log took it."""

    key: bytes | None
    value: bytes
    headers: Headers


Outputs = Mapping[str, Mapping[int, Sequence[Stored]]]  # topic, partition


class Follower:
    """Reads topics as they grow, ``read_committed``: each record once, in order, from the first one kept."""

    def __init__(self, servers: str, topics: Iterable[str], partitions: int) -> None:
        self.records: list[Any] = []
        self._consumer = KafkaConsumer(
            bootstrap_servers=servers.split(","),
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_records=10_000,
        )
        self._places = [TopicPartition(topic, partition) for topic in topics for partition in range(partitions)]
        self._consumer.assign(self._places)

    def poll(self, timeout_s: float = 0.05) -> None:
        """Take what has come."""
        for records in self._consumer.poll(timeout_ms=1000 * timeout_s).values():
            self.records += records

    def poll_to_end(self, servers: str) -> None:
        """Take all there is now, with open transactions waited for."""
        with closing(KafkaConsumer(bootstrap_servers=servers.split(","))) as consumer:
            ends = consumer.end_offsets(self._places)  # read_uncommitted
        until_s = time.monotonic() + TIMEOUT_S
        while any(self._consumer.position(place) < ends[place] for place in self._places):
            assert time.monotonic() < until_s, "a transaction stays open"
            self.poll(0.1)

    def close(self) -> None:
        """Close."""
        self._consumer.close()


@dataclass
class Stream:
    """An input topic with its outputs, on a broker."""

    broker: Cluster
    model: Path
    bundle: Bundle
    partitions: int = PARTITIONS
    topic: str = field(default_factory=lambda: f"feed-{uuid.uuid4().hex[:8]}")
    group: str = GROUP

    @property
    def outputs(self) -> list[str]:
        """The topics of scores, alerts and dead letters."""
        return [name(self.topic) for name in (scores_topic, alerts_topic, dead_letters_topic)]

    @property
    def changelog(self) -> str:
        """The topic of the states."""
        return changelog_topic(self.topic, self.group)

    @property
    def group_id(self) -> str:
        """The consumer group as Kafka names it."""
        return group_id(self.topic, self.group)

    def log(self, instance: str = "test", **config: Any) -> KafkaLog:
        """Connect; the caller closes it."""
        config = {"session_timeout_ms": SESSION_TIMEOUT_MS, **config}
        return KafkaLog(KafkaConfig(tuple(self.broker.bootstrap.split(",")), instance=instance, **config))

    def create(self) -> None:
        """Make the topics."""
        with closing(self.broker.admin()) as admin:
            wanted = {name: {"num_partitions": self.partitions} for name in (self.topic, *self.outputs)}
            admin.create_topics(wanted, wait_for_metadata=True)

    def append(self, records: Sequence[NewRecord]) -> None:
        """Append to the input."""
        self.append_to(self.topic, records)

    def append_to(self, topic: str, records: Sequence[NewRecord]) -> None:
        """Append to a topic."""
        with closing(self.log()) as log:
            log.append(topic, records)

    def reset_offsets(self, offsets: Mapping[int, int]) -> None:
        """Move the positions of the group, which must not run, as an operator does."""
        places = {TopicPartition(self.topic, p): OffsetAndMetadata(at, "", -1) for p, at in offsets.items()}
        with closing(self.broker.admin()) as admin:
            admin.alter_group_offsets(self.group_id, places)

    def settings(self, **given: Any) -> ScoreSettings:
        """Return the settings of a scorer on this stream."""
        chosen = {"topic": self.topic, "group": self.group, "model": self.model, "poll_records": 40, **given}
        return ScoreSettings(**chosen)

    def score_here(self, **given: Any) -> Totals:
        """Score to the end in this process, as ``streamlstm score --until-end`` does."""
        with closing(self.log()) as log:
            return run(log, self.bundle, self.settings(until_end=True, **given), threading.Event())

    def follow(self, *topics: str) -> Follower:
        """Follow topics; the caller closes it."""
        return Follower(self.broker.bootstrap, topics, self.partitions)

    def read(self, *topics: str) -> list[Any]:
        """Return all committed records of topics, in order per partition."""
        with closing(self.follow(*topics)) as follower:
            follower.poll_to_end(self.broker.bootstrap)
            return follower.records

    def hidden(self, topic: str) -> int:
        """Return how many offsets of a topic belong to transactions that are still open, or lie behind one."""
        partitions = range(self.partitions)
        with closing(self.log()) as log:
            there = log.cluster.ends(topic, partitions, committed=False)
            seen = log.cluster.ends(topic, partitions, committed=True)
        return sum(there.values()) - sum(seen.values())

    def committed(self, topic: str = "") -> dict[int, tuple[int, str]]:
        """Return the group's positions in the input, or the topic, with their notes."""
        topic = topic or self.topic
        with closing(self.broker.admin()) as admin:
            (found,) = admin.list_group_offsets([group_id(topic, self.group)]).values()
        return {
            place.partition: (at.offset, at.metadata.rstrip("\0"))
            for place, at in found.items()
            if place.topic == topic
        }

    def delete(self) -> None:
        """Remove all topics; those of many tests would slow the broker down."""
        with closing(self.broker.admin()) as admin:
            there = {topic["name"] for topic in admin.describe_topics()}
            admin.delete_topics(
                [n for n in (self.topic, *self.outputs, feedback_topic(self.topic), self.changelog) if n in there]
            )


def without_none(headers: Iterable[tuple[str, bytes | None]]) -> Headers:
    """Return headers with empty values for absent ones, which Kafka has and we have not."""
    return tuple((name, value or b"") for name, value in headers)


Then = Sequence[tuple[Mapping[int, int], Bundle]]  # from these positions on, another bundle scored


def plain_run(input_records: Iterable[Any], bundle: Bundle, then: Then = ()) -> tuple[builders.Run, dict[int, int]]:
    """Run the core over consumer records event by event; return what it leaves, and the watermarks."""
    records = [
        Record(r.topic, r.partition, r.offset, r.timestamp, r.key, r.value or b"", without_none(r.headers))
        for r in input_records
    ]
    run, watermarks, phases = builders.Run(), dict[int, int](), [({}, bundle), *then, ({}, bundle)]
    for (starts, chosen), (ends, _) in pairwise(phases):
        here = [r for r in records if starts.get(r.partition, 0) <= r.offset < ends.get(r.partition, r.offset + 1)]
        scorer = Scorer(chosen, reset_foreign_states=True)
        scorer.watermarks.update(watermarks)
        builders.run_polls(scorer, ([record] for record in here), run)
        watermarks |= scorer.watermarks
    return run, watermarks


def assert_exactly_once(stream: Stream, bundle: Bundle | None = None, then: Then = ()) -> None:
    """Fail unless each record has exactly one outcome, and outputs, states and positions are the plain run's."""
    taken = stream.read(stream.topic)
    plain, watermarks = plain_run(taken, bundle or stream.bundle, then)
    scores, alerts, dead_letters = stream.outputs
    wanted = {scores: plain.scores, alerts: plain.alerts, dead_letters: plain.dead_letters}
    found = stream.read(*stream.outputs)
    assert_one_outcome_each(stream, taken, found)
    for topic, outputs in wanted.items():
        for partition in range(stream.partitions):
            here = [r for r in found if (r.topic, r.partition) == (topic, partition)]
            assert [Stored(r.key, r.value, tuple(r.headers)) for r in here] == [
                Stored(output.key, output.value, output.headers) for output in outputs if output.partition == partition
            ], (topic, partition)
    assert_same_states(stream, plain, watermarks)


def assert_same_states(stream: Stream, plain: builders.Run, watermarks: Mapping[int, int]) -> None:
    """Fail unless positions stand at the end, and the states in the changelog are the plain run's.

    Those of keys that were silent for too long may be there or not.
    """
    last = {(r.partition, r.key): r.value for r in stream.read(stream.changelog)}
    states = {place: value for place, value in last.items() if value is not None}
    assert {place: to_state(value) for place, value in states.items()} == {
        place: plain.states[place].value for place in states
    }
    assert set(states) >= plain.kept(watermarks, stream.bundle.schema)
    ends = dict.fromkeys(range(stream.partitions), 0)
    ends.update({r.partition: r.offset + 1 for r in stream.read(stream.topic)})
    committed = stream.committed()
    assert committed == {partition: (end, str(watermarks.get(partition, 0))) for partition, end in ends.items()}
    for place, value in states.items():
        _, pinned, timestamp_ms, next_offset = PREFIX.unpack_from(value)
        assert (pinned, timestamp_ms) == (plain.states[place].pinned, plain.states[place].timestamp_ms)
        assert next_offset <= committed[place[0]][0]


def assert_one_outcome_each(stream: Stream, taken: Iterable[Any], found: Sequence[Any]) -> None:
    """Fail, naming partitions and offsets, unless each input record has exactly one score or dead letter."""
    wanted = Counter((record.partition, record.offset) for record in taken)
    counted = Counter(outcomes(stream, found))
    lost, extra = sorted((wanted - counted).elements()), sorted((counted - wanted).elements())
    assert (lost, extra) == ([], []), f"without an outcome: {lost}; with one too many: {extra}"


def outcomes(stream: Stream, records: Iterable[Any]) -> list[tuple[int, int]]:
    """Return partition and offset of each input record with a score or a dead letter, sorted."""
    scores, _, dead_letters = stream.outputs
    return sorted(
        [(r.partition, decode_score(r.value).offset) for r in records if r.topic == scores]
        + [(r.partition, int(dict(r.headers)["offset"])) for r in records if r.topic == dead_letters]
    )


@contextmanager
def load(stream: Stream, records: Sequence[NewRecord], per_s: float) -> Iterator[None]:
    """Append records at a pace, each once, whatever becomes of brokers; all are there when the block ends."""
    hurry = threading.Event()
    with closing(KafkaProducer(bootstrap_servers=stream.broker.bootstrap.split(","), acks="all")) as producer:

        def append() -> None:
            for start in range(0, len(records), 40):
                for r in records[start : start + 40]:
                    producer.send(stream.topic, r.value, r.key, list(r.headers), r.partition)
                hurry.wait(40 / per_s)

        thread = threading.Thread(target=append)
        thread.start()
        try:
            yield
        finally:
            hurry.set()
            thread.join()
            producer.flush(TIMEOUT_S)


class Running:
    """A process of a :class:`Fleet`."""

    def __init__(self, process: Any, job: Job) -> None:
        self._process, self.job = process, job

    @property
    def output(self) -> str:
        """What it has written."""
        return self.job.output.read_text() if self.job.output.exists() else ""

    @property
    def pid(self) -> int:
        """The process id."""
        return int(self._process.pid)

    @property
    def alive(self) -> bool:
        """Whether it runs, or is stopped by a signal."""
        return bool(self._process.is_alive())

    @property
    def stopped(self) -> bool:
        """Whether a signal has stopped it (SIGSTOP)."""
        stat = Path(f"/proc/{self._process.pid}/stat")
        return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "T"

    @property
    def partitions(self) -> set[int]:
        """The partitions that its group gave to it, as far as it has told."""
        found: set[int] = set()
        for given, taken in re.findall(r"partitions +given=\[(.*?)\] taken=\[(.*?)\]", self.output):
            found -= set(map(int, filter(None, taken.split(","))))
            found |= set(map(int, filter(None, given.split(","))))
        return found

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        if self.alive:
            os.kill(self._process.pid, number)

    def wait(self, timeout_s: float = TIMEOUT_S) -> int:
        """Wait for its end; return the exit status, negative for a signal."""
        self._process.join(timeout_s)
        assert not self.alive, f"still running:\n{self.output}"
        return int(self._process.exitcode)

    def kill(self) -> int:
        """End it at once."""
        self.send(signal.SIGKILL)
        return self.wait()


class Fleet:
    """The processes of a test on one stream; none outlives it."""

    def __init__(self, stream: Stream, directory: Path) -> None:
        self.stream, self._directory = stream, directory
        self.all: list[Running] = []
        self.progress = stream.follow(stream.outputs[0], stream.outputs[2])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.all:
            process.kill()
        self.progress.close()
        for process in self.all:  # pytest shows it if the test failed
            print(f"{process.job.instance} wrote:\n{process.output[-4000:]}")

    def start(
        self,
        instance: str = "one",
        *,
        fault: Fault | None = None,
        restore_wait_s: float = 0.0,
        config: Mapping[str, Any] | None = None,
        target: Callable[[Job], None] = score,
        confluent: bool = CONFLUENT,
        **settings: Any,
    ) -> Running:
        """Start a process under an instance name; ``settings`` are the scorer's."""
        if target is score:
            chosen = self.stream.settings(**{"give_up_after_s": 60.0, **settings})
            settings = {name: value for name, value in vars(chosen).items() if value is not None}
        job = Job(
            tuple(self.stream.broker.bootstrap.split(",")),
            self._directory / f"{len(self.all)}.txt",
            instance,
            settings,
            {"session_timeout_ms": SESSION_TIMEOUT_MS, **(config or {})},
            fault,
            restore_wait_s,
            confluent,
        )
        process = _PROCESSES.Process(target=target, args=(job,), daemon=True)
        process.start()
        self.all.append(Running(process, job))
        return self.all[-1]

    def gate(self) -> Gate:
        """Return a new gate, closed."""
        return Gate(self._directory / f"gate-{uuid.uuid4().hex[:8]}")

    @property
    def done(self) -> int:
        """How many records have a committed outcome."""
        self.progress.poll()
        return len(self.progress.records)

    def done_in(self, partitions: Iterable[int]) -> int:
        """How many records of these partitions have one."""
        self.progress.poll()
        return sum(record.partition in partitions for record in self.progress.records)

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> float:
        """Wait until something holds; return how long it took. Reads the outputs meanwhile."""
        start_s = time.monotonic()
        while not condition():
            assert time.monotonic() - start_s < timeout_s, f"still not so after {timeout_s:.0f} s"
            self.progress.poll(0.02)
        return time.monotonic() - start_s

    def wait_for(self, records: int, timeout_s: float = TIMEOUT_S) -> float:
        """Wait until so many records have a committed outcome; return how long it took."""
        return self.wait_until(lambda: self.done >= records, timeout_s)

    def stop_all(self) -> None:
        """Stop all that run, gracefully."""
        running = [process for process in self.all if process.alive]
        for process in running:
            process.send(signal.SIGTERM)
        for process in running:
            assert process.wait() == 0, process.output
