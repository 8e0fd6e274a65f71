"""Scores against labels, without a threshold: average precision, ROC and VUS-PR; and what a labelled stretch is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

Labels = NDArray[np.bool_]


class Stretch(NamedTuple):
    """Positions ``start`` up to, not including, ``end``."""

    start: int
    end: int


def stretches(label: Labels) -> list[Stretch]:
    """Return the runs of true labels.

    >>> stretches(np.array([0, 1, 1, 0, 1], dtype=bool))
    [Stretch(start=1, end=3), Stretch(start=4, end=5)]
    """
    steps = np.diff(np.concatenate([[0], np.asarray(label, dtype=np.int8), [0]]))
    return [
        Stretch(int(start), int(end))
        for start, end in zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True)
    ]


def average_precision(label: Labels, score: NDArray[np.floating]) -> float | None:
    """Return the average precision; None where nothing or everything is labelled."""
    return float(average_precision_score(label, score)) if _both(label) else None


def roc_area(label: Labels, score: NDArray[np.floating]) -> float | None:
    """Return the area under the ROC curve; None where nothing or everything is labelled."""
    return float(roc_auc_score(label, score)) if _both(label) else None


def _both(label: Labels) -> bool:
    return bool(label.any() and not label.all())


def vus_pr(label: Labels, score: NDArray[np.floating], buffer: int, key: NDArray[np.integer]) -> float | None:
    """Return the volume under the precision-recall surface over buffers of 0…``buffer`` events.

    Source: Paparrizos et al. 2022, "Volume Under the Surface", VLDB 15(11). Each labelled stretch is widened by a
    label that falls as √(1 − distance/ℓ) over ℓ/2 events to each side, and recall counts, beside the labels reached,
    the share of stretches that are reached at all. Their code looks at 250 thresholds; here all are. ``key``: events
    of different series, which stand one after the other; a stretch does not reach into another series.
    """
    if not _both(label):
        return None
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of each group of equal scores
    areas = []
    for width in range(buffer + 1):
        soft = softened(label, width, key)
        found = np.cumsum(soft[order])[last]
        positives = (label.sum() + soft.sum()) / 2
        recall = np.minimum(found / positives, 1.0) * _reached(soft, score, ranked[last], key)
        precision = found / (last + 1)
        recall, precision = np.append(0.0, recall), np.append(1.0, precision)
        areas.append(float((np.diff(recall) * (precision[1:] + precision[:-1]) / 2).sum()))
    return float(np.mean(areas))


def recall_at_rate(label: Labels, score: NDArray[np.floating], rate: float, key: NDArray[np.integer]) -> float | None:
    """Return the share of labelled stretches with a score above the threshold that ``rate`` of the unlabelled exceed.

    None where nothing or everything is labelled. ``key`` as in :func:`vus_pr`. **Trap**: the threshold, one for all
    keys, is set with the labels; no detector has it live.

    >>> score = np.array([1.0, 2.0, 9.0, 1.5, 3.0, 0.5])
    >>> recall_at_rate(np.array([0, 0, 1, 0, 1, 0], dtype=bool), score, 0.25, np.zeros(6, int))
    1.0
    """
    if not _both(label):
        return None
    above = np.nextafter(np.quantile(score[~label], 1 - rate), np.inf)
    return float(_reached(label.astype(np.float64), score, np.array([above]), key)[0])


def softened(label: Labels, width: int, key: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return labels between 0 and 1 that fall off over ``width``/2 events beside each stretch.

    >>> softened(np.array([0, 0, 1, 0, 0], dtype=bool), 2, np.zeros(5, int)).round(3).tolist()
    [0.0, 0.707, 1.0, 0.707, 0.0]
    """
    soft = label.astype(np.float64)
    for distance in range(1, width // 2 + 1):
        height = np.sqrt(1 - distance / width)
        same = key[distance:] == key[:-distance]
        edge = np.zeros(len(label))
        edge[distance:] += height * (label[:-distance] & _ends(label, key)[:-distance] & same)
        edge[:-distance] += height * (label[distance:] & _starts(label, key)[distance:] & same)
        soft += edge
    return np.minimum(soft, 1.0)


def _starts(label: Labels, key: NDArray[np.integer]) -> Labels:
    starts: Labels = label & np.append(True, ~label[:-1] | (key[1:] != key[:-1]))
    return starts


def _ends(label: Labels, key: NDArray[np.integer]) -> Labels:
    ends: Labels = label & np.append(~label[1:] | (key[1:] != key[:-1]), True)
    return ends


def _reached(
    soft: NDArray[np.float64], score: NDArray[np.floating], thresholds: NDArray[np.floating], key: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Return, per threshold, the share of widened stretches with a score that reaches it."""
    inside = soft > 0
    starts = np.flatnonzero(_starts(inside, key))
    ends = np.flatnonzero(_ends(inside, key)) + 1
    bounds = np.stack([starts, ends], axis=1).ravel()
    highest = np.sort(np.maximum.reduceat(np.append(score, -np.inf), bounds)[::2])
    return 1.0 - np.searchsorted(highest, thresholds, side="left") / len(highest)
