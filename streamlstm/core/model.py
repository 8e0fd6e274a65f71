"""The model as arrays: what the trainer produces and the scorer steps."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray


class Architecture(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sizes that fix the shape of every array of a model and of a key's state.

    ``values`` D: numbers forecast per event. ``inputs``: input width before embeddings.
    ``vocabularies``: per categorical feature, its number of ids (padding and unknown included).
    """

    values: int
    inputs: int
    hidden: int
    layers: int
    horizon: int
    embedding: int
    vocabularies: tuple[int, ...] = ()

    @property
    def input_width(self) -> int:
        """Input width of the first layer, embeddings included."""
        return self.inputs + len(self.vocabularies) * self.embedding

    @property
    def errors(self) -> int:
        """Forecast errors per event: horizon × values."""
        return self.horizon * self.values


class Model(NamedTuple):
    """Weights of the recurrent forecaster, float32, laid out for :mod:`streamlstm.core.step`.

    ``weights``: per layer (K, 4H), K = layer input + H rounded up to a multiple of four (zero rows);
    gate order input, forget, output, candidate. ``biases``: (layers, 4H). ``head``: (H, 2·L·D), first
    all locations, then all raw scales, horizon by horizon; ``head_bias`` (2·L·D,). ``embeddings``:
    (sum of vocabularies, E); ``embedding_start``: first row of each categorical feature.
    """

    weights: tuple[NDArray[np.float32], ...]
    biases: NDArray[np.float32]
    head: NDArray[np.float32]
    head_bias: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    embedding_start: NDArray[np.int64]
    horizon: int
