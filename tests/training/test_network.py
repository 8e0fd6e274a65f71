"""The network in torch and its arrays in the core are one and the same forecaster."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from streamlstm.core.advance import advance
from streamlstm.core.columns import Events, new_results, new_scratch
from streamlstm.core.forecast import SMALLEST_SCALE, forecast, slot, write_forecasts
from streamlstm.core.model import Architecture
from streamlstm.core.state import Arena
from streamlstm.core.step import lstm_step
from streamlstm.training.network import Network, to_model
from streamlstm.training.student import location_and_scale
from tests.builders import bundle, rich

H, T = 12, 40


def architecture(layers: int, vocabularies: tuple[int, ...]) -> Architecture:
    """Return a small architecture whose input width needs padding."""
    return Architecture(values=2, inputs=3, hidden=H, layers=layers, horizon=3, embedding=4, vocabularies=vocabularies)


def network_of(layers: int, vocabularies: tuple[int, ...] = ()) -> Network:
    """Return a network with random weights, biases of both kinds included."""
    torch.manual_seed(0)
    network = Network(architecture(layers, vocabularies))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


@pytest.mark.parametrize("vocabularies", [(), (5, 3)])
@pytest.mark.parametrize("layers", [1, 2])
def test_single_steps_equal_the_sequence_forward(layers: int, vocabularies: tuple[int, ...]) -> None:
    """States and forecasts of T single steps equal torch's over the whole sequence, to 1e-5."""
    network = network_of(layers, vocabularies)
    model = to_model(network)
    a = network.architecture
    rng = np.random.default_rng(0)
    inputs = rng.normal(0, 1.5, (T, a.inputs)).astype(np.float32)
    ids = np.stack([rng.integers(0, size, T) for size in vocabularies] or [np.zeros(0, np.int64)], axis=-1)
    ids = ids.reshape(T, len(vocabularies))
    with torch.no_grad():
        said, _, (hidden_end, cell_end) = network(torch.from_numpy(inputs)[:, None], torch.from_numpy(ids)[:, None])
        location, scale = location_and_scale(said)

    hidden, cell = np.zeros((1, layers * H), np.float32), np.zeros((1, layers * H), np.float32)
    joined = np.zeros((1, max(len(matrix) for matrix in model.weights)), np.float32)
    gates, head = np.zeros((1, 4 * H), np.float32), np.zeros((1, 2 * a.errors), np.float32)
    waiting = np.zeros(a.horizon * (a.horizon + 1) * a.values, np.float32)
    for t in range(T):
        rows = [model.embeddings[start + i] for start, i in zip(model.embedding_start, ids[t], strict=True)]
        lstm_step(np.concatenate([inputs[t], *rows]).astype(np.float32)[None], hidden, cell, model, joined, gates)
        forecast(head, np.ascontiguousarray(hidden[:, -H:]), model)
        write_forecasts(waiting, t, a.values, head[0])
        for ahead in range(1, a.horizon + 1):
            start = slot(t, ahead, a.values)
            found = waiting[start : start + 2 * a.values]
            assert np.allclose(found[: a.values], location[ahead - 1, :, t, 0], atol=1e-5)
            assert np.allclose(found[a.values :], scale[ahead - 1, :, t, 0], atol=1e-5)
    assert np.allclose(hidden, hidden_end.numpy().ravel(), atol=1e-5)
    assert np.allclose(cell, cell_end.numpy().ravel(), atol=1e-5)


def test_walk_reads_each_categorys_own_embedding() -> None:
    """The scorer's first layer sees the inputs and behind them the row of the category's id."""
    found = rich().bundle
    parameters, a = found.parameters(), found.architecture
    for category in range(a.vocabularies[0]):
        scratch = new_scratch(parameters, a.input_width)
        event = Events(
            row=np.zeros(1, np.int64),
            place=np.zeros(1, np.int64),
            offset=np.zeros(1, np.int64),
            timestamp_ms=np.zeros(1, np.int64),
            values=np.zeros((1, a.values)),
            categories=np.array([[category]]),
            checksum=np.zeros(1, np.int64),
        )
        rows = Arena(parameters.layout, 1).gather([(0, b"k")], (1.0, 1.0))
        advance(event, rows, np.zeros(1, np.int64), parameters, new_results(1, parameters), scratch)
        assert scratch.inputs[0, a.inputs :].tolist() == found.model.embeddings[category].tolist()


def test_trained_embedding_of_padding_stays_zero() -> None:
    """An absent category says nothing; the known ones were learned apart."""
    embeddings = rich().bundle.model.embeddings
    assert not embeddings[0].any()
    assert len({row.tobytes() for row in embeddings}) == len(embeddings)


@pytest.mark.parametrize("layers", [1, 2])
def test_forget_bias_of_a_new_network_is_one(layers: int) -> None:
    """In every layer, both biases together, so that a cell remembers until it learns to forget."""
    network = Network(architecture(layers, ()))
    for layer in range(layers):
        bias = getattr(network.lstm, f"bias_ih_l{layer}") + getattr(network.lstm, f"bias_hh_l{layer}")
        assert bias[H : 2 * H].tolist() == [1.0] * H
        assert not (bias[:H] == 1.0).any()
        assert not (bias[2 * H :] == 1.0).any()


@pytest.mark.parametrize(("layers", "differs"), [(1, False), (2, True)])
def test_dropout_acts_between_layers_only(layers: int, differs: bool) -> None:
    """With one layer training is as certain as scoring; with two, only the upper layer's input is thinned."""
    torch.manual_seed(1)
    network = Network(architecture(layers, ()), dropout=0.5).train()
    inputs, categories = torch.randn(T, 1, 3), torch.zeros(T, 1, 0, dtype=torch.int64)
    (one, *_, (h_one, _)), (other, *_, (h_other, _)) = (network(inputs, categories) for _ in range(2))
    assert torch.equal(one, other) != differs
    assert torch.equal(h_one[0], h_other[0])


def test_scales_and_freedom_of_a_network_keep_their_floors() -> None:
    """Whatever the head says, a scale is above .05 and the tails have a variance."""
    network = network_of(1)
    torch.nn.init.constant_(network.head.bias, -50.0)
    torch.nn.init.constant_(network.freedom, -50.0)
    with torch.no_grad():
        said, freedom, _ = network(torch.randn(T, 2, 3), torch.zeros(T, 2, 0, dtype=torch.int64))
        _, scale = location_and_scale(said)
    assert scale.shape == (3, 2, T, 2)
    assert float(scale.min()) == pytest.approx(SMALLEST_SCALE)
    assert freedom.tolist() == pytest.approx([2.1, 2.1])


def test_arrays_of_a_model_are_float32_contiguous_and_padded() -> None:
    """The step takes four rows at a time, from C-ordered float32."""
    for matrix in (*bundle().model.weights, bundle().model.head, *to_model(network_of(2, (5,))).weights):
        assert matrix.dtype == np.float32
        assert matrix.flags.c_contiguous
        assert len(matrix) % 4 == 0
