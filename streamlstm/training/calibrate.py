"""Calibrate on held-out data, by running the scorer's own walk over the history.

Three passes over the same events: with errors and hidden states recorded, to fit the error covariance
and the novelty references; with those, to fit each channel's tail curve; with the curves, to fit the
tail of the score. So calibration sees exactly what the scorer will compute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf

from streamlstm.core.advance import advance
from streamlstm.core.alert import episode_parameters
from streamlstm.core.aligned import aligned
from streamlstm.core.bundle import padded, running_span
from streamlstm.core.channels import CURVES, NAMES, Fitted, laid_out, novelty, record, stillness
from streamlstm.core.columns import Events, Parameters, Results, new_results, new_scratch
from streamlstm.core.feature import FeatureParameters
from streamlstm.core.model import Architecture, Model
from streamlstm.core.score import KNOTS, ScoreParameters
from streamlstm.core.state import INTEGERS, SCALER, Rows, layout_of
from streamlstm.core.threshold import TAIL_PROBABILITY, tail_parameters
from streamlstm.errors import HistoryError
from streamlstm.training.history import History

MAX_EVENTS = 200_000  # calibration events; quantiles beyond 1e-5 are extrapolated anyway
MAX_KEY_EVENTS = 50_000  # of one key: half warms its state up at most
MIN_EVENTS = 40  # held-out events that a tail can be fitted on at all
HILL_SHARE = 0.02  # of the largest values that the power-law tail is fitted on (Hill 1975)
BAND_COVERAGE = 0.99


@dataclass(frozen=True)
class Calibrated:
    """The fitted score, the tail of the held-out scores, the band, and the last pass for the report."""

    score: ScoreParameters
    tail_start: float
    tail_scale: float
    band: NDArray[np.float32]
    events: NDArray[np.int64]
    held_out: NDArray[np.bool_]
    results: Results


def calibrate(
    history: History,
    architecture: Architecture,
    feature: FeatureParameters,
    model: Model,
    scalers: NDArray[np.int64],
    categories: NDArray[np.int64],
    *,
    period: int,
    warmup_events: int,
    weights: NDArray[np.float32],
    seed: int,
) -> Calibrated:
    """Fit the score of a trained model; ``scalers`` (n,) and ``categories`` (n, C) as the scorer uses them.

    ``weights``: of the channels. Raises :class:`HistoryError` if hardly any held-out event can be scored.
    """
    chosen = _calibration_events(history, seed)
    events, rows = _as_poll(history, chosen, scalers, categories, layout_of(architecture).width)
    held_out = history.is_held_out[chosen]
    score = _blank_score(architecture, period, warmup_events, weights)
    parameters = _parameters(architecture, feature, model, score)

    traced = _walk(events, rows, parameters, architecture, trace=True)
    usable = held_out & np.isfinite(traced.errors).all(axis=1)
    if usable.sum() < MIN_EVENTS:
        raise HistoryError(
            f"only {usable.sum()} held-out events can be scored, {MIN_EVENTS} are needed: give a longer history"
        )
    centre, whitening = _whitening(traced.errors[usable])
    learned = _learned_parts(history.key_index[chosen], held_out)
    ranges, lowest = record.fit(traced.inputs, learned), stillness.fit(traced.inputs, ~np.isnan(events.values), learned)
    references = novelty.REFERENCES if weights[NAMES.index(novelty.NAME)] > 0 else novelty.NEIGHBOURS
    fitted = Fitted(novelty.fit(traced.hidden[usable], seed, references), ranges, lowest)
    score = score._replace(centre=centre, whitening=whitening, fitted=fitted)

    raw = _walk(events, rows, parameters._replace(score=score), architecture).raw
    seen = held_out & np.isfinite(raw).all(axis=1)
    curves = [_tail_curve(raw[seen, channel]) for channel in range(CURVES)]
    knots, surprises, slopes = (np.array(part, dtype=np.float32) for part in zip(*curves, strict=True))
    score = score._replace(knots=knots, surprises=surprises, slopes=slopes)

    last = _walk(events, rows, parameters._replace(score=score), architecture)
    scored = last.score[held_out & np.isfinite(last.score)]
    if len(scored) < MIN_EVENTS:
        raise HistoryError(
            f"only {len(scored)} held-out events come after a warm-up of {warmup_events}, {MIN_EVENTS} are needed: "
            "give a longer history"
        )
    tail_start, tail_scale = fit_tail(scored)
    return Calibrated(
        score=score,
        tail_start=tail_start,
        tail_scale=tail_scale,
        band=_band(last, held_out[:, None] & ~np.isnan(events.values)),
        events=chosen,
        held_out=held_out,
        results=last,
    )


def fit_tail(scores: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Return start and scale of the exponential tail above the 95 % quantile."""
    start = float(np.quantile(scores, 1 - TAIL_PROBABILITY))
    excesses = scores[scores > start].astype(np.float64) - start
    return max(start, 1e-2), max(float(excesses.mean()) if len(excesses) else 0.1, 1e-2)


def _calibration_events(history: History, seed: int) -> NDArray[np.int64]:
    """Choose whole keys at random, the latest events of each, until there are enough."""
    order = np.random.default_rng(seed).permutation(len(history.keys))
    chosen: list[NDArray[np.int64]] = []
    total = 0
    for key in order:
        start, end = int(history.starts[key]), int(history.starts[key + 1])
        chosen.append(np.arange(max(start, end - MAX_KEY_EVENTS), end))
        total += len(chosen[-1])
        if total >= MAX_EVENTS:
            break
    return np.concatenate(chosen)


