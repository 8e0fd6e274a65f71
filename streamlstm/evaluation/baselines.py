"""Detectors to compare with: each is fitted on the learning part and scores causally, one score per event.

A score of an event sees that event and those before it of its key, never one after it. To add one: a function of
stream and seed that returns (N,) scores, and its line in :data:`BASELINES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest

from streamlstm.evaluation.control import no_model
from streamlstm.evaluation.stream import LEARN, Stream

Scores = NDArray[np.float64]

RUNNING_EVENTS = 100  # that the running z-score's mean and deviation remember
WINDOW_EVENTS = 4  # that isolation forest and PCA look at together; 16 did worse on most
SMALLEST_VARIANCE = 1e-2  # of the mean one, added to each in Mahalanobis's covariance; less did worse on servers
KEPT_VARIANCE = 0.95  # by the principal components
FITTED_WINDOWS = 20_000
TREES = 100
HALF_SPACE_TREES, HALF_SPACE_HEIGHT, HALF_SPACE_WINDOW = 25, 8, 250


def running_z_score(stream: Stream, _seed: int) -> Scores:
    """Return the mean square of the values' distances from their running means, in running deviations."""
    rate = 2.0 / (RUNNING_EVENTS + 1)
    scores = np.zeros(len(stream))
    for part in stream.of_each_key():
        values = stream.values[part].astype(np.float64)
        mean, variance = np.zeros(values.shape[1]), np.ones(values.shape[1])
        for i, value in enumerate(values):
            off = value - mean
            scores[part.start + i] = (off**2 / (variance + 1e-4)).mean()
            mean += rate * off
            variance += rate * (off**2 - variance)
    return scores


def static_mahalanobis(stream: Stream, _seed: int) -> Scores:
    """Return the squared distance from the learning part's mean, in its (shrunk) covariance."""
    values = stream.values.astype(np.float64)
    estimate = LedoitWolf().fit(values[stream.part == LEARN])
    floor = SMALLEST_VARIANCE * np.trace(estimate.covariance_) / values.shape[1] + 1e-9
    precision = np.linalg.inv(estimate.covariance_ + floor * np.eye(values.shape[1]))
    off = values - estimate.location_
    squared: Scores = np.einsum("ni,ij,nj->n", off, precision, off)
    return squared


def pca_residual(stream: Stream, _seed: int) -> Scores:
    """Return the squared part of the last events that the learning part's principal components do not explain."""
    windows = _windows(stream)
    learned = _thinned(windows[stream.part == LEARN])
    mean = learned.mean(axis=0)
    model = PCA(KEPT_VARIANCE, svd_solver="full").fit(learned - mean)
    axes = model.components_[: max(1, min(len(model.components_), windows.shape[1] - 1))]
    scores = np.zeros(len(windows))
    for first in range(0, len(windows), FITTED_WINDOWS):
        off = windows[first : first + FITTED_WINDOWS] - mean
        scores[first : first + FITTED_WINDOWS] = ((off - off @ axes.T @ axes) ** 2).sum(axis=1)
    return scores


def isolation_forest(stream: Stream, seed: int) -> Scores:
    """Return how easily the last events are isolated from those of the learning part."""
    windows = _windows(stream)
    forest = IsolationForest(n_estimators=TREES, random_state=seed).fit(_thinned(windows[stream.part == LEARN]))
    easily: Scores = -forest.score_samples(windows)
    return easily


def half_space_trees(stream: Stream, seed: int) -> Scores:
    """Return river's HalfSpaceTrees, one for all keys: each event is scored, then learned."""
    from river.anomaly import HalfSpaceTrees

    learned = stream.values[stream.part == LEARN]
    low, high = learned.min(axis=0), learned.max(axis=0)
    scaled = np.clip((stream.values - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0)
    trees: Any = HalfSpaceTrees(
        n_trees=HALF_SPACE_TREES, height=HALF_SPACE_HEIGHT, window_size=HALF_SPACE_WINDOW, seed=seed
    )
    names = list(range(scaled.shape[1]))
    scores = np.zeros(len(stream))
    for i in np.argsort(stream.timestamp_ms, kind="stable"):
        event: dict[Any, float] = dict(zip(names, scaled[i].tolist(), strict=True))
        scores[i] = trees.score_one(event)
        trees.learn_one(event)
    return scores


def _windows(stream: Stream) -> NDArray[np.float32]:
    """Return each event with those before it of its key; at a key's start the first event is repeated."""
    windows = np.empty((len(stream), WINDOW_EVENTS, stream.values.shape[1]), dtype=np.float32)
    for part in stream.of_each_key():
        back = np.arange(part.stop - part.start)[:, None] - np.arange(WINDOW_EVENTS)
        windows[part] = stream.values[part.start + np.maximum(back, 0)]
    return windows.reshape(len(stream), -1)


def _thinned(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return evenly spread windows, as many as are needed for a fit."""
    return windows[:: -(-len(windows) // FITTED_WINDOWS)]


BASELINES: dict[str, Callable[[Stream, int], Scores]] = {
    "no model": no_model,
    "running z-score": running_z_score,
    "static Mahalanobis": static_mahalanobis,
    "PCA residual": pca_residual,
    "isolation forest": isolation_forest,
    "half-space trees": half_space_trees,
}
RANDOM = {"isolation forest", "half-space trees"}  # with other scores for other seeds
