"""What an alert tells the person it wakes: id, times, band, and the feature to look at."""

from __future__ import annotations

import functools

import msgspec
import numpy as np
import pytest

from streamlstm.core.bundle import Alerting
from streamlstm.core.channels import NAMES, stillness
from streamlstm.core.log import Record
from streamlstm.core.record import AlertRecord, FeatureEvidence
from streamlstm.core.scorer import Scorer
from tests.builders import START_MS, STEP_MS, Run, bundle, changed, make_feed, make_rich_feed, rich, run_polls

AT = 120  # the event with the spike
ALERTING = Alerting(alarm_rate=1e-3, resolve_after_events=3, cooldown_events=100, hold_events=100)


def spiked(**fields: object) -> list[Record]:
    """Return a feed of one key with other values at one event."""
    feed = make_feed(200, ("a",), seed=21)
    feed[AT] = changed(feed[AT], **fields)
    return feed


@functools.cache
def run_with(feature: str) -> Run:
    """Return a run over the feed with a spike in a feature."""
    return run_polls(Scorer(bundle(), alerting=ALERTING), [spiked(**{feature: 15.0})])


def evidence(alert: AlertRecord) -> dict[str, FeatureEvidence]:
    """Return an alert's evidence by feature."""
    return {feature.name: feature for feature in alert.features}


@pytest.mark.parametrize("feature", ["flow", "pressure"])
def test_alert_of_a_spike_opens_at_it_and_resolves_when_calm(feature: str) -> None:
    """One episode, one id, opened by the spike and closed by calm events."""
    opened, *updates, resolved = run_with(feature).alert_records
    assert (opened.action, opened.reason, opened.adapting) == ("opened", None, False)
    assert (resolved.action, resolved.reason, resolved.adapting) == ("resolved", "calm", False)
    assert {alert.action for alert in updates} <= {"updated"}
    assert {alert.id for alert in (opened, *updates, resolved)} == {f"events:0:{AT}"}
    assert opened.offset == opened.opened_offset == resolved.opened_offset == AT
    assert opened.since_ms == opened.time_ms == resolved.since_ms == START_MS + AT * STEP_MS
    assert resolved.offset > AT
    assert resolved.events == resolved.offset - AT + 1
    assert (opened.key, opened.topic, opened.partition, opened.model) == ("a", "events", 0, bundle().name)


@pytest.mark.parametrize("feature", ["flow", "pressure"])
def test_alert_of_a_spike_blames_the_feature_that_spiked(feature: str) -> None:
    """Shares sum to one and name the right feature; its value lies outside its band, the forecast inside."""
    opened = run_with(feature).alert_records[0]
    found = evidence(opened)
    assert sum(f.share for f in found.values()) == pytest.approx(1.0, abs=1e-6)
    assert found[feature].share > 0.8
    assert found[feature].actual == 15.0
    assert found[feature].actual > found[feature].high
    for name, unit in (("flow", "l/min"), ("pressure", "bar")):
        assert found[name].unit == unit
        assert found[name].low < found[name].expected < found[name].high
    other = found["pressure" if feature == "flow" else "flow"]
    assert other.low <= other.actual <= other.high


def test_expected_values_are_near_what_came_in_normal_times() -> None:
    """The forecast shown is in the feature's unit: about a sine around 10, about a constant 2."""
    resolved = evidence(run_with("flow").alert_records[-1])
    assert resolved["flow"].expected == pytest.approx(resolved["flow"].actual, abs=1.0)
    assert resolved["pressure"].expected == pytest.approx(2.0, abs=0.2)


def test_alert_says_how_unusual_by_score_threshold_and_channel() -> None:
    """The numbers of an alert are those of its event's score record."""
    run = run_with("flow")
    opened, resolved = run.alert_records[0], run.alert_records[-1]
    record = run.score_records[AT]
    assert (opened.score, opened.tail_probability, opened.threshold) == (
        record.score,
        record.tail_probability,
        record.threshold,
    )
    assert opened.score is not None
    assert opened.threshold is not None
    assert opened.score > opened.threshold
    assert tuple(opened.channels) == NAMES
    assert min(decades for name, decades in opened.channels.items() if name != stillness.NAME) > 1
    scores = [r.score or 0.0 for r in run.score_records[AT : resolved.offset + 1]]
    assert resolved.peak_score == max(scores)


def test_score_records_of_an_episode_name_it_and_others_do_not() -> None:
    """From the opening event to the resolving one, both included."""
    run = run_with("flow")
    resolved = run.alert_records[-1]
    named = [record.offset for record in run.score_records if record.alert is not None]
    assert named == list(range(AT, resolved.offset + 1))
    assert {record.alert for record in run.score_records} == {None, resolved.id}


