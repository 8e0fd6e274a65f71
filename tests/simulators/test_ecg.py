"""The simulated ECG against a maintained beat detector, published norms and recorded hearts."""

from __future__ import annotations

import math
import os
import time
import warnings
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import signal as scipy_signal
from scipy import stats

from simulators.ecg import FAULT_KINDS, EcgSource, ward
from simulators.feed import Fault, events

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # wfdb 4.3 calls pandas in a way that pandas 3 deprecates
    import wfdb
    from wfdb.processing import xqrs_detect

Array = NDArray[np.float64]

START_MS = 1_767_225_600_000
RATE_HZ = 128
HOURS = 5
RATES_PER_HOUR = {"pvc": 30.0, "run": 20.0, "pause": 20.0, "st_shift": 10.0, "lead_off": 20.0, "artefact": 30.0}
DATA = Path(__file__).parents[2] / os.environ.get("STREAMLSTM_DATA", "../shared/data")


def make_ecg(seed: int = 1, **options: Any) -> EcgSource:
    """Build a source with the defaults of these tests."""
    return EcgSource("a", seed, START_MS, **options)


def draw(source: EcgSource, seconds: float) -> Array:
    """Return the next seconds of a source, shape (samples,)."""
    return source.advance(round(seconds * source.sample_rate_hz))[:, 0]


def sample_times_ms(samples: int, rate_hz: float = RATE_HZ) -> Array:
    """Return the UTC ms of the first samples of a feed."""
    return START_MS + np.arange(1, samples + 1, dtype=np.float64) * (1000.0 / rate_hz)


def between(ecg: Array, start_ms: float, end_ms: float) -> Array:
    """Return the part of a 128 Hz feed in [start_ms, end_ms)."""
    first, last = (math.ceil((edge_ms - START_MS) * RATE_HZ / 1000.0) - 1 for edge_ms in (start_ms, end_ms))
    return ecg[first:last]


def quiet_beats_ms(source: EcgSource) -> list[int]:
    """Return 200 beats further than 2 s from any fault."""

    def quiet(beat: int) -> bool:
        return all(beat < fault.start_ms - 2000 or beat > fault.end_ms + 2000 for fault in source.faults)

    return list(islice(filter(quiet, source.beats_ms[2:]), 200))


def width_ms(ecg: Array, rate_hz: float) -> float:
    """Return the time a beat's main wave, in the middle of the cut, stays above half its height."""
    height = np.abs(ecg - np.median(ecg))
    middle = len(height) // 2
    reach = round(0.04 * rate_hz)
    peak = middle - reach + int(np.argmax(height[middle - reach : middle + reach + 1]))
    low = height < height[peak] / 2
    before, after = np.flatnonzero(low[:peak]), np.flatnonzero(low[peak:])
    return float((peak + after[0] - before[-1] - 1) * 1000.0 / rate_hz)


def band_shares(ecg: Array, rate_hz: float) -> Array:
    """Return the shares of the power to 64 Hz in 0-0.5, 0.5-5, 5-15, 15-40 and 40-64 Hz."""
    frequencies, power = scipy_signal.welch(ecg - ecg.mean(), rate_hz, nperseg=round(16 * rate_hz))
    edges = [0.0, 0.5, 5.0, 15.0, 40.0, 64.0]
    bands = [power[(frequencies >= low) & (frequencies < high)].sum() for low, high in pairwise(edges)]
    shares: Array = np.array(bands) / sum(bands)
    return shares


@pytest.fixture(scope="module")
def faulty() -> list[tuple[EcgSource, Array]]:
    """One hour each of five patients with all kinds of faults."""
    patients = ward(HOURS, 7, START_MS, faults_per_hour=RATES_PER_HOUR)
    return [(patient, draw(patient, 3600.0)) for patient in patients]


def faults_of(faulty: list[tuple[EcgSource, Array]], kind: str) -> list[tuple[EcgSource, Array, Fault]]:
    """Return the faults of a kind at least 5 s from the ends of the hour, with their source and signal."""
    first_ms, last_ms = START_MS + 5_000, START_MS + 3_595_000
    found = [
        (source, ecg, fault)
        for source, ecg in faulty
        for fault in source.faults
        if fault.kind == kind and first_ms < fault.start_ms and fault.end_ms < last_ms
    ]
    assert len(found) > 20
    return found


