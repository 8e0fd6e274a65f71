"""What the threshold may learn: drift, but not the fault; and not to stay shut when the world has changed.

- A flagged event is never learned from, nor any event of an open episode or of the cool-down after it: the
  tail must not learn the fault.
- After ``hold_events`` of that (episodes in one another's cool-down count together) it learns again: the fault
  may be the new normal. The alert says ``adapting`` and ends as ``adapted``.
- The tail from before is kept. If the scores become calm by *that* tail for as long as ends an episode, the
  world went back, and the old tail is in force again at once; else one long fault would raise the threshold
  for as long as the tail remembers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.alert import CLOSED, OPENED, EpisodeParameters, is_calm
from streamlstm.core.compiled import compiled
from streamlstm.core.state import HELD_EVENTS, KEPT, PHASE, TAIL_FLOATS
from streamlstm.core.threshold import TailParameters, learn_tail, tail_probability

# Values of state.KEPT: no tail is kept; one is, and the same is in force; another has been learned since, and
# KEPT - LEARNED events in a row were calm by the kept one.
NO_TAIL, SAME, LEARNED = 0, 1, 2


@compiled
def learn_guarded(
    integers: NDArray[np.int64],
    tail: NDArray[np.float32],
    score: np.float32,
    probability: np.float32,
    action: int,
    episode: EpisodeParameters,
    parameters: TailParameters,
) -> None:
    """Move a key's tail after one scored event, in place, if it may.

    ``tail`` holds the tail in force, then the one kept from before an episode; ``action`` is what the
    event did to the episode.
    """
    current, kept = tail[:TAIL_FLOATS], tail[TAIL_FLOATS:]
    if action == OPENED and integers[KEPT] == NO_TAIL:
        kept[:] = current
        integers[KEPT] = SAME
    if integers[PHASE] == CLOSED:
        integers[HELD_EVENTS] = 0
        if integers[KEPT] == SAME:
            integers[KEPT] = NO_TAIL
        if probability > parameters.alarm_rate:
            learn_tail(score, current, parameters.learning_rate, parameters)
    else:
        integers[HELD_EVENTS] += 1
        if integers[HELD_EVENTS] <= episode.hold_events:
            return
        integers[KEPT] = max(integers[KEPT], LEARNED)
        learn_tail(score, current, parameters.adapting_rate, parameters)
    if integers[KEPT] >= LEARNED:
        _go_back_if_calm(integers, current, kept, score, episode, parameters)


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
        current[:] = kept
        integers[KEPT] = NO_TAIL
        integers[HELD_EVENTS] = 0


@compiled
def is_adapting(integers: NDArray[np.int64], episode: EpisodeParameters) -> bool:
    """Return whether the tail in force learns, or has learned, from the episode that is open or just ended."""
    return bool(integers[HELD_EVENTS] > episode.hold_events)
