"""Vibration of rotating machines: an accelerometer on a motor's bearing housing, with faults that grow.

The healthy signal is shaft harmonics, gear mesh with sidebands, rolling noise that makes the housing
ring, and white noise. A damaged bearing adds blows at the frequencies its geometry dictates, each of
which rings the housing's resonance. A constant marked "chosen" has no source but plausibility;
"measured" means on *CWRU*: Case Western Reserve University Bearing Data Center, motor at 1797 rpm
without load, drive end, "Normal" and 0.007 in faults. Other sources:

- Randall & Antoni 2011: Rolling element bearing diagnostics, a tutorial, MSSP 25(2), 485-520.
- McFadden & Smith 1984: Model for the vibration produced by a single point defect ..., JSV 96(1), 69-82.
- Antoni & Randall 2003: A stochastic model for simulation and diagnostics ..., J. Vib. Acoust. 125(3).
- ISO 10816-1:1995, annex B: limits of velocity for small machines (class I, up to 15 kW).
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field, replace
from math import cos, inf, radians
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.feed import Fault
from simulators.schedule import ByKind, check_faults, fault_schedule

Floats = NDArray[np.float64]

# Height of a full-grown fault's blows; measured, but the cage, which CWRU has not: as the ball, chosen.
IMPACT_G: ByKind = {"outer_race": 5.0, "inner_race": 2.5, "ball": 0.5, "cage": 0.5}
# 9 mm/s rms at 30 Hz: twice the boundary of zone D, "damage", in ISO 10816-1.
SHAFT_FAULT_G: ByKind = {"imbalance": 0.25, "looseness": 0.25}
# A real fault grows over weeks; here in a minute, so that a demo can show it. All chosen.
SENSOR_FAULTS_S: ByKind = {"drop_out": 3.0, "saturation": 5.0}
DEFAULT_DURATIONS_S: ByKind = {**dict.fromkeys([*IMPACT_G, *SHAFT_FAULT_G], 60.0), **SENSOR_FAULTS_S}
DEFAULT_RATES_PER_HOUR: ByKind = dict.fromkeys(DEFAULT_DURATIONS_S, 0.5)
RECOVERY_S = 5.0  # healthy time between two faults, so that they can be told apart
FIRST_SEVERITY = 0.02  # share of its full size at which a fault begins, hidden in the noise

SLIP = 0.01  # Randall & Antoni 2011: 1-2 %; measured: gaps between outer-race blows scatter by 0.9 %
ROLLING_NOISE_G = 0.012  # rms around the resonance; measured: 0.017 in 2.5-3.8 kHz, less the white noise
MESH_MODULATION = 0.5  # sidebands of 1/4; measured: 0.3 below the line at 48 orders, 0.1 above
SHAFT_LINES_G = (0.010, 0.005, 0.003)  # 1x is 0.4 mm/s rms: zone A, "as new", of ISO 10816-1
LOAD_RANGE = (0.7, 1.3)  # relative to nominal; chosen
LOAD_MEMORY_S, SPEED_MEMORY_S = 5.0, 10.0  # time constants of following a load and of speed; chosen
SATURATION_GAIN = 100.0  # a conditioner left on the top step of x1, x10, x100
SECOND_CHANNEL_IMPACT = 0.6  # share of a blow that is felt across the load's direction; chosen
BLOCK_S = 1.0  # generated at once


@dataclass(frozen=True)
class Bearing:
    """A rolling bearing with a fixed outer ring, by default the 6205-2RS JEM SKF of CWRU's drive end.

    Frequencies are per shaft revolution (multiply by the shaft's speed in Hz), without slip.
    Source: Randall & Antoni 2011, section 2; CWRU gives 9 balls of 0.3126 in on a pitch of 1.537 in.
    """

    balls: int = 9
    ball_diameter_mm: float = 7.940
    pitch_diameter_mm: float = 39.040
    contact_angle_deg: float = 0.0

    @property
    def _ratio(self) -> float:
        return self.ball_diameter_mm / self.pitch_diameter_mm * cos(radians(self.contact_angle_deg))

    @property
    def cage_per_rev(self) -> float:
        """Turns of the cage per shaft revolution (FTF)."""
        return (1 - self._ratio) / 2

    @property
    def outer_race_per_rev(self) -> float:
        """Balls that pass a point of the outer race per shaft revolution (BPFO)."""
        return self.balls * (1 - self._ratio) / 2

    @property
    def inner_race_per_rev(self) -> float:
        """Balls that pass a point of the inner race per shaft revolution (BPFI)."""
        return self.balls * (1 + self._ratio) / 2

    @property
    def ball_spin_per_rev(self) -> float:
        """Turns of a ball about its own axis per shaft revolution (BSF); it strikes twice in each."""
        return self.pitch_diameter_mm / self.ball_diameter_mm * (1 - self._ratio**2) / 2

    def impacts_per_rev(self, kind: str) -> float:
        """Return the blows per shaft revolution of a fault of ``kind``, one of :data:`IMPACT_G`."""
        return 2 * self.ball_spin_per_rev if kind == "ball" else float(getattr(self, f"{kind}_per_rev"))


@dataclass
class _Episode:
    """A fault under way, from sample ``start`` to ``end`` (exclusive), and what it must remember."""

    kind: str
    start: int
    end: int
    next_impact_rev: float | None = None
    level_g: Floats | None = None

    def severity(self, sample: NDArray[np.int64]) -> Floats:
        """Return how far the fault has grown: exponentially, from FIRST_SEVERITY to 1."""
        return np.asarray(FIRST_SEVERITY ** ((self.end - sample) / (self.end - self.start)))


@dataclass(eq=False)
class VibrationSource:
    """One machine's accelerometer; satisfies :class:`simulators.feed.Source`.

    Outside faults the samples depend on ``seed`` and the machine alone, not on the faults asked for.
    Raises ``ValueError`` for a resonance or gear mesh above half the sample rate (at 2 kHz,
    ``resonance_hz=600.0, gear_teeth=20`` will do), an unknown fault, or more faults than an hour holds.

    **Trap**: faults begin hidden in the noise; no detector can see the first part of one.

    >>> VibrationSource("motor-01", seed=1, start_ms=0).advance(32).shape
    (32, 1)
    """

    key: str
    seed: int
    start_ms: int  # UTC
    sample_rate_hz: float = 12_000.0
    _: KW_ONLY
    bearing: Bearing = Bearing()
    shaft_hz: float = 29.95  # mean speed
    speed_wander: float = 0.002  # standard deviation as a share; CWRU's motor slows by 0.037 under load
    gear_teeth: int = 48  # the order of CWRU's line at 1437 Hz
    mesh_g: float = 0.066  # with the noise, gives CWRU's rms and kurtosis, 0.070 g and 2.79
    noise_g: float = 0.045  # white, rms; measured: 0.028 of floor, 0.035 of all else below 1.5 kHz
    resonance_hz: float = 3_000.0  # of the housing; measured: it rings at 2.4-4.1 kHz
    damping_ratio: float = 0.02  # measured: about 0.03; 0.02 gives CWRU's kurtosis (6.7, outer race)
    range_g: float = 10.0  # the sensor's limit, either sign, as of an ADXL356
    gain: float = 1.0  # scales the signal before that limit
    load_changes_per_hour: float = 60.0  # each to a level within LOAD_RANGE; chosen
    fault_rates_per_hour: ByKind = field(default_factory=lambda: DEFAULT_RATES_PER_HOUR)
    fault_durations_s: ByKind = field(default_factory=dict)  # over DEFAULT_DURATIONS_S
    fault_severity: float = 1.0  # scales full-grown faults of bearing and shaft
    faults_from_s: float = 0.0  # none begins before
    second_channel: bool = False  # adds "acceleration_y", a radial sensor a quarter turn on

    def __post_init__(self) -> None:
        """Set the machine to its start; nothing is generated before the first :meth:`advance`."""
        durations_s = {**DEFAULT_DURATIONS_S, **self.fault_durations_s}
        self._check(durations_s)
        self.channels = {"acceleration": "g"} | ({"acceleration_y": "g"} if self.second_channel else {})
        self.faults: list[Fault] = []
        streams = np.random.SeedSequence(self.seed).spawn(3)
        self._machine_rng, self._fault_rng, plan_rng = map(np.random.default_rng, streams)
        self._plan = fault_schedule(plan_rng, self.fault_rates_per_hour, durations_s, self.faults_from_s, RECOVERY_S)
        self._upcoming = next(self._plan, ("none", inf, inf))
        self._episodes: list[_Episode] = []  # begun, not ended
        self._unnoted: list[tuple[int, Fault]] = []  # first sample generated but not yet returned
        self._block_samples = max(1, round(BLOCK_S * self.sample_rate_hz))
        self._block = np.zeros((1, len(self.channels)))
        self._cursor, self._returned, self._generated = 1, 0, 0  # samples of the block; since the start
        ring = _ringing(self.sample_rate_hz, self.resonance_hz, self.damping_ratio)
        self._ring = ring[: self._block_samples]
        self._tail = np.zeros((len(self._ring) - 1, len(self.channels)))  # ringing beyond the block
        self._angle_rev = self._wander = 0.0
        self._load = self._load_target = 1.0

    def _check(self, durations_s: ByKind) -> None:
        if max(self.resonance_hz, (self.gear_teeth + 1) * self.shaft_hz) >= self.sample_rate_hz / 2:
            half_hz = self.sample_rate_hz / 2
            raise ValueError(f"resonance and gear mesh must lie below {half_hz:g} Hz, half the sample rate")
        check_faults(self.fault_rates_per_hour, durations_s, DEFAULT_DURATIONS_S, RECOVERY_S)

    def advance(self, samples: int) -> Floats:
        """Return the next ``samples`` samples in g, shape (samples, channels), and note their faults."""
        out = np.empty((samples, len(self.channels)))
        filled = 0
        while filled < samples:
            if self._cursor == len(self._block):
                self._block, self._cursor = self._next_block(), 0
            take = min(samples - filled, len(self._block) - self._cursor)
            out[filled : filled + take] = self._block[self._cursor : self._cursor + take]
            self._cursor += take
            filled += take
        self._returned += samples
        while self._unnoted and self._unnoted[0][0] < self._returned:
            self.faults.append(self._unnoted.pop(0)[1])
        return out

    def _time_ms(self, sample: int) -> int:
        """Return the time of a sample as the feed stamps it: the end of its interval."""
        return self.start_ms + round((sample + 1) * 1000.0 / self.sample_rate_hz)

    def _next_block(self) -> Floats:
        first = self._generated
        self._generated += self._block_samples
        self._begin_faults(first)
        angle_rev, load = self._turn()
        impacts_g = np.zeros(self._block_samples)
        for episode in self._episodes:
            self._strike(impacts_g, episode, first, angle_rev)
        block = self._sense(angle_rev, load, impacts_g * load)
        for episode in self._episodes:
            self._disturb(block, episode, first, angle_rev)
        np.clip(block, -self.range_g, self.range_g, out=block)
        return block

    def _begin_faults(self, first: int) -> None:
        """Drop the episodes that ended before sample ``first``; begin those of its block."""
        self._episodes = [episode for episode in self._episodes if episode.end > first]
        while self._upcoming[1] * self.sample_rate_hz < self._generated:
            kind, start_s, end_s = self._upcoming
            start, end = round(start_s * self.sample_rate_hz), round(end_s * self.sample_rate_hz)
            self._episodes.append(_Episode(kind, start, end))
            self._unnoted.append((start, Fault(self.key, kind, self._time_ms(start), self._time_ms(end))))
            self._upcoming = next(self._plan)

    def _turn(self) -> tuple[Floats, Floats]:
        """Move the machine on by a block; return shaft angle (revolutions) and relative load."""
        rng, block_s = self._machine_rng, self._block_samples / self.sample_rate_hz
        share = np.arange(1, self._block_samples + 1) / self._block_samples
        wander, load = self._wander, self._load
        keep = np.exp(-block_s / SPEED_MEMORY_S)
        self._wander = keep * wander + np.sqrt(1 - keep**2) * rng.standard_normal()
        target, luck = rng.uniform(*LOAD_RANGE), rng.random()
        if luck < self.load_changes_per_hour * block_s / 3600.0:
            self._load_target = target
        self._load += (self._load_target - load) * (1 - np.exp(-block_s / LOAD_MEMORY_S))
        speed_hz = self.shaft_hz * (1 + self.speed_wander * (wander + (self._wander - wander) * share))
        angle_rev = self._angle_rev + np.cumsum(speed_hz) / self.sample_rate_hz
        self._angle_rev = float(angle_rev[-1])
        return angle_rev, load + (self._load - load) * share

    def _strike(self, impacts_g: Floats, episode: _Episode, first: int, angle_rev: Floats) -> None:
        """Add the blows of a bearing fault to a block; the last rings out before the fault ends."""
        begin = max(episode.start - first, 0)
        end = min(episode.end - len(self._ring) - first, len(impacts_g))
        if episode.kind not in IMPACT_G or end <= begin:
            return
        gap_rev = 1.0 / self.bearing.impacts_per_rev(episode.kind)
        if episode.next_impact_rev is None:
            episode.next_impact_rev = angle_rev[begin] + gap_rev * self._fault_rng.random()
        enough = 10 + int(1.2 * (angle_rev[end - 1] - angle_rev[begin]) / gap_rev)
        # Independent gaps, so that the error of their sum grows, as slip does (Antoni & Randall 2003).
        gaps_rev = gap_rev * (1 + SLIP * self._fault_rng.standard_normal(enough))
        at_rev = episode.next_impact_rev + np.cumsum(gaps_rev) - gaps_rev[0]
        count = int(np.searchsorted(at_rev, angle_rev[end - 1], side="right"))
        episode.next_impact_rev, at_rev = float(at_rev[count]), at_rev[:count]
        at = np.searchsorted(angle_rev, at_rev)
        strength_g = self.fault_severity * IMPACT_G[episode.kind] * episode.severity(first + at)
        if episode.kind == "inner_race":  # the spot turns with the shaft
            strength_g *= _load_zone(at_rev)
        elif episode.kind == "ball":  # the ball travels with the cage
            strength_g *= _load_zone(at_rev * self.bearing.cage_per_rev)
        np.add.at(impacts_g, at, strength_g)

    def _sense(self, angle_rev: Floats, load: Floats, impacts_g: Floats) -> Floats:
        """Return a block's acceleration in g, shape (samples, channels), before the sensor's limit."""
        columns = np.arange(len(self.channels))
        white, rolling = self._machine_rng.standard_normal((2, self._block_samples, len(columns)))
        turn = 2 * np.pi * (angle_rev[:, None] - columns / 4)
        lines = self.mesh_g * (1 + MESH_MODULATION * np.cos(turn)) * np.cos(self.gear_teeth * turn)
        for order, amplitude_g in enumerate(SHAFT_LINES_G, start=1):
            lines += amplitude_g * np.sin(order * turn)
        blows = impacts_g[:, None] * SECOND_CHANNEL_IMPACT**columns
        blows += rolling * (ROLLING_NOISE_G / np.sqrt(np.sum(self._ring**2)))
        ringing = np.stack([np.convolve(column, self._ring) for column in blows.T], axis=1)
        ringing[: len(self._tail)] += self._tail
        self._tail = ringing[self._block_samples :]
        vibration = load[:, None] * lines + ringing[: self._block_samples]
        return np.asarray(self.gain * (vibration + self.noise_g * white))

    def _disturb(self, block: Floats, episode: _Episode, first: int, angle_rev: Floats) -> None:
        """Apply to a block, in place, what an episode does beside blows."""
        begin, end = max(episode.start - first, 0), min(episode.end - first, len(block))
        if episode.kind == "saturation":
            block[begin:end] *= SATURATION_GAIN
        elif episode.kind == "drop_out":
            if episode.level_g is None:  # a dead sensor reads zero, a stuck one its last value
                before = block[begin - 1] if begin else self._block[-1]
                episode.level_g = before * self._fault_rng.integers(2)
            block[begin:end] = episode.level_g
        elif episode.kind in SHAFT_FAULT_G:
            turns = angle_rev[begin:end, None] - np.arange(len(self.channels)) / 4
            motion = np.sin(2 * np.pi * turns)
            if episode.kind == "looseness":
                # Lifts off at half order, stopped on one side: Technical Associates of Charlotte's
                # vibration diagnostic chart, looseness B and C. The 0.2 cancels the mean.
                motion = np.minimum(motion + 0.5 * np.sin(np.pi * turns), 0.3) + 0.2
            size_g = self.gain * self.fault_severity * SHAFT_FAULT_G[episode.kind]
            block[begin:end] += size_g * episode.severity(first + np.arange(begin, end))[:, None] * motion


def _load_zone(turns: Floats) -> Floats:
    """Return the load (0..1) carried at an angle from its direction: Stribeck, McFadden & Smith 1984."""
    # Distribution factor 2, where all balls carry: gives CWRU's inner race rms and kurtosis (0.58 g, 6.1).
    return np.asarray(((3 + np.cos(2 * np.pi * turns)) / 4) ** 1.5)


def _ringing(sample_rate_hz: float, resonance_hz: float, damping_ratio: float) -> Floats:
    """Return the housing's answer to a blow, peak 1, until it has fallen to a thousandth."""
    duration_s = np.log(1000.0) / (damping_ratio * 2 * np.pi * resonance_hz)
    phase = 2 * np.pi * resonance_hz / sample_rate_hz * np.arange(2 + int(duration_s * sample_rate_hz))
    ring = np.exp(-damping_ratio * phase) * np.sin(np.sqrt(1 - damping_ratio**2) * phase)
    return np.asarray(ring / np.abs(ring).max())


def rig(keys: int, seed: int, start_ms: int, **options: Any) -> list[VibrationSource]:
    """Return ``keys`` machines, "motor-01" and so on, alike but for their own seed, speed and gain.

    Speeds spread by 1.5 % either way (CWRU's motor runs at 1730-1797 rpm by load), gains by 10 %
    (mounting; chosen). ``options`` go to every :class:`VibrationSource`. As a feed:

    >>> from simulators.feed import events
    >>> machines = rig(2, seed=7, start_ms=0, sample_rate_hz=2000.0, resonance_hz=600.0, gear_teeth=20)
    >>> feed = events(machines, frame_samples=32, start_ms=0, duration_s=0.032)
    >>> [(event["key"], event["time"]) for event in feed]
    [('motor-01', 16), ('motor-02', 16), ('motor-01', 32), ('motor-02', 32)]
    """
    machines = []
    for number in range(1, keys + 1):
        rng = np.random.default_rng([seed, number])
        alike = VibrationSource(f"motor-{number:02d}", int(rng.integers(2**63)), start_ms, **options)
        speed, gain = rng.uniform(0.985, 1.015), rng.uniform(0.9, 1.1)
        machines.append(replace(alike, shaft_hz=alike.shaft_hz * speed, gain=alike.gain * gain))
    return machines
