"""What the threshold learns: drift, not the fault; and the old tail again when the world went back."""

from __future__ import annotations

import numpy as np

from streamlstm.core.alert import NOTHING, OPENED, RESOLVED, UPDATED, episode_parameters
from streamlstm.core.guard import is_adapting, judge_score
from streamlstm.core.state import INTEGERS, TAIL_FLOATS
from streamlstm.core.threshold import tail_parameters

USUAL, FAULT = 0.5, 3.0  # scores: calm, and flagged, by a tail of start 1 and scale .2
HOLD, RESOLVE, COOLDOWN = 40, 5, 10


class Key:
    """The threshold and the episode of one key, judged event by event as the walk does."""

    def __init__(self, hold: int = HOLD) -> None:
        self.integers = np.zeros(INTEGERS, np.int64)
        self.floats = np.zeros(2, np.float32)
        self.tails = np.array([1.0, 0.2, 0.0, 0.0, 0.0, 0.0], np.float32)
        self.flagged = 0
        self.episode = episode_parameters(1e-3, RESOLVE, COOLDOWN, hold)
        self.parameters = tail_parameters(1.0, 0.2, 1e-3)

    def feed(self, *scores: float) -> list[int]:
        """Judge scores and return the actions."""
        actions = []
        for number in scores:
            judged = judge_score(
                self.integers, self.tails, self.floats, np.float32(number), self.episode, self.parameters
            )
            self.flagged += judged[0] <= self.parameters.alarm_rate
            actions.append(judged[2])
        return actions

    @property
    def tail(self) -> list[float]:
        """The steady tail."""
        return self.tails[:TAIL_FLOATS].tolist()

    @property
    def adapting(self) -> bool:
        """Whether the tail in force learns from the episode that is open or has just ended."""
        return bool(is_adapting(self.integers, self.episode))


def test_usual_score_is_learned_and_a_flagged_one_is_not() -> None:
    """Outside an episode every event moves the tail but the one that opens."""
    key = Key()
    before = key.tail
    key.feed(USUAL)
    after = key.tail
    assert after != before
    assert key.feed(FAULT) == [OPENED]
    assert key.tail == after


def test_episode_shorter_than_the_hold_moves_nothing_until_it_has_cooled_down() -> None:
    """Neither its events nor those of its cool-down are learned, flagged or calm; the next one is."""
    key = Key()
    before = key.tail
    assert key.feed(FAULT, USUAL, FAULT, *[USUAL] * RESOLVE) == [OPENED, *[NOTHING] * (RESOLVE + 1), RESOLVED]
    assert key.feed(FAULT, *[USUAL] * (COOLDOWN - 2)) == [NOTHING] * (COOLDOWN - 1)
    assert key.tail == before
    key.feed(USUAL)
    assert key.tail != before
    assert not key.adapting


def test_episodes_far_apart_are_each_held_for_the_whole_hold() -> None:
    """After a cool-down in peace the count begins anew."""
    key = Key()
    for _ in range(4):
        key.feed(*[USUAL] * (RESOLVE + COOLDOWN + 1))
        before = key.tail
        key.feed(*[FAULT] * (HOLD - 5))
        assert key.tail == before


def test_episodes_in_one_anothers_cool_down_are_held_together() -> None:
    """A fault that comes and goes is held as long as one that stays, then learned."""
    key = Key()
    before = key.tail
    for peak in (FAULT, FAULT + 1, FAULT + 2, FAULT + 3):
        assert key.feed(peak, *[USUAL] * RESOLVE, *[USUAL] * 4)[0] == OPENED
    assert key.tail == before
    key.feed(FAULT + 4)
    assert key.tail != before
    assert key.adapting


def test_episode_older_than_the_hold_is_learned_until_it_is_normal() -> None:
    """The threshold rises from the first event after the hold, and the episode ends although the scores stay."""
    key = Key()
    before = key.tail
    assert key.feed(*[FAULT] * HOLD) == [OPENED] + [NOTHING] * (HOLD - 1)
    assert key.tail == before
    assert key.feed(FAULT) == [UPDATED]
    assert key.tail > before
    assert key.adapting
    actions = key.feed(*[FAULT] * 400)
    assert RESOLVED in actions
    assert OPENED not in actions
    assert key.tail[0] > 2


def test_world_that_went_back_has_its_old_tail_again() -> None:
    """After as many calm events, by the old tail, as end an episode, that tail is in force again, bit for bit."""
    key = Key()
    before = key.tail
    key.feed(*[FAULT] * (HOLD + 300))
    key.feed(*[USUAL] * (RESOLVE - 1))
    assert key.tail[0] > 2
    key.feed(USUAL)
    assert key.tail == before
    assert not key.adapting
    assert key.feed(FAULT + 1) == [OPENED]


