"""The trainer: history from files or a topic, to a bundle and its report. One process, or torchrun's."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import structlog
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from streamlstm.adapters.bundle_files import HEAD, check_place, read_bundle, write_bundle
from streamlstm.adapters.files import read_records
from streamlstm.adapters.schema_files import read_schema
from streamlstm.core.event import EventBatch, EventDecoder
from streamlstm.core.log import EventLog, Record
from streamlstm.core.schema import StreamSchema
from streamlstm.errors import BundleError, HistoryError, SettingsError
from streamlstm.services.log_url import open_log
from streamlstm.services.registry import parser_of
from streamlstm.services.settings import TrainSettings
from streamlstm.training.fit import Progress, World
from streamlstm.training.history import ORDERLY_SHARE, OUTSIDE_SHARE, History, history_of, share_outside
from streamlstm.training.period import MAX_PERIOD
from streamlstm.training.report import report_html
from streamlstm.training.train import Options, Trained, train

READ_RECORDS = 20_000
DISORDER_ADVICE = (
    "if several sensors share a key, name the field that tells them apart as key in the schema; give files in the "
    "order of time: the scorer refuses late events"
)

DRIFT_ADVICE = (
    "nearly every event of it will look anomalous. If it counts up, as a meter does, send its change since the event "
    "before; if its level has moved for good, leave out the history from before that"
)

logger = structlog.get_logger()


def run(settings: TrainSettings) -> Trained:
    """Train and write the bundle; under torchrun, every process trains and the first one writes."""
    schema = read_schema(settings.stream)
    _check_device(settings.device)
    check_place(settings.out)
    torch.set_num_threads(settings.threads)
    history = read_history(settings, schema)
    options = Options(**{name: getattr(settings, name) for name in Options.__struct_fields__})
    with _world(options.device) as world, _shown(world) as on_progress:
        trained = train(history, schema, options, world=world, on_progress=on_progress)
        if world.rank == 0:
            _tell_of_old(settings.out)
            write_bundle(trained.bundle, settings.out, report_html(trained))
            _tell(trained, settings)
    return trained


def read_history(settings: TrainSettings, schema: StreamSchema) -> History:
    """Read and decode the history; bad records are counted and named, not learned from."""
    if bool(settings.history) == bool(settings.log):
        raise SettingsError("give either --history FILE (once per file) or --log URL with --topic")
    decoder = EventDecoder(schema, parser_of(settings, schema) if settings.log else None)
    batches: list[EventBatch] = []
    refused: Counter[str] = Counter()
    example = ""
    for records in _records(settings, schema):
        batch, rejections = decoder.decode(records)
        batches.append(batch)
        refused.update(rejection.reason for rejection in rejections)
        if rejections and not example:
            first = rejections[0]
            example = (
                f"{first.record.topic} partition {first.record.partition} offset {first.record.offset}: {first.detail}"
            )
    if refused:
        logger.warning("records not learned from", **refused, first=example)
    if not batches:
        where = (
            f"topic {settings.topic!r} of {settings.log}" if settings.log else " and ".join(map(str, settings.history))
        )
        span = f" since {settings.since}" if settings.log and settings.since else ""
        raise HistoryError(f"the history is empty: there is no record in {where}{span}")
    history = history_of(batches)
    _tell_of_disorder(history)
    _tell_of_drift(history, schema)
    return history


def _tell_of_disorder(history: History) -> None:
    """Warn if many events repeat a time of their key, or came late: several keys are mixed, or files not in order."""
    repeated = history.gap_ms == 0
    wrong = np.flatnonzero(repeated | history.is_late)
    if len(wrong) <= ORDERLY_SHARE * len(history):
        return
    moment = datetime.fromtimestamp(history.timestamp_ms[wrong[0]] / 1000, UTC).isoformat()
    logger.warning(
        "event times repeat or go back within a key",
        repeated=f"{repeated.sum():,} of {len(history):,} events",
        late=f"{history.is_late.sum():,}",
        first=f"key {history.keys[history.key_index[wrong[0]]].decode()} at {moment}",
        advice=DISORDER_ADVICE,
    )


def _tell_of_drift(history: History, schema: StreamSchema) -> None:
    """Warn of features that leave all that was learned of them behind: of what was never seen there is no forecast."""
    shares = share_outside(history).reshape(len(schema.numeric), -1).mean(axis=1)
    for name, share in zip(schema.numeric, shares, strict=True):
        if share > OUTSIDE_SHARE:
            logger.warning(
                "a feature leaves its range",
                feature=name,
                outside=f"{share:.0%} of the last quarter's values lie beyond all before them",
                advice=DRIFT_ADVICE,
            )


def _records(settings: TrainSettings, schema: StreamSchema) -> Iterator[list[Record]]:
    if settings.log is None:
        for path in settings.history:
            yield from read_records(path, schema)
        return
    log = open_log(settings)
    try:
        yield from read_range(
            log,
            settings.topic,
            first_offset=settings.first_offset,
            last_offset=settings.last_offset,
            since_ms=_milliseconds(settings.since, "--since"),
            until_ms=_milliseconds(settings.until, "--until"),
        )
    finally:
        log.close()


def read_range(
    log: EventLog,
    topic: str,
    *,
    first_offset: int | None,
    last_offset: int | None,
    since_ms: int | None,
    until_ms: int | None,
) -> Iterator[list[Record]]:
    """Yield a topic's records within a range of offsets (inclusive) and of times (until excluded)."""
    info = log.topic(topic)
    for partition in range(info.partitions):
        offset = max(info.start_offsets[partition], first_offset or 0)
        if since_ms is not None:
            offset = max(offset, log.offset_at(topic, partition, since_ms))
        end = info.end_offsets[partition] if last_offset is None else min(info.end_offsets[partition], last_offset + 1)
        while offset < end:
            records = log.read(topic, partition, offset, min(READ_RECORDS, end - offset))
            if not records:
                break
            offset = records[-1].offset + 1
            yield [
                record
                for record in records
                if (since_ms is None or record.timestamp_ms >= since_ms)
                and (until_ms is None or record.timestamp_ms < until_ms)
            ]


