"""Simulated motorway sections against traffic flow theory, and their faults against the truth."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from simulators.daily import Floats
from simulators.feed import Fault, events
from simulators.traffic import (
    BOTTLENECK_VEH_H,
    CAPACITY_KM_H,
    DIAGRAM,
    DISCHARGE,
    DURATIONS_S,
    INCIDENT_CAPACITY,
    LANES,
    VEHICLE_M,
    Detector,
    motorway,
)

START_MS = 1_767_225_600_000  # a Thursday
DAY = 288  # readings
STEP_MS = 300_000
FLOW, OCCUPANCY, SPEED = range(3)


def make_detector(kind: str | None = None, *, seed: int = 3, per_week: float = 1.5) -> Detector:
    """Return a detector with one kind of fault, or with none."""
    return Detector("a", seed, START_MS, fault_rates_per_hour={kind: per_week / 168} if kind else {})


def reading_of(time_ms: int) -> int:
    """Return the reading a time points at; a reading is stamped with the end of its interval."""
    return (time_ms - START_MS) // STEP_MS - 1


def first_fault(kind: str, seed: int = 3) -> tuple[Floats, Floats, Fault, slice]:
    """Return a detector's readings with a fault and without, the first fault, and where it is."""
    faulty = make_detector(kind, seed=seed)
    signal = faulty.advance(30 * DAY)
    fault = faulty.faults[0]
    healthy = make_detector(seed=seed).advance(30 * DAY)
    return signal, healthy, fault, slice(reading_of(fault.start_ms), reading_of(fault.end_ms))


@pytest.fixture(scope="module")
def weeks() -> Floats:
    """Eight weeks of 12 sections without faults, (sections, days, readings, channels)."""
    return np.stack([detector.advance(56 * DAY) for detector in motorway(12, 5, START_MS)]).reshape(12, 56, DAY, 3)


def is_weekend() -> np.ndarray:
    """Return which days are Saturdays and Sundays."""
    return (np.arange(56) + 3) % 7 >= 5


def hourly(flow: Floats) -> Floats:
    """Return the mean flow by hour of the day of (sections, days, readings)."""
    return flow.mean(axis=(0, 1)).reshape(24, 12).mean(axis=1)


def test_diagram_meets_its_four_points() -> None:
    """Free flow without traffic, capacity at its speed, standstill at jam density; two speeds for a flow between."""
    speed = np.linspace(0.5, 109.9, 2000)
    flow = speed * DIAGRAM.density(speed)
    assert flow.max() == pytest.approx(2000.0, rel=1e-3)
    assert speed[flow.argmax()] == pytest.approx(CAPACITY_KM_H, abs=0.5)
    assert DIAGRAM.density(np.zeros(1)) == pytest.approx(125.0)
    free, slow = (
        DIAGRAM.speed(np.array([10.0, 1000.0]), queued=np.zeros(2, bool)),
        DIAGRAM.speed(np.array([10.0, 1000.0]), queued=np.ones(2, bool)),
    )
    assert free == pytest.approx([110.0, 108.7], abs=0.3)
    assert slow[0] < 1.0 < slow[1] < 20.0
    assert free[1] * DIAGRAM.density(free)[1] == pytest.approx(1000.0, rel=0.01)
    assert slow[1] * DIAGRAM.density(slow)[1] == pytest.approx(1000.0, rel=0.01)


def test_flow_is_density_times_speed(weeks: Floats) -> None:
    """Density by occupancy and the vehicles' mean length; within its spread, at every reading."""
    flow, occupancy, speed = weeks.reshape(-1, 3).T
    density_veh_km = occupancy / 100 * 1000 / VEHICLE_M * LANES
    busy = flow > 0
    ratio = flow[busy] / (density_veh_km * speed)[busy]
    assert ratio.mean() == pytest.approx(1.0, abs=0.005)
    assert ratio.std() < 0.05


def test_speed_falls_with_density_as_in_the_diagram(weeks: Floats) -> None:
    """In free flow and in queues, speed follows from density, within what five minutes scatter."""
    flow, occupancy, speed = weeks.reshape(-1, 3).T
    density = occupancy / 100 * 1000 / VEHICLE_M
    order = np.linspace(0.0, 109.99, 3000)
    expected = np.interp(density, DIAGRAM.density(order)[::-1], order[::-1])
    for busy in ((flow > 600) & (speed > 90), (speed < 80)):
        assert busy.sum() > 1000
        assert np.median(speed[busy] / expected[busy]) == pytest.approx(1.0, abs=0.05)
    means = [speed[(density > low) & (density <= low + 4)].mean() for low in (0, 8, 12, 16, 44, 48)]
    assert (np.diff(means) < 0).all()


