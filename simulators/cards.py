"""Card payments: amount, distance from home, merchant's category and country, at times of their own; and fraud.

How honest holders pay is in :mod:`simulators.holders`. Kinds of fraud: Bolton & Hand 2002: Statistical fraud
detection: a review, Statistical Science 17(3). How much of it is in a run is chosen.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from math import inf

import numpy as np

from simulators.feed import DAY_MS, Event, Fault, time_of
from simulators.holders import COUNTRIES, Away, draw_habits, payment, payments, travel
from simulators.schedule import ByKind, check_faults, fault_schedule, in_hours

CHANNELS = {"amount": "EUR", "distance": "km", "merchant": "", "country": ""}
CATEGORICAL, OPTIONAL = ("merchant", "country"), ("distance",)
# How long a fault lasts, on average; chosen.
DURATIONS_S: ByKind = {
    "testing": 20 * 60.0,  # a stolen number is tried: many small amounts, online
    "stolen": 3 * 3600.0,  # a stolen card: large amounts for what can be sold, far away
    "takeover": 10 * 86400.0,  # an account has another owner, with other habits
    "double_charge": 2 * 60.0,  # a terminal charges the same amount again
    "unusual_hour": 90 * 60.0,  # the holder's habits, but for the hour
}
FAULT_HOURS = {"unusual_hour": (1.5, 3.5)}
RECOVERY_S = 2 * 86400.0  # without fault between two, so that they can be told apart
# How many payments, at least and at most, and of what; chosen.
PAYMENTS = {"testing": (6, 15), "stolen": (4, 10), "double_charge": (2, 4), "unusual_hour": (2, 4)}
TESTING_EUR, STOLEN_TIMES, STOLEN_KM = (0.5, 3.0), 4.0, (500.0, 8000.0)
SOLD = ("electronics", "jewellery", "clothing", "travel")
TAKEOVER_TIMES, TAKEOVER_KM = 2.5, (30.0, 600.0)  # and half as many payments again; chosen


class Card:
    """One card; satisfies :class:`simulators.feed.EventSource`.

    ``fault_rates_per_hour`` maps kinds of :data:`DURATIONS_S` to rates. A fault lasts from its first payment to its
    last. During a "takeover" the holder does not pay; other faults come on top. Payments online have no distance.
    What the holder does depends on the seed alone. Raises ``ValueError`` for an unknown fault, or more than fit.
    """

    def __init__(
        self,
        key: str,
        seed: int,
        start_ms: int,
        *,
        fault_rates_per_hour: ByKind | None = None,
        faults_from_s: float = 0.0,
    ) -> None:
        """Draw the holder; payments are made on demand."""
        rates = fault_rates_per_hour or {}
        check_faults(rates, DURATIONS_S, DURATIONS_S, RECOVERY_S)
        self.key, self.start_ms, self.channels = key, start_ms, dict(CHANNELS)
        self.faults: list[Fault] = []
        habits_rng, self._rng, self._fault_rng, plan_rng, hour_rng = np.random.default_rng(seed).spawn(5)
        self.habits = draw_habits(habits_rng)
        midnight_s = -(start_ms / 1000.0 % 86400.0)
        self._plan = fault_schedule(
            plan_rng,
            rates,
            DURATIONS_S,
            faults_from_s,
            RECOVERY_S,
            lambda kind, time_s: in_hours(hour_rng, time_s, midnight_s, FAULT_HOURS.get(kind, (0.0, 24.0))),
        )
        self._upcoming = next(self._plan, ("none", inf, inf))
        self._made_ms = start_ms
        self._pending: list[Event] = []  # made, not returned, in time order
        self._unnoted: list[Fault] = []
        self._taken_until_ms = start_ms  # until then somebody else has the account
        self._away = Away(0, 0.0, self.habits.country)

    def until(self, end_ms: int) -> list[Event]:
        """Return the payments before ``end_ms`` that were not returned yet, and note their faults."""
        while self._made_ms < end_ms:
            self._make_day()
        count = bisect_left(self._pending, end_ms, key=time_of)
        out, self._pending = self._pending[:count], self._pending[count:]
        while self._unnoted and self._unnoted[0].start_ms < end_ms:
            self.faults.append(self._unnoted.pop(0))
        return out

    def _make_day(self) -> None:
        first_ms, self._made_ms = self._made_ms, self._made_ms + DAY_MS
        self._away = travel(self._rng, self._away, self.habits)
        away = self._away if self._away.days else None
        own = payments(self._rng, self.key, self.habits, first_ms, self._made_ms, away)
        events = self._pending + [event for event in own if time_of(event) >= self._taken_until_ms]
        while self._upcoming[1] < (self._made_ms - self.start_ms) / 1000:
            kind, start_s, end_s = self._upcoming
            start_ms, end_ms = (self.start_ms + round(1000 * time_s) for time_s in (start_s, end_s))
            if kind == "takeover":
                self._taken_until_ms = end_ms
                events = [event for event in events if time_of(event) < start_ms]
            events += self._fraud(kind, start_ms, end_ms)
            self._upcoming = next(self._plan)
        self._pending = sorted(events, key=time_of)

    def _fraud(self, kind: str, start_ms: int, end_ms: int) -> list[Event]:
        """Return the payments of a fault, and keep it to be noted with the first that is wrong; none is no fault."""
        paid = self._takeover(start_ms, end_ms) if kind == "takeover" else self._burst(kind, start_ms, end_ms)
        wrong = paid[1:] if kind == "double_charge" else paid
        if wrong:
            self._unnoted.append(Fault(self.key, kind, time_of(wrong[0]), time_of(wrong[-1]) + 1))
        return paid

    def _takeover(self, start_ms: int, end_ms: int) -> list[Event]:
        rng = self._fault_rng
        other = draw_habits(rng)
        away = Away(1, _between(rng, TAKEOVER_KM), other.country)
        other = replace(other, per_day=1.5 * self.habits.per_day, level=TAKEOVER_TIMES * other.level)
        paid = payments(rng, self.key, other, start_ms, end_ms, away)
        return [event for event in paid if time_of(event) < end_ms]

    def _burst(self, kind: str, start_ms: int, end_ms: int) -> list[Event]:
        rng, key, habits = self._fault_rng, self.key, self.habits
        times_ms = np.sort(rng.integers(start_ms, end_ms, rng.integers(*PAYMENTS[kind], endpoint=True))).tolist()
        if kind == "testing":
            country = str(rng.choice(COUNTRIES))
            amounts = rng.uniform(*TESTING_EUR, len(times_ms)).round(2).tolist()
            wrong = {"distance": None, "merchant": "digital", "country": country}
            return [
                {"key": key, "time": time_ms, "amount": amount, **wrong}
                for time_ms, amount in zip(times_ms, amounts, strict=True)
            ]
        if kind == "stolen":
            away = Away(1, _between(rng, STOLEN_KM), str(rng.choice(COUNTRIES)))
            rich = replace(habits, level=STOLEN_TIMES * habits.level)
            return [payment(rng, key, rich, time_ms, away, str(rng.choice(SOLD))) for time_ms in times_ms]
        if kind == "double_charge":
            charged = payment(rng, key, habits, times_ms[0], None)
            return [{**charged, "time": time_ms} for time_ms in times_ms]
        return [payment(rng, key, habits, time_ms, None) for time_ms in times_ms]


def _between(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    """Return a distance between two limits, its logarithm uniform."""
    return float(np.exp(rng.uniform(*np.log(limits))))


def deck(
    keys: int, seed: int, start_ms: int, fault_rates_per_hour: ByKind | None = None, faults_from_s: float = 0.0
) -> list[Card]:
    """Return ``keys`` cards, "card-01" and so on, each with a holder of its own.

    >>> from simulators.feed import irregular_events
    >>> feed = irregular_events(deck(9, seed=7, start_ms=0), start_ms=0, duration_s=86400.0)
    >>> sorted(next(feed))
    ['amount', 'country', 'distance', 'key', 'merchant', 'time']
    """
    rates, from_s = fault_rates_per_hour, faults_from_s
    return [
        Card(
            f"card-{n:02d}",
            int(np.random.default_rng([seed, n]).integers(2**63)),
            start_ms,
            fault_rates_per_hour=rates,
            faults_from_s=from_s,
        )
        for n in range(1, keys + 1)
    ]
