"""What the network learns from is what the scorer feeds it, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from streamlstm.core.advance import advance
from streamlstm.core.columns import Events, new_results, new_scratch
from streamlstm.core.event import EventDecoder
from streamlstm.core.log import Record
from streamlstm.core.schema import StreamSchema
from streamlstm.core.scorer import Scorer
from streamlstm.core.state import SCALER, Arena
from streamlstm.training.scaling import Scaling, model_inputs
from streamlstm.training.train import Trained
from tests.builders import SCHEMA, make_feed, make_history, make_rich_feed, rich, trained


def streamed_inputs(model: Trained, schema: StreamSchema, records: list[Record]) -> np.ndarray:
    """Return what the scorer's walk feeds its network for each event, before embeddings."""
    found = model.bundle
    batch, _ = EventDecoder(schema).decode(records)
    parameters = found.parameters()
    keys = sorted(set(batch.keys))
    rows = Arena(parameters.layout, 10).gather([(0, key) for key in keys], (1.0, 1.0))
    rows.integers[:, SCALER] = [found.scaler_of.get(key.decode(), 0) for key in keys]
    scratch = new_scratch(parameters, found.architecture.input_width)
    results, inputs = new_results(1, parameters), []
    for i, key in enumerate(batch.keys):
        event = Events(
            row=np.array([keys.index(key)]),
            place=np.zeros(1, np.int64),
            offset=batch.offset[i : i + 1],
            timestamp_ms=batch.timestamp_ms[i : i + 1],
            values=batch.values[i : i + 1],
            categories=np.zeros((1, len(schema.categorical)), np.int64),
            checksum=batch.checksum[i : i + 1],
        )
        advance(event, rows, np.zeros(1, np.int64), parameters, results, scratch)
        assert results.inputs[0].tobytes() == scratch.inputs[0, : schema.values].tobytes()
        inputs.append(scratch.inputs[0, : found.architecture.inputs].copy())
    return np.array(inputs)


@pytest.mark.parametrize("model", [trained, rich])
def test_training_inputs_equal_streaming_inputs_bit_for_bit(model: Callable[[], Trained]) -> None:
    """Values, mask, gap and calendar of every event are the same bytes in the trainer and in the scorer."""
    which = model()
    schema, feed = which.bundle.schema, make_rich_feed(200, seed=4) if which is rich() else make_feed(150, seed=4)
    history = make_history(feed, schema)
    scaling = Scaling(which.bundle.feature, which.bundle.scaler_of, which.bundle.vocabularies)
    inputs, present = model_inputs(history, schema, scaling)
    by_key = sorted(range(len(feed)), key=lambda i: (msgspec.json.decode(feed[i].value)[schema.key], i))
    assert inputs.tobytes() == streamed_inputs(which, schema, feed)[by_key].tobytes()
    assert np.array_equal(present, ~np.isnan(history.values))
    assert np.isfinite(inputs).all()


def test_training_inputs_equal_the_results_of_a_scorer() -> None:
    """What a scorer reports as inputs of a poll is what the trainer would learn from."""
    feed = make_feed(150, ("a",), seed=4) + make_feed(150, ("b",), seed=5)
    feed = [record._replace(offset=i) for i, record in enumerate(feed)]
    scorer = Scorer(trained().bundle)
    results = scorer.score(scorer.read(feed), {}).results
    scaling = Scaling(trained().bundle.feature, {}, {})
    inputs, _ = model_inputs(make_history(feed), SCHEMA, scaling)
    assert results.inputs.tobytes() == inputs[:, :2].tobytes()
