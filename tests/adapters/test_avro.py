"""Avro in Confluent's wire format, from a registry that runs here."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import fastavro
import pytest

from streamlstm.adapters.avro import avro_parser
from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.core.event import EventDecoder
from streamlstm.core.log import NewRecord, Record
from streamlstm.core.schema import StreamSchema
from streamlstm.errors import LogError, LogUnavailable, SettingsError
from streamlstm.services.registry import LOGIN_VARIABLE, parser_of
from streamlstm.services.scorer import run
from streamlstm.services.settings import ScoreSettings
from streamlstm.training.history import history_of
from streamlstm.training.train import Options, train

EVENT = {
    "type": "record",
    "name": "Event",
    "fields": [
        {"name": "pump", "type": "string"},
        {"name": "time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "pressure", "type": ["null", "double"]},
        {"name": "other", "type": "bytes", "default": ""},
    ],
}
SCHEMA = """
key = "pump"
timestamp = "time"
timestamp_unit = "{unit}"
[features.pressure]
unit = "bar"
optional = true
"""
MOMENT = datetime(2026, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)


class Registry:
    """A registry with one schema, number 7; ``status`` makes it answer with an error."""

    def __init__(self) -> None:
        self.status = 200
        self.body: object = {"schema": json.dumps(EVENT)}
        self.asked: list[str] = []
        self.logins: list[str] = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.asked.append(self.path)
                if login := self.headers["Authorization"]:
                    registry.logins.append(login)
                known = "/schemas/ids/7" in self.path
                status = registry.status if known or registry.status != 200 else 404
                body = registry.body if status == 200 else {"error_code": 40403, "message": "no"}
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_arguments: object) -> None:
                """Keep quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """End it."""
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A registry that is up."""
    registry = Registry()
    yield registry
    registry.close()


def wire(number: int = 7, **fields: Any) -> bytes:
    """Return a record as a producer with Confluent's serializer writes it."""
    out = io.BytesIO()
    event = {"pump": "p1", "time": MOMENT, "pressure": 2.5, "other": b"\xff", **fields}
    fastavro.schemaless_writer(out, fastavro.parse_schema(EVENT), event)
    return struct.pack(">bI", 0, number) + out.getvalue()


def decoder(registry: Registry, unit: str = "ms") -> EventDecoder:
    """Return a decoder that asks this registry."""
    schema = StreamSchema.from_toml(SCHEMA.format(unit=unit))
    return EventDecoder(schema, avro_parser({"url": registry.url, "max.retries": 0, "timeout": 2}, schema))


def record(value: bytes) -> Record:
    """Return an input record."""
    return Record("events", 0, 0, int(MOMENT.timestamp() * 1000), None, value)


@pytest.mark.parametrize("unit", ["iso8601", "s", "ms", "us"])
def test_avro_decodes_as_the_same_event_in_json_would(registry: Registry, unit: str) -> None:
    """Logical times become the schema's unit; fields that the schema does not name are ignored."""
    batch, rejections = decoder(registry, unit).decode([record(wire()), record(wire(pressure=None))])
    assert rejections == []
    assert batch.keys == [b"p1", b"p1"]
    assert batch.timestamp_ms.tolist() == [int(MOMENT.timestamp() * 1000)] * 2
    assert batch.values[0, 0] == 2.5
    assert batch.values[1, 0] != batch.values[1, 0]


@pytest.mark.parametrize("pressure", [float("nan"), float("inf"), -float("inf")])
def test_number_that_json_could_not_hold_is_invalid(registry: Registry, pressure: float) -> None:
    """Not a value to score, nor one that is missing: the record becomes a dead letter, as it would in JSON."""
    batch, (rejection,) = decoder(registry).decode([record(wire(pressure=pressure)), record(wire())])
    assert len(batch) == 1
    assert rejection.reason == "invalid"
    assert rejection.detail == f"{pressure} is no number that can be scored - at `$.pressure`"


def test_schema_is_asked_for_once(registry: Registry) -> None:
    """A poll costs the registry nothing."""
    decode = decoder(registry).decode
    for _ in range(3):
        decode([record(wire())] * 10)
    assert len(registry.asked) == 1


@pytest.mark.parametrize("value", [b"", b"{}", b"\0\0\0\0\7", wire()[:-3], b"\1" + wire()[1:]])
def test_bytes_that_are_no_avro_are_malformed(registry: Registry, value: bytes) -> None:
    """One bad record is a dead letter with the reason; the others are scored."""
    batch, (rejection,) = decoder(registry).decode([record(value), record(wire())])
    assert len(batch) == 1
    assert (rejection.reason, rejection.record.value) == ("malformed", value)
    assert rejection.detail


def test_unknown_schema_is_malformed(registry: Registry) -> None:
    """A number that the registry never gave out will not become known by waiting."""
    _, (rejection,) = decoder(registry).decode([record(wire(number=8))])
    assert rejection.reason == "malformed"
    assert "no such schema in the registry" in rejection.detail


