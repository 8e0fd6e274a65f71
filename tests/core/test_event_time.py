"""An event's time: four notations, and what is too far from now to be one."""

from __future__ import annotations

import pytest

from streamlstm.core.event import EventDecoder
from streamlstm.core.schema import StreamSchema
from tests.builders import SCHEMA, START_MS, make_record

TAKEN_MS = 2 * START_MS  # when the log took make_record's records


def reason_of(time: object, schema: StreamSchema = SCHEMA) -> str:
    """Return the reason for which an event with this time is rejected, or "" if it is not."""
    batch, rejections = EventDecoder(schema).decode([make_record(time=time)])
    assert len(batch) + len(rejections) == 1
    return rejections[0].reason if rejections else ""


@pytest.mark.parametrize("time", [-5, 0, START_MS // 1000, START_MS * 1000, 253_402_300_799_999, 1e300])
def test_time_in_another_unit_or_century_is_rejected(time: float) -> None:
    """Seconds or microseconds read as milliseconds, and the year 9999, have no meaning here."""
    assert reason_of(time) == "timestamp"


@pytest.mark.parametrize("time", ["now", "", "2020-13-01", "2020-01-01T25:00:00"])
def test_time_that_is_no_iso_moment_is_invalid(time: str) -> None:
    """A text that is no ISO 8601 moment is rejected as invalid."""
    assert reason_of(time, StreamSchema.from_toml("[features.flow]")) == "invalid"


@pytest.mark.parametrize(
    ("unit", "time"),
    [
        ("s", "1600000000"),
        ("s", "1600000000.0004"),
        ("ms", "1600000000000"),
        ("us", "1600000000000400"),
        ("iso8601", '"2020-09-13T12:26:40"'),
        ("iso8601", '"2020-09-13T12:26:40Z"'),
        ("iso8601", '"2020-09-13T14:26:40.0004+02:00"'),
    ],
)
def test_time_in_every_unit_is_read_as_the_same_millisecond(unit: str, time: str) -> None:
    """Seconds, milliseconds, microseconds and ISO 8601 (UTC if it names no offset) agree."""
    schema = StreamSchema.from_toml(f'timestamp_unit = "{unit}"\n[features.flow]')
    batch, _ = EventDecoder(schema).decode([make_record(b'{"time": %s, "flow": 1}' % time.encode())])
    assert batch.timestamp_ms.tolist() == [START_MS]


def test_time_ahead_of_the_log_is_rejected_only_beyond_max_ahead() -> None:
    """An event may come max_ahead_s from the future, and not a millisecond more."""
    assert reason_of(TAKEN_MS + 3_600_000) == ""
    assert reason_of(TAKEN_MS + 3_600_001) == "future"


@pytest.mark.parametrize("time", [True, None, "2020-01-01", [1], "1600000000000"])
def test_time_that_is_no_number_is_invalid_where_numbers_are_asked_for(time: object) -> None:
    """In a numeric unit a text, even of digits, is rejected."""
    assert reason_of(time) == "invalid"
