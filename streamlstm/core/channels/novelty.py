"""How far the model's hidden state lies from the states it knows as normal, in the mean of half a period.

Source: the recipe: mean distance to the 5 nearest of 1,500 normal states, in 8 whitened principal
directions.

**Trap**: the references are held-out states, and so are those that the channel's curve is fitted on. A live state has
none so near; so on live data the channel reads one to three decades in the mean, where others read .4, and weighs more
than its share. References from before the held-out part mend that, and detected no better (README).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.aligned import aligned_zeros
from streamlstm.core.channels.seen import Seen, running_mean
from streamlstm.core.compiled import compiled
from streamlstm.core.step import add_products

NAME = "novelty"
WEIGHT = 1.0
OF_FRAMES = 0.0  # its weight where events are frames
DIRECTIONS = 8
REFERENCES = 1500
NEIGHBOURS = 5
AT_ONCE = 512  # references that are compared with several states before the next: 16 KiB

_F = np.float32


class Fitted(NamedTuple):
    """``centre`` (P,), ``projection`` (H, P) and ``references`` (P, R), all float32; P is padded with zeros to a
    multiple of four. A state's place is its product with the projection, less the centre."""

    centre: NDArray[np.float32]
    projection: NDArray[np.float32]
    references: NDArray[np.float32]


