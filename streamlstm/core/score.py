"""Step → score: errors and channels become one number, the mean surprise in decades.

A channel's surprise is −log10 of the share of held-out events with so high a raw value: 3 means one
event in a thousand. The score is the weighted mean over channels (recipe: means beat maxima, mean
average precision .597 against .447), and what the stillness channel adds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.arithmetic import log32
from streamlstm.core.channels import Fitted
from streamlstm.core.compiled import compiled
from streamlstm.core.step import add_products

KNOTS = 48  # points of a channel's tail curve
SETTLING_EVENTS = 32  # a new key's hidden state is still filling; its errors would spoil running means
SOFT_CAP = 6.0  # decades; beyond it surprise grows only logarithmically (recipe)

_F = np.float32


class ScoreParameters(NamedTuple):
    """Fitted on held-out data, float32.

    ``centre`` (E,): mean error, E = L·D. ``whitening`` (E padded to a multiple of four, E): errors
    times this have unit covariance. ``knots`` and ``surprises`` (curves, K): log raw value to
    decades, both ascending; ``slopes`` (curves,): decades per unit of log raw value beyond the last
    knot. ``weights`` (curves,) sum to one. ``span``: events that a running mean reaches over,
    half a natural period of the signal (a whole one blurs single beats: average precision on MIT-BIH 106
    .46 against .53).
    """

    centre: NDArray[np.float32]
    whitening: NDArray[np.float32]
    knots: NDArray[np.float32]
    surprises: NDArray[np.float32]
    slopes: NDArray[np.float32]
    weights: NDArray[np.float32]
    fitted: Fitted
    span: int
    warmup_events: int


@compiled
def whiten(whitened: NDArray[np.float32], errors: NDArray[np.float32], whitening: NDArray[np.float32]) -> None:
    """Write the whitened errors of n events, (n, E); ``errors`` (n, E padded)."""
    whitened[:] = _F(0.0)
    add_products(whitened, errors, whitening)


@compiled
def mean_square(whitened: NDArray[np.float32], present: NDArray[np.bool_]) -> np.float32:
    """Return the mean square of one event's whitened errors (E,) over the values present."""
    total = _F(0.0)
    for value in whitened:
        total += value * value
    here = 0
    for flag in present:
        here += flag
    return total * _F(present.shape[0]) / (_F(here) * _F(whitened.shape[0]))


@compiled
def surprise(
    raw: np.float32, knots: NDArray[np.float32], surprises: NDArray[np.float32], slope: np.float32
) -> np.float32:
    """Return the decades of surprise of a raw value, softly capped.

    Beyond the largest held-out values the tail is taken as a power law (Hill 1975) in the raw value.
    """
    at = log32(max(raw, _F(1e-12)))
    last = knots.shape[0] - 1
    if at <= knots[0]:
        decades = surprises[0]
    elif at >= knots[last]:
        decades = surprises[last] + slope * (at - knots[last])
    else:
        upper = np.searchsorted(knots, at)
        share = (at - knots[upper - 1]) / (knots[upper] - knots[upper - 1])
        decades = surprises[upper - 1] + share * (surprises[upper] - surprises[upper - 1])
    if decades > _F(SOFT_CAP):
        return _F(_F(SOFT_CAP) + log32(_F(1.0) + decades - _F(SOFT_CAP)))
    return _F(decades)


@compiled
def combine(decades: NDArray[np.float32], raw: NDArray[np.float32], parameters: ScoreParameters) -> np.float32:
    """Write each channel's surprise, (channels,), and return the score; the last channel's raw value is in decades."""
    last = raw.shape[0] - 1
    decades[last] = score = raw[last]
    for channel in range(last):
        decades[channel] = surprise(
            raw[channel], parameters.knots[channel], parameters.surprises[channel], parameters.slopes[channel]
        )
        score += parameters.weights[channel] * decades[channel]
    return np.float32(score)


@compiled
def write_shares(
    shares: NDArray[np.float32],
    errors: NDArray[np.float32],
    whitened: NDArray[np.float32],
    whitening: NDArray[np.float32],
) -> None:
    """Write how much of the forecast error each of the D values causes; sums to one.

    The squared Mahalanobis length is Σ e·(C⁻¹e) over errors; a value's part is the sum over its
    horizons. A negative part (an error that another one explains) counts as none.
    """
    shares[:] = _F(0.0)
    values = shares.shape[0]
    total = _F(0.0)
    for j in range(whitened.shape[0]):
        pulled = _F(0.0)
        for k in range(whitened.shape[0]):
            pulled += whitening[j, k] * whitened[k]
        shares[j % values] += errors[j] * pulled
    for d in range(values):
        shares[d] = max(shares[d], _F(0.0))
        total += shares[d]
    for d in range(values):
        shares[d] = shares[d] / total if total > _F(0.0) else _F(1.0) / _F(values)
