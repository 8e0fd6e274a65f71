"""What the demo says: each alert, and at the end what was found, missed and false."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from simulators.demo import PLANS, Scored, Stage, _show, _show_addresses, _verdict
from tests import alerts


@pytest.mark.parametrize(
    ("false", "told"), [(0, "0 false alarms in"), (1, "1 false alarm in"), (2, "2 false alarms in")]
)
def test_verdict_counts_false_alarms(tmp_path: Path, false: int, told: str) -> None:
    """One alarm is not one alarms."""
    plan, out = PLANS[0], io.StringIO()
    stage = Stage(tmp_path, "", "", Console(file=out, width=300))
    received = [alerts.make_alert(offset=i, topic=plan.feed) for i in range(false)]
    _verdict(plan, [], received, Scored(set(), 0), stage)
    assert told in out.getvalue()


def test_addresses_of_the_pages_are_told_once_each(tmp_path: Path) -> None:
    """As the dashboards log them, among other lines."""
    log, out = tmp_path / "services.log", io.StringIO()
    log.write_text(
        "12:00:00 [info     ] scoring                        group=streamlstm topic=ecg\n"
        "12:00:01 [info     ] dashboard                      address=http://127.0.0.1:4711/ model=abc topic=ecg\n"
        "12:00:01 [info     ] dashboard                      address=http://127.0.0.1:4712/ model=abc topic=vibration\n"
    )
    _show_addresses(str(log), 2, Console(file=out, width=200))
    assert [line.split(": ")[1] for line in out.getvalue().splitlines()] == [
        "http://127.0.0.1:4711/  (ecg)",
        "http://127.0.0.1:4712/  (vibration)",
    ]


def test_alert_is_shown_with_its_reason_and_by_how_much() -> None:
    """Of a stream with one feature it is no news that this one is to blame."""
    out = io.StringIO()
    console = Console(file=out, width=200)
    alert = alerts.make_alert(peak_score=4.013, threshold=4.009, channels={"novelty": 5.0})
    _show(alert, console)
    _show(alerts.make_alert(features=alert.features[:1]), console)
    first, second = out.getvalue().splitlines()
    assert "pump-7      a pattern never seen before, score 4.013 over 4.009, mostly flow  (events:0:42)" in first
    assert "pump-7      far from the forecast, score 6.5 over 3.0  (events:0:42)" in second
