"""The moving tail: what it promises, what it learns, and what it must not learn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import expon

from streamlstm.core.compiled import compiled_with_arrays
from streamlstm.core.state import TAIL_SCALE, TAIL_START
from streamlstm.core.threshold import (
    LEARNING_RATE,
    SMALLEST_SHARE,
    TAIL_FACTOR,
    TAIL_PROBABILITY,
    TailParameters,
    learn_tail,
    score_at,
    tail_parameters,
    tail_probability,
)
from streamlstm.evaluation.surprise import surprise_curve
from streamlstm.training.calibrate import fit_tail
from tests.benchmarks.alarm_rate import shares

PARAMETERS = tail_parameters(2.0, 0.5, 1e-3)
STREAMS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "exponential": lambda rng, n: rng.exponential(size=n),
    "normal": lambda rng, n: np.abs(rng.normal(size=n)),
    "log-normal, in decades": lambda rng, n: in_decades(rng.lognormal(size=n)),
    "Student t, in decades": lambda rng, n: in_decades(np.abs(rng.standard_t(3, size=n))),
    "gamma": lambda rng, n: rng.gamma(4.0, size=n),
}


def in_decades(raw: np.ndarray) -> np.ndarray:
    """Return the surprise of raw values by the first 20,000, as a channel does."""
    return surprise_curve(raw[:20_000])(raw)


def tail(start: float = 2.0, scale: float = 0.5) -> np.ndarray:
    """Return a tail."""
    return np.array([start, scale], np.float32)


def probability(score: float, tail: np.ndarray, parameters: TailParameters = PARAMETERS) -> float:
    """Return the tail probability of a score."""
    return float(tail_probability(np.float32(score), tail, parameters))


@compiled_with_arrays
def follow(scores: NDArray[np.float32], parameters: TailParameters) -> NDArray[np.float32]:
    """Return a new key's tail after each score, all learned but those that are flagged."""
    tail = np.array([parameters.start, parameters.scale], np.float32)
    after = np.empty((len(scores), 2), np.float32)
    for i, score in enumerate(scores):
        if tail_probability(score, tail, parameters) > parameters.alarm_rate:
            learn_tail(score, tail, parameters.learning_rate, parameters)
        after[i] = tail
    return after


def learn(score: float, tail: np.ndarray, parameters: TailParameters = PARAMETERS) -> None:
    """Move a tail at its usual rate."""
    learn_tail(np.float32(score), tail, parameters.learning_rate, parameters)


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize(("promised", "events"), [(1e-2, 100_000), (1e-3, 400_000), (1e-4, 2_000_000)])
def test_flagged_share_of_a_stationary_stream_keeps_the_promise(stream: str, promised: float, events: int) -> None:
    """Whatever the tail of the raw values, the share flagged is between .25 and 1.7 times the promised one."""
    scores = STREAMS[stream](np.random.default_rng(0), events + 20_000)
    parameters = tail_parameters(*fit_tail(scores[:20_000]), promised)
    assert 0.25 < shares(scores[20_000:], parameters)[0] / promised < 1.7


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_start_that_is_off_is_forgotten(stream: str, factor: float) -> None:
    """After some dozens of promised alarms it makes no difference whether a new key's tail was too low or too high."""
    scores = STREAMS[stream](np.random.default_rng(3), 100_000)
    start, scale = fit_tail(scores[:20_000])
    live = scores[20_000:].astype(np.float32)
    right, off = (follow(live, tail_parameters(by * start, by * scale, 1e-3))[-1] for by in (1.0, factor))
    assert off == pytest.approx(right, rel=0.1)


@pytest.mark.parametrize("rate", [1e-2, 1e-3])
def test_tail_that_learns_an_exponential_stream_finds_its_quantile_and_scale(rate: float) -> None:
    """Although flagged scores are left out, the start settles at its level's quantile, the scale at that tail's."""
    parameters = tail_parameters(0.5, 0.5, rate)
    scores = expon.rvs(size=400_000, random_state=np.random.default_rng(1)).astype(np.float32)
    start, scale = follow(scores, parameters)[50_000:].mean(axis=0, dtype=np.float64)
    true = expon.isf(min(TAIL_FACTOR * rate, TAIL_PROBABILITY))
    assert start == pytest.approx(true, rel=0.05)
    assert scale == pytest.approx(1.0, rel=0.1)


