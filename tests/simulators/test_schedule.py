"""When faults come, and what keeps slow feeds going on where they stopped."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from simulators.daily import Wander, bump, weekday_of
from simulators.schedule import check_faults, fault_schedule, in_hours

HOUR_S, DAY_S = 3600.0, 86_400.0


def test_schedule_kinds_with_hours_begin_within_them_and_others_at_any() -> None:
    """A kind that waits for its hours keeps the order, the distance, and nearly the rate."""
    rng, midnight_s = np.random.default_rng(1), -5 * HOUR_S
    plan = fault_schedule(
        rng,
        {"day": 0.02, "any": 0.02},
        {"day": HOUR_S, "any": HOUR_S},
        3 * DAY_S,
        HOUR_S,
        lambda kind, time_s: in_hours(rng, time_s, midnight_s, (7.0, 19.0) if kind == "day" else (0.0, 24.0)),
    )
    faults = list(islice(plan, 2000))
    hours = {kind: [(s - midnight_s) / HOUR_S % 24 for k, s, _ in faults if k == kind] for kind in ("day", "any")}
    assert min(hours["day"]) >= 7.0
    assert max(hours["day"]) < 19.0
    assert np.mean([7 <= hour < 19 for hour in hours["any"]]) == pytest.approx(0.5, abs=0.07)
    assert len(hours["day"]) == pytest.approx(1000, abs=100)
    starts, ends = np.array([s for _, s, _ in faults]), np.array([e for _, _, e in faults])
    assert (starts[1:] >= ends[:-1] + HOUR_S - 1e-3).all()
    assert starts[0] >= 3 * DAY_S
    assert 2000 / (starts[-1] / HOUR_S) == pytest.approx(0.04, rel=0.1)


def test_faults_unknown_or_too_many_are_refused() -> None:
    """With the name, or with how much of an hour they need."""
    with pytest.raises(ValueError, match=r"unknown faults \['gremlin'\]; known are \['stuck'\]"):
        check_faults({"gremlin": 1.0}, {"stuck": 1.0}, {"stuck": 1.0}, 0.0)
    with pytest.raises(ValueError, match="3600 s of every hour"):
        check_faults({"stuck": 2.0}, {"stuck": 1000.0}, {"stuck": 1000.0}, 800.0)
    check_faults({"stuck": 2.0}, {"stuck": 999.0}, {"stuck": 1000.0}, 800.0)


def test_wander_has_its_variance_and_memory_however_it_is_drawn() -> None:
    """Variance 1, correlation 1/e after its memory, the same in one piece and in many."""
    whole = Wander(np.random.default_rng(3), 20.0).advance(200_000)
    pieces = Wander(np.random.default_rng(3), 20.0)
    np.testing.assert_allclose(np.concatenate([pieces.advance(size) for size in (1, 7, 992)]), whole[:1000])
    assert whole.std() == pytest.approx(1.0, abs=0.05)
    assert np.corrcoef(whole[:-20], whole[20:])[0, 1] == pytest.approx(np.exp(-1), abs=0.04)


def test_clock_knows_weekdays_and_goes_round() -> None:
    """The 1st of January 2026 was a Thursday; 23 h is two hours before 1 h."""
    assert weekday_of(np.array([1_767_225_600.0 - 1, 1_767_225_600.0, 1_767_225_600.0 + 4 * DAY_S])).tolist() == [
        2,
        3,
        0,
    ]
    assert bump(np.array([23.0, 3.0]), 1.0, 2.0) == pytest.approx(np.exp([-0.5, -0.5]))