def test_shift_that_stays_is_resolved_as_adapted_after_the_hold() -> None:
    """The world really changed: the threshold follows after hold_events, says so, and the episode ends."""
    feed = make_feed(700, ("a",), seed=21)
    feed[AT:] = [changed(record, pressure=2.6) for record in feed[AT:]]
    alerting = Alerting(alarm_rate=1e-3, resolve_after_events=8, cooldown_events=16, hold_events=40)
    alerts = run_polls(Scorer(bundle(), alerting=alerting), [feed]).alert_records
    told = [alert for alert in alerts if alert.offset == AT + 40]
    assert [(alert.action, alert.events, alert.adapting) for alert in told] == [("updated", 41, True)]
    assert (alerts[-1].action, alerts[-1].reason) == ("resolved", "adapted")
    assert not any(alert.adapting for alert in alerts if alert.offset < AT + 40)


def test_fault_within_an_open_alert_ends_it_and_opens_its_own() -> None:
    """A level that stays different holds one alert open; the spike after a lull has an alert, with its evidence."""
    feed = make_feed(400, ("a",), seed=21)
    feed[AT:] = [changed(record, pressure=2.6) for record in feed[AT:]]
    spike = AT + 200
    feed[spike] = changed(feed[spike], flow=40.0)
    alerting = Alerting(alarm_rate=1e-3, resolve_after_events=8, cooldown_events=16, hold_events=10_000)
    run = run_polls(Scorer(bundle(), alerting=alerting), [feed])
    resolved, opened = (alert for alert in run.alert_records if alert.offset == spike)
    before = next(alert for alert in run.alert_records if alert.id == resolved.id)
    assert (resolved.action, resolved.reason, resolved.features) == ("resolved", "followed", [])
    assert (opened.action, opened.reason, opened.events) == ("opened", None, 1)
    assert (before.action, opened.id) == ("opened", f"events:0:{spike}")
    assert (resolved.since_ms, resolved.events) == (before.time_ms, spike - before.offset)
    assert resolved.peak_score == max(record.score or 0.0 for record in run.score_records[before.offset : spike])
    assert opened.peak_score == opened.score == run.score_records[spike].score
    assert evidence(opened)["flow"].actual == 40.0 > evidence(opened)["flow"].high
    assert [record.alert for record in run.score_records[spike - 1 : spike + 1]] == [resolved.id, opened.id]


def test_evidence_of_a_frame_lists_its_samples_with_null_where_missing() -> None:
    """Features sampled in frames show one number per sample, in the key's own scale."""
    feed = make_rich_feed(150, ("x", "y"), seed=9)
    at = 2 * 120 + 1
    feed[at] = changed(feed[at], heat=[None, 1900.0], speed=None)
    alerts = run_polls(Scorer(rich().bundle), [feed]).alert_records
    (told,) = [alert for alert in alerts if alert.offset == at and alert.features]
    found = evidence(told)
    assert found["heat"].actual == [None, 1900.0]
    assert found["speed"].actual == [None, None]
    assert found["heat"].share == 1.0
    assert found["speed"].share == 0.0
    low, expected, high = (np.array(v) for v in (found["heat"].low, found["heat"].expected, found["heat"].high))
    assert expected.shape == (2,)
    assert (low < expected).all()
    assert (expected < high).all()
    assert np.abs(expected - 1300).max() < 20
    assert set(told.channels) == {*NAMES} - {"novelty"}  # it has no part in the score of frames


def test_explaining_every_event_changes_no_score_and_says_what_alerts_say() -> None:
    """The same scores, states and alerts, bit for bit; features are added where there is a score."""
    feed = make_rich_feed(150, ("x", "y"), seed=9)
    polls = [feed[:100], feed[100:]]
    plain = run_polls(Scorer(rich().bundle), polls)
    explained = run_polls(Scorer(rich().bundle, explain_all=True), polls)
    without = [msgspec.structs.replace(record, features=[]) for record in explained.score_records]
    assert without == plain.score_records
    assert explained.alerts == plain.alerts
    assert explained.states == plain.states
    assert all(bool(record.features) == (record.status == "scored") for record in explained.score_records)
    said = {(alert.key, alert.offset): alert.features for alert in explained.alert_records}
    assert said
    for record in explained.score_records:
        assert record.features == said.get((record.key, record.offset), record.features)
        assert sum(feature.share for feature in record.features) == pytest.approx(1.0 if record.features else 0.0)
