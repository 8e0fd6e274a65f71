"""NAB's score, from its published rules.

Source: Lavin & Ahmad 2015, "Evaluating Real-time Anomaly Detection Algorithms: the Numenta Anomaly Benchmark", and
the rules of version 1.1 where the paper is silent. A window's earliest detection earns 2σ(−5y) − 1 with y from −1 (its
first row) to 0 (its last), as a share of the most that can be earned; a window without any costs the weight of a miss.
A detection outside costs up to the weight of a false alarm: nothing right behind a window, all of it three window
lengths on. A file's first 15 % of rows, 750 at most, are probation and do not count. The score of a corpus is scaled
such that a detector that says nothing has 0 and a perfect one 100.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PROBATION_SHARE = 0.15
PROBATION_ROWS = 750
REFRACTORY_SHARE = 0.03  # of a file's rows: one alarm counts for so long; recipe
FAR = 3.0  # window lengths behind a window, from where a false alarm costs all of its weight
SWEPT_THRESHOLDS = 400  # where alarms have a refractory span, and each threshold is a walk

Position = float | NDArray[np.float64]


class Profile(NamedTuple):
    """What a hit earns, and what a false alarm and a miss cost."""

    hit: float
    false_alarm: float
    miss: float


PROFILES = {
    "standard": Profile(1.0, 0.11, 1.0),
    "reward_low_FP": Profile(1.0, 0.22, 1.0),
    "reward_low_FN": Profile(1.0, 0.11, 2.0),
}


@dataclass(frozen=True)
class File:
    """One file's scores, one per row, and its windows as first and last row (inclusive). NaN never is a detection."""

    score: NDArray[np.float64]
    windows: Sequence[tuple[int, int]]

    @property
    def probation(self) -> int:
        """Rows that do not count."""
        return probation_rows(len(self.score))


class Optimum(NamedTuple):
    """The best score that any one threshold for all files reaches, and that threshold."""

    score: float
    threshold: float


def probation_rows(rows: int) -> int:
    """Return how many of a file's first rows are probation.

    >>> probation_rows(4032), probation_rows(22695)
    (604, 750)
    """
    return min(int(PROBATION_SHARE * rows), PROBATION_ROWS)


def scaled_sigmoid(position: Position) -> NDArray[np.float64]:
    """Return the worth of a detection at a position: −1 a window's start, 0 its end, beyond: behind it.

    >>> scaled_sigmoid(np.array([-1.0, 0.0, 3.0])).round(5).tolist()
    [0.98661, 0.0, -1.0]
    """
    near = np.minimum(position, FAR)
    return np.where(near >= FAR, -1.0, 2.0 / (1.0 + np.exp(5.0 * near)) - 1.0)


def row_worth(rows: int, windows: Sequence[tuple[int, int]], profile: Profile) -> NDArray[np.float64]:
    """Return what a detection at each row is worth, (rows,): positive in windows, negative outside."""
    worth = np.full(rows, -profile.false_alarm)
    most = scaled_sigmoid(-1.0)
    for number, (first, last) in enumerate(windows):
        width = last - first + 1
        end = windows[number + 1][0] if number + 1 < len(windows) else rows
        inside, behind = np.arange(first, last + 1), np.arange(last + 1, end)
        worth[inside] = profile.hit * scaled_sigmoid(-(last - inside + 1) / width) / most
        worth[behind] = profile.false_alarm * scaled_sigmoid((behind - last) / max(width - 1, 1))
    return worth


def score_detections(files: Sequence[tuple[NDArray[np.bool_], Sequence[tuple[int, int]]]], profile: Profile) -> float:
    """Return the normalised score of detections, one flag per row of each file."""
    raw = sum(
        _raw(detected, windows, row_worth(len(detected), windows, profile), profile) for detected, windows in files
    )
    return normalised(raw, sum(len(windows) for _, windows in files), profile)


