"""(h, c) → step: one event through the LSTM. The same bits alone or among a thousand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.arithmetic import copy, sigmoid32, tanh32
from streamlstm.core.compiled import compiled
from streamlstm.core.model import Model


@compiled
def add_product(out: NDArray[np.float32], vector: NDArray[np.float32], matrix: NDArray[np.float32]) -> None:
    """Add vector · matrix to ``out``; the vector's length must be a multiple of four.

    Four rows of the matrix at a time, so that ``out`` is loaded and stored a quarter as often; the
    order of the sum is the one written here.
    """
    for k in range(0, matrix.shape[0], 4):
        a, b, c, d = vector[k], vector[k + 1], vector[k + 2], vector[k + 3]
        for j in range(out.shape[0]):
            out[j] += (a * matrix[k, j] + b * matrix[k + 1, j]) + (c * matrix[k + 2, j] + d * matrix[k + 3, j])


@compiled
def lstm_step(
    inputs: NDArray[np.float32],
    hidden: NDArray[np.float32],
    cell: NDArray[np.float32],
    model: Model,
    joined: NDArray[np.float32],
    gates: NDArray[np.float32],
) -> None:
    """Advance ``hidden`` and ``cell``, both (layers · H,), by one event, in place.

    ``joined`` and ``gates`` are scratch space, at least as long as the largest layer's K and 4H.
    Loops run from zero over slices and write one array each: so the compiler sees that no index wraps around and no
    arrays overlap, and uses vector units.
    Source: Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """
    size = gates.shape[0] // 4
    layer_input = inputs
    for layer, matrix in enumerate(model.weights):
        h = hidden[layer * size : (layer + 1) * size]
        c = cell[layer * size : (layer + 1) * size]
        width = layer_input.shape[0]
        copy(joined, layer_input)
        copy(joined[width:], h)
        joined[width + size : matrix.shape[0]] = np.float32(0.0)
        copy(gates, model.biases[layer])
        add_product(gates, joined, matrix)
        admitted, kept, shown, candidate = gates[:size], gates[size:], gates[2 * size :], gates[3 * size :]
        for j in range(3 * size):
            gates[j] = sigmoid32(gates[j])
        for j in range(size):
            candidate[j] = tanh32(candidate[j])
        for j in range(size):
            candidate[j] = kept[j] * c[j] + admitted[j] * candidate[j]
        copy(c, candidate[:size])
        for j in range(size):
            h[j] = shown[j] * tanh32(candidate[j])
        layer_input = h
