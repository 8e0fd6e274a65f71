"""Alarm budgets: words to a rate per event, and back."""

from __future__ import annotations

import doctest

import pytest
from scipy.stats import poisson

from streamlstm.core import budget as budgets
from streamlstm.core.budget import UNITS_MS, Budget, judged, promised, read_budget
from streamlstm.errors import SettingsError

SECOND_MS = 1000.0


def test_examples_hold() -> None:
    """What the docstrings show is so."""
    assert doctest.testmod(budgets).failed == 0


@pytest.mark.parametrize(("held_out", "far"), [(0, True), (199, True), (200, False), (100_000, False)])
def test_budget_that_expects_less_than_one_held_out_event_is_extrapolated(held_out: int, far: bool) -> None:
    """One in 200 events: of 200 there is one to see."""
    words = promised(0.005, None, SECOND_MS).extrapolated(held_out)
    assert ("extrapolated" in words) == far
    assert (f"of {held_out:,} held-out events" in words) == far


@pytest.mark.parametrize(
    ("words", "budget"),
    [
        ("1 per key per week", Budget(1.0, "week")),
        ("0.5 per key per day", Budget(0.5, "day")),
        ("  2  PER key per Hour ", Budget(2.0, "hour")),
        ("1e1 per key per month", Budget(10.0, "month")),
        ("3 per key per year", Budget(3.0, "year")),
    ],
)
def test_words_are_understood_and_said_again(words: str, budget: Budget) -> None:
    """A number and a unit; what is shown can be given."""
    assert read_budget(words) == budget == read_budget(str(budget))


@pytest.mark.parametrize(
    "words",
    [
        "",
        "1",
        "1 per week",
        "one per key per week",
        "1 per key per fortnight",
        "1 per key per 2 weeks",
        "1 per key per week or so",
        "0 per key per week",
        "-1 per key per week",
        "nan per key per week",
        "inf per key per week",
    ],
)
def test_other_words_are_refused_with_those_that_are_accepted(words: str) -> None:
    """The message shows what was given, what can be, and an example."""
    with pytest.raises(ValueError, match="hour, day, week, month or year, such as '1 per key per week'") as caught:
        read_budget(words)
    assert repr(words) in str(caught.value)


def test_rate_is_the_budget_over_the_events_in_its_time() -> None:
    """A key that sends one event a second sends 604,800 in a week."""
    found = promised(0.5, "1 per key per week", SECOND_MS)
    assert found == (pytest.approx(1 / 604_800), Budget(1.0, "week"))
    assert Budget(2.0, "day").alarm_rate(60 * SECOND_MS) == pytest.approx(2 / 1440)


def test_budget_that_would_flag_too_many_events_is_refused_with_the_most_there_can_be() -> None:
    """The threshold knows no rate of 5 % and more."""
    with pytest.raises(SettingsError, match=r"every 60 s on average.* less than 0.05, which is 3 per key per hour"):
        Budget(3.0, "hour").alarm_rate(60 * SECOND_MS)
    assert Budget(2.99, "hour").alarm_rate(60 * SECOND_MS) < 0.05


@pytest.mark.parametrize(
    ("rate", "gap_ms", "words"),
    [
        (1e-3, SECOND_MS, "3.6 per key per hour"),
        (1 / 3600, SECOND_MS, "1 per key per hour"),
        (1e-3, 62.5, "57.6 per key per hour"),
        (1e-3, 1_800_000.0, "1.44 per key per month"),
        (1 / 604_800, SECOND_MS, "1 per key per week"),
        (1e-12, SECOND_MS, "3.15e-05 per key per year"),
    ],
)
def test_rate_is_said_in_the_shortest_unit_that_holds_an_alarm(rate: float, gap_ms: float, words: str) -> None:
    """Where there is one."""
    found = promised(rate, None, gap_ms)
    assert (found.alarm_rate, str(found.budget)) == (rate, words)


def test_realised_and_due_are_of_the_time_of_all_keys() -> None:
    """Ten keys for a day are ten key days."""
    day_ms = UNITS_MS["day"]
    budget = Budget(2.0, "day")
    assert (budget.realised(5, 10 * day_ms), budget.due(10 * day_ms)) == (0.5, 20.0)
    assert budget.realised(0, 0) is None


@pytest.mark.parametrize("due", [0.01, 0.5, 2.9, 3.0, 20.0, 1e4, 1e6])
def test_more_than_promised_is_what_chance_gives_once_in_a_thousand(due: float) -> None:
    """By the exact distribution; below that bound it is too few to tell, or kept."""
    enough = int(poisson.isf(1e-3, due)) + 1  # the least number with P(so many or more) < 1e-3 is this, or the next
    enough = max(3, enough + (poisson.sf(enough - 1, due) >= 1e-3))  # one or two tell nothing, however few are due
    otherwise = "too few" if due < 3 else "kept"
    assert [judged(came, due) for came in (0, enough - 1, enough, 2 * enough)] == [otherwise, otherwise, "more", "more"]
