"""One patient's electrocardiogram, lead II, in millivolts: normal rhythm, and faults on order.

A beat is a sum of Gaussians in time about its R peak; the beats follow a sinus rhythm as variable as a
healthy adult's at rest. The signal is made in blocks of fixed length and served from a buffer, so that
a feed depends on its seed alone and never on how many samples are drawn at a time.

Sources. McSharry et al., IEEE Trans Biomed Eng 50(3), 2003. Nunan et al., Pacing Clin Electrophysiol
33(11), 2010. Task Force of ESC and NASPE, Circulation 93(5), 1996. Records 100, 116, 119: measured in
the MIT-BIH Arrhythmia Database, Moody & Mark, IEEE Eng Med Biol 20(3), 2001. Chosen: no source.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.feed import Fault

Array = NDArray[np.float64]

# Columns: amplitude (R = 1), centre (s after the R peak), width (standard deviation, s), at RR = 1 s.
# McSharry's Table I (angle theta, strength a, width b) integrates to Gaussians (a*b^2, theta/2pi, b/2pi):
#   P (.25, -.167, .040), Q (-.17, -.042, .016), R (1, 0, .016), S (-.25, .042, .016), T (.40, .25, .064).
# Changed: QRS times 0.65, so that it lasts 95 ms (normal: to 110 ms, Surawicz et al., Circulation 119(10),
# 2009) and R is 24 ms wide at half height (record 100: 19 ms); P halved and narrower (record 100: 0.1 mV);
# T lower and in two parts, slow rise and fast fall; ST segment added.
SINUS_WAVES = np.array(
    [
        (0.13, -0.167, 0.026),  # P
        (-0.17, -0.027, 0.0104),  # Q
        (1.00, 0.000, 0.0104),  # R
        (-0.25, 0.027, 0.0104),  # S
        (0.00, 0.090, 0.045),  # ST segment, first half: zero unless shifted
        (0.00, 0.170, 0.045),  # ST segment, second half
        (0.17, 0.215, 0.060),  # T, rise
        (0.20, 0.265, 0.038),  # T, fall
    ]
)
# A ventricular beat, after the mean ones of 116 and 119: QRS of 160 ms, notch, opposite ST, opposite T.
VENTRICULAR_WAVES = np.array([(1.0, 0.0, 0.028), (0.45, 0.048, 0.025), (-0.22, 0.16, 0.06), (-0.42, 0.26, 0.05)])
SINUS_QT_ROWS, VENTRICULAR_QT_ROWS = slice(4, 8), slice(2, 4)  # grow with sqrt(RR): Bazett, Heart 7, 1920
ST_ROWS, ST_PLATEAU = slice(4, 6), 0.77  # at this amplitude their sum is a plateau of about 1
P_ONSET_S, VENTRICULAR_ONSET_S = 0.25, 0.09  # before the R peak: centre of the first wave less three widths
BEAT_REACH_S, BLOCK_S = 0.9, 8.0  # no wave of a beat reaches further from its R peak; length of a block
# Shares of RR's variance. Nunan: low frequencies 519 ms^2, high 657 ms^2, all (50 ms)^2; the rest is slow.
RR_SHARES = np.array([519.0, 657.0, 2500.0 - 519.0 - 657.0]) / 2500.0
LF_HZ, RESPIRATION_HZ, BAND_SD_HZ = 0.1, 0.25, 0.01  # McSharry
SLOW_TIME_CONSTANT_S = 30.0  # a corner within the very-low-frequency band, 0.003-0.04 Hz: Task Force
RR_LIMITS_S = (0.4, 1.8)  # keeps waves of neighbours apart; four standard deviations away or more by default
WANDER_HZ = (0.02, 0.4)  # chosen: below a monitor's usual high-pass of 0.5 Hz
RESPIRATION_GAIN, BEAT_GAIN_SD = 0.05, 0.02  # chosen: share by which a beat's size varies
PAUSE_S = (2.5, 4.0)  # R to R; over 3 s is of clinical weight: Kusumoto et al., Circulation 140(8), 2019
RUN_BEATS, RUN_BPM = (4, 8), (140.0, 180.0)
SINUS_BLOCK = 0.7  # share of RR after a ventricular beat during which no sinus beat passes; chosen
RAIL_MV, LEAD_OFF_NOISE_MV = 5.0, 0.002  # input range of the MIT-BIH recorders; below their 5 uV step
ST_RAMP_S, ARTEFACT_HZ = 5.0, (1.0, 10.0)  # chosen; motion's band: Moody et al., Comput Cardiol 11, 1984
# Duration and level of the faults that leave the rhythm alone: chosen. An ST shift counts from 0.1-0.2 mV
# (Thygesen et al., Circulation 138(20), 2018). Level of an artefact: root mean square at its height.
DURATION_S = {"st_shift": (20.0, 60.0), "lead_off": (3.0, 10.0), "artefact": (1.0, 3.0)}
LEVEL_MV = {"st_shift": (0.2, 0.35), "lead_off": (RAIL_MV, RAIL_MV), "artefact": (0.7, 1.5)}
# Mean time from when a fault falls due to its end, measured (over 2000 of each); with it the rates come true.
TAKEN_S = {"pvc": 2.1, "run": 3.8, "pause": 3.5, "st_shift": 41.0, "lead_off": 7.4, "artefact": 2.9}
FAULT_KINDS = tuple(TAKEN_S)


class Oscillation:
    """A smooth random signal, mean 0, variance 1: sinusoids (Shinozuka & Jan, J Sound Vib 25(1), 1972)."""

    def __init__(self, rng: np.random.Generator, frequencies_hz: Array) -> None:
        """Draw the phases."""
        self._radians_per_s = 2.0 * math.pi * frequencies_hz
        self._phases_rad = rng.uniform(0.0, 2.0 * math.pi, len(frequencies_hz))

    def at(self, times_s: Array | float) -> Array:
        """Return the signal at these times (s), in the same shape."""
        waves = np.cos(np.multiply.outer(times_s, self._radians_per_s) + self._phases_rad)
        return np.asarray(waves.sum(axis=-1) * math.sqrt(2.0 / waves.shape[-1]))


@dataclass(frozen=True)
class Patient:
    """What stays the same in one patient."""

    mean_rr_s: float
    sdnn_s: float
    r_mv: float
    sinus: Array  # waves, as in SINUS_WAVES
    ventricular: Array
    coupling: float  # interval from a sinus beat to a premature one, as a share of the sinus interval
    low_frequency: Oscillation
    respiration: Oscillation
    wander: Oscillation


@dataclass(frozen=True)
class Disturbance:
    """A fault that leaves the rhythm alone, between two times (s); ``motion`` is an artefact's course."""

    kind: str
    start_s: float
    end_s: float
    level_mv: float
    motion: Oscillation


