"""How far the events of the last half period lay from their forecasts.

Source: the recipe; on beat-like signals this channel alone was best.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.channels.seen import Seen, running_mean
from streamlstm.core.compiled import compiled

NAME = "smoothed_error"
WEIGHT = 2.0


@compiled
def observe(running: NDArray[np.float32], seen: Seen) -> np.float32:
    """Return the running mean of the forecast error over half a period."""
    return running_mean(running, seen.distance, seen.newness)
