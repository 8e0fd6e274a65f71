"""What a scorer's log lines say of what it did."""

from __future__ import annotations

import pytest

from streamlstm.core.budget import UNITS_MS, Budget
from streamlstm.services.totals import Totals

HOUR_MS = UNITS_MS["hour"]


@pytest.mark.parametrize(
    ("opened", "watched_ms", "said"),
    [
        (0, 0.0, "0 opened, 0 due, too few to tell; promised 2 per key per hour"),
        (2, HOUR_MS / 120, "2 opened, 0.0167 due, too few to tell; promised 2 per key per hour"),
        (9, HOUR_MS / 4, "9 opened, 0.5 due, more than promised; promised 2 per key per hour"),
        (3, 10.0 * HOUR_MS, "0.3 per key per hour, promised 2"),
        (25, 10.0 * HOUR_MS, "2.5 per key per hour, promised 2"),
        (60, 10.0 * HOUR_MS, "6 per key per hour, promised 2: more than by chance"),
    ],
)
def test_alarms_are_a_rate_only_where_some_were_due(opened: int, watched_ms: float, said: str) -> None:
    """Two in half a minute are not 240 an hour; but nine where half a one was due are telling."""
    assert Totals(Budget(2.0, "hour"), opened=opened, watched_ms=watched_ms).realised == said
