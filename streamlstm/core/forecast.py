"""What the model expects: forecasts for the next L events, kept until those events arrive.

The forecast for horizon l (1…L) made at event n waits in slot n mod l of that horizon's ring; event
n + l takes it from there, just before its own forecast for n + 2l overwrites it. Nothing is moved.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.arithmetic import copy, softplus32
from streamlstm.core.compiled import compiled
from streamlstm.core.model import Model
from streamlstm.core.step import add_product

SMALLEST_SCALE = 0.05  # in training deviations; recipe

_F = np.float32


@compiled
def slot(event: int, horizon: int, values: int) -> int:
    """Return where a horizon's forecast for ``event`` starts: D locations, then D scales."""
    return (horizon * (horizon - 1) // 2 + event % horizon) * 2 * values


@compiled
def write_errors(
    errors: NDArray[np.float32],
    waiting: NDArray[np.float32],
    event: int,
    inputs: NDArray[np.float32],
    present: NDArray[np.bool_],
    centre: NDArray[np.float32],
) -> None:
    """Write the L·D errors of an event against the forecasts made for it.

    An error is (x − μ)/√s minus its mean on held-out data; a missing value has error 0. Dividing by
    √s, not s: recipe, measured (the full scale over-trusts calm stretches).
    """
    values = present.shape[0]
    for horizon in range(1, errors.shape[0] // values + 1):
        start = slot(event, horizon, values)
        for d in range(values):
            j = (horizon - 1) * values + d
            if present[d]:
                location, scale = waiting[start + d], waiting[start + values + d]
                errors[j] = (inputs[d] - location) / np.sqrt(scale) - centre[j]
            else:
                errors[j] = _F(0.0)


@compiled
def write_forecasts(
    waiting: NDArray[np.float32],
    event: int,
    values: int,
    hidden: NDArray[np.float32],
    model: Model,
    head: NDArray[np.float32],
) -> None:
    """Forecast the L events after ``event`` from the top layer's hidden state (H,).

    ``head`` is scratch space, (2·L·D,).
    """
    copy(head, model.head_bias)
    add_product(head, hidden, model.head)
    half = head.shape[0] // 2
    locations, scales = head[:half], head[half:]
    for j in range(half):  # apart from the copying, so that it runs in vector units
        scales[j] = softplus32(scales[j]) + _F(SMALLEST_SCALE)
    for horizon in range(1, model.horizon + 1):
        start, first = slot(event, horizon, values), (horizon - 1) * values
        copy(waiting[start:], locations[first : first + values])
        copy(waiting[start + values :], scales[first : first + values])
