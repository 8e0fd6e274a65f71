"""Simulated households against published norms, and their meters' faults against the truth."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from simulators.daily import Floats
from simulators.energy import DURATIONS_S, FALL_V_PER_KW, Meter, estate
from simulators.feed import Fault, events

START_MS = 1_767_225_600_000  # a Thursday
DAY = 96  # readings
STEP_MS = 900_000


def make_meter(kind: str | None = None, *, seed: int = 3, per_week: float = 1.2) -> Meter:
    """Return a meter with one kind of fault, or with none."""
    return Meter("a", seed, START_MS, fault_rates_per_hour={kind: per_week / 168} if kind else {})


def reading_of(time_ms: int) -> int:
    """Return the reading a time points at; a reading is stamped with the end of its interval."""
    return (time_ms - START_MS) // STEP_MS - 1


def first_fault(kind: str, seed: int = 3) -> tuple[Floats, Floats, Fault, slice]:
    """Return a meter's readings with a fault and without, the first fault, and where it is."""
    faulty = make_meter(kind, seed=seed)
    signal = faulty.advance(40 * DAY)
    fault = faulty.faults[0]
    return (
        signal,
        make_meter(seed=seed).advance(40 * DAY),
        fault,
        slice(reading_of(fault.start_ms), reading_of(fault.end_ms)),
    )


@pytest.fixture(scope="module")
def year() -> Floats:
    """A year of 24 households without faults, (households, days, readings, channels)."""
    return np.stack([meter.advance(365 * DAY) for meter in estate(24, 5, START_MS)]).reshape(24, 365, DAY, 3)


def hourly(load_kw: Floats) -> Floats:
    """Return the mean load by hour of the day of (households, days, readings)."""
    return load_kw.mean(axis=(0, 1)).reshape(24, 4).mean(axis=1)


def is_weekend() -> np.ndarray:
    """Return which days of the year are Saturdays and Sundays."""
    return (np.arange(365) + 3) % 7 >= 5


def test_year_of_a_household_is_as_large_as_published(year: Floats) -> None:
    """Mean about BDEW's, households from those of one person to those of many: 2,000 to 5,000 kWh and a bit."""
    kwh = year[..., 0].sum(axis=(1, 2)) / 4
    assert 3_000 < kwh.mean() < 4_200
    assert kwh.min() > 1_600
    assert kwh.max() < 6_500
    assert kwh.std() > 500


def test_day_has_its_peaks_where_the_standard_profile_has_them(year: Floats) -> None:
    """As in VDEW's H0: least at 1-5 h, a peak in the morning, the highest around 19 h."""
    course = hourly(year[..., 0][:, ~is_weekend()])
    assert 1 <= course.argmin() <= 5
    assert 17 <= course.argmax() <= 20
    assert 2.0 < course.max() / course.min() < 5.0
    assert 6 <= 5 + course[5:10].argmax() <= 8
    assert course[9:11].min() < course[6:8].max()  # a morning's peak of its own


def test_weekend_rises_later_and_takes_more(year: Floats) -> None:
    """In the week a quarter of an evening's rise is there by 6 h, at weekends not before 8 h."""
    week, weekend = (hourly(year[..., 0][:, days]) for days in (~is_weekend(), is_weekend()))
    assert week[6] > 1.3 * weekend[6]
    assert weekend[11] > 1.2 * week[11]
    assert 1.02 < weekend.mean() / week.mean() < 1.2


def test_cold_days_take_more_by_the_heating_of_the_house(year: Floats) -> None:
    """A household takes, by the day, about its own kW per K more; the colder the day, the more all take."""
    for meter, readings in list(zip(estate(24, 5, START_MS), year, strict=True))[:6]:
        daily = readings.mean(axis=1)
        cold = daily[daily[:, 2] < 12.0]
        slope = np.polyfit(cold[:, 2], cold[:, 0], 1)[0]
        assert -slope == pytest.approx(meter.household.heating_kw_per_k, abs=0.005)
    days = year.mean(axis=(0, 2))
    assert np.corrcoef(days[days[:, 2] < 12.0, 2], days[days[:, 2] < 12.0, 0])[0, 1] < -0.5


