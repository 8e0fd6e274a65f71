"""Model inputs: squashed values, mask, gap and calendar, each at its place."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.core.feature import (
    DAY_MS,
    LINEAR_RANGE,
    MAX_GAP_INPUT,
    FeatureParameters,
    input_width,
    squash,
    unsquash,
    write_inputs,
)
from tests.builders import START_MS

NAN = math.nan


def parameters(**changes: object) -> FeatureParameters:
    """Return parameters of two channels, and of one key with a scale of its own."""
    plain = FeatureParameters(
        mean=np.array([[10.0, 2.0], [0.0, 0.0]]),
        deviation=np.array([[2.0, 0.5], [1.0, 1.0]]),
        frame_samples=1,
        has_mask=False,
        has_gap=False,
        has_calendar=False,
        typical_gap_ms=1000.0,
    )
    return plain._replace(**changes)


def inputs_of(
    values: list[float],
    parameters: FeatureParameters,
    *,
    gap_ms: float = 1000.0,
    timestamp_ms: int = 0,
    scaler: int = 0,
) -> list[float]:
    """Return the inputs of one event."""
    p = parameters
    width = input_width(len(values), has_mask=p.has_mask, has_gap=p.has_gap, has_calendar=p.has_calendar)
    inputs, present = np.full(width, NAN, np.float32), np.zeros(len(values), np.bool_)
    write_inputs(inputs, present, np.array(values), gap_ms, timestamp_ms, scaler, p)
    assert present.tolist() == [not math.isnan(value) for value in values]
    return inputs.tolist()


def test_squash_within_three_deviations_changes_nothing() -> None:
    """The linear range is passed through, ends included."""
    for value in (-LINEAR_RANGE, -1.5, 0.0, 0.1, LINEAR_RANGE):
        assert squash(value) == np.float32(value)


def test_squash_beyond_three_deviations_is_logarithmic() -> None:
    """Beyond the range it is sign(v)(3 + log(1 + |v| − 3))."""
    assert squash(10.0) == pytest.approx(3 + math.log(8.0), rel=1e-6)
    assert squash(-10.0) == -squash(10.0)


@pytest.mark.parametrize("huge", [1e7, 1e308, math.inf])
def test_squash_of_any_size_is_capped(huge: float) -> None:
    """However large a value, its input stays below 17."""
    assert squash(huge) == squash(1e6)
    assert squash(-huge) == -squash(1e6)
    assert squash(huge) < 17


@settings(deadline=None)  # the first call compiles
@given(st.floats(-1e6, 1e6))
def test_unsquash_of_squashed_returns_the_deviations(deviations: float) -> None:
    """The two are inverse up to float32 rounding, which the exponential magnifies."""
    assert unsquash(squash(deviations)) == pytest.approx(deviations, rel=5e-6, abs=1e-30)


@settings(deadline=None)  # the first call compiles
@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_squash_of_a_larger_value_is_not_smaller(one: float, other: float) -> None:
    """Squashing keeps the order, across the seam at three deviations too."""
    low, high = sorted((one, other))
    assert squash(low) <= squash(high) + 1e-6


def test_inputs_of_plain_event_are_its_scaled_values() -> None:
    """Without options the inputs are (value − mean) / deviation, by the key's own row of scales."""
    assert inputs_of([12.0, 1.0], parameters()) == [1.0, -2.0]
    assert inputs_of([1.0, -2.0], parameters(), scaler=1) == [1.0, -2.0]


def test_inputs_of_a_frame_use_the_scale_of_their_channel() -> None:
    """Samples of one channel stand together and share its scale."""
    p = parameters(frame_samples=2)
    assert inputs_of([12.0, 8.0, 2.5, 1.5], p) == [1.0, -1.0, 1.0, -1.0]


def test_inputs_of_missing_value_are_zero_and_masked() -> None:
    """A missing value reads 0, and the mask after the values tells it from a mean."""
    assert inputs_of([NAN, 2.0], parameters(has_mask=True)) == [0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("gap_ms", "expected"),
    [(-1.0, math.log(2.0)), (1000.0, math.log(2.0)), (0.0, 0.0), (7000.0, math.log(8.0)), (1e15, MAX_GAP_INPUT)],
)
def test_gap_input_is_the_log_of_typical_gaps_and_capped(gap_ms: float, expected: float) -> None:
    """It is log(1 + gap/typical); a first event counts as a typical gap, a long silence as the cap."""
    assert inputs_of([10.0, 2.0], parameters(has_gap=True), gap_ms=gap_ms)[2] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("days", "hours"), [(0, 0), (3, 6), (4, 13.5), (7, 23.99)])
def test_calendar_inputs_are_sine_and_cosine_of_day_and_week(days: float, hours: float) -> None:
    """Four inputs: day and week as a turn each (weeks begin on a Thursday, as 1970 did)."""
    timestamp_ms = int((days + hours / 24) * DAY_MS) + 70 * DAY_MS
    day, week = 2 * math.pi * hours / 24, 2 * math.pi * ((days + hours / 24) % 7) / 7
    found = inputs_of([10.0, 2.0], parameters(has_calendar=True), timestamp_ms=timestamp_ms)[2:]
    assert found == pytest.approx([math.sin(day), math.cos(day), math.sin(week), math.cos(week)], abs=2e-6)


def test_inputs_with_every_option_stand_in_documented_order() -> None:
    """Values, mask, gap, calendar: in this order."""
    p = parameters(has_mask=True, has_gap=True, has_calendar=True)
    found = inputs_of([12.0, NAN], p, gap_ms=0.0, timestamp_ms=START_MS // DAY_MS * DAY_MS)
    assert found[:5] == [1.0, 0.0, 1.0, 0.0, 0.0]
    assert found[5:7] == pytest.approx([0.0, 1.0], abs=1e-6)
    assert len(found) == 9


def test_inputs_of_huge_value_at_a_tiny_deviation_are_finite() -> None:
    """Not even 1e308 over a subnormal deviation, off a mean of −1e308, makes an infinite input."""
    p = parameters(mean=np.array([[-1e308, 0.0]]), deviation=np.array([[5e-324, 5e-324]]))
    assert np.isfinite(inputs_of([1e308, -1e308], p)).all()
