"""Decoding: every record ends as one event or as one rejection with its reason, whatever its bytes."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.core.event import KEYLESS, MAX_RECORD_BYTES, EventDecoder
from streamlstm.core.log import Record
from streamlstm.core.schema import StreamSchema
from tests.builders import SCHEMA, START_MS, make_record

KEYED_BY_RECORD = StreamSchema.from_toml('timestamp_unit = "ms"\n[features.flow]')
FRAMES = StreamSchema.from_toml(
    'timestamp_unit = "ms"\nframe_samples = 3\n[features.x]\n[features.y]\noptional = true\n'
    '[features.mode]\nkind = "categorical"\noptional = true'
)


def text(flow: str) -> bytes:
    """Return an event whose flow is given as JSON text."""
    return b'{"sensor": "a", "time": %d, "flow": %s, "pressure": 2.0}' % (START_MS, flow.encode())


def reason_of(record: Record, schema: StreamSchema = SCHEMA) -> str:
    """Return the reason of a record's one rejection, or "" if it became an event."""
    batch, rejections = EventDecoder(schema).decode([record])
    assert len(batch) + len(rejections) == 1
    for rejection in rejections:
        assert rejection.record == record
        assert rejection.detail
    return rejections[0].reason if rejections else ""


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"\xff",
        b"nonsense",
        b"\xef\xbb\xbf" + text("1"),
        text("1") + b" x",
        text("NaN"),
        text("Infinity"),
        b'{"a":' * 100_000,
        b'{"z":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        text("1").replace(b'"a"', b'"\xff"'),
        text("1").replace(b'"a"', b'"\\ud800"'),
    ],
)
def test_bytes_that_are_no_json_are_malformed(value: bytes) -> None:
    """What cannot be parsed, or only by nesting without end, is rejected as malformed."""
    assert reason_of(make_record(value)) == "malformed"


@pytest.mark.parametrize("value", [b"[]", b"1", b"null", b'"text"', b"[" * 100_000, text("[" * 100_000), b"{}"])
def test_json_of_another_shape_is_invalid(value: bytes) -> None:
    """JSON that is no object, or holds none of the fields, is rejected as invalid."""
    assert reason_of(make_record(value)) == "invalid"


@pytest.mark.parametrize("flow", ['"1"', "null", "true", "[1]", "{}", "1e999", "-1e999", "1" * 400, "1" * 5000])
def test_number_of_wrong_type_or_size_is_invalid(flow: str) -> None:
    """A required number that is null, of another type, or no finite float64 is rejected."""
    assert reason_of(make_record(text(flow))) == "invalid"


@pytest.mark.parametrize("missing", ["sensor", "time", "flow", "pressure"])
def test_event_without_a_required_field_is_invalid(missing: str) -> None:
    """Every required field is required; the detail names it."""
    event = {"sensor": "a", "time": START_MS, "flow": 1.0, "pressure": 2.0}
    del event[missing]
    _, (rejection,) = EventDecoder(SCHEMA).decode([make_record(msgspec.json.encode(event))])
    assert rejection.reason == "invalid"
    assert missing in rejection.detail


@pytest.mark.parametrize(
    "key", ['""', "null", "true", "1.5", f'"{"x" * 513}"', f'"{"é" * 257}"', "1" * 513, "1" * 5000]
)
def test_key_that_is_empty_too_long_or_no_name_is_invalid(key: str) -> None:
    """A key is a text or an integer of 1 to 512 bytes."""
    assert reason_of(make_record(text("1").replace(b'"a"', key.encode()))) == "invalid"


@pytest.mark.parametrize(("key", "read"), [("7", b"7"), ("-" + "9" * 30, b"-" + b"9" * 30), ('"é"', "é".encode())])
def test_key_that_is_a_text_or_an_integer_is_read_as_text(key: str, read: bytes) -> None:
    """An integer key counts as its digits."""
    batch, _ = EventDecoder(SCHEMA).decode([make_record(text("1").replace(b'"a"', key.encode()))])
    assert batch.keys == [read]


