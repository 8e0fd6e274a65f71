"""From history to bundle: the same seed gives the same bundle, and what is chosen fits the stream."""

from __future__ import annotations

import functools
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from streamlstm.core.bundle import LONGEST_PERIOD, from_parts, to_parts
from streamlstm.core.log import Record
from streamlstm.core.schema import StreamSchema
from streamlstm.core.score import SETTLING_EVENTS
from streamlstm.errors import HistoryError, SettingsError
from streamlstm.training.fit import Progress
from streamlstm.training.train import MIN_HOLD_EVENTS, Options, Trained, train
from tests.builders import PERIOD, SCHEMA, START_MS, STEP_MS, changed, make_feed, make_history, rich, trained

QUICK = Options(hidden=4, updates=2, lanes=2)


@functools.cache
def quick(**options: object) -> Trained:
    """Return a model that was hardly trained."""
    return train(make_history(make_feed(250)), SCHEMA, msgspec.structs.replace(QUICK, **options))


def test_training_twice_with_a_seed_gives_one_digest() -> None:
    """Every array and number is the same; another seed makes another model."""
    again = train(make_history(make_feed(250)), SCHEMA, QUICK)
    assert again.bundle.digest == quick().bundle.digest
    assert quick(seed=5).bundle.digest != quick().bundle.digest


def test_training_does_not_depend_on_the_random_state_around_it() -> None:
    """What a program drew before changes nothing."""
    import torch

    torch.rand(17)
    np.random.default_rng().random(3)
    assert train(make_history(make_feed(250)), SCHEMA, QUICK).bundle.digest == quick().bundle.digest


def test_trained_forecasts_are_nearer_than_the_mean() -> None:
    """On held-out events the sine is followed: its error is less than half of what the mean would make."""
    results, held_out = trained().calibrated.results, trained().calibrated.held_out
    known = held_out & np.isfinite(results.location[:, 0])
    actual, location = results.inputs[known, 0], results.location[known, 0]
    assert np.mean((actual - location) ** 2) < 0.25 * np.mean(actual**2)


@pytest.mark.parametrize("model", [trained, rich, quick])
def test_trained_bundle_can_be_read_again(model: Callable[[], Trained]) -> None:
    """What the trainer makes passes the reader's checks, report included."""
    bundle = model().bundle
    data, arrays = to_parts(bundle)
    again = from_parts(msgspec.json.decode(msgspec.json.encode(data)) | {"digest": bundle.digest}, arrays)
    assert again.report == bundle.report


def test_period_found_decides_warm_up_span_and_alerting() -> None:
    """About a period of calm ends an episode, several hold it; warm-up is settling and a period."""
    bundle = trained().bundle
    period = bundle.calibration.period
    assert period == pytest.approx(PERIOD, abs=1)
    assert bundle.calibration.warmup_events == SETTLING_EVENTS + period
    assert bundle.score.span == round(period / 2)
    calm = max(period, 10)  # events of a second each: ten seconds at least
    assert (bundle.alerting.resolve_after_events, bundle.alerting.cooldown_events) == (calm, 2 * calm)
    assert bundle.alerting.hold_events >= max(5 * calm, MIN_HOLD_EVENTS)
    assert bundle.report["period_found"]


def test_period_given_wins_over_the_one_found() -> None:
    """A person who knows better is believed; warm-up and the end of an alert wait for a period of 64 events at most."""
    bundle = quick(period=100).bundle
    assert bundle.calibration.period == 100
    assert bundle.calibration.warmup_events == SETTLING_EVENTS + LONGEST_PERIOD
    assert bundle.alerting.resolve_after_events == LONGEST_PERIOD
    assert bundle.alerting.hold_events == 10 * LONGEST_PERIOD


@pytest.mark.parametrize(("gap_ms", "horizon"), [(1_000, 2), (3_599_000, 2), (3_600_000, 1)])
def test_horizon_is_two_events_or_one_where_an_event_is_an_hour(gap_ms: int, horizon: int) -> None:
    """Found from the typical gap, unless given."""
    feed = [changed(record, time=START_MS + i * gap_ms) for i, record in enumerate(make_feed(250, ("a",)))]
    assert train(make_history(feed), SCHEMA, QUICK).bundle.architecture.horizon == horizon


def test_alarm_budget_of_a_history_without_gaps_is_refused() -> None:
    """A promise of time needs to know how often a key sends; a rate per event does not."""
    apart = [changed(record, time=START_MS + i * 10_000) for i, record in enumerate(make_feed(250, ("a",)))]
    schema = msgspec.structs.replace(SCHEMA, expire_after_s=5.0)
    with pytest.raises(HistoryError, match="no key of the history has two events apart in time"):
        train(make_history(apart, schema), schema, msgspec.structs.replace(QUICK, alarms="1 per key per day"))
    assert train(make_history(apart, schema), schema, QUICK).bundle.alerting.alarm_rate == 1e-3


