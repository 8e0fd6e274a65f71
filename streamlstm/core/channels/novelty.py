"""How far the model's hidden state lies from the states it knows as normal, over half a period.

Source: the recipe: mean distance to the 5 nearest of 1,500 normal states, in 8 whitened principal
directions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.channels.seen import Seen, running_mean
from streamlstm.core.compiled import compiled
from streamlstm.core.step import add_product

NAME = "novelty"
WEIGHT = 1.0
DIRECTIONS = 8
REFERENCES = 1500
NEIGHBOURS = 5

_F = np.float32


class Fitted(NamedTuple):
    """``centre`` (P,), ``projection`` (H, P) and ``references`` (P, R), all float32; P is padded with zeros to a
    multiple of four. A state's place is its product with the projection, less the centre."""

    centre: NDArray[np.float32]
    projection: NDArray[np.float32]
    references: NDArray[np.float32]


def fit(hidden: NDArray[np.float32], seed: int) -> Fitted:
    """Fit on normal hidden states, (n, H): whitened directions, and a sample of the states."""
    centre = hidden.mean(axis=0, dtype=np.float64)
    _, deviations, directions = np.linalg.svd(hidden - centre, full_matrices=False)
    keep = min(DIRECTIONS, int((deviations > 1e-6 * deviations[0]).sum()) or 1)
    scale = np.maximum(deviations[:keep] / np.sqrt(max(len(hidden) - 1, 1)), 1e-6)
    projection = np.zeros((hidden.shape[1], -(-keep // 4) * 4))
    projection[:, :keep] = (directions[:keep] / scale[:, None]).T
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(hidden), size=min(REFERENCES, len(hidden)), replace=False)
    references = ((hidden[np.sort(chosen)] - centre) @ projection).T
    return Fitted(
        (centre @ projection).astype(np.float32),
        np.ascontiguousarray(projection, dtype=np.float32),
        np.ascontiguousarray(references, dtype=np.float32),
    )


def scratch_floats(fitted: Fitted) -> int:
    """Return how much scratch space :func:`observe` needs: a place, its distances, and the nearest of them."""
    return sum(fitted.references.shape) + NEIGHBOURS


@compiled
def _insert(nearest: NDArray[np.float32], square: np.float32) -> None:
    """Insert a value into ascending ones, if it is smaller than the last, which falls out."""
    if square < nearest[NEIGHBOURS - 1]:
        place = NEIGHBOURS - 1
        while place > 0 and nearest[place - 1] > square:
            nearest[place] = nearest[place - 1]
            place -= 1
        nearest[place] = square


@compiled
def nearest_mean(
    point: NDArray[np.float32], references: NDArray[np.float32], scratch: NDArray[np.float32]
) -> np.float32:
    """Return the mean distance of a point (P,) to its nearest references, given as (P, R); ``scratch``: (R + 5,).

    Four directions at a time, so that the sums of squares are loaded and stored a quarter as often.
    """
    squares, nearest = scratch[: references.shape[1]], scratch[references.shape[1] :]  # nearest: ascending
    squares[:] = _F(0.0)
    for p in range(0, references.shape[0], 4):
        a, b, c, d = point[p], point[p + 1], point[p + 2], point[p + 3]
        for r in range(references.shape[1]):
            e, f = references[p, r] - a, references[p + 1, r] - b
            g, h = references[p + 2, r] - c, references[p + 3, r] - d
            squares[r] += (e * e + f * f) + (g * g + h * h)
    nearest[:] = _F(np.inf)
    for square in squares:
        if square < nearest[NEIGHBOURS - 1]:
            _insert(nearest, square)
    total = _F(0.0)
    found = min(NEIGHBOURS, squares.shape[0])
    for square in nearest[:found]:
        total += np.sqrt(square)
    return total / _F(found)


@compiled
def observe(running: NDArray[np.float32], seen: Seen, fitted: Fitted, scratch: NDArray[np.float32]) -> np.float32:
    """Return the running mean of the hidden state's distance to normal states; see :func:`scratch_floats`."""
    directions = fitted.centre.shape[0]
    point = scratch[:directions]
    for p in range(directions):
        point[p] = -fitted.centre[p]
    add_product(point, seen.hidden, fitted.projection)
    return running_mean(running, nearest_mean(point, fitted.references, scratch[directions:]), seen.newness)
