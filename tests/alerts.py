"""Builders of alerts, and of logs that hold some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.core.log import NewRecord, Record
from streamlstm.core.record import AlertRecord, FeatureEvidence, decode_alert, encode

START_MS = 1_700_000_000_000


def make_alert(
    key: str = "pump-7", action: str = "opened", offset: int = 42, partition: int = 0, **fields: Any
) -> AlertRecord:
    """Return an alert about one event; ``fields`` replace those of a valid one."""
    values: dict[str, Any] = {
        "id": f"events:{partition}:{offset}",
        "action": action,
        "key": key,
        "topic": "events",
        "partition": partition,
        "opened_offset": offset,
        "offset": offset,
        "since_ms": START_MS,
        "time_ms": START_MS + (0 if action == "opened" else 90_000),
        "events": 1 if action == "opened" else 30,
        "peak_score": 6.5,
        "model": "model-1",
        "score": 6.5,
        "tail_probability": 1e-5,
        "threshold": 3.0,
        "reason": "calm" if action == "resolved" else None,
        "channels": {"forecast_error": 6.5},
        "features": [
            FeatureEvidence("flow", "l/min", 0.9, 31.0, 10.0, 9.0, 11.0),
            FeatureEvidence("sound", "Pa", 0.1, [0.5, None], [0.1, 0.2], [0.0, 0.1], [0.2, 0.3]),
        ],
    }
    return AlertRecord(**{**values, **fields})


def make_alert_record(alert: AlertRecord | None = None, offset: int = 0, *, value: bytes | None = None) -> Record:
    """Return the record of an alert, as it stands in the alerts topic."""
    alert = make_alert() if alert is None else alert
    value = encode(alert) if value is None else value
    return Record("events.alerts", alert.partition, offset, START_MS, alert.key.encode(), value)


def make_alerts(count: int, keys: Sequence[str] = ("a", "b", "c"), partitions: int = 1) -> list[AlertRecord]:
    """Return alerts of keys in turn; the offset counts up, so that it tells their order."""
    return [
        make_alert(keys[i % len(keys)], offset=i, partition=(i % len(keys)) % partitions, features=[])
        for i in range(count)
    ]


def append_alerts(log: SqliteLog, alerts: Sequence[AlertRecord | bytes], partitions: int = 1) -> None:
    """Append alerts to ``events.alerts`` (bytes: a record that is none), and make the topic if need be."""
    log.create_topic("events.alerts", partitions)
    log.append(
        "events.alerts",
        [
            NewRecord(b"?", alert, partition=0)
            if isinstance(alert, bytes)
            else NewRecord(alert.key.encode(), encode(alert), partition=alert.partition)
            for alert in alerts
        ],
    )


def committed(log: SqliteLog, topic: str = "events.alerts", group: str = "streamlstm") -> dict[int, int]:
    """Return the committed offset of each partition that has one."""
    rows = log._query("SELECT partition, next_offset FROM offsets WHERE topic = ? AND group_name = ?", (topic, group))
    return dict(rows)


def dead_letters(log: SqliteLog, topic: str = "events.alerts.dead-letters") -> list[Record]:
    """Return all dead letters of all partitions."""
    info = log.topic(topic)
    return [record for p in range(info.partitions) for record in log.read(topic, p, info.start_offsets[p], 10_000)]


def offset_in(record: Record) -> int:
    """Return the offset of the event that the alert in a record is about."""
    return decode_alert(record.value).offset
