"""The records that leave the scorer: scores, alerts and dead letters, as JSON."""

from __future__ import annotations

from typing import Literal

import msgspec

Status = Literal["scored", "warming_up", "no_value"]


class FeatureEvidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """One feature at the event that a record is about, in the feature's unit.

    ``low``…``high`` is the band that held 99 % of held-out values around ``expected``, the forecast
    made one event before. ``share`` is the feature's part in the forecast error; shares sum to one. A
    feature sampled in frames has a list, one number per sample; a missing value is null.
    """

    name: str
    unit: str
    share: float
    actual: float | list[float | None] | None
    expected: float | list[float]
    low: float | list[float]
    high: float | list[float]


class ScoreRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event's score. Every decoded event in order has exactly one, under its own key.

    ``score`` is in decades of surprise, ``tail_probability`` how often this key has a score as high
    lately, ``threshold`` the score at which an alert would open. They are absent, never 0, while the
    key is warming up or if the event held no value. ``alert`` is the id of the open episode.
    ``features`` are there if the scorer was asked to explain all events, and the event has a score.
    A record holds one, or an array of one key's (:mod:`streamlstm.core.pack`).
    """

    key: str
    time_ms: int
    offset: int
    status: Status
    model: str
    score: float | None = None
    tail_probability: float | None = None
    threshold: float | None = None
    alert: str | None = None
    features: list[FeatureEvidence] = []


class AlertRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One change of an episode: opened, updated or resolved.

    ``id`` stays the same through the episode and through retries. ``since_ms`` and ``opened_offset``
    belong to the event that opened it, ``time_ms`` and ``offset`` to the event this record is about.
    ``channels`` are the decades of surprise of each channel that counts. ``reason`` says why it was resolved:
    ``calm``, ``adapted`` (the world stayed different, the threshold followed), ``silence`` (the key sent
    nothing for so long that it starts anew), ``reset`` (it starts anew under another model) or ``followed`` (it had not
    calmed down, but was quiet for itself, and this event opened the next one: its record comes right after). Replay
    ``opened_offset``…``offset`` to see it again.
    """

    id: str
    action: Literal["opened", "updated", "resolved"]
    key: str
    topic: str
    partition: int
    opened_offset: int
    offset: int
    since_ms: int
    time_ms: int
    events: int
    peak_score: float
    model: str
    score: float | None = None
    tail_probability: float | None = None
    threshold: float | None = None
    adapting: bool = False
    reason: Literal["calm", "adapted", "silence", "reset", "followed"] | None = None
    channels: dict[str, float] = {}
    features: list[FeatureEvidence] = []


encode = msgspec.json.Encoder().encode
decode_score = msgspec.json.Decoder(ScoreRecord).decode
decode_alert = msgspec.json.Decoder(AlertRecord).decode
