"""The no-model control: how far a value leaves its own past range. What a model cannot beat, it is not worth.

Source: the recipe. The excess of a smoothed value a over its past range lo…hi is max(a − hi, lo − a)/(hi − lo). Each
smoothing is calibrated by its exceedance rate over the events of all keys before the test, and the score is the largest
−log10 rate. The recipe's two smoothings, and ranges that decay, did worse on NAB than three and ranges that do not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.compiled import compiled_with_arrays
from streamlstm.evaluation.stream import TEST, Stream
from streamlstm.evaluation.surprise import surprise_curve

WINDOWS = (1, 20, 80)  # events that a value is averaged over
SETTLING_EVENTS = 16  # of a key, which have no range to leave yet
SMALLEST_RANGE = 1.0  # deviations


def no_model(stream: Stream, _seed: int) -> NDArray[np.float64]:
    """Return the largest surprise over all smoothings, of the value that leaves its range furthest."""
    scores = np.zeros(len(stream))
    before = stream.part != TEST
    for window in WINDOWS:
        excess = np.empty(len(stream))
        for part in stream.of_each_key():
            excess[part] = _excess(stream.values[part].astype(np.float64), window)
        usable = before & np.isfinite(excess)
        if usable.any():  # 1 + excess: from 0, in the middle of the range, to above 1, outside
            decades = surprise_curve(1 + excess[usable])(1 + excess)
            scores = np.maximum(scores, np.nan_to_num(decades, nan=0.0))
    return scores


@compiled_with_arrays
def _excess(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Return, per event of one key, the largest relative excess over its D values; NaN for the first events."""
    events, width = values.shape
    result = np.full(events, np.nan)
    low, high, total = values[0].copy(), values[0].copy(), values[0].copy()
    for i in range(1, events):
        largest = -1.0
        for d in range(width):
            total[d] += values[i, d] - (values[i - window, d] if i >= window else 0.0)
            smooth = total[d] / min(i + 1, window)
            outside = max(smooth - high[d], low[d] - smooth)
            largest = max(largest, outside / max(high[d] - low[d], SMALLEST_RANGE))
            high[d], low[d] = max(smooth, high[d]), min(smooth, low[d])
        if i >= SETTLING_EVENTS:
            result[i] = largest
    return result
