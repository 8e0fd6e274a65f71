"""A producer that wants to harm: sizes, depths and times without end cost one dead letter each, and no more."""

from __future__ import annotations

import msgspec
import pytest

from streamlstm.core.event import MAX_DETAIL_CHARACTERS, MAX_RECORD_BYTES, EventDecoder, Rejection
from streamlstm.core.log import Record
from streamlstm.core.schema import StreamSchema
from tests.builders import SCHEMA, START_MS, make_record

ISO = StreamSchema.from_toml("[features.flow]")
EVENT = b'{"sensor": "a", "time": %d, "flow": 1, "pressure": 2' % START_MS


def rejection_of(record: Record, schema: StreamSchema = SCHEMA) -> Rejection | None:
    """Return why a record is rejected; None if it is an event."""
    batch, rejections = EventDecoder(schema).decode([record])
    assert len(batch) + len(rejections) == 1
    return rejections[0] if rejections else None


@pytest.mark.parametrize("part", ["value", "key", "headers"])
def test_record_too_large_in_any_part_is_oversized(part: str) -> None:
    """Value, key and headers count together: all of them go into a dead letter."""
    much = b" " * MAX_RECORD_BYTES
    record = make_record()
    large = {"value": record.value + much, "key": much, "headers": (("h", much),)}[part]
    rejection = rejection_of(record._replace(**{part: large}))
    assert rejection is not None
    assert rejection.reason == "oversized"


def test_many_headers_count_with_their_names() -> None:
    """A million headers without a value are as large as one header with a large one."""
    headers = tuple((f"header-{n}", b"") for n in range(MAX_RECORD_BYTES // 8))
    rejection = rejection_of(make_record()._replace(headers=headers))
    assert rejection is not None
    assert rejection.reason == "oversized"


def test_event_with_a_hundred_thousand_other_fields_is_an_event() -> None:
    """What the schema does not name is passed over, not kept."""
    others = b"".join(b', "x%d": 1' % n for n in range(80_000))
    assert len(others) < MAX_RECORD_BYTES - 200
    assert rejection_of(make_record(EVENT + others + b"}")) is None


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_json_nested_without_end_is_malformed(opening: bytes) -> None:
    """Depth is bounded by the parser, in a field that the schema does not name, too."""
    rejection = rejection_of(make_record(EVENT + b', "x": ' + opening * 150_000))
    assert rejection is not None
    assert rejection.reason == "malformed"


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (ISO, {"time": "x" * 100_000, "flow": 1}),
        (ISO, {"time": "2026-01-01", "flow": "x" * 100_000}),
        (SCHEMA, {"sensor": "x" * 100_000, "time": START_MS, "flow": 1, "pressure": 2}),
        (SCHEMA, {"sensor": "a", "time": START_MS, "flow": [1] * 50_000, "pressure": 2}),
    ],
)
def test_detail_of_a_rejection_stays_short(schema: StreamSchema, value: dict[str, object]) -> None:
    """The detail goes into a header: a dead letter must not be twice its record, beyond what a broker takes."""
    rejection = rejection_of(make_record(msgspec.json.encode(value)), schema)
    assert rejection is not None
    assert 0 < len(rejection.detail) <= MAX_DETAIL_CHARACTERS


@pytest.mark.parametrize("time", [0, -1, 31_535_999_999, -(10**18), 1e-300])
def test_time_in_the_absurd_past_is_no_event(time: float) -> None:
    """Before 1971 there is no event; a key cannot be made to look silent for half a century."""
    rejection = rejection_of(make_record(time=time))
    assert rejection is not None
    assert rejection.reason == "timestamp"
