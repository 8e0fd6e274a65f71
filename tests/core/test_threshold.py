"""The moving tail: what it promises, what it learns, and what it must not learn."""

from __future__ import annotations

import numpy as np
import pytest

from streamlstm.core.state import TAIL_SCALE, TAIL_START
from streamlstm.core.threshold import (
    FASTEST_LEARNING,
    LARGEST_EXCESS,
    SMALLEST_SHARE,
    TAIL_PROBABILITY,
    TailParameters,
    learn_tail,
    score_at,
    tail_parameters,
    tail_probability,
)


def tail(start: float = 2.0, scale: float = 0.5) -> np.ndarray:
    """Return a tail."""
    return np.array([start, scale], np.float32)


def probability(score: float, tail: np.ndarray) -> float:
    """Return the tail probability of a score."""
    return float(tail_probability(np.float32(score), tail))


def flagged_share(scores: np.ndarray, tail: np.ndarray, parameters: TailParameters) -> float:
    """Return the share of scores flagged, learning from all others."""
    flagged = 0
    for score in scores.astype(np.float32):
        if tail_probability(score, tail) <= parameters.alarm_rate:
            flagged += 1
        else:
            learn_tail(score, tail, parameters)
    return flagged / len(scores)


@pytest.mark.parametrize(("promised", "events"), [(1e-2, 50_000), (1e-3, 200_000)])
def test_flagged_share_of_a_stationary_stream_keeps_the_promise(promised: float, events: int) -> None:
    """On exponential scores, from a start that is twice off, the share flagged is within 1.5 times the promised one."""
    scores = np.random.default_rng(0).exponential(0.3, events)
    parameters = tail_parameters(start=0.5, scale=0.6, alarm_rate=promised)
    learned = tail(0.5, 0.6)
    flagged_share(scores[: events // 10], learned, parameters)
    share = flagged_share(scores[events // 10 :], learned, parameters)
    assert promised / 1.5 < share < promised * 1.5


def test_tail_that_learns_a_stationary_stream_finds_its_quantile_and_scale() -> None:
    """The start settles at the 95 % quantile, the scale at the mean excess."""
    scores = np.random.default_rng(1).exponential(0.3, 20_000)
    parameters = tail_parameters(start=2.0, scale=1.0, alarm_rate=1e-3)
    learned = tail(2.0, 1.0)
    starts, scales = [], []
    for score in scores.astype(np.float32):
        learn_tail(score, learned, parameters)
        starts.append(learned[TAIL_START])
        scales.append(learned[TAIL_SCALE])
    assert np.mean(starts[5000:]) == pytest.approx(0.3 * np.log(20), rel=0.1)
    assert np.mean(scales[5000:]) == pytest.approx(0.3, rel=0.2)


def test_probability_falls_from_one_at_zero_through_the_tail() -> None:
    """It is 1 at score 0, .05 at the start of the tail, and falls by e per scale beyond."""
    assert probability(0.0, tail()) == probability(-3.0, tail()) == 1.0
    assert probability(2.0, tail()) == pytest.approx(TAIL_PROBABILITY, rel=1e-5)
    assert probability(2.0 + 0.5 * 3, tail()) == pytest.approx(TAIL_PROBABILITY * np.exp(-3), rel=1e-5)
    found = [probability(score, tail()) for score in np.linspace(0, 20, 500)]
    assert (np.diff(found) < 0).all()
    assert probability(1e6, tail()) > 0


def test_score_at_a_probability_has_that_probability() -> None:
    """The threshold shown with a score is where an alert would open."""
    for wanted in (0.04, 1e-2, 1e-3, 1e-6):
        assert probability(score_at(np.float32(wanted), tail()), tail()) == pytest.approx(wanted, rel=1e-4)


def test_learning_from_a_low_score_moves_the_start_down_and_leaves_the_scale() -> None:
    """Below the start there is no excess to learn from."""
    learned, parameters = tail(), tail_parameters(2.0, 0.5, 1e-3)
    learn_tail(np.float32(1.0), learned, parameters)
    assert learned[TAIL_START] == pytest.approx(2.0 - parameters.learning_rate * 0.5 * 0.05)
    assert learned[TAIL_SCALE] == 0.5


def test_learning_from_a_score_of_any_height_moves_the_tail_by_a_bounded_step() -> None:
    """An excess counts as some scales at most, so that one event cannot raise the threshold at will."""
    parameters = tail_parameters(2.0, 0.5, 1e-3)
    high, absurd = tail(), tail()
    learn_tail(np.float32(2.0 + 0.5 * LARGEST_EXCESS), high, parameters)
    learn_tail(np.float32(1e30), absurd, parameters)
    assert absurd.tolist() == high.tolist()
    assert high[TAIL_START] == pytest.approx(2.0 + parameters.learning_rate * 0.5 * 0.95)
    assert 0.5 < high[TAIL_SCALE] < 0.6


def test_learning_from_silence_keeps_start_and_scale_above_their_floors() -> None:
    """A stream of zeros or of one score leads to a narrow tail, never to none."""
    parameters = tail_parameters(2.0, 0.5, 1e-3)
    learned = tail()
    for _ in range(20_000):
        learn_tail(np.float32(0.0), learned, parameters)
    assert learned[TAIL_START] == np.float32(1e-3)
    for _ in range(2_000):
        learn_tail(learned[TAIL_START] * np.float32(1.0001), learned, parameters)
    assert learned[TAIL_SCALE] == np.float32(SMALLEST_SHARE) * np.float32(0.5)


@pytest.mark.parametrize("rate", [2e-2, 1e-2, 1e-3, 1e-5])
def test_mean_excess_is_that_of_the_exponential_that_is_learned(rate: float) -> None:
    """It is the mean of the capped excess over those that are not flagged."""
    excess = np.random.default_rng(2).exponential(1.0, 400_000)
    learned = np.minimum(excess[excess < np.log(TAIL_PROBABILITY / rate)], LARGEST_EXCESS)
    assert tail_parameters(1.0, 1.0, rate).mean_excess == pytest.approx(learned.mean(), abs=5e-3)


def test_tail_asked_for_rarer_alarms_learns_more_slowly() -> None:
    """The memory is tied to the promise, and never shorter than some thousand events."""
    rates = [tail_parameters(1.0, 1.0, rate).learning_rate for rate in (1e-6, 1e-5, 1e-4, 4e-2)]
    assert rates == sorted(rates)
    assert rates[1] == pytest.approx(10 * rates[0])
    assert rates[-1] == np.float32(FASTEST_LEARNING)


@pytest.mark.parametrize("rate", [0.0, -1e-3, TAIL_PROBABILITY, 1.0, float("nan")])
def test_alarm_rate_outside_the_tail_is_refused(rate: float) -> None:
    """Above .05 there is no measured tail, at 0 no alarm."""
    with pytest.raises(ValueError, match="alarm rate"):
        tail_parameters(1.0, 1.0, rate)