# Normal rhythm


def test_beats_clean_feed_are_found_by_detector() -> None:
    """An independent QRS detector finds more than 95 % of the true beats, and little else."""
    for seed in range(4):
        source = make_ecg(seed)
        ecg = draw(source, 120.0)
        found_ms = sample_times_ms(len(ecg))[xqrs_detect(ecg, RATE_HZ, verbose=False)]
        # Tolerance: half the 150 ms of ANSI/AAMI EC57.
        near = np.abs(found_ms[:, np.newaxis] - np.array(source.beats_ms)) < 75.0
        assert near.any(axis=0).mean() > 0.95  # sensitivity
        assert near.any(axis=1).mean() > 0.95  # precision


def test_beats_clean_feed_lie_on_r_peaks() -> None:
    """The true time of each beat is within a sample of the local maximum of the signal."""
    source = make_ecg()
    ecg = draw(source, 60.0)
    for beat in source.beats_ms[1:-1]:
        around = between(ecg, beat - 100.0, beat + 100.0)
        assert abs(int(np.argmax(around)) - 0.1 * RATE_HZ) <= 1.5


def test_heart_rate_variability_many_patients_matches_published_norms() -> None:
    """Over patients, 5-minute RR, SDNN and RMSSD lie in the ranges of healthy adults at rest.

    Source: Nunan et al., Pacing Clin Electrophysiol 33(11), 2010, ranges of the study means.
    """
    rows = []
    for seed in range(16):
        source = make_ecg(seed)
        draw(source, 300.0)
        rr_ms = np.diff(source.beats_ms)
        rows.append((rr_ms.mean(), rr_ms.std(), np.sqrt((np.diff(rr_ms) ** 2).mean())))
    rr_ms_mean, sdnn_ms, rmssd_ms = np.mean(rows, axis=0)
    assert 785 < rr_ms_mean < 1160
    assert 32 < sdnn_ms < 93
    assert 19 < rmssd_ms < 75
    assert np.std(rows, axis=0)[0] > 30  # patients differ


def test_heart_rate_variability_spectrum_has_mayer_and_respiratory_peaks() -> None:
    """RR varies around 0.1 Hz and around breathing's 0.25 Hz, and less between and above.

    Bands: Task Force of ESC and NASPE, Circulation 93(5), 1996.
    """
    density = []
    for seed in range(8):
        source = make_ecg(seed)
        draw(source, 600.0)
        beats_s = (np.array(source.beats_ms) - START_MS) / 1000.0
        grid_s = np.arange(beats_s[1], beats_s[-1], 0.25)
        rr_s = np.interp(grid_s, beats_s[1:], np.diff(beats_s))
        frequencies, power = scipy_signal.welch(rr_s - rr_s.mean(), 4.0, nperseg=512)
        edges = ((0.08, 0.12), (0.135, 0.165), (0.2, 0.3), (0.4, 0.5))
        density.append([power[(frequencies > low) & (frequencies < high)].mean() for low, high in edges])
    low, gap, high, above = np.mean(density, axis=0)
    assert low > 3 * gap
    assert high > 3 * gap
    assert high > 10 * above


def test_physical_parameters_given_replace_those_drawn() -> None:
    """Heart rate, variability and R height asked for are those of the feed."""
    source = make_ecg(heart_rate_bpm=80.0, sdnn_ms=25.0, r_mv=0.8, baseline_mv=0.0)
    ecg = draw(source, 300.0)
    rr_ms = np.diff(source.beats_ms)
    assert 60_000 / rr_ms.mean() == pytest.approx(80.0, rel=0.03)
    assert rr_ms.std() == pytest.approx(25.0, rel=0.3)
    assert np.percentile(ecg, 99.9) == pytest.approx(0.8, rel=0.2)