def _milliseconds(time: str | None, option: str) -> int | None:
    if time is None:
        return None
    try:
        moment = datetime.fromisoformat(time)
    except ValueError as error:
        raise SettingsError(f"{option} {time}: {error}") from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _check_device(device: str) -> None:
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"--device {device}: {str(error).splitlines()[0]}") from error


@contextmanager
def _world(device: str) -> Iterator[World]:
    """Join the processes that torchrun started; alone otherwise."""
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    torch.distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield World(torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        torch.distributed.destroy_process_group()


@contextmanager
def _shown(world: World) -> Iterator[Callable[[Progress], None]]:
    """Show losses, a bar and the time left, in the first process."""
    if world.rank != 0:
        yield lambda _: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}  held-out {task.fields[held_out]}"),
        TimeRemainingColumn(),
    )
    with ProgressBar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=None, loss="…", held_out="…")

        def show(progress: Progress) -> None:
            bar.update(task, description=progress.what)
            bar.update(task, total=progress.updates, completed=progress.update, loss=f"{progress.loss:.3f}")
            if progress.held_out is not None:
                bar.update(task, held_out=f"{progress.held_out:.3f}")

        yield show


def _tell_of_old(directory: Path) -> None:
    """Say which bundle is about to be replaced, if there is one: ``--out`` has a default."""
    if not (directory / HEAD).is_file():
        return
    try:
        digest = read_bundle(directory).digest
    except BundleError:
        digest = "not readable"
    logger.warning("the bundle that is there is replaced", out=str(directory), digest=digest)


def _tell(trained: Trained, settings: TrainSettings) -> None:
    report, architecture = trained.bundle.report, trained.bundle.architecture
    promised = trained.bundle.promised(alarms=settings.alarms)
    for choice in report["choices"]:
        logger.info(f"chosen: {choice['name']} {choice['value']}", why=choice["reason"])
    if far := promised.extrapolated(report["calibration_events"]):
        logger.warning("alarms are rarer than the held-out events can tell", why=far)
    logger.info(
        "trained",
        model=trained.bundle.name,
        out=str(settings.out),
        report=str(settings.out / "report.html"),
        events=report["events"],
        keys=report["keys"],
        hidden=architecture.hidden,
        horizon=architecture.horizon,
        period=_period(trained),
        alarms=f"{promised.budget}, one event in {1 / promised.alarm_rate:,.0f}",
        warmup_events=trained.bundle.calibration.warmup_events,
        held_out_loss=round(report["held_out_loss"], 4),
    )


def _period(trained: Trained) -> int | str:
    """Return the period that is given or found; else the longest one that is looked for."""
    if trained.bundle.report["period_found"] or trained.bundle.report["options"]["period"] is not None:
        return trained.bundle.calibration.period
    return f"none of {MAX_PERIOD} events or fewer found"
