"""Bytes → events: a whole poll of records becomes columns; what is bad becomes a rejection."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple
from zlib import crc32

import msgspec
import numpy as np
from msgspec.structs import astuple
from numpy.typing import NDArray

from streamlstm.core.log import Headers, Record
from streamlstm.core.schema import StreamSchema

KEYLESS = b"all"  # the key of events that have none: the stream is one series
MAX_KEY_BYTES = 512
MAX_RECORD_BYTES = 1 << 20  # Kafka's default max.message.bytes; value, key and headers together
MAX_DETAIL_CHARACTERS = 500  # what is wrong with a record goes into a header: it must not be as large as the record
EARLIEST_MS = 31_536_000_000  # 1971-01-01: seconds or microseconds read as milliseconds land before it
LATEST_MS = 32_503_680_000_000  # 3000-01-01: above it, arithmetic on milliseconds has no meaning here

KEY_AND_TIME = 2  # fields of an event before its features
_MS_PER_UNIT = {"s": 1000.0, "ms": 1.0, "us": 0.001, "iso8601": math.nan}


Parse = Callable[[bytes], object]


class Rejection(NamedTuple):
    """A record that will not be scored, why (a short code), and what exactly is wrong with it."""

    record: Record
    reason: str
    detail: str


class Columns(NamedTuple):
    """The fields of some records, a tuple of each, in their order."""

    topic: tuple[str, ...]
    partition: tuple[int, ...]
    offset: tuple[int, ...]
    timestamp_ms: tuple[int, ...]
    key: tuple[bytes | None, ...]
    value: tuple[bytes, ...]
    headers: tuple[Headers, ...]


@dataclass(frozen=True)
class EventBatch:
    """The decoded events of one poll, as columns in the order of the records.

    ``values`` (n, D) float64 with NaN where missing; ``categories`` holds the n tuples of category
    strings (None where missing); ``checksum`` (n,) int64 tells a repeated payload from a new one;
    ``record_index`` (n,) points into the poll's records.
    """

    keys: list[bytes]
    partition: NDArray[np.int64]
    offset: NDArray[np.int64]
    timestamp_ms: NDArray[np.int64]
    values: NDArray[np.float64]
    categories: list[tuple[str | None, ...]]
    checksum: NDArray[np.int64]
    record_index: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.keys)


class EventDecoder:
    """Decodes records of one stream. Built once per schema; keeps no state between calls.

    Records are JSON, unless ``parse`` makes plain objects of their bytes; it raises ``ValueError`` for bad ones.
    """

    def __init__(self, schema: StreamSchema, parse: Parse | None = None) -> None:
        self._schema = schema
        event = _event_type(schema)
        json = msgspec.json.Decoder(event).decode
        self._decode = json if parse is None else lambda value: self._finite(msgspec.convert(parse(value), event))
        self._ms_per_unit = _MS_PER_UNIT[schema.timestamp_unit]
        self._max_ahead_ms = schema.max_ahead_s * 1000

    def decode(self, records: Sequence[Record]) -> tuple[EventBatch, list[Rejection]]:
        """Return the good events in order, and a rejection for every other record.

        Nothing is dropped: ``len(batch) + len(rejections) == len(records)``.
        """
        columns = _columns(records)
        bad = _oversized(records, columns)
        fields = self._fields(columns.value, bad)
        index = [i for i in range(len(records)) if i not in bad]
        if bad:
            columns = _columns([records[i] for i in index])
        times_ms, keys = self._times_ms(fields), self._keys(fields, columns)
        if faulty := self._faulty(times_ms, keys, columns):
            bad |= {index[j]: self._fault(fields[j], records[index[j]]) for j in faulty}
            sound = sorted({*range(len(index))} - faulty)
            index, fields, keys = ([column[j] for j in sound] for column in (index, fields, keys))
            times_ms, columns = times_ms[sound], _columns([records[i] for i in index])
        return (
            EventBatch(
                keys=keys,
                partition=np.array(columns.partition, dtype=np.int64),
                offset=np.array(columns.offset, dtype=np.int64),
                timestamp_ms=times_ms.astype(np.int64),
                values=self._value_matrix(fields),
                categories=self._categories(fields),
                checksum=np.fromiter(map(crc32, columns.value), np.int64, len(index)),
                record_index=np.array(index, dtype=np.int64),
            ),
            [bad[i].rejection(records[i]) for i in sorted(bad)],
        )

    def _fields(self, values: Sequence[bytes], bad: dict[int, _Bad]) -> list[tuple[Any, ...]]:
        """Return key, time and the features' fields of each event, as they were sent; note in ``bad``, by its position,
        why a record is none, and leave out those that are in it."""
        fields, decode = list[tuple[Any, ...]](), self._decode
        for i, value in enumerate(values):
            if i in bad:
                continue
            try:
                fields.append(astuple(decode(value)))
            except _Bad as error:
                bad[i] = error
            except msgspec.ValidationError as error:
                bad[i] = _Bad("invalid", str(error))
            except (msgspec.DecodeError, RecursionError, ValueError) as error:
                bad[i] = _Bad("malformed", str(error))
        return fields

    def _finite(self, event: msgspec.Struct) -> msgspec.Struct:
        """Return an event that another format than JSON gave, or raise :class:`_Bad` for what JSON cannot hold."""
        for name, cell in zip(self._schema.numeric, astuple(event)[KEY_AND_TIME:], strict=False):
            for number in cell if isinstance(cell, list) else (cell,):
                if number is not None and not math.isfinite(number):
                    raise _Bad("invalid", f"{number} is no number that can be scored - at `$.{name}`")
        return event

    def _times_ms(self, fields: list[tuple[Any, ...]]) -> NDArray[np.float64]:
        """Return the events' times in whole milliseconds (UTC); NaN for what is no time."""
        times = [event[1] for event in fields]
        if self._schema.timestamp_unit == "iso8601":
            return np.rint(np.array([_iso_ms(time) for time in times], dtype=np.float64))
        with np.errstate(over="ignore"):  # 1e308 is no time either
            return np.rint(np.array(times, dtype=np.float64) * self._ms_per_unit)

    def _keys(self, fields: list[tuple[Any, ...]], columns: Columns) -> list[bytes]:
        if self._schema.key is None:
            return [key or KEYLESS for key in columns.key]
        return [str(event[0]).encode() for event in fields]

    def _faulty(self, times_ms: NDArray[np.float64], keys: list[bytes], columns: Columns) -> set[int]:
        """Return the positions of events whose time or key cannot be used; :meth:`_fault` says why."""
        taken_ms = np.array(columns.timestamp_ms, dtype=np.float64)
        in_time = (times_ms >= EARLIEST_MS) & (times_ms < LATEST_MS) & (times_ms - taken_ms <= self._max_ahead_ms)
        lengths = np.array([len(key) for key in keys], dtype=np.int64)
        faulty = set(np.flatnonzero(~in_time | (lengths == 0) | (lengths > MAX_KEY_BYTES)).tolist())
        return faulty if self._schema.key else faulty | {j for j, key in enumerate(keys) if not _is_text(key)}

    def _fault(self, event: tuple[Any, ...], record: Record) -> _Bad:
        """Say why the time or the key of one event cannot be used."""
        time, name = event[1], self._schema.timestamp
        ((time_ms,), (key,)) = self._times_ms([event]).tolist(), self._keys([event], _columns([record]))
        if isinstance(time, str) and math.isnan(time_ms):
            return _Bad("invalid", f"{time!r} is no time in ISO 8601 - at `$.{name}`")
        if not EARLIEST_MS <= time_ms < LATEST_MS:
            unit = self._schema.timestamp_unit
            return _Bad("timestamp", f"{name}={time!r} is no time between 1971 and 3000 in unit {unit!r}")
        ahead_ms = time_ms - record.timestamp_ms
        if ahead_ms > self._max_ahead_ms:
            most_s = self._schema.max_ahead_s
            detail = f"{name} lies {ahead_ms / 1000:.0f} s after the log took the record; max_ahead_s is {most_s:g}"
            return _Bad("future", detail)
        if not 0 < len(key) <= MAX_KEY_BYTES:
            return _Bad("invalid", f"the key has {len(key)} bytes; 1 to {MAX_KEY_BYTES} are allowed")
        return _Bad("invalid", f"the record's key is not UTF-8: {key[:64]!r}")

    def _value_matrix(self, fields: list[tuple[Any, ...]]) -> NDArray[np.float64]:
        channels, frame = len(self._schema.numeric), self._schema.frame_samples
        numbers = slice(KEY_AND_TIME, KEY_AND_TIME + channels)
        if not fields:
            return np.empty((0, channels * frame))
        if frame == 1:
            columns = list(zip(*fields, strict=True))[numbers]
            return np.ascontiguousarray(np.array(columns, dtype=np.float64).reshape(channels, len(fields)).T)
        absent = [None] * frame
        rows = [[cell or absent for cell in row[numbers]] for row in fields]
        return np.array(rows, dtype=np.float64).reshape(len(fields), channels * frame)

    def _categories(self, fields: list[tuple[Any, ...]]) -> list[tuple[str | None, ...]]:
        if not self._schema.categorical:
            return [()] * len(fields)
        return [row[KEY_AND_TIME + len(self._schema.numeric) :] for row in fields]


