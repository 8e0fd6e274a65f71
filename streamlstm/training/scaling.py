"""Fit what turns values into inputs: scales, typical gap, vocabularies; on the training part only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.feature import FeatureParameters, input_width, write_all_inputs
from streamlstm.core.schema import StreamSchema
from streamlstm.errors import HistoryError
from streamlstm.training.history import History

MIN_KEY_EVENTS = 50  # a key's own scale from fewer events is noise
LEVEL_SHARE = 0.3  # keys get scales of their own if their means explain more of the variance than this
REGULAR_SPREAD = 0.05  # gaps whose quartiles lie closer (relative to the median) carry no information
MAX_CATEGORIES = 10_000
FIRST_CATEGORY_ID = 2  # 0 is padding, 1 is unknown


@dataclass(frozen=True)
class Scaling:
    """Feature parameters, which scaler each key uses, and the vocabularies."""

    parameters: FeatureParameters
    scaler_of: dict[str, int]
    vocabularies: dict[str, dict[str, int]]

    def width(self, schema: StreamSchema) -> int:
        """Return the number of inputs before embeddings."""
        p = self.parameters
        return input_width(schema.values, has_mask=p.has_mask, has_gap=p.has_gap, has_calendar=p.has_calendar)


def fit_scaling(history: History, schema: StreamSchema) -> Scaling:
    """Fit on the training part of every key; raises :class:`HistoryError` for values beyond any scale."""
    train = ~history.is_held_out
    channels = len(schema.numeric)
    values = history.values.reshape(len(history), channels, schema.frame_samples)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = _moments(values[train])
    for name, scale in zip(schema.numeric, np.abs(mean) + deviation, strict=True):
        if not np.isfinite(scale):
            raise HistoryError(f"the feature {name!r} holds values too large for a scale: remove them from the history")
    means, deviations = [mean], [deviation]
    scaler_of: dict[str, int] = {}
    if len(history.keys) > 1:
        own = [_moments(values[start:end]) for start, end in _train_ranges(history)]
        if _keys_differ(own, deviation):
            for key, (start, end), (key_mean, key_deviation) in zip(
                history.keys, _train_ranges(history), own, strict=True
            ):
                if end - start >= MIN_KEY_EVENTS:
                    scaler_of[key.decode()] = len(means)
                    means.append(key_mean)
                    deviations.append(np.where(key_deviation == 1.0, deviation, key_deviation))
    gaps = history.gap_ms[train & (history.gap_ms >= 0)]
    typical = float(np.median(gaps)) if len(gaps) else 0.0
    quartiles = np.percentile(gaps, [25, 75]) if len(gaps) else np.zeros(2)
    return Scaling(
        parameters=FeatureParameters(
            mean=np.array(means),
            deviation=np.array(deviations),
            frame_samples=schema.frame_samples,
            has_mask=schema.has_optional_values,
            has_gap=bool(quartiles[1] - quartiles[0] > REGULAR_SPREAD * max(typical, 1.0)),
            has_calendar=bool(schema.calendar),
            typical_gap_ms=max(typical, 1.0),
        ),
        scaler_of=scaler_of,
        vocabularies=_vocabularies(history, schema, train),
    )


def scaler_index(history: History, scaling: Scaling) -> NDArray[np.int64]:
    """Return the scaler of each event, (n,)."""
    return scalers_of(history.keys, history.key_index, scaling.scaler_of)


def scalers_of(keys: Sequence[bytes], key_index: NDArray[np.int64], scaler_of: Mapping[str, int]) -> NDArray[np.int64]:
    """Return the scaler of each event, (n,); ``key_index`` (n,) points into ``keys``."""
    return np.array([scaler_of.get(key.decode(), 0) for key in keys], dtype=np.int64)[key_index]


def model_inputs(
    history: History, schema: StreamSchema, scaling: Scaling
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the inputs (n, width) and which of the D values are present (n, D), as the scorer makes them."""
    scalers, width = scaler_index(history, scaling), scaling.width(schema)
    return inputs_of(history.values, history.gap_ms, history.timestamp_ms, scalers, width, scaling.parameters)


def inputs_of(
    values: NDArray[np.float64],
    gap_ms: NDArray[np.float64],
    timestamp_ms: NDArray[np.int64],
    scalers: NDArray[np.int64],
    width: int,
    parameters: FeatureParameters,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the inputs before embeddings, (n, width), and which of the values (n, D) are present."""
    inputs, present = np.zeros((len(values), width), dtype=np.float32), np.zeros(values.shape, dtype=np.bool_)
    write_all_inputs(inputs, present, values, gap_ms, timestamp_ms, scalers, parameters)
    return inputs, present


def _moments(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and deviation per channel of (events, channels, samples), ignoring missing values.

    A channel that never varies gets deviation 1, so that a later change counts in its own unit; one
    that was never seen gets mean 0.
    """
    seen = ~np.isnan(values)
    count = np.maximum(seen.sum(axis=(0, 2)), 1)
    mean = np.where(seen, values, 0.0).sum(axis=(0, 2)) / count
    centred = np.where(seen, values - mean[:, None], 0.0)
    deviation = np.sqrt((centred**2).sum(axis=(0, 2)) / count)
    constant = deviation <= 1e-9 * np.maximum(np.abs(mean), 1e-300)
    return mean, np.where(constant, 1.0, deviation)


def _train_ranges(history: History) -> list[tuple[int, int]]:
    return list(zip(history.starts[:-1].tolist(), history.held_out.tolist(), strict=True))


def _keys_differ(own: list[tuple[NDArray[np.float64], NDArray[np.float64]]], deviation: NDArray[np.float64]) -> bool:
    between = np.array([mean for mean, _ in own]).std(axis=0) / deviation
    return bool((between**2 > LEVEL_SHARE).any())


def _vocabularies(history: History, schema: StreamSchema, train: NDArray[np.bool_]) -> dict[str, dict[str, int]]:
    vocabularies = {}
    for column, name in enumerate(schema.categorical):
        counts = Counter(
            str(row[column])
            for row, use in zip(history.categories, train, strict=True)
            if use and row[column] is not None
        )
        known = sorted(category for category, _ in counts.most_common(MAX_CATEGORIES))
        vocabularies[name] = {category: FIRST_CATEGORY_ID + i for i, category in enumerate(known)}
    return vocabularies
