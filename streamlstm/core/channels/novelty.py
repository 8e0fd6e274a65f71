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

NAME = "novelty"
WEIGHT = 1.0
DIRECTIONS = 8
REFERENCES = 1500
NEIGHBOURS = 5

_F = np.float32


class Fitted(NamedTuple):
    """``centre`` (H,), ``projection`` (P, H) and ``references`` (P, R), all float32."""

    centre: NDArray[np.float32]
    projection: NDArray[np.float32]
    references: NDArray[np.float32]


def fit(hidden: NDArray[np.float32], seed: int) -> Fitted:
    """Fit on normal hidden states, (n, H): whitened directions, and a sample of the states."""
    centre = hidden.mean(axis=0, dtype=np.float64)
    _, deviations, directions = np.linalg.svd(hidden - centre, full_matrices=False)
    keep = min(DIRECTIONS, int((deviations > 1e-6 * deviations[0]).sum()) or 1)
    scale = np.maximum(deviations[:keep] / np.sqrt(max(len(hidden) - 1, 1)), 1e-6)
    projection = directions[:keep] / scale[:, None]
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(hidden), size=min(REFERENCES, len(hidden)), replace=False)
    references = projection @ (hidden[np.sort(chosen)] - centre).T
    return Fitted(
        centre.astype(np.float32),
        np.ascontiguousarray(projection, dtype=np.float32),
        np.ascontiguousarray(references, dtype=np.float32),
    )


@compiled
def nearest_mean(point: NDArray[np.float32], references: NDArray[np.float32]) -> np.float32:
    """Return the mean distance of a point (P,) to its nearest references, given as (P, R)."""
    squares = np.zeros(references.shape[1], dtype=np.float32)
    for p in range(references.shape[0]):
        for r in range(references.shape[1]):
            difference = references[p, r] - point[p]
            squares[r] += difference * difference
    nearest = np.full(NEIGHBOURS, np.float32(np.inf))  # ascending
    for square in squares:
        if square < nearest[NEIGHBOURS - 1]:
            place = NEIGHBOURS - 1
            while place > 0 and nearest[place - 1] > square:
                nearest[place] = nearest[place - 1]
                place -= 1
            nearest[place] = square
    total = _F(0.0)
    found = 0
    for square in nearest:
        if square < np.float32(np.inf):
            total += np.sqrt(square)
            found += 1
    return total / _F(found)


@compiled
def observe(running: NDArray[np.float32], seen: Seen, fitted: Fitted) -> np.float32:
    """Return the running mean of the hidden state's distance to normal states."""
    point = np.zeros(fitted.projection.shape[0], dtype=np.float32)
    for p in range(point.shape[0]):
        for j in range(seen.hidden.shape[0]):
            point[p] += fitted.projection[p, j] * (seen.hidden[j] - fitted.centre[j])
    return running_mean(running, nearest_mean(point, fitted.references), seen.newness)
