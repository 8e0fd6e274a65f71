"""Calibration: errors are white, surprises mean what they say, and the walk is the scorer's own."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from streamlstm.core.channels import CURVES
from streamlstm.core.schema import StreamSchema
from streamlstm.core.scorer import Scorer
from streamlstm.errors import HistoryError
from streamlstm.training.calibrate import fit_tail
from streamlstm.training.train import Options, Trained, train
from tests.builders import SCHEMA, START_MS, make_feed, make_history, make_record, make_rich_feed, rich, trained

OPTIONS = Options(hidden=4, updates=2, lanes=2, horizon=2)


def held_out(model: Trained, column: np.ndarray) -> np.ndarray:
    """Return the finite values of a result's column at held-out events."""
    part = column[model.calibrated.held_out]
    return part[np.isfinite(part)]


@pytest.mark.parametrize("model", [trained, rich])
def test_calibrated_scores_are_the_scorers_own_bit_for_bit(model: Callable[[], Trained]) -> None:
    """A scorer that walks over the history writes the scores that calibration saw."""
    found = model()
    feed = make_feed(1500, ("a", "b", "c")) if found is trained() else make_rich_feed(300)
    scorer = Scorer(found.bundle)
    poll = scorer.read(feed)
    results = scorer.score(poll, {}).results
    by_key = np.argsort(np.array(poll.batch.keys), kind="stable")
    expected = found.calibrated.results.score
    assert np.isfinite(expected).sum() > 400
    assert results.score[by_key][found.calibrated.events].tobytes() == expected.tobytes()


def test_distance_of_held_out_errors_is_about_one() -> None:
    """Whitened with their own covariance errors would have a mean square of one; shrinking it lowers that."""
    assert 0.6 < held_out(trained(), trained().calibrated.results.raw[:, 0]).mean() < 1.02


@pytest.mark.parametrize("channel", range(CURVES))
def test_surprise_of_a_channel_is_its_tail_probability_in_decades(channel: int) -> None:
    """A share of 10^−d of the held-out events has a surprise of d or more."""
    surprises = held_out(trained(), trained().calibrated.results.surprises[:, channel])
    for decades in (0.1, 0.5, 1.0, 1.5):
        assert (surprises >= decades).mean() == pytest.approx(10**-decades, rel=0.2)


def test_curves_rise_and_go_on_rising() -> None:
    """Knots and surprises ascend strictly, and beyond them the slope is positive."""
    for model in (trained(), rich()):
        score = model.bundle.score
        assert (np.diff(score.knots, axis=1) > 0).all()
        assert (np.diff(score.surprises, axis=1) > 0).all()
        assert (score.slopes > 0).all()


def test_calibrated_tail_is_that_of_the_held_out_scores() -> None:
    """A twentieth of them lies above its start, by the mean of its exponential distribution."""
    scores, calibration = held_out(trained(), trained().calibrated.results.score), trained().bundle.calibration
    above = scores[scores > calibration.tail_start]
    assert len(above) / len(scores) == pytest.approx(0.05, abs=1e-3)
    assert np.mean(above - calibration.tail_start) == pytest.approx(calibration.tail_scale, rel=1e-5)


@pytest.mark.parametrize("scores", [np.full(1_000, 0.7), np.zeros(50)])
def test_tail_of_scores_that_are_all_alike_is_narrow_and_not_none(scores: np.ndarray) -> None:
    """Start and scale stay positive."""
    start, scale = fit_tail(scores)
    assert start > 0
    assert scale > 0


@pytest.mark.parametrize("model", [trained, rich])
def test_band_holds_99_percent_of_the_held_out_values_that_were_measured(model: Callable[[], Trained]) -> None:
    """A missing value is inside no band and outside none."""
    which = model()
    found = which.calibrated
    measured = ~np.isnan(which.history.values[found.events]) & np.isfinite(found.results.location)
    measured &= found.held_out[:, None]
    inside = np.abs(found.results.inputs - found.results.location) <= found.results.scale * which.bundle.band
    for value in range(which.bundle.schema.values):
        assert 0.98 <= inside[measured[:, value], value].mean() <= 1.0
        assert np.quantile(
            np.abs(found.results.inputs - found.results.location)[measured[:, value], value]
            / found.results.scale[measured[:, value], value],
            0.99,
        ) == pytest.approx(which.bundle.band[value], rel=1e-5)


def test_band_of_a_value_never_held_out_is_three_scales() -> None:
    """A sensor that fell silent before the held-out part still has a band."""
    schema = StreamSchema.from_toml('timestamp_unit = "ms"\n[features.flow]\n[features.rare]\noptional = true')
    records = [
        make_record(
            msgspec.json.encode({"time": START_MS + i, "flow": float(i % 7)} | ({"rare": 1.5} if i < 150 else {}))
        )
        for i in range(300)
    ]
    assert train(make_history(records, schema), schema, OPTIONS).bundle.band[1] == 3.0


def test_history_of_keys_too_short_to_be_scored_is_refused() -> None:
    """Keys that end while they settle leave nothing to calibrate on."""
    feed = make_feed(25, tuple("abcdefghij"))
    with pytest.raises(HistoryError, match="only 0 held-out events can be scored, 40 are needed"):
        train(make_history(feed), SCHEMA, OPTIONS)


def test_history_of_keys_shorter_than_the_warm_up_is_refused() -> None:
    """Keys that end while they warm up have errors, but no score to calibrate a tail on."""
    feed = make_feed(60, tuple("abcdef"))
    with pytest.raises(HistoryError, match="only 0 held-out events come after a warm-up of 96"):
        train(make_history(feed), SCHEMA, msgspec.structs.replace(OPTIONS, period=64))


def test_series_that_never_varies_is_calibrated_and_a_change_stands_out() -> None:
    """A constant stream makes a finite model, and the first other value is a surprise."""
    schema = StreamSchema.from_toml('timestamp_unit = "ms"\n[features.flow]')

    def records(flow: list[float]) -> list[object]:
        return [
            make_record(msgspec.json.encode({"time": START_MS + 1000 * i, "flow": v}), offset=i)
            for i, v in enumerate(flow)
        ]

    found = train(make_history(records([7.0] * 300), schema), schema, OPTIONS).bundle
    scorer = Scorer(found)
    results = scorer.score(scorer.read(records([7.0] * 100 + [12.0])), {}).results
    assert np.isfinite(results.score[-2:]).all()
    assert results.score[-1] > results.score[-2] + 1
