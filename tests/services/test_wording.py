"""Numbers with their nouns, and scores over their thresholds."""

from __future__ import annotations

import pytest

from streamlstm.services.wording import counted, over


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


@pytest.mark.parametrize(
    ("score", "threshold", "text"),
    [
        (4.2, 3.1, "4.2 over 3.1"),
        (4.04, 3.96, "4.04 over 3.96"),
        (4.0132, 4.0094, "4.013 over 4.009"),
        (5.0, 5.0, "5.00000 over 5.00000"),
    ],
)
def test_score_has_digits_enough_to_differ_from_its_threshold(score: float, threshold: float, text: str) -> None:
    """4.0 over 4.0 is no reason; where they are the same they are shown to be."""
    assert over(score, threshold) == text