def test_probability_falls_from_one_at_zero_through_the_tail() -> None:
    """It is 1 at score 0, the level at the start of the tail, and exponential beyond."""
    level = TAIL_FACTOR * 1e-3
    assert probability(0.0, tail()) == probability(-3.0, tail()) == 1.0
    assert probability(2.0, tail()) == pytest.approx(level, rel=1e-5)
    assert probability(2.0 + 0.5 * 3, tail()) == pytest.approx(level * expon.sf(3), rel=1e-5)
    found = [probability(score, tail()) for score in np.linspace(0, 20, 500)]
    assert (np.diff(found) < 0).all()
    assert probability(1e6, tail()) > 0


def test_score_at_a_probability_has_that_probability() -> None:
    """The threshold shown with a score is where an alert would open."""
    for wanted in (9e-3, 1e-3, 1e-6):
        score = score_at(np.float32(wanted), tail(), PARAMETERS)
        assert probability(score, tail()) == pytest.approx(wanted, rel=1e-4)


def test_new_keys_tail_is_the_calibrated_one_further_out() -> None:
    """Its start is the calibrated tail's quantile, its scale that tail's."""
    parameters = tail_parameters(2.0, 0.5, 1e-4)
    above = TAIL_FACTOR * 1e-4 / TAIL_PROBABILITY
    assert parameters.start == pytest.approx(2 + 0.5 * -np.log(above), rel=1e-5)
    assert parameters.scale == 0.5


def test_new_keys_tail_is_the_calibrated_one_where_alarms_may_be_frequent() -> None:
    """The tail never begins below the 95 % quantile."""
    parameters = tail_parameters(2.0, 0.5, 1e-2)
    assert (parameters.start, parameters.scale) == (2.0, 0.5)
    assert parameters.level == np.float32(TAIL_PROBABILITY)


def test_learning_from_a_low_score_moves_the_start_down_and_leaves_the_scale() -> None:
    """Below the start there is no excess to learn from."""
    learned = tail()
    learn(1.0, learned)
    assert learned[TAIL_START] == pytest.approx(2.0 - LEARNING_RATE * 0.5 * 0.009 / 0.999)
    assert learned[TAIL_SCALE] == 0.5


def test_learning_from_a_score_of_any_height_moves_the_tail_by_a_bounded_step() -> None:
    """An excess counts as no more than the threshold's, so that one event cannot raise the threshold at will."""
    high, absurd = tail(), tail()
    learn(2.0 + 0.5 * float(PARAMETERS.largest_excess), high)
    learn(1e30, absurd)
    assert absurd.tolist() == pytest.approx(high.tolist())
    assert high[TAIL_START] == pytest.approx(2.0 + LEARNING_RATE * 0.5, rel=1e-3)
    assert 0.5 < high[TAIL_SCALE] < 0.53
    assert score_at(PARAMETERS.alarm_rate, tail(), PARAMETERS) == pytest.approx(
        2.0 + 0.5 * float(PARAMETERS.largest_excess)
    )


def test_learning_from_silence_keeps_start_and_scale_above_their_floors() -> None:
    """A stream of zeros or of one score leads to a narrow tail, never to none."""
    parameters = tail_parameters(2.0, 0.5, 1e-2)
    learned = tail()
    for _ in range(20_000):
        learn(0.0, learned, parameters)
    assert learned[TAIL_START] == np.float32(1e-3)
    for _ in range(2_000):
        learn(learned[TAIL_START] * 1.0001, learned, parameters)
    assert learned[TAIL_SCALE] == np.float32(SMALLEST_SHARE) * parameters.scale


@pytest.mark.parametrize("rate", [2e-2, 1e-2, 1e-3, 1e-5])
def test_mean_excess_is_that_of_the_exponential_that_is_learned(rate: float) -> None:
    """It is the mean excess of those that are not flagged."""
    parameters = tail_parameters(1.0, 1.0, rate)
    excess = expon.rvs(size=400_000, random_state=np.random.default_rng(2))
    assert parameters.mean_excess == pytest.approx(excess[excess < parameters.largest_excess].mean(), abs=5e-3)


def test_new_normal_is_learned_as_slowly_as_alarms_are_promised() -> None:
    """A long episode must not teach within seconds a tail that took hours."""
    rates = [tail_parameters(1.0, 1.0, rate).adapting_rate for rate in (1e-6, 1e-5, 1e-4, 4e-2)]
    assert rates == sorted(rates)
    assert rates[1] == pytest.approx(10 * rates[0])
    assert rates[-1] == np.float32(LEARNING_RATE)


@pytest.mark.parametrize("rate", [0.0, -1e-3, TAIL_PROBABILITY, 1.0, float("nan")])
def test_alarm_rate_outside_the_tail_is_refused(rate: float) -> None:
    """Above .05 there is no measured tail, at 0 no alarm."""
    with pytest.raises(ValueError, match="alarm rate"):
        tail_parameters(1.0, 1.0, rate)
