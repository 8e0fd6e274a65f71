"""Errors → distance → decades → score, and whose share an error is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from streamlstm.core.channels import CURVES, NAMES, Fitted, novelty, record, stillness
from streamlstm.core.score import SOFT_CAP, ScoreParameters, combine, mean_square, surprise, whiten, write_shares

KNOTS = np.float32([0.0, 1.0, 3.0])  # log of the raw value
SURPRISES = np.float32([0.5, 1.0, 2.0])
SLOPE = np.float32(0.25)


def decades(log_raw: float) -> float:
    """Return the surprise of a raw value given by its logarithm."""
    return float(surprise(np.float32(math.exp(log_raw)), KNOTS, SURPRISES, SLOPE))


def whitened_of(errors: np.ndarray, whitening: np.ndarray, present: list[bool]) -> tuple[np.ndarray, float]:
    """Return whitened errors and their mean square."""
    whitened = np.full((1, whitening.shape[1]), np.nan, np.float32)
    whiten(whitened, errors[None], whitening)
    return whitened[0], float(mean_square(whitened[0], np.array(present)))


def shares_of(errors: list[float], whitening: np.ndarray, values: int) -> list[float]:
    """Return each value's share of the errors, given horizon by horizon."""
    padded = np.zeros(len(whitening), np.float32)
    padded[: len(errors)] = errors
    whitened, _ = whitened_of(padded, whitening, [True] * values)
    shares = np.full(values, np.nan, np.float32)
    write_shares(shares, padded, whitened, whitening)
    return shares.tolist()


def test_distance_of_errors_under_their_covariance_is_mahalanobis() -> None:
    """With A·Aᵀ the inverse covariance, the distance is eᵀ C⁻¹ e per error."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    covariance = root @ root.T + np.eye(6)
    whitening = np.zeros((8, 6), np.float32)
    whitening[:6] = np.linalg.cholesky(np.linalg.inv(covariance))
    errors = np.concatenate([rng.normal(size=6), [0, 0]]).astype(np.float32)
    _, distance = whitened_of(errors, whitening, [True, True])
    assert distance == pytest.approx(errors[:6] @ np.linalg.inv(covariance) @ errors[:6] / 6, rel=1e-5)


def test_distance_with_a_value_missing_is_per_error_present() -> None:
    """Of two values one is missing: its errors are 0, and the mean is over the other's alone."""
    whitening = np.eye(4, dtype=np.float32)
    errors = np.float32([2.0, 0.0, 2.0, 0.0])
    _, distance = whitened_of(errors, whitening, [True, False])
    assert distance == 4.0


@pytest.mark.parametrize(
    ("log_raw", "expected"),
    [(-20.0, 0.5), (0.0, 0.5), (0.5, 0.75), (1.0, 1.0), (2.0, 1.5), (3.0, 2.0), (7.0, 3.0), (19.0, 6.0)],
)
def test_surprise_follows_the_curve_and_then_a_power_law(log_raw: float, expected: float) -> None:
    """Flat before the first knot, straight between knots, and on with the slope beyond the last."""
    assert decades(log_raw) == pytest.approx(expected, rel=1e-5)


def test_surprise_beyond_the_cap_grows_by_its_logarithm() -> None:
    """Above six decades growth is logarithmic, and without a jump at the cap."""
    assert decades(59.0) == pytest.approx(SOFT_CAP + math.log(1 + 16 - SOFT_CAP), rel=1e-5)
    assert decades(19.01) == pytest.approx(SOFT_CAP + 0.0025, rel=1e-4)


def test_surprise_of_zero_is_the_lowest() -> None:
    """A raw value of 0 has no logarithm and is simply the least surprising."""
    assert surprise(np.float32(0.0), KNOTS, SURPRISES, SLOPE) == SURPRISES[0]


def test_surprise_of_larger_raw_values_never_falls() -> None:
    """The curve is in order from end to end."""
    found = [decades(at) for at in np.linspace(-5, 80, 2000)]
    assert (np.diff(found) >= -1e-6).all()


def test_score_is_the_weighted_mean_of_the_channels_decades() -> None:
    """Each channel is read from its own curve, and weighs what it should; the last one is in decades, and added."""
    weights = np.arange(1, CURVES + 1, dtype=np.float32) / np.float32(10)
    empty = np.zeros((0, 0), np.float32)
    parameters = ScoreParameters(
        centre=np.zeros(1, np.float32),
        whitening=np.zeros((4, 1), np.float32),
        knots=np.tile(KNOTS, (CURVES, 1)) + np.arange(CURVES, dtype=np.float32)[:, None],
        surprises=np.tile(SURPRISES, (CURVES, 1)),
        slopes=np.full(CURVES, SLOPE, np.float32),
        weights=weights,
        fitted=Fitted(novelty.Fitted(np.zeros(0, np.float32), empty, empty), record.unfitted(1), stillness.unfitted(1)),
        span=1,
        warmup_events=0,
    )
    found, raw = np.full((2, len(NAMES)), np.nan, np.float32)
    raw[:CURVES], raw[CURVES:] = math.e**3, 0.75
    score = combine(found, raw, parameters)
    assert found == pytest.approx([2.0, 1.5, 1.0, 0.5, 0.5, 0.75], rel=1e-5)
    assert score == pytest.approx(found[:CURVES] @ weights + 0.75, rel=1e-6)


def test_shares_of_independent_errors_are_their_squares() -> None:
    """Errors (horizon by horizon) of value 0 weigh 9 + 1, of value 1 they weigh 25 + 5."""
    assert shares_of([3.0, 5.0, 1.0, math.sqrt(5)], np.eye(4, dtype=np.float32), 2) == pytest.approx([0.25, 0.75])


def test_shares_sum_to_one_and_are_never_negative() -> None:
    """A part that another error explains counts as none, and the rest still sums to one."""
    precision = np.array([[1.0, -0.9], [-0.9, 1.0]])
    whitening = np.zeros((4, 2), np.float32)
    whitening[:2] = np.linalg.cholesky(precision)
    shares = shares_of([5.0, 1.0], whitening, 2)
    assert shares == [1.0, 0.0]


def test_shares_without_any_error_are_equal() -> None:
    """Where nothing is off, no value is blamed more than another."""
    assert shares_of([0.0] * 4, np.eye(4, dtype=np.float32), 2) == [0.5, 0.5]