def test_registry_that_is_down_is_waited_for(registry: Registry) -> None:
    """Records must not become dead letters because another service is down."""
    decode = decoder(registry).decode
    registry.status = 503
    with pytest.raises(LogUnavailable, match=registry.url):
        decode([record(wire())])
    registry.status = 200
    assert len(decode([record(wire())])[0]) == 1


def test_registry_that_cannot_be_reached_is_waited_for(registry: Registry) -> None:
    """The same where nobody answers."""
    decode = decoder(registry).decode
    registry.close()
    with pytest.raises(LogUnavailable, match=registry.url):
        decode([record(wire())])


def test_registry_that_refuses_us_is_an_error(registry: Registry) -> None:
    """A wrong password is for a person to mend."""
    registry.status = 401
    with pytest.raises(LogError, match="schema registry") as caught:
        decoder(registry).decode([record(wire())])
    assert not isinstance(caught.value, LogUnavailable)


RECURSIVE = {"type": "record", "name": "R", "fields": [{"name": "r", "type": "R"}]}
NOTHINGS = {"type": "record", "name": "R", "fields": [{"name": "r", "type": {"type": "array", "items": "null"}}]}


def doubling(levels: int) -> dict[str, Any]:
    """Return a schema in which each level holds the one below twice."""
    found: Any = "null"
    for level in range(levels):
        name = f"R{level}"
        again = found if isinstance(found, str) else found["name"]
        found = {"type": "record", "name": name, "fields": [{"name": "a", "type": found}, {"name": "b", "type": again}]}
    return dict(found)


@pytest.mark.parametrize(
    "answer",
    [
        {"schema": "no JSON"},
        {"schema": json.dumps({"type": "record", "name": "Event", "fields": [{"name": "x", "type": "nonsense"}]})},
        {"schema": json.dumps(RECURSIVE)},
        {"schema": json.dumps(NOTHINGS)},
        {"schema": json.dumps(doubling(40))},
        {"schema": json.dumps("string")},
        {"schema": "[" * 5_000},
        {},
    ],
)
def test_registry_that_answers_nonsense_makes_dead_letters(registry: Registry, answer: object) -> None:
    """A schema that is none, another one, or without end is the record's fault, not the scorer's end."""
    registry.body = answer
    _, (rejection,) = decoder(registry).decode([record(wire())])
    assert rejection.reason in ("malformed", "invalid")


# The whole way


def test_topic_of_avro_records_is_scored_as_the_same_one_of_json(registry: Registry, tmp_path: Path) -> None:
    """The format of the records changes no score, and bad ones become dead letters with their own bytes."""
    schema = StreamSchema.from_toml(SCHEMA.format(unit="ms"))
    events = [{"pump": "p1", "time": MOMENT + timedelta(seconds=i), "pressure": 2.0 + i % 7} for i in range(300)]
    bundle = train(
        history_of([EventDecoder(schema).decode([record(as_json(event)) for event in events])[0]]),
        schema,
        Options(updates=5, hidden=8),
    ).bundle
    found = {}
    for name, encode in (("json", as_json), ("avro", lambda event: wire(**event))):
        log = SqliteLog(tmp_path / f"{name}.db", clock=lambda: int(events[-1]["time"].timestamp() * 1000))
        log.create_topic("events", 1)
        log.append("events", [NewRecord(None, encode(event)) for event in events] + [NewRecord(None, b"bad")])
        settings = ScoreSettings(log="", until_end=True, registry=registry.url if name == "avro" else None)
        run(log, bundle, settings, Event())
        found[name] = [r.value for r in log.read("events.scores", 0, 0, 1000)]
        (letter,) = log.read("events.dead-letters", 0, 0, 10)
        assert letter.value == b"bad"
        log.close()
    assert found["avro"] == found["json"]
    assert len(found["json"]) == 300


def as_json(event: dict[str, Any]) -> bytes:
    """Return the event as JSON, with its time in ms."""
    return json.dumps({**event, "time": int(event["time"].timestamp() * 1000)}).encode()


@pytest.mark.parametrize("address", ["", "registry:8081", "ftp://x", "https://user:word@x"])
def test_registry_address_that_cannot_be_is_refused(address: str) -> None:
    """The message shows no password."""
    with pytest.raises(SettingsError, match="--registry") as caught:
        parser_of(ScoreSettings(registry=address), StreamSchema.from_toml(SCHEMA.format(unit="ms")), {})
    assert "word@" not in str(caught.value)


def test_log_in_at_the_registry_comes_from_the_environment(registry: Registry) -> None:
    """Sent as HTTP basic authentication."""
    parse = parser_of(
        ScoreSettings(registry=registry.url), StreamSchema.from_toml(SCHEMA.format(unit="ms")), {LOGIN_VARIABLE: "a:b"}
    )
    assert parse is not None
    parse(wire())
    assert registry.logins == ["Basic YTpi"]