def draw_patient(rng: np.random.Generator) -> Patient:
    """Return a random healthy adult at rest.

    RR and SDNN: mean, standard deviation and range in Nunan. Coupling: records 119 (0.57) and 116
    (0.66). R about record 100's 1.2 mV; spread of amplitudes, times, widths and breathing: chosen.
    """
    sinus, ventricular = (
        waves * np.clip(rng.normal(1.0, (0.15, 0.03, 0.05), waves.shape), 0.7, 1.3)
        for waves in (SINUS_WAVES, VENTRICULAR_WAVES)
    )
    ventricular[:, 0] *= rng.uniform(1.3, 1.8) * rng.choice([1.0, 1.0, -1.0])
    breathing_hz = np.clip(rng.normal(RESPIRATION_HZ, 0.03), 0.18, 0.35)
    return Patient(
        mean_rr_s=float(np.clip(rng.normal(0.926, 0.090), 0.785, 1.160)),
        sdnn_s=float(np.clip(rng.normal(0.050, 0.016), 0.032, 0.093)),
        r_mv=float(np.clip(1.2 * np.exp(rng.normal(0.0, 0.2)), 0.7, 2.0)),
        sinus=sinus,
        ventricular=ventricular,
        coupling=rng.uniform(0.57, 0.66),
        low_frequency=Oscillation(rng, rng.normal(LF_HZ, BAND_SD_HZ, 12)),
        respiration=Oscillation(rng, rng.normal(breathing_hz, BAND_SD_HZ, 12)),
        wander=Oscillation(rng, rng.uniform(*WANDER_HZ, 12)),
    )


