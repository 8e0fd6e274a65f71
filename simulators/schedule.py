"""When faults come: a Poisson process per kind, one fault at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

ByKind = Mapping[str, float]


def check_faults(rates_per_hour: ByKind, durations_s: ByKind, known: ByKind, recovery_s: float) -> None:
    """Raise ``ValueError`` for a kind that is not ``known``, or for more faults than an hour holds."""
    if unknown := {*rates_per_hour, *durations_s} - set(known):
        raise ValueError(f"unknown faults {sorted(unknown)}; known are {sorted(known)}")
    busy_s = sum(rate * (durations_s[kind] + recovery_s) for kind, rate in rates_per_hour.items())
    if busy_s >= 3600.0:
        raise ValueError(f"faults need {busy_s:g} s of every hour; lower their rates or durations")


def fault_schedule(
    rng: np.random.Generator,
    rates_per_hour: ByKind,
    durations_s: ByKind,
    faults_from_s: float,
    recovery_s: float,
    begin_s: Callable[[str, float], float] = lambda _kind, time_s: time_s,
) -> Iterator[tuple[str, float, float]]:
    """Yield ``(kind, start_s, end_s)`` of every fault in time order, without end or overlap.

    Faults fall due as a Poisson process per kind from ``faults_from_s`` on; one that falls due while another
    lasts waits for its end and ``recovery_s``, so that the rates hold. Durations vary by a quarter. ``begin_s`` says
    when a kind that could begin at a time does: then or later, an incident by day only.
    """
    kinds = [kind for kind, rate in rates_per_hour.items() if rate > 0]
    rates = np.array([rates_per_hour[kind] for kind in kinds])
    due_s = free_s = faults_from_s
    while kinds:
        due_s += rng.exponential(3600.0 / rates.sum())
        kind = kinds[int(rng.choice(len(kinds), p=rates / rates.sum()))]
        start_s = begin_s(kind, max(due_s, free_s))
        end_s = start_s + durations_s[kind] * rng.uniform(0.75, 1.25)
        free_s = end_s + recovery_s
        yield kind, start_s, end_s


def in_hours(rng: np.random.Generator, time_s: float, midnight_s: float, hours: tuple[float, float]) -> float:
    """Return ``time_s`` if it lies in these hours of a day, else a time drawn from the next such hours.

    ``midnight_s`` is any midnight on the same clock.

    >>> in_hours(np.random.default_rng(1), 9 * 3600.0, 0.0, (6.0, 20.0)) / 3600
    9.0
    """
    first_h, last_h = hours
    day, hour = divmod((time_s - midnight_s) / 3600.0, 24.0)
    if first_h <= hour < last_h:
        return time_s
    return midnight_s + 3600.0 * (24.0 * (day + (hour >= last_h)) + float(rng.uniform(first_h, last_h)))
