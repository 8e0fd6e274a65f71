"""The no-model control: how far a value leaves its own past range. What a model cannot beat, it is not worth.

Source: the recipe. For a smoothed value a with past range lo…hi, both decaying towards the running mean, the excess is
max(a − hi, lo − a)/(hi − lo); each of its two smoothings is calibrated by its exceedance rate over the events of all
keys before the test, and the score is the larger −log10 of the two.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.compiled import compiled
from streamlstm.evaluation.stream import TEST, Stream
from streamlstm.evaluation.surprise import surprise_curve

WINDOWS = (1, 80)  # events that a value is averaged over; recipe
DECAY_EVENTS = 4_000  # in which a past extreme is forgotten
MEAN_EVENTS = 1_000


def no_model(stream: Stream, _seed: int) -> NDArray[np.float64]:
    """Return the larger surprise of both smoothings, of the value that leaves its range furthest."""
    scores = np.full(len(stream), -np.inf)
    before = stream.part != TEST
    for window in WINDOWS:
        excess = np.empty(len(stream))
        for part in stream.of_each_key():
            excess[part] = _excess(stream.values[part].astype(np.float64), window)
        usable = before & np.isfinite(excess)
        decades = surprise_curve(1 + excess[usable])(1 + excess) if usable.any() else excess
        scores = np.maximum(scores, np.nan_to_num(decades, nan=0.0))
    return scores


@compiled
def _excess(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Return, per event of one key, the largest relative excess over its D values; NaN for the first events."""
    events, width = values.shape
    result = np.full(events, np.nan)
    mean, low, high, smooth = values[0].copy(), values[0].copy(), values[0].copy(), values[0].copy()
    settled = max(window, 16)
    for i in range(1, events):
        largest = -1.0
        for d in range(width):
            smooth[d] += (values[i, d] - smooth[d]) * max(1.0 / window, 1.0 / (i + 1))
            spread = max(high[d] - low[d], 1e-3)
            excess = max(smooth[d] - high[d], low[d] - smooth[d]) / spread
            largest = max(largest, excess)
            mean[d] += (smooth[d] - mean[d]) * max(1.0 / MEAN_EVENTS, 1.0 / (i + 1))
            high[d] = max(smooth[d], high[d] + (mean[d] - high[d]) / DECAY_EVENTS)
            low[d] = min(smooth[d], low[d] + (mean[d] - low[d]) / DECAY_EVENTS)
        if i >= settled:
            result[i] = largest
    return result
