"""Elementary functions: as near to the truth as their docstrings say, and in order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from streamlstm.core.arithmetic import exp32, log32, sigmoid32, sine_of_turn32, softplus32, tanh32


def of_each(function: Callable[[np.float32], np.float32], x: np.ndarray) -> np.ndarray:
    """Return the function of each float32 of ``x``, as float64."""
    return np.array([function(value) for value in x], dtype=np.float64)


def floats(low: float, high: float, count: int = 4001) -> np.ndarray:
    """Return float32 numbers spread evenly, ends included."""
    return np.linspace(low, high, count).astype(np.float32)


def test_exp32_over_its_range_is_within_2e7_relative() -> None:
    """The relative error stays below 2e-7 from −87 to 87."""
    x = floats(-87, 87)
    truth = np.exp(x.astype(np.float64))
    assert np.abs(of_each(exp32, x) / truth - 1).max() < 2e-7


@pytest.mark.parametrize(("beyond", "end"), [(1e30, 87.0), (-1e30, -87.0), (np.inf, 87.0), (-np.inf, -87.0)])
def test_exp32_beyond_its_range_is_clipped(beyond: float, end: float) -> None:
    """An exponent of any size gives the value at the end of the range, never 0 or infinity."""
    assert exp32(np.float32(beyond)) == exp32(np.float32(end))
    assert 0 < exp32(np.float32(beyond)) < np.inf


def test_log32_over_all_magnitudes_is_within_3e7_relative() -> None:
    """The relative error stays below 3e-7 from the smallest normal number to the largest, and around 1."""
    magnitudes = np.geomspace(1.2e-38, 3.4e38, 4001).astype(np.float32)
    around_one = floats(0.5, 2.0)
    x = np.concatenate([magnitudes, around_one[around_one != 1]])
    truth = np.log(x.astype(np.float64))
    assert np.abs(of_each(log32, x) / truth - 1).max() < 3e-7
    assert log32(np.float32(1.0)) == 0.0


def test_tanh32_everywhere_is_within_3e7() -> None:
    """The absolute error stays below 3e-7, also near 0 and far out."""
    x = np.concatenate([floats(-20, 20), floats(-1e-3, 1e-3), np.float32([-1e30, 1e30])])
    assert np.abs(of_each(tanh32, x) - np.tanh(x.astype(np.float64))).max() < 3e-7


def test_sigmoid32_everywhere_is_within_2e7() -> None:
    """The absolute error stays below 2e-7 and the result between 0 and 1."""
    x = np.concatenate([floats(-40, 40), np.float32([-1e30, 1e30])])
    result = of_each(sigmoid32, x)
    assert np.abs(result - 1 / (1 + np.exp(-np.clip(x.astype(np.float64), -87, 87)))).max() < 2e-7
    assert result.min() >= 0
    assert result.max() <= 1


def test_softplus32_everywhere_is_within_3e7() -> None:
    """The error stays below 3e-7 of the larger of 1 and the result."""
    x = np.concatenate([floats(-80, 80), np.float32([-1e6, 1e6])])
    truth = np.logaddexp(0.0, x.astype(np.float64))
    assert (np.abs(of_each(softplus32, x) - truth) / np.maximum(truth, 1)).max() < 3e-7


def test_sine_of_turn32_over_a_turn_and_a_quarter_is_within_1e6() -> None:
    """The absolute error stays below 1e-6 on [0, 1.25), where a cosine is a sine a quarter turn on."""
    turn = floats(0, 1.25)[:-1]
    assert np.abs(of_each(sine_of_turn32, turn) - np.sin(2 * np.pi * turn.astype(np.float64))).max() < 1e-6


@pytest.mark.parametrize("function", [exp32, tanh32, sigmoid32, softplus32])
def test_function_of_ascending_numbers_never_falls_by_more_than_rounding(
    function: Callable[[np.float32], np.float32],
) -> None:
    """A larger argument gives no smaller result, but for the last bits."""
    result = of_each(function, floats(-30, 30))
    steps = np.diff(result) / np.maximum(np.abs(result[1:]), 1e-30)
    assert steps.min() > -3e-7
    assert result[-1] > result[0]


def test_function_of_float32_returns_float32() -> None:
    """No function widens to float64 for a float32 argument."""
    for function in (exp32, log32, tanh32, sigmoid32, softplus32, sine_of_turn32):
        function(np.float32(0.4))
        kinds = {str(s.return_type) for s in function.nopython_signatures if str(s.args[0]) == "float32"}
        assert kinds == {"float32"}