class EcgSource:
    """The ECG of one patient: a :class:`simulators.feed.Source` of one channel, ``ecg`` in mV.

    ``seed`` decides all that happens; patient, noise and rhythm up to the first fault do not depend on
    the faults ordered. ``heart_rate_bpm`` (40 to 130), ``sdnn_ms`` and ``r_mv`` replace what it drew.
    ``baseline_mv`` and ``muscle_mv`` are root mean squares (record 100: 0.05 and 0.0055).

    ``faults_per_hour`` maps kinds of ``FAULT_KINDS`` to mean rates. Faults never overlap: from the end
    of one to the next pass ``min_distance_s`` and an exponential time; none starts before
    ``faults_from_s``. Raises ``ValueError`` for an unknown kind or rates too high to fit.

    ``beats_ms`` holds the R peaks returned so far (UTC ms), ventricular or hidden by a fault included.
    A "pvc" or "run" lasts from the onset of its first wide QRS, a "pause" from the onset of the P wave
    that does not come, each to the P onset of the next sinus beat.

    **Trap**: sample ``i`` belongs to the time ``start_ms + 1000 * (i + 1) / sample_rate_hz``, as in
    :func:`simulators.feed.events`, and all truth is on that clock.
    """

    def __init__(
        self,
        key: str,
        seed: int,
        start_ms: int,
        *,
        sample_rate_hz: float = 128.0,
        heart_rate_bpm: float | None = None,
        sdnn_ms: float | None = None,
        r_mv: float | None = None,
        baseline_mv: float = 0.05,
        muscle_mv: float = 0.008,
        mains_mv: float = 0.002,
        mains_hz: float = 50.0,
        faults_per_hour: Mapping[str, float] | None = None,
        faults_from_s: float = 0.0,
        min_distance_s: float = 10.0,
    ) -> None:
        """Draw the patient; the signal is made on demand."""
        self.key, self.start_ms, self.sample_rate_hz = key, start_ms, sample_rate_hz
        self.channels = {"ecg": "mV"}
        self.faults: list[Fault] = []
        self.beats_ms: list[int] = []
        patient_rng, self._rhythm_rng, self._fault_rng, self._noise_rng = np.random.default_rng(seed).spawn(4)
        drawn = draw_patient(patient_rng)
        rr_s = drawn.mean_rr_s if heart_rate_bpm is None else 60.0 / heart_rate_bpm
        sdnn_s = drawn.sdnn_s if sdnn_ms is None else sdnn_ms / 1000.0
        r_mv = drawn.r_mv if r_mv is None else r_mv
        self.patient = replace(drawn, mean_rr_s=rr_s, sdnn_s=sdnn_s, r_mv=r_mv)
        self._noise = (baseline_mv, muscle_mv, mains_mv, mains_hz)
        self._rates_per_s = {kind: rate / 3600.0 for kind, rate in (faults_per_hour or {}).items() if rate}
        self._min_distance_s = min_distance_s
        self._spare_s = _spare_s(self._rates_per_s, min_distance_s)
        self._blocks = self._served = 0
        self._ready: Array = np.empty(0)
        self._white: Array = np.zeros(2)
        self._slow = float(self._rhythm_rng.normal())
        self._sinus_s = -2.0 + self._rhythm_rng.uniform()  # a beat before the feed begins
        self._beats: list[tuple[float, Array]] = []  # R time (s), waves (mV, s, s)
        self._disturbances: list[Disturbance] = []
        self._coming_beats_ms: deque[int] = deque()
        self._coming_faults: deque[Fault] = deque()
        self._order_fault(faults_from_s)

    def advance(self, samples: int) -> Array:
        """Return the next samples in mV, shape (samples, 1); note their beats and faults."""
        parts, ready = [self._ready], len(self._ready)
        while ready < samples:
            parts.append(self._next_block())
            ready += len(parts[-1])
        signal = np.concatenate(parts) if len(parts) > 1 else parts[0]
        self._ready = signal[samples:]
        self._served += samples
        now_ms = self.start_ms + 1000.0 * self._served / self.sample_rate_hz
        while self._coming_beats_ms and self._coming_beats_ms[0] <= now_ms:
            self.beats_ms.append(self._coming_beats_ms.popleft())
        while self._coming_faults and self._coming_faults[0].start_ms <= now_ms:
            self.faults.append(self._coming_faults.popleft())
        return signal[:samples, np.newaxis]

    def _next_block(self) -> Array:
        size = round(BLOCK_S * self.sample_rate_hz)
        times_s = (np.arange(size) + self._blocks * size + 1) / self.sample_rate_hz
        end_s = float(times_s[-1])
        self._blocks += 1
        while self._sinus_s < end_s:  # whatever is planned later begins after the last sinus beat
            self._plan_sinus_beat()
        signal = self._background(times_s)
        for r_s, waves in self._beats:
            first, last = np.searchsorted(times_s, (r_s - BEAT_REACH_S, r_s + BEAT_REACH_S))
            offsets = (times_s[first:last, np.newaxis] - r_s - waves[:, 1]) / waves[:, 2]  # (samples, waves)
            signal[first:last] += np.exp(-0.5 * offsets * offsets) @ waves[:, 0]
        self._disturb(times_s, signal)
        self._beats = [beat for beat in self._beats if beat[0] + BEAT_REACH_S > end_s]
        self._disturbances = [fault for fault in self._disturbances if fault.end_s > end_s]
        return np.clip(signal, -RAIL_MV, RAIL_MV)

    def _background(self, times_s: Array) -> Array:
        baseline_mv, muscle_mv, mains_mv, mains_hz = self._noise
        # White noise less itself two samples ago: none at the ends of the band, most at 32 Hz of 128.
        self._white = np.concatenate([self._white[-2:], self._noise_rng.normal(size=len(times_s))])
        muscle = (self._white[2:] - self._white[:-2]) / math.sqrt(2.0)
        wander = 0.8 * self.patient.wander.at(times_s) + 0.6 * self.patient.respiration.at(times_s)
        hum = np.sin(2.0 * math.pi * mains_hz * times_s)
        return np.asarray(baseline_mv * wander + muscle_mv * muscle + mains_mv * hum)

    def _plan_sinus_beat(self) -> None:
        last_s, rr_s = self._sinus_s, self._draw_rr_s()
        self._sinus_s += rr_s
        if self._due_s <= last_s:
            self._inject(last_s, rr_s)
        waves = self.patient.sinus.copy()
        waves[SINUS_QT_ROWS, 1:] *= math.sqrt(rr_s)
        waves[:, 0] *= self.patient.r_mv
        for fault in self._disturbances:
            if fault.kind == "st_shift":
                edge_s = min(self._sinus_s - fault.start_s, fault.end_s - self._sinus_s)
                waves[ST_ROWS, 0] += ST_PLATEAU * fault.level_mv * min(max(edge_s / ST_RAMP_S, 0.0), 1.0)
        self._add_beat(self._sinus_s, waves)

    def _draw_rr_s(self) -> float:
        patient = self.patient
        keep = math.exp(-patient.mean_rr_s / SLOW_TIME_CONSTANT_S)
        self._slow = keep * self._slow + math.sqrt(1.0 - keep * keep) * float(self._rhythm_rng.normal())
        low, breathing = patient.low_frequency.at(self._sinus_s), patient.respiration.at(self._sinus_s)
        change = np.sqrt(RR_SHARES) @ (low, breathing, self._slow)
        return float(np.clip(patient.mean_rr_s + patient.sdnn_s * change, *RR_LIMITS_S))

    def _add_beat(self, r_s: float, waves: Array) -> None:
        breathing = float(self.patient.respiration.at(r_s))
        waves[:, 0] *= 1.0 + RESPIRATION_GAIN * breathing + BEAT_GAIN_SD * float(self._rhythm_rng.normal())
        self._beats.append((r_s, waves))
        if r_s > 0.0:
            self._coming_beats_ms.append(self.start_ms + round(1000.0 * r_s))

    def _order_fault(self, after_s: float) -> None:
        kinds, rates = list(self._rates_per_s), np.array(list(self._rates_per_s.values()))
        self._due_s = after_s + self._fault_rng.exponential(self._spare_s)
        self._due_kind = str(self._fault_rng.choice(kinds, p=rates / rates.sum())) if kinds else ""

    def _inject(self, last_s: float, rr_s: float) -> None:
        """Start the fault that is due after the sinus beat at ``last_s``."""
        kind, rng = self._due_kind, self._fault_rng
        if kind in DURATION_S:
            start_s = last_s + rr_s * rng.uniform()
            end_s = start_s + rng.uniform(*DURATION_S[kind])
            signs = (-1, 0, 1) if kind == "lead_off" else (-1, 1)
            level_mv = rng.choice(signs) * rng.uniform(*LEVEL_MV[kind])
            motion = Oscillation(rng, rng.uniform(*ARTEFACT_HZ, 12))
            self._disturbances.append(Disturbance(kind, start_s, end_s, level_mv, motion))
        elif kind == "pause":
            start_s = self._sinus_s - P_ONSET_S
            self._sinus_s = last_s + rng.uniform(*PAUSE_S)
            end_s = self._sinus_s - P_ONSET_S
        else:
            beats = 1 if kind == "pvc" else int(rng.integers(RUN_BEATS[0], RUN_BEATS[1] + 1))
            start_s = self._add_ventricular_beats(beats, last_s, rr_s)
            end_s = self._sinus_s - P_ONSET_S
        start_ms, end_ms = math.floor(1000.0 * start_s), math.ceil(1000.0 * end_s)
        self._coming_faults.append(Fault(self.key, kind, self.start_ms + start_ms, self.start_ms + end_ms))
        self._order_fault(end_s + self._min_distance_s)

    def _add_ventricular_beats(self, beats: int, last_s: float, rr_s: float) -> float:
        # The sinus node goes on undisturbed, but its beats are blocked for SINUS_BLOCK of an interval after
        # a ventricular one: hence the full compensatory pause.
        interval_s = rr_s if beats == 1 else 60.0 / self._fault_rng.uniform(*RUN_BPM)
        r_s = last_s + rr_s * (self.patient.coupling + self._fault_rng.normal(0.0, 0.01))
        onset_s = r_s - VENTRICULAR_ONSET_S
        for beat in range(beats):
            r_s += interval_s * self._fault_rng.normal(1.0, 0.02) if beat else 0.0
            waves = self.patient.ventricular.copy()
            waves[VENTRICULAR_QT_ROWS, 1:] *= math.sqrt(interval_s)
            waves[:, 0] *= self.patient.r_mv
            self._add_beat(r_s, waves)
        while self._sinus_s < r_s + SINUS_BLOCK * rr_s:
            self._sinus_s += self._draw_rr_s()
        return onset_s

    def _disturb(self, times_s: Array, signal: Array) -> None:
        for fault in self._disturbances:
            first, last = np.searchsorted(times_s, (fault.start_s, fault.end_s))
            if fault.kind == "lead_off":
                signal[first:last] = fault.level_mv + LEAD_OFF_NOISE_MV * self._white[2 + first : 2 + last]
            elif fault.kind == "artefact":
                inside_s = times_s[first:last]
                phase_rad = math.pi * (inside_s - fault.start_s) / (fault.end_s - fault.start_s)
                signal[first:last] += fault.level_mv * np.sin(phase_rad) ** 2 * fault.motion.at(inside_s)


