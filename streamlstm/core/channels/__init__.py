"""Channels: each looks at one event in its own way and says how far it stands out.

A channel is one file with ``NAME``, ``WEIGHT`` and a compiled ``observe(running, seen, fitted)`` that
returns a raw, non-negative value, larger for the more unusual; ``running`` is its one float of
state. What it fits on held-out data it keeps in its own parameters and returns from ``fit``. To add
one: write the file, add its line to :func:`observe_channels` and its name to :data:`CHANNELS`, in
one order, and raise ``state.CHANNELS`` by one.

Raw values of different channels are not comparable; :mod:`streamlstm.core.score` turns each into
−log10 of its tail probability on held-out data, and takes their weighted mean.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.channels import forecast_error, level, novelty, smoothed_error
from streamlstm.core.channels.seen import Seen
from streamlstm.core.compiled import compiled

CHANNELS = (forecast_error, smoothed_error, novelty, level)
NAMES: tuple[str, ...] = tuple(channel.NAME for channel in CHANNELS)
WEIGHTS: tuple[float, ...] = tuple(channel.WEIGHT for channel in CHANNELS)


class Fitted(NamedTuple):
    """The fitted parameters of the channels that have any."""

    novelty: novelty.Fitted


@compiled
def observe_channels(raw: NDArray[np.float32], running: NDArray[np.float32], seen: Seen, fitted: Fitted) -> None:
    """Write every channel's raw value, and advance its running state; both (channels,)."""
    raw[0] = forecast_error.observe(running[0:1], seen)
    raw[1] = smoothed_error.observe(running[1:2], seen)
    raw[2] = novelty.observe(running[2:3], seen, fitted.novelty)
    raw[3] = level.observe(running[3:4], seen)