def test_horizon_given_wins() -> None:
    """An option is not second-guessed."""
    assert quick(horizon=3).bundle.architecture.horizon == 3


def test_alarm_rate_goes_into_the_bundle() -> None:
    """The promise is part of the model."""
    bundle = quick(alarm_rate=1e-2).bundle
    assert bundle.alerting.alarm_rate == 1e-2
    assert bundle.parameters().tail.alarm_rate == np.float32(1e-2)


def test_report_tells_what_was_learned_from() -> None:
    """Counts of events, keys, duplicates and held-out events are those of the history."""
    report = trained().bundle.report
    history = trained().history
    assert (report["events"], report["keys"], report["duplicates_left_out"]) == (4500, 3, 0)
    assert report["held_out_events"] == int(history.is_held_out.sum()) == 3 * 375
    assert report["held_out_loss"] == min(trained().curve.held_out)
    assert report["first_event_ms"] == START_MS
    assert report["options"]["seed"] == 1


def test_progress_is_told() -> None:
    """A caller hears of each update."""
    told: list[Progress] = []
    train(make_history(make_feed(250)), SCHEMA, QUICK, on_progress=told.append)
    assert [step.update for step in told] == [1, 2]


def wide_feed() -> tuple[list[Record], StreamSchema]:
    """Return a feed of frames of 200 samples."""
    schema = StreamSchema.from_toml('key = "sensor"\ntimestamp_unit = "ms"\nframe_samples = 300\n[features.flow]')
    return [changed(r, flow=[float(i % 9)] * 300) for i, r in enumerate(make_feed(250, ("a",)))], schema


def test_horizon_of_a_wide_event_is_one() -> None:
    """Twice 300 errors would be too many for one covariance."""
    feed, schema = wide_feed()
    assert train(make_history(feed, schema), schema, QUICK).bundle.architecture.horizon == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"horizon": 3}, "horizon 3 × 300 values = 900"), ({"hidden": 6}, "multiple of four"), ({"hidden": 0}, "hidden")],
)
def test_size_that_cannot_be_is_refused(options: dict[str, int], reason: str) -> None:
    """The error says which number does not fit."""
    feed, schema = wide_feed()
    with pytest.raises(HistoryError, match=reason):
        train(make_history(feed, schema), schema, msgspec.structs.replace(QUICK, **options))


@pytest.mark.parametrize(
    ("events", "horizon", "reason"), [(16, 4, "longest key has 12"), (54, 16, "more than 13 held-out")]
)
def test_keys_too_short_for_the_horizon_are_refused(events: int, horizon: int, reason: str) -> None:
    """Many short keys make a long history, and still teach no order in time, or leave none to judge it by."""
    keys = tuple("abcdefghijklmnop")
    with pytest.raises(HistoryError, match=reason):
        train(make_history(make_feed(events, keys)), SCHEMA, msgspec.structs.replace(QUICK, horizon=horizon))


def test_alarm_budget_becomes_a_rate_by_the_mean_gap() -> None:
    """Events of a key come once a second: a thousandth of them is 3.6 an hour, which is what no option means."""
    bundle = quick(alarms="2 per key per day").bundle
    assert bundle.calibration.mean_gap_ms == pytest.approx(STEP_MS)
    assert bundle.alerting.alarm_rate == pytest.approx(2 / 86_400)
    assert str(bundle.promised().budget) == "2 per key per day"
    assert str(quick().bundle.promised().budget) == "3.6 per key per hour"
    with pytest.raises(SettingsError, match="less than 0"):
        quick(alarms="181 per key per hour")


@pytest.mark.parametrize(("expire_after_s", "mean_gap_s"), [(None, 1 + 9_000 / 249), (3_600.0, 1.0)])
def test_silence_after_which_a_key_starts_anew_is_not_of_its_gaps(
    expire_after_s: float | None, mean_gap_s: float
) -> None:
    """Other silences are: a budget is of all the time there is."""
    schema = msgspec.structs.replace(SCHEMA, expire_after_s=expire_after_s)
    feed = make_feed(250, ("a",))
    paused = [changed(record, time=START_MS + i * 1000 + (i > 100) * 9_000_000) for i, record in enumerate(feed)]
    found = train(make_history(paused, schema), schema, QUICK).bundle.calibration.mean_gap_ms
    assert found == pytest.approx(1000 * mean_gap_s, rel=0.01)
