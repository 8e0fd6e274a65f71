"""A task as arrays, and the detector's run over it."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pandas as pd
import pytest

from streamlstm.core.schema import StreamSchema
from streamlstm.errors import HistoryError
from streamlstm.evaluation.stream import CALIBRATE, LEARN, TEST, decode, stream_of
from streamlstm.evaluation.task import Task, events_of, frame_label, regular_times
from tests.evaluation import small


def test_frames_join_rows_and_their_labels() -> None:
    """One event per frame, with the time of its last row; labelled if one of its rows is; a rest is left out."""
    schema = StreamSchema.from_toml('timestamp_unit = "ms"\nframe_samples = 3\n[features.x]\n')
    times = regular_times(8, 10.0)
    events = events_of(pd.DataFrame({"time": times, "x": np.arange(8.0)}), schema)
    assert [msgspec.json.decode(event.value) for event in events] == [
        {"time": times[2], "x": [0, 1, 2]},
        {"time": times[5], "x": [3, 4, 5]},
    ]
    assert frame_label(np.array([0, 0, 0, 0, 1, 0, 1, 1]), schema).tolist() == [False, True]


def test_stream_has_each_key_in_parts_and_order() -> None:
    """Learning part, calibration part, test; by time within; three quarters of the history are learned from."""
    stream = small.stream()
    assert len(stream) == 2 * (small.HISTORY + small.TEST)
    for part in stream.of_each_key():
        assert (np.diff(stream.part[part]) >= 0).all()
        assert (np.diff(stream.timestamp_ms[part]) > 0).all()
        counts = np.bincount(stream.part[part], minlength=3)
        assert counts.tolist() == [450, 150, small.TEST]
    assert stream.follows.all()
    a = next(stream.of_each_key())
    assert np.flatnonzero(stream.label[a]).tolist() == [small.HISTORY + i for i in range(*small.FAULT)]


def test_values_are_scaled_by_the_learning_part_of_their_key() -> None:
    """As the detector's own inputs are: keys at different levels look alike."""
    stream = small.stream()
    for part in stream.of_each_key():
        heat = stream.values[part][stream.part[part] == LEARN, 1]
        assert abs(heat.mean()) < 0.05
        assert heat.std() == pytest.approx(1, abs=0.05)


def test_test_events_before_the_history_are_noticed() -> None:
    """They cannot go on from it: the scorer would take them for late."""
    whole = small.task()
    turned = stream_of(
        task := Task("x", whole.schema, whole.test * 2, whole.history, np.zeros(1200, bool)), decode(task)
    )
    assert not turned.follows.any()


def test_what_the_history_holds_and_is_not_learned_from_is_counted() -> None:
    """By reason, exact duplicates too; where nothing is left, the first refusal is named."""
    whole = small.task()
    broken = [whole.history[0]._replace(value=b"{"), whole.history[3]._replace(value=b'{"pump": "a"}')]
    found = decode(replace(whole, history=[*whole.history, whole.history[5], *broken]))
    assert sum(found.not_learned.values()) == 3
    assert found.not_learned["duplicate"] == 1
    assert decode(whole).not_learned == {}
    with pytest.raises(HistoryError, match=r"0 usable events.*; 2 records were refused, the first as \w+: Input data"):
        decode(replace(whole, history=broken))


def test_every_test_event_has_a_score_that_does_not_depend_on_later_ones() -> None:
    """The run is warm from the history, and causal."""
    stream, run = small.stream(), small.run()
    assert np.isfinite(run.detection.score[stream.test]).all()
    assert np.isnan(run.detection.score[stream.part == LEARN]).all()
    assert np.isfinite(run.detection.score[stream.part == CALIBRATE]).any()
    assert (stream.part[run.detection.alert >= 0] != LEARN).all()


def test_detector_finds_the_fault_and_says_so() -> None:
    """The pumps' fault has an alert, whose positions are those of the stream."""
    stream, run = small.stream(), small.run()
    assert (run.detection.flagged & stream.label).any()
    assert all(stream.part[at] == TEST for at, _ in run.alerts)
    opened = [at for at, record in run.alerts if record.action == "opened"]
    assert any(stream.label[at] for at in opened)
    for at, record in run.alerts:
        assert record.key == stream.keys[stream.key[at]].decode()
        assert record.time_ms == stream.timestamp_ms[at]
