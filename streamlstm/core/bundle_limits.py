"""What the numbers of a bundle must keep to. Compiled code trusts them: an index beyond an array is not noticed there.

Shapes are checked in :mod:`streamlstm.core.bundle`; here is what shapes alone do not say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.threshold import TAIL_PROBABILITY
from streamlstm.errors import BundleError

MOST_EVENTS = 1 << 31  # of any count of events: a period, a warm-up, a cool-down
WEIGHTS_ROUNDING = 1e-4  # of their sum, which is one
FIRST_CATEGORY_ID = 2  # after padding and unknown


def check_categories(
    vocabularies: Mapping[str, Mapping[str, int]], sizes: Sequence[int], categorical: Sequence[str]
) -> None:
    """Refuse vocabularies that are not the stream's, or an id that the embeddings have no row for."""
    if set(vocabularies) != set(categorical) or len(sizes) != len(categorical):
        raise BundleError(f"vocabularies of {sorted(vocabularies)}, but the stream's categories are {[*categorical]}")
    for name, size in zip(categorical, sizes, strict=True):
        if size < FIRST_CATEGORY_ID:
            raise BundleError(f"category {name!r}: {size} ids leave no room for absent and unknown values")
        if not all(FIRST_CATEGORY_ID <= number < size for number in vocabularies[name].values()):
            raise BundleError(f"category {name!r}: an id lies outside {FIRST_CATEGORY_ID} to {size - 1}")


def check_scalers(scaler_of: Mapping[str, int], mean: NDArray[Any], deviation: NDArray[Any]) -> None:
    """Refuse a key that points beyond the scalers, scalers of two lengths, or a deviation that is not positive."""
    if not 0 < len(mean) == len(deviation):
        raise BundleError(
            f"the arrays 'feature.mean' and 'feature.deviation' have {len(mean)} and {len(deviation)} rows"
        )
    if not all(0 <= row < len(mean) for row in scaler_of.values()):
        raise BundleError("a key's scaler points outside the array 'feature.mean'")
    if not (deviation > 0).all():
        raise BundleError("the array 'feature.deviation' holds values that are not positive")


def check_score(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse tail curves that are empty, of two lengths or not ascending, weights of no mean, and references in other
    directions."""
    knots, surprises = arrays["score.knots"], arrays["score.surprises"]
    if knots.shape != surprises.shape or knots.shape[1] == 0:
        raise BundleError(f"the arrays 'score.knots' and 'score.surprises' have {knots.shape} and {surprises.shape}")
    if not (np.diff(knots, axis=1) > 0).all() or not (np.diff(surprises, axis=1) >= 0).all():
        raise BundleError("the arrays 'score.knots' and 'score.surprises' must ascend")
    weights = arrays["score.weights"]
    if not (weights >= 0).all() or abs(float(weights.sum(dtype=np.float64)) - 1.0) > WEIGHTS_ROUNDING:
        raise BundleError("the array 'score.weights' holds a negative value, or does not sum to one")
    projection, references = arrays["novelty.projection"], arrays["novelty.references"]
    directions = projection.shape[1]
    if directions % 4 or len(references) != directions or references.size == 0:
        raise BundleError(
            f"the array 'novelty.references' has shape {references.shape}, expected ({directions}, …), a multiple of 4"
        )
    if len(arrays["novelty.centre"]) != directions:
        raise BundleError(f"the array 'novelty.centre' has {len(arrays['novelty.centre'])} values, not {directions}")
    if not (arrays["record.low"] <= arrays["record.high"]).all():
        raise BundleError("the array 'record.low' holds values above those of 'record.high'")
    if not (arrays["stillness.lowest"] > 0).all():
        raise BundleError("the array 'stillness.lowest' holds values that are not positive")


def check_range(name: str, value: float, low: float, high: float, *, above: bool = False) -> None:
    """Refuse a number outside low…high, or one that is none; with ``above``, ``low`` itself is outside, too."""
    if not (low < value if above else low <= value) or not value <= high or not math.isfinite(value):
        raise BundleError(f"{name} is {value!r}; it must lie between {low:g} and {high:g}")


def check_calibration(period: int, warmup_events: int, tail: tuple[float, float]) -> None:
    """Refuse a period, a warm-up or a tail (start, scale) that no calibration gives."""
    check_range("calibration.period", period, 1, MOST_EVENTS)
    check_range("calibration.warmup_events", warmup_events, 0, MOST_EVENTS)
    check_range("calibration.tail_start", tail[0], 0, 1e6, above=True)
    check_range("calibration.tail_scale", tail[1], 0, 1e6, above=True)


def check_alerting(alarm_rate: float, **events: int) -> None:
    """Refuse an alarm rate that no threshold has, and counts of events that are none."""
    check_range("alerting.alarm_rate", alarm_rate, 0, TAIL_PROBABILITY, above=True)
    if alarm_rate == TAIL_PROBABILITY:
        raise BundleError(f"alerting.alarm_rate is {alarm_rate}; it must lie below {TAIL_PROBABILITY}")
    for name, count in events.items():
        least = 1 if name == "resolve_after_events" else 0  # hysteresis is divided by it
        check_range(f"alerting.{name}", count, least, MOST_EVENTS)
