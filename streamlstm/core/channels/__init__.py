"""Channels: each looks at one event in its own way and says how far it stands out.

A channel is one file with ``NAME``, ``WEIGHT``, ``OF_FRAMES`` and a compiled ``observe(running, seen, fitted)`` that
returns a raw, non-negative value, larger for the more unusual; ``running`` is its state, one float for each but the
last two, which have some for each value: :mod:`record`, whose weight the trainer gives, and :mod:`stillness`, which has
none. What a channel fits on the history it keeps in its own parameters and returns from ``fit``. To add one: write the
file, add its line to :func:`observe_channels` and its name to :data:`CHANNELS`, in one order.

Raw values of different channels are not comparable; :mod:`streamlstm.core.score` turns each but the last into
−log10 of its tail probability on held-out data, takes their weighted mean, and adds the last.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.channels import forecast_error, level, novelty, record, smoothed_error, stillness
from streamlstm.core.channels.seen import Seen
from streamlstm.core.compiled import compiled

CHANNELS = (forecast_error, smoothed_error, novelty, level)
CURVES = len(CHANNELS) + 1  # channels whose raw values become decades by a curve: those of the mean
NAMES: tuple[str, ...] = (*(channel.NAME for channel in CHANNELS), record.NAME, stillness.NAME)


class Fitted(NamedTuple):
    """The fitted parameters of the channels that have any."""

    novelty: novelty.Fitted
    record: record.Fitted
    stillness: stillness.Fitted


def laid_out(fitted: Fitted) -> Fitted:
    """Return the same, laid out for :func:`observe_channels`."""
    return fitted._replace(novelty=novelty.laid_out(fitted.novelty))


def state_floats(values: int) -> int:
    """Return how many floats the channels' running state takes, for D values."""
    return len(CHANNELS) + (record.FLOATS + stillness.FLOATS) * values


def channel_weights(record_share: float, *, of_frames: bool) -> NDArray[np.float32]:
    """Return the weights of the channels' mean, summing to one, of which the record channel has its share.

    ``of_frames``: events are pieces of a wave. What goes wrong in it is in the forecast errors of a few of them; the
    model's state comes round with each wave, and how far it lies from others says next to nothing (README).
    """
    weights = np.array([channel.OF_FRAMES if of_frames else channel.WEIGHT for channel in CHANNELS])
    return np.append(weights / weights.sum() * (1 - record_share), record_share).astype(np.float32)


@compiled
def start_of_stillness(values: int) -> int:
    """Return where the stillness channel's part of the running state starts, for D values."""
    return CURVES - 1 + record.FLOATS * values


@compiled
def observe_channels(
    raw: NDArray[np.float32],
    running: NDArray[np.float32],
    seen: Seen,
    fitted: Fitted,
    near: NDArray[np.float32],
) -> None:
    """Write every channel's raw value, and advance its running state; (channels,) and more. ``near`` is what
    novelty measured."""
    raw[0] = forecast_error.observe(running[0:1], seen)
    raw[1] = smoothed_error.observe(running[1:2], seen)
    raw[2] = novelty.observe(running[2:3], seen, fitted.novelty, near)
    raw[3] = level.observe(running[3:4], seen)
    of_record, of_stillness = running[4:], running[start_of_stillness(seen.inputs.shape[0]) :]
    raw[4] = record.observe(of_record, seen, fitted.record)
    raw[5] = stillness.observe(of_stillness, of_record, seen, fitted.stillness)
