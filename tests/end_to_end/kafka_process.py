"""What the Kafka tests run as processes of their own: a scorer or an alerter, and what happens to it where.

They are forked from a server that has imported this module, which must not import torch: so a process is there in a
tenth of a second instead of three.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from streamlstm.adapters.bundle_files import read_bundle
from streamlstm.adapters.kafka.client import Clients
from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.adapters.kafka.log import KafkaLog
from streamlstm.adapters.webhook import Courier
from streamlstm.core.log import Record
from streamlstm.errors import StreamlstmError
from streamlstm.services import alerter, scorer
from streamlstm.services.receiver import webhook_of
from streamlstm.services.settings import AlertSettings, ScoreSettings
from streamlstm.services.stop import stop_on_signals

HELD_S = 120.0  # at a gate, at most: a test that failed does not open it


@dataclass(frozen=True)
class Gate:
    """A place where a process waits until a test opens it."""

    path: Path

    @property
    def reached(self) -> bool:
        """Whether the process has come to it."""
        return self.path.with_suffix(".reached").exists()

    def open(self) -> None:
        """Let it go on."""
        self.path.touch()

    def wait(self) -> None:
        """Wait, as the process."""
        self.path.with_suffix(".reached").touch()
        until_s = time.monotonic() + HELD_S
        while not self.path.exists() and time.monotonic() < until_s:
            time.sleep(0.01)


@dataclass(frozen=True)
class Fault:
    """What happens after ``step`` of the ``commit``-th commit (from 1): a signal to itself, or a wait at a gate.

    ``delay_s`` before that, what was sent reaches the broker.
    """

    step: str
    commit: int
    what: int | Gate
    delay_s: float = 0.3


@dataclass(frozen=True)
class Job:
    """What a process is to do. ``restore_wait_s`` makes each look into the changelog last so long."""

    servers: tuple[str, ...]
    output: Path
    instance: str
    settings: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    fault: Fault | None = None
    restore_wait_s: float = 0.0
    confluent: bool = False


def score(job: Job) -> None:
    """Score until the end or a signal."""
    settings = ScoreSettings(**job.settings)
    with _output_to(job.output), stop_on_signals() as stop, _log(job, settings.give_up_after_s) as log:
        scorer.run(log, read_bundle(settings.model), settings, stop)


def alert(job: Job) -> None:
    """Deliver alerts until the end or a signal."""
    settings = AlertSettings(**job.settings)
    webhook = webhook_of(settings, {"STREAMLSTM_WEBHOOK_SECRET": 32 * "s"})
    with (
        _output_to(job.output),
        stop_on_signals() as stop,
        _log(job, settings.give_up_after_s) as log,
        Courier(webhook, settings.connections) as courier,
    ):
        alerter.run(log, courier, settings, stop)


@contextmanager
def _log(job: Job, stuck_after_s: float) -> Iterator[KafkaLog]:
    clients = clients_of(job)
    config = KafkaConfig(job.servers, instance=job.instance, **job.config)
    log = KafkaLog(config, on_step=_Steps(job.fault), stuck_after_s=stuck_after_s, clients=clients)
    try:
        yield log
    finally:
        log.close()


class _Steps:
    """Called with each step of a commit."""

    def __init__(self, fault: Fault | None) -> None:
        self._fault = fault
        self._commits = 0

    def __call__(self, step: str) -> None:
        self._commits += step == "begin"
        if self._fault is None or (step, self._commits) != (self._fault.step, self._fault.commit):
            return
        time.sleep(self._fault.delay_s)
        if isinstance(self._fault.what, Gate):
            self._fault.what.wait()
        else:
            os.kill(os.getpid(), self._fault.what)


def clients_of(job: Job) -> Clients:
    """Return the client library's part; its reader waits after each record if the job says so."""
    if job.confluent:
        from streamlstm.adapters.kafka.confluent_client import CLIENTS
    else:
        from streamlstm.adapters.kafka.python_client import CLIENTS

    class SlowReader(CLIENTS.reader):  # type: ignore[misc, name-defined]
        def read(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[Sequence[Record]]:
            for batch in super().read(starts, ends):
                for record in batch:
                    yield [record]
                    time.sleep(job.restore_wait_s)
                yield []

    return CLIENTS._replace(reader=SlowReader) if job.restore_wait_s else CLIENTS


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Write all to a file; end as the command line does, with a sentence and status 1 for a known error."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False),
            structlog.dev.ConsoleRenderer(colors=False),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    try:
        yield
    except StreamlstmError as error:
        print(f"streamlstm: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