def _learned_parts(keys: NDArray[np.int64], held_out: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return first and last + 1 of the events before each key's held-out ones; all of a key that has no others."""
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    ends = np.append(starts[1:], len(keys))
    learned = np.add.reduceat(~held_out, starts, dtype=np.int64)
    return list(zip(starts.tolist(), np.where(learned > 0, starts + learned, ends).tolist(), strict=True))


def _as_poll(
    history: History,
    chosen: NDArray[np.int64],
    scalers: NDArray[np.int64],
    categories: NDArray[np.int64],
    width: int,
) -> tuple[Events, Rows]:
    """Return the chosen events as one poll of one partition, and fresh rows for their keys."""
    keys, row = np.unique(history.key_index[chosen], return_inverse=True)
    rows = Rows(np.zeros((len(keys), INTEGERS), np.int64), np.zeros((len(keys), width), np.float32))
    rows.integers[row, SCALER] = scalers[chosen]
    events = Events(
        row=row.astype(np.int64),
        place=np.zeros(len(chosen), np.int64),
        offset=np.arange(1, len(chosen) + 1, dtype=np.int64),
        timestamp_ms=history.timestamp_ms[chosen],
        values=history.values[chosen],
        categories=categories[chosen],
        checksum=np.arange(len(chosen), dtype=np.int64),
    )
    return events, rows


def _walk(
    events: Events, rows: Rows, parameters: Parameters, architecture: Architecture, *, trace: bool = False
) -> Results:
    """Walk over the events from fresh rows."""
    results = new_results(len(events.offset), parameters, trace=trace)
    copies = Rows(rows.integers.copy(), rows.floats.copy())
    copies.floats[:, parameters.layout.tail] = parameters.tail.start
    copies.floats[:, parameters.layout.tail + 1] = parameters.tail.scale
    fitted = laid_out(parameters.score.fitted)
    parameters = aligned(parameters._replace(score=parameters.score._replace(fitted=fitted)))
    scratch = new_scratch(parameters, architecture.input_width)
    advance(events, copies, np.zeros(1, np.int64), parameters, results, scratch)
    return results


def _parameters(
    architecture: Architecture, feature: FeatureParameters, model: Model, score: ScoreParameters
) -> Parameters:
    """Return walk parameters whose alerts are of no interest."""
    return Parameters(
        feature=feature,
        model=model,
        score=score,
        tail=tail_parameters(1.0, 1.0, 1e-3),
        episode=episode_parameters(1e-3, 8, 16, 512),
        layout=layout_of(architecture),
        expire_after_ms=math.inf,
        forget_after_ms=math.inf,
        explain_all=False,
    )


def _blank_score(
    architecture: Architecture, period: int, warmup_events: int, weights: NDArray[np.float32]
) -> ScoreParameters:
    """Return a score that whitens nothing and knows no novelty."""
    errors, curves = architecture.errors, CURVES
    whitening = np.zeros((padded(errors), errors), dtype=np.float32)
    whitening[:errors] = np.eye(errors, dtype=np.float32)
    return ScoreParameters(
        centre=np.zeros(errors, np.float32),
        whitening=whitening,
        knots=np.tile(np.arange(2, dtype=np.float32), (curves, 1)),
        surprises=np.tile(np.arange(2, dtype=np.float32), (curves, 1)),
        slopes=np.ones(curves, np.float32),
        weights=weights,
        fitted=Fitted(
            novelty.Fitted(
                np.zeros(4, np.float32),
                np.zeros((architecture.hidden, 4), np.float32),
                np.zeros((4, 1), np.float32),
            ),
            record.unfitted(architecture.values),
            stillness.unfitted(architecture.values),
        ),
        span=running_span(period),
        warmup_events=warmup_events,
    )


def _whitening(errors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean error and A, (padded E, E), with A·Aᵀ the inverse covariance.

    The covariance is shrunk (Ledoit & Wolf 2004): with several horizons errors are many and correlated.
    """
    size = errors.shape[1]
    estimate = LedoitWolf().fit(errors.astype(np.float64))
    floor = 1e-6 * np.trace(estimate.covariance_) / size + 1e-9
    precision = np.linalg.inv(estimate.covariance_ + floor * np.eye(size))
    whitening = np.zeros((padded(size), size), dtype=np.float32)
    whitening[:size] = np.linalg.cholesky((precision + precision.T) / 2)
    return estimate.location_.astype(np.float32), whitening


def _tail_curve(raw: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return knots (log raw), surprises (decades) and the slope beyond the last knot.

    Knots stand at log-spaced tail probabilities down to ten exceedances; beyond, a power law.
    """
    logs = np.sort(np.log(np.maximum(raw.astype(np.float64), 1e-12)))
    smallest = min(10.0 / len(logs), 0.25)
    probabilities = np.geomspace(0.95, smallest, KNOTS)
    knots = np.quantile(logs, 1 - probabilities)
    knots = np.maximum.accumulate(knots) + np.arange(KNOTS) * 1e-4  # strictly ascending in float32
    top = logs[-max(10, int(HILL_SHARE * len(logs))) :]
    tail_index = max(float(np.mean(top - top[0])), 1e-2)
    return knots, -np.log10(probabilities), 1.0 / (tail_index * math.log(10.0))


def _band(results: Results, counted: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return, per value, the half-width in forecast scales that held 99 % of the values ``counted``, (n, D)."""
    off = np.abs(results.inputs - results.location) / results.scale
    counted = counted & np.isfinite(off)
    return np.array([_quantile(column[use]) for column, use in zip(off.T, counted.T, strict=True)], dtype=np.float32)


def _quantile(sizes: NDArray[np.float32]) -> float:
    return float(np.quantile(sizes, BAND_COVERAGE)) if len(sizes) else 3.0
