"""What people say about alerts and keys: records in ``TOPIC.feedback``, and which keys they muted."""

from __future__ import annotations

from inspect import cleandoc
from typing import Literal

import msgspec

LONGEST_MUTE_MS = 7 * 86_400_000  # so that it is known how far back to read: a mute for good is a detector to stop
LONGEST_NOTE = 500  # characters
LONGEST_NAME = 80

Key = tuple[int, str]  # partition and key
Action = Literal["acknowledge", "true", "false", "mute", "unmute"]


class FeedbackRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that a person said, about an alert or about a key.

    ``acknowledge``: somebody looks at the alert. ``true`` and ``false``: it was a real anomaly, or a false alarm;
    ``note`` says why. ``mute``: send no alerts of the key until ``until_ms``; ``unmute`` ends that. ``id`` is made
    where it was said: the same id twice is one record, sent again. ``who`` is the name that the person gave, ``at_ms``
    when it was taken (UTC milliseconds). The later record counts.
    """

    id: str
    action: Action
    key: str
    partition: int
    who: str
    at_ms: int
    alert: str | None = None
    note: str = ""
    until_ms: int | None = None


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(FeedbackRecord).decode


def json_schema() -> str:
    """Return the JSON Schema of a record: what ``adapters/feedback.schema.json`` must hold.

    Write it anew with ``python -c "from streamlstm.core.feedback import json_schema; print(json_schema())"``.
    """
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(FeedbackRecord)}
    for definition in schema["$defs"].values():
        definition["description"] = cleandoc(definition["description"])
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode()


class Mutes:
    """Which keys are muted, and until when; bounded by how long a mute may last.

    >>> mutes = Mutes()
    >>> mutes.take(FeedbackRecord("1", "mute", "pump-7", 0, "ann", 1_000, until_ms=61_000))
    >>> mutes.until_ms((0, "pump-7"), 2_000), mutes.until_ms((0, "pump-7"), 61_000)
    (61000, None)
    """

    def __init__(self) -> None:
        self._until_ms: dict[Key, int] = {}

    def take(self, record: FeedbackRecord) -> None:
        """Take the next record in; those about alerts change nothing."""
        if record.action == "mute" and record.until_ms is not None:
            self._until_ms[record.partition, record.key] = min(record.until_ms, record.at_ms + LONGEST_MUTE_MS)
        elif record.action == "unmute":
            self._until_ms.pop((record.partition, record.key), None)

    def until_ms(self, key: Key, now_ms: int) -> int | None:
        """Return when a key's mute ends, or None if it is not muted now."""
        until_ms = self._until_ms.get(key)
        return until_ms if until_ms is not None and now_ms < until_ms else None

    def forget_ended(self, now_ms: int) -> None:
        """Drop what is over."""
        self._until_ms = {key: until_ms for key, until_ms in self._until_ms.items() if now_ms < until_ms}
