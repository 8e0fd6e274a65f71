"""Score → threshold: how unusual is this score for this key, lately?

A tail fitted once does not keep its promise on a living stream; a tail that follows it does. Above
a moving 95 % quantile ``u`` of the score, p = .05 · exp(−(score − u)/ξ), with ``u`` and ``ξ`` updated
event by event. Source: the recipe (measured against promised at 1e-3: median .57×, where the fixed
tail raised 13–17× as many); quantile tracking as in Gibbs & Candès 2021.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.arithmetic import exp32, log32
from streamlstm.core.compiled import compiled
from streamlstm.core.state import TAIL_SCALE, TAIL_START

TAIL_PROBABILITY = 0.05  # the share of events above the moving quantile; recipe
FASTEST_LEARNING = 0.02  # recipe: .01–.03, measured at an alarm rate of 1e-3
MEMORY_ALARMS = 1.0  # the tail remembers about as many events as this many alarms are promised in
LARGEST_EXCESS = 2.0  # an excess counts as at most 2 scales when learning; more lets missed faults teach (recipe: 4)
SMALLEST_SHARE = 0.1  # a tail's scale never falls below this share of the calibrated one

_F = np.float32


class TailParameters(NamedTuple):
    """``start`` and ``scale``: the calibrated tail a new key begins with. ``alarm_rate``: the share
    of events that may be flagged. ``mean_excess``: what an excess averages among learned events.
    ``learning_rate``: how far one event moves the tail."""

    start: np.float32
    scale: np.float32
    alarm_rate: np.float32
    mean_excess: np.float32
    learning_rate: np.float32


def tail_parameters(start: float, scale: float, alarm_rate: float) -> TailParameters:
    """Return the parameters for an alarm rate in (0, .05).

    Flagged events are not learned from, so the learned excesses are a truncated exponential:
    below k = log(.05/rate) scales, each counted as at most LARGEST_EXCESS. Their mean is less than one scale by a
    known factor, and the update divides by it; else the tail would creep inwards.

    The quantile moves one scale in 1/(.05 · learning rate) events. That memory is tied to the promise:
    about the events in which one alarm is due. A feed of 60 events a second asked for an alarm an hour
    then remembers an hour; with a fixed rate it would learn a fault that grows over a minute.
    """
    if not 0 < alarm_rate < TAIL_PROBABILITY:
        raise ValueError(f"the alarm rate must lie between 0 and {TAIL_PROBABILITY}, not {alarm_rate}")
    k, cap = math.log(TAIL_PROBABILITY / alarm_rate), LARGEST_EXCESS
    mean = 1 - math.exp(-k) * (1 + k) if k <= cap else 1 - math.exp(-cap) - cap * math.exp(-k)
    learning_rate = min(FASTEST_LEARNING, alarm_rate / (TAIL_PROBABILITY * MEMORY_ALARMS))
    return TailParameters(_F(start), _F(scale), _F(alarm_rate), _F(mean / (1 - math.exp(-k))), _F(learning_rate))


@compiled
def tail_probability(score: np.float32, tail: NDArray[np.float32]) -> np.float32:
    """Return the probability of a score as high as this, for this key lately.

    **Trap**: below the moving quantile this is .05^(score/u): in the right order, and 1 at 0, but no
    measured probability.
    """
    start, scale = tail[TAIL_START], tail[TAIL_SCALE]
    if score > start:
        return _F(_F(TAIL_PROBABILITY) * exp32((start - score) / scale))
    return _F(exp32(log32(_F(TAIL_PROBABILITY)) * max(score, _F(0.0)) / start))


@compiled
def score_at(probability: np.float32, tail: NDArray[np.float32]) -> np.float32:
    """Return the score whose tail probability is this one (below .05)."""
    return _F(tail[TAIL_START] + tail[TAIL_SCALE] * log32(_F(TAIL_PROBABILITY) / probability))


@compiled
def learn_tail(score: np.float32, tail: NDArray[np.float32], parameters: TailParameters) -> None:
    """Move the tail towards a score that is taken as normal, in place."""
    rate = parameters.learning_rate
    above = score > tail[TAIL_START]
    excess = (score - tail[TAIL_START]) / tail[TAIL_SCALE]
    step = _F(1.0 - TAIL_PROBABILITY) if above else _F(-TAIL_PROBABILITY)
    tail[TAIL_START] = max(tail[TAIL_START] + rate * tail[TAIL_SCALE] * step, _F(1e-3))
    if above:
        learned = min(excess, _F(LARGEST_EXCESS)) / parameters.mean_excess
        scale = tail[TAIL_SCALE] * (_F(1.0) + _F(2.0) * rate * (learned - _F(1.0)))
        tail[TAIL_SCALE] = max(scale, _F(SMALLEST_SHARE) * parameters.scale)
