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
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import IO, NamedTuple

from streamlstm.adapters.bundle_files import write_bundle
from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.core.bundle import Bundle
from streamlstm.core.log import Headers, Record
from streamlstm.core.record import decode_score
from streamlstm.core.scorer import Scorer
from streamlstm.core.state import Key
from streamlstm.core.topic import alerts_topic, dead_letters_topic, scores_topic
from streamlstm.errors import TopicMissing
from streamlstm.services.scorer import Totals, run
from streamlstm.services.settings import ScoreSettings
from tests import builders

ROOT = Path(__file__).parents[2]
TOPIC = "events"
GROUP = "streamlstm"
EVERYTHING = 1 << 40
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


def create_outputs(path: Path, topic: str = TOPIC) -> None:
    """Make the output topics, as a scorer does when it starts."""
    log = SqliteLog(path)
    for name in (scores_topic, alerts_topic, dead_letters_topic):
        log.create_topic(name(topic), 2)
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


def outputs_of(path: Path, topic: str = TOPIC) -> Outputs:
    """Return scores, alerts and dead letters, partition by partition."""
    log = SqliteLog(path)
    found = {
        name(topic): [
            Stored(record.partition, record.key, record.value, record.headers)
            for partition in range(2)
            for record in log.read(name(topic), partition, 0, EVERYTHING)
        ]
        for name in (scores_topic, alerts_topic, dead_letters_topic)
    }
    log.close()
    return found


def accounted(outputs: Outputs, topic: str = TOPIC) -> list[tuple[int, int]]:
    """Return partition and offset of each event that has a score or a dead letter, sorted."""
    scores = [(record.partition, decode_score(record.value).offset) for record in outputs[scores_topic(topic)]]
    dead = [(record.partition, int(dict(record.headers)["offset"])) for record in outputs[dead_letters_topic(topic)]]
    return sorted(scores + dead)


def assert_exactly_once(path: Path) -> None:
    """Fail unless each event has exactly one outcome, and all outputs equal the plain run's, bit for bit."""
    log = SqliteLog(path)
    ends = log.topic(TOPIC).end_offsets
    log.close()
    outputs = outputs_of(path)
    assert accounted(outputs) == [(partition, offset) for partition in (0, 1) for offset in range(ends[partition])]
    assert outputs == plain_outputs()


def assert_as_plain_run(path: Path, topic: str = TOPIC) -> None:
    """Fail unless each event has exactly one outcome, and all outputs equal those of the core over the input.

    As :func:`assert_exactly_once`, for an input that is not known beforehand. States are compared, too: those
    that the log may have dropped by now may be missing.
    """
    log = SqliteLog(path)
    taken = [record for partition in range(2) for record in log.read(topic, partition, 0, EVERYTHING)]
    plain, kept = plain_run(taken)
    outputs = outputs_of(path, topic)
    assert accounted(outputs, topic) == [(record.partition, record.offset) for record in taken]
    for name, wanted in (
        (scores_topic, plain.scores),
        (alerts_topic, plain.alerts),
        (dead_letters_topic, plain.dead_letters),
    ):
        assert outputs[name(topic)] == [Stored(*output) for output in wanted], name(topic)
    stored = log.read_states(topic, GROUP, plain.states)
    assert stored == {place: plain.states[place].value for place in stored}
    assert set(stored) >= kept
    log.close()


def plain_run(taken: Iterable[Record], bundle: Bundle | None = None) -> tuple[builders.Run, set[Key]]:
    """Run the core over an input event by event; return what it leaves, and which states no log may have dropped."""
    scorer = Scorer(bundle or builders.expiring_bundle())
    plain = builders.run_polls(scorer, ([record] for record in taken))
    return plain, plain.kept(scorer.watermarks, scorer.bundle.schema)


def scored(log: SqliteLog, topic: str = TOPIC) -> int:
    """Return how many events have a committed score."""
    try:
        return sum(log.topic(scores_topic(topic)).end_offsets)
    except TopicMissing:
        return 0


def dead(log: SqliteLog, topic: str = TOPIC) -> int:
    """Return how many records have become dead letters."""
    return sum(log.topic(dead_letters_topic(topic)).end_offsets)


def start(*arguments: object, cwd: Path = ROOT, output: Path | None = None, **variables: str) -> subprocess.Popen[str]:
    """Start ``python -m`` with these arguments, in an environment without settings but ``variables``.

    What it writes goes to pipes, or to the end of the file ``output``.
    """
    with output.open("a") if output else nullcontext(subprocess.PIPE) as writes:
        return _start(arguments, cwd, writes, variables)


def _start(
    arguments: Iterable[object], cwd: Path, writes: int | IO[str], variables: Mapping[str, str]
) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMLSTM_")}
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=cwd,
        env=environment
        | {"STREAMLSTM_LOG_FORMAT": "console", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        | dict(variables),
        stdout=writes,
        stderr=writes,
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
