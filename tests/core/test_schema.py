"""The stream schema: what is read from TOML, and what is refused."""

from __future__ import annotations

import pytest

from streamlstm.core.schema import MAX_FEATURES, MAX_FRAME_SAMPLES, MAX_VALUES, StreamSchema
from streamlstm.errors import SchemaError

FULL = """
key = "machine"
timestamp = "at"
timestamp_unit = "us"
frame_samples = 8
calendar = true
max_ahead_s = 60
expire_after_s = 3600
[features.mode]
kind = "categorical"
optional = true
[features.y]
unit = "g"
[features.x]
optional = true
"""


def test_schema_from_full_toml_holds_every_field() -> None:
    """Every option of a TOML schema arrives, features in the order of the file."""
    schema = StreamSchema.from_toml(FULL)
    assert (schema.key, schema.timestamp, schema.timestamp_unit) == ("machine", "at", "us")
    assert (schema.frame_samples, schema.calendar, schema.max_ahead_s, schema.expire_after_s) == (8, True, 60, 3600)
    assert schema.numeric == ("y", "x")
    assert schema.categorical == ("mode",)
    assert schema.features["y"].unit == "g"
    assert schema.values == 16
    assert schema.has_optional_values


def test_schema_with_one_feature_has_documented_defaults() -> None:
    """A schema of one feature reads ISO times, plain numbers, and never expires a key."""
    schema = StreamSchema.from_toml("[features.flow]")
    assert (schema.key, schema.timestamp, schema.timestamp_unit) == (None, "time", "iso8601")
    assert (schema.frame_samples, schema.calendar, schema.max_ahead_s, schema.expire_after_s) == (1, None, 3600, None)
    assert not schema.has_optional_values


def test_optional_category_alone_needs_no_mask_of_values() -> None:
    """Only numbers that may be missing count as optional values."""
    schema = StreamSchema.from_toml('[features.flow]\n[features.mode]\nkind = "categorical"\noptional = true')
    assert not schema.has_optional_values


@pytest.mark.parametrize("text", [FULL, "[features.flow]"])
def test_to_dict_read_back_gives_equal_schema(text: str) -> None:
    """A schema survives the way through plain data."""
    schema = StreamSchema.from_toml(text)
    again = StreamSchema.from_dict(schema.to_dict())
    assert again == schema
    assert again.numeric == schema.numeric


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("features = [", "not TOML"),
        ("key = 'a'", "features"),
        ("[features.mode]\nkind = 'categorical'", "at least one feature must be numeric"),
        ("frame_sample = 3\n[features.flow]", "frame_sample"),
        ("[features.flow]\nunits = 'bar'", "units"),
        ("[features.flow]\nkind = 'text'", "features"),
        ("timestamp_unit = 'ns'\n[features.flow]", "timestamp_unit"),
        ("timestamp = 'flow'\n[features.flow]", "flow cannot be both a feature and the key or timestamp"),
        ("key = 'flow'\n[features.flow]", "flow cannot be both a feature and the key or timestamp"),
        ("key = 'time'\n[features.flow]", "key and timestamp are both 'time'"),
        ("frame_samples = 0\n[features.flow]", "frame_samples"),
        (f"frame_samples = {MAX_FRAME_SAMPLES + 1}\n[features.flow]", "frame_samples"),
        ("frame_samples = 2.5\n[features.flow]", "frame_samples"),
        ("[features]\n" + "".join(f"x{n} = {{}}\n" for n in range(MAX_FEATURES + 1)), f"at most {MAX_FEATURES}"),
        ("frame_samples = 4096\n[features]\n" + "".join(f"x{n} = {{}}\n" for n in range(17)), f"{MAX_VALUES}"),
        ("x = " + "[" * 100_000, "not TOML"),
        ("max_ahead_s = 1e30\n[features.flow]", "max_ahead_s"),
        ("expire_after_s = inf\n[features.flow]", "expire_after_s"),
        ("key = ''\n[features.flow]", "a name is empty"),
        ("[features.'']", "a name is empty"),
        ("max_ahead_s = -1\n[features.flow]", "max_ahead_s"),
        ("max_ahead_s = nan\n[features.flow]", "max_ahead_s"),
        ("expire_after_s = 0\n[features.flow]", "expire_after_s"),
        ("expire_after_s = nan\n[features.flow]", "expire_after_s"),
        ("calendar = 1\n[features.flow]", "calendar"),
    ],
)
def test_schema_with_a_mistake_is_refused_by_name(text: str, named: str) -> None:
    """The error names the source and what is wrong in it."""
    with pytest.raises(SchemaError, match="sensors schema: ") as refused:
        StreamSchema.from_toml(text, "sensors schema")
    assert named in str(refused.value)
