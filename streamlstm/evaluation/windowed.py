"""The same trained network without carried state: re-run over the last 64 events for every event.

What it gains or loses is what carrying the state is worth. Weights, calibration and channels are those of the detector;
only the forecasts, and the hidden state that novelty is judged by, come from windows that begin with an empty state.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from streamlstm.core.bundle import Bundle
from streamlstm.core.channels import NAMES, laid_out, novelty, observe_channels, state_floats
from streamlstm.core.channels.seen import Seen
from streamlstm.core.compiled import compiled_with_arrays
from streamlstm.core.feature import category_ids
from streamlstm.core.forecast import SMALLEST_SCALE
from streamlstm.core.score import ScoreParameters, combine, mean_square, whiten
from streamlstm.evaluation.stream import LEARN, Stream
from streamlstm.training.scaling import inputs_of, scalers_of

NAME = "windowed LSTM"
WINDOW_EVENTS = 64
BATCH = 2048
_F = np.float32


def windowed_lstm(stream: Stream, bundle: Bundle) -> NDArray[np.float64]:
    """Return scores of all events but those of the learning part, (N,); NaN where a window would be too short."""
    scores = np.full(len(stream), np.nan)
    inputs = network_inputs(stream, bundle)
    score = bundle.score._replace(fitted=laid_out(bundle.score.fitted))
    near = novelty.new_scratch(score.fitted.novelty, 1)
    for part in stream.of_each_key():
        begin = max(part.start, int(np.searchsorted(stream.part[part], LEARN, side="right")) + part.start)
        first = max(begin, part.start + WINDOW_EVENTS)
        if first >= part.stop:
            continue
        at = np.arange(first, part.stop)
        errors, hidden = forecast_errors(inputs, stream, at, bundle)
        floats = state_floats(stream.values.shape[1])
        scores[at] = _scores(errors, hidden, stream.values[at], stream.present[at], score, floats, near)
    return scores


def network_inputs(stream: Stream, bundle: Bundle) -> NDArray[np.float32]:
    """Return all that this bundle's network reads, (N, width): with the calendar if its trainer found that it helps."""
    tables = [bundle.vocabularies[name] for name in bundle.schema.categorical]
    ids = category_ids(stream.categories, tables)
    embedded = [bundle.model.embeddings[bundle.model.embedding_start[c] + ids[:, c]] for c in range(ids.shape[1])]
    width = bundle.architecture.input_width - sum(part.shape[1] for part in embedded)
    scaler = scalers_of(stream.keys, stream.key, bundle.scaler_of)
    inputs, _ = inputs_of(stream.raw, stream.gap_ms, stream.timestamp_ms, scaler, width, bundle.feature)
    return np.concatenate([inputs, *embedded], axis=1)


@torch.no_grad()
def forecast_errors(
    inputs: NDArray[np.float32], stream: Stream, at: NDArray[np.int64], bundle: Bundle
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return, for each event of ``at``, its L·D errors against a window's forecasts, and the hidden state after it.

    ``inputs`` (N, width) with embeddings; **trap**: 64 events of the same key must stand before each of ``at``.
    """
    values, present = stream.values, stream.present
    every, model = torch.from_numpy(inputs), bundle.model
    size, horizon, width = bundle.architecture.hidden, model.horizon, values.shape[1]
    weights = [torch.from_numpy(matrix) for matrix in model.weights]
    head, head_bias = torch.from_numpy(model.head[:size]), torch.from_numpy(model.head_bias)
    errors = np.zeros((len(at), horizon * width), np.float32)
    states = np.zeros((len(at), size), np.float32)
    for start in range(0, len(at), BATCH):
        here = at[start : start + BATCH]
        h = [torch.zeros(len(here), size) for _ in weights]
        c = [torch.zeros(len(here), size) for _ in weights]
        for step in range(WINDOW_EVENTS, -1, -1):  # the event itself comes last, for its hidden state
            below = every[torch.from_numpy(here - step)]
            for layer, matrix in enumerate(weights):
                joined = torch.cat([below, h[layer]], dim=1)
                gates = joined @ matrix[: joined.shape[1]] + torch.from_numpy(model.biases[layer])
                i, f, o = torch.sigmoid(gates[:, : 3 * size]).chunk(3, dim=1)
                c[layer] = f * c[layer] + i * torch.tanh(gates[:, 3 * size :])
                h[layer] = below = o * torch.tanh(c[layer])
            if 1 <= step <= horizon:
                location, raw = (h[-1] @ head + head_bias).chunk(2, dim=1)
                part = slice((step - 1) * width, step * width)
                scale = torch.nn.functional.softplus(raw[:, part]).numpy() + _F(SMALLEST_SCALE)
                off = (values[here] - location[:, part].numpy()) / np.sqrt(scale) - bundle.score.centre[part]
                errors[start : start + BATCH, part] = np.where(present[here], off, _F(0.0))
        states[start : start + BATCH] = h[-1].numpy()
    return errors, states


@compiled_with_arrays
def _scores(
    errors: NDArray[np.float32],
    hidden: NDArray[np.float32],
    values: NDArray[np.float32],
    present: NDArray[np.bool_],
    score: ScoreParameters,
    running_floats: int,
    near: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Return the score of each event of one key, by the channels of the scorer."""
    padded = np.zeros((1, score.whitening.shape[0]), np.float32)
    whitened = np.zeros((1, errors.shape[1]), np.float32)
    raw, decades = np.zeros(len(NAMES), np.float32), np.zeros(len(NAMES), np.float32)
    running = np.zeros(running_floats, np.float32)
    places = np.zeros((1, score.fitted.novelty.centre.shape[0]), np.float32)
    result = np.full(len(errors), np.nan)
    scored = 0
    for i in range(len(errors)):
        if not present[i].any():
            continue
        padded[0, : errors.shape[1]] = errors[i]
        whiten(whitened, padded, score.whitening)
        distance = mean_square(whitened[0], present[i])
        scored += 1
        newness = _F(2.0) / _F(min(scored, score.span) + 1)
        novelty.measure(near, places, hidden[i : i + 1], score.fitted.novelty)
        seen = Seen(distance, values[i], present[i], hidden[i], newness, scored)
        observe_channels(raw, running, seen, score.fitted, near[0])
        result[i] = combine(decades, raw, score)
    return result
