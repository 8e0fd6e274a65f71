"""Categories at scoring: known ones by name, unknown ones all alike, absent ones as nothing."""

from __future__ import annotations

import msgspec
import pytest

from streamlstm.core.scorer import Scorer
from tests.builders import START_MS, make_record, rich


def state_after(*modes: object) -> bytes:
    """Return the recurrent state of a key after events that differ in their category alone; "" means absent."""
    scorer = Scorer(rich().bundle)
    events = [
        {"machine": "x", "time": START_MS + 1000 * i, "heat": [300.0, 300.5], "speed": [5.0, 5.0]}
        | ({} if mode == "" else {"mode": mode})
        for i, mode in enumerate(modes)
    ]
    poll = scorer.read([make_record(msgspec.json.encode(event), offset=i) for i, event in enumerate(events)])
    outcome = scorer.score(poll, {})
    assert len(poll.rejections) == 0
    return outcome.rows.floats[0, : scorer.parameters.layout.forecast].tobytes()


@pytest.mark.parametrize(("one", "other"), [("idle", "busy"), ("idle", "strange"), ("idle", ""), ("strange", "")])
def test_categories_that_mean_different_things_lead_to_different_states(one: str, other: str) -> None:
    """Two known ones, a known and an unknown one, and an absent one all differ."""
    assert state_after(one, "idle") != state_after(other, "idle")


@pytest.mark.parametrize(("one", "other"), [("strange", "stranger"), ("strange", 7), ("late", True), ("", None)])
def test_categories_that_training_did_not_hold_are_all_alike(one: object, other: object) -> None:
    """Whatever its name or type, an unknown category is the unknown one; null is as absent."""
    assert state_after(one, "idle") == state_after(other, "idle")
