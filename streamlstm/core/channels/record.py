"""How far a smoothed value leaves the range that this key has had so far, relative to that range.

It needs no model and little history, so a key of which the history told little is judged, too. Source: the recipe's
relative record excess, max(a − high, low − a)/(high − low), of running means over three spans; the range forgets, so
that no single outlier decides for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.channels.seen import Seen
from streamlstm.core.compiled import compiled

NAME = "record"
SPANS = (1, 20, 80)  # events that the means reach over; the recipe's 1 and 80, and one between
FLOATS = 3 * len(SPANS)  # of running state for each value: mean, low and high of each span
SMALLEST_RANGE = 1.0  # deviations
STEADY = 1  # which of these means the stillness channel compares values with
FORGETTING = 1e-5  # of the range, per event; with 1e-4 NAB's score by its own rule was 43, not 51, one alarm per 3 % 55
HALF_HISTORY = 500  # events of history per key with which this channel weighs as much as all others together; chosen

_F = np.float32


def share_of_score(history_events: float) -> float:
    """Return this channel's weight, given how many events the history has of a typical key: the fewer, the more."""
    return HALF_HISTORY / (HALF_HISTORY + history_events)


class Fitted(NamedTuple):
    """``low`` and ``high``, (spans, D) float32: the range that a new key begins with, a typical key's."""

    low: NDArray[np.float32]
    high: NDArray[np.float32]


def unfitted(values: int) -> Fitted:
    """Return the range that is a point, the mean."""
    return Fitted(np.zeros((len(SPANS), values), np.float32), np.zeros((len(SPANS), values), np.float32))


@compiled
def observe(running: NDArray[np.float32], seen: Seen, fitted: Fitted) -> np.float32:
    """Return 1 + the largest excess over all values and spans, above 1 outside the range; then widen the range."""
    largest = _F(0.0)
    at = 0
    for s in range(len(SPANS)):
        newness = _F(2.0) / _F(min(seen.age, SPANS[s]) + 1)
        for d in range(seen.inputs.shape[0]):
            if seen.age == 1:
                running[at + 1], running[at + 2] = fitted.low[s, d], fitted.high[s, d]
            running[at] += newness * (seen.inputs[d] - running[at])
            mean, low, high = running[at], running[at + 1], running[at + 2]
            excess = max(mean - high, low - mean) / max(high - low, _F(SMALLEST_RANGE))
            largest = max(largest, _F(1.0) + excess)
            running[at + 1] = min(low + _F(FORGETTING) * (mean - low), mean)
            running[at + 2] = max(high + _F(FORGETTING) * (mean - high), mean)
            at += 3
    return largest


@compiled
def mean_of(running: NDArray[np.float32], value: int, values: int) -> np.float32:
    """Return the steady running mean of one of D values."""
    return np.float32(running[3 * (STEADY * values + value)])


def fit(inputs: NDArray[np.float32], keys: Iterable[tuple[int, int]]) -> Fitted:
    """Return the median over keys of the ranges that they end with; a key's inputs, (n, D), are first…last."""
    ended, everything = [], np.ones(inputs.shape[1], np.bool_)
    for first, last in keys:
        if last > first:
            running = np.zeros(FLOATS * inputs.shape[1], np.float32)
            _observe_all(running, inputs[first:last], everything, unfitted(inputs.shape[1]))
            ended.append(running.reshape(len(SPANS), inputs.shape[1], 3))
    low_and_high = np.median(ended, axis=0)[..., 1:]
    return Fitted(*np.ascontiguousarray(np.moveaxis(low_and_high, -1, 0), dtype=np.float32))


@compiled
def _observe_all(
    running: NDArray[np.float32], inputs: NDArray[np.float32], everything: NDArray[np.bool_], fitted: Fitted
) -> None:
    """Advance the running state by one key's events, (n, D)."""
    for i in range(inputs.shape[0]):
        observe(running, Seen(_F(0.0), inputs[i], everything, inputs[i], _F(0.0), i + 1), fitted)
