"""What slow feeds share: a source whose samples are made a day at a time, with faults on a schedule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from simulators.feed import Fault
from simulators.schedule import ByKind, check_faults, fault_schedule, in_hours

Floats = NDArray[np.float64]
DAY_S = 86_400
ALL_DAY = (0.0, 24.0)


def hour_of(time_s: Floats) -> Floats:
    """Return the hour of the day, 0 to 24, of seconds since 1970; the clock on the wall is UTC."""
    return np.asarray(time_s % DAY_S / 3600.0)


def weekday_of(time_s: Floats) -> NDArray[np.int64]:
    """Return the day of the week, 0 for Monday; 1970 began on a Thursday."""
    return ((time_s // DAY_S + 3) % 7).astype(np.int64)


def bump(hour: Floats, centre_h: Floats | float, width_h: float) -> Floats:
    """Return a Gaussian of the hour of the day, 1 at its centre; what is before midnight is near what is after."""
    away_h = (hour - centre_h + 12.0) % 24.0 - 12.0
    return np.asarray(np.exp(-0.5 * (away_h / width_h) ** 2))


def within(limits: tuple[float, float], size: float) -> float:
    """Return what lies at ``size``, 0 to 1, between two limits."""
    return limits[0] + size * (limits[1] - limits[0])


class Wander:
    """First-order autoregressive noise, mean 0, variance 1, that goes on where it stopped.

    ``memory``: its time constant, in samples.
    """

    def __init__(self, rng: np.random.Generator, memory: float) -> None:
        """Draw where it begins."""
        self._rng, self._keep, self._last = rng, float(np.exp(-1.0 / memory)), float(rng.standard_normal())

    def advance(self, samples: int) -> Floats:
        """Return the next ``samples`` of it."""
        fresh = np.sqrt(1.0 - self._keep**2) * self._rng.standard_normal(samples)
        out, _ = lfilter([1.0], [1.0, -self._keep], fresh, zi=[self._keep * self._last])
        self._last = float(out[-1])
        return np.asarray(out)


@dataclass
class Episode:
    """A fault under way, from sample ``start`` to ``end`` (exclusive); ``size``, 0 to 1, is drawn for it.

    ``held``: the last reading before it. ``at``: its part of the day being made.
    """

    kind: str
    start: int
    end: int
    size: float
    held: Floats | None = None
    at: slice = field(default_factory=lambda: slice(0))


class DailySource(ABC):
    """The samples of one key; satisfies :class:`simulators.feed.Source`.

    A kind of source says how long a sample and, on average, each kind of fault lasts, and the least time between two
    faults; ``fault_hours``: the hours of the day between which a kind may begin, if not at any. Outside faults and what
    follows from them, samples depend on the seed alone. Raises ``ValueError`` for an unknown fault, or more than fit.
    """

    step_s: float
    channels: dict[str, str]
    durations_s: ByKind
    fault_hours: Mapping[str, tuple[float, float]]
    recovery_s: float

    def __init__(
        self,
        key: str,
        start_ms: int,
        *,
        rng: np.random.Generator,
        fault_rates_per_hour: ByKind | None,
        faults_from_s: float,
    ) -> None:
        """Plan the faults; the samples are made on demand."""
        rates = fault_rates_per_hour or {}
        check_faults(rates, self.durations_s, self.durations_s, self.recovery_s)
        self.key, self.start_ms = key, start_ms
        self.sample_rate_hz = 1.0 / self.step_s
        self.faults: list[Fault] = []
        midnight_s = -(start_ms / 1000.0 % DAY_S)
        plan_rng, self._size_rng, hour_rng = rng.spawn(3)
        self._plan = fault_schedule(
            plan_rng,
            rates,
            self.durations_s,
            faults_from_s,
            self.recovery_s,
            lambda kind, time_s: in_hours(hour_rng, time_s, midnight_s, self.fault_hours.get(kind, ALL_DAY)),
        )
        self._upcoming = next(self._plan, ("none", inf, inf))
        self._episodes: list[Episode] = []  # begun, not ended
        self._unnoted: list[tuple[int, Fault]] = []  # first sample made but not yet returned
        self._ready: Floats = np.zeros((0, len(self.channels)))
        self._last: Floats = np.zeros(len(self.channels))
        self._made = self._returned = 0

    def advance(self, samples: int) -> Floats:
        """Return the next ``samples`` samples, shape (samples, channels), and note their faults."""
        while len(self._ready) < samples:
            self._ready = np.concatenate([self._ready, self._next_day()])
        out, self._ready = self._ready[:samples], self._ready[samples:]
        self._returned += samples
        while self._unnoted and self._unnoted[0][0] < self._returned:
            self.faults.append(self._unnoted.pop(0)[1])
        return out

    def _time_ms(self, sample: int) -> int:
        """Return the time of a sample as the feed stamps it: the end of its interval."""
        return self.start_ms + round((sample + 1) * 1000.0 * self.step_s)

    def _next_day(self) -> Floats:
        first = self._made
        self._made += round(DAY_S / self.step_s)
        self._begin_faults(first)
        for episode in self._episodes:
            episode.at = slice(max(episode.start - first, 0), min(episode.end, self._made) - first)
        time_s = self.start_ms / 1000.0 + np.arange(first + 1, self._made + 1, dtype=np.float64) * self.step_s
        values = self._day(time_s, self._episodes)
        self._last = values[-1].copy()
        return values

    def _begin_faults(self, first: int) -> None:
        """Drop the episodes that ended before sample ``first``; begin those of its day."""
        self._episodes = [episode for episode in self._episodes if episode.end > first]
        while self._upcoming[1] / self.step_s < self._made - 0.5:
            kind, start_s, end_s = self._upcoming
            start = round(start_s / self.step_s)
            end = max(round(end_s / self.step_s), start + 1)
            self._episodes.append(Episode(kind, start, end, float(self._size_rng.random())))
            self._unnoted.append((start, Fault(self.key, kind, self._time_ms(start), self._time_ms(end))))
            self._upcoming = next(self._plan)

    def _hold(self, values: Floats, episode: Episode) -> Floats:
        """Return the last reading before an episode."""
        if episode.held is None:
            start = episode.at.start
            episode.held = (values[start - 1] if start else self._last).copy()
        return episode.held

    @abstractmethod
    def _day(self, time_s: Floats, episodes: Sequence[Episode]) -> Floats:
        """Return the samples of a day, (samples, channels), at times in seconds since 1970, with their faults."""
