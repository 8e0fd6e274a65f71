"""The replayer: a file as a living feed, written to a topic at the pace of its own time or as fast as possible.

The feed is made by the stages of :mod:`~streamlstm.services.feed_source` (what is sent) and
:mod:`~streamlstm.services.feed_effects` (what happens to it on the way); here it is paced and written.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from streamlstm.adapters.files import STDIN, read_events
from streamlstm.adapters.schema_files import read_schema
from streamlstm.core.log import EventLog, NewRecord
from streamlstm.core.schema import StreamSchema
from streamlstm.errors import SettingsError, TopicMissing
from streamlstm.services.feed_effects import Tally, delivered
from streamlstm.services.feed_source import Timed, encoded, played, timed
from streamlstm.services.log_url import open_log
from streamlstm.services.settings import ReplaySettings
from streamlstm.services.stop import stop_on_signals

BATCH_EVENTS = 500
LONGEST_BATCH_S = 0.25  # of wall time, so that a slow feed arrives evenly
LONGEST_WAIT_S = 3600.0  # at once: a wait of centuries, which one bad time can ask for, is no number for a clock
CHUNK_ROWS = 50_000  # of the file in memory, shared by all that read it
MIN_CHUNK_ROWS = 500
MAX_READERS = 200  # each holds the file open; a process may have 256 files on macOS, 1024 on most Linux

logger = structlog.get_logger()


@dataclass(frozen=True)
class Clock:
    """The time that a replay sees: a steady clock, the wall clock, and how to wait (true: stop was asked for)."""

    steady_s: Callable[[], float] = time.monotonic
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    wait: Callable[[threading.Event, float], bool] = threading.Event.wait


@dataclass
class Replayed:
    """What a replay did.

    ``until_ms`` is the latest event time written; ``rounds`` how often the first copy has played the
    file, with a fraction where it was stopped on the way (0 of standard input, whose end is not known).
    When stopped, ``tally`` may be ahead of ``events`` by what was about to be written.
    """

    tally: Tally
    events: int = 0
    until_ms: int | None = None
    rounds: float = 0.0
    stopped: bool = False
    warned: bool = False


def _partitions(log: EventLog, settings: ReplaySettings) -> int:
    """Return how many partitions the topic is to have: as asked for, or as it has, or one."""
    if settings.partitions is not None:
        return settings.partitions
    try:
        return log.topic(settings.topic).partitions
    except TopicMissing:
        return 1


def replay(path: Path, settings: ReplaySettings, clock: Clock | None = None) -> Replayed:
    """Replay a file until the end of its last round or a signal; what is written is whole batches.

    Events that cannot be decoded are written too, at the pace of the last one that could: what to do
    with bad records is the scorer's to say.
    """
    clock = clock or Clock()
    _check(path, settings)
    schema = read_schema(settings.stream)
    log = open_log(settings, must_exist=False)
    try:
        log.create_topic(settings.topic, _partitions(log, settings), settings.retention_s)
        done = Replayed(Tally())
        with stop_on_signals() as stop, _shown(path, settings, clock) as show:
            feed = delivered(_feed(path, schema, settings, clock, stop), settings, done.tally)
            try:
                for batch in paced(feed, settings.speed, stop, clock):
                    log.append(settings.topic, [NewRecord(record.key, record.value) for record in batch])
                    _count(done, batch)
                    _warn_if_ahead(done, schema, settings, clock)
                    show(done)
            except _Stopped:
                pass
            done.stopped = stop.is_set()
            done.rounds = done.rounds if done.stopped else float(settings.loop)
            show(done)
    finally:
        log.close()
    _tell(path, settings, done)
    return done


def _check(path: Path, settings: ReplaySettings) -> None:
    if path == STDIN and (settings.loop != 1 or settings.phase_s):
        raise SettingsError("standard input can be read once only: --loop and --phase-s take a file")
    if settings.phase_s and settings.copies > MAX_READERS:
        raise SettingsError(
            f"--copies {settings.copies}: with --phase-s each copy keeps the file open; {MAX_READERS} at most"
        )


def _feed(
    path: Path, schema: StreamSchema, settings: ReplaySettings, clock: Clock, stop: threading.Event
) -> Iterator[Timed]:
    """Yield the feed as it is sent, before anything happens to it on its way."""
    readers = settings.copies if settings.phase_s else 1
    rows = max(CHUNK_ROWS // readers, MIN_CHUNK_ROWS)
    copies = played(
        lambda: timed(_chunks(path, schema, rows, stop), schema),
        loop=settings.loop,
        copies=settings.copies,
        phase_ms=round(settings.phase_s * 1000),
    )
    return encoded(copies, schema, clock.now_ms if settings.restamp else None)


class _Stopped(Exception):
    """A signal came while the file was read; never leaves this module."""


def _chunks(path: Path, schema: StreamSchema, rows: int, stop: threading.Event) -> Iterator[tuple[list[bytes], float]]:
    """Yield chunks of events with the share of the file read; a stop must not look like the end of the file."""
    shares = [0.0]
    for values in read_events(path, schema, rows=rows, on_share=shares.append):
        if stop.is_set():
            raise _Stopped
        yield values, shares[-1]
        del shares[:-1]


def paced(feed: Iterator[Timed], speed: float, stop: threading.Event, clock: Clock) -> Iterator[list[Timed]]:
    """Yield the feed in batches, each when its last event is due; end early when stopped.

    ``speed`` is event time per wall time, 0 as fast as possible. No event comes before it is due, and none
    more than :data:`LONGEST_BATCH_S` after it unless writing takes longer.
    """
    started_s = None
    for due_s, batch in _batches(feed, speed):
        started_s = clock.steady_s() if started_s is None else started_s
        if _wait_until(started_s + due_s, stop, clock):
            return
        yield batch


def _batches(feed: Iterator[Timed], speed: float) -> Iterator[tuple[float, list[Timed]]]:
    """Yield batches and when each one's last event is due, in seconds since the first event of all."""
    batch, first_s, due_s = list[Timed](), 0.0, 0.0
    for record in feed:
        next_s = max(due_s, record.due_ms / 1000 / speed) if speed else 0.0
        if batch and next_s - first_s > LONGEST_BATCH_S:
            yield due_s, batch
            batch = []
        if not batch:
            first_s = next_s
        due_s = next_s
        batch.append(record)
        if len(batch) >= BATCH_EVENTS:
            yield due_s, batch
            batch = []
    if batch:
        yield due_s, batch


