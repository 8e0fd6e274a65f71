"""The stream schema: where key, time and features sit in an event, and in which units."""

from __future__ import annotations

import math
import tomllib
from functools import cached_property
from typing import Literal

import msgspec

from streamlstm.errors import SchemaError

TimestampUnit = Literal["iso8601", "s", "ms", "us"]
LONGEST_S = 1e11  # some 3,000 years: the span of times that events may have
MAX_FEATURES = 1024
MAX_VALUES = 1 << 16  # numbers in one event
MAX_FRAME_SAMPLES = 4096  # a frame is a unit of meaning (a fraction of a second), not a file


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One field of an event: a number (or a frame of numbers), or a category.

    ``optional`` fields may be absent or null; the model sees a mask. An absent required field
    makes the event a dead letter.
    """

    kind: Literal["numeric", "categorical"] = "numeric"
    unit: str = ""
    optional: bool = False


class StreamSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """How to read one stream of events.

    ``key``: the field that says whose event it is; absent, the log record's own key is used.
    ``timestamp``: the field with the event's time, in ``timestamp_unit``; ISO 8601 without an
    offset is read as UTC. ``frame_samples``: how many samples of every numeric feature one event
    carries; with 1 the field is a number, else a list of that length. ``calendar``: give the model
    hour and weekday (UTC); absent, the trainer finds out whether they help. ``max_ahead_s``: how far
    an event's time may lie after the moment the log took it, before it is refused.
    ``expire_after_s``: a key silent for longer (in event time) starts anew; absent, never.
    """

    features: dict[str, Feature]
    timestamp: str = "time"
    timestamp_unit: TimestampUnit = "iso8601"
    key: str | None = None
    frame_samples: int = 1
    calendar: bool | None = None
    max_ahead_s: float = 3600.0
    expire_after_s: float | None = None

    @classmethod
    def from_toml(cls, text: str, source: str = "stream schema") -> StreamSchema:
        r"""Parse and check a schema; raises :class:`SchemaError` naming ``source`` and the field.

        >>> StreamSchema.from_toml("[features.flow]\\nunit = 'l/min'").numeric
        ('flow',)
        """
        try:
            return cls.from_dict(tomllib.loads(text), source)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise SchemaError(f"{source}: not TOML: {error}") from error

    @classmethod
    def from_dict(cls, data: object, source: str = "stream schema") -> StreamSchema:
        """As :meth:`from_toml`, from parsed data."""
        try:
            schema = msgspec.convert(data, cls)
        except (msgspec.ValidationError, UnicodeEncodeError) as error:
            raise SchemaError(f"{source}: {error}") from error
        problem = schema._problem()
        if problem:
            raise SchemaError(f"{source}: {problem}")
        return schema

    def to_dict(self) -> dict[str, object]:
        """Return plain data from which :meth:`from_dict` makes an equal schema."""
        data: dict[str, object] = msgspec.to_builtins(self)
        return {name: value for name, value in data.items() if value is not None}

    @cached_property
    def numeric(self) -> tuple[str, ...]:
        """Names of the numeric features (channels), in the order of the file."""
        return tuple(name for name, feature in self.features.items() if feature.kind == "numeric")

    @cached_property
    def categorical(self) -> tuple[str, ...]:
        """Names of the categorical features, in the order of the file."""
        return tuple(name for name, feature in self.features.items() if feature.kind == "categorical")

    @property
    def values(self) -> int:
        """Numbers in one event, ``D`` = channels × frame samples; value ``d`` is sample
        ``d % frame_samples`` of channel ``d // frame_samples``."""
        return len(self.numeric) * self.frame_samples

    @property
    def forget_after_ms(self) -> float:
        """How far the partition's time may run ahead of a key's last event before its state is forgotten (ms).

        Twice the silence that a key may keep by its own times, or that and as much as a clock may run ahead.
        """
        if self.expire_after_s is None:
            return math.inf
        return 1000.0 * (self.expire_after_s + max(self.expire_after_s, self.max_ahead_s))

    @property
    def has_optional_values(self) -> bool:
        """Whether a number may be missing."""
        return any(self.features[name].optional for name in self.numeric)

    def _problem(self) -> str | None:
        reserved = {self.timestamp, self.key} & set(self.features)
        if "" in (self.key, self.timestamp, *self.features):
            return "a name is empty"
        if not self.numeric:
            return "at least one feature must be numeric: the model forecasts numbers"
        if reserved:
            return f"{', '.join(sorted(map(str, reserved)))} cannot be both a feature and the key or timestamp"
        odd = [name for name in (self.timestamp, self.key or "", *self.features) if not readable_name(name)]
        if odd:
            return (
                f"{', '.join(map(repr, odd))}: a field's name must not hold quotes, backslashes or control characters"
            )
        if self.key == self.timestamp:
            return f"key and timestamp are both {self.key!r}"
        if not 1 <= self.frame_samples <= MAX_FRAME_SAMPLES:
            return f"frame_samples must lie between 1 and {MAX_FRAME_SAMPLES}, not {self.frame_samples}"
        if len(self.features) > MAX_FEATURES or self.values > MAX_VALUES:
            return (
                f"{len(self.features)} features with {self.values} numbers in an event; "
                f"at most {MAX_FEATURES} with {MAX_VALUES} are taken"
            )
        if not 0 <= self.max_ahead_s <= LONGEST_S:
            return f"max_ahead_s must lie between 0 and {LONGEST_S:g}, not {self.max_ahead_s}"
        if self.expire_after_s is not None and not 0 < self.expire_after_s <= LONGEST_S:
            return f"expire_after_s must lie between 0 and {LONGEST_S:g}; leave it out to keep keys for ever"
        return None


def readable_name(name: str) -> bool:
    """Return whether the decoder can look for a field of this name.

    >>> readable_name("flow (l/min)"), readable_name('so "called"')
    (True, False)
    """
    return not any(character in '"\\' or character < " " or "\ud800" <= character <= "\udfff" for character in name)
