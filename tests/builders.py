"""Builders of small things that tests need: schemas, records, histories and a trained bundle."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from streamlstm.core.bundle import Bundle
from streamlstm.core.commit import Output, StateRow
from streamlstm.core.event import EventDecoder
from streamlstm.core.log import NewRecord, Record
from streamlstm.core.record import AlertRecord, ScoreRecord, decode_alert, decode_score
from streamlstm.core.schema import StreamSchema
from streamlstm.core.scorer import Scorer
from streamlstm.core.state import Key
from streamlstm.training.history import History, history_of
from streamlstm.training.train import Options, Trained, train

START_MS = 1_600_000_000_000
STEP_MS = 1_000
PERIOD = 20  # events, of the sine in channel "flow"

SCHEMA = StreamSchema.from_toml(
    """
    key = "sensor"
    timestamp = "time"
    timestamp_unit = "ms"
    [features.flow]
    unit = "l/min"
    [features.pressure]
    unit = "bar"
    """
)

RICH = StreamSchema.from_toml(
    """
    key = "machine"
    timestamp_unit = "ms"
    frame_samples = 2
    calendar = true
    [features.heat]
    unit = "K"
    optional = true
    [features.mode]
    kind = "categorical"
    optional = true
    [features.speed]
    optional = true
    """
)


def make_record(
    value: bytes | dict[str, object] | None = None,
    *,
    offset: int = 0,
    partition: int = 0,
    topic: str = "events",
    timestamp_ms: int = START_MS * 2,
    key: bytes | None = None,
    **fields: object,
) -> Record:
    """Return one record; ``fields`` replace those of a valid event of :data:`SCHEMA`."""
    if value is None or isinstance(value, dict):
        event: dict[str, object] = {"sensor": "a", "time": START_MS, "flow": 10.0, "pressure": 2.0}
        value = msgspec.json.encode({**event, **(value or {}), **fields})
    return Record(topic, partition, offset, timestamp_ms, key, value)


def make_feed(
    events: int, keys: Sequence[str] = ("a", "b"), *, seed: int = 0, start: int = 0, partitions: int = 1
) -> list[Record]:
    """Return a regular feed of :data:`SCHEMA`: a noisy sine and a noisy constant, keys interleaved.

    ``start`` is the first step in time; offsets count from 0 in each partition.
    """
    rng = np.random.default_rng((seed, start))
    records: list[Record] = []
    offsets = [0] * partitions
    for step in range(start, start + events):
        for place, key in enumerate(keys):
            partition = place % partitions
            flow = 10.0 + np.sin(2 * np.pi * step / PERIOD + place) + 0.1 * rng.normal()
            record = make_record(
                offset=offsets[partition],
                partition=partition,
                sensor=key,
                time=START_MS + step * STEP_MS,
                flow=round(float(flow), 6),
                pressure=round(float(2.0 + 0.05 * rng.normal()), 6),
            )
            offsets[partition] += 1
            records.append(record)
    return records


def make_rich_feed(events: int, keys: Sequence[str] = ("x", "y"), *, seed: int = 0) -> list[Record]:
    """Return a feed of :data:`RICH`: frames with holes, irregular times, and keys at levels far apart.

    A fifth of the frames, a tenth of the samples and some modes are missing; mode "late" comes only in the last tenth.
    """
    rng = np.random.default_rng(seed)
    records: list[Record] = []
    time_ms = START_MS
    for step in range(events):
        time_ms += int(rng.integers(200, 3_000))
        for place, key in enumerate(keys):
            event: dict[str, object] = {"machine": key, "time": time_ms + place}
            for name, level in (("heat", 300.0 + 1000.0 * place), ("speed", 5.0)):
                frame = [round(level + float(np.sin(step / 3) + 0.2 * rng.normal()), 6) for _ in range(2)]
                if rng.random() > 0.2:
                    event[name] = [None if rng.random() < 0.1 else sample for sample in frame]
            if rng.random() > 0.1:
                event["mode"] = "late" if step >= 0.9 * events else ["idle", "busy"][step // 20 % 2]
            records.append(make_record(msgspec.json.encode(event), offset=len(records)))
    return records


def changed(record: Record, **fields: object) -> Record:
    """Return the record with some fields of its event replaced."""
    return record._replace(value=msgspec.json.encode({**msgspec.json.decode(record.value), **fields}))


def make_troubled_feed(steps: int = 360, *, seed: int = 0) -> list[NewRecord]:
    """Return a feed of five keys in two partitions, with everything that happens to one.

    Spikes that open alerts; bytes that are no JSON, and a run of them longer than a small poll; events
    that lack a field; duplicates; late events; and key "d", silent for 85 s with an alert open.
    """
    feed: list[NewRecord] = []
    for record in make_feed(steps, ("a", "b", "c", "d", "e"), seed=seed):
        event = msgspec.json.decode(record.value)
        name, step = event["sensor"], (event["time"] - START_MS) // STEP_MS
        place = "abcde".index(name)
        key, partition = name.encode(), place % 2
        if name == "d" and 130 <= step < 215:
            continue
        if (name == "d" and 127 <= step < 130) or step % 100 in range(60 + 9 * place, 64 + 9 * place):
            event["flow"] += 2.0 * 2 ** (step % 4)
        value = msgspec.json.encode(event)
        feed.append(NewRecord(key, value, (("source", b"test"),), partition))
        if (step + place) % 41 == 0:
            feed.append(NewRecord(key, value, (), partition))
        if (step + place) % 59 == 58:
            late = msgspec.json.encode({**event, "time": event["time"] - 10 * STEP_MS})
            feed.append(NewRecord(key, late, (), partition))
        if (step + place) % 37 == 0:
            feed.append(NewRecord(key, b"\xff{ no json", (), partition))
        if (step + place) % 53 == 0:
            feed.append(NewRecord(None, b'{"sensor": "a"}', (), partition))
        if (name, step) == ("b", 180):
            feed.extend(NewRecord(None, b"noise %d" % i, (), partition) for i in range(40))
    return feed


def make_history(records: Sequence[Record], schema: StreamSchema = SCHEMA) -> History:
    """Decode records into a training history."""
    batch, rejections = EventDecoder(schema).decode(records)
    assert not rejections
    return history_of([batch])


@functools.cache
def trained() -> Trained:
    """Return a small model of :func:`make_feed`, trained once per test run (some seconds)."""
    history = make_history(make_feed(1500, ("a", "b", "c")))
    return train(history, SCHEMA, Options(hidden=16, updates=60, lanes=8, seed=1))


def bundle() -> Bundle:
    """Return the bundle of :func:`trained`."""
    return trained().bundle


def expiring_bundle() -> Bundle:
    """Return :func:`bundle`, of a stream whose keys start anew after a minute of silence."""
    return msgspec.structs.replace(bundle(), schema=msgspec.structs.replace(SCHEMA, expire_after_s=60.0))


@functools.cache
def rich() -> Trained:
    """Return a barely trained model of :func:`make_rich_feed`, with every kind of input (about a second)."""
    return train(make_history(make_rich_feed(300), RICH), RICH, Options(hidden=8, updates=3, lanes=4, horizon=2))


@dataclass
class Run:
    """What polls left behind, as a log would hold it: outputs in order, and each key's latest state."""

    scores: list[Output] = field(default_factory=list)
    alerts: list[Output] = field(default_factory=list)
    dead_letters: list[Output] = field(default_factory=list)
    states: dict[Key, StateRow] = field(default_factory=dict)

    @property
    def score_records(self) -> list[ScoreRecord]:
        """The scores, decoded."""
        return [decode_score(output.value) for output in self.scores]

    @property
    def alert_records(self) -> list[AlertRecord]:
        """The alerts, decoded."""
        return [decode_alert(output.value) for output in self.alerts]

    def kept(self, watermarks: Mapping[int, int], schema: StreamSchema) -> set[Key]:
        """Return the keys whose states a log must still have: an alert is open, or they were not silent for long."""
        patience_ms = schema.forget_after_ms
        states = self.states.items()
        return {key for key, row in states if row.pinned or row.timestamp_ms >= watermarks[key[0]] - patience_ms}


def run_polls(scorer: Scorer, polls: Iterable[Sequence[Record]], run: Run | None = None) -> Run:
    """Score and accept poll after poll; ``run`` is continued in place, and states come from it."""
    run = Run() if run is None else run
    for records in polls:
        poll = scorer.read(records)
        stored = {key: run.states[key].value for key in scorer.missing(poll) if key in run.states}
        outcome = scorer.score(poll, stored)
        commit = scorer.commit_of(outcome)
        run.scores.extend(commit.scores)
        run.alerts.extend(commit.alerts)
        run.dead_letters.extend(commit.dead_letters)
        run.states.update(commit.states)
        scorer.accept(outcome)
    return run
