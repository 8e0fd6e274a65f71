"""The inspector: what a bundle, a topic or a key holds, for people."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamlstm.adapters.bundle_files import HEAD, read_bundle
from streamlstm.core.alert import CLOSED, COOLING, OPEN
from streamlstm.core.bundle import Bundle
from streamlstm.core.log import EventLog, Record
from streamlstm.core.pack import unpacked
from streamlstm.core.record import decode_alert, decode_score
from streamlstm.core.scorer import Scorer
from streamlstm.core.state import (
    EVENTS,
    LAST_OFFSET,
    LAST_TIMESTAMP_MS,
    OPENED_OFFSET,
    PHASE,
    TAIL_SCALE,
    TAIL_START,
)
from streamlstm.core.topic import alerts_topic, scores_topic
from streamlstm.core.why import why
from streamlstm.errors import SettingsError, TopicMissing
from streamlstm.services.log_url import open_log
from streamlstm.services.settings import InspectSettings
from streamlstm.services.wording import counted, over

SEARCHED_MARKS = 100  # a Kafka transaction's end takes an offset, and is no record
SEARCHED_SCORES = 20_000  # how far back a key's last scores are looked for
SHOWN_CHARACTERS = 2000  # of a record's value
SHOWN_FEATURES = 3  # of an alert, in words
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # they would end lines, or steer a terminal
PHASES = {CLOSED: "none", OPEN: "open", COOLING: "cooling down"}


def inspect(target: str, settings: InspectSettings, console: Console) -> None:
    """Describe ``target``: a bundle's directory, a topic of the log, or a key of the input topic."""
    if (Path(target) / HEAD).is_file():
        _show_bundle(read_bundle(Path(target)), target, console)
        return
    if settings.log is None:
        raise SettingsError(f"{target} is no bundle directory; for a topic or a key, give --log URL")
    log = open_log(settings)
    try:
        if target in {info.name for info in log.topics()}:
            _show_topic(log, target, settings, console)
        else:
            _show_key(log, target, settings, console)
    finally:
        log.close()


def _show_bundle(bundle: Bundle, target: str, console: Console) -> None:
    a, report = bundle.architecture, bundle.report
    table = _facts(f"Bundle {target}")
    table.add_row("digest", bundle.digest)
    table.add_row("key, time", f"{bundle.schema.key or '(record key)'}, {bundle.schema.timestamp}")
    for name, feature in bundle.schema.features.items():
        table.add_row("feature", f"{name}  {feature.kind}  {feature.unit}{'  optional' if feature.optional else ''}")
    table.add_row("frame", f"{counted(bundle.schema.frame_samples, 'sample')} per event")
    table.add_row(
        "network",
        f"{counted(a.layers, 'layer')}, hidden {a.hidden}, horizon {counted(a.horizon, 'event')}, "
        f"{counted(a.input_width, 'input')}",
    )
    table.add_row("warm-up", f"{counted(bundle.calibration.warmup_events, 'event')} per key")
    table.add_row("period", counted(bundle.calibration.period, "event"))
    table.add_row("alarms", f"at most {bundle.promised().budget}, on average")
    for name in bundle.alerting.__struct_fields__:
        table.add_row(*_fact(name, getattr(bundle.alerting, name)))
    for choice in report.get("choices", []):
        table.add_row(f"why {choice['name']} {choice['value']}", choice["reason"])
    for name, value in report.items():
        if name != "choices":
            table.add_row(*_fact(name, value))
    console.print(table)


def _fact(name: str, value: Any) -> tuple[str, str]:
    """Return the label and the text of a field; the end of its name tells its unit."""
    label = name.replace("_", " ")
    if isinstance(value, bool):
        return label, "yes" if value else "no"
    if name.endswith("_event_ms"):
        return label.removesuffix(" ms"), _time(value)
    if name.endswith("_ms"):
        return label.removesuffix(" ms"), f"{value / 1000:g} s"
    if name.endswith("_events"):
        return label.removesuffix(" events"), counted(value, "event")
    if name.endswith("_rate"):
        return label, f"{value:g} of the events"
    if name.endswith("_bytes_per_key"):
        return label.removesuffix(" bytes per key"), f"{counted(value, 'byte')} per key"
    if isinstance(value, dict):
        return label, ", ".join(f"{key} {given}" for key, given in value.items() if given is not None)
    return label, f"{value:.4g}" if isinstance(value, float) else str(value)


def _show_topic(log: EventLog, topic: str, settings: InspectSettings, console: Console) -> None:
    info, records = log.topic(topic), settings.records
    readable = _readable_of(topic, settings)
    retention = "for ever" if info.retention_s is None else f"{info.retention_s:g} s"
    if info.retention_s is not None and math.isnan(info.retention_s):
        retention = "for a time that this user may not see (ACL DescribeConfigs)"
    table = Table(
        title=f"Topic {topic}: {counted(info.partitions, 'partition')}, kept {retention}", title_justify="left"
    )
    for column in ("partition", "first offset", "next offset", "offsets"):
        table.add_column(column, justify="right")
    for partition, (start, end) in enumerate(zip(info.start_offsets, info.end_offsets, strict=True)):
        table.add_row(str(partition), str(start), str(end), str(end - start))
    console.print(table)
    for partition, (start, end) in enumerate(zip(info.start_offsets, info.end_offsets, strict=True)):
        searched = max(start, end - records - SEARCHED_MARKS)
        found = log.read(topic, partition, searched, end - searched)[-records:]
        if topic.endswith(scores_topic("")):
            found = unpacked(found)[-records:]
        for record in found:
            console.print(_line(record, readable), soft_wrap=True)


