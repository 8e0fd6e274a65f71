"""What scoring costs beside the bare client: ``python -m tests.benchmarks.kafka_throughput``. Starts its own broker.

Exactly once: a backlog is scored, one transaction stored while the events of the next are scored, as a scorer that is
behind does. Beside it the same client, without scoring: it consumes the same events, produces the same records to the
same topics, and commits the same positions in the same transactions. Where the time goes is told of scoring one
transaction after the other.
Restore: the states of a changelog are read as after a restart. Beside it the same client reading the same bytes.

Medians of the repeats, and of the ratios of the runs that followed each other. Broker and client share
the machine: read the ratios, not the figures.
"""

from __future__ import annotations

import logging
import os
import platform
import statistics
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from typing import Annotated, Any, get_args

import cyclopts
import msgspec
import numpy as np
import structlog

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
    from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

    from streamlstm.adapters.kafka import python_client, python_options
    from streamlstm.adapters.kafka.client import Clients
    from streamlstm.adapters.kafka.config import KafkaConfig
    from streamlstm.adapters.kafka.log import KafkaLog
    from streamlstm.adapters.kafka.names import changelog_topic, group_id
    from tests.kafka_broker import Broker, find_broker

from streamlstm.adapters.kafka.restore import Limits, Restore, to_value
from streamlstm.core.bundle import Bundle
from streamlstm.core.commit import Commit, StateRow
from streamlstm.core.evidence import Told
from streamlstm.core.log import NewRecord, ScorerSession
from streamlstm.core.scorer import Scorer
from streamlstm.core.topic import alerts_topic, dead_letters_topic, scores_topic
from streamlstm.services.collector import collected_seldom
from streamlstm.services.pipeline import DEPTH, score_polled
from tests.benchmarks.core_step import CHANNELS, bundle

PARTITIONS = 4
TOPIC = "events"
START_MS = 10**12
STAGES = ("consume", "decode", "score", "encode", "produce", "offsets", "commit", "rest")


@dataclass
class Transaction:
    """What one poll of the scorer became: so many events in; records and positions out."""

    events: int
    records: list[tuple[str, int, bytes | None, bytes | None]]
    positions: Mapping[int, int]


@dataclass
class Run:
    """One run: how long it took, and where the time went."""

    seconds: float
    transactions: list[Transaction] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)


class Bare:
    """One client library, and nothing of ours, doing what the scorer's transactions did."""

    def join(self, bootstrap: str, group: str) -> None:
        """Join a new group and connect a transactional producer; fetch nothing yet."""

    def go(self, transactions: Sequence[Transaction]) -> None:
        """Consume, produce and commit."""

    def leave(self) -> None:
        """Close all."""

    def read(self, bootstrap: str, topic: str, ends: Mapping[int, int]) -> int:
        """Read a topic from its beginning to its ends; return the number of records."""
        raise NotImplementedError


