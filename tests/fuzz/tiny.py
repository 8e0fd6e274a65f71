"""The smallest bundle that has every kind of input, made without training, and events of any bundle's stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from streamlstm.core.bundle import FORMAT, VERSION, Alerting, Arrays, Bundle, assembled, padded
from streamlstm.core.channels import CURVES, NAMES, channel_weights, record
from streamlstm.core.log import Record
from streamlstm.core.schema import StreamSchema

START_MS = 1_600_000_000_000
SCHEMA = StreamSchema.from_toml(
    'key = "id"\ntimestamp_unit = "ms"\nexpire_after_s = 60\ncalendar = true\nframe_samples = 2\n'
    '[features.x]\noptional = true\n[features.mode]\nkind = "categorical"\noptional = true'
)
VALUES, INPUTS, HIDDEN, HORIZON, EMBEDDING, IDS, KNOTS = 2, 9, 4, 2, 2, 3, 4


def parts() -> tuple[dict[str, Any], Arrays]:
    """Return the JSON part, not yet with the right digest, and the arrays."""
    rng = np.random.default_rng(0)

    def floats(*shape: int) -> Any:
        return (0.3 * rng.standard_normal(shape)).astype(np.float32)

    errors = HORIZON * VALUES
    arrays: Arrays = {
        "lstm.0.weights": floats(padded(INPUTS + EMBEDDING + HIDDEN), 4 * HIDDEN),
        "lstm.biases": floats(1, 4 * HIDDEN),
        "head.weights": floats(HIDDEN, 2 * errors),
        "head.bias": floats(2 * errors),
        "embeddings": floats(IDS, EMBEDDING),
        "feature.mean": np.zeros((2, 1)),
        "feature.deviation": np.ones((2, 1)),
        "score.centre": np.zeros(errors, np.float32),
        "score.whitening": np.eye(errors, dtype=np.float32),
        "score.knots": np.tile(np.linspace(-3, 3, KNOTS, dtype=np.float32), (CURVES, 1)),
        "score.surprises": np.tile(np.linspace(0, 4, KNOTS, dtype=np.float32), (CURVES, 1)),
        "score.slopes": np.ones(CURVES, np.float32),
        "score.weights": channel_weights(0.2, of_frames=False),
        "novelty.centre": np.zeros(4, np.float32),
        "novelty.projection": floats(HIDDEN, 4),
        "novelty.references": floats(4, 6),
        "record.low": -np.ones((len(record.SPANS), VALUES), np.float32),
        "record.high": np.ones((len(record.SPANS), VALUES), np.float32),
        "stillness.lowest": np.full(VALUES, 0.5, np.float32),
        "band": np.ones(VALUES, np.float32),
    }
    head = {
        "format": FORMAT,
        "version": VERSION,
        "schema": SCHEMA.to_dict(),
        "architecture": {
            "values": VALUES,
            "inputs": INPUTS,
            "hidden": HIDDEN,
            "layers": 1,
            "horizon": HORIZON,
            "embedding": EMBEDDING,
            "vocabularies": [IDS],
        },
        "channels": list(NAMES),
        "frame_samples": 2,
        "has_mask": True,
        "has_gap": True,
        "has_calendar": True,
        "typical_gap_ms": 1000.0,
        "scaler_of": {"b": 1},
        "vocabularies": {"mode": {"on": 2}},
        "calibration": {
            "period": 4,
            "warmup_events": 33,
            "mean_gap_ms": 1000.0,
            "tail_start": 0.5,
            "tail_scale": 0.3,
        },
        "alerting": msgspec.to_builtins(Alerting(alarm_rate=0.01, resolve_after_events=2)),
        "report": {"note": "for people"},
        "digest": "",
    }
    return head, arrays


def bundle() -> Bundle:
    """Return the bundle."""
    return assembled(*parts())


def events(schema: StreamSchema, count: int = 60) -> Iterator[Record]:
    """Yield events of a stream: two keys, a spike, a hole, a duplicate, an event that is late."""
    for step in range(count):
        value = 99.0 if step == count - 2 else float(step % 5)
        event: dict[str, Any] = dict.fromkeys(schema.categorical, "on" if step % 3 else "off")
        frame = value if schema.frame_samples == 1 else [value] * schema.frame_samples
        event |= dict.fromkeys(schema.numeric, frame)
        if step == count // 2:
            event = {name: field for name, field in event.items() if not schema.features[name].optional}
        time_ms = START_MS + 1000 * (step - (5 if step == count - 5 else 0))
        event[schema.timestamp] = time_ms
        if schema.timestamp_unit == "iso8601":
            event[schema.timestamp] = str(np.datetime64(time_ms, "ms"))
        elif schema.timestamp_unit != "ms":
            event[schema.timestamp] = time_ms / 1000 if schema.timestamp_unit == "s" else time_ms * 1000
        if schema.key is not None:
            event[schema.key] = "b" if step % 7 == 0 else "a"
        value_bytes = msgspec.json.encode(event)
        for again in range(2 if step == count - 3 else 1):
            yield Record("events", 0, 2 * step + again, 2 * START_MS, b"a", value_bytes)
