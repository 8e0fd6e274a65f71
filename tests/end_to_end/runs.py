"""What the end-to-end tests share: an input log, scorers in processes of their own, and what they left."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from streamlstm.adapters.bundle_files import write_bundle
from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.core.log import Headers
from streamlstm.core.record import decode_score
from streamlstm.core.topic import alerts_topic, dead_letters_topic, scores_topic
from streamlstm.errors import TopicMissing
from streamlstm.services.scorer import Totals, run
from streamlstm.services.settings import ScoreSettings
from tests import builders

ROOT = Path(__file__).parents[2]
TOPIC = "events"
TIMEOUT_S = 180.0  # for anything that a process does; far more than it takes


class Stored(NamedTuple):
    """An output record without the place and moment at which the log took it."""

    partition: int
    key: bytes | None
    value: bytes
    headers: Headers


Outputs = Mapping[str, list[Stored]]


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Return as soon as ``condition`` holds; fail if the process ends before, or does not get there."""
    deadline, pause = time.monotonic() + TIMEOUT_S, threading.Event()
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(process.communicate())
        pause.wait(0.002)


def write_model(directory: Path) -> Path:
    """Write the bundle that all these tests score with."""
    write_bundle(builders.expiring_bundle(), directory / "model", "")
    return directory / "model"


def write_input(path: Path) -> Path:
    """Write a log whose topic holds the whole feed, with the same times of arrival in each of them."""
    log = SqliteLog(path, clock=lambda: 2 * builders.START_MS)
    log.create_topic(TOPIC, 2)
    log.append(TOPIC, builders.make_troubled_feed())
    log.close()
    return path


def create_outputs(path: Path) -> None:
    """Make the output topics, as a scorer does when it starts."""
    log = SqliteLog(path)
    for name in (scores_topic, alerts_topic, dead_letters_topic):
        log.create_topic(name(TOPIC), 2)
    log.close()


def copy_log(path: Path, to: Path) -> Path:
    """Copy a closed log."""
    shutil.copy(path, to)
    return to


def score_here(path: Path, **settings: object) -> Totals:
    """Score the topic to its end in this process, as ``streamlstm score --until-end`` does."""
    chosen = ScoreSettings(**({"topic": TOPIC, "until_end": True} | settings))  # type: ignore[arg-type]
    log = SqliteLog(path)
    try:
        return run(log, builders.expiring_bundle(), chosen, threading.Event())
    finally:
        log.close()


@functools.cache
def plain_outputs() -> Outputs:
    """Return what one scorer leaves behind that nothing disturbs, event by event."""
    with tempfile.TemporaryDirectory() as directory:
        path = write_input(Path(directory) / "plain.db")
        score_here(path, poll_records=1)
        return outputs_of(path)


def outputs_of(path: Path) -> Outputs:
    """Return scores, alerts and dead letters, partition by partition."""
    log = SqliteLog(path)
    found = {
        name(TOPIC): [
            Stored(record.partition, record.key, record.value, record.headers)
            for partition in range(2)
            for record in log.read(name(TOPIC), partition, 0, 1_000_000)
        ]
        for name in (scores_topic, alerts_topic, dead_letters_topic)
    }
    log.close()
    return found


def accounted(outputs: Outputs) -> list[tuple[int, int]]:
    """Return partition and offset of each event that has a score or a dead letter, sorted."""
    scores = [(record.partition, decode_score(record.value).offset) for record in outputs[scores_topic(TOPIC)]]
    dead = [(record.partition, int(dict(record.headers)["offset"])) for record in outputs[dead_letters_topic(TOPIC)]]
    return sorted(scores + dead)


def assert_exactly_once(path: Path) -> None:
    """Fail unless each event has exactly one outcome, and all outputs equal the plain run's, bit for bit."""
    log = SqliteLog(path)
    ends = log.topic(TOPIC).end_offsets
    log.close()
    outputs = outputs_of(path)
    assert accounted(outputs) == [(partition, offset) for partition in (0, 1) for offset in range(ends[partition])]
    assert outputs == plain_outputs()


def scored(log: SqliteLog) -> int:
    """Return how many events have a committed score."""
    try:
        return sum(log.topic(scores_topic(TOPIC)).end_offsets)
    except TopicMissing:
        return 0


def start(*arguments: object, cwd: Path = ROOT, **variables: str) -> subprocess.Popen[str]:
    """Start ``python -m`` with these arguments, in an environment without settings but ``variables``."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMLSTM_")}
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=cwd,
        env=environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def start_scorer(log: Path, model: Path, *options: str) -> subprocess.Popen[str]:
    """Start ``streamlstm score`` on the topic."""
    return start("streamlstm", "score", "--log", f"sqlite:///{log}", "--model", model, *options)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end of a process; return its exit status and what it wrote to standard error."""
    try:
        _, errors = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return process.returncode, errors
