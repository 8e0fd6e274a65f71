"""What people say: the record's schema is kept, the later word counts, a mute ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from streamlstm.core import feedback
from streamlstm.core.feedback import LONGEST_MUTE_MS, FeedbackRecord, Mutes

SCHEMA = Path(feedback.__file__).parents[1] / "adapters" / "feedback.schema.json"
PUMP = (0, "pump-7")


def make_feedback(action: str = "mute", at_ms: int = 1_000, **fields: Any) -> FeedbackRecord:
    """Return a record about pump-7; ``fields`` replace those of a valid one."""
    values: dict[str, Any] = {"id": f"{action}-{at_ms}", "key": "pump-7", "partition": 0, "who": "ann", **fields}
    return FeedbackRecord(action=action, at_ms=at_ms, **values)  # type: ignore[arg-type]


def mutes_after(*records: FeedbackRecord) -> Mutes:
    """Return the mutes after these records."""
    mutes = Mutes()
    for record in records:
        mutes.take(record)
    return mutes


def test_schema_in_the_repository_is_that_of_the_record() -> None:
    """The file was written by the code that writes the records."""
    assert SCHEMA.read_text() == feedback.json_schema() + "\n"


@pytest.mark.parametrize("action", ["acknowledge", "true", "false", "mute", "unmute"])
def test_record_fits_its_schema_and_comes_back_as_it_was(action: str) -> None:
    """What is written can be read by us and by others."""
    record = make_feedback(action, alert="events:0:7", note="why", until_ms=5)
    value = feedback.encode(record)
    jsonschema.validate(msgspec.json.decode(value), msgspec.json.decode(SCHEMA.read_bytes()))
    assert feedback.decode(value) == record


def test_mute_ends_by_time_by_unmute_and_by_a_later_mute() -> None:
    """The later word counts; other keys and partitions are not meant."""
    mute = make_feedback(until_ms=9_000)
    assert mutes_after(mute).until_ms(PUMP, 8_999) == 9_000
    assert mutes_after(mute).until_ms(PUMP, 9_000) is None
    assert mutes_after(mute).until_ms((1, "pump-7"), 2_000) is None
    assert mutes_after(mute, make_feedback("unmute")).until_ms(PUMP, 2_000) is None
    assert mutes_after(mute, make_feedback(until_ms=3_000)).until_ms(PUMP, 4_000) is None


def test_mute_lasts_a_week_at_most_and_is_forgotten_afterwards() -> None:
    """So that a reader knows how far back to look, and remembers no more than that."""
    mutes = mutes_after(make_feedback(until_ms=10**15))
    assert mutes.until_ms(PUMP, 2_000) == 1_000 + LONGEST_MUTE_MS
    mutes.forget_ended(1_000 + LONGEST_MUTE_MS)
    assert mutes._until_ms == {}
