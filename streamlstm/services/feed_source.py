"""From a file's events to a feed's: timed, played in rounds, copied to more keys, moved in time.

Each stage is a generator that reads nothing itself and holds no more than one event. Stages only *note*
what is to become of an event; :func:`encoded` does it, once, and leaves the bytes of all others alone.
"""

from __future__ import annotations

import heapq
import itertools
import statistics
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from operator import attrgetter
from typing import NamedTuple

import msgspec

from streamlstm.core.event import EARLIEST_MS, LATEST_MS, EventDecoder
from streamlstm.core.log import Record
from streamlstm.core.schema import StreamSchema
from streamlstm.errors import SchemaError

GAP_EVENTS = 20_000  # from the file's start, that say what gap is typical; chosen
LONE_GAP_MS = 1000  # between rounds of a file that lasts no time; chosen


class Timed(NamedTuple):
    """An event on its way.

    ``due_ms`` is when to deliver it, in event time since the feed's first event. ``time_ms`` is its own
    time (UTC), None if it cannot be decoded; then ``key`` is None too. ``shift_ms`` and ``copy`` say by
    how much its time will be moved, and which copy's event it will become. ``place`` counts rounds of
    the file played up to and with it: 1.25 is a quarter into the second round.
    """

    due_ms: float
    value: bytes
    key: bytes | None = None
    time_ms: int | None = None
    shift_ms: int = 0
    copy: int = 1
    place: float = 0.0


def timed(chunks: Iterable[tuple[list[bytes], float]], schema: StreamSchema) -> Iterator[Timed]:
    """Yield a file's events, due at their own times; ``chunks`` are events and the share of the file read so far.

    What cannot be decoded is due with the last event that could be, and at once what lies before the first event.
    """
    decoder = EventDecoder(schema)
    first_ms, due_ms, share = None, 0.0, 0.0
    for values, share_after in chunks:
        batch, _ = decoder.decode([Record("", 0, 0, LATEST_MS, None, value) for value in values])
        times = zip(batch.keys, batch.timestamp_ms.tolist(), strict=True)
        decoded = dict(zip(batch.record_index.tolist(), times, strict=True))
        step = (share_after - share) / max(len(values), 1)
        for i, value in enumerate(values):
            key, time_ms = decoded.get(i, (None, None))
            if time_ms is not None:
                first_ms = time_ms if first_ms is None else first_ms
                due_ms = float(max(time_ms - first_ms, 0))
            yield Timed(due_ms, value, key, time_ms, place=share + (i + 1) * step)
        share = share_after


def played(read: Callable[[], Iterator[Timed]], *, loop: int, copies: int, phase_ms: int) -> Iterator[Timed]:
    """Yield all copies of a file's rounds in the order in which they are due; ``read`` starts the file anew.

    Copy k is the file begun ``k * phase_ms`` after its start, what was left out coming at the end. With a
    phase, each copy reads the file for itself; without, one reading serves all.
    """
    if not phase_ms:
        yield from _in_step(_in_time(looped(read, loop)), copies)
        return
    players = [_as_copy(_in_time(looped(read, loop, k * phase_ms)), k + 1) for k in range(copies)]
    yield from heapq.merge(*players, key=attrgetter("due_ms"))


def looped(read: Callable[[], Iterator[Timed]], rounds: int, phase_ms: int = 0) -> Iterator[Timed]:
    """Yield the file's events round after round (0: without end), time going on by one typical gap between them.

    The first round starts ``phase_ms`` into the file; a last one ends there.
    """
    span = _Span()
    for record in read():
        span.add(record)
        if record.due_ms >= phase_ms:
            yield _moved(record, -phase_ms, 0)
    if not span.events:
        return
    period_ms = span.period_ms()
    if phase_ms >= period_ms:  # nothing was played, but now it is known how long the file is
        yield from looped(read, rounds, phase_ms % period_ms)
        return
    last = rounds if phase_ms else rounds - 1
    for number in itertools.count(1) if rounds == 0 else range(1, last + 1):
        for record in read():
            if number != rounds or record.due_ms < phase_ms:
                yield _moved(record, number * period_ms - phase_ms, number)