def fit(hidden: NDArray[np.float32], seed: int, references: int = REFERENCES) -> Fitted:
    """Fit on normal hidden states, (n, H): whitened directions, and a sample of the states.

    Where the channel weighs nothing, ``references`` are few: they take a third of the time of an event.
    """
    centre = hidden.mean(axis=0, dtype=np.float64)
    _, deviations, directions = np.linalg.svd(hidden - centre, full_matrices=False)
    keep = min(DIRECTIONS, int((deviations > 1e-6 * deviations[0]).sum()) or 1)
    scale = np.maximum(deviations[:keep] / np.sqrt(max(len(hidden) - 1, 1)), 1e-6)
    projection = np.zeros((hidden.shape[1], -(-keep // 4) * 4))
    projection[:, :keep] = (directions[:keep] / scale[:, None]).T
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(hidden), size=min(references, len(hidden)), replace=False)
    places = ((hidden[np.sort(chosen)] - centre) @ projection).T
    return Fitted(
        (centre @ projection).astype(np.float32),
        np.ascontiguousarray(projection, dtype=np.float32),
        np.ascontiguousarray(places, dtype=np.float32),
    )


def laid_out(fitted: Fitted) -> Fitted:
    """Return the same with references infinitely far away behind, so that each direction's begin at a cache line if the
    array does: it saves a third of the search."""
    directions, count = fitted.references.shape
    references = np.full((directions, _eights_of_eights(count)), np.inf, np.float32)
    references[:, :count] = fitted.references
    return fitted._replace(references=references)


def new_scratch(fitted: Fitted, events: int) -> NDArray[np.float32]:
    """Return scratch space for :func:`measure` and :func:`observe`, a row for each of some events: the squared distance
    of each reference, the least of each eight of these, the least of each eight of the least, and the five nearest."""
    count = _eights_of_eights(fitted.references.shape[1])
    scratch = aligned_zeros(events, _eights_of_eights(count + count // 8 + count // 64 + NEIGHBOURS))
    scratch[:] = np.inf  # so beyond the references there is nothing near
    return scratch


@compiled
def _eights_of_eights(count: int) -> int:
    """Return the next multiple of 64."""
    return -(-count // 64) * 64


@compiled
def measure(
    near: NDArray[np.float32], places: NDArray[np.float32], hidden: NDArray[np.float32], fitted: Fitted
) -> None:
    """Write the squared distance of n hidden states, (n, H), to each reference into the rows of ``near``.

    ``places`` is scratch space, (n, P). The references are larger than the nearest cache: so some of them serve all
    states before the next are loaded, and two states at a time, from registers.
    """
    for i in range(places.shape[0]):
        for p in range(fitted.centre.shape[0]):
            places[i, p] = -fitted.centre[p]
    add_products(places, hidden, fitted.projection)
    last, count = places.shape[0] - 1, fitted.references.shape[1]
    for first in range(0, count, AT_ONCE):
        end = min(first + AT_ONCE, count)
        for i in range(0, last, 2):
            _square_two(near[i, first:end], near[i + 1, first:end], places[i], places[i + 1], fitted.references, first)
        if last % 2 == 0:
            _square(near[last, first:end], places[last], fitted.references, first)


@compiled
def _square(
    squares: NDArray[np.float32], point: NDArray[np.float32], references: NDArray[np.float32], first: int
) -> None:
    """Write the squared distance of a point (P,) to the references (P, R) from ``first`` on.

    Four directions at a time, so that the sums of squares are loaded and stored a quarter as often.
    """
    squares[:] = _F(0.0)
    for p in range(0, references.shape[0], 4):
        a, b, c, d = point[p], point[p + 1], point[p + 2], point[p + 3]
        row, row_2 = references[p, first:], references[p + 1, first:]
        row_3, row_4 = references[p + 2, first:], references[p + 3, first:]
        for r in range(squares.shape[0]):
            e, f, g, h = row[r] - a, row_2[r] - b, row_3[r] - c, row_4[r] - d
            squares[r] += (e * e + f * f) + (g * g + h * h)


@compiled
def _square_two(
    squares: NDArray[np.float32],
    squares_2: NDArray[np.float32],
    point: NDArray[np.float32],
    point_2: NDArray[np.float32],
    references: NDArray[np.float32],
    first: int,
) -> None:
    """As :func:`_square` for two points at once, bit for bit."""
    squares[:] = _F(0.0)
    squares_2[:] = _F(0.0)
    for p in range(0, references.shape[0], 4):
        a, b, c, d = point[p], point[p + 1], point[p + 2], point[p + 3]
        a_2, b_2, c_2, d_2 = point_2[p], point_2[p + 1], point_2[p + 2], point_2[p + 3]
        row, row_2 = references[p, first:], references[p + 1, first:]
        row_3, row_4 = references[p + 2, first:], references[p + 3, first:]
        for r in range(squares.shape[0]):
            w, x, y, z = row[r], row_2[r], row_3[r], row_4[r]
            e, f, g, h = w - a, x - b, y - c, z - d
            squares[r] += (e * e + f * f) + (g * g + h * h)
            e, f, g, h = w - a_2, x - b_2, y - c_2, z - d_2
            squares_2[r] += (e * e + f * f) + (g * g + h * h)


@compiled
def _least(a: np.float32, b: np.float32) -> np.float32:
    return a if a < b else b


@compiled
def _least_of_eights(least: NDArray[np.float32], of: NDArray[np.float32]) -> None:
    """Write the least of eight numbers to each of ``least`` (n,): of those that lie n apart in ``of`` (8·n,)."""
    n = least.shape[0]
    a, b, c, d = of[:n], of[n:], of[2 * n :], of[3 * n :]
    e, f, g, h = of[4 * n :], of[5 * n :], of[6 * n :], of[7 * n :]
    for j in range(n):
        half, other = _least(_least(a[j], b[j]), _least(c[j], d[j])), _least(_least(e[j], f[j]), _least(g[j], h[j]))
        least[j] = _least(half, other)


@compiled
def _sink(nearest: NDArray[np.float32], square: np.float32) -> None:
    """Put a number among the least so far, ascending; the largest falls out. No branch: it would be guessed wrong."""
    for place in range(NEIGHBOURS):
        other = nearest[place]
        nearest[place] = _least(square, other)
        square = other if square < other else square


@compiled
def nearest_mean(near: NDArray[np.float32], references: int) -> np.float32:
    """Return the mean of the five least distances, given the squares in a row of ``near``; of all, if there are fewer.

    By a tournament, as comparing each square with the least so far takes longer than to find them: five eights have a
    least one no larger than the fifth of these, so none of the five lies in an eight whose least is larger.
    """
    count = _eights_of_eights(references)
    eighth, last = count // 8, count // 64
    squares, rest = near[:count], near[count:]
    eights, finals, nearest = rest[:eighth], rest[eighth : eighth + last], rest[eighth + last :][:NEIGHBOURS]
    _least_of_eights(eights, squares)
    _least_of_eights(finals, eights)
    nearest[:] = _F(np.inf)
    for square in finals:
        _sink(nearest, square)
    enough = nearest[NEIGHBOURS - 1]
    nearest[:] = _F(np.inf)
    for j in range(eights.shape[0]):
        if eights[j] <= enough:
            for r in range(j, count, eights.shape[0]):
                _sink(nearest, squares[r])
    total, found = _F(0.0), 0
    for square in nearest:
        if square < _F(np.inf):
            total += np.sqrt(square)
            found += 1
    return total / _F(found)


@compiled
def observe(running: NDArray[np.float32], seen: Seen, fitted: Fitted, near: NDArray[np.float32]) -> np.float32:
    """Return the running mean of the hidden state's distance to normal states; ``near``: what was measured of it."""
    return running_mean(running, nearest_mean(near, fitted.references.shape[1]), seen.newness)
