"""Numbers with their nouns."""

from __future__ import annotations

import pytest

from streamlstm.services.wording import counted


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 alarms"),
        (1, "1 alarm"),
        (2, "2 alarms"),
        (1.0, "1 alarm"),
        (0.5, "0.5 alarms"),
        (1234567, "1234567 alarms"),
    ],
)
def test_counted_noun_has_its_number(number: float, text: str) -> None:
    """One alarm, all else alarms."""
    assert counted(number, "alarm") == text