class _Span:
    """How long a file is in event time, with the gap that fits between its end and its next round."""

    def __init__(self) -> None:
        self.events = 0
        self._last_ms = 0.0
        self._last_of_key: dict[bytes | None, float] = {}
        self._gaps_ms: list[float] = []

    def add(self, record: Timed) -> None:
        self.events += 1
        self._last_ms = max(self._last_ms, record.due_ms)
        if self.events <= GAP_EVENTS and record.time_ms is not None:
            gap_ms = record.due_ms - self._last_of_key.get(record.key, record.due_ms)
            if gap_ms > 0:
                self._gaps_ms.append(gap_ms)
            self._last_of_key[record.key] = record.due_ms

    def period_ms(self) -> int:
        """Return the time from the start of a round to the next one's; at least a millisecond.

        The gap is the median of those within keys; if no key comes twice, the mean of all.
        """
        mean_ms = self._last_ms / max(self.events - 1, 1)
        gap_ms = statistics.median(self._gaps_ms) if self._gaps_ms else mean_ms or LONE_GAP_MS
        return round(self._last_ms) + max(round(gap_ms), 1)


def _moved(record: Timed, shift_ms: int, rounds: int) -> Timed:
    if not shift_ms and not rounds:
        return record
    return record._replace(due_ms=record.due_ms + shift_ms, shift_ms=shift_ms, place=record.place + rounds)


def _in_time(records: Iterator[Timed]) -> Iterator[Timed]:
    """Make a late event due with the one before it: the order of the file stays."""
    due_ms = 0.0
    for record in records:
        if record.due_ms < due_ms:
            yield record._replace(due_ms=due_ms)
        else:
            due_ms = record.due_ms
            yield record


def _in_step(records: Iterator[Timed], copies: int) -> Iterator[Timed]:
    for record in records:
        yield record
        for copy in range(2, copies + 1):
            yield record._replace(copy=copy)


def _as_copy(records: Iterator[Timed], copy: int) -> Iterator[Timed]:
    for record in records:
        yield record._replace(copy=copy)


def encoded(records: Iterator[Timed], schema: StreamSchema, now_ms: Callable[[], int] | None = None) -> Iterator[Timed]:
    """Write the new time and key into the events that were moved or copied, and touch no other byte.

    With ``now_ms``, all times are moved so that the first event's is what it returns then. What cannot be
    decoded stays as it is. Copy 2 of key "pump" is "pump#2"; without a key field, the record's key says it.

    Raises :class:`SchemaError` once times leave the years that events may have.
    """
    restamp_ms = 0 if now_ms is None else None
    for record in records:
        if record.time_ms is None:
            yield record
            continue
        if restamp_ms is None:
            restamp_ms = now_ms() - record.time_ms - record.shift_ms if now_ms else 0
        shift_ms = record.shift_ms + restamp_ms
        if not shift_ms and record.copy == 1:
            yield record
            continue
        time_ms = record.time_ms + shift_ms
        if not EARLIEST_MS <= time_ms < LATEST_MS:
            raise SchemaError("event times were moved out of the years 1971 to 3000; is a time in the file far off?")
        suffix = f"#{record.copy}" if record.copy > 1 else ""
        value = _rewritten(record.value, schema, shift_ms, suffix)
        yield record._replace(key=(record.key or b"") + suffix.encode(), value=value, time_ms=time_ms)


def _rewritten(value: bytes, schema: StreamSchema, shift_ms: int, suffix: str) -> bytes:
    if not shift_ms and not schema.key:
        return value
    fields = _FIELDS.decode(value)
    if shift_ms:
        time = _shifted_time(msgspec.json.decode(fields[schema.timestamp]), schema.timestamp_unit, shift_ms)
        fields[schema.timestamp] = msgspec.Raw(msgspec.json.encode(time))
    if suffix and schema.key:
        key = f"{msgspec.json.decode(fields[schema.key])}{suffix}"
        fields[schema.key] = msgspec.Raw(msgspec.json.encode(key))
    return msgspec.json.encode(fields)


_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])  # fields as their bytes: what is not read is not changed


def _shifted_time(time: str | float, unit: str, shift_ms: int) -> str | float:
    """Return a time later by ``shift_ms``, in its own unit and as precise as it was."""
    if isinstance(time, str):
        return (datetime.fromisoformat(time) + timedelta(milliseconds=shift_ms)).isoformat()
    if unit == "s":
        whole_s, rest_ms = divmod(shift_ms, 1000)
        return time + whole_s if rest_ms == 0 else round(time + shift_ms / 1000, 6)
    return time + shift_ms * {"ms": 1, "us": 1000}[unit]
