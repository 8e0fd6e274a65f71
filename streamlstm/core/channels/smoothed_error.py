"""How far the last few events lay from their forecasts.

Source: the recipe, whose mean reaches over a natural period of the signal. Over four events it is as good on beats and
better elsewhere: mean average precision of six servers, whose period is a day, .38 → .41, of 16 tasks .45 → .47. Over
three, five or six it is the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.channels.seen import Seen, running_mean
from streamlstm.core.compiled import compiled

NAME = "smoothed_error"
WEIGHT = 2.0
OF_FRAMES = 3.0  # its weight where events are frames
SPAN = 4  # events that the mean reaches over


@compiled
def observe(running: NDArray[np.float32], seen: Seen) -> np.float32:
    """Return the running mean of the forecast error."""
    newness = np.float32(2.0) / np.float32(min(seen.age, SPAN) + 1)
    return running_mean(running, seen.distance, newness)
