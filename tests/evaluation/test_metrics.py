"""Metrics against labels: by hand where they are ours."""

from __future__ import annotations

import numpy as np
import pytest

from streamlstm.evaluation.metrics import (
    average_precision,
    roc_area,
    softened,
    stretches,
    vus_pr,
)

ONE_SERIES = np.zeros(5, dtype=int)


def labels(text: str) -> np.ndarray:
    """Return labels from a string such as ``..##.``."""
    return np.array([character == "#" for character in text])


def test_stretches_are_runs_of_labels() -> None:
    """At both ends too."""
    assert stretches(labels("##..#")) == [(0, 2), (4, 5)]
    assert stretches(labels(".....")) == []


def test_metrics_are_absent_where_there_is_nothing_to_tell_apart() -> None:
    """A key without an anomaly has no average precision; 0 or 1 would be a lie."""
    score = np.arange(5.0)
    for label in (labels("....."), labels("#####")):
        assert average_precision(label, score) is None
        assert roc_area(label, score) is None
        assert vus_pr(label, score, 2, ONE_SERIES) is None


def test_soft_label_falls_off_beside_a_stretch() -> None:
    """√(1 − distance/ℓ), up to half of ℓ events away."""
    found = softened(labels(".....##...."), 4, np.zeros(11, int))
    near, far = np.sqrt(3 / 4), np.sqrt(2 / 4)
    np.testing.assert_allclose(found, [0, 0, 0, far, near, 1, 1, near, far, 0, 0])


def test_soft_label_stays_within_its_series() -> None:
    """The end of one key's events is not beside the beginning of another's."""
    found = softened(labels("..#.."), 2, np.array([0, 0, 0, 1, 1]))
    np.testing.assert_allclose(found, [0, np.sqrt(0.5), 1, 0, 0])


def test_vus_pr_by_hand() -> None:
    """One labelled event of five, ranked second; buffers 0 and 2 (1 widens nothing)."""
    label, score = labels("..#.."), np.array([1.0, 5.0, 4.0, 3.0, 2.0])
    # buffer 0: recall 0, 1, …; precision 0, 1/2, …; from recall 0 (precision 0 after the first event) to 1: 1/4
    plain = (0 + 1 / 2) / 2
    # buffer 2: soft labels h, 1, h with h = √.5; ranked: event 1 (h), 2 (1), 3 (h), then nothing
    h = np.sqrt(0.5)
    positives = (1 + (1 + 2 * h)) / 2
    recall = np.array([0, h, h + 1, h + 1 + h]) / positives
    recall = np.minimum(recall, 1)
    precision = np.array([1, h, (1 + h) / 2, (1 + 2 * h) / 3])
    wide = (np.diff(recall) * (precision[1:] + precision[:-1]) / 2).sum()
    assert vus_pr(label, score, 0, ONE_SERIES) == pytest.approx(plain)
    assert vus_pr(label, score, 2, ONE_SERIES) == pytest.approx((plain + plain + wide) / 3)


def test_vus_pr_counts_stretches_that_are_not_reached() -> None:
    """Of two stretches one is ranked last: recall is halved until it is reached."""
    label, score = labels("##..#"), np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    # recall: 1/3·1/2, 2/3·1/2, …, 1; precision 1, 1, 2/3, 2/4, 3/5
    expected = 1 / 3 + (2 / 3) * (1 / 2 + 3 / 5) / 2
    assert vus_pr(label, score, 0, ONE_SERIES) == pytest.approx(expected)


def test_vus_pr_does_not_depend_on_the_order_of_equal_scores() -> None:
    """A constant score is one threshold."""
    assert vus_pr(labels("#...."), np.ones(5), 0, ONE_SERIES) == pytest.approx((1 + 0.2) / 2)
    assert vus_pr(labels("....#"), np.ones(5), 0, ONE_SERIES) == pytest.approx((1 + 0.2) / 2)


def test_perfect_scores_have_perfect_metrics() -> None:
    """All labelled events before all others."""
    label = labels("..##." * 4)
    score = label.astype(float) + np.linspace(0, 0.1, 20)
    assert average_precision(label, score) == 1.0
    assert roc_area(label, score) == 1.0
    assert vus_pr(label, score, 0, np.zeros(20, int)) == pytest.approx(1.0)