def _show_key(log: EventLog, key: str, settings: InspectSettings, console: Console) -> None:
    try:
        info = log.topic(settings.topic)
    except TopicMissing as error:
        raise SettingsError(f"{key!r} is neither a topic nor a key: {error}") from error
    pairs = [(partition, key.encode()) for partition in range(info.partitions)]
    states = log.read_states(settings.topic, settings.group, pairs)
    if not states:
        raise SettingsError(
            f"{key!r} is no topic of {settings.log}, and no key that group {settings.group!r} has scored in topic "
            f"{settings.topic!r}"
        )
    for (partition, _), data in states.items():
        table = _facts(f"Key {key}, topic {settings.topic}, partition {partition}")
        table.add_row("state of bundle", data[1:13].decode(errors="replace"))
        if settings.model is not None:
            _add_state(table, data, (partition, key.encode()), read_bundle(settings.model))
        else:
            table.add_row("state", f"{len(data)} bytes; give --model DIR to read them")
        console.print(table)
        readable = _readable_of(scores_topic(settings.topic), settings)
        for record in list(_scores_of(log, settings.topic, partition, key))[-settings.records :]:
            console.print(_line(record, readable), soft_wrap=True)


def _add_state(table: Table, data: bytes, key: tuple[int, bytes], bundle: Bundle) -> None:
    rows = Scorer(bundle).read_state(key, data)
    integers, layout = rows.integers[0].tolist(), bundle.parameters().layout
    tail = rows.floats[0, layout.tail : layout.episode].tolist()
    table.add_row("events", str(integers[EVENTS]))
    table.add_row("warm", "yes" if integers[EVENTS] > bundle.calibration.warmup_events else "no")
    table.add_row("last event", f"{_time(integers[LAST_TIMESTAMP_MS])}, offset {integers[LAST_OFFSET]}")
    phase = integers[PHASE]
    table.add_row("alert", PHASES[phase] + (f", opened at offset {integers[OPENED_OFFSET]}" if phase == OPEN else ""))
    usual = f"{100 * (1 - bundle.parameters().tail.level):.4g} % below {tail[TAIL_START]:.3f}"
    table.add_row("usual score", f"{usual}; the tail's scale above that is {tail[TAIL_SCALE]:.3f}")


def _scores_of(log: EventLog, topic: str, partition: int, key: str) -> Iterator[Record]:
    info = log.topic(scores_topic(topic))
    offset = max(info.start_offsets[partition], info.end_offsets[partition] - SEARCHED_SCORES)
    for record in log.read(scores_topic(topic), partition, offset, SEARCHED_SCORES):
        if record.key == key.encode():
            yield from unpacked([record])


def _facts(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    return table


Readable = Callable[[bytes], str]


def _readable_of(topic: str, settings: InspectSettings) -> Readable | None:
    """Return what puts a topic's records in words: those of scores and alerts, unless JSON is asked for."""
    if settings.json:
        return None
    return next((words for end, words in READABLE.items() if topic.endswith(end)), None)


def _alert_in_words(value: bytes) -> str:
    alert = decode_alert(value)
    parts = [f"{alert.action:8}", alert.key, f"at {_time(alert.time_ms)}"]
    if alert.action == "resolved":
        seconds = (alert.time_ms - alert.since_ms) / 1000
        parts.append(f"{alert.reason} after {counted(alert.events, 'event')} in {seconds:g} s")
        parts.append(f"peak score {alert.peak_score:.2f}")
    else:
        parts += [words] if (words := why(alert)) else []
        score = alert.peak_score if alert.score is None else alert.score
        opened = alert.action == "opened"  # later the threshold follows the scores
        parts.append(f"score {over(score, alert.threshold or 0.0)}" if opened else f"score {score:.1f}")
        parts += ["the threshold follows"] if alert.adapting else []
        blamed = sorted(alert.features, key=lambda feature: -feature.share)[:SHOWN_FEATURES]
        parts.append(", ".join(f"{feature.name} {100 * feature.share:.0f} %" for feature in blamed))
    return "  ".join(part for part in (*parts, alert.id) if part)


def _score_in_words(value: bytes) -> str:
    score = decode_score(value)
    parts = [score.key, f"at {_time(score.time_ms)}", f"offset {score.offset}"]
    if score.score is None:
        return "  ".join([*parts, score.status.replace("_", " ")])
    parts.append(f"score {score.score:.2f}, threshold {score.threshold or 0.0:.2f}")
    parts.append(f"tail probability {score.tail_probability or 0.0:.2g}")
    return "  ".join([*parts, f"in alert {score.alert}"] if score.alert else parts)


READABLE: dict[str, Readable] = {alerts_topic(""): _alert_in_words, scores_topic(""): _score_in_words}


def _line(record: Record, readable: Readable | None = None) -> Text:
    """Return a record as one line, however long, in words where they are known for it; control characters are written
    as escapes."""
    headers = "".join(f"  {name}={value.decode(errors='replace')}" for name, value in record.headers)
    value = record.value.decode(errors="replace")
    if readable is not None:
        with suppress(msgspec.MsgspecError, ArithmeticError, ValueError):  # a topic of that name may hold anything
            value = readable(record.value)
    if len(value) > SHOWN_CHARACTERS:
        value = f"{value[:SHOWN_CHARACTERS]}… ({counted(len(record.value), 'byte')})"
    line = f"{record.partition}:{record.offset}  {_time(record.timestamp_ms)}{headers}  {value}"
    return Text(CONTROL_CHARACTERS.sub(lambda found: found[0].encode("unicode_escape").decode(), line))


def _time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