def test_spectrum_clean_feed_is_that_of_an_ecg() -> None:
    """Most power lies in 0.5-40 Hz, and the QRS complex is strongest at 5-15 Hz.

    Source of the QRS band: Pan & Tompkins, IEEE Trans Biomed Eng 32(3), 1985.
    """
    for seed in range(4):
        source = make_ecg(seed)
        ecg = draw(source, 120.0)
        assert band_shares(ecg, RATE_HZ)[1:4].sum() > 0.8
        cuts = [between(ecg, beat - 60.0, beat + 60.0)[:15] for beat in source.beats_ms[1:-1]]
        mean_beat = np.mean(cuts, axis=0) * np.hanning(15)
        peak_hz = np.fft.rfftfreq(1024, 1.0 / RATE_HZ)[np.argmax(np.abs(np.fft.rfft(mean_beat, 1024)))]
        assert 5.0 <= peak_hz <= 15.0


def test_t_wave_slower_heart_comes_later() -> None:
    """The T wave's peak follows the square root of the RR interval (Bazett)."""
    peaks_s = []
    for bpm in (50.0, 100.0):
        source = make_ecg(heart_rate_bpm=bpm, sdnn_ms=1.0, baseline_mv=0.0, muscle_mv=0.0)
        ecg = draw(source, 30.0)
        cuts = [between(ecg, beat + 120.0, beat + 420.0)[:38] for beat in source.beats_ms[1:-1]]
        peaks_s.append(0.12 + float(np.argmax(np.mean(cuts, axis=0))) / RATE_HZ)
    assert peaks_s[0] / peaks_s[1] == pytest.approx(np.sqrt(2.0), rel=0.07)


# Seeds and continuation


def test_advance_in_pieces_equals_one_draw() -> None:
    """However the samples are drawn, signal, beats and faults are the same bit for bit."""
    whole = make_ecg(faults_per_hour=RATES_PER_HOUR)
    pieces = make_ecg(faults_per_hour=RATES_PER_HOUR)
    sizes = [0, 1, 8, 100, 100, 1024, 3, 5000, 1025, 37] * 10
    expected = whole.advance(sum(sizes))
    got = np.concatenate([pieces.advance(size) for size in sizes])
    assert got.shape == (sum(sizes), 1)
    assert np.array_equal(got, expected)
    assert pieces.beats_ms == whole.beats_ms
    assert pieces.faults == whole.faults != []