def test_weather_has_a_year_and_a_day_of_central_europe(year: Floats) -> None:
    """January around 0 °C, July around 19 °C, warmest in the afternoon; neighbours have the same weather."""
    temperature = year[..., 2]
    assert -4 < temperature[:, :31].mean() < 4
    assert 16 < temperature[:, 181:212].mean() < 23
    assert 14 <= temperature.mean(axis=(0, 1)).argmax() / 4 <= 16
    assert np.abs(temperature[0] - temperature[1]).max() < 2.0


def test_voltage_keeps_to_the_standard_and_falls_with_load(year: Floats) -> None:
    """EN 50160: 95 % within 10 % of 230 V; and by the reference impedance 1.74 V per kW."""
    load_kw, voltage_v = year[..., 0].ravel(), year[..., 1].ravel()
    assert (np.abs(voltage_v - 230.0) < 23.0).mean() > 0.999
    assert np.polyfit(load_kw, voltage_v, 1)[0] == pytest.approx(-FALL_V_PER_KW, rel=0.05)
    assert pytest.approx(1.74, abs=0.01) == FALL_V_PER_KW


def test_load_is_noise_with_a_memory_that_ends(year: Floats) -> None:
    """Without its daily course, load is correlated over a quarter of an hour, and hardly over a day."""
    load_kw = year[0, :60, :, 0]
    rest = (load_kw - load_kw.mean(axis=0)).ravel()
    assert 0.3 < np.corrcoef(rest[:-1], rest[1:])[0, 1] < 0.9
    assert abs(np.corrcoef(rest[:-DAY], rest[DAY:])[0, 1]) < 0.2


# Seeds and continuation


def test_advance_in_pieces_equals_one_draw() -> None:
    """However the readings are drawn, readings and faults are the same."""
    rates = dict.fromkeys(DURATIONS_S, 1 / 400)
    whole, pieces = (Meter("a", 1, START_MS, fault_rates_per_hour=rates) for _ in range(2))
    expected = whole.advance(60 * DAY)
    got = np.concatenate([pieces.advance(size) for size in (0, 1, 95, 97, 60 * DAY - 193)])
    np.testing.assert_array_equal(got, expected)
    assert pieces.faults == whole.faults != []


def test_seed_decides_and_keys_do_not_depend_on_how_many_there_are() -> None:
    """The same seed gives the same meters, also as part of a larger estate; another gives others."""
    two, five, other = estate(2, 1, START_MS), estate(5, 1, START_MS), estate(2, 2, START_MS)
    assert [meter.key for meter in five] == [f"meter-{n:02d}" for n in range(1, 6)]
    assert len({meter.household for meter in five}) == 5
    readings = [meter.advance(2 * DAY) for meter in (two[1], five[1], other[1])]
    np.testing.assert_array_equal(readings[0], readings[1])
    assert np.abs(readings[0] - readings[2]).max() > 0.1


# Faults


