"""The body of a webhook request: what each kind of receiver is told about an alert.

``json`` is everything, as ``alert.schema.json`` beside this file describes it. ``slack`` is a line or two of
text for people, for every receiver that takes Slack's ``{"text": …}``. ``alertmanager`` is what Alertmanager's
``POST /api/v2/alerts`` takes.

An update says that the open episode got worse by a decade, or that the threshold has begun to follow it.
``slack`` tells it in one line. To Alertmanager an update is the same alert with new annotations; it tells
people again only after its ``repeat_interval``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from inspect import cleandoc
from typing import Literal
from urllib.parse import quote

import msgspec

from streamlstm.core.record import AlertRecord, FeatureEvidence
from streamlstm.core.why import why

SHOWN_FEATURES = 3
SHOWN_CHARACTERS = 200  # of a key, in a text for people

Template = Literal["json", "slack", "alertmanager"]


class AlertBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of template ``json``: one change of an alert.

    ``idempotency_key`` is the same each time this change is sent, as in the header ``Idempotency-Key``.
    ``link`` is where people can look at it, if that was set. Fields may be added to ``v1``, none removed.
    """

    format: Literal["streamlstm.alert.v1"]
    idempotency_key: str
    alert: AlertRecord
    link: str | None = None


class _Slack(msgspec.Struct):
    text: str


class _Alertmanager(msgspec.Struct, omit_defaults=True):
    labels: dict[str, str]
    annotations: dict[str, str]
    startsAt: str  # noqa: N815 - Alertmanager's names
    endsAt: str  # noqa: N815
    generatorURL: str = ""  # noqa: N815


_encode = msgspec.json.Encoder().encode


def body(template: Template, alert: AlertRecord, link: str | None, now_s: float, hold_s: float) -> bytes:
    """Return the request's body, as JSON.

    ``link`` may hold ``{key}`` and ``{id}``. ``now_s`` (unix seconds) and ``hold_s`` serve Alertmanager only,
    which ends an alert by itself at ``endsAt``: that is ``hold_s`` from now while the episode is open.
    """
    address = None if link is None else link.replace("{key}", quote(alert.key, "")).replace("{id}", quote(alert.id))
    if template == "json":
        return _encode(AlertBody("streamlstm.alert.v1", idempotency_key(alert), alert, address))
    if template == "slack":
        return _encode(_Slack(_text(alert) + (f"\n{_escaped(address)}" if address else "")))
    return _encode([_for_alertmanager(alert, address or "", now_s, hold_s)])


def json_schema() -> str:
    """Return the JSON Schema of template ``json``: what ``alert.schema.json`` must hold.

    Write it anew with ``python -c "from streamlstm.adapters.alert_body import json_schema; print(json_schema())"``.
    """
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(AlertBody)}
    for definition in schema["$defs"].values():
        definition["description"] = cleandoc(definition["description"])
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode()


def idempotency_key(alert: AlertRecord) -> str:
    """Return what one change of an alert is known by, however often it is sent; safe in a header.

    >>> from streamlstm.core.record import decode_alert
    >>> idempotency_key(decode_alert(b'''{"id": "events:0:7", "action": "resolved", "key": "a", "topic": "events",
    ... "partition": 0, "opened_offset": 7, "offset": 19, "since_ms": 0, "time_ms": 0, "events": 3, "peak_score": 6.5,
    ... "model": "m"}'''))
    'events:0:7/resolved/19'
    """
    return quote(f"{alert.id}/{alert.action}/{alert.offset}", safe="/:")


def _for_alertmanager(alert: AlertRecord, link: str, now_s: float, hold_s: float) -> _Alertmanager:
    """The labels are the same through an episode, else its end would not be understood; so no model among them. The id
    is: an episode that follows at once would else be taken for the same alert still firing, and not be told."""
    since_s = alert.since_ms / 1000
    ended_s = max(since_s, min(alert.time_ms / 1000, now_s))
    annotations = {
        "summary": _summary(alert, _plain),
        "description": "\n".join(_feature(feature, _plain) for feature in _worst(alert)),
        "action": alert.action,
        "why": why(alert) or "",
        "reason": alert.reason or "",
        "peak_score": f"{alert.peak_score:.2f}",
        "events": str(alert.events),
        "model": alert.model,
        "offsets": f"{alert.opened_offset}..{alert.offset} of partition {alert.partition}",
    }
    return _Alertmanager(
        labels={"alertname": "StreamlstmAnomaly", "topic": alert.topic, "key": alert.key, "id": alert.id},
        annotations={name: text for name, text in annotations.items() if text},
        startsAt=_iso(since_s),
        endsAt=_iso(ended_s if alert.action == "resolved" else max(now_s, since_s) + hold_s),
        generatorURL=link,
    )


def _text(alert: AlertRecord) -> str:
    lines = [_summary(alert, _escaped)]
    if alert.action == "opened":
        lines += [f"• {_feature(feature, _escaped)}" for feature in _worst(alert)]
        lines.append(f"since {_iso(alert.since_ms / 1000)}, alert {_escaped(alert.id)}")
    return "\n".join(lines)


def _summary(alert: AlertRecord, shown: Callable[[str], str]) -> str:
    """Return one line: which key, what happened, why, how unusual."""
    key = f"`{shown(alert.key.replace('`', chr(39))[:SHOWN_CHARACTERS])}` of {shown(alert.topic)}"
    if alert.action == "resolved":
        minutes = (alert.time_ms - alert.since_ms) / 60_000
        return f"Resolved: {key} ({alert.reason}) after {alert.events} events in {minutes:.1f} min"
    chance = "" if alert.tail_probability is None else f", tail probability {alert.tail_probability:.1e}"
    score = alert.peak_score if alert.score is None else alert.score
    words = why(alert)
    told = f"{key}, {shown(words)}" if words else key
    if alert.action == "opened":
        return f"Anomaly: {told}, score {score:.1f}{chance}"
    if alert.adapting:
        return f"Still open: {told}, the threshold now follows the stream; score {score:.1f}{chance}"
    return f"Worse: {told}, score {score:.1f}{chance}"


def _worst(alert: AlertRecord) -> list[FeatureEvidence]:
    return sorted(alert.features, key=lambda feature: -feature.share)[:SHOWN_FEATURES]


def _feature(feature: FeatureEvidence, shown: Callable[[str], str]) -> str:
    text = f"{shown(feature.name)} {feature.share:.0%}"
    numbers = feature.expected, feature.low, feature.high
    if feature.actual is None or isinstance(feature.actual, list) or any(isinstance(n, list) for n in numbers):
        return text
    expected, low, high = numbers
    return f"{text}: {feature.actual:.4g} {shown(feature.unit)}, expected {expected:.4g} ({low:.4g} to {high:.4g})"


def _plain(text: str) -> str:
    return text


def _escaped(text: str) -> str:
    """Take Slack's control characters out of a text, so that a key can neither mention nor link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _iso(time_s: float) -> str:
    """Return RFC 3339; a time beyond the calendar is shown as its nearest end."""
    bounded = min(max(time_s, 0.0), 253402300799.0)
    return datetime.fromtimestamp(bounded, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