def _raw(
    detected: NDArray[np.bool_], windows: Sequence[tuple[int, int]], worth: NDArray[np.float64], profile: Profile
) -> float:
    """Return what a file's detections are worth in all, given each row's worth."""
    counts = detected.copy()
    counts[: probation_rows(len(detected))] = False
    outside = counts.copy()
    raw = 0.0
    for first, last in windows:
        outside[first : last + 1] = False
        hits = np.flatnonzero(counts[first : last + 1])
        raw += float(worth[first + hits[0]]) if len(hits) else -profile.miss
    return raw + float(worth[outside].sum())


def normalised(raw: float, windows: int, profile: Profile) -> float:
    """Return a raw score on the scale from 0, nothing detected, to 100, all windows at their first row."""
    nothing, perfect = -profile.miss * windows, profile.hit * windows
    return 100.0 * (raw - nothing) / (perfect - nothing)


def optimise(files: Sequence[File], profile: Profile) -> Optimum:
    """Return the best score over all thresholds: NAB's rule, in which each row at or above it is a detection."""
    scores, gains, windows_in_all = [], [], 0
    for file in files:
        gain = row_worth(len(file.score), file.windows, profile)
        for first, last in file.windows:
            gain[first : last + 1] = _window_gains(file, first, last, gain, profile)
        counts = (np.arange(len(gain)) >= file.probation) & ~np.isnan(file.score)
        scores.append(file.score[counts])
        gains.append(gain[counts])
        windows_in_all += len(file.windows)
    score, gain = np.concatenate(scores), np.concatenate(gains)
    order = np.argsort(-score, kind="stable")
    last_of_equal = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    raw = -profile.miss * windows_in_all + np.append(0.0, np.cumsum(gain[order])[last_of_equal])
    best = int(np.argmax(raw))
    threshold = math.inf if best == 0 else float(score[order][last_of_equal[best - 1]])
    return Optimum(normalised(float(raw[best]), windows_in_all, profile), threshold)


def _window_gains(
    file: File, first: int, last: int, worth: NDArray[np.float64], profile: Profile
) -> NDArray[np.float64]:
    """Return what each row of a window adds once the threshold has come down to its score: only the best counts."""
    gains = np.zeros(last - first + 1)
    best = -profile.miss
    rows = np.arange(first, last + 1)
    rows = rows[(rows >= file.probation) & ~np.isnan(file.score[first : last + 1])]
    for row in rows[np.argsort(-file.score[rows], kind="stable")]:
        if worth[row] > best:
            gains[row - first] = worth[row] - best
            best = worth[row]
    return gains


def alarms_of(score: NDArray[np.float64], threshold: float, refractory_rows: int) -> NDArray[np.bool_]:
    """Return one alarm for all rows at or above the threshold within a refractory span, causally."""
    alarms = np.zeros(len(score), dtype=bool)
    above = np.flatnonzero(score >= threshold)  # NaN is not
    at = 0
    while at < len(above):
        alarms[above[at]] = True
        at = int(np.searchsorted(above, above[at] + refractory_rows))
    return alarms


def optimise_alarms(files: Sequence[File], profile: Profile) -> Optimum:
    """Return the best score over thresholds where an alarm is followed by a refractory span of 3 % of the file."""
    pooled = np.concatenate([file.score[file.probation :] for file in files])
    pooled = np.sort(pooled[~np.isnan(pooled)])[::-1]
    ranks = np.unique(np.geomspace(1, len(pooled), SWEPT_THRESHOLDS).astype(int)) - 1
    worths = [row_worth(len(file.score), file.windows, profile) for file in files]
    windows_in_all = sum(len(file.windows) for file in files)
    best = Optimum(0.0, math.inf)
    for threshold in np.unique(pooled[ranks]):
        raw = sum(
            _raw(alarms_in(file, float(threshold)), file.windows, worth, profile)
            for file, worth in zip(files, worths, strict=True)
        )
        score = normalised(raw, windows_in_all, profile)
        if score > best.score:
            best = Optimum(score, float(threshold))
    return best


def alarms_in(file: File, threshold: float) -> NDArray[np.bool_]:
    """Return a file's alarms; probation neither alarms nor starts a refractory span."""
    scored = file.score.copy()
    scored[: file.probation] = np.nan
    return alarms_of(scored, threshold, max(1, round(REFRACTORY_SHARE * len(scored))))
