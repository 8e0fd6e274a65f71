"""The demo's last words: what was found, missed and false."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from simulators.demo import PLANS, Scored, Stage, _verdict
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