def _spare_s(rates_per_s: Mapping[str, float], min_distance_s: float) -> float:
    """Return the mean of the random part of the time between faults (s) that meets the rates."""
    unknown = sorted(set(rates_per_s) - set(FAULT_KINDS))
    if unknown:
        raise ValueError(f"unknown fault kinds {unknown}; known are {list(FAULT_KINDS)}")
    taken = sum(rate * (TAKEN_S[kind] + min_distance_s) for kind, rate in rates_per_s.items())
    if taken >= 1.0:
        raise ValueError(f"faults would take {taken:.0%} of the time, lower faults_per_hour")
    return (1.0 - taken) / sum(rates_per_s.values()) if rates_per_s else math.inf


def ward(keys: int, seed: int, start_ms: int, **options: Any) -> list[EcgSource]:
    """Return patients "patient-01" to "patient-<keys>", each with a seed of its own.

    ``options`` go to every :class:`EcgSource`. To stream them, with an event per patient each 1/16 s::

        patients = ward(3, seed=1, start_ms=start_ms, faults_per_hour={"pvc": 20.0, "lead_off": 2.0})
        for event in events(patients, frame_samples=8, start_ms=start_ms, duration_s=600.0):
            ...  # {"key": "patient-01", "time": 1767225600062, "ecg": [0.012, ...]}
        truth = [fault for patient in patients for fault in patient.faults]
    """
    seeds = [int(np.random.SeedSequence([seed, n]).generate_state(1)[0]) for n in range(keys)]
    return [EcgSource(f"patient-{n:02d}", own, start_ms, **options) for n, own in enumerate(seeds, 1)]
