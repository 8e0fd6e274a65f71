"""A smart meter per household: a reading each quarter of an hour, with faults of the meter and of the house.

Load is a base, the course of a day of people who get up, cook and stay up, appliances switched on at random,
and heating and cooling by the outdoor temperature; the voltage falls as load rises. Constants marked "chosen" have no
source but plausibility. Sources:

- VDEW 1999: Repräsentative VDEW-Lastprofile, M-32/99. Households (H0): least at night, peaks at noon and in the
  evening, the highest around 19 h, later mornings at weekends.
- BDEW: a German household takes some 2,000 (one person) to 5,000 kWh (four or more) a year.
- Richardson et al. 2010: Domestic electricity use, a high-resolution energy demand model, Energy and Buildings
  42(10): load is occupants' activity by hour and kind of day, times appliances switched on at random.
- CIBSE 2006: Degree-days, TM41. Heating begins below an outdoor base temperature of 15.5 °C.
- EN 50160: 230 V; in a week 95 % of the ten-minute means within 10 %.
- IEC 60725: the reference impedance of a supply, phase and neutral, is 0.4 ohm, resistive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulators.daily import DAY_S, DailySource, Episode, Floats, Wander, bump, hour_of, weekday_of, within
from simulators.schedule import ByKind

STEP_S = 900.0
CHANNELS = {"load": "kW", "voltage": "V", "temperature": "°C"}
# How long a fault lasts, on average; chosen.
DURATIONS_S: ByKind = {
    "stuck": 24 * 3600.0,  # load and voltage repeat the last reading
    "spike": 1800.0,  # a reading or three far above what a fuse lets through
    "drop_out": 2 * 3600.0,  # phase lost: load and voltage are zero
    "bypass": 3 * 24 * 3600.0,  # theft: a constant part of the load passes the meter by
    "left_on": 36 * 3600.0,  # an appliance that nobody turns off
    "clock": 4 * 24 * 3600.0,  # the course of the day comes hours early
}
RECOVERY_S = 24 * 3600.0  # without fault between two, so that they can be told apart
SPIKE_KW, BYPASS_SHARE, LEFT_ON_KW, CLOCK_H = (15.0, 25.0), (0.5, 0.8), (0.5, 1.5), (3.0, 6.0)  # chosen; 63 A: 14.5 kW

# Outdoors: chosen, as in Central Europe. The year is coldest in mid-January, the day at 3 h.
MEAN_C, YEAR_C, DAY_C, WEATHER_C = 10.0, 9.5, 3.5, 3.5  # mean; amplitudes of year and day; deviation of the weather
COLDEST_DAY, WEATHER_MEMORY_S, YEAR_S = 15, 3 * DAY_S, 365.2425 * DAY_S
SENSOR_C = 0.2
HEATING_BASE_C, COOLING_BASE_C = 15.5, 22.0  # CIBSE; chosen
NOMINAL_V, GRID_V, GRID_MEMORY_S = 230.0, 2.0, 6 * 3600.0  # deviation and memory of the grid's voltage: chosen
FALL_V_PER_KW = 0.4 * 1000.0 / NOMINAL_V  # IEC 60725
# Parts of a day's course: when (h), how wide (h), how high on a weekday and at weekends; after H0, widths chosen.
MORNING, NOON, EVENING = (7.0, 1.2, 0.5, 0.5), (12.5, 2.0, 0.4, 0.7), (19.0, 2.2, 1.0, 1.0)
WEEKEND_LATER_H = 1.5
USE_SPREAD, USE_MEMORY_S = 0.35, 2 * 3600.0  # of the logarithm of what is in use: chosen
RUN_KW, RUN_READINGS = (0.8, 2.2), 4  # an appliance runs at this power for one to so many readings: chosen
NOISE_SHARE = 0.1  # of the base load: a refrigerator's cycles; chosen


@dataclass(frozen=True)
class Household:
    """What stays the same in one household; every spread is chosen, so that years come out as BDEW's do."""

    base_kw: float
    use_kw: float  # at the height of the evening
    runs_per_day: float
    later_h: float  # than others they get up and go to bed
    heating_kw_per_k: float
    cooling_kw_per_k: float


def draw_household(rng: np.random.Generator) -> Household:
    """Return a random household; one in three has an air conditioner."""
    size = float(np.exp(np.clip(rng.normal(0.0, 0.25), -0.5, 0.5)))
    return Household(
        base_kw=0.11 * size * rng.uniform(0.7, 1.4),
        use_kw=0.22 * size,
        runs_per_day=3.0 * size * rng.uniform(0.8, 1.2),
        later_h=rng.normal(0.0, 0.7),
        heating_kw_per_k=rng.uniform(0.0, 0.025),
        cooling_kw_per_k=float(rng.choice([0.0, 0.0, 0.1])),
    )


class Weather:
    """The outdoor temperature of a region, in °C: a year's and a day's course, and what the weather makes of them."""

    def __init__(self, seed: int) -> None:
        """Begin somewhere; meters of one region have one seed, and so one weather."""
        self._wander = Wander(np.random.default_rng(seed), WEATHER_MEMORY_S / STEP_S)

    def advance(self, time_s: Floats) -> Floats:
        """Return the temperature at the times (s since 1970) that come next."""
        year = np.cos(2 * np.pi * (time_s - COLDEST_DAY * DAY_S) / YEAR_S)
        day = np.cos(2 * np.pi * (hour_of(time_s) - 3.0) / 24.0)
        return MEAN_C - YEAR_C * year - DAY_C * day + WEATHER_C * self._wander.advance(len(time_s))


