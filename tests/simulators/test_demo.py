"""The demo's last words: what was found, missed and false."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from simulators.demo import PLANS, _verdict
from streamlstm.adapters.sqlite_log import SqliteLog
from tests import alerts


@pytest.mark.parametrize(
    ("false", "told"), [(0, "0 false alarms in"), (1, "1 false alarm in"), (2, "2 false alarms in")]
)
def test_verdict_counts_false_alarms(tmp_path: Path, false: int, told: str) -> None:
    """One alarm is not one alarms."""
    plan = PLANS[0]
    log = SqliteLog(tmp_path / "demo.db")
    for topic in (plan.feed, f"{plan.feed}.scores"):
        log.create_topic(topic, 1)
    log.close()
    received = [alerts.make_alert(offset=i, topic=plan.feed) for i in range(false)]
    out = io.StringIO()
    _verdict(plan, [], received, 100.0, tmp_path, Console(file=out, width=300))
    assert told in out.getvalue()
