"""Forecasts wait in rings of one slot per step ahead, and meet the event they were made for."""

from __future__ import annotations

import numpy as np
import pytest

from streamlstm.core.forecast import SMALLEST_SCALE, forecast, slot, write_errors, write_forecasts
from streamlstm.core.model import Model

VALUES, HORIZON, H = 2, 3, 4
WIDTH = HORIZON * (HORIZON + 1) * VALUES


def model(horizon: int = HORIZON) -> Model:
    """Return a model whose hidden state's first number becomes every location: j + h[0]."""
    errors = horizon * VALUES
    head = np.zeros((H, 2 * errors), np.float32)
    head[0, :errors] = 1.0
    return Model(
        weights=(np.zeros((4, 4 * H), np.float32),),
        biases=np.zeros((1, 4 * H), np.float32),
        head=head,
        head_bias=np.concatenate([np.arange(errors), np.full(errors, -100.0)]).astype(np.float32),
        embeddings=np.zeros((0, 8), np.float32),
        embedding_start=np.zeros(0, np.int64),
        horizon=horizon,
    )


def forecast_after(waiting: np.ndarray, event: int) -> None:
    """Forecast after an event whose hidden state is its number."""
    head = np.zeros((1, 2 * HORIZON * VALUES), np.float32)
    forecast(head, np.full((1, H), event, np.float32), model())
    write_forecasts(waiting, event, VALUES, head[0])


def errors_of(waiting: np.ndarray, event: int, inputs: list[float], centre: float = 0.0) -> np.ndarray:
    """Return the errors of an event, (horizon, value); NaN inputs are missing."""
    values = np.array(inputs, np.float32)
    errors = np.full(HORIZON * VALUES, np.nan, np.float32)
    centres = np.full(HORIZON * VALUES, centre, np.float32)
    write_errors(errors, waiting, event, np.nan_to_num(values), ~np.isnan(values), centres)
    return errors.reshape(HORIZON, VALUES)


@pytest.mark.parametrize("horizon", [1, 2, 4])
def test_slots_of_all_horizons_fill_the_triangle_without_overlap(horizon: int) -> None:
    """The forecasts outstanding at any event take 1 + 2 + … + L slots of their own."""
    for event in (0, 7, 100):
        taken = {slot(event + k, ahead, VALUES) for ahead in range(1, horizon + 1) for k in range(ahead)}
        assert sorted(taken) == list(range(0, horizon * (horizon + 1) * VALUES, 2 * VALUES))


def test_event_meets_the_forecasts_made_one_to_three_events_before() -> None:
    """The error for horizon l is against what was said l events ago, for each value by itself."""
    waiting = np.zeros(WIDTH, np.float32)
    for event in range(20):
        if event >= HORIZON:
            made = [
                [(event - ahead) + (ahead - 1) * VALUES + d for d in range(VALUES)] for ahead in range(1, HORIZON + 1)
            ]
            expected = (np.array([5.0, 6.0]) - made) / np.sqrt(SMALLEST_SCALE)
            assert np.allclose(errors_of(waiting, event, [5.0, 6.0]), expected, rtol=1e-6)
        forecast_after(waiting, event)


def test_scale_of_forecast_is_never_below_the_smallest() -> None:
    """However sure the head is, the scale keeps its floor."""
    waiting = np.zeros(WIDTH, np.float32)
    forecast_after(waiting, 0)
    assert waiting[slot(1, 1, VALUES) + VALUES] == np.float32(SMALLEST_SCALE)


def test_errors_are_centred_and_divided_by_the_root_of_the_scale() -> None:
    """An error is (x − μ)/√s minus its usual mean."""
    waiting = np.zeros(WIDTH, np.float32)
    for ahead in range(1, HORIZON + 1):
        start = slot(6, ahead, VALUES)
        waiting[start : start + 2 * VALUES] = [1.0, 2.0, 4.0, 16.0]
    errors = errors_of(waiting, 6, [7.0, 10.0], centre=0.5)
    assert errors.tolist() == [[6.0 / 2 - 0.5, 8.0 / 4 - 0.5]] * HORIZON


def test_error_of_missing_value_is_zero() -> None:
    """What was not measured cannot be off; the other value is judged all the same."""
    waiting = np.ones(WIDTH, np.float32)
    errors = errors_of(waiting, 3, [np.nan, 3.0], centre=0.25)
    assert errors.tolist() == [[0.0, 1.75]] * HORIZON
