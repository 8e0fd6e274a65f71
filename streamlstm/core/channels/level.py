"""How far the values lie from their training mean, over half a natural period.

It stays high through a long shift that the forecasts have learned to follow. Source: the recipe.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.channels.seen import Seen, running_mean
from streamlstm.core.compiled import compiled

NAME = "level"
WEIGHT = 1.0
OF_FRAMES = 0.5  # its weight where events are frames


@compiled
def observe(running: NDArray[np.float32], seen: Seen) -> np.float32:
    """Return the running mean of the mean squared input."""
    total = np.float32(0.0)
    for value in seen.inputs:
        total += value * value
    return running_mean(running, total / np.float32(seen.inputs.shape[0]), seen.newness)
