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
from streamlstm.core.step import add_products

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
        start, first = slot(event, horizon, values), (horizon - 1) * values
        locations, scales = waiting[start:], waiting[start + values :]
        of_horizon, usual = errors[first:], centre[first:]
        for d in range(values):  # present or not: so it runs in vector units
            of_horizon[d] = (inputs[d] - locations[d]) / np.sqrt(scales[d]) - usual[d]
        for d in range(values):
            of_horizon[d] = of_horizon[d] if present[d] else _F(0.0)


@compiled
def forecast(head: NDArray[np.float32], hidden: NDArray[np.float32], model: Model) -> None:
    """Write what is expected after n events, (n, 2·L·D), from the top layer's hidden states (n, H): all locations, then
    all scales, horizon by horizon."""
    half = head.shape[1] // 2
    for i in range(head.shape[0]):
        copy(head[i], model.head_bias)
    add_products(head, hidden, model.head)
    for i in range(head.shape[0]):
        scales = head[i, half:]
        for j in range(half):
            scales[j] = softplus32(scales[j]) + _F(SMALLEST_SCALE)


@compiled
def write_forecasts(waiting: NDArray[np.float32], event: int, values: int, head: NDArray[np.float32]) -> None:
    """Put the forecasts of the L events after ``event``, (2·L·D,) of :func:`forecast`, where they wait."""
    half = head.shape[0] // 2
    for horizon in range(1, half // values + 1):
        start, first = slot(event, horizon, values), (horizon - 1) * values
        copy(waiting[start:], head[first : first + values])
        copy(waiting[start + values :], head[half + first : half + first + values])