def test_flow_stays_below_what_the_bottleneck_lets_through(weeks: Floats) -> None:
    """In a queue as much as it discharges, 93 % of capacity; never more than capacity but for the scatter of counts."""
    flow, _, speed = weeks.reshape(-1, 3).T
    assert flow[speed < 60].mean() == pytest.approx(DISCHARGE * BOTTLENECK_VEH_H, rel=0.01)
    assert flow.max() < BOTTLENECK_VEH_H + 5 * np.sqrt(12 * BOTTLENECK_VEH_H)


def test_weekday_has_two_peaks_and_a_weekend_one(weeks: Floats) -> None:
    """Morning and evening by commuters, noon at weekends; a quiet night; a peak hour of 8 to 12 % of the day."""
    week, weekend = (hourly(weeks[..., FLOW][:, days]) for days in (~is_weekend(), is_weekend()))
    assert 7 <= 5 + week[5:12].argmax() <= 8
    assert 15 <= 12 + week[12:].argmax() <= 18
    assert week[10] < 0.8 * min(week[7], week[16])
    assert 12 <= weekend.argmax() <= 15
    assert weekend[7] < 0.4 * week[7]
    assert 0.6 < weekend.sum() / week.sum() < 0.85
    assert week[2:4].max() < 0.1 * week.max()
    assert 0.08 < week.max() / week.sum() < 0.12
    assert 30_000 < week.sum() < 75_000  # vehicles a day and direction, of three lanes