def test_fault_right_after_the_way_back_is_held_anew() -> None:
    """The hold of the fault that went is not counted against the next one."""
    key = Key()
    before = key.tail
    assert key.feed(*[FAULT] * (HOLD + 3), *[USUAL] * RESOLVE)[-1] == RESOLVED
    assert key.tail == before
    assert key.feed(*[FAULT + 1] * 10)[0] == OPENED
    assert key.tail == before


def test_tail_kept_is_the_one_from_before_the_latest_fault() -> None:
    """What was learned in peace since an earlier, short episode is not lost."""
    key = Key()
    key.feed(FAULT, *[USUAL] * 100)
    before = key.tail
    key.feed(*[FAULT] * (HOLD + 300), *[USUAL] * RESOLVE)
    assert key.tail == before


def test_calm_events_must_be_in_a_row_to_bring_the_old_tail_back() -> None:
    """A single event of the new kind starts the count anew."""
    key = Key()
    key.feed(*[FAULT] * (HOLD + 300))
    key.feed(*([USUAL] * (RESOLVE - 1) + [FAULT]) * 5)
    assert key.tail[0] > 2


def test_short_episode_in_a_world_that_changed_keeps_the_way_back() -> None:
    """A spike on top of a long fault does not make the fault the tail to return to."""
    key = Key()
    key.feed(*[FAULT] * (HOLD + 300))
    assert OPENED in key.feed(FAULT + 6, *[FAULT] * 30)
    key.feed(*[USUAL] * (COOLDOWN + RESOLVE + HOLD))
    assert key.tail[0] < 2


def test_open_episode_flags_what_is_unusual_even_for_it_and_stays_open() -> None:
    """A long plateau is flagged at its beginning only, the steady tail learns nothing of it, and the alert lasts; what
    is worse after all that calm has an alert of its own."""
    key = Key(hold=10_000)
    key.feed(*[USUAL] * 20)
    before = key.tail
    assert key.feed(*[FAULT] * 2_000) == [OPENED] + [NOTHING] * 1_999
    assert 1 <= key.flagged <= 3
    assert key.tail == before
    flagged = key.flagged
    assert key.feed(2 * FAULT) == [OPENED]
    assert key.flagged == flagged + 1


def test_quick_tail_is_gone_with_the_cool_down() -> None:
    """The next fault, as high as the one before, opens a new alert."""
    key = Key(hold=10_000)
    key.feed(*[FAULT] * 2_000, *[USUAL] * (RESOLVE + COOLDOWN))
    assert key.feed(FAULT) == [OPENED]


def test_cluster_of_high_scores_counts_and_stretches_once() -> None:
    """By its highest score, as that one alone would; a score that climbs does not push the threshold before it."""
    climbing, alone = Key(), Key()
    for key, cluster in ((climbing, (1.05, 1.1, 1.2, 1.3)), (alone, (1.3, USUAL, USUAL, USUAL))):
        start, scale = key.tail
        assert key.feed(cluster[0]) == [NOTHING]
        assert key.tail[0] > start
        opened = key.tail[0]
        assert key.feed(*cluster[1:], *[USUAL] * (RESOLVE - 4)) == [NOTHING] * (RESOLVE - 1)
        assert key.tail[0] < opened
        assert key.tail[1] == scale
        key.feed(USUAL)
        assert key.tail[1] > scale
    assert abs(climbing.tail[1] - alone.tail[1]) < 0.01 * alone.tail[1]
    once = climbing.tail[1]
    climbing.feed(*[USUAL] * 50)
    assert climbing.tail[1] == once


def test_scores_that_stay_high_are_in_the_tail_no_more_often_than_they_can_raise_alerts() -> None:
    """Clusters as long as the wait for calm, at the tail's share of time, leave its start where it is."""
    key = Key(hold=10_000)
    length, every = RESOLVE + 1, round(1 / float(key.parameters.learned_share))
    key.feed(*([1.1] * length + [USUAL] * (every - length)) * 20)
    assert abs(key.tail[0] - 1.0) < 0.02


def test_start_rises_when_all_scores_are_above_it() -> None:
    """However long the clusters are: a level that is gone to in small steps is followed."""
    key = Key()
    before = key.tail[0]
    key.feed(*[1.1] * 500)
    assert key.tail[0] > before
