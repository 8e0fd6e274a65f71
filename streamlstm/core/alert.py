"""Threshold → alert: an alert is an episode, opened, updated and resolved, not a flagged event.

Hysteresis: an episode opens when the tail probability reaches the alarm rate, and counts an event as
calm only above up to ten times that rate. Cool-down: after it is resolved, only a score above its peak
opens a new one for a while. An alert that stays open must not hide the next fault: after as many events without a
flagged one as end an episode, one that is flagged even so ends it and opens the next; after a few already, if it is
worse by as much as makes an update. What an episode means for the threshold is :mod:`streamlstm.core.guard`'s.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.compiled import compiled
from streamlstm.core.state import (
    CALM_EVENTS,
    COOLDOWN_EVENTS,
    EPISODE_EVENTS,
    LAST_OFFSET,
    LAST_TIMESTAMP_MS,
    OPENED_OFFSET,
    OPENED_TIMESTAMP_MS,
    PEAK_SCORE,
    PHASE,
    REPORTED_SCORE,
)
from streamlstm.core.threshold import TAIL_PROBABILITY, tail_level

CLOSED, OPEN, COOLING = 0, 1, 2  # phases
LULL_EVENTS = COOLDOWN_EVENTS  # of an open episode, which has no cool-down: events since the last flagged one
NOTHING, OPENED, UPDATED, RESOLVED = 0, 1, 2, 3  # actions
ACTIONS = ("nothing", "opened", "updated", "resolved")

CALM_FACTOR = 10.0  # an event is calm above this many times the alarm rate: one decade of hysteresis
NOT_CALM = 0.5  # events that a normal stretch of the length that ends an episode may have that are not calm, on average
CLUSTER_SHARE = 0.1  # of the mean way between two exceedances of the tail's start: how near they count as one
WORSE_BY = 1.0  # decades by which the score must exceed the last reported one for an update
PAUSE_EVENTS = 16  # without a flagged one, after which what is worse is another fault, not the same one growing


class EpisodeParameters(NamedTuple):
    """``alarm_rate``: tail probability at which an episode opens. ``calm_above``: above which an event is calm.
    ``resolve_after_events``: calm events in a row that end it. ``cooldown_events``: after which any flagged event opens
    a new one. ``hold_events``: how long an episode keeps the threshold from learning. ``cluster_events``: how many
    events after one above the tail's start belong to it."""

    alarm_rate: np.float32
    calm_above: np.float32
    resolve_after_events: int
    cooldown_events: int
    hold_events: int
    cluster_events: int


def episode_parameters(
    alarm_rate: float, resolve_after_events: int, cooldown_events: int, hold_events: int
) -> EpisodeParameters:
    """Return the parameters, with as much hysteresis as the number of calm events in a row allows.

    With a decade of it, one normal event in a hundred is not calm at an alarm rate of 1e-3: 288 calm ones in a row
    would take days to come, and a long stretch of normal events would lie within the alert.

    A cluster is as long as the calm that ends an episode, but no longer than leaves independent exceedances apart.

    >>> [round(float(episode_parameters(1e-3, events, 0, 0).calm_above), 4) for events in (8, 100, 1000)]
    [0.01, 0.005, 0.001]
    """
    most = min(CALM_FACTOR * alarm_rate, TAIL_PROBABILITY)
    calm_above = min(most, max(alarm_rate, NOT_CALM / resolve_after_events))
    cluster_events = max(1, min(resolve_after_events, int(CLUSTER_SHARE / tail_level(alarm_rate))))
    return EpisodeParameters(
        np.float32(alarm_rate),
        np.float32(calm_above),
        resolve_after_events,
        cooldown_events,
        hold_events,
        cluster_events,
    )


def alert_id(topic: str, partition: int, opened_offset: int) -> str:
    """Return the episode's id: where the event that opened it stands.

    >>> alert_id("events", 3, 1042)
    'events:3:1042'
    """
    return f"{topic}:{partition}:{opened_offset}"


@compiled
def is_calm(probability: np.float32, parameters: EpisodeParameters) -> bool:
    """Return whether an event counts towards the end of an episode."""
    return bool(probability > parameters.calm_above)


@compiled
def _open(integers: NDArray[np.int64], episode: NDArray[np.float32], score: np.float32) -> int:
    integers[PHASE] = OPEN
    integers[OPENED_OFFSET] = integers[LAST_OFFSET]
    integers[OPENED_TIMESTAMP_MS] = integers[LAST_TIMESTAMP_MS]
    integers[EPISODE_EVENTS] = 1
    integers[CALM_EVENTS] = integers[LULL_EVENTS] = 0
    episode[PEAK_SCORE] = score
    episode[REPORTED_SCORE] = score
    return OPENED


@compiled
def _continue(
    integers: NDArray[np.int64],
    episode: NDArray[np.float32],
    score: np.float32,
    flagged: bool,
    calm: bool,
    parameters: EpisodeParameters,
) -> int:
    worse = score >= episode[REPORTED_SCORE] + np.float32(WORSE_BY)
    pause = min(PAUSE_EVENTS, parameters.resolve_after_events) if worse else parameters.resolve_after_events
    if flagged and integers[LULL_EVENTS] >= pause:
        return _open(integers, episode, score)
    integers[LULL_EVENTS] = 0 if flagged else integers[LULL_EVENTS] + 1
    integers[EPISODE_EVENTS] += 1
    integers[CALM_EVENTS] = integers[CALM_EVENTS] + 1 if calm else 0
    episode[PEAK_SCORE] = max(episode[PEAK_SCORE], score)
    if integers[CALM_EVENTS] >= parameters.resolve_after_events:
        integers[PHASE] = COOLING
        integers[COOLDOWN_EVENTS] = parameters.cooldown_events
        return RESOLVED
    if worse or integers[EPISODE_EVENTS] == parameters.hold_events + 1:
        episode[REPORTED_SCORE] = max(episode[REPORTED_SCORE], score)
        return UPDATED
    return NOTHING


@compiled
def advance_episode(
    integers: NDArray[np.int64],
    episode: NDArray[np.float32],
    score: np.float32,
    probability: np.float32,
    steady: np.float32,
    parameters: EpisodeParameters,
) -> int:
    """Advance a row's episode by one scored event, in place, and return the action.

    ``integers`` already holds this event's offset and timestamp. ``probability`` opens an
    episode, also in place of one that is open; ``steady``, from the tail that the episode does not teach
    (:mod:`streamlstm.core.guard`), calms it down.
    """
    flagged = bool(probability <= parameters.alarm_rate)
    if integers[PHASE] == OPEN:
        return _continue(integers, episode, score, flagged, is_calm(steady, parameters), parameters)
    if integers[PHASE] == COOLING:
        integers[COOLDOWN_EVENTS] -= 1
        if integers[COOLDOWN_EVENTS] <= 0:
            integers[PHASE] = CLOSED
            integers[CALM_EVENTS] = 0
        elif score <= episode[PEAK_SCORE]:
            return NOTHING
    return _open(integers, episode, score) if flagged else NOTHING
