"""The life of an episode: opened, held, updated, resolved, cooled down."""

from __future__ import annotations

import numpy as np
import pytest

from streamlstm.core.alert import (
    CLOSED,
    COOLING,
    NOTHING,
    OPEN,
    OPENED,
    PAUSE_EVENTS,
    RESOLVED,
    UPDATED,
    advance_episode,
    alert_id,
    episode_parameters,
)
from streamlstm.core.state import (
    EPISODE_EVENTS,
    INTEGERS,
    LAST_OFFSET,
    LAST_TIMESTAMP_MS,
    OPENED_OFFSET,
    OPENED_TIMESTAMP_MS,
    PEAK_SCORE,
    PHASE,
)

RATE = np.float32(1e-3)
FLAGGED, WARY, CALM = 1e-4, 5e-3, 0.5  # probabilities: below the rate, within a decade of it, above


class Episode:
    """A row's episode, advanced event by event; offsets count on from 100."""

    def __init__(self, *, resolve: int = 3, cooldown: int = 5, hold: int = 100, rate: float = RATE) -> None:
        self.parameters = episode_parameters(float(rate), resolve, cooldown, hold)
        self.integers = np.zeros(INTEGERS, np.int64)
        self.integers[LAST_OFFSET] = 99
        self.floats = np.zeros(2, np.float32)

    def feed(self, *events: tuple[float, float]) -> list[int]:
        """Advance by events of (probability, score); return the actions."""
        actions = []
        for probability, score in events:
            self.integers[LAST_OFFSET] += 1
            self.integers[LAST_TIMESTAMP_MS] = 1000 * self.integers[LAST_OFFSET]
            p, s = np.float32(probability), np.float32(score)
            actions.append(advance_episode(self.integers, self.floats, s, p, p, self.parameters))
        return actions

    @property
    def phase(self) -> int:
        """The phase now."""
        return int(self.integers[PHASE])


def test_episode_opens_at_the_alarm_rate_and_notes_where() -> None:
    """A probability equal to the rate opens; the event that opened is remembered to the end."""
    episode = Episode()
    assert episode.feed((0.0011, 3.0), (RATE, 4.0), (FLAGGED, 4.5)) == [NOTHING, OPENED, NOTHING]
    assert episode.integers[OPENED_OFFSET] == 101
    assert episode.integers[OPENED_TIMESTAMP_MS] == 101_000
    assert episode.integers[EPISODE_EVENTS] == 2
    assert episode.floats[PEAK_SCORE] == 4.5


def test_episode_resolves_after_calm_events_in_a_row() -> None:
    """A wary event (within a decade of the rate) is not calm, and starts the count of calm ones anew."""
    episode = Episode(resolve=3)
    calm = (CALM, 1.0)
    assert episode.feed((FLAGGED, 4.0), calm, calm, (WARY, 2.0), calm, calm) == [OPENED] + [NOTHING] * 5
    assert episode.feed(calm) == [RESOLVED]
    assert episode.phase == COOLING
    assert episode.integers[OPENED_OFFSET] == 100


@pytest.mark.parametrize("resolve", [4, 64, 288, 1000])
def test_normal_events_end_an_episode_however_many_must_be_calm(resolve: int) -> None:
    """With tail probabilities as a normal stream has them, in the median within thrice as many events as it takes."""
    rng = np.random.default_rng(resolve)
    took = []
    for _ in range(31):
        episode = Episode(resolve=resolve)
        episode.feed((FLAGGED, 4.0))
        actions = episode.feed(*((p, 1.0) for p in rng.uniform(1e-9, 1, size=20 * resolve).tolist()))
        took.append(actions.index(RESOLVED))
    assert np.median(took) < 3 * resolve


@pytest.mark.parametrize(("rate", "calm_above"), [(1e-3, 1e-2), (1e-2, 0.05)])
def test_calm_begins_a_decade_above_the_rate_but_within_the_tail(rate: float, calm_above: float) -> None:
    """Hysteresis is one decade, and never asks for more than the tail can say."""
    episode = Episode(resolve=1, rate=rate)
    assert episode.feed((rate, 4.0), (0.999 * calm_above, 2.0)) == [OPENED, NOTHING]
    assert episode.feed((1.001 * calm_above, 2.0)) == [RESOLVED]


def test_flagged_event_while_cooling_opens_only_above_the_last_peak() -> None:
    """After an episode the same again is no news, worse is, at once."""
    episode = Episode(resolve=1, cooldown=5)
    episode.feed((FLAGGED, 4.0), (CALM, 1.0))
    assert episode.feed((FLAGGED, 3.9), (FLAGGED, 4.0)) == [NOTHING, NOTHING]
    assert episode.phase == COOLING
    assert episode.feed((FLAGGED, 4.1)) == [OPENED]
    assert episode.integers[OPENED_OFFSET] == 104


