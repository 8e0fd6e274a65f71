"""Builders of small things that tests need: schemas, records, histories and a trained bundle."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import msgspec
import numpy as np

from streamlstm.core.bundle import Bundle
from streamlstm.core.event import EventDecoder
from streamlstm.core.log import Record
from streamlstm.core.schema import StreamSchema
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