class BarePython(Bare):
    """kafka-python, with the options that our client has."""

    def join(self, bootstrap: str, group: str) -> None:
        """See :class:`Bare`."""
        self.consumer = KafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=group,
            group_instance_id="bare",
            partition_assignment_strategy=[CooperativeStickyAssignor],
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=python_options.FETCH_BYTES,
        )
        self.consumer.subscribe([TOPIC])
        self.consumer.partitions_for_topic(TOPIC)
        while len(self.consumer.assignment()) < PARTITIONS:
            self.consumer.poll(timeout_ms=10, max_records=1)
        for place in self.consumer.assignment():
            self.consumer.pause(place)
            self.consumer.seek(place, 0)
        self.producer = KafkaProducer(
            bootstrap_servers=bootstrap,
            transactional_id=group,
            acks="all",
            max_request_size=python_options.MAX_REQUEST_BYTES,
            batch_size=python_options.BATCH_BYTES,
            retry_backoff_ms=python_options.RETRY_BACKOFF_MS,
        )
        self.producer.init_transactions()

    def go(self, transactions: Sequence[Transaction]) -> None:
        """See :class:`Bare`."""
        self.consumer.resume(*self.consumer.paused())
        send = self.producer.send
        for transaction in transactions:
            left = transaction.events
            while left:
                polled = self.consumer.poll(timeout_ms=1000, max_records=left)
                left -= sum(map(len, polled.values()))
            self.producer.begin_transaction()
            for topic, partition, key, value in transaction.records:
                send(topic, value, key, None, partition)
            offsets = {
                TopicPartition(TOPIC, partition): OffsetAndMetadata(offset, "0", -1)
                for partition, offset in transaction.positions.items()
            }
            self.producer.send_offsets_to_transaction(offsets, self.consumer.group_metadata())
            self.producer.commit_transaction()

    def leave(self) -> None:
        """See :class:`Bare`."""
        self.consumer.close()
        self.producer.close()

    def read(self, bootstrap: str, topic: str, ends: Mapping[int, int]) -> int:
        """See :class:`Bare`."""
        consumer = KafkaConsumer(
            bootstrap_servers=bootstrap,
            isolation_level="read_committed",
            enable_auto_commit=False,
            max_partition_fetch_bytes=python_options.FETCH_BYTES,
            max_poll_records=5_000,
        )
        places = {TopicPartition(topic, partition): end for partition, end in ends.items()}
        consumer.assign(list(places))
        consumer.seek_to_beginning()
        count = 0
        while any(consumer.position(place) < end for place, end in places.items()):
            count += sum(map(len, consumer.poll(timeout_ms=100).values()))
        consumer.close()
        return count


class BareConfluent(Bare):
    """confluent-kafka, with the options that our client has."""

    def join(self, bootstrap: str, group: str) -> None:
        """See :class:`Bare`."""
        from confluent_kafka import Consumer, Producer

        given: list[Any] = []
        self.consumer = Consumer(
            {**self._options(bootstrap), "group.id": group, "partition.assignment.strategy": "cooperative-sticky"}
        )
        self.consumer.subscribe(
            [TOPIC], on_assign=lambda consumer, places: given.extend(places) or consumer.incremental_assign([])
        )
        while len(given) < PARTITIONS:
            self.consumer.consume(1, 0.01)
        self.places = given
        self.producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "transactional.id": group,
                "retry.backoff.ms": 5,
                "delivery.report.only.error": True,
            }
        )
        self.producer.init_transactions()

    def go(self, transactions: Sequence[Transaction]) -> None:
        """See :class:`Bare`."""
        from confluent_kafka import TopicPartition as Place

        self.consumer.incremental_assign([Place(TOPIC, place.partition, 0) for place in self.places])
        consume, produce = self.consumer.consume, self.producer.produce
        for transaction in transactions:
            left = transaction.events
            while left:
                left -= len(consume(left, 0) or consume(1, 1.0))
            self.producer.begin_transaction()
            for topic, partition, key, value in transaction.records:
                produce(topic, value, key, partition)
            offsets = [Place(TOPIC, p, offset, metadata="0") for p, offset in transaction.positions.items()]
            self.producer.send_offsets_to_transaction(offsets, self.consumer.consumer_group_metadata())
            self.producer.commit_transaction()

    def leave(self) -> None:
        """See :class:`Bare`."""
        self.consumer.close()
        self.producer.close()

    def read(self, bootstrap: str, topic: str, ends: Mapping[int, int]) -> int:
        """See :class:`Bare`."""
        from confluent_kafka import Consumer
        from confluent_kafka import TopicPartition as Place

        consumer = Consumer({**self._options(bootstrap), "group.id": "bare", "enable.partition.eof": True})
        consumer.assign([Place(topic, partition, 0) for partition in ends])
        count, waiting = 0, len(ends)
        while waiting:
            for message in consumer.consume(5_000, 0) or consumer.consume(1, 0.1):
                if message.error() is None:
                    count += 1
                else:
                    waiting -= 1
        consumer.close()
        return count

    def _options(self, bootstrap: str) -> dict[str, Any]:
        return {
            "bootstrap.servers": bootstrap,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "fetch.message.max.bytes": python_options.FETCH_BYTES,
            "fetch.wait.max.ms": 100,
            "fetch.queue.backoff.ms": 20,
        }