@pytest.mark.parametrize(("key", "read"), [(b"pump", b"pump"), (None, KEYLESS), (b"", KEYLESS)])
def test_key_of_the_record_is_used_where_the_schema_names_none(key: bytes | None, read: bytes) -> None:
    """Without a key field the record's key says whose event it is, and without both all are one series."""
    record = make_record(msgspec.json.encode({"time": START_MS, "flow": 1.0, "key": 3}), key=key)
    batch, _ = EventDecoder(KEYED_BY_RECORD).decode([record])
    assert batch.keys == [read]


@pytest.mark.parametrize("key", [b"\xff", b"x" * 513])
def test_key_of_the_record_that_is_no_text_or_too_long_is_invalid(key: bytes) -> None:
    """A record key that score records could not carry is rejected, not passed on to fail there."""
    record = make_record(msgspec.json.encode({"time": START_MS, "flow": 1.0}), key=key)
    assert reason_of(record, KEYED_BY_RECORD) == "invalid"


def test_record_over_the_size_limit_is_oversized_and_never_parsed() -> None:
    """A record of a byte too many is rejected for its size, whatever it holds."""
    padding = b" " * (MAX_RECORD_BYTES - len(text("1")))
    assert reason_of(make_record(text("1") + padding)) == ""
    assert reason_of(make_record(text("1") + padding + b" ")) == "oversized"


@pytest.mark.parametrize("x", ["1", "[]", "[1, 2]", "[1, 2, 3, 4]", "null", "[1, null, 3]", '[1, "2", 3]'])
def test_frame_of_wrong_length_or_with_holes_is_invalid(x: str) -> None:
    """A required frame has exactly its samples, all numbers."""
    assert reason_of(make_record(b'{"time": %d, "x": %s}' % (START_MS, x.encode())), FRAMES) == "invalid"


def test_frame_that_is_optional_may_be_absent_null_or_hold_nulls() -> None:
    """Samples that are missing are NaN at their place; value d is sample d % frame of channel d // frame."""
    values = [b'"x": [1, 2, 3], "y": [4, null, 6], "mode": "on"', b'"x": [1, 2, 3], "y": null', b'"x": [1, 2, 3]']
    records = [make_record(b'{"time": %d, %s}' % (START_MS, value)) for value in values]
    batch, rejections = EventDecoder(FRAMES).decode(records)
    assert not rejections
    nan = np.nan
    assert np.array_equal(batch.values, [[1, 2, 3, 4, nan, 6], [1, 2, 3, nan, nan, nan], [1, 2, 3] + [nan] * 3], True)
    assert batch.categories == [("on",), (None,), (None,)]


def test_good_events_among_bad_ones_keep_order_and_origin() -> None:
    """Columns hold the good events in order; record_index says which record each came from."""
    records = [
        make_record(offset=4, flow=1.0),
        make_record(b"{", offset=5),
        make_record(offset=6, partition=1, flow=2.0, sensor="b"),
        make_record(offset=7, time=5),
    ]
    batch, rejections = EventDecoder(SCHEMA).decode(records)
    assert batch.keys == [b"a", b"b"]
    assert batch.record_index.tolist() == [0, 2]
    assert batch.offset.tolist() == [4, 6]
    assert batch.partition.tolist() == [0, 1]
    assert batch.values.tolist() == [[1.0, 2.0], [2.0, 2.0]]
    assert [rejection.record.offset for rejection in rejections] == [5, 7]
    assert batch.checksum[0] != batch.checksum[1]


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
events = st.fixed_dictionaries(
    {}, optional={"sensor": json_like, "time": st.just(START_MS) | json_like, "flow": json_like, "pressure": json_like}
)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.binary(max_size=60) | events.map(msgspec.json.encode), max_size=4))
def test_bytes_of_any_kind_never_crash_and_are_never_lost(values: list[bytes]) -> None:
    """Any bytes and any JSON end as an event or a rejection, one for each record."""
    records = [make_record(value, offset=i) for i, value in enumerate(values)]
    for schema in (SCHEMA, KEYED_BY_RECORD, FRAMES):
        batch, rejections = EventDecoder(schema).decode(records)
        assert len(batch) + len(rejections) == len(records)
        assert batch.values.shape == (len(batch), schema.values)
