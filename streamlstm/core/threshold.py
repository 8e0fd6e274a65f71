"""Score → threshold: how unusual is this score for this key, lately?

A tail fitted once does not keep its promise on a living stream; a tail that follows it does. It begins at a
moving quantile ``u`` of the score, the one that is exceeded ten times as often as may be flagged, and is exponential
above it: p = level · exp(−(score − u)/scale). ``u`` and ``scale`` are updated event by event, quantile tracking as in
Gibbs & Candès 2021. Exceedances that follow one another are one piece of evidence: a cluster counts once (peaks over
threshold, Davison & Smith 1990; :mod:`streamlstm.core.guard`).

Why there: what is above the quantile tells of what is rarer, and the shorter the way, the less the shape of
the tail matters. From a 95 % quantile the way is a factor of 3,000 for a promise of one event in 60,000, from here
always ten. Flagged events are not learned from, so both estimates are those of a tail cut off at the alarm rate.

Exponential, not fitted: a score is in decades of its own channels' tails, so its tail is that by construction (what
looks heavier in held-out scores is the faults among them, and a generalised Pareto of a shape fitted to these hid the
next; of a heavier shape it flags fewer than promised where nothing is wrong).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.arithmetic import exp32, log32
from streamlstm.core.compiled import compiled
from streamlstm.core.state import TAIL_SCALE, TAIL_START

TAIL_PROBABILITY = 0.05  # the share of held-out scores the calibrated tail is fitted on, and the largest level; recipe
TAIL_FACTOR = 10.0  # the tail begins where this many times the alarm rate exceeds; chosen, see README
LEARNING_RATE = 0.02  # of what an event says; so the tail remembers 50 exceedances, the events of five alarms
SMALLEST_SHARE = 0.1  # a tail's scale never falls below this share of the calibrated one

_F = np.float32


class TailParameters(NamedTuple):
    """``start`` and ``scale``: the tail a new key begins with. ``alarm_rate``: the share of events that may be flagged.
    ``level``: the share that lie in the tail.

    Of those events that are learned, ``learned_share`` lie in the tail, ``mean_excess`` scales above its start;
    an excess counts as at most ``largest_excess`` scales, which is where an alert opens. ``learning_rate``: how far
    one event moves the tail; ``adapting_rate``: one of an episode that is taken for the new normal."""

    start: np.float32
    scale: np.float32
    alarm_rate: np.float32
    level: np.float32
    learned_share: np.float32
    mean_excess: np.float32
    largest_excess: np.float32
    learning_rate: np.float32
    adapting_rate: np.float32


def tail_level(alarm_rate: float) -> float:
    """Return the share of events that lie in the tail."""
    return min(TAIL_PROBABILITY, TAIL_FACTOR * alarm_rate)


def tail_parameters(start: float, scale: float, alarm_rate: float) -> TailParameters:
    """Return the parameters for an alarm rate in (0, .05); ``start`` and ``scale`` are those calibrated.

    That tail, exponential above the 95 % quantile, says where a new key's begins.

    An episode that outlasts the guard is learned more slowly than exceedances now and then: as fast as an alarm is
    due, so that a feed of 60 events a second asked for an alarm an hour does not forget within seconds what was normal.
    """
    if not 0 < alarm_rate < TAIL_PROBABILITY:
        raise ValueError(f"the alarm rate must lie between 0 and {TAIL_PROBABILITY}, not {alarm_rate}")
    level = tail_level(alarm_rate)
    flagged = alarm_rate / level
    largest = -np.log(flagged)
    return TailParameters(
        start=_F(start + scale * np.log(TAIL_PROBABILITY / level)),
        scale=_F(scale),
        alarm_rate=_F(alarm_rate),
        level=_F(level),
        learned_share=_F((level - alarm_rate) / (1 - alarm_rate)),
        mean_excess=_F(1 - flagged * largest / (1 - flagged)),
        largest_excess=_F(largest),
        learning_rate=_F(LEARNING_RATE),
        adapting_rate=_F(min(LEARNING_RATE, alarm_rate / TAIL_PROBABILITY)),
    )


@compiled
def tail_probability(score: np.float32, tail: NDArray[np.float32], parameters: TailParameters) -> np.float32:
    """Return the probability of a score as high as this, for this key lately.

    **Trap**: below the start of the tail this is level^(score/start): in the right order, and 1 at 0, but no
    measured probability.
    """
    start = tail[TAIL_START]
    if score > start:
        return _F(parameters.level * exp32((start - score) / tail[TAIL_SCALE]))
    return _F(exp32(log32(parameters.level) * max(score, _F(0.0)) / start))


@compiled
def score_at(probability: np.float32, tail: NDArray[np.float32], parameters: TailParameters) -> np.float32:
    """Return the score whose tail probability is this one (at most the tail's level)."""
    return _F(tail[TAIL_START] + tail[TAIL_SCALE] * log32(parameters.level / probability))


@compiled
def learn_start(exceeds: bool, tail: NDArray[np.float32], rate: np.float32, parameters: TailParameters) -> None:
    """Move the tail's start, in place, by whether an event that is taken as normal counts as above it."""
    step = (_F(1.0) if exceeds else _F(0.0)) - parameters.learned_share
    tail[TAIL_START] = max(tail[TAIL_START] + rate * tail[TAIL_SCALE] * step, _F(1e-3))


@compiled
def learn_peak(peak: np.float32, tail: NDArray[np.float32], parameters: TailParameters) -> None:
    """Move the tail's scale by the highest of a cluster of scores above its start, in place."""
    excess = max(peak - tail[TAIL_START], _F(0.0)) / tail[TAIL_SCALE]
    _stretch(excess, tail, parameters.learning_rate, parameters)


@compiled
def learn_tail(score: np.float32, tail: NDArray[np.float32], rate: np.float32, parameters: TailParameters) -> None:
    """Move the tail towards a score that is taken as normal, in place, at the rate given."""
    above = score > tail[TAIL_START]
    excess = (score - tail[TAIL_START]) / tail[TAIL_SCALE]
    learn_start(above, tail, rate, parameters)
    if above:
        _stretch(excess, tail, rate, parameters)


@compiled
def follow_episode(score: np.float32, tail: NDArray[np.float32], parameters: TailParameters) -> None:
    """Move the tail of an open episode by one of its scores, in place.

    A flagged score takes the tail along, at once, so that as high a one is flagged no more; and the tail's start moves
    as always. Its scale stays: stretched by a score that climbs, the tail would lie above the next fault for as long
    as it remembers.
    """
    beyond = score - (tail[TAIL_START] + parameters.largest_excess * tail[TAIL_SCALE])
    exceeds = score > tail[TAIL_START]
    tail[TAIL_START] += max(beyond, _F(0.0))
    learn_start(exceeds, tail, parameters.learning_rate, parameters)


@compiled
def _stretch(excess: np.float32, tail: NDArray[np.float32], rate: np.float32, parameters: TailParameters) -> None:
    learned = min(excess, parameters.largest_excess) / parameters.mean_excess
    scale = tail[TAIL_SCALE] * (_F(1.0) + rate * (learned - _F(1.0)))
    tail[TAIL_SCALE] = max(scale, _F(SMALLEST_SHARE) * parameters.scale)


@compiled
def adapt_tail(score: np.float32, tail: NDArray[np.float32], parameters: TailParameters) -> None:
    """Move the tail towards a score of what is taken for the new normal, in place.

    One beyond the tail is of another level, and the start goes there. Stretched until it reaches there, the tail would
    lie above anything for as long as it remembers.
    """
    if score > tail[TAIL_START] + parameters.largest_excess * tail[TAIL_SCALE]:
        tail[TAIL_START] += parameters.adapting_rate * (score - tail[TAIL_START])
    else:
        learn_tail(score, tail, parameters.adapting_rate, parameters)