def test_score_above_the_last_peak_while_cooling_needs_a_flag_to_open() -> None:
    """A high score that is usual for the key by now opens nothing."""
    episode = Episode(resolve=1)
    episode.feed((FLAGGED, 4.0), (CALM, 1.0))
    assert episode.feed((CALM, 9.0)) == [NOTHING]


@pytest.mark.parametrize("cooldown", [1, 5])
def test_flagged_event_after_the_cool_down_opens_again(cooldown: int) -> None:
    """The cool-down ends with its last event; that one may open, as any event later."""
    episode = Episode(resolve=1, cooldown=cooldown)
    episode.feed((FLAGGED, 4.0), (CALM, 1.0))
    assert episode.feed(*[(FLAGGED, 3.0)] * cooldown) == [NOTHING] * (cooldown - 1) + [OPENED]


def test_phase_is_closed_again_after_a_calm_cool_down() -> None:
    """Cooling ends by itself."""
    episode = Episode(resolve=1, cooldown=4)
    episode.feed((FLAGGED, 4.0), (CALM, 1.0), *[(CALM, 1.0)] * 3)
    assert episode.phase == COOLING
    episode.feed((CALM, 1.0))
    assert episode.phase == CLOSED


def test_update_comes_with_each_decade_above_the_last_report() -> None:
    """A score a decade above the last reported one is news; the same height again is not."""
    episode = Episode()
    scores = [4.0, 4.9, 5.0, 5.9, 5.0, 7.5, 8.4, 8.5]
    actions = episode.feed(*[(FLAGGED, score) for score in scores])
    assert actions == [OPENED, NOTHING, UPDATED, NOTHING, NOTHING, UPDATED, NOTHING, UPDATED]
    assert episode.floats[PEAK_SCORE] == 8.5


def test_episode_older_than_the_hold_says_so_once() -> None:
    """The first event after hold_events is an update, and later ones are not, unless they are worse."""
    episode = Episode(hold=4)
    actions = episode.feed(*[(FLAGGED, 4.0), (CALM, 1.0)] * 4)
    assert actions == [OPENED, NOTHING, NOTHING, NOTHING, UPDATED, NOTHING, NOTHING, NOTHING]
    assert episode.phase == OPEN


def test_alert_id_is_where_the_episode_opened() -> None:
    """The id is a place in the log, so that a retry makes the same one."""
    assert alert_id("events", 3, 1042) == "events:3:1042"


@pytest.mark.parametrize(("quiet", "follows"), [(2, False), (3, True), (50, True)])
def test_event_flagged_after_a_lull_opens_the_next_episode(quiet: int, follows: bool) -> None:
    """An alert that is open for want of calm, and quiet for itself, does not hide the next fault."""
    episode = Episode(resolve=3)
    episode.feed((FLAGGED, 6.0), (FLAGGED, 7.0))
    assert episode.feed(*[(WARY, 3.0)] * quiet) == [NOTHING] * quiet
    (action,) = episode.feed((FLAGGED, 5.0))
    assert action == (OPENED if follows else NOTHING)
    assert episode.phase == OPEN
    assert episode.integers[OPENED_OFFSET] == (102 + quiet if follows else 100)
    assert episode.integers[EPISODE_EVENTS] == (1 if follows else 3 + quiet)
    assert episode.floats[PEAK_SCORE] == (5.0 if follows else 7.0)


@pytest.mark.parametrize(
    ("quiet", "score", "action"),
    [
        (PAUSE_EVENTS - 1, 7.0, UPDATED),  # the same fault, growing
        (PAUSE_EVENTS, 7.0, OPENED),
        (PAUSE_EVENTS, 6.9, NOTHING),
    ],
)
def test_event_a_decade_worse_after_a_pause_opens_the_next_episode(quiet: int, score: float, action: int) -> None:
    """A slight alert that is open does not hide a grave fault, though the lull was far shorter than what ends it."""
    episode = Episode(resolve=1000)
    episode.feed((FLAGGED, 6.0), *[(WARY, 3.0)] * quiet)
    assert episode.feed((FLAGGED, score)) == [action]
    assert episode.feed((FLAGGED, 8.9))[0] != OPENED


def test_lull_is_counted_from_the_last_flagged_event() -> None:
    """Flagged events near one another are one fault, however long; and the next episode has a lull of its own."""
    episode = Episode(resolve=3)
    episode.feed((FLAGGED, 6.0))
    pulses = [(WARY, 3.0), (WARY, 3.0), (FLAGGED, 6.0)] * 5
    assert OPENED not in episode.feed(*pulses)
    assert episode.feed(*[(WARY, 3.0)] * 3, (FLAGGED, 6.0), *pulses).count(OPENED) == 1


def test_cool_down_says_nothing_of_a_later_lull() -> None:
    """What is left of it does not count as events without a flagged one."""
    episode = Episode(resolve=3, cooldown=100)
    assert episode.feed((FLAGGED, 6.0), *[(CALM, 1.0)] * 3)[-1] == RESOLVED
    assert episode.feed((FLAGGED, 7.0), (FLAGGED, 7.0)) == [OPENED, NOTHING]