def clients() -> dict[str, tuple[Clients, Bare]]:
    """Return the clients that are installed."""
    found: dict[str, tuple[Clients, Bare]] = {"kafka-python": (python_client.CLIENTS, BarePython())}
    try:
        from streamlstm.adapters.kafka import confluent_client
    except ModuleNotFoundError:
        return found
    return {**found, "confluent-kafka": (confluent_client.CLIENTS, BareConfluent())}


class Stopwatch:
    """Adds up where the time goes."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._since_s = time.perf_counter()

    def stop(self, stage: str) -> None:
        """Count the time since the last stop for a stage."""
        now_s = time.perf_counter()
        self.seconds[stage] += now_s - self._since_s
        self._since_s = now_s


def feed(events: int, keys: int) -> Iterator[NewRecord]:
    """Return events of so many keys in turn, each key in one partition."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(1000, CHANNELS)).round(4).tolist()
    for i in range(events):
        step, key = divmod(i, keys)
        event = {"sensor": f"sensor-{key}", "time": START_MS + 1000 * step}
        event |= {f"f{c}": value for c, value in enumerate(values[i % 1000])}
        yield NewRecord(event["sensor"].encode(), msgspec.json.encode(event), (), key % PARTITIONS)


@contextmanager
def joined(
    clients: Clients, bootstrap: str, on_step: Callable[[str], None] = lambda _: None
) -> Iterator[tuple[ScorerSession, str]]:
    """Yield a session of a new group that has all partitions, and the name of its changelog, which is there."""
    log = KafkaLog(KafkaConfig((bootstrap,), instance=uuid.uuid4().hex), on_step=on_step, clients=clients)
    group = f"scored-{uuid.uuid4().hex[:8]}"
    with closing(log), closing(log.open_session(TOPIC, group)) as session:
        while len(session.claims()) < PARTITIONS:
            session.poll(0, 0.1)
        changelog = changelog_topic(TOPIC, group)
        log.cluster.create(changelog, PARTITIONS, {})
        yield session, changelog


def score(clients: Clients, bootstrap: str, model: Bundle, events: int, most: int, told: Told = "all") -> float:
    """Score the topic under a new group, exactly once; return the seconds it took."""
    with joined(clients, bootstrap) as (session, _):
        return score_backlog(session, Scorer(model, told=told), events, most)


def score_backlog(session: ScorerSession, scorer: Scorer, events: int, most: int) -> float:
    """Do what ``services.scorer`` does with so many events; return the seconds it took."""
    done, started_s = 0, time.perf_counter()
    with ThreadPoolExecutor(1) as beside:
        while done < events:
            records = session.poll(DEPTH * most, 1.0)
            if records:
                score_polled(session, scorer, records, most, beside)
            done += len(records)
    return time.perf_counter() - started_s


def score_staged(clients: Clients, bootstrap: str, model: Bundle, events: int, most: int) -> Run:
    """Score the topic under a new group, one transaction after the other, and note where the time goes."""
    watch = Stopwatch()
    stage_of = {"begin": "rest", "states": "produce", "offsets": "offsets", "end": "commit"}
    with joined(clients, bootstrap, lambda step: watch.stop(stage_of.get(step, "produce"))) as (session, changelog):
        scorer, done, transactions = Scorer(model), 0, []
        watch.__init__()  # type: ignore[misc]
        started_s = time.perf_counter()
        while done < events:
            commit, count = one_poll(session, scorer, most, watch)
            done += count
            if count:
                transactions.append((commit, count))
        seconds = time.perf_counter() - started_s
    return Run(seconds, [transaction_of(*one, changelog) for one in transactions], watch.seconds)


