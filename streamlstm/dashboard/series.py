"""A key's series for a chart: events and their samples in bins of equal width, numbered from the epoch on.

A bin holds the extremes of what fell into it, so that a spike is seen at any width. Bins can be sent in pieces: what
comes later replaces what was sent from its first bin on.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamlstm.core.event import EventDecoder
from streamlstm.core.log import Record
from streamlstm.core.record import FeatureEvidence, decode_score
from streamlstm.core.schema import StreamSchema
from streamlstm.dashboard.points import POINT, STATUSES

BINS = 800  # of a window, about
SHOWN_FEATURES = 4

_NUMBERS = ("low", "expected", "high")
Floats = NDArray[np.float64]


class _Evidence(msgspec.Struct):
    """The part of a score record that the fleet passes over."""

    features: list[FeatureEvidence] = []


_decode_evidence = msgspec.json.Decoder(_Evidence).decode


class Stretch(NamedTuple):
    """Consecutive events of a key: points (n,) of :data:`POINT`; per event its input record and its score record,
    where they are known."""

    points: NDArray[Any]
    events: Sequence[Record | None]
    scores: Sequence[Record | None]


def bin_width_ms(window_ms: float) -> int:
    """Return a bin's width for a window: 1, 2 or 5 times a power of ten, milliseconds.

    >>> bin_width_ms(60_000), bin_width_ms(3_600_000), bin_width_ms(10)
    (100, 5000, 1)
    """
    least, power = max(1.0, window_ms / BINS), 1
    while True:
        for step in (1, 2, 5):
            if step * power >= least:
                return step * power
        power *= 10


class SeriesMaker:
    """Makes series of one stream. ``gap_ms``: between two events of a key, over which a frame's samples spread."""

    def __init__(self, schema: StreamSchema, gap_ms: float, decoder: EventDecoder) -> None:
        self._schema, self._gap_ms, self._decoder = schema, gap_ms, decoder

    def starts_ms(self, first_bin: int, width_ms: int) -> int:
        """Return from when on a stretch must reach for a series whose bins are whole from ``first_bin`` on."""
        return first_bin * width_ms - math.ceil(2 * self._gap_ms) - 2 * width_ms

    def make(
        self, stretch: Stretch, width_ms: int, features: Sequence[str], first_bin: int | None = None
    ) -> dict[str, Any]:
        """Return the stretch in bins: score and threshold, and value and band of the named features.

        With ``first_bin`` what lies before it is left out, but for the samples of the event in it.
        """
        first_sample = None if first_bin is None else first_bin - math.ceil(self._gap_ms / width_ms) - 1
        points = stretch.points
        times = points["time_ms"]
        actual = self._actual(stretch.events)
        bands = self._bands(stretch.scores)
        chosen = [self._schema.numeric.index(name) for name in features]
        return {
            "width_ms": width_ms,
            "score": _from_bin(_score_bins(points, times // width_ms), first_bin),
            "features": [
                {
                    "name": self._schema.numeric[channel],
                    "unit": self._schema.features[self._schema.numeric[channel]].unit,
                    **_from_bin(
                        self._feature_bins(times, actual[:, channel], bands[:, :, channel], width_ms), first_sample
                    ),
                }
                for channel in chosen
            ],
            "latest": self._latest(stretch.events),
        }

    def _actual(self, records: Sequence[Record | None]) -> Floats:
        """Return (n, channels, samples), NaN where unknown or missing."""
        schema = self._schema
        found = np.full((len(records), len(schema.numeric), schema.frame_samples), np.nan)
        known = [i for i, record in enumerate(records) if record is not None]
        batch, _ = self._decoder.decode([record for record in records if record is not None])
        for row, at in enumerate(batch.record_index.tolist()):
            found[known[at]] = batch.values[row].reshape(found.shape[1:])
        return found

    def _bands(self, records: Sequence[Record | None]) -> Floats:
        """Return (3, n, channels, samples): low, expected, high; NaN where no record says."""
        schema = self._schema
        found = np.full((3, len(records), len(schema.numeric), schema.frame_samples), np.nan)
        places = {name: place for place, name in enumerate(schema.numeric)}
        for i, record in enumerate(records):
            if record is None:
                continue
            for feature in _decode_evidence(record.value).features:
                if (place := places.get(feature.name)) is not None:
                    for part, name in enumerate(_NUMBERS):
                        found[part, i, place] = getattr(feature, name)
        return found

    def _feature_bins(
        self, times: NDArray[np.int64], actual: Floats, bands: Floats, width_ms: int
    ) -> dict[str, list[Any]]:
        frame = self._schema.frame_samples
        back_ms = (np.arange(frame) - (frame - 1)) * (self._gap_ms / frame)  # an event's time is its last sample's
        bins = np.floor((times[:, None] + back_ms).ravel() / width_ms).astype(np.int64)
        order = np.argsort(bins, kind="stable")
        starts, at = _starts(bins[order])
        values = actual.ravel()[order]
        low, expected, high = (part.ravel()[order] for part in bands)
        return {
            "bin": at.tolist(),
            "min": _over(values, starts, np.fmin),
            "max": _over(values, starts, np.fmax),
            "low": _over(low, starts, np.fmin),
            "expected": _mean(expected, starts),
            "high": _over(high, starts, np.fmax),
        }

    def _latest(self, records: Sequence[Record | None]) -> list[dict[str, Any]]:
        """Return the last event's values as they came, with their units; categories too."""
        last = next((record for record in reversed(records) if record is not None), None)
        batch, _ = self._decoder.decode([last] if last else [])
        if not len(batch):
            return []
        schema = self._schema
        numbers = batch.values[0].reshape(len(schema.numeric), schema.frame_samples)[:, -1].tolist()
        shown = [(name, _plain(value)) for name, value in zip(schema.numeric, numbers, strict=True)]
        shown += [(name, value) for name, value in zip(schema.categorical, batch.categories[0], strict=True)]  # type: ignore[misc]
        return [{"name": name, "value": value, "unit": schema.features[name].unit} for name, value in shown]


def points_of(records: Sequence[Record]) -> NDArray[Any]:
    """Return the points, (n,) of :data:`POINT`, of score records."""
    nan = float("nan")
    rows = []
    for record in records:
        one = decode_score(record.value)
        numbers = (nan if number is None else number for number in (one.score, one.tail_probability, one.threshold))
        rows.append((one.offset, one.time_ms, *numbers, STATUSES[one.status], one.alert is not None))
    return np.array(rows, dtype=POINT)


def _score_bins(points: NDArray[Any], bins: NDArray[np.int64]) -> dict[str, list[Any]]:
    order = np.argsort(bins, kind="stable")
    points, bins = points[order], bins[order]
    starts, at = _starts(bins)
    return {
        "bin": at.tolist(),
        "score": _over(points["score"], starts, np.fmax),
        "threshold": _over(points["threshold"], starts, np.fmin),
        "probability": _over(points["probability"], starts, np.fmin),
        "status": _over(points["status"].astype(np.float64), starts, np.fmax),
        "alert": _over(points["alert"].astype(np.float64), starts, np.fmax),
        "events": np.diff(np.append(starts, len(points))).tolist(),
        "offset": points["offset"][starts].tolist() if len(points) else [],
    }


def _from_bin(bins: dict[str, list[Any]], first: int | None) -> dict[str, list[Any]]:
    at = 0 if first is None else bisect_left(bins["bin"], first)
    return {name: values[at:] for name, values in bins.items()}


def _starts(bins: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where each bin begins among sorted ones, and the bins, each once."""
    at, starts = np.unique(bins, return_index=True)
    return starts.astype(np.int64), at


def _over(values: NDArray[Any], starts: NDArray[np.int64], worst: np.ufunc) -> list[float | None]:
    """Return the extreme of each bin, None where all is unknown."""
    if not len(starts):
        return []
    return [_plain(value) for value in worst.reduceat(values, starts).tolist()]


def _mean(values: Floats, starts: NDArray[np.int64]) -> list[float | None]:
    if not len(starts):
        return []
    known = ~np.isnan(values)
    count = np.add.reduceat(known.astype(np.float64), starts)
    total = np.add.reduceat(np.where(known, values, 0.0), starts)
    return [_plain(t / n) if n else None for t, n in zip(total.tolist(), count.tolist(), strict=True)]


def _plain(value: float) -> float | None:
    """Return six digits of a number, which is what a chart shows; None for NaN."""
    return None if value != value else float(f"{value:.6g}")
