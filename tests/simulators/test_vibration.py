"""The vibration feed: its physics, its faults and its truth, checked against theory and recordings."""

from __future__ import annotations

import os
import time
from collections import Counter
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulators.feed import Fault, Source, events
from simulators.schedule import fault_schedule
from simulators.vibration import (
    DEFAULT_DURATIONS_S,
    DEFAULT_RATES_PER_HOUR,
    IMPACT_G,
    RECOVERY_S,
    Bearing,
    Floats,
    VibrationSource,
    rig,
)

ROOT = Path(__file__).parents[2]
CWRU = ROOT / os.environ.get("STREAMLSTM_DATA", "../shared/data") / "cwru"
RATE_HZ = 12_000
SHAFT_HZ = 29.95
RESONANCE_BAND_HZ = (2_200.0, 3_800.0)
# A slow machine on a slow sensor: 60 times less to compute where only the schedule matters.
SLOW: dict[str, Any] = {"sample_rate_hz": 200.0, "shaft_hz": 5.0, "gear_teeth": 12, "resonance_hz": 60.0}


def make_source(kind: str | None = None, *, seed: int = 3, duration_s: float = 12.0, **options: Any) -> VibrationSource:
    """Return a machine with one kind of fault every minute or so, or with none."""
    rates = {} if kind is None else {kind: 60.0}
    durations_s = {} if kind is None else {kind: duration_s}
    options = {"fault_rates_per_hour": rates, "fault_durations_s": durations_s, **options}
    return VibrationSource("motor-01", seed, 0, **options)


def sample_of(time_ms: int, rate_hz: float = RATE_HZ) -> int:
    """Return the sample a fault's time points at; times mark the end of a sample's interval."""
    return round(time_ms * rate_hz / 1000) - 1


def first_fault(source: VibrationSource, channel: int = 0) -> tuple[Floats, Fault]:
    """Return one channel of a source up to the end of its first fault, and that fault."""
    rate_hz = source.sample_rate_hz
    parts = [source.advance(round(rate_hz))]
    while not source.faults or sum(map(len, parts)) < sample_of(source.faults[0].end_ms, rate_hz):
        parts.append(source.advance(round(rate_hz)))
    return np.concatenate(parts)[:, channel], source.faults[0]


def grown(kind: str, channel: int = 0, **options: Any) -> Floats:
    """Return the last four seconds of a fault of ``kind``, all but its very end."""
    signal, fault = first_fault(make_source(kind, **options), channel)
    end = sample_of(fault.end_ms) - RATE_HZ // 10
    return signal[end - 4 * RATE_HZ : end]


def kurtosis(signal: Floats) -> float:
    """Return the fourth standardised moment: 3 for a Gaussian."""
    centred = signal - signal.mean()
    return float(np.mean(centred**4) / np.mean(centred**2) ** 2)


def line_g(signal: Floats, frequency_hz: float) -> float:
    """Return the largest amplitude within 1 % of a frequency."""
    spectrum = 2 * np.abs(np.fft.rfft(signal * np.hanning(len(signal)))) / (len(signal) / 2)
    frequencies = np.fft.rfftfreq(len(signal), 1 / RATE_HZ)
    return float(spectrum[np.abs(frequencies / frequency_hz - 1) < 0.01].max())


def envelope_line(signal: Floats, per_rev: float) -> float:
    """Return the height of a line of the squared envelope spectrum, in medians of that spectrum.

    Band-pass and Hilbert transform in one: keep the band's positive frequencies alone.
    """
    frequencies = np.fft.fftfreq(len(signal), 1 / RATE_HZ)
    low, high = RESONANCE_BAND_HZ
    analytic = np.fft.ifft(np.where((frequencies > low) & (frequencies < high), np.fft.fft(signal), 0))
    envelope = np.abs(analytic) ** 2
    spectrum = np.abs(np.fft.rfft(envelope - envelope.mean()))
    lines_hz = np.fft.rfftfreq(len(signal), 1 / RATE_HZ)
    floor = np.median(spectrum[(lines_hz > 5) & (lines_hz < 500)])
    near = np.abs(lines_hz - per_rev * SHAFT_HZ) < max(0.01 * per_rev * SHAFT_HZ, 0.5)
    return float(spectrum[near].max() / floor)


