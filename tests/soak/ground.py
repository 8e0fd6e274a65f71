"""Where a soak takes place: a log with scorers on it, and the oracle that judges what they left."""

from __future__ import annotations

import logging
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from kafka import KafkaProducer
from kafka.errors import KafkaTimeoutError

from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.core.log import NewRecord
from streamlstm.errors import LogUnavailable
from tests import builders
from tests.end_to_end import kafka_runs, runs
from tests.kafka_broker import Cluster, find_broker

MAX_KEYS = "10"  # fewer than there are, so that keys leave memory and come back
MEMBERS = ("mortal", "steady")  # one is killed again and again; the other lives, so that its memory can be seen
GIVE_UP_AFTER_S = 120.0


class Process(Protocol):
    """A scorer."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    @property
    def alive(self) -> bool:
        """Whether it runs, or is stopped by a signal."""
        ...

    @property
    def output(self) -> str:
        """What it has written."""
        ...

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        ...

    def wait(self) -> int:
        """Wait for its end; return the exit status, negative for a signal."""
        ...


class Ground(Protocol):
    """``partitions`` of the input, ``copies`` of each record that come to be scored."""

    partitions: int
    copies: int

    def append(self, records: Sequence[NewRecord]) -> None:
        """Append records to the input; waits while that is not possible."""
        ...

    def start(self, name: str, poll_records: int) -> Process:
        """Start a scorer."""
        ...

    def done(self) -> int:
        """Return the number of committed outcomes."""
        ...

    def outages(self) -> Mapping[str, tuple[Callable[[], object], Callable[[], object]]]:
        """Return what can happen to the log itself: how it begins and how it ends."""
        ...

    def check(self) -> None:
        """Raise ``AssertionError`` unless each record has one outcome, and all outputs are the plain run's."""
        ...


class _Child:
    def __init__(self, process: subprocess.Popen[str], output: Path) -> None:
        self._process, self._output = process, output
        self.pid = process.pid

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        return self._process.wait(runs.TIMEOUT_S)


class SqliteGround:
    """A file with two topics that get the same feed, one for each scorer: they are in each other's way."""

    partitions, copies = 2, len(MEMBERS)

    def __init__(self, directory: Path) -> None:
        self._directory, self._path = directory, directory / "soak.db"
        self._running: list[_Child] = []

    def __enter__(self) -> Self:
        self._model = runs.write_model(self._directory)
        self._log = SqliteLog(self._path)
        for topic in MEMBERS:
            self._log.create_topic(topic, self.partitions)
            runs.create_outputs(self._path, topic)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._running:
            if child.alive:
                child.send(signal.SIGKILL)
                child.wait()
        self._log.close()

    def append(self, records: Sequence[NewRecord]) -> None:
        """Append to both topics."""
        for topic in MEMBERS:
            while True:
                try:
                    self._log.append(topic, records)
                    break
                except LogUnavailable:  # a scorer was stopped in the middle of a commit
                    time.sleep(0.1)

    def start(self, name: str, poll_records: int) -> Process:
        """Start ``streamlstm score`` on one of the topics."""
        arguments = ["score", "--log", f"sqlite:///{self._path}", "--model", self._model, "--topic", name]
        arguments += ["--poll-records", poll_records, "--max-keys", MAX_KEYS, "--give-up-after-s", GIVE_UP_AFTER_S]
        output = self._directory / f"{name}.txt"
        process = runs.start("streamlstm", *arguments, output=output)
        self._running = [child for child in self._running if child.alive]
        self._running.append(_Child(process, output))
        return self._running[-1]

    def done(self) -> int:
        """Return the number of scores and dead letters."""
        return sum(runs.scored(self._log, topic) + runs.dead(self._log, topic) for topic in MEMBERS)

    def outages(self) -> Mapping[str, tuple[Callable[[], object], Callable[[], object]]]:
        """Return nothing: a file has none."""
        return {}

    def check(self) -> None:
        """Compare with the plain run."""
        for topic in MEMBERS:
            runs.assert_as_plain_run(self._path, topic)


class KafkaGround:
    """A broker of its own, which is killed and started again, and two scorers of one group."""

    partitions, copies = kafka_runs.PARTITIONS, 1

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        logging.getLogger("kafka").setLevel(logging.CRITICAL)  # it tells of each broker that is lost
        self._cluster = self._stack.enter_context(find_broker(Cluster))
        assert isinstance(self._cluster, Cluster)
        model, bundle = runs.write_model(self._directory), builders.expiring_bundle()
        self._stream = kafka_runs.Stream(self._cluster, model, bundle, self.partitions)
        self._stream.create()
        self._fleet = self._stack.enter_context(kafka_runs.Fleet(self._stream, self._directory))
        servers = self._cluster.bootstrap.split(",")
        self._producer = KafkaProducer(bootstrap_servers=servers, acks="all", max_block_ms=120_000)
        self._stack.callback(self._close_producer)
        return self

    def _close_producer(self) -> None:
        """Close, and give up what a dead broker did not take: else a soak that broke off would hide why."""
        self._producer._sender.force_close()
        with suppress(KafkaTimeoutError):
            self._producer.close(timeout=5)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def append(self, records: Sequence[NewRecord]) -> None:
        """Send; what a dead broker does not take is sent when it is there again."""
        for record in records:
            self._producer.send(self._stream.topic, record.value, record.key, list(record.headers), record.partition)

    def start(self, name: str, poll_records: int) -> Process:
        """Start a scorer under an instance name."""
        settings = {"poll_records": poll_records, "max_keys": int(MAX_KEYS), "give_up_after_s": GIVE_UP_AFTER_S}
        return self._fleet.start(name, **settings)

    def done(self) -> int:
        """Return the number of scores and dead letters, ``read_committed``."""
        return self._fleet.done

    def outages(self) -> Mapping[str, tuple[Callable[[], object], Callable[[], object]]]:
        """Return the broker's deaths and halts."""
        assert isinstance(self._cluster, Cluster)
        return {
            "broker killed": (self._cluster.kill, self._cluster.start),
            "broker stopped": (self._cluster.pause, self._cluster.resume),
        }

    def check(self) -> None:
        """Compare with the plain run, states and positions too."""
        self._producer.flush(kafka_runs.TIMEOUT_S)
        kafka_runs.assert_exactly_once(self._stream)


def new_directory() -> tempfile.TemporaryDirectory[str]:
    """Return a directory that goes with the soak."""
    return tempfile.TemporaryDirectory(prefix="soak-")


def pause(seconds: float) -> None:
    """Wait."""
    threading.Event().wait(seconds)
