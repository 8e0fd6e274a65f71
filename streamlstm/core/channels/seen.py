"""What a channel is shown of one event."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.compiled import compiled


class Seen(NamedTuple):
    """One event, as channels see it.

    ``distance``: squared Mahalanobis length of its forecast errors, per error. ``inputs``: its D
    squashed values (0 where missing), ``present`` which of them came. ``hidden``: the top layer's state after the
    event, (H,). ``newness``: the weight of this event in a running mean over half a natural period of the signal
    (2/(n+1)).
    ``age``: scored events of the key, this one included.
    """

    distance: np.float32
    inputs: NDArray[np.float32]
    present: NDArray[np.bool_]
    hidden: NDArray[np.float32]
    newness: np.float32
    age: int


@compiled
def running_mean(running: NDArray[np.float32], value: np.float32, newness: np.float32) -> np.float32:
    """Move a running mean, (1,), towards ``value`` and return it."""
    running[0] += newness * (value - running[0])
    return np.float32(running[0])
