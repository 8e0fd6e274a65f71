"""Alerts against labelled stretches, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streamlstm.evaluation.detection import Detection, Measures, match, measure
from streamlstm.evaluation.stream import TEST, Stream

RATE = 1e-3
STEP_MS = 6 * 3_600_000  # 28 events are a week


def one_key(label: str) -> Stream:
    """Return a stream of one key, all of it test."""
    n = len(label)
    return Stream(
        keys=[b"a"],
        key=np.zeros(n, np.int64),
        part=np.full(n, TEST, np.int8),
        timestamp_ms=np.arange(n) * STEP_MS,
        values=np.zeros((n, 1), np.float32),
        gap_ms=np.zeros(n),
        raw=np.zeros((n, 1)),
        present=np.ones((n, 1), bool),
        categories=[()] * n,
        label=np.array([c == "#" for c in label]),
        record_index=np.arange(n),
        follows=np.ones(1, bool),
    )


def alerts(text: str) -> Detection:
    """Return a detection from a string: ``!`` flagged, ``-`` an open alert's calm event, ``.`` nothing."""
    alert, number = np.full(len(text), -1), -1
    for i, character in enumerate(text):
        if character == ".":
            continue
        number = i if i == 0 or text[i - 1] == "." else number
        alert[i] = number
    return Detection("x", np.linspace(0, 1, len(text)), np.array([c == "!" for c in text]), alert)


def judged(label: str, text: str) -> Measures:
    """Measure alerts on one key."""
    stream = one_key(label)
    return measure(stream, alerts(text), np.ones(len(label), bool), 0, RATE)


def test_alert_that_opens_in_a_stretch_is_true() -> None:
    """One of two stretches found, two events late; one of two alerts true."""
    found = judged("....####....##....", "......!!--..[]!...".replace("[", ".").replace("]", "."))
    assert found.stretches == 2
    assert found.event_recall == 0.5
    assert found.precision == 0.5
    assert found.delay_events == 2.0
    assert found.delay_s == 2 * STEP_MS / 1000


def test_alert_that_opened_before_a_stretch_is_false() -> None:
    """However long it stays open: nobody was told of the stretch."""
    found = judged("....####....", "..!!!!!!!...")
    assert (found.event_recall, found.precision, found.alerts) == (0.0, 0.0, 1)
    assert found.delay_events is None


def test_true_alert_that_stays_open_finds_the_next_stretch_too() -> None:
    """A run of bad beats is one alert; but the delay is only told of stretches in which an alert opened."""
    found = judged("..##..##..", "...!!!!!..")
    assert (found.event_recall, found.precision) == (1.0, 1.0)
    assert found.delay_events == 1.0


def test_calm_end_of_an_alert_finds_nothing() -> None:
    """An alert reaches to its last flagged event."""
    assert judged("..##..##..", "..!!------").event_recall == 0.5


def test_false_alarms_are_counted_by_events_and_by_weeks() -> None:
    """Two in 28 events that are a week, all unlabelled but two."""
    found = judged("##" + "." * 27, "!!..!...!" + "." * 20)
    assert found.alerts == 3
    assert found.false_alarms_per_10000 == pytest.approx(10_000 * 2 / 27)
    assert found.false_alarms_per_key_week == pytest.approx(2.0)
    assert found.realised == pytest.approx(2 / 27)
    assert found.realised_all == pytest.approx(4 / 29)


def test_nothing_labelled_has_no_recall() -> None:
    """And nothing alerted to has no precision."""
    found = judged("....", "....")
    assert (found.event_recall, found.precision, found.delay_events, found.average_precision) == (None,) * 4
    assert found.false_alarms_per_10000 == 0.0


def test_events_that_are_not_judged_do_not_count() -> None:
    """Neither as stretches nor as alerts: nobody could have scored them."""
    stream, use = one_key("##..##"), np.array([False, False, True, True, True, True])
    found = measure(stream, alerts("!!...!"), use, 0, RATE)
    assert (found.events, found.stretches, found.alerts, found.event_recall) == (4, 1, 1, 1.0)


def test_keys_are_matched_apart() -> None:
    """An alert of one key at the place where another's stretch would be is false."""
    stream = one_key("..##....")
    two = replace(stream, keys=[b"a", b"b"], key=np.array([0, 0, 0, 0, 1, 1, 1, 1]), follows=np.ones(2, bool))
    detection = alerts("....!!..")
    everything = np.ones(8, bool)
    assert measure(two, detection, everything, 0, RATE).precision == 0.0
    assert measure(two, detection, everything, 0, RATE, key=0).event_recall == 0.0
    assert measure(two, detection, everything, 0, RATE, key=1).event_recall is None
    assert match(two, detection, everything, list(two.of_each_key())).alerts == [(4, 6)]
