"""Other detectors: causal, and able to see what is plain to see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streamlstm.core.scorer import Scorer
from streamlstm.evaluation import windowed
from streamlstm.evaluation.alarm_stage import detect
from streamlstm.evaluation.baselines import BASELINES
from streamlstm.evaluation.metrics import roc_area
from streamlstm.evaluation.stream import in_order
from streamlstm.evaluation.surprise import surprise_curve
from tests.evaluation import small


@pytest.mark.parametrize("name", BASELINES)
def test_baseline_sees_a_plain_fault(name: str) -> None:
    """Heat twelve deviations off."""
    stream = small.stream()
    score = BASELINES[name](stream, 0)
    assert score.shape == (len(stream),)
    assert not np.isnan(score).any()
    area = roc_area(stream.label[stream.test], score[stream.test])
    assert area is not None
    slow = ("running z-score", "half-space trees", "PCA residual")  # learn it, or explain it by what they learned
    assert area > (0.6 if name in slow else 0.9)


@pytest.mark.parametrize("name", BASELINES)
def test_baseline_is_causal(name: str) -> None:
    """Other values at the end of the test change no score before them."""
    stream = small.stream()
    late = stream.timestamp_ms >= np.quantile(stream.timestamp_ms, 0.9)
    values = stream.values.copy()
    values[late] = np.random.default_rng(1).normal(0, 3, values[late].shape)
    changed = BASELINES[name](replace(stream, values=values), 0)
    np.testing.assert_array_equal(changed[~late], BASELINES[name](stream, 0)[~late])


@pytest.mark.parametrize("calendar", [False, True])
def test_windowed_network_forecasts_as_the_scorer_does_after_as_many_events(calendar: bool) -> None:
    """With 64 events since the start, the carried state is the window's; the forecast one event ahead agrees.

    Also where the trainer has found that the calendar helps.
    """
    stream, run = small.stream(), small.run(calendar=calendar)
    bundle = run.trained.bundle
    part = next(stream.of_each_key())
    count = windowed.WINDOW_EVENTS + 1
    at = part.stop - count + np.arange(count)
    records = [small.task().test[i] for i in stream.record_index[at]]
    scorer = Scorer(bundle)
    results = scorer.score(scorer.read(in_order(records)), {}).results
    errors, _ = windowed.forecast_errors(windowed.network_inputs(stream, bundle), stream, at[-1:], bundle)
    width = bundle.schema.values
    carried = (results.inputs[-1] - results.location[-1]) / np.sqrt(results.scale[-1]) - bundle.score.centre[:width]
    np.testing.assert_allclose(errors[0, :width], carried, atol=1e-4)


def test_windowed_network_scores_nearly_as_the_carried_one() -> None:
    """The recipe's finding: sliding windows give the same scores at a multiple of the cost."""
    stream, run = small.stream(), small.run()
    score = windowed.windowed_lstm(stream, run.trained.bundle)
    assert np.isfinite(score[stream.test]).all()
    assert np.corrcoef(score[stream.test], run.detection.score[stream.test])[0, 1] > 0.95


def test_surprise_is_the_decades_of_the_calibration_rate() -> None:
    """One event in ten is one decade; beyond the largest it goes on rising."""
    curve = surprise_curve(np.arange(1.0, 10_001.0))
    np.testing.assert_allclose(curve(np.array([9000.0, 9900.0])), [1, 2], atol=0.05)
    beyond = curve(np.array([1e4, 1e5, 1e6]))
    assert (np.diff(beyond) > 0).all()
    assert np.isnan(curve(np.array([np.nan]))).all()


def test_alerts_of_any_scores_follow_the_detectors_rules() -> None:
    """A plain fault is one alert that opens in it; unscored parts have none."""
    stream, bundle = small.stream(), small.run().trained.bundle
    score = BASELINES["static Mahalanobis"](stream, 0)
    detection = detect("x", stream, score, stream.test, bundle)
    assert np.isnan(detection.score[~stream.test]).all()
    opened = np.unique(detection.alert[(detection.alert >= 0) & stream.test])
    assert stream.label[opened].sum() == 1
    assert detection.flagged[stream.test & ~stream.label].mean() < 0.02
