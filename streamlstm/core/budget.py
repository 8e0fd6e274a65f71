"""An alarm budget in people's words, "1 per key per week", and the alarm rate per event that keeps to it.

The rate is of *flagged* events. Each alert opens with a flagged event, and later ones may fall within it: so there are
at most as many alerts as flagged events, and the budget is what alerts stay below. How many flagged events an alert
holds cannot be told from a history that is shorter than the time between two alarms, so nothing is made of it.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from streamlstm.core.threshold import TAIL_PROBABILITY
from streamlstm.errors import SettingsError

UNITS_MS = {"hour": 3_600_000, "day": 86_400_000, "week": 604_800_000, "month": 2_592_000_000, "year": 31_536_000_000}
"Milliseconds of each unit; a month has 30 days, a year 365."


class Budget(NamedTuple):
    """So many ``alarms``, more than 0, per key and ``unit``, one of :data:`UNITS_MS`."""

    alarms: float
    unit: str

    def __str__(self) -> str:
        """Return it in words.

        >>> str(Budget(0.5, "week")), str(Budget(57.6, "hour")), str(Budget(2880.0, "day"))
        ('0.5 per key per week', '57.6 per key per hour', '2880 per key per day')
        """
        return f"{in_digits(self.alarms)} per key per {self.unit}"

    def alarm_rate(self, mean_gap_ms: float) -> float:
        """Return the share of events that may be flagged, of keys that send an event so often on average.

        Raises :class:`SettingsError` for a share that no threshold has.
        """
        rate = self.alarms * mean_gap_ms / UNITS_MS[self.unit]
        if not 0 < rate < TAIL_PROBABILITY:
            most = self._replace(alarms=TAIL_PROBABILITY * UNITS_MS[self.unit] / mean_gap_ms)
            raise SettingsError(
                f"--alarms {str(self)!r}: a key sends an event every {mean_gap_ms / 1000:.3g} s on average, so "
                f"{rate:.3g} of them would be flagged; it must be less than {TAIL_PROBABILITY}, which is {most}"
            )
        return rate

    def realised(self, alerts: float, key_ms: float) -> float | None:
        """Return alerts per key and unit, from how many opened in so much time of all keys together; None in none.

        >>> Budget(1.0, "week").realised(13, 10 * 604_800_000)
        1.3
        """
        return alerts * UNITS_MS[self.unit] / key_ms if key_ms > 0 else None

    def due(self, key_ms: float) -> float:
        """Return how many alarms may come in so much time of all keys together."""
        return self.alarms * key_ms / UNITS_MS[self.unit]


Judged = Literal["kept", "more", "too few"]
FEW = 3  # less than this that came and were due tell nothing; with so many due and none come, a rate is kept at 95 %
CHANCE = 1e-3  # of so many or more, below which they are more than promised; it is looked at again and again


def judged(came: int, due: float) -> Judged:
    """Return what so many that came, where so many may come on average, tell of a promise of at most that.

    They are more than promised if there are some and a Poisson distribution would hardly ever give as many, however few
    are due; else, with few due, nothing can be told.

    >>> judged(0, 0.4), judged(1, 1e-6), judged(5, 0.4), judged(0, 3.0), judged(9, 5.0), judged(140, 100.0)
    ('too few', 'too few', 'more', 'kept', 'kept', 'more')
    """
    if came >= FEW and came > due and _chance_of(came, due) < CHANCE:
        return "more"
    return "too few" if due < FEW else "kept"


def _chance_of(least: int, mean: float) -> float:
    """Return the probability that a Poisson distribution gives ``least`` or more, which are more than its mean.

    Summed here, for scipy.special would take a quarter of a second of every scorer's start.
    """
    if mean <= 0:
        return 0.0
    term = math.exp(least * math.log(mean) - mean - math.lgamma(least + 1))
    total, number = 0.0, least
    while term > total * 1e-9:
        total += term
        number += 1
        term *= mean / number
    return total


class Promised(NamedTuple):
    """The same promise twice: the share of events that may be flagged, and alarms per key and time."""

    alarm_rate: float
    budget: Budget

    def extrapolated(self, held_out: int) -> str:
        """Return in words that so many held-out events are too few to hold one to be flagged, else "".

        >>> Promised(1e-3, Budget(1.0, "week")).extrapolated(200)[:87]
        '1 per key per week is one event in 1,000: of 200 held-out events 0.2 would be flagged, '
        """
        due = held_out * self.alarm_rate
        if due >= 1:
            return ""
        return (
            f"{self.budget} is one event in {1 / self.alarm_rate:,.0f}: of {held_out:,} held-out events {due:.2g} "
            "would be flagged, less than one, so the threshold is extrapolated from the tail of their scores"
        )


def read_budget(words: str) -> Budget:
    """Return the budget that was asked for; raises :class:`ValueError` that says what can be.

    >>> read_budget("1 per key per week")
    Budget(alarms=1.0, unit='week')
    """
    match words.lower().split():
        case [number, "per", "key", "per", unit] if unit in UNITS_MS:
            try:
                alarms = float(number)
            except ValueError:
                alarms = math.nan
            if 0 < alarms < math.inf:
                return Budget(alarms, unit)
    *units, last = UNITS_MS
    accepted = f"NUMBER per key per {', '.join(units)} or {last}"
    raise ValueError(f"{words!r} is no alarm budget: give {accepted}, such as '1 per key per week'")


def promised(alarm_rate: float, alarms: str | None, mean_gap_ms: float) -> Promised:
    """Return what is promised of keys that send an event so often on average: ``alarms`` if given, else ``alarm_rate``.

    A rate is put in the shortest unit in which it is one alarm or more.
    """
    if alarms is not None:
        budget = read_budget(alarms)
        return Promised(budget.alarm_rate(mean_gap_ms), budget)
    budgets = [Budget(alarm_rate * length_ms / mean_gap_ms, unit) for unit, length_ms in UNITS_MS.items()]
    return Promised(alarm_rate, next((b for b in budgets if b.alarms > 0.999), budgets[-1]))


def in_digits(alarms: float) -> str:
    """Return a number of alarms with three digits at least.

    >>> in_digits(1.0), in_digits(0.1333), in_digits(1234.5)
    ('1', '0.133', '1234')
    """
    return f"{alarms:.0f}" if alarms >= 100 else f"{alarms:.3g}"
