"""The same forecaster in torch, for gradients; :func:`to_model` lays it out for the scorer's step."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from streamlstm.core.bundle import embedding_start, padded
from streamlstm.core.model import Architecture, Model

State = tuple[Tensor, Tensor]


class Network(nn.Module):
    """LSTM with a Student-t head over L future events.

    ``freedom`` holds, per value, the raw parameter of ν = 2.1 + softplus(·) (recipe): heavy tails,
    because training data hold anomalies, and a Gaussian scale learns to excuse them.
    """

    def __init__(self, architecture: Architecture, dropout: float = 0.0) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.embeddings = nn.ModuleList(nn.Embedding(size, a.embedding, padding_idx=0) for size in a.vocabularies)
        self.lstm = nn.LSTM(a.input_width, a.hidden, a.layers, dropout=dropout if a.layers > 1 else 0.0)
        self.head = nn.Linear(a.hidden, 2 * a.errors)
        self.freedom = nn.Parameter(torch.full((a.values,), 1.0))
        for name, parameter in self.lstm.named_parameters():
            if name.startswith("bias_ih"):  # forget bias 1 (Gers et al. 2000; Jozefowicz et al. 2015)
                parameter.data[a.hidden : 2 * a.hidden].fill_(1.0)
            elif name.startswith("bias_hh"):
                parameter.data.zero_()

    def forward(self, inputs: Tensor, categories: Tensor, state: State | None = None) -> tuple[Tensor, Tensor, State]:
        """Return the head's output (2, L, D, T, B), degrees of freedom (D,), and the new state.

        ``inputs`` (T, B, width), ``categories`` (T, B, C) of ids: time first, as the LSTM works. The output is that of
        :func:`streamlstm.training.student.location_and_scale`, with time and lanes last, as the loss works.
        """
        a = self.architecture
        embedded = [table(categories[..., c]) for c, table in enumerate(self.embeddings)]
        joined = torch.cat([inputs, *embedded], dim=-1) if embedded else inputs
        hidden, state = self.lstm(joined, state)  # (T, B, H)
        said = torch.addmm(self.head.bias[:, None], self.head.weight, hidden.flatten(0, 1).t())
        said = said.view(2, a.horizon, a.values, *hidden.shape[:2])
        return said, 2.1 + nn.functional.softplus(self.freedom), state


def to_model(network: Network) -> Model:
    """Return the network's weights as the scorer's arrays.

    Gates change from torch's order (input, forget, candidate, output) to the step's (input, forget,
    output, candidate); input and recurrent weights are stacked, their two biases added.
    """
    a = network.architecture
    arrays = {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}
    matrices, biases = [], []
    for layer in range(a.layers):
        stacked = np.concatenate([arrays[f"lstm.weight_ih_l{layer}"], arrays[f"lstm.weight_hh_l{layer}"]], axis=1)
        matrices.append(_pad_rows(_reorder(stacked, a.hidden).T))
        bias = arrays[f"lstm.bias_ih_l{layer}"] + arrays[f"lstm.bias_hh_l{layer}"]
        biases.append(_reorder(bias, a.hidden))
    tables = [arrays[f"embeddings.{c}.weight"] for c in range(len(a.vocabularies))]
    return Model(
        weights=tuple(matrices),
        biases=np.array(biases, dtype=np.float32),
        head=_pad_rows(arrays["head.weight"].T),
        head_bias=arrays["head.bias"].astype(np.float32),
        embeddings=np.concatenate([np.zeros((0, a.embedding), np.float32), *tables]),
        embedding_start=embedding_start(a),
        horizon=a.horizon,
    )


def _reorder(gates: NDArray[np.float32], hidden: int) -> NDArray[np.float32]:
    i, f, g, o = (gates[k * hidden : (k + 1) * hidden] for k in range(4))
    return np.concatenate([i, f, o, g])


def _pad_rows(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    rows, columns = matrix.shape
    result = np.zeros((padded(rows), columns), dtype=np.float32)
    result[:rows] = matrix
    return result
