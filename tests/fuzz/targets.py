"""What is fuzzed: functions that take any bytes, and fail only where the product is wrong.

Each one names its way to be harmless: a rejection, a known error, or a result that the rest of the product can use.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import httpx
import msgspec
import numpy as np
import safetensors.numpy

from streamlstm.adapters.bundle_files import decode_bundle
from streamlstm.adapters.webhook import Webhook
from streamlstm.core.bundle import Arrays, Bundle, assembled
from streamlstm.core.delivery import Outcome
from streamlstm.core.event import EARLIEST_MS, LATEST_MS, MAX_KEY_BYTES, EventDecoder
from streamlstm.core.log import Record
from streamlstm.core.record import AlertRecord, decode_score, encode
from streamlstm.core.schema import StreamSchema
from streamlstm.core.scorer import Scorer
from streamlstm.errors import BundleError, LogError, SchemaError
from tests.fuzz import tiny

SCHEMAS = [
    tiny.SCHEMA,
    StreamSchema.from_toml("[features.flow]\n[features.pressure]"),
    StreamSchema.from_toml('key = "k"\ntimestamp_unit = "s"\n[features.x]\n[features.m]\nkind = "categorical"'),
    StreamSchema.from_toml('timestamp_unit = "us"\nframe_samples = 3\n[features.x]\noptional = true'),
]
ODD: list[Any] = [0, 1, -1, 2, 3, 4, 2**31, 2**63, 2**70, -(2**63), 0.0, -0.0, 0.5, 1e-300, 1e300, 1e39, True, None]
ODD += ["", "x", "on", "a", [], {}, [1], {"a": 1}, {"mode": {}}, {"mode": {"on": 99}}, {"mode": {"on": -9}}, "\ud800"]
DTYPES = ("<f4", "<f8", "<f2", "<i8", "<i4", "u1", "?", "<u8")


class Target(NamedTuple):
    """``check`` takes an input; ``share`` is the target's part of all inputs."""

    check: Callable[[bytes], None]
    seeds: Sequence[bytes]
    share: float


def decoder(data: bytes) -> None:
    """Any record becomes one event in range, or one rejection; an event can be scored, a rejection stored."""
    if len(data) < 2:
        return
    schema = SCHEMAS[data[0] % len(SCHEMAS)]
    cut = data[1] % 16
    record = Record("events", 0, 7, tiny.START_MS, data[2 : 2 + cut] or None, data[2 + cut :], (("h", data[:9]),))
    batch, rejections = EventDecoder(schema).decode([record])
    assert len(batch) + len(rejections) == 1
    assert batch.values.shape == (len(batch), schema.values)
    for key, timestamp_ms in zip(batch.keys, batch.timestamp_ms.tolist(), strict=True):
        assert 0 < len(key.decode().encode()) <= MAX_KEY_BYTES
        assert EARLIEST_MS <= timestamp_ms <= LATEST_MS
    for rejection in rejections:
        assert rejection.reason
        rejection.detail.encode()
    if schema is tiny.SCHEMA:
        score(BUNDLE, [record])


def schema(data: bytes) -> None:
    """Any text is a schema that survives a round trip and makes a decoder, or a :class:`SchemaError`."""
    try:
        found = StreamSchema.from_toml(data.decode(errors="surrogateescape"))
    except SchemaError:
        return
    assert StreamSchema.from_dict(found.to_dict()) == found
    EventDecoder(found).decode(list(tiny.events(found, 3)))


def bundle(data: bytes) -> None:
    """Any two files are a :class:`BundleError`, or a bundle with which events can be scored.

    The first byte chooses: bytes of the two files as they are, or edits of a good bundle, with a digest that fits.
    """
    if not data:
        return
    try:
        found = _files(data[1:]) if data[0] == 0 else assembled(*_edited(data[1:]))
        found.parameters()
    except (BundleError, SchemaError):
        return
    score(found, list(tiny.events(found.schema)))


def state(data: bytes) -> None:
    """Any bytes as a key's stored state are a known error, or a state from which the key can go on."""
    header = STATE[:13]  # version, and the first digits of the digest
    row = bytearray(STATE[len(header) :])
    for at in range(0, len(data) - 4, 5):  # an edit: where, and up to four bytes
        place = int.from_bytes(data[at : at + 2], "little") % len(row)
        row[place : place + 3] = data[at + 2 : at + 5]
    whole = data if data[:1] == b"\x00" else header + bytes(row)
    scorer = Scorer(BUNDLE)
    poll = scorer.read([r._replace(offset=1000 + r.offset) for r in tiny.events(BUNDLE.schema, 3)])
    try:
        outcome = scorer.score(poll, {(0, b"a"): whole, (0, b"b"): whole})
    except (BundleError, LogError):
        return
    _check(scorer, outcome)


def alert(data: bytes) -> None:
    """Any bytes as an alert record are refused, or become a body for every template."""
    for template in ("json", "slack", "alertmanager"):
        webhook = Webhook(httpx.URL("https://pager.example/in"), template=template, link="https://x/{key}?{id}")
        contents = webhook.contents(Record("events.alerts", 0, 0, 0, b"a", data))
        if isinstance(contents, Outcome):
            assert contents.detail
        else:
            msgspec.json.decode(contents[0])


