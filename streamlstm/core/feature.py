"""Events → model inputs. One implementation, for the trainer and for the scorer.

The inputs of one event, in this order: the D squashed values; a mask of D ones and zeros, if values
may be missing; the gap since the key's last event, if events are irregular; sine and cosine of the
hour and of the weekday, if a calendar is asked for or helps. Category embeddings follow them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.arithmetic import exp32, log32, sine_of_turn32
from streamlstm.core.compiled import compiled

LINEAR_RANGE = 3.0  # deviations passed through as they are; recipe, measured on 26 tasks
MAX_DEVIATIONS = 1e6  # a finite number of any size stays a finite input
BAND_LIMIT = 6.0  # squashed: a band reaches no further than some 20 deviations, where it says nothing any more
DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
MAX_GAP_INPUT = 8.0  # log(1 + gap/typical): a silence of 3,000 typical gaps and more looks the same

PADDING_ID = 0  # a category that is absent
UNKNOWN_ID = 1  # a category the training data did not hold

_F = np.float32


class FeatureParameters(NamedTuple):
    """How values become inputs; fitted by the trainer, stored in the bundle.

    ``mean`` and ``deviation``: (scalers, channels) float64, in the channels' units; row 0 is the
    fleet's, others belong to single keys. ``typical_gap_ms``: median gap between events of a key.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    frame_samples: int
    has_mask: bool
    has_gap: bool
    has_calendar: bool
    typical_gap_ms: float


def input_width(values: int, *, has_mask: bool, has_gap: bool, has_calendar: bool) -> int:
    """Return the number of inputs before the embeddings."""
    return values * (2 if has_mask else 1) + (1 if has_gap else 0) + (4 if has_calendar else 0)


def category_ids(
    rows: Sequence[tuple[str | int | None, ...]], vocabularies: Sequence[Mapping[str, int]]
) -> NDArray[np.int64]:
    """Return the ids of each event's categories, (n, C): padding where absent, unknown where never seen."""
    if not vocabularies:
        return np.empty((len(rows), 0), dtype=np.int64)
    ids = [
        [PADDING_ID if c is None else known.get(str(c), UNKNOWN_ID) for c, known in zip(row, vocabularies, strict=True)]
        for row in rows
    ]
    return np.array(ids, dtype=np.int64).reshape(len(rows), len(vocabularies))


@compiled
def squash(deviations: float) -> np.float32:
    """Return the value unchanged within ±3 deviations, logarithmic beyond; never infinite.

    Source: the recipe (v, or sign(v)(3 + log(1 + |v| − 3))): a spike must not saturate the gates.
    """
    size = min(abs(deviations), MAX_DEVIATIONS)
    if size <= LINEAR_RANGE:
        return _F(deviations)
    squashed = _F(LINEAR_RANGE) + log32(_F(1.0 + size - LINEAR_RANGE))
    return squashed if deviations > 0 else -squashed


@compiled
def unsquash(squashed: np.float32) -> np.float32:
    """Return the deviations that :func:`squash` maps to ``squashed``."""
    size = abs(squashed)
    if size <= _F(LINEAR_RANGE):
        return squashed
    deviations = _F(LINEAR_RANGE - 1.0) + exp32(size - _F(LINEAR_RANGE))
    return deviations if squashed > 0 else -deviations


@compiled
def unsquash_all(deviations: NDArray[np.float32], squashed: NDArray[np.float32]) -> None:
    """Write what :func:`unsquash` makes of each of ``squashed`` (n,) to ``deviations`` (n,)."""
    for i in range(squashed.shape[0]):
        deviations[i] = unsquash(squashed[i])


@compiled
def write_inputs(
    inputs: NDArray[np.float32],
    present: NDArray[np.bool_],
    values: NDArray[np.float64],
    gap_ms: float,
    timestamp_ms: int,
    scaler: int,
    parameters: FeatureParameters,
) -> None:
    """Write one event's inputs (before embeddings) and which of its D values are present.

    ``values`` (D,) holds NaN where missing; ``gap_ms`` is negative for a key's first event, which
    counts as a typical gap.
    """
    count = values.shape[0]
    for d in range(count):
        channel = d if parameters.frame_samples == 1 else d // parameters.frame_samples  # a division takes long
        present[d] = not np.isnan(values[d])
        if present[d]:
            centred = values[d] - parameters.mean[scaler, channel]
            inputs[d] = squash(centred / parameters.deviation[scaler, channel])
        else:
            inputs[d] = _F(0.0)
    position = count
    if parameters.has_mask:
        for d in range(count):
            inputs[position + d] = _F(1.0) if present[d] else _F(0.0)
        position += count
    if parameters.has_gap:
        gaps = 1.0 if gap_ms < 0 else gap_ms / parameters.typical_gap_ms
        inputs[position] = min(log32(_F(1.0 + gaps)), _F(MAX_GAP_INPUT))
        position += 1
    if parameters.has_calendar:
        day = _F(timestamp_ms % DAY_MS) / _F(DAY_MS)
        week = _F(timestamp_ms % WEEK_MS) / _F(WEEK_MS)
        inputs[position] = sine_of_turn32(day)
        inputs[position + 1] = sine_of_turn32(day + _F(0.25))
        inputs[position + 2] = sine_of_turn32(week)
        inputs[position + 3] = sine_of_turn32(week + _F(0.25))


@compiled
def write_all_inputs(
    inputs: NDArray[np.float32],
    present: NDArray[np.bool_],
    values: NDArray[np.float64],
    gap_ms: NDArray[np.float64],
    timestamp_ms: NDArray[np.int64],
    scaler: NDArray[np.int64],
    parameters: FeatureParameters,
) -> None:
    """Write the inputs of a whole history, (n, width), event by event as the scorer would."""
    for i in range(values.shape[0]):
        write_inputs(inputs[i], present[i], values[i], gap_ms[i], timestamp_ms[i], scaler[i], parameters)