def test_congestion_comes_back_at_the_peaks_of_weekdays_only(weeks: Floats) -> None:
    """Some sections jam on most weekdays, at the hours of the peaks; others hardly ever; none at night or weekends."""
    jammed = weeks[..., SPEED] < 70
    per_day = jammed.any(axis=2)
    of_section = per_day[:, ~is_weekend()].mean(axis=1)
    assert of_section.max() > 0.6
    assert of_section.min() < 0.4
    assert per_day[:, is_weekend()].mean() < 0.02
    hours = np.bincount(np.nonzero(jammed)[2] // 12, minlength=24)
    assert hours[7:10].sum() + hours[15:20].sum() > 0.95 * hours.sum()


def test_counts_scatter_as_poisson(weeks: Floats) -> None:
    """In free flow, successive five minutes differ by about the root of the vehicles that came."""
    vehicles = weeks[:, :, 13 * 12 : 14 * 12, FLOW].reshape(-1, 12) / 12  # noon is flat
    noise = np.diff(vehicles, axis=1).var() / 2
    assert 0.8 < noise / vehicles.mean() < 1.7  # demand wanders on top of it
    assert (weeks[..., FLOW] % 12 == 0).all()  # whole vehicles


def test_neighbours_vary_together_in_part(weeks: Floats) -> None:
    """A town's demand moves all its sections: daily totals are correlated, but not the same."""
    totals = weeks[..., FLOW][:, ~is_weekend()].sum(axis=2)
    weekday = (np.arange(56) + 3)[~is_weekend()] % 7
    rest = np.concatenate(
        [totals[:, weekday == d] - totals[:, weekday == d].mean(axis=1, keepdims=True) for d in range(5)], 1
    )
    correlation = np.corrcoef(rest)[np.triu_indices(12, 1)]
    assert 0.5 < correlation.mean() < 0.995


# Seeds and continuation


def test_advance_in_pieces_equals_one_draw() -> None:
    """However the readings are drawn, readings and faults are the same."""
    rates = dict.fromkeys(DURATIONS_S, 1 / 400)
    whole, pieces = (Detector("a", 1, START_MS, fault_rates_per_hour=rates) for _ in range(2))
    expected = whole.advance(30 * DAY)
    got = np.concatenate([pieces.advance(size) for size in (0, 1, 287, 289, 30 * DAY - 577)])
    np.testing.assert_array_equal(got, expected)
    assert pieces.faults == whole.faults != []


def test_seed_decides_and_keys_do_not_depend_on_how_many_there_are() -> None:
    """The same seed gives the same detectors, also on a larger motorway; another gives others."""
    two, five, other = motorway(2, 1, START_MS), motorway(5, 1, START_MS), motorway(2, 2, START_MS)
    assert [detector.key for detector in five] == [f"section-{n:02d}" for n in range(1, 6)]
    assert len({detector.section for detector in five}) == 5
    readings = [detector.advance(2 * DAY) for detector in (two[1], five[1], other[1])]
    np.testing.assert_array_equal(readings[0], readings[1])
    assert np.nanmax(np.abs(readings[0] - readings[2])) > 100


# Faults


@pytest.mark.parametrize("kind", DURATIONS_S)
def test_fault_changes_readings_within_its_extent_and_nowhere_else(kind: str) -> None:
    """The same detector with and without a fault differs inside the truth's extent, and in the queue that it leaves."""
    signal, healthy, fault, at = first_fault(kind)
    differs = ~np.isclose(signal, healthy, rtol=1e-9, equal_nan=True).all(axis=1)
    changed = np.flatnonzero(differs[: at.stop + DAY // 3])  # the next comes half a day later
    queue = DAY // 8 if kind in ("incident", "surge", "closure") else 0  # a closed road loses what it would have
    assert at.start <= changed[0] <= at.start + 3
    assert at.stop - 3 <= changed[-1] <= at.stop - 1 + queue
    assert fault.kind == kind


def test_incident_collapses_speed_and_flow_and_fills_the_road() -> None:
    """By day, for half an hour to an hour and a half: flow is what the last lane carries, in a queue."""
    for seed in range(6):
        signal, healthy, fault, at = first_fault("incident", seed)
        assert 20 * 60_000 <= fault.end_ms - fault.start_ms <= 90 * 60_000
        assert 7 <= fault.start_ms % 86_400_000 / 3_600_000 <= 19.1
        inside = slice(at.start + 2, at.stop)
        assert signal[inside, SPEED].max() < 10
        assert signal[inside, OCCUPANCY].min() > 45 > healthy[:, OCCUPANCY].max()
        assert signal[inside, FLOW].mean() == pytest.approx(INCIDENT_CAPACITY * DISCHARGE * BOTTLENECK_VEH_H, rel=0.1)


def test_closure_has_no_vehicle_and_no_speed() -> None:
    """Flow and occupancy are zero, and the speed of nobody is missing, not zero."""
    signal, _, _, at = first_fault("closure")
    assert not signal[at, :2].any()
    assert np.isnan(signal[at, SPEED]).all()


def test_surge_brings_thousands_in_the_evening() -> None:
    """As many more as an event lets go, up to what the road carries."""
    signal, healthy, fault, at = first_fault("surge")
    more = signal[at, FLOW] - healthy[at, FLOW]
    assert 1500 < more.mean() < 3200
    assert 18.9 <= fault.start_ms % 86_400_000 / 3_600_000 <= 22.1


def test_stuck_detector_repeats_its_last_reading() -> None:
    """All three numbers."""
    signal, _, _, at = first_fault("stuck")
    assert (signal[at] == signal[at.start - 1]).all()


def test_chattering_detector_counts_vehicles_several_times() -> None:
    """Flow is a multiple; density times speed says what it should be."""
    signal, healthy, _, at = first_fault("chatter")
    times = signal[at, FLOW] / healthy[at, FLOW]
    assert times.std() < 1e-9
    assert 2.5 <= times[0] <= 4.0
    np.testing.assert_array_equal(signal[at, 1:], healthy[at, 1:])


def test_miscount_drifts_until_it_is_put_right() -> None:
    """From nothing to a third or half of the count, in a straight line over days."""
    signal, healthy, fault, at = first_fault("miscount")
    busy = healthy[at, FLOW] > 0
    lost = 1 - signal[at, FLOW][busy] / healthy[at, FLOW][busy]
    assert (np.diff(lost) > 0).all()
    assert lost[0] < 0.01
    assert 0.3 <= lost[-1] <= 0.5
    assert fault.end_ms - fault.start_ms > 2 * 86_400_000


def test_faults_keep_rate_distance_and_truth() -> None:
    """Each kind about as often as ordered, half a day between two, none before it may."""
    rates = dict.fromkeys(DURATIONS_S, 1 / 400)
    detectors = [
        Detector(str(n), n, START_MS, fault_rates_per_hour=rates, faults_from_s=10 * 86_400.0) for n in range(6)
    ]
    for detector in detectors:
        detector.advance(10 * DAY)
        assert detector.faults == []
        detector.advance(150 * DAY)
        ends, starts = ([getattr(f, name) for f in detector.faults] for name in ("end_ms", "start_ms"))
        assert min(np.subtract(starts[1:], ends[:-1])) >= 12 * 3_600_000 - STEP_MS
        assert all(fault.key == detector.key for fault in detector.faults)
    counts = Counter(fault.kind for detector in detectors for fault in detector.faults)
    expected = 6 * 150 * 24 / 400
    assert set(counts) == set(DURATIONS_S)
    assert all(abs(count - expected) < 4 * np.sqrt(expected) for count in counts.values()), counts


def test_healthy_detector_has_no_fault_and_events_tell_nothing() -> None:
    """No fault unless ordered; an event has key, time and three numbers, of which the speed may be missing."""
    detectors = [make_detector("closure"), make_detector()]
    feed = list(events(detectors, frame_samples=1, start_ms=START_MS, duration_s=20 * 86_400.0))
    assert detectors[0].faults
    assert detectors[1].faults == []
    assert all(set(event) == {"key", "time", "flow", "occupancy", "speed"} for event in feed)
    assert all(type(event[name]) is float for event in feed for name in ("flow", "occupancy"))
    assert {type(event["speed"]) for event in feed} == {float, type(None)}
    with pytest.raises(ValueError, match="unknown faults"):
        make_detector("gremlin")