def course(hour: Floats, weekend: Floats, later_h: float) -> Floats:
    """Return how much is in use by the hour of the day, 1 in the evening; ``weekend``: 1 on such days, else 0."""
    parts = [
        (weekday + (free - weekday) * weekend) * bump(hour, at_h + later_h + shift_h * weekend, width_h)
        for (at_h, width_h, weekday, free), shift_h in ((MORNING, WEEKEND_LATER_H), (NOON, 0.5), (EVENING, 0.0))
    ]
    return np.asarray(np.sum(parts, axis=0))


class Meter(DailySource):
    """One household's meter: load (kW, mean of the quarter of an hour), voltage (V) and outdoor temperature (°C).

    ``weather_seed`` is the region's, ``seed`` the household's own. ``fault_rates_per_hour`` maps kinds of
    :data:`DURATIONS_S` to rates.
    """

    step_s, channels = STEP_S, CHANNELS
    durations_s, fault_hours, recovery_s = DURATIONS_S, {}, RECOVERY_S

    def __init__(
        self,
        key: str,
        seed: int,
        start_ms: int,
        *,
        weather_seed: int = 0,
        fault_rates_per_hour: ByKind | None = None,
        faults_from_s: float = 0.0,
    ) -> None:
        """Draw the household; readings are made on demand."""
        household_rng, self._rng, fault_rng = np.random.default_rng(seed).spawn(3)
        super().__init__(
            key,
            start_ms,
            rng=fault_rng,
            fault_rates_per_hour=fault_rates_per_hour,
            faults_from_s=faults_from_s,
        )
        self.household = draw_household(household_rng)
        self._weather = Weather(weather_seed)
        self._use = Wander(self._rng, USE_MEMORY_S / STEP_S)
        self._grid = Wander(self._rng, GRID_MEMORY_S / STEP_S)
        self._running_kw = np.zeros(RUN_READINGS)  # beyond the day that is made

    def _day(self, time_s: Floats, episodes: Sequence[Episode]) -> Floats:
        hour, weekend = hour_of(time_s), (weekday_of(time_s) >= 5).astype(np.float64)
        left_on_kw = np.zeros(len(time_s))
        for episode in episodes:
            if episode.kind == "clock":
                hour[episode.at] += within(CLOCK_H, episode.size)
            elif episode.kind == "left_on":
                left_on_kw[episode.at] = within(LEFT_ON_KW, episode.size)
        temperature_c = self._weather.advance(time_s)
        load_kw = self._load_kw(course(hour, weekend, self.household.later_h), temperature_c) + left_on_kw
        voltage_v = NOMINAL_V + GRID_V * self._grid.advance(len(time_s)) - FALL_V_PER_KW * load_kw
        temperature_c = temperature_c + SENSOR_C * self._rng.standard_normal(len(time_s))
        values = np.stack([load_kw, voltage_v, temperature_c], axis=1)
        for episode in episodes:
            self._misread(values, episode)
        return values

    def _load_kw(self, in_use: Floats, temperature_c: Floats) -> Floats:
        home, count = self.household, len(in_use)
        base_kw = home.base_kw * (1 + NOISE_SHARE * self._rng.standard_normal(count))
        use_kw = home.use_kw * in_use * np.exp(USE_SPREAD * self._use.advance(count))
        heating_kw = home.heating_kw_per_k * np.maximum(HEATING_BASE_C - temperature_c, 0.0)
        cooling_kw = home.cooling_kw_per_k * np.maximum(temperature_c - COOLING_BASE_C, 0.0)
        return np.asarray(base_kw + use_kw + self._appliances_kw(in_use) + heating_kw + cooling_kw)

    def _appliances_kw(self, in_use: Floats) -> Floats:
        """Return what appliances take that are switched on at random, the more often the more is in use."""
        count = len(in_use)
        usual = course(np.arange(0.0, 24.0, STEP_S / 3600.0), np.zeros(1), 0.0).sum()
        begins = self._rng.random(count) < self.household.runs_per_day * in_use / usual
        power_kw = self._rng.uniform(*RUN_KW, count)
        readings = self._rng.integers(1, RUN_READINGS + 1, count)
        running_kw = np.zeros(count + RUN_READINGS)
        running_kw[:RUN_READINGS] = self._running_kw
        for later in range(RUN_READINGS):
            running_kw[later : later + count] += power_kw * (begins & (later < readings))
        self._running_kw = running_kw[count:]
        return running_kw[:count]

    def _misread(self, values: Floats, episode: Episode) -> None:
        """Apply to a day, in place, what an episode does to the meter."""
        load_kw = values[episode.at, 0]
        if episode.kind == "stuck":
            values[episode.at, :2] = self._hold(values, episode)[:2]
        elif episode.kind == "spike":
            load_kw += within(SPIKE_KW, episode.size)
        elif episode.kind == "drop_out":
            values[episode.at, :2] = 0.0
        elif episode.kind == "bypass":
            load_kw *= 1.0 - within(BYPASS_SHARE, episode.size)


def estate(
    keys: int, seed: int, start_ms: int, fault_rates_per_hour: ByKind | None = None, faults_from_s: float = 0.0
) -> list[Meter]:
    """Return ``keys`` meters of one region, "meter-01" and so on, each with a household of its own.

    >>> from simulators.feed import events
    >>> feed = events(estate(2, seed=7, start_ms=0), frame_samples=1, start_ms=0, duration_s=900.0)
    >>> [(event["key"], event["time"]) for event in feed]
    [('meter-01', 900000), ('meter-02', 900000)]
    """
    rates, from_s = fault_rates_per_hour, faults_from_s
    seeds = [int(np.random.default_rng([seed, n]).integers(2**63)) for n in range(keys + 1)]
    return [
        Meter(f"meter-{n:02d}", own, start_ms, weather_seed=seeds[0], fault_rates_per_hour=rates, faults_from_s=from_s)
        for n, own in enumerate(seeds[1:], 1)
    ]
