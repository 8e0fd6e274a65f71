"""What the threshold may learn: drift, but not the fault; and not to stay shut when the world has changed.

Two tails, because two promises are at odds. The **steady** one learns from what is normal:

- A score above the tail's start opens a cluster of ``cluster_events``. It counts once, and its highest score stretches
  the tail, once, when it is over. A fault whose score climbs would else stretch the tail before it, event by event; and
  scores that stay high, as smoothed ones do, would count as so many, though they can raise one alert only.
- A flagged event is never learned from, nor any event of an open episode or of the cool-down after it: the
  tail must not learn the fault.
- After ``hold_events`` of that (episodes in one another's cool-down count together) it learns again: the fault
  may be the new normal. The alert says ``adapting`` and ends as ``adapted``.
- The tail from before is kept. If the scores become calm by *that* tail for as long as ends an episode, the
  world went back, and the old tail is in force again at once; else one long fault would raise the threshold
  for as long as the tail remembers.

The **quick** one begins as a copy of it with each episode, goes where the scores go, and is dropped at the end of
the cool-down. Until then events are judged by it: flagged is what is unusual even for the episode. So an alert that is
open is not told anew event by event, the share of events flagged stays near the one promised, and what is flagged after
a lull is another fault, with an alert of its own. Whether the episode
is over, and whether a worse one begins in its cool-down, is the steady tail's to say.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.alert import CLOSED, COOLING, OPENED, EpisodeParameters, advance_episode, is_calm
from streamlstm.core.arithmetic import copy
from streamlstm.core.compiled import compiled
from streamlstm.core.state import (
    CALM_EVENTS,
    HELD_EVENTS,
    KEPT,
    KEPT_TAIL,
    PEAK_SCORE,
    PHASE,
    QUICK_TAIL,
    STEADY_TAIL,
    TAIL_FLOATS,
    TAIL_START,
)
from streamlstm.core.threshold import (
    TailParameters,
    adapt_tail,
    follow_episode,
    learn_peak,
    learn_start,
    score_at,
    tail_probability,
)

# Values of state.KEPT: no tail is kept; one is, and the same is in force; another has been learned since, and
# KEPT - LEARNED events in a row were calm by the kept one.
NO_TAIL, SAME, LEARNED = 0, 1, 2


@compiled
def judge_score(
    integers: NDArray[np.int64],
    tails: NDArray[np.float32],
    peaks: NDArray[np.float32],
    score: np.float32,
    episode: EpisodeParameters,
    parameters: TailParameters,
) -> tuple[np.float32, np.float32, int]:
    """Advance a key's episode and tails by one score, in place; return tail probability, threshold and action.

    ``tails`` and ``peaks`` are the row's sections of these names. Probability and threshold are those before the event.
    """
    steady_tail = tails[STEADY_TAIL : STEADY_TAIL + TAIL_FLOATS]
    quick_tail = tails[QUICK_TAIL : QUICK_TAIL + TAIL_FLOATS]
    phase = integers[PHASE]
    if phase == CLOSED:
        copy(quick_tail, steady_tail)
    steady = tail_probability(score, steady_tail, parameters)
    in_force = quick_tail
    if phase == COOLING and score > peaks[PEAK_SCORE]:  # what is worse than the episode was is new
        in_force = steady_tail
    probability = tail_probability(score, in_force, parameters)
    threshold = score_at(parameters.alarm_rate, in_force, parameters)
    if phase != CLOSED:
        follow_episode(score, quick_tail, parameters)
    action = advance_episode(integers, peaks, score, probability, steady, episode)
    _learn_steady(integers, tails, peaks, score, steady, action, episode, parameters)
    return probability, threshold, action


@compiled
def _learn_steady(
    integers: NDArray[np.int64],
    tails: NDArray[np.float32],
    peaks: NDArray[np.float32],
    score: np.float32,
    steady: np.float32,
    action: int,
    episode: EpisodeParameters,
    parameters: TailParameters,
) -> None:
    """Move the steady tail after one scored event, in place, if it may.

    ``steady`` is the score's probability by it; ``action`` is what the event did to the episode.
    """
    current = tails[STEADY_TAIL : STEADY_TAIL + TAIL_FLOATS]
    kept = tails[KEPT_TAIL : KEPT_TAIL + TAIL_FLOATS]
    if action == OPENED and integers[KEPT] == NO_TAIL:
        copy(kept, current)
        integers[KEPT] = SAME
    if integers[PHASE] == CLOSED:
        integers[HELD_EVENTS] = 0
        if integers[KEPT] == SAME:
            integers[KEPT] = NO_TAIL
        if steady > parameters.alarm_rate:
            _learn_normal(integers, current, peaks, score, episode, parameters)
    else:
        integers[HELD_EVENTS] += 1
        if integers[HELD_EVENTS] <= episode.hold_events:
            return
        integers[KEPT] = max(integers[KEPT], LEARNED)
        adapt_tail(score, current, parameters)
    if integers[KEPT] >= LEARNED:
        _go_back_if_calm(integers, current, kept, score, episode, parameters)


@compiled
def _learn_normal(
    integers: NDArray[np.int64],
    tail: NDArray[np.float32],
    peaks: NDArray[np.float32],
    score: np.float32,
    episode: EpisodeParameters,
    parameters: TailParameters,
) -> None:
    """Learn a score outside episodes, in place.

    A row's count of calm events and its peak, which an episode sets anew, are here those of a cluster: how many events
    it still has, and its highest score.
    """
    opens = integers[CALM_EVENTS] == 0 and score > tail[TAIL_START]
    if opens:
        peaks[PEAK_SCORE] = score
        integers[CALM_EVENTS] = episode.cluster_events
    elif integers[CALM_EVENTS] > 0:
        peaks[PEAK_SCORE] = max(peaks[PEAK_SCORE], score)
        integers[CALM_EVENTS] -= 1
        if integers[CALM_EVENTS] == 0:
            learn_peak(peaks[PEAK_SCORE], tail, parameters)
    learn_start(opens, tail, parameters.learning_rate, parameters)


@compiled
def _go_back_if_calm(
    integers: NDArray[np.int64],
    current: NDArray[np.float32],
    kept: NDArray[np.float32],
    score: np.float32,
    episode: EpisodeParameters,
    parameters: TailParameters,
) -> None:
    """Put the kept tail in force again when enough events in a row were calm by it."""
    integers[KEPT] = integers[KEPT] + 1 if is_calm(tail_probability(score, kept, parameters), episode) else LEARNED
    if integers[KEPT] - LEARNED >= episode.resolve_after_events:
        copy(current, kept)
        integers[KEPT] = NO_TAIL
        integers[HELD_EVENTS] = 0


@compiled
def is_adapting(integers: NDArray[np.int64], episode: EpisodeParameters) -> bool:
    """Return whether the tail in force learns, or has learned, from the episode that is open or just ended."""
    return bool(integers[HELD_EVENTS] > episode.hold_events)