def one_poll(session: ScorerSession, scorer: Scorer, most: int, watch: Stopwatch) -> tuple[Commit, int]:
    """Take one poll through the core and store it, under a stopwatch."""
    records = session.poll(most, 1.0)
    watch.stop("consume")
    poll = scorer.read(records)
    watch.stop("decode")
    outcome = scorer.score(poll, session.load_states(scorer.missing(poll)))
    watch.stop("score")
    commit = scorer.commit_of(outcome)
    watch.stop("encode")
    if records:
        session.commit(commit)
        watch.stop("rest")
    scorer.accept(outcome)
    watch.stop("rest")
    return commit, len(records)


def transaction_of(commit: Commit, events: int, changelog: str) -> Transaction:
    """Return what a commit writes."""
    outputs = (
        (scores_topic(TOPIC), commit.scores),
        (alerts_topic(TOPIC), commit.alerts),
        (dead_letters_topic(TOPIC), commit.dead_letters),
    )
    records: list[tuple[str, int, bytes | None, bytes | None]] = [
        (topic, output.partition, output.key, output.value) for topic, written in outputs for output in written
    ]
    records += [(changelog, p, key, to_value(row, commit.offsets[p][1])) for (p, key), row in commit.states.items()]
    return Transaction(events, records, {partition: following for partition, (_, following) in commit.offsets.items()})


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds one call takes."""
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def fill(bootstrap: str, events: int, keys: int) -> None:
    """Write the events that all runs score."""
    log = KafkaLog(KafkaConfig((bootstrap,)), clients=list(clients().values())[-1][0])
    with closing(log):
        log.create_topic(TOPIC, PARTITIONS)
        for topic in (scores_topic, alerts_topic, dead_letters_topic):
            log.create_topic(topic(TOPIC), PARTITIONS)
        records = feed(events, keys)
        while batch := list(islice(records, 20_000)):
            log.append(TOPIC, batch)


def compare_scoring(bootstrap: str, events: int, most: int, repeats: int, model: Bundle) -> None:
    """Print events per second with and without scoring."""
    print(f"{'exactly once':18}{'bare':>10}{'scoring':>12}{'ratio':>8}   events a poll, and µs per event by stage")
    kept = {
        name: score_staged(ours, bootstrap, model, events, most).transactions for name, (ours, _) in clients().items()
    }
    runs: dict[str, list[tuple[float, float, Run]]] = {name: [] for name in kept}
    for _ in range(repeats):
        for name, (ours, bare) in clients().items():
            bare.join(bootstrap, group_id(TOPIC, f"bare-{uuid.uuid4().hex[:8]}"))
            bare_s = seconds(lambda bare=bare, name=name: bare.go(kept[name]))  # type: ignore[misc]
            bare.leave()
            ours_s = score(ours, bootstrap, model, events, most)
            runs[name].append((bare_s, ours_s, score_staged(ours, bootstrap, model, events, most)))
    for name, trios in runs.items():
        bare_s, ours_s = (statistics.median(trio[side] for trio in trios) for side in (0, 1))
        ratio = statistics.median(ours / bare for bare, ours, _ in trios)
        stages = (statistics.median(run.stages[stage] for *_, run in trios) / events * 1e6 for stage in STAGES)
        staged_s = statistics.median(run.seconds for *_, run in trios)
        where = ", ".join(f"{stage} {us:.1f}" for stage, us in zip(STAGES, stages, strict=True))
        print(
            f"{name:18}{events / bare_s:8,.0f}/s{events / ours_s:10,.0f}/s{ratio:8.2f}   "
            f"{events / len(kept[name]):,.0f}: {where}; one after the other {events / staged_s:,.0f}/s"
        )


def compare_told(bootstrap: str, events: int, most: int, repeats: int, model: Bundle) -> None:
    """Print what fewer score records buy."""
    print(f"\n{'events per second':20}" + "".join(f"{told:>14}" for told in get_args(Told)))
    for name, (ours, _) in clients().items():
        medians = (
            statistics.median(score(ours, bootstrap, model, events, most, told) for _ in range(repeats))
            for told in get_args(Told)
        )
        print(f"{name:20}" + "".join(f"{events / seconds:12,.0f}/s" for seconds in medians))


def compare_restore(bootstrap: str, rows: int, repeats: int, state: bytes) -> None:
    """Print rows per second of a restore and of a bare read."""
    topic = "states"
    value = to_value(StateRow(state, START_MS, pinned=False), 1)
    log = KafkaLog(KafkaConfig((bootstrap,)), clients=list(clients().values())[-1][0])
    with closing(log):
        log.create_topic(topic, PARTITIONS)
        records = (NewRecord(f"sensor-{i}".encode(), value, (), i % PARTITIONS) for i in range(rows))
        while batch := list(islice(records, 20_000)):
            log.append(topic, batch)
        ends = log.cluster.ends(topic, range(PARTITIONS))
    limits = {partition: Limits(0, end, 1) for partition, end in ends.items()}
    print(f"\n{'restore':18}{'bare':>10}{'ours':>12}{'ratio':>8}   rows of {len(value)} bytes")
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in clients()}
    for _ in range(repeats):
        for name, (ours, bare) in clients().items():
            bare_s = seconds(lambda bare=bare: bare.read(bootstrap, topic, ends))  # type: ignore[misc]
            pairs[name].append((bare_s, seconds(lambda ours=ours: restore(ours, bootstrap, topic, limits, rows))))  # type: ignore[misc]
    for name, measured in pairs.items():
        bare_s, ours_s = (statistics.median(side) for side in zip(*measured, strict=True))
        ratio = statistics.median(ours / bare for bare, ours in measured)
        print(f"{name:18}{rows / bare_s:8,.0f}/s{rows / ours_s:10,.0f}/s{ratio:8.2f}")


def restore(clients: Clients, bootstrap: str, topic: str, limits: Mapping[int, Limits], rows: int) -> None:
    """Restore all partitions, connecting included, as the bare read does."""
    with closing(clients.reader(KafkaConfig((bootstrap,)), topic)) as reader:
        restore = Restore(reader, topic, limits, lambda _: 1)
        while not restore.step(0.2):
            pass
        assert sum(len(table.values) for table in restore.tables.values()) == rows


@contextmanager
def started() -> Iterator[Broker]:
    """Yield a broker of our own, or the given one."""
    with find_broker() as broker:
        yield broker


def machine() -> str:
    """Say what was measured on."""
    installed = []
    for package in ("kafka-python", "crc32c", "confluent-kafka"):
        try:
            installed.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            installed.append(f"no {package}")
    processor = platform.processor() or platform.machine()
    return f"{processor}, {os.cpu_count()} cores, Python {platform.python_version()}, {', '.join(installed)}"


Count = Annotated[int, cyclopts.Parameter(validator=cyclopts.validators.Number(gte=1))]


def main(
    *, events: Count = 50_000, keys: Count = 3_000, most: Count = 5_000, rows: Count = 100_000, repeats: Count = 3
) -> None:
    """Print both tables.

    Parameters
    ----------
    events
        In the backlog that is scored.
    keys
        Of these events.
    most
        Records taken at once.
    rows
        Of the changelog that is restored.
    repeats
        Of each measurement.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    model = bundle()
    with started() as broker:
        print(f"{machine()}\n{events:,} events, {keys:,} keys, {PARTITIONS} partitions; medians of {repeats}\n")
        fill(broker.bootstrap, events, keys)
        with collected_seldom():  # as a scorer is; and so is the bare client beside it
            compare_scoring(broker.bootstrap, events, most, repeats, model)
            compare_told(broker.bootstrap, events, most, repeats, model)
            layout = Scorer(model).parameters.layout
            compare_restore(broker.bootstrap, rows, repeats, os.urandom(layout.width * 4 + 100))


if __name__ == "__main__":
    cyclopts.run(main)
