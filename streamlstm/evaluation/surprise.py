"""Raw scores of any scale → decades of surprise: −log10 of the share of calibration events with one as high."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

KNOTS = 64
SMALLEST_TAIL = 10  # events; beyond, the tail is extrapolated
TAIL_SHARE = 0.02  # of the largest values, that the power law beyond is fitted on (Hill 1975)
SMALLEST = 1e-12

Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def surprise_curve(raw: NDArray[np.float64]) -> Curve:
    """Return the map from raw scores, larger for the more unusual, to decades; NaN stays NaN."""
    logs = np.sort(np.log(np.maximum(raw, SMALLEST)))
    rates = np.geomspace(1.0, min(SMALLEST_TAIL / len(logs), 0.25), KNOTS)
    knots = np.maximum.accumulate(np.quantile(logs, 1 - rates)) + np.arange(KNOTS) * 1e-9
    decades = -np.log10(rates)
    top = logs[-max(SMALLEST_TAIL, int(TAIL_SHARE * len(logs))) :]
    slope = 1.0 / (np.log(10.0) * max(float(np.mean(top - top[0])), 1e-2))

    def surprise(scores: NDArray[np.float64]) -> NDArray[np.float64]:
        at = np.log(np.maximum(scores, SMALLEST))
        beyond = np.maximum(at - knots[-1], 0.0)
        result: NDArray[np.float64] = np.interp(at, knots, decades) + slope * beyond
        return result

    return surprise
