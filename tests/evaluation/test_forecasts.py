"""Bands and feature shares against the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streamlstm.core.record import AlertRecord, FeatureEvidence
from streamlstm.evaluation.forecasts import attribution, coverage
from streamlstm.evaluation.task import Fault
from tests.evaluation import small


def record(score: float, **shares: float) -> AlertRecord:
    """Return an alert record with a score and feature shares."""
    features = [FeatureEvidence(name, "", share, 0.0, 0.0, 0.0, 0.0) for name, share in shares.items()]
    return AlertRecord(
        "id", "updated", "a", "t", 0, 0, 0, 0, 0, events=1, peak_score=score, model="m", score=score, features=features
    )


def position(test_record: int) -> int:
    """Return where a test record stands in the stream."""
    stream = small.stream()
    return int(np.flatnonzero(stream.test & (stream.record_index == test_record))[0])


def test_hit_rate_by_hand() -> None:
    """Of two features at fault one is among the two largest shares; a stretch without an alert does not count."""
    faults = (Fault(10, 20, ("x", "z")), Fault(30, 40, ("y",)), Fault(50, 60, ("x",)))
    alerts = [
        (position(12), record(2.0, x=0.1, y=0.2, z=0.7)),
        (position(15), record(5.0, x=0.5, y=0.3, z=0.2)),  # the highest tells
        (position(29), record(9.0, x=0.0, y=0.0, z=1.0)),  # before the stretch
        (position(30), record(1.0, x=0.0, y=0.9, z=0.1)),
    ]
    found = attribution(replace(small.task(), faults=faults), replace(small.run(), alerts=alerts), small.stream())
    assert found is not None
    assert found.hit_rate == pytest.approx((1 / 2 + 1) / 2)
    assert found.chance == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert (found.faults, found.alerted) == (3, 2)


def test_no_attribution_without_faults_or_without_alerts() -> None:
    """None where it is not known what was at fault; no rate where nothing was alerted to."""
    task, run, stream = small.task(), small.run(), small.stream()
    assert attribution(replace(task, faults=()), run, stream) is None
    found = attribution(task, replace(run, alerts=[]), stream)
    assert found is not None
    assert (found.hit_rate, found.alerted) == (None, 0)


def test_alerts_of_the_detector_name_the_feature_at_fault() -> None:
    """Heat, of flow and heat."""
    found = attribution(small.task(), small.run(), small.stream())
    assert found is not None
    assert (found.hit_rate, found.chance) == (1.0, 0.5)


def test_bands_hold_about_what_they_state_on_a_stream_like_the_history() -> None:
    """Wider bands hold more."""
    found = coverage(small.run(), small.stream())
    assert [band.stated for band in found] == [0.5, 0.9, 0.99]
    for band in found:
        assert band.found == pytest.approx(band.stated, abs=0.08)


def test_bands_say_nothing_where_every_test_event_is_labelled() -> None:
    """None, not a number that is none: it goes into the tables and into results.json."""
    stream = small.stream()
    found = coverage(small.run(), replace(stream, label=np.ones_like(stream.label)))
    assert [band.found for band in found] == [None] * len(found)
