"""One LSTM step: the textbook's equations, and the same bits wherever its arrays lie."""

from __future__ import annotations

import numpy as np
import pytest

from streamlstm.core.model import Model
from streamlstm.core.step import add_products, lstm_step

H = 8


def model(inputs: int, layers: int, seed: int = 0) -> Model:
    """Return a model with random weights; only those of the recurrent layers matter here."""
    rng = np.random.default_rng(seed)
    weights = []
    for layer in range(layers):
        used = (inputs if layer == 0 else H) + H
        matrix = np.zeros((-(-used // 4) * 4, 4 * H), np.float32)
        matrix[:used] = rng.normal(0, 0.5, (used, 4 * H))
        weights.append(matrix)
    nothing = np.zeros((0, 1), np.float32)
    return Model(
        weights=tuple(weights),
        biases=rng.normal(0, 0.5, (layers, 4 * H)).astype(np.float32),
        head=np.zeros((H, 2), np.float32),
        head_bias=np.zeros(2, np.float32),
        embeddings=nothing,
        embedding_start=np.zeros(0, np.int64),
        horizon=1,
    )


def step(model: Model, inputs: np.ndarray, hidden: np.ndarray, cell: np.ndarray) -> None:
    """Advance one key's hidden and cell in place."""
    step_all(model, inputs[None], hidden[None], cell[None])


def step_all(model: Model, inputs: np.ndarray, hidden: np.ndarray, cell: np.ndarray) -> None:
    """Advance hidden and cell of some keys in place, with scratch space full of rubbish."""
    longest, keys = max(len(matrix) for matrix in model.weights), len(inputs)
    joined, gates = np.full((keys, longest), np.nan, np.float32), np.full((keys, 4 * H), np.nan, np.float32)
    lstm_step(inputs, hidden, cell, model, joined, gates)


def textbook(model: Model, x: np.ndarray, hidden: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return hidden and cell after one step in float64: input, forget, output, candidate."""
    hidden, cell, x = hidden.astype(np.float64).copy(), cell.astype(np.float64).copy(), x.astype(np.float64)
    for layer, matrix in enumerate(model.weights):
        part = slice(layer * H, (layer + 1) * H)
        joined = np.concatenate([x, hidden[part]])
        i, f, o, g = np.split(joined @ matrix[: len(joined)].astype(np.float64) + model.biases[layer], 4)
        cell[part] = cell[part] / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        hidden[part] = np.tanh(cell[part]) / (1 + np.exp(-o))
        x = hidden[part]
    return hidden, cell


@pytest.mark.parametrize(("inputs", "layers"), [(1, 1), (3, 1), (4, 1), (3, 2)])
def test_steps_of_random_model_equal_the_textbook(inputs: int, layers: int) -> None:
    """Twenty steps agree with float64 equations to 1e-5, for inputs that need padding and that do not."""
    rng, net = np.random.default_rng(1), model(inputs, layers)
    hidden, cell = np.zeros(layers * H, np.float32), np.zeros(layers * H, np.float32)
    true_hidden, true_cell = hidden.copy(), cell.copy()
    for _ in range(20):
        x = rng.normal(0, 2, inputs).astype(np.float32)
        step(net, x, hidden, cell)
        true_hidden, true_cell = textbook(net, x, true_hidden, true_cell)
    assert np.allclose(hidden, true_hidden, atol=1e-5)
    assert np.allclose(cell, true_cell, atol=1e-5)


@pytest.mark.parametrize("shift", range(1, 9))
def test_step_at_any_place_in_memory_gives_the_same_bits(shift: int) -> None:
    """Arrays that start off a vector's boundary, as rows of an arena do, change no bit."""
    rng, net = np.random.default_rng(2), model(5, 1)
    x, hidden, cell = (rng.normal(size=size).astype(np.float32) for size in (5, H, H))
    moved = np.zeros(64, np.float32)
    moved[shift : shift + H], moved[32 + shift : 32 + shift + H] = hidden, cell
    step(net, x, hidden, cell)
    step(net, x, moved[shift : shift + H], moved[32 + shift : 32 + shift + H])
    assert moved[shift : shift + H].tobytes() == hidden.tobytes()
    assert moved[32 + shift : 32 + shift + H].tobytes() == cell.tobytes()
    assert np.count_nonzero(moved) == 2 * H


def test_step_on_extreme_inputs_stays_finite_and_bounded() -> None:
    """Saturated gates keep hidden within one and cell within one per step."""
    net, hidden, cell = model(2, 1), np.zeros(H, np.float32), np.zeros(H, np.float32)
    for sign in (1, -1) * 10:
        step(net, np.float32([sign * 1e30, 17.0]), hidden, cell)
    assert np.abs(hidden).max() <= 1
    assert np.abs(cell).max() <= 20


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("keys", range(2, 9))
def test_keys_side_by_side_step_as_each_would_alone(keys: int, layers: int) -> None:
    """However many there are, each has the bits that it has alone."""
    rng, net = np.random.default_rng(4), model(5, layers)
    inputs = rng.normal(size=(keys, 5)).astype(np.float32)
    hidden, cell = (rng.normal(size=(keys, layers * H)).astype(np.float32) for _ in range(2))
    alone_hidden, alone_cell = hidden.copy(), cell.copy()
    step_all(net, inputs, hidden, cell)
    for key in range(keys):
        step(net, inputs[key], alone_hidden[key], alone_cell[key])
    assert hidden.tobytes() == alone_hidden.tobytes()
    assert cell.tobytes() == alone_cell.tobytes()


@pytest.mark.parametrize("width", [3, 37])
@pytest.mark.parametrize("vectors", range(1, 6))
def test_products_sum_in_the_written_order(vectors: int, width: int) -> None:
    """Four rows at a time, in pairs: (a + b) + (c + d), each rounded to float32, added to what is there; for any of
    some vectors, which may be longer than the matrix."""
    rng = np.random.default_rng(3)
    left, matrix = rng.normal(size=(vectors, 14)).astype(np.float32), rng.normal(size=(12, width)).astype(np.float32)
    out = rng.normal(size=(vectors, width)).astype(np.float32)
    expected = out.copy()
    for i in range(vectors):
        for k in range(0, 12, 4):
            a, b, c, d = (left[i, k + row] * matrix[k + row] for row in range(4))
            expected[i] = expected[i] + ((a + b) + (c + d))
    add_products(out, left, matrix)
    assert out.tobytes() == expected.tobytes()
