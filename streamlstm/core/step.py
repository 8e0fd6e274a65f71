"""(h, c) → step: events of some keys through the LSTM. The same bits alone or side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.arithmetic import copy, sigmoid32, tanh32
from streamlstm.core.compiled import compiled
from streamlstm.core.model import Model


@compiled
def add_products(out: NDArray[np.float32], vectors: NDArray[np.float32], matrix: NDArray[np.float32]) -> None:
    """Add vectors (n, K or more) · matrix (K, N) to ``out`` (n, N); K must be a multiple of four.

    The matrix is larger than the nearest cache: so four of its rows serve all vectors before the next four are loaded,
    and two vectors at a time from registers. The order of each sum is the one written here, the same in both loops.
    """
    last = out.shape[0] - 1
    for k in range(0, matrix.shape[0], 4):
        row, row_2, row_3, row_4 = matrix[k], matrix[k + 1], matrix[k + 2], matrix[k + 3]
        for i in range(0, last, 2):
            one, two = out[i], out[i + 1]
            a, b, c, d = vectors[i, k], vectors[i, k + 1], vectors[i, k + 2], vectors[i, k + 3]
            e, f, g, h = vectors[i + 1, k], vectors[i + 1, k + 1], vectors[i + 1, k + 2], vectors[i + 1, k + 3]
            for j in range(one.shape[0]):
                p, q, r, s = row[j], row_2[j], row_3[j], row_4[j]
                one[j] += (a * p + b * q) + (c * r + d * s)
                two[j] += (e * p + f * q) + (g * r + h * s)
        if last % 2 == 0:
            one = out[last]
            a, b, c, d = vectors[last, k], vectors[last, k + 1], vectors[last, k + 2], vectors[last, k + 3]
            for j in range(one.shape[0]):
                one[j] += (a * row[j] + b * row_2[j]) + (c * row_3[j] + d * row_4[j])


@compiled
def lstm_step(
    inputs: NDArray[np.float32],
    hidden: NDArray[np.float32],
    cell: NDArray[np.float32],
    model: Model,
    joined: NDArray[np.float32],
    gates: NDArray[np.float32],
) -> None:
    """Advance ``hidden`` and ``cell`` of n keys, both (n, layers · H), by an event each, (n, width), in place.

    ``joined`` and ``gates`` are scratch space, (n, …), at least as wide as the largest layer's K and as 4H.
    Source: Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """
    size = gates.shape[1] // 4
    for layer, matrix in enumerate(model.weights):
        here, below = layer * size, (layer - 1) * size
        for i in range(inputs.shape[0]):
            layer_input = inputs[i] if layer == 0 else hidden[i, below : below + size]
            width = layer_input.shape[0]
            copy(joined[i], layer_input)
            copy(joined[i, width:], hidden[i, here : here + size])
            joined[i, width + size : matrix.shape[0]] = np.float32(0.0)
            copy(gates[i], model.biases[layer])
        add_products(gates, joined, matrix)
        for i in range(inputs.shape[0]):
            _open_gates(gates[i], hidden[i, here : here + size], cell[i, here : here + size])


@compiled
def _open_gates(gates: NDArray[np.float32], h: NDArray[np.float32], c: NDArray[np.float32]) -> None:
    """Advance one layer's hidden and cell state, (H,) each, by its gates before their sigmoids, (4H,).

    Loops run from zero over slices and write one array each: so the compiler sees that no index wraps around and no
    arrays overlap, and uses vector units.
    """
    size = h.shape[0]
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