class _Bad(Exception):
    """Why one record is rejected; never leaves this module."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    def rejection(self, record: Record) -> Rejection:
        """Return what is told of the record."""
        return Rejection(record, self.reason, self.detail[:MAX_DETAIL_CHARACTERS])


def _iso_ms(time: str) -> float:
    """Return the milliseconds (UTC) of an ISO 8601 text, of UTC if it names no zone; NaN if it is none."""
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return math.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000.0


def _is_text(key: bytes) -> bool:
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True


def _columns(records: Sequence[Record]) -> Columns:
    return Columns._make(zip(*records, strict=True)) if records else Columns(*[()] * len(Columns._fields))


def _oversized(records: Sequence[Record], columns: Columns) -> dict[int, _Bad]:
    """Return, by their positions, the records that are too large to be read."""
    longest = max(map(len, columns.value), default=0) + max(map(len, filter(None, columns.key)), default=0)
    if longest <= MAX_RECORD_BYTES and not any(columns.headers):
        return {}
    return {
        i: _Bad("oversized", f"{size} bytes; at most {MAX_RECORD_BYTES} are read")
        for i, size in enumerate(map(_size, records))
        if size > MAX_RECORD_BYTES
    }


def _size(record: Record) -> int:
    headers = sum(len(name) + len(value) for name, value in record.headers)
    return len(record.value) + len(record.key or b"") + headers


def _event_type(schema: StreamSchema) -> type[msgspec.Struct]:
    """Build the type of one event: key, time, numeric features, categorical features."""
    time_type = str if schema.timestamp_unit == "iso8601" else float
    fields: list[Any] = [("key", str | int) if schema.key else ("key", str | int | None, None), ("time", time_type)]
    names = {"time": schema.timestamp, "key": schema.key or " no key field "}
    for position, name in enumerate((*schema.numeric, *schema.categorical)):
        field = f"feature_{position}"
        names[field] = name
        optional = schema.features[name].optional
        kind = _field_type(schema, name)
        fields.append((field, kind | None, None) if optional else (field, kind))
    return msgspec.defstruct("Event", fields, rename=names, kw_only=True, gc=False)


def _field_type(schema: StreamSchema, name: str) -> Any:
    feature = schema.features[name]
    if feature.kind == "categorical":
        return str | int | bool
    if schema.frame_samples == 1:
        return float
    sample = float | None if feature.optional else float
    length = schema.frame_samples
    return Annotated[list[sample], msgspec.Meta(min_length=length, max_length=length)]  # type: ignore[valid-type]