def _wait_until(moment_s: float, stop: threading.Event, clock: Clock) -> bool:
    """Wait for a moment of the steady clock; return whether to stop instead."""
    while (left_s := moment_s - clock.steady_s()) > 0:
        if clock.wait(stop, min(left_s, LONGEST_WAIT_S)):
            return True
    return stop.is_set()


def _count(done: Replayed, batch: list[Timed]) -> None:
    done.events += len(batch)
    times = [record.time_ms for record in batch if record.time_ms is not None]
    done.until_ms = max([*times, *([] if done.until_ms is None else [done.until_ms])], default=None)
    done.rounds = max([done.rounds, *(record.place for record in batch if record.copy == 1)])


def _warn_if_ahead(done: Replayed, schema: StreamSchema, settings: ReplaySettings, clock: Clock) -> None:
    """Say once that scorers will refuse what comes now; who replays old times knows where they lie."""
    if not settings.restamp or done.warned or done.until_ms is None:
        return
    ahead_s = (done.until_ms - clock.now_ms()) / 1000
    if ahead_s > schema.max_ahead_s:
        done.warned = True
        logger.warning(
            "the restamped feed is so far ahead of the clock that a scorer refuses its events; "
            "replay at speed 1 or raise max_ahead_s in the stream schema",
            ahead_s=round(ahead_s),
            max_ahead_s=schema.max_ahead_s,
        )


@contextmanager
def _shown(path: Path, settings: ReplaySettings, clock: Clock) -> Iterator[Callable[[Replayed], None]]:
    """Show how far into the file the feed is, and its rate."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[counted]}"),
        TimeElapsedColumn(),
    )
    started_s, total = clock.steady_s(), None if path == STDIN else 1
    with Progress(*columns, console=Console(stderr=True)) as progress:
        name = f"{path.name} → {settings.topic}"
        first = "finding where each copy starts" if settings.phase_s else ""
        task = progress.add_task(name, total=total, counted=first)

        def show(done: Replayed) -> None:
            number, of = int(done.rounds) + 1, ""
            if settings.loop:
                number, of = min(number, settings.loop), f" of {settings.loop}"
            share = done.rounds / settings.loop if settings.loop else done.rounds % 1
            text = name if settings.loop == 1 else f"{name}, round {number}{of}"
            rate = done.events / max(clock.steady_s() - started_s, 1e-9)
            progress.update(task, description=text, completed=share, counted=f"{done.events:,} events, {rate:,.0f}/s")

        yield show


def _tell(path: Path, settings: ReplaySettings, done: Replayed) -> None:
    until = None if done.until_ms is None else datetime.fromtimestamp(done.until_ms / 1000, UTC)
    logger.info(
        "stopped" if done.stopped else "replayed",
        file=str(path),
        topic=settings.topic,
        events=done.events,
        until=until.isoformat(timespec="milliseconds") if until else "",
        rounds=round(done.rounds, 4),
        lost=done.tally.lost,
        duplicated=done.tally.duplicated,
        reordered=done.tally.reordered,
    )
