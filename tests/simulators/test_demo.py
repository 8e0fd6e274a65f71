"""The demo's last words: what was found, missed and false."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from simulators.demo import PLANS, Scored, Stage, _show_addresses, _verdict
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