def test_seed_same_gives_same_feed_and_other_another() -> None:
    """The seed alone decides the feed."""
    first, again, other = (draw(make_ecg(seed), 20.0) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert np.corrcoef(first, other)[0, 1] < 0.5


def test_ward_patients_have_own_keys_and_hearts() -> None:
    """Patients are numbered from one and differ; a larger ward begins with the same patients."""
    patients = ward(3, 1, START_MS)
    larger = ward(5, 1, START_MS)
    assert [patient.key for patient in patients] == ["patient-01", "patient-02", "patient-03"]
    assert len({patient.patient.mean_rr_s for patient in larger}) == 5
    assert np.array_equal(draw(patients[2], 5.0), draw(larger[2], 5.0))


# Faults


def test_faults_all_kinds_occur_at_configured_rates(faulty: list[tuple[EcgSource, Array]]) -> None:
    """Each kind comes about as often as ordered, and so does the whole."""
    kinds = [fault.kind for source, _ in faulty for fault in source.faults]
    for kind, per_hour in RATES_PER_HOUR.items():
        expected = per_hour * HOURS
        assert abs(kinds.count(kind) - expected) < 3.5 * np.sqrt(expected)
    assert len(kinds) == pytest.approx(sum(RATES_PER_HOUR.values()) * HOURS, rel=0.1)


def test_faults_ordered_kind_only_occurs_alone() -> None:
    """A kind left out or ordered at rate zero does not occur."""
    source = make_ecg(faults_per_hour={"pvc": 60.0, "run": 0.0})
    draw(source, 900.0)
    assert {fault.kind for fault in source.faults} == {"pvc"}


def test_faults_many_keep_their_distance(faulty: list[tuple[EcgSource, Array]]) -> None:
    """From the end of a fault to the next at least the ten seconds of the default pass."""
    for source, _ in faulty:
        gaps_ms = [after.start_ms - before.end_ms for before, after in pairwise(source.faults)]
        assert min(gaps_ms) >= 9_998  # extents are rounded outwards to whole ms
        assert all(fault.key == source.key and fault.end_ms > fault.start_ms for fault in source.faults)


def test_faults_before_faults_from_s_do_not_occur() -> None:
    """Until the first fault the feed is the clean feed of the same seed, and none starts too soon."""
    for seed in range(5):
        source = make_ecg(seed, faults_per_hour=RATES_PER_HOUR, faults_from_s=60.0)
        ecg, clean = draw(source, 200.0), draw(make_ecg(seed), 200.0)
        first = source.faults[0]
        assert first.start_ms >= START_MS + 60_000
        before = sample_times_ms(len(ecg)) < first.start_ms - 50  # a pause's missing P wave, a PVC's foot
        assert np.allclose(ecg[before], clean[before], atol=1e-3)
        assert not np.allclose(ecg, clean, atol=0.1)


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_fault_first_changed_sample_is_covered_by_truth(kind: str) -> None:
    """A fault is listed when the first sample it changes is returned, and never before it starts."""
    source, clean = make_ecg(5, faults_per_hour={kind: 60.0}), make_ecg(5)
    for frame in range(200 * RATE_HZ // 8):
        changed = np.abs(source.advance(8) - clean.advance(8)).max() > 0.02
        now_ms = START_MS + (frame + 1) * 8 * 1000 / RATE_HZ
        assert all(fault.start_ms <= now_ms for fault in source.faults)
        if changed:
            break
    assert [fault.kind for fault in source.faults] == [kind]
    listed = source.faults[0]
    draw(source, 90.0)
    assert source.faults[0] == listed  # its extent was final


def test_pvc_beats_are_early_wide_and_followed_by_a_compensatory_pause(
    faulty: list[tuple[EcgSource, Array]],
) -> None:
    """A premature beat has the features by which a reader of ECGs knows it."""
    ratios, sums, widths, normal_widths, heights = [], [], [], [], []
    for source, ecg, fault in faults_of(faulty, "pvc"):
        beats = np.array(source.beats_ms)
        inside = np.flatnonzero((beats >= fault.start_ms) & (beats < fault.end_ms))
        assert len(inside) == 1
        i = int(inside[0])
        usual_ms = beats[i - 1] - beats[i - 2]
        ratios.append((beats[i] - beats[i - 1]) / usual_ms)
        sums.append((beats[i + 1] - beats[i - 1]) / usual_ms)
        widths.append(width_ms(between(ecg, beats[i] - 300.0, beats[i] + 300.0), RATE_HZ))
        normal_widths.append(width_ms(between(ecg, beats[i - 1] - 300.0, beats[i - 1] + 300.0), RATE_HZ))
        level = between(ecg, beats[i] + 500.0, beats[i] + 600.0).mean()
        peak = between(ecg, beats[i] - 10.0, beats[i] + 10.0).mean() - level
        t_wave = between(ecg, beats[i] + 200.0, beats[i] + 300.0).mean() - level
        assert peak * t_wave < 0
        heights.append(abs(peak) / source.patient.r_mv)
    assert max(ratios) < 0.85
    assert np.median(sums) == pytest.approx(2.0, abs=0.1)
    assert np.median(widths) > 2 * np.median(normal_widths)
    assert np.median(heights) > 1.2


def test_run_beats_are_four_to_eight_at_ventricular_rate(faulty: list[tuple[EcgSource, Array]]) -> None:
    """A run holds 4 to 8 beats at 140 to 180 per minute."""
    counts = set()
    for source, _, fault in faults_of(faulty, "run"):
        inside = [beat for beat in source.beats_ms if fault.start_ms <= beat < fault.end_ms]
        counts.add(len(inside))
        assert 135 < 60_000 / np.diff(inside).mean() < 187  # jitter of 2 % a beat
    assert counts == {4, 5, 6, 7, 8}


def test_pause_rr_interval_is_two_and_a_half_to_four_seconds(faulty: list[tuple[EcgSource, Array]]) -> None:
    """In a pause no beat comes for 2.5 to 4 s and the signal is nearly still."""
    for source, ecg, fault in faults_of(faulty, "pause"):
        beats = np.array(source.beats_ms)
        i = int(np.searchsorted(beats, fault.end_ms))
        assert 2499 <= beats[i] - beats[i - 1] <= 4001
        assert beats[i - 1] < fault.start_ms
        assert between(ecg, fault.start_ms, fault.end_ms).std() < 0.15


def test_st_shift_segment_moves_by_a_fifth_to_a_third_of_a_millivolt(
    faulty: list[tuple[EcgSource, Array]],
) -> None:
    """Within a shift the ST segment leaves the level before the QRS by 0.2 to 0.35 mV more than elsewhere."""

    def st_mv(ecg: Array, beats: list[int]) -> float:
        st = [between(ecg, beat + 90.0, beat + 140.0).mean() for beat in beats]
        pr = [between(ecg, beat - 85.0, beat - 60.0).mean() for beat in beats]
        return float(np.mean(st) - np.mean(pr))

    signs = set()
    for source, ecg, fault in faults_of(faulty, "st_shift"):
        full = [beat for beat in source.beats_ms if fault.start_ms + 5000 < beat < fault.end_ms - 5000]
        shift_mv = st_mv(ecg, full) - st_mv(ecg, quiet_beats_ms(source))
        assert 0.15 < abs(shift_mv) < 0.42
        assert 20_000 <= fault.end_ms - fault.start_ms <= 60_002
        signs.add(np.sign(shift_mv))
    assert signs == {-1.0, 1.0}


def test_lead_off_signal_is_flat_for_three_to_ten_seconds(faulty: list[tuple[EcgSource, Array]]) -> None:
    """With a lead off the signal lies still at zero or a rail, and only then."""
    levels = set()
    for _, ecg, fault in faults_of(faulty, "lead_off"):
        inside = between(ecg, fault.start_ms + 1, fault.end_ms - 1)
        assert 0.0 < inside.std() < 0.005
        assert between(ecg, fault.start_ms - 2000, fault.start_ms - 1).std() > 0.05
        assert between(ecg, fault.end_ms + 1, fault.end_ms + 2000).std() > 0.05
        assert 3_000 <= fault.end_ms - fault.start_ms <= 10_002
        levels.add(round(float(inside.mean())))
    assert levels == {-5, 0, 5}


def test_artefact_burst_outgrows_the_ecg(faulty: list[tuple[EcgSource, Array]]) -> None:
    """A burst of one to three seconds is larger than the heart's own signal, most of the time much."""
    ratios = []
    for _, ecg, fault in faults_of(faulty, "artefact"):
        before = between(ecg, fault.start_ms - 5000, fault.start_ms)
        ratios.append(between(ecg, fault.start_ms, fault.end_ms).std() / before.std())
        assert 1_000 <= fault.end_ms - fault.start_ms <= 3_002
    assert np.percentile(ratios, 5) > 1.2
    assert np.median(ratios) > 2.0


def test_faults_unknown_kind_is_refused() -> None:
    """A misspelt kind is an error, not a feed without faults."""
    with pytest.raises(ValueError, match="unknown fault kinds"):
        make_ecg(faults_per_hour={"pvcs": 1.0})


def test_faults_rates_too_high_to_fit_are_refused() -> None:
    """Rates that cannot be met without overlap are an error."""
    with pytest.raises(ValueError, match="lower faults_per_hour"):
        make_ecg(faults_per_hour={"st_shift": 80.0})


# Feed


def test_events_with_faults_carry_no_truth() -> None:
    """An event holds key, time and samples and nothing else, whatever happens to the patient."""
    patients = ward(2, 1, START_MS, faults_per_hour=RATES_PER_HOUR)
    stream = list(events(patients, frame_samples=8, start_ms=START_MS, duration_s=120.0))
    assert all(patient.faults and patient.beats_ms for patient in patients)
    assert len(stream) == 2 * 120 * RATE_HZ // 8
    for event in stream:
        assert set(event) == {"key", "time", "ecg"}
        samples = event["ecg"]
        assert isinstance(samples, list)
        assert len(samples) == 8
        assert all(type(value) is float for value in samples)


def test_events_time_of_a_sample_agrees_with_beats() -> None:
    """On the clock of the events each R peak stands where ``beats_ms`` says."""
    patient = make_ecg()
    stream = list(events([patient], frame_samples=1, start_ms=START_MS, duration_s=30.0))
    times = np.array([event["time"] for event in stream], dtype=float)
    ecg = np.array([event["ecg"] for event in stream], dtype=float)
    for beat in patient.beats_ms[1:-1]:
        near = np.abs(times - beat) < 100
        assert abs(times[near][np.argmax(ecg[near])] - beat) <= 8


def test_advance_small_frames_is_far_faster_than_real_time() -> None:
    """Drawn 8 samples at a time, a patient takes less than a 200th of real time."""
    source = make_ecg(faults_per_hour=RATES_PER_HOUR)
    started = time.process_time()
    for _ in range(120 * RATE_HZ // 8):
        source.advance(8)
    assert time.process_time() - started < 120.0 / 200.0


# Recorded hearts


def recorded(path: str) -> Path:
    """Return a path in the data folder, or skip the test."""
    if not (DATA / path).exists():
        pytest.skip(f"no recorded ECG at {DATA / path}; set STREAMLSTM_DATA")
    return DATA / path


def test_signal_against_record_100_is_of_the_same_order() -> None:
    """Spread, R height, peakedness and spectrum are those of MIT-BIH record 100, within a factor or so."""
    folder = recorded("mitdb_100/100.dat").parent
    record = wfdb.rdrecord(str(folder / "100"), sampto=360 * 300, channels=[0])
    real = record.p_signal[:, 0]
    simulated = [draw(make_ecg(seed, sample_rate_hz=360.0), 60.0) for seed in range(6)]

    def features(ecg: Array) -> Array:
        height = np.percentile(ecg, 99.8) - np.median(ecg)
        return np.array([ecg.std(), height, stats.kurtosis(ecg)])

    ratios = np.median([features(ecg) for ecg in simulated], axis=0) / features(real)
    assert np.all(ratios > 1 / 3)
    assert np.all(ratios < 3)
    shares = np.mean([band_shares(ecg, 360.0) for ecg in simulated], axis=0)
    assert np.abs(shares - band_shares(real, 360.0)).sum() < 0.5


def test_pvc_against_records_116_and_119_is_as_wide_and_as_early(
    faulty: list[tuple[EcgSource, Array]],
) -> None:
    """Width relative to normal beats and prematurity are those of recorded premature beats."""
    widening, coupling = [], []
    for number in ("116", "119"):
        with np.load(recorded(f"mitdb_pvc/{number}.npz")) as data:
            ecg, beats, pvc = data["ecg_adu"] / 200.0, data["beats"], data["pvc"]
        places = np.searchsorted(beats, pvc)[10:60]
        normal_ms = [width_ms(ecg[beat - 108 : beat + 108], 360.0) for beat in beats[places - 1]]
        wide_ms = [width_ms(ecg[beat - 108 : beat + 108], 360.0) for beat in beats[places]]
        widening.append(np.median(wide_ms) / np.median(normal_ms))
        early = beats[places] - beats[places - 1]
        coupling.append(np.median(early / (beats[places - 1] - beats[places - 2])))
    ours_widening, ours_coupling = [], []
    for source, ecg, fault in faults_of(faulty, "pvc"):
        times = np.array(source.beats_ms)
        i = int(np.searchsorted(times, fault.start_ms))
        normal, wide = (width_ms(between(ecg, t - 300.0, t + 300.0), RATE_HZ) for t in times[i - 1 : i + 1])
        ours_widening.append(wide / normal)
        ours_coupling.append((times[i] - times[i - 1]) / (times[i - 1] - times[i - 2]))
    assert 0.5 < np.median(ours_widening) / np.mean(widening) < 2.0
    assert np.median(ours_coupling) == pytest.approx(np.mean(coupling), abs=0.1)
