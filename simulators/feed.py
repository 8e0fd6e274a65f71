"""What every simulated feed shares: a source per key, and one stream of events in time order.

A :class:`Source` produces the samples of one key, continuing where it stopped, and notes the
faults it injected. :func:`events` interleaves any number of sources into one stream of events,
each carrying a frame of samples per channel. What is not sampled but happens, such as a payment, has an
:class:`EventSource` and :func:`irregular_events` instead. Truth never enters an event.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Event = dict[str, object]
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Fault:
    """One injected anomaly: what a perfect detector would report.

    Times are UTC milliseconds; ``end_ms`` is exclusive. ``kind`` is a short
    name such as ``"pvc"`` or ``"outer_race"``.
    """

    key: str
    kind: str
    start_ms: int
    end_ms: int


class Source(Protocol):
    """The samples of one key, without end.

    ``channels`` maps a channel's name to its unit. ``faults`` grows as samples are drawn; a fault
    is in it, with its true extent, by the time its first sample has been returned.
    """

    key: str
    sample_rate_hz: float
    channels: dict[str, str]
    faults: list[Fault]

    def advance(self, samples: int) -> NDArray[np.float64]:
        """Return the next ``samples`` samples, shape (samples, channels), in the channels' units."""
        ...


class EventSource(Protocol):
    """The events of one key, without end, at times of their own.

    ``channels`` maps a field's name to its unit, "" if it has none. ``faults`` grows as events are taken; a fault is
    in it, with its true extent, by the time its first event has been returned.
    """

    key: str
    channels: dict[str, str]
    faults: list[Fault]

    def until(self, end_ms: int) -> list[Event]:
        """Return the events before ``end_ms`` that were not returned yet, in time order."""
        ...


def events(
    sources: Sequence[Source],
    *,
    frame_samples: int,
    start_ms: int,
    duration_s: float,
) -> Iterator[Event]:
    """Yield the events of all sources in time order, one frame of samples per event.

    An event is ``{"key": str, "time": int, "<channel>": [frame_samples numbers], ...}``; ``time`` is
    the UTC millisecond of the frame's *last* sample, the moment at which the frame is complete. A
    frame of one sample carries plain numbers instead of lists. Numbers are rounded to five
    decimals, as a converter would; not-a-number samples (a sensor that is off) become ``None``.

    All sources must share one sample rate; raises ``ValueError`` otherwise.
    """
    rates = {source.sample_rate_hz for source in sources}
    if len(rates) != 1:
        raise ValueError(f"sources of one feed need one sample rate, got {sorted(rates)}")
    frame_ms = 1000.0 * frame_samples / rates.pop()
    for frame in range(int(duration_s * 1000.0 / frame_ms)):
        time_ms = start_ms + round((frame + 1) * frame_ms)
        for source in sources:
            samples = source.advance(frame_samples)
            event: Event = {"key": source.key, "time": time_ms}
            for column, name in enumerate(source.channels):
                values = [None if np.isnan(v) else round(float(v), 5) for v in samples[:, column]]
                event[name] = values[0] if frame_samples == 1 else values
            yield event


def irregular_events(sources: Sequence[EventSource], *, start_ms: int, duration_s: float) -> Iterator[Event]:
    """Yield the events of all sources in time order: ``{"key": str, "time": int, "<channel>": …}``."""
    end_ms = start_ms + round(1000 * duration_s)
    for day_ms in range(start_ms, end_ms, DAY_MS):
        to_ms = min(day_ms + DAY_MS, end_ms)
        yield from sorted((event for source in sources for event in source.until(to_ms)), key=time_of)


def time_of(event: Event) -> int:
    """Return the time of an event, UTC ms."""
    time_ms = event["time"]
    assert isinstance(time_ms, int)
    return time_ms