def score(bundle: Bundle, records: Sequence[Record]) -> None:
    """Take records through the whole core, as one poll; every output must be readable."""
    scorer = Scorer(bundle, max_keys=2)
    _check(scorer, scorer.score(scorer.read(records), {}))


def _check(scorer: Scorer, outcome: Any) -> None:
    commit = scorer.commit_of(outcome)
    assert len(commit.scores) + len(commit.dead_letters) == len(outcome.poll.records)
    for output in commit.scores:
        decode_score(output.value)
    for key, row in commit.states.items():
        scorer.read_state(key, row.value)
    scorer.accept(outcome)


def _files(data: bytes) -> Bundle:
    cut = int.from_bytes(data[:2], "little")
    return decode_bundle(data[2 : 2 + cut], data[2 + cut :])


def _edited(data: bytes) -> tuple[dict[str, Any], Arrays]:
    """Return a good bundle's parts after some edits, four bytes each."""
    head, arrays = copy.deepcopy(HEAD), dict(ARRAYS)
    names = sorted(arrays)
    for at in range(0, min(len(data) - 3, 20), 4):
        what, where, value, more = data[at : at + 4]
        if what % 2:
            _edit_head(head, where, ODD[value % len(ODD)] if what % 4 == 1 else value - 128 + more / 256 * (more % 2))
        else:
            name = names[where % len(names)]
            if name in arrays:
                arrays[name] = _edit_array(arrays[name], value, more)
    return head, arrays


def _edit_head(head: dict[str, Any], where: int, value: Any) -> None:
    """Replace the value at a place of the JSON part; places are counted through nested tables."""
    places: list[tuple[Any, Any]] = []

    def count(node: Any) -> None:
        for name in node if isinstance(node, dict) else range(len(node)):
            places.append((node, name))
            if isinstance(node[name], (dict, list)):
                count(node[name])

    count(head)
    node, name = places[where % len(places)]
    node[name] = copy.deepcopy(value)


def _edit_array(array: Any, how: int, more: int) -> Any:
    if how % 4 == 0:
        with np.errstate(all="ignore"):
            return array.astype(DTYPES[more % len(DTYPES)])
    if how % 4 == 1 and array.size and array.dtype.kind == "f":
        array = array.copy()
        odd = [0.0, -1.0, 1.0, 1e-30, 3e38, -3e38, 9.0, np.nan]
        array.reshape(-1)[more % array.size] = odd[more % len(odd)]
        return array
    if how % 4 == 2:
        return array[: more % (len(array) + 1)]
    return array[..., : more % (array.shape[-1] + 1)]


HEAD, ARRAYS = tiny.parts()
BUNDLE = assembled(HEAD, ARRAYS)
HEAD["digest"] = BUNDLE.digest


def _state() -> bytes:
    scorer = Scorer(BUNDLE)
    outcome = scorer.score(scorer.read(list(tiny.events(BUNDLE.schema))), {})
    return scorer.commit_of(outcome).states[0, b"a"].value


STATE = _state()
_HEAD_FILE = msgspec.json.encode(HEAD)
_ALERT = AlertRecord("events:0:1", "opened", "a", "events", 0, 1, 1, 1, 1, 1, 1.0, "m", 1.0, 0.1, 1.0)
_EVENT = b'{"id": "a", "time": 1600000000000, "x": [1.5, null], "mode": "on"}'

TARGETS: dict[str, Target] = {
    "decoder": Target(
        decoder,
        [
            b"\x00\x00" + _EVENT,
            b"\x01\x00" + b'{"time": "2026-01-01T00:00:00Z", "flow": 1e3, "pressure": -0.5}',
            b"\x02\x00" + b'{"k": 12, "time": 1.6e9, "x": 1, "m": true, "z": [[{"a": "\\u00e9"}]]}',
            b"\x03\x03key" + b'{"time": 1.6e15, "x": [1, 2, 3]}',
        ],
        0.55,
    ),
    "schema": Target(
        schema,
        [
            b'key = "machine"\ntimestamp = "at"\ntimestamp_unit = "us"\nframe_samples = 8\ncalendar = true\n'
            b"max_ahead_s = 60\nexpire_after_s = 3600\n[features.mode]\nkind = 'categorical'\noptional = true\n"
            b'[features.y]\nunit = "g"\n',
            b"[features.flow]",
            b'features = {"a b" = {}, c = {kind = "numeric"}}',
        ],
        0.2,
    ),
    "bundle": Target(
        bundle,
        [
            b"\x00" + len(_HEAD_FILE).to_bytes(2, "little") + _HEAD_FILE + safetensors.numpy.save(ARRAYS),
            b"\x01",
            b"\x01\x01\x01\x01\x01\x02\x02\x02\x02",
        ],
        0.05,
    ),
    "state": Target(state, [b"", STATE, b"\x20\x00\x01\x00\x00"], 0.1),
    "alert": Target(alert, [encode(_ALERT)], 0.1),
}
