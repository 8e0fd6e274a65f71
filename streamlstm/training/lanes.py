"""History as lanes: contiguous pieces of keys side by side, gathered once and walked chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamlstm.training.history import History

CHUNK_EVENTS = 64  # events between two updates (truncated back-propagation through time); recipe
CHUNKS = 8  # chunks per lane: state is carried over 512 events; recipe
UNSCORED_EVENTS = 4  # of a lane's start, whose state is still empty; recipe
VALIDATION_KEYS = 64
VALIDATION_EVENTS = 1024  # per key; half as many more before them warm the state up


@dataclass(frozen=True)
class Data:
    """A history as tensors, (n, …): inputs, category ids, and which values are present."""

    inputs: Tensor
    categories: Tensor
    present: Tensor


@dataclass(frozen=True)
class Lanes:
    """T events of each of B lanes, and the values of the events after them, L further, which are foreseen.

    ``inputs`` (T, B, W) and ``categories`` (T, B, C). ``later`` (D, T + L − 1, B): the values of the events after the
    first. ``there`` (the same): 1.0 where such a value is there, 0.0 where it is missing or beyond the lane's end.
    ``counted`` (T, B): 1.0 where what is said after an event enters the loss, else 0.0.
    """

    inputs: Tensor
    categories: Tensor
    later: Tensor
    there: Tensor
    counted: Tensor

    def chunks(self) -> Iterator[Lanes]:
        """Yield the lanes in pieces of :data:`CHUNK_EVENTS`, one after the other, until none has one that counts."""
        length = len(self.counted)
        beyond = self.later.shape[1] - length
        for first in range(0, length, CHUNK_EVENTS):
            now = slice(first, min(first + CHUNK_EVENTS, length))
            if not self.counted[now].any():
                return
            later = slice(first, now.stop + beyond)
            yield Lanes(
                self.inputs[now], self.categories[now], self.later[:, later], self.there[:, later], self.counted[now]
            )


def drawn(data: Data, history: History, horizon: int, lanes: int, rng: np.random.Generator) -> Lanes:
    """Return lanes of what is learned from, each a random contiguous piece of one key.

    A key is drawn in proportion to its training events; a shorter key's lane ends early.
    """
    lengths = history.held_out - history.starts[:-1]
    keys = rng.choice(len(lengths), size=lanes, p=lengths / lengths.sum())
    length = min(CHUNK_EVENTS * CHUNKS, int(lengths[keys].max()))
    starts = history.starts[keys] + (rng.random(lanes) * np.maximum(lengths[keys] - length + 1, 1)).astype(np.int64)
    ends = np.minimum(starts + length, history.held_out[keys])
    return _gathered(data, starts, ends, starts + UNSCORED_EVENTS, length, horizon)


def held_out(data: Data, history: History, horizon: int, at_least: int) -> Lanes:
    """Return the held-out tails of some keys, spread over all, with events before them that warm the state up.

    Keys of no more than ``at_least`` held-out events are left out.
    """
    lengths = history.starts[1:] - history.held_out
    usable = np.flatnonzero(lengths > at_least)
    chosen = usable[np.linspace(0, len(usable) - 1, min(VALIDATION_KEYS, len(usable))).astype(int)]
    starts = np.maximum(history.starts[:-1], history.held_out - VALIDATION_EVENTS // 2)[chosen]
    ends = np.minimum(history.starts[1:], history.held_out + VALIDATION_EVENTS)[chosen]
    return _gathered(data, starts, ends, history.held_out[chosen], int((ends - starts).max()), horizon)


def _gathered(
    data: Data,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    counted_from: NDArray[np.int64],
    length: int,
    horizon: int,
) -> Lanes:
    """Return the lanes ``starts`` … ``ends`` (B,) of a history, on the device that it is on."""
    device = data.inputs.device
    first, end, counted = (torch.as_tensor(places, device=device) for places in (starts, ends, counted_from))
    places = first + torch.arange(length + horizon, device=device)[:, None]
    inside = places < end
    rows = torch.minimum(places, end - 1)
    inputs, events = _rows(data.inputs, rows), rows[:length]
    later = inputs[1:, :, : data.present.shape[1]]
    there = _rows(data.present, rows[1:]) & inside[1:, :, None]
    return Lanes(
        inputs[:length],
        _rows(data.categories, events),
        later.permute(2, 0, 1).contiguous(),
        there.permute(2, 0, 1).to(later.dtype, memory_format=torch.contiguous_format),
        (inside[:length] & (events >= counted)).to(later.dtype),
    )


def _rows(array: Tensor, index: Tensor) -> Tensor:
    """Return rows of (n, W) as (T, B, W): by index_select, which copies whole rows."""
    return array.index_select(0, index.flatten()).view(*index.shape, array.shape[1])
