"""The replayer: a file's events into a topic, at the pace of their own time or as fast as possible."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from streamlstm.adapters.files import read_events, read_schema
from streamlstm.core.event import LATEST_MS, EventDecoder
from streamlstm.core.log import NewRecord, Record
from streamlstm.core.schema import StreamSchema
from streamlstm.services.log_url import open_log
from streamlstm.services.settings import ReplaySettings
from streamlstm.services.stop import stop_on_signals

BATCH_EVENTS = 500
LONGEST_BATCH_S = 0.25  # of wall time, so that a slow feed arrives evenly


def replay(path: Path, settings: ReplaySettings) -> int:
    """Replay a file until its end or a signal; return how many events were written.

    Events that cannot be decoded are written too, at the pace of the last one that could: what to do
    with bad records is the scorer's to say.
    """
    schema = read_schema(settings.stream)
    log = open_log(settings.log, must_exist=False)
    try:
        log.create_topic(settings.topic, settings.partitions, settings.retention_s)
        with stop_on_signals() as stop, _progress() as progress:
            task = progress.add_task(f"{path.name} → {settings.topic}", total=None, rate="")
            started_s, written = time.monotonic(), 0
            for batch in _paced(path, schema, settings.speed, stop):
                log.append(settings.topic, batch)
                written += len(batch)
                rate = f"{written / max(time.monotonic() - started_s, 1e-9):,.0f} events/s"
                progress.update(task, completed=written, rate=rate)
            return written
    finally:
        log.close()


def _paced(path: Path, schema: StreamSchema, speed: float, stop: threading.Event) -> Iterator[list[NewRecord]]:
    """Yield the file's records in batches, each when its time has come."""
    decoder = EventDecoder(schema)
    started_s, first_ms, batch, batch_due_s = time.monotonic(), None, list[NewRecord](), 0.0
    for values in read_events(path, schema):
        for value in values:
            key, time_ms = _key_and_time(decoder, value)
            if first_ms is None:
                first_ms = time_ms
            due_s = batch_due_s
            if speed > 0 and time_ms is not None and first_ms is not None:
                due_s = max((time_ms - first_ms) / 1000 / speed, batch_due_s)
            if len(batch) >= BATCH_EVENTS or (batch and due_s - batch_due_s > LONGEST_BATCH_S):
                yield batch
                batch = []
            if not batch:
                batch_due_s = due_s
                if speed > 0 and stop.wait(max(0.0, started_s + due_s - time.monotonic())):
                    return
            if stop.is_set():
                break
            batch.append(NewRecord(key, value))
    if batch:
        yield batch


def _key_and_time(decoder: EventDecoder, value: bytes) -> tuple[bytes | None, int | None]:
    events, _ = decoder.decode([Record("", 0, 0, LATEST_MS, None, value)])
    return (events.keys[0], int(events.timestamp_ms[0])) if len(events) else (None, None)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    )