def cwru_normal(channel: str) -> Floats:
    """Return CWRU's healthy recording at 12 kHz, without its offset, or skip."""
    path = CWRU / "1797_Normal.npz"
    if not path.exists():
        pytest.skip(f"no CWRU recording at {path}; set STREAMLSTM_DATA to the folder that holds cwru/")
    recording = np.load(path)[channel].astype(np.float64).ravel()
    spectrum = np.fft.rfft(recording - recording.mean())
    return np.fft.irfft(spectrum[: len(recording) // 8 + 1], len(recording) // 4) / 4


def test_bearing_of_the_test_rig_has_the_published_frequencies() -> None:
    """The 6205-2RS turns and is struck as often per revolution as CWRU's table says."""
    bearing = Bearing()
    # CWRU prints FTF as 0.39828, in disagreement with its own BPFO / 9 = 0.39831: hence 5e-5.
    assert bearing.outer_race_per_rev == pytest.approx(3.5848, abs=5e-5)
    assert bearing.inner_race_per_rev == pytest.approx(5.4152, abs=5e-5)
    assert bearing.cage_per_rev == pytest.approx(0.39828, abs=5e-5)
    assert bearing.impacts_per_rev("ball") == pytest.approx(4.7135, abs=5e-5)
    assert bearing.ball_spin_per_rev == pytest.approx(4.7135 / 2, abs=5e-5)


def test_bearing_with_contact_angle_moves_the_races_apart_less() -> None:
    """A contact angle shortens the ball's lever: at 60 degrees it counts half."""
    steep = Bearing(contact_angle_deg=60.0)
    half = Bearing(ball_diameter_mm=7.940 / 2)
    assert steep.outer_race_per_rev == pytest.approx(half.outer_race_per_rev)
    assert steep.inner_race_per_rev == pytest.approx(half.inner_race_per_rev)
    assert steep.outer_race_per_rev + steep.inner_race_per_rev == pytest.approx(steep.balls)


@pytest.mark.parametrize(
    ("kind", "present", "absent"),
    [
        ("outer_race", ["outer_race"], ["inner_race", "ball", "cage"]),
        ("inner_race", ["inner_race"], ["outer_race", "ball", "cage"]),
        # The cage carries the damaged ball through the load.
        ("ball", ["ball", "cage"], ["outer_race", "inner_race"]),
        # 9 and 12 times the cage's frequency are, or nearly are, those of outer race and ball.
        ("cage", ["cage"], ["inner_race"]),
    ],
)
def test_envelope_spectrum_of_a_bearing_fault_shows_its_own_frequency(
    kind: str, present: list[str], absent: list[str]
) -> None:
    """The envelope around the resonance beats where the geometry says, and nowhere else."""
    signal = grown(kind)
    lines = {other: envelope_line(signal, Bearing().impacts_per_rev(other)) for other in IMPACT_G}
    assert all(lines[other] > 10 for other in present), lines
    assert all(lines[other] < 5 for other in absent), lines


def test_envelope_spectrum_of_the_inner_race_has_sidebands_of_the_shaft() -> None:
    """The damaged spot turns through the load with the shaft, so that each line has neighbours 1x away."""
    lines = [envelope_line(grown("inner_race"), Bearing().inner_race_per_rev + side) for side in (-1, 1)]
    outer = [envelope_line(grown("outer_race"), Bearing().outer_race_per_rev + side) for side in (-1, 1)]
    assert min(lines) > 20
    assert max(outer) < 5


def test_envelope_spectrum_of_a_healthy_machine_shows_no_fault_frequency() -> None:
    """Without a fault no bearing frequency stands out of the envelope's noise."""
    signal = make_source().advance(4 * RATE_HZ)[:, 0]
    assert max(envelope_line(signal, Bearing().impacts_per_rev(kind)) for kind in IMPACT_G) < 5


@pytest.mark.parametrize("channel", ["DE", "FE"])
def test_healthy_machine_has_the_rms_and_kurtosis_of_a_real_one(channel: str) -> None:
    """Rms within 15 % and kurtosis within 0.2 of CWRU's Normal at one load.

    The tolerance is the spread of the recordings themselves: the motor's two ends differ by 8 % in rms,
    and half seconds of them range from 2.58 to 2.84 in kurtosis.
    """
    real = cwru_normal(channel)
    feed = make_source(load_changes_per_hour=0.0).advance(10 * RATE_HZ)[:, 0]
    assert feed.std() == pytest.approx(real.std(), rel=0.15)
    assert kurtosis(feed) == pytest.approx(kurtosis(real), abs=0.2)


def test_healthy_machine_under_changing_load_changes_its_mesh_line() -> None:
    """Load changes scale the mesh line well beyond what it varies by under one load."""
    mesh_hz = 48 * SHAFT_HZ
    spread = []
    for changes_per_hour in (0.0, 600.0):
        feed = make_source(load_changes_per_hour=changes_per_hour, speed_wander=0.0).advance(60 * RATE_HZ)
        lines = [line_g(second, mesh_hz) for second in feed[:, 0].reshape(60, RATE_HZ)]
        spread.append(max(lines) / min(lines))
    steady, changing = spread
    assert steady < 1.1
    assert changing > 1.2


def test_healthy_machine_wanders_in_speed_by_a_few_tenths_of_a_percent() -> None:
    """The mesh frequency, found second by second, scatters by 0.1 to 0.5 % around the shaft's speed."""
    feed = make_source().advance(100 * RATE_HZ)[:, 0].reshape(100, RATE_HZ)
    spectra = np.abs(np.fft.rfft(feed * np.hanning(RATE_HZ), axis=1))  # (seconds, 1 Hz lines)
    mesh_hz = 1_400 + spectra[:, 1_400:1_475].argmax(axis=1)
    assert mesh_hz.mean() / 48 == pytest.approx(SHAFT_HZ, rel=0.002)
    assert 0.001 < mesh_hz.std() / mesh_hz.mean() < 0.005


@pytest.mark.parametrize("kind", ["outer_race", "inner_race", "ball", "cage"])
def test_kurtosis_of_a_growing_bearing_fault_rises(kind: str) -> None:
    """A bearing fault starts as Gaussian as a healthy machine and ends impulsive."""
    signal, fault = first_fault(make_source(kind))
    start, end = sample_of(fault.start_ms), sample_of(fault.end_ms)
    assert kurtosis(signal[start : start + RATE_HZ]) < 3.3
    assert kurtosis(signal[end - RATE_HZ : end]) > 4.0


@pytest.mark.parametrize(("kind", "rms_g"), [("outer_race", 1.26), ("inner_race", 0.58), ("ball", 0.147)])
def test_full_grown_bearing_fault_is_as_strong_as_a_real_one(kind: str, rms_g: float) -> None:
    """At its end a fault has the rms of CWRU's 0.007 in fault, within a fifth."""
    signal, fault = first_fault(make_source(kind, duration_s=30.0, load_changes_per_hour=0.0))
    end = sample_of(fault.end_ms) - RATE_HZ // 20
    assert signal[end - RATE_HZ // 4 : end].std() == pytest.approx(rms_g, rel=0.2)


def test_blows_of_the_outer_race_come_at_even_gaps_with_slip() -> None:
    """Taken out of the ringing, also across blocks, blows come one ball apart, give or take one percent."""
    signal, fault = first_fault(make_source("outer_race", speed_wander=0.0))
    healthy = make_source(speed_wander=0.0).advance(len(signal))[:, 0]
    end = sample_of(fault.end_ms)
    ringing = (signal - healthy)[end - 4 * RATE_HZ : end - RATE_HZ // 10]
    # A damped oscillation is predicted by its last two samples; what is not predicted is a blow.
    decay, turn = np.exp(-0.02 * np.pi / 2), np.pi / 2 * np.sqrt(1 - 0.02**2)  # a quarter cycle per sample
    blows = ringing[2:] - 2 * decay * np.cos(turn) * ringing[1:-1] + decay**2 * ringing[:-2]
    gaps = np.diff(np.flatnonzero(np.abs(blows) > 0.02 * np.abs(blows).max()))
    relative = gaps / (RATE_HZ / (Bearing().outer_race_per_rev * SHAFT_HZ))
    assert len(gaps) > 400
    assert relative.mean() == pytest.approx(1.0, abs=0.002)
    assert 0.008 < relative.std() < 0.013
    assert np.abs(relative - 1).max() < 0.06


def test_gain_and_severity_scale_the_signal_and_the_fault() -> None:
    """Gain scales all that is sensed, severity only what the fault adds."""
    signal, _ = first_fault(make_source("outer_race"))
    strong, _ = first_fault(make_source("outer_race", gain=1.5))
    half, _ = first_fault(make_source("outer_race", fault_severity=0.5))
    healthy = make_source().advance(len(signal))[:, 0]
    np.testing.assert_allclose(strong, 1.5 * signal)
    np.testing.assert_allclose(half - healthy, 0.5 * (signal - healthy), atol=1e-12)
    assert np.abs(signal - healthy).max() > 1.0


def test_imbalance_raises_the_line_at_shaft_speed_and_no_other() -> None:
    """The 1x line grows at least tenfold, twice and three times shaft speed stay as they are."""
    healthy = make_source().advance(4 * RATE_HZ)[:, 0]
    signal = grown("imbalance")
    assert line_g(signal, SHAFT_HZ) > 10 * line_g(healthy, SHAFT_HZ)
    assert line_g(signal, 2 * SHAFT_HZ) < 1.5 * line_g(healthy, 2 * SHAFT_HZ)
    assert line_g(signal, 0.5 * SHAFT_HZ) < 0.005


def test_looseness_adds_half_orders_and_harmonics() -> None:
    """Half orders appear and the harmonics of the shaft grow; a healthy machine has no half orders."""
    healthy = make_source().advance(4 * RATE_HZ)[:, 0]
    signal = grown("looseness")
    for order in (0.5, 1.5, 2.5):
        assert line_g(signal, order * SHAFT_HZ) > 3 * line_g(healthy, order * SHAFT_HZ)
    for order in (1, 2):
        assert line_g(signal, order * SHAFT_HZ) > 2 * line_g(healthy, order * SHAFT_HZ)
    assert abs(signal.mean()) < 0.005  # a machine that vibrates does not drift away


def test_drop_out_holds_zero_or_the_last_value_throughout() -> None:
    """Every sample of a drop-out is one constant, across blocks; both kinds of constant occur."""
    levels = []
    slowest = {"sample_rate_hz": 8.0, "shaft_hz": 0.2, "gear_teeth": 12, "resonance_hz": 2.4}
    for seed in range(60):  # at 8 Hz, one start in eight falls on the start of a block
        signal, fault = first_fault(make_source("drop_out", seed=seed, duration_s=3.0, **slowest))
        start, end = sample_of(fault.start_ms, 8.0), sample_of(fault.end_ms, 8.0)
        assert end - start > 16
        assert np.ptp(signal[start:end]) == 0.0
        assert np.ptp(signal[start - 5 : start]) > 0.0
        levels.append("zero" if signal[start] == 0.0 else "last")
        assert signal[start] in (0.0, signal[start - 1])
    assert set(levels) == {"zero", "last"}


def test_saturation_clips_at_the_sensor_range() -> None:
    """A saturated sensor reads its limit, either sign, for a good share of its samples."""
    signal, fault = first_fault(make_source("saturation", duration_s=4.0, range_g=8.0))
    start, end = sample_of(fault.start_ms), sample_of(fault.end_ms)
    during, before = signal[start + 1 : end - 1], signal[: start - 1]
    assert np.abs(before).max() < 1.0
    assert during.max() == 8.0
    assert during.min() == -8.0
    assert np.mean(np.abs(during) == 8.0) > 0.05


@pytest.mark.parametrize("second_channel", [False, True])
def test_advance_in_pieces_equals_advance_at_once_bit_for_bit(second_channel: bool) -> None:
    """However the samples are asked for, within a block or across, with faults or not, they are the same."""
    options: dict[str, Any] = {
        "fault_rates_per_hour": dict.fromkeys(DEFAULT_DURATIONS_S, 60.0),
        "fault_durations_s": dict.fromkeys(DEFAULT_DURATIONS_S, 1.5),
        "second_channel": second_channel,
    }
    whole, pieces = make_source(**options), make_source(**options)
    expected = whole.advance(20 * RATE_HZ)
    sizes = [100, 100, 0, 1, 32, RATE_HZ - 233, 1, 2 * RATE_HZ + 7]
    parts = [pieces.advance(size) for size in [*sizes, 20 * RATE_HZ - sum(sizes)]]
    np.testing.assert_array_equal(np.concatenate(parts), expected, strict=True)
    assert len(whole.faults) >= 2
    assert pieces.faults == whole.faults


def test_same_seed_gives_the_same_feed_and_another_seed_another() -> None:
    """A feed is a function of its seed."""
    one, same, other = (make_source(seed=seed).advance(1000) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.01


@pytest.mark.parametrize("kind", DEFAULT_DURATIONS_S)
def test_fault_changes_the_feed_within_its_extent_and_nowhere_else(kind: str) -> None:
    """The same machine with and without faults differs inside the noted extent alone, near to its ends."""
    faulty, healthy = make_source(kind, duration_s=3.0), make_source()
    signal, fault = first_fault(faulty)
    start, end = sample_of(fault.start_ms), sample_of(fault.end_ms)
    changed = np.flatnonzero(signal != healthy.advance(len(signal))[:, 0])
    changed = changed[changed < end + 2 * RATE_HZ]
    # Times are whole milliseconds, 12 samples; the cage strikes every 84 ms and rings for 18 ms.
    assert start - 12 <= changed[0] < start + 1300
    assert end - 1600 < changed[-1] <= end + 12


def test_faults_are_noted_with_the_return_of_their_first_sample() -> None:
    """A fault is unknown until a sample of it is out, and then stands with its whole extent."""
    reference = make_source("outer_race", **SLOW)
    _, fault = first_fault(reference)
    source = make_source("outer_race", **SLOW)
    source.advance(sample_of(fault.start_ms, 200.0))
    assert source.faults == []
    source.advance(1)
    assert source.faults == [fault]
    assert (fault.key, fault.kind) == ("motor-01", "outer_race")
    assert 9_000 <= fault.end_ms - fault.start_ms <= 15_000


def test_schedule_over_many_hours_keeps_the_rates_and_never_overlaps() -> None:
    """Each kind is as frequent as configured, within 4 standard deviations, though 4/9 of time is faulty."""
    hours, rates = 1_000, {"ball": 4.0, "cage": 1.0, "imbalance": 20.0, "saturation": 0.0}
    durations_s = {"ball": 60.0, "cage": 60.0, "imbalance": 60.0}
    plan = fault_schedule(np.random.default_rng(1), rates, durations_s, 600.0, RECOVERY_S)
    faults = list(takewhile(lambda fault: fault[1] < hours * 3600.0, plan))
    counts = Counter(kind for kind, _, _ in faults)
    for kind, rate in rates.items():
        assert abs(counts[kind] - rate * hours) <= 4 * np.sqrt(rate * hours)
    gaps_s = [after[1] - before[2] for before, after in pairwise(faults)]
    assert min(gaps_s) >= RECOVERY_S * 0.999
    assert faults[0][1] >= 600.0
    assert all(45.0 <= end_s - start_s <= 75.0 for _, start_s, end_s in faults)


def test_feed_over_hours_holds_each_kind_at_its_rate() -> None:
    """All eight kinds occur in a feed about as often as configured: 30 an hour, for two hours."""
    kinds = list(DEFAULT_RATES_PER_HOUR)
    options = {**SLOW, "fault_rates_per_hour": dict.fromkeys(kinds, 30.0)}
    source = make_source(fault_durations_s=dict.fromkeys(kinds, 2.0), **options)
    source.advance(2 * 3600 * 200)
    counts = Counter(fault.kind for fault in source.faults)
    assert set(counts) == set(kinds)
    assert all(abs(count - 60) < 4 * np.sqrt(60) for count in counts.values()), counts


def test_feed_has_no_fault_before_faults_from_s() -> None:
    """The first part of a feed can be kept clean for training; the faults come after it."""
    busy = {**SLOW, "fault_rates_per_hour": {"drop_out": 300.0}}
    clean = make_source(faults_from_s=120.0, **busy)
    clean.advance(120 * 200)
    assert clean.faults == []
    clean.advance(120 * 200)
    assert clean.faults
    assert clean.faults[0].start_ms >= 120_000
    soon = make_source(**busy)
    soon.advance(120 * 200)
    assert soon.faults


def test_events_of_a_faulty_feed_carry_no_truth() -> None:
    """An event holds key, time and finite samples; nothing in it tells a fault."""
    source = make_source("outer_race", second_channel=True, **SLOW)
    feed = list(events([source], frame_samples=50, start_ms=0, duration_s=200.0))
    assert source.faults
    for event in feed:
        assert set(event) == {"key", "time", "acceleration", "acceleration_y"}
        assert event["key"] == "motor-01"
        for channel in ("acceleration", "acceleration_y"):
            values = event[channel]
            assert isinstance(values, list)
            assert len(values) == 50
            assert all(type(value) is float for value in values)


def test_second_channel_sees_the_shaft_a_quarter_turn_later() -> None:
    """Both sensors are radial: the shaft's line reaches them 90 degrees apart."""
    source = make_source(second_channel=True, speed_wander=0.0)
    signal = source.advance(10 * RATE_HZ)
    turn = np.hanning(len(signal)) * np.exp(-2j * np.pi * SHAFT_HZ * np.arange(len(signal)) / RATE_HZ)
    first, second = (signal * turn[:, None]).sum(axis=0)
    assert source.channels == {"acceleration": "g", "acceleration_y": "g"}
    assert np.angle(first / second, deg=True) == pytest.approx(90.0, abs=5.0)


def test_second_channel_feels_the_blows_weaker() -> None:
    """Across the load's direction a bearing fault is clear, but weaker than along it."""
    along, across = (grown("outer_race", channel, second_channel=True).std() for channel in (0, 1))
    assert 0.5 < across / along < 0.7


def test_machine_at_two_kilohertz_shows_its_fault_around_its_lower_resonance() -> None:
    """At the demo's rate the same bearing fault still makes the signal impulsive."""
    source = make_source("outer_race", sample_rate_hz=2_000.0, resonance_hz=600.0, gear_teeth=20)
    signal, fault = first_fault(source)
    end = sample_of(fault.end_ms, 2_000.0)
    assert signal[end - 2_000 : end].std() > 5 * signal[:2_000].std()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_rate_hz": 2_000.0}, "below 1000 Hz"),
        ({"sample_rate_hz": 2_000.0, "resonance_hz": 600.0}, "below 1000 Hz"),
        ({"fault_rates_per_hour": {"gremlin": 1.0}}, "unknown faults .*gremlin"),
        ({"fault_rates_per_hour": {"ball": 60.0}, "fault_durations_s": {"ball": 60.0}}, "every hour"),
    ],
)
def test_machine_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    """A frequency that cannot be sampled, an unknown fault and too many faults stop at once, saying why."""
    with pytest.raises(ValueError, match=message):
        make_source(**options)


def test_rig_makes_alike_but_different_machines() -> None:
    """Machines have their own names, speeds, gains and noise, and come out the same for the same seed."""
    machines: list[VibrationSource] = rig(3, seed=9, start_ms=1_000, fault_rates_per_hour={})
    sources: list[Source] = list(machines)
    assert [source.key for source in sources] == ["motor-01", "motor-02", "motor-03"]
    assert len({machine.shaft_hz for machine in machines}) == 3
    assert all(machine.shaft_hz == pytest.approx(SHAFT_HZ, rel=0.015) for machine in machines)
    assert len({machine.gain for machine in machines}) == 3
    samples = [source.advance(RATE_HZ)[:, 0] for source in sources]
    assert np.abs(np.asarray(np.corrcoef(samples)) - np.eye(3)).max() < 0.5
    again = rig(3, seed=9, start_ms=1_000, fault_rates_per_hour={})
    np.testing.assert_array_equal(again[2].advance(RATE_HZ)[:, 0], samples[2])


def test_advance_in_small_frames_is_far_faster_than_real_time() -> None:
    """At 12 kHz and 32 samples a call, ten seconds take less than half a second: 20 times real time."""
    source = VibrationSource("motor-01", seed=1, start_ms=0)
    begun = time.perf_counter()
    for _ in range(10 * RATE_HZ // 32):
        source.advance(32)
    assert time.perf_counter() - begun < 0.5
