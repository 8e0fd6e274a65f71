"""Loop detectors on a motorway: flow, occupancy and speed of a section each five minutes, with faults of road and loop.

Demand has a course by hour and kind of day; what the bottleneck below the detector does not let through queues over
it. Flow, density and speed obey a fundamental diagram: on its free branch, or, in a queue, on its congested one.
Constants marked "chosen" have no source but plausibility. Sources:

- Van Aerde 1995: Single regime speed-flow-density relationship for congested and uncongested highways, 74th TRB
  annual meeting; parameters from free-flow speed, speed at capacity, capacity and jam density: Demarchi 2002.
- Athol 1965: Interdependence of certain operational characteristics within a moving traffic stream, Highway
  Research Record 72: occupancy is density times the effective length of a vehicle.
- HCM 2010, exhibit 10-17: with two of three lanes blocked a motorway keeps 0.17 of its capacity.
- Cassidy & Bertini 1999: Some traffic features at freeway bottlenecks, Transportation Research B 33(1): a queue
  discharges at some percent (4 to 10) less than flowed before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.daily import DailySource, Episode, Floats, Wander, bump, hour_of, weekday_of, within
from simulators.schedule import ByKind

Flags = NDArray[np.bool_]

STEP_S = 300.0
STEPS_PER_HOUR = 12
CHANNELS = {"flow": "veh/h", "occupancy": "%", "speed": "km/h"}
# How long a fault lasts, on average; chosen.
DURATIONS_S: ByKind = {
    "incident": 55 * 60.0,  # two of three lanes blocked below the detector; what it leaves is a queue, for a while
    "closure": 5 * 3600.0,  # nobody comes: no flow, no occupancy, no speed
    "surge": 2 * 3600.0,  # an event in town ends, and all go home
    "stuck": 6 * 3600.0,  # the last reading again and again
    "chatter": 3 * 3600.0,  # a vehicle is counted several times
    "miscount": 3 * 24 * 3600.0,  # the count drifts away from the truth, until somebody calibrates it
}
FAULT_HOURS = {"incident": (7.0, 19.0), "surge": (19.0, 22.0)}  # an incident at night holds nobody up
RECOVERY_S = 12 * 3600.0  # without fault between two, so that queues dissolve
SURGE_VEH_H, CHATTER_TIMES, MISCOUNT_SHARE = (2000.0, 3000.0), (2.5, 4.0), (0.3, 0.5)  # chosen
INCIDENT_CAPACITY = 0.17  # HCM

LANES = 3
FREE_KM_H, CAPACITY_KM_H, CAPACITY_VEH_H, JAM_VEH_KM = 110.0, 85.0, 2000.0, 125.0  # per lane; chosen, with lorries
BOTTLENECK_VEH_H = 5200.0  # what leaves the section: less than three lanes carry, for a ramp joins; chosen
DISCHARGE = 0.93  # of it, from a queue: Cassidy & Bertini
QUEUE_REACHES_VEH = 15.0  # the detector; chosen
VEHICLE_M, VEHICLE_SPREAD = 7.0, 0.03  # effective length, loop included, and how its mean varies; chosen
SPEED_SPREAD = 0.02  # of the mean of five minutes; chosen
# Parts of a day's course: when (h), how wide (h), how high on a weekday and at weekends; chosen.
MORNING, NOON, EVENING = (7.8, 1.1, 0.85, 0.0), (13.0, 3.2, 0.55, 0.80), (17.2, 1.7, 0.75, 0.35)
NIGHT, DAYS = 0.05, np.array([0.98, 1.0, 1.0, 1.02, 1.05, 1.0, 0.88])  # least; Monday to Sunday
TOWN_SPREAD, TOWN_MEMORY_S = 0.05, 12 * 3600.0  # of demand's logarithm, of all sections: weather, holidays; chosen
OWN_SPREAD, OWN_MEMORY_S = 0.04, 3600.0  # and of each section's; chosen


class FundamentalDiagram:
    """How flow, density and speed of one lane go together, after Van Aerde."""

    def __init__(self, free_km_h: float, capacity_km_h: float, capacity_veh_h: float, jam_veh_km: float) -> None:
        """Find the three parameters (Demarchi), and tabulate the two branches."""
        slack = free_km_h - capacity_km_h
        ratio = (2 * capacity_km_h - free_km_h) / slack**2
        self._c2 = 1.0 / (jam_veh_km * (ratio + 1.0 / free_km_h))
        self._c1 = ratio * self._c2
        self._c3 = (-self._c1 + capacity_km_h / capacity_veh_h - self._c2 / slack) / capacity_km_h
        self._free_km_h = free_km_h
        self._queued = np.linspace(0.0, capacity_km_h, 500)
        self._flowing = np.linspace(capacity_km_h, free_km_h, 500)[::-1][1:]  # by rising flow; without none at all

    def density(self, speed_km_h: Floats) -> Floats:
        """Return the density (veh/km) at a speed."""
        return np.asarray(1.0 / (self._c1 + self._c2 / (self._free_km_h - speed_km_h) + self._c3 * speed_km_h))

    def speed(self, flow_veh_h: Floats, *, queued: Flags) -> Floats:
        """Return the speed (km/h) at a flow, where it is ``queued`` on the congested branch."""
        slow, fast = (
            np.interp(flow_veh_h, branch * self.density(branch), branch) for branch in (self._queued, self._flowing)
        )
        return np.where(queued, slow, fast)


DIAGRAM = FundamentalDiagram(FREE_KM_H, CAPACITY_KM_H, CAPACITY_VEH_H, JAM_VEH_KM)


@dataclass(frozen=True)
class Section:
    """What stays the same on one section; spreads are chosen, so that some jam each weekday and some hardly ever do."""

    peak_veh_h: float  # where all parts of the course are 1
    inbound: float  # how much of the morning's peak it has; the evening has the rest of 2


def draw_section(rng: np.random.Generator) -> Section:
    """Return a random section: into town, out of town, or between."""
    return Section(peak_veh_h=rng.uniform(4000.0, 5000.0), inbound=rng.uniform(0.8, 1.2))


def course(time_s: Floats, inbound: float) -> Floats:
    """Return demand by hour and weekday, as a share of the peak."""
    day, hour = weekday_of(time_s), hour_of(time_s)
    weekend = (day >= 5).astype(np.float64)
    total = np.full(len(time_s), NIGHT)
    for (at_h, width_h, weekday, free), share in ((MORNING, inbound), (NOON, 1.0), (EVENING, 2.0 - inbound)):
        total += (weekday * share + (free - weekday * share) * weekend) * bump(hour, at_h, width_h)
    return np.asarray(total * DAYS[day])


class Detector(DailySource):
    """One section's detector: flow (veh/h, all lanes), occupancy (%) and mean speed (km/h) of five minutes.

    Without a vehicle there is no speed: it is not a number then. ``town_seed`` is that of all sections, whose demand
    varies together, ``seed`` the section's own. ``fault_rates_per_hour`` maps kinds of :data:`DURATIONS_S` to rates.

    **Trap**: an "incident" lasts as long as the lanes are blocked, a "surge" as long as more vehicles come. The queue
    outlasts both.
    """

    step_s, channels = STEP_S, CHANNELS
    durations_s, fault_hours, recovery_s = DURATIONS_S, FAULT_HOURS, RECOVERY_S

    def __init__(
        self,
        key: str,
        seed: int,
        start_ms: int,
        *,
        town_seed: int = 0,
        fault_rates_per_hour: ByKind | None = None,
        faults_from_s: float = 0.0,
    ) -> None:
        """Draw the section; readings are made on demand."""
        section_rng, self._rng, fault_rng = np.random.default_rng(seed).spawn(3)
        super().__init__(
            key,
            start_ms,
            rng=fault_rng,
            fault_rates_per_hour=fault_rates_per_hour,
            faults_from_s=faults_from_s,
        )
        self.section = draw_section(section_rng)
        self._town = Wander(np.random.default_rng(town_seed), TOWN_MEMORY_S / STEP_S)
        self._own = Wander(self._rng, OWN_MEMORY_S / STEP_S)
        self._queue_veh = 0.0

    def _day(self, time_s: Floats, episodes: Sequence[Episode]) -> Floats:
        count = len(time_s)
        change = np.exp(TOWN_SPREAD * self._town.advance(count) + OWN_SPREAD * self._own.advance(count))
        demand_veh_h = self.section.peak_veh_h * course(time_s, self.section.inbound) * change
        capacity_veh_h = np.full(count, BOTTLENECK_VEH_H)
        for episode in episodes:
            if episode.kind == "incident":
                capacity_veh_h[episode.at] *= INCIDENT_CAPACITY
            elif episode.kind == "closure":
                demand_veh_h[episode.at] = 0.0
            elif episode.kind == "surge":
                demand_veh_h[episode.at] += within(SURGE_VEH_H, episode.size)
        values = self._measure(*self._flow(demand_veh_h, capacity_veh_h))
        for episode in episodes:
            self._misread(values, episode, time_s)
        return values

    def _flow(self, demand_veh_h: Floats, capacity_veh_h: Floats) -> tuple[Floats, Flags]:
        """Return the flow past the bottleneck (veh/h), and whether the detector stands in its queue."""
        flow_veh_h, queued = np.empty(len(demand_veh_h)), np.zeros(len(demand_veh_h), dtype=bool)
        for step, (demand, capacity) in enumerate(zip(demand_veh_h, capacity_veh_h, strict=True)):
            waiting_veh = self._queue_veh + demand / STEPS_PER_HOUR if demand else 0.0  # a closed road is emptied
            most_veh = capacity * (DISCHARGE if self._queue_veh else 1.0) / STEPS_PER_HOUR
            left_veh = min(waiting_veh, most_veh)
            self._queue_veh = waiting_veh - left_veh
            flow_veh_h[step], queued[step] = left_veh * STEPS_PER_HOUR, self._queue_veh > QUEUE_REACHES_VEH
        return flow_veh_h, queued

    def _measure(self, flow_veh_h: Floats, queued: Flags) -> Floats:
        """Return what the detector reads: whole vehicles, about as scattered as Poisson's."""
        scatter = self._rng.standard_normal((3, len(flow_veh_h)))
        passed_veh = flow_veh_h / STEPS_PER_HOUR
        passed_veh = np.maximum(np.round(passed_veh + np.sqrt(passed_veh) * scatter[0]), 0.0)
        speed_km_h = DIAGRAM.speed(flow_veh_h / LANES, queued=queued) * (1 + SPEED_SPREAD * scatter[1])
        measured_veh_h = passed_veh * STEPS_PER_HOUR
        length_m = VEHICLE_M * (1 + VEHICLE_SPREAD * scatter[2])
        occupancy = np.minimum(measured_veh_h / LANES / speed_km_h * length_m / 10.0, 100.0)  # 100 % / (1000 m/km)
        return np.stack([measured_veh_h, occupancy, np.where(passed_veh > 0, speed_km_h, np.nan)], axis=1)

    def _misread(self, values: Floats, episode: Episode, time_s: Floats) -> None:
        """Apply to a day, in place, what an episode does to the detector."""
        flow_veh_h = values[episode.at, 0]
        if episode.kind == "stuck":
            values[episode.at] = self._hold(values, episode)
        elif episode.kind == "chatter":
            flow_veh_h *= within(CHATTER_TIMES, episode.size)
        elif episode.kind == "miscount":
            sample = (time_s[episode.at] - self.start_ms / 1000.0) / STEP_S - 1
            grown = (sample - episode.start + 1) / (episode.end - episode.start)
            flow_veh_h *= 1.0 - within(MISCOUNT_SHARE, episode.size) * grown


def motorway(
    keys: int, seed: int, start_ms: int, fault_rates_per_hour: ByKind | None = None, faults_from_s: float = 0.0
) -> list[Detector]:
    """Return ``keys`` detectors around one town, "section-01" and so on, each on a section of its own.

    >>> from simulators.feed import events
    >>> feed = events(motorway(1, seed=7, start_ms=0), frame_samples=1, start_ms=0, duration_s=600.0)
    >>> [(event["key"], event["time"]) for event in feed]
    [('section-01', 300000), ('section-01', 600000)]
    """
    rates, from_s = fault_rates_per_hour, faults_from_s
    seeds = [int(np.random.default_rng([seed, n]).integers(2**63)) for n in range(keys + 1)]
    return [
        Detector(
            f"section-{n:02d}", own, start_ms, town_seed=seeds[0], fault_rates_per_hour=rates, faults_from_s=from_s
        )
        for n, own in enumerate(seeds[1:], 1)
    ]
