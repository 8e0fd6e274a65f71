"""What the guard decides when something lasts: a sensor stuck for a week, and a world that changed for good."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from streamlstm.core.alert import alert_id
from streamlstm.core.log import Record
from streamlstm.core.record import AlertRecord
from streamlstm.core.scorer import Scorer
from tests.builders import PERIOD, START_MS, bundle, make_record, run_polls

MINUTE_MS = 60_000
WEEK = 7 * 24 * 60  # events of a minute each
BEFORE = 600  # events of a normal stream
SPIKE_AFTER = 1500  # events after the end of what lasted
Values = Callable[[int, float, float], tuple[float, float]]


def alerts_of(change: Values, lasting: int, after: int) -> list[AlertRecord]:
    """Return the alerts of a feed that is changed for ``lasting`` events; ``after`` events follow, one of them a spike.

    ``change`` is given the event's number, its flow and its pressure, from the first changed event on.
    """
    rng = np.random.default_rng(8)
    records: list[Record] = []
    for i in range(BEFORE + lasting + after):
        flow = 10.0 + np.sin(2 * np.pi * i / PERIOD) + 0.1 * rng.normal()
        pressure = 2.0 + 0.05 * rng.normal()
        if i >= BEFORE:
            flow, pressure = change(i - BEFORE, flow, pressure)
        if i == BEFORE + lasting + SPIKE_AFTER:
            flow += 8.0
        event = {"sensor": "a", "time": START_MS + i * MINUTE_MS, "flow": float(flow), "pressure": float(pressure)}
        records.append(make_record(event, offset=i))
    return run_polls(Scorer(bundle()), [records]).alert_records


def opened_at_spike(alerts: list[AlertRecord], lasting: int) -> bool:
    """Return whether the spike opened an alert of its own."""
    wanted = alert_id("events", 0, BEFORE + lasting + SPIKE_AFTER)
    return any(alert.action == "opened" and alert.id == wanted for alert in alerts)


def test_sensor_stuck_for_a_week_is_told_once_and_its_return_to_life_ends_it() -> None:
    """Within two hours, as this sensor's fault and for its stillness; not every hour anew; a spike after it is seen."""
    alerts = alerts_of(lambda i, flow, pressure: (flow, 2.02 if i < WEEK else pressure), WEEK, 2 * SPIKE_AFTER)
    during = [alert for alert in alerts if BEFORE <= alert.offset < BEFORE + WEEK]
    first = next(alert for alert in during if alert.action == "opened" and (alert.channels or {})["stillness"] > 0)
    assert first.offset < BEFORE + 120
    assert max(first.features, key=lambda feature: feature.share).name == "pressure"
    assert sum(alert.action == "opened" for alert in during) <= 0.001 * WEEK
    assert opened_at_spike(alerts, WEEK)


def test_world_that_changed_for_good_is_told_and_then_believed() -> None:
    """The alert ends as adapted; later alerts are no more than promised; and a spike in the new world is seen."""
    lasting = 8000
    alerts = alerts_of(lambda _, flow, pressure: (flow + 3.0, pressure), lasting, 2 * SPIKE_AFTER)
    opened = [alert for alert in alerts if alert.action == "opened" and alert.offset >= BEFORE]
    assert opened[0].offset < BEFORE + 20
    assert any(alert.action == "resolved" and alert.reason == "adapted" for alert in alerts)
    late = [alert for alert in opened if BEFORE + 3000 <= alert.offset < BEFORE + lasting]
    assert len(late) <= 0.001 * (lasting - 3000)
    assert opened_at_spike(alerts, lasting)