@pytest.mark.parametrize("kind", DURATIONS_S)
def test_fault_changes_readings_within_its_extent_and_nowhere_else(kind: str) -> None:
    """The same meter with and without a fault differs inside the truth's extent alone, from first to last reading."""
    signal, healthy, fault, at = first_fault(kind)
    changed = np.flatnonzero((signal != healthy).any(axis=1)[: at.stop + DAY // 2])  # the next comes a day later
    early, late = (8, 4) if kind == "clock" else (0, 0)  # a course moved at night is the same; what is on runs on
    assert at.start <= changed[0] <= at.start + early
    assert at.stop - 1 - early <= changed[-1] <= at.stop - 1 + late
    assert fault.kind == kind


def test_stuck_meter_repeats_its_last_reading() -> None:
    """Load and voltage stand still; the thermometer does not."""
    signal, _, _, at = first_fault("stuck")
    assert (signal[at, :2] == signal[at.start - 1, :2]).all()
    assert signal[at, 2].std() > 0.1


def test_spike_reads_more_than_a_fuse_lets_through() -> None:
    """More than 63 A at 230 V, which is 14.5 kW, in a few readings."""
    signal, healthy, _, at = first_fault("spike")
    assert signal[at, 0].min() > 14.5 > healthy[:, 0].max()
    assert 1 <= at.stop - at.start <= 3


def test_drop_out_reads_nothing() -> None:
    """Neither load nor voltage."""
    signal, healthy, _, at = first_fault("drop_out")
    assert not signal[at, :2].any()
    assert healthy[:, 1].min() > 200


def test_bypass_reads_a_constant_part_of_the_load() -> None:
    """Days long, of all that is taken; the voltage still falls by all of it."""
    signal, healthy, fault, at = first_fault("bypass")
    shares = signal[at, 0] / healthy[at, 0]
    assert shares.std() < 1e-9
    assert 0.2 <= shares[0] <= 0.5
    np.testing.assert_array_equal(signal[at, 1:], healthy[at, 1:])
    assert fault.end_ms - fault.start_ms > 2 * 86_400_000


def test_left_on_appliance_raises_the_base_load_day_and_night() -> None:
    """By the same power, and the voltage falls with it."""
    signal, healthy, _, at = first_fault("left_on")
    more_kw = signal[at, 0] - healthy[at, 0]
    assert more_kw.std() < 1e-9
    assert 0.5 <= more_kw[0] <= 1.5
    assert healthy[at, 1] - signal[at, 1] == pytest.approx(FALL_V_PER_KW * more_kw)


def test_clock_that_is_wrong_moves_the_day_hours_ahead() -> None:
    """Over many faulty days the course fits the healthy one best when it is moved back by three to six hours."""
    courses = []
    for seed in range(12):
        signal, _, _, at = first_fault("clock", seed)
        start = at.start + (-at.start) % DAY  # whole days
        courses.append(signal[start : start + 2 * DAY, 0].reshape(2, DAY).mean(axis=0))
    faulty = np.mean(courses, axis=0)
    usual = np.mean(
        [make_meter(seed=seed).advance(28 * DAY)[:, 0].reshape(28, DAY).mean(axis=0) for seed in range(12)], axis=0
    )
    fits = [np.corrcoef(np.roll(faulty, quarters), usual)[0, 1] for quarters in range(-DAY // 2, DAY // 2)]
    assert 3.0 <= (int(np.argmax(fits)) - DAY // 2) / 4 <= 6.0


def test_faults_keep_rate_distance_and_truth() -> None:
    """Each kind about as often as ordered, a day between two, none before it may, listed when its reading is out."""
    rates = dict.fromkeys(DURATIONS_S, 1 / 600)
    meters = [
        Meter(str(seed), seed, START_MS, fault_rates_per_hour=rates, faults_from_s=20 * 86_400.0) for seed in range(8)
    ]
    for meter in meters:
        meter.advance(20 * DAY)
        assert meter.faults == []
        meter.advance(340 * DAY)
        gaps_ms = [
            after.start_ms - before.end_ms for before, after in zip(meter.faults, meter.faults[1:], strict=False)
        ]
        assert min(gaps_ms) >= 86_400_000 - STEP_MS
        assert all(fault.key == meter.key for fault in meter.faults)
    counts = Counter(fault.kind for meter in meters for fault in meter.faults)
    expected = 8 * 340 * 24 / 600
    assert set(counts) == set(DURATIONS_S)
    assert all(abs(count - expected) < 4 * np.sqrt(expected) for count in counts.values()), counts


def test_fault_is_listed_with_its_first_reading_and_whole() -> None:
    """Not before, and its extent is final."""
    reference = make_meter("stuck")
    reference.advance(40 * DAY)
    fault, meter = reference.faults[0], make_meter("stuck")
    meter.advance(reading_of(fault.start_ms))
    assert meter.faults == []
    meter.advance(1)
    assert meter.faults == [fault]


def test_healthy_meter_has_no_fault_and_events_tell_nothing() -> None:
    """No fault unless ordered; an event has key, time and three numbers, faulty or not."""
    assert make_meter().faults == []
    meters = [make_meter("bypass"), make_meter()]
    feed = list(events(meters, frame_samples=1, start_ms=START_MS, duration_s=30 * 86_400.0))
    assert meters[0].faults
    assert meters[1].faults == []
    assert all(set(event) == {"key", "time", "load", "voltage", "temperature"} for event in feed)
    assert all(type(event[name]) is float for event in feed for name in ("load", "voltage", "temperature"))
    with pytest.raises(ValueError, match="unknown faults"):
        make_meter("gremlin")
