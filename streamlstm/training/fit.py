"""The training loop: lanes of contiguous history, state carried from chunk to chunk."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from streamlstm.training.history import History
from streamlstm.training.network import Network, State
from streamlstm.training.student import StudentSurprise

CHUNK_EVENTS = 64  # events between two updates (truncated back-propagation through time); recipe
CHUNKS = 8  # chunks per lane: state is carried over 512 events; recipe
UNSCORED_EVENTS = 4  # of a lane's start, whose state is still empty; recipe
LEARNING_RATE = 4e-3  # recipe: Adam with OneCycle
CLIP_NORM = 1.0  # recipe
CHECK_EVERY = 25  # updates between two looks at the held-out loss
PATIENCE = 6  # looks without a better held-out loss, after which training stops
VALIDATION_KEYS = 64
VALIDATION_EVENTS = 1024  # per key; half as many more before them warm the state up


@dataclass(frozen=True)
class Data:
    """A history as tensors, (n, …): inputs, category ids, and which values are present."""

    inputs: Tensor
    categories: Tensor
    present: Tensor


@dataclass(frozen=True)
class Progress:
    """One look at a training run, or at ``what`` else; ``held_out`` is None between looks at the held-out loss."""

    update: int
    updates: int
    loss: float
    held_out: float | None
    what: str = "training"


@dataclass
class Curve:
    """Losses over updates, for the report."""

    update: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    held_out_update: list[int] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    best_update: int = 0
    stopped_early: bool = False


@dataclass(frozen=True)
class World:
    """Our place among those that train together (one, unless started by torchrun)."""

    rank: int = 0
    size: int = 1


def fit(
    network: Network,
    data: Data,
    history: History,
    *,
    updates: int,
    lanes: int,
    seed: int,
    world: World,
    on_progress: Callable[[Progress], None],
) -> Curve:
    """Train ``network`` in place on the training part; the best held-out weights are restored.

    Deterministic for a seed on one machine. With several processes each draws its own lanes, and
    gradients are averaged.
    """
    rng = np.random.default_rng((seed, world.rank))
    model: nn.Module = DistributedDataParallel(network) if world.size > 1 else network
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=updates)
    best, best_weights, curve, waited = math.inf, copy.deepcopy(network.state_dict()), Curve(), 0
    update = 0
    while update < updates and waited < PATIENCE:
        state: State | None = None
        for chunk in _chunks(history, max(1, lanes // world.size), rng):
            network.train()
            loss, state = _loss(model, data, chunk, state)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
            optimizer.step()
            schedule.step()
            update += 1
            curve.update.append(update)
            curve.loss.append(float(loss.detach()))
            held_out = None
            if update % CHECK_EVERY == 0 or update == updates:
                held_out = held_out_loss(network, data, history)
                curve.held_out_update.append(update)
                curve.held_out.append(held_out)
                waited += 1
                if held_out < best:
                    best, best_weights, waited = held_out, copy.deepcopy(network.state_dict()), 0
                    curve.best_update = update
            on_progress(Progress(update, updates, curve.loss[-1], held_out))
            if update == updates or waited >= PATIENCE:
                break
    curve.stopped_early = update < updates
    network.load_state_dict(best_weights)
    return curve


@torch.no_grad()
def held_out_loss(network: Network, data: Data, history: History) -> float:
    """Return the mean loss over the held-out tails of some keys, spread over all of them."""
    network.eval()
    loss, _ = _loss(network, data, _held_out(history, network.architecture.horizon), None)
    return float(loss)


@torch.no_grad()
def held_out_surprise(network: Network, data: Data, history: History) -> NDArray[np.float64]:
    """Return how surprising the held-out events are one event ahead: −log likelihood per value, (blocks,).

    A block is up to ``CHUNK_EVENTS`` events of one key; the same blocks whatever the network, so that two can be
    compared block by block.
    """
    network.eval()
    _, surprise, weight, _ = _surprise(network, data, _held_out(history, 1), None)
    steps = range(0, weight.shape[1], CHUNK_EVENTS)
    sums, counts = (
        torch.stack([of_next[:, step : step + CHUNK_EVENTS, 0].sum(dim=(1, 2)) for step in steps]).flatten()
        for of_next in (surprise, weight)
    )
    blocks: NDArray[np.float64] = (sums[counts > 0] / counts[counts > 0]).double().cpu().numpy()
    return blocks


def _held_out(history: History, horizon: int) -> Chunk:
    """Return the held-out tails of some keys, spread over all, with events before them that warm the state up."""
    lengths = history.starts[1:] - history.held_out
    usable = np.flatnonzero(lengths > horizon)
    chosen = usable[np.linspace(0, len(usable) - 1, min(VALIDATION_KEYS, len(usable))).astype(int)]
    starts = np.maximum(history.starts[:-1], history.held_out - VALIDATION_EVENTS // 2)[chosen]
    ends = np.minimum(history.starts[1:], history.held_out + VALIDATION_EVENTS)[chosen]
    piece = _piece(starts, ends, int((ends - starts).max()))
    counted = piece.index >= torch.as_tensor(history.held_out[chosen])[:, None]
    return Chunk(piece.index, piece.valid, piece.ends, counted)


@dataclass(frozen=True)
class Chunk:
    """Where a chunk's events stand in the history, (B, T): rows are lanes, columns are time.

    ``valid`` is false beyond a lane's end ``ends`` (B,); ``counted`` says which events' forecasts
    enter the loss.
    """

    index: Tensor
    valid: Tensor
    ends: Tensor
    counted: Tensor


def _piece(starts: NDArray[np.int64], ends: NDArray[np.int64], length: int) -> Chunk:
    index = torch.as_tensor(starts)[:, None] + torch.arange(length)
    last = torch.as_tensor(ends)
    valid = index < last[:, None]
    return Chunk(torch.minimum(index, last[:, None] - 1), valid, last, valid)


def _chunks(history: History, lanes: int, rng: np.random.Generator) -> Iterator[Chunk]:
    """Draw lanes, each a random contiguous piece of one key, and yield them chunk by chunk.

    A key is drawn in proportion to its training events; a shorter key's lane ends early.
    """
    lengths = history.held_out - history.starts[:-1]
    keys = rng.choice(len(lengths), size=lanes, p=lengths / lengths.sum())
    wanted = min(CHUNK_EVENTS * CHUNKS, int(lengths[keys].max()))
    starts = history.starts[keys] + (rng.random(lanes) * np.maximum(lengths[keys] - wanted + 1, 1)).astype(np.int64)
    ends = np.minimum(starts + wanted, history.held_out[keys])
    lane = _piece(starts, ends, wanted)
    warm = torch.arange(wanted) >= UNSCORED_EVENTS
    for first in range(0, wanted, CHUNK_EVENTS):
        part = slice(first, first + CHUNK_EVENTS)
        if not lane.valid[:, part].any():
            return
        yield Chunk(lane.index[:, part], lane.valid[:, part], lane.ends, lane.valid[:, part] & warm[part])


def _loss(model: nn.Module, data: Data, chunk: Chunk, state: State | None) -> tuple[Tensor, State]:
    """Return the mean negative log-likelihood of the L events after each counted one, and the state."""
    total, _, weight, state = _surprise(model, data, chunk, state)
    return total / weight.sum().clamp(min=1.0), state


def _surprise(model: nn.Module, data: Data, chunk: Chunk, state: State | None) -> tuple[Tensor, Tensor, Tensor, State]:
    """Return the negative log-likelihood of the L events after each: its sum; its terms without gradient, (B, T, L, D);
    which of them count; and the state.

    A target beyond the lane's end, or missing, does not count: its surprise is zero.
    """
    head, freedom, state = model(*_inputs(data, chunk), state)
    values = len(freedom)
    ahead = _ahead(data, chunk, head.shape[2] // (2 * values), values)
    total, surprise, weight = StudentSurprise.apply(head, freedom, *ahead)  # type: ignore[no-untyped-call]
    return total, surprise, weight, (state[0].detach(), state[1].detach())


def _inputs(data: Data, chunk: Chunk) -> tuple[Tensor, Tensor]:
    """Return the inputs and the category ids of a chunk's events, (B, T, …)."""
    index = chunk.index.to(data.inputs.device)
    return _rows(data.inputs, index), _rows(data.categories, index)


def _ahead(data: Data, chunk: Chunk, horizon: int, values: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the values of the events after a chunk's first, up to L after its last, (B, T + L − 1, D); which of them
    are there; and after which events the L next ones count, (B, T): both as 1.0 and 0.0."""
    device, length = data.inputs.device, chunk.index.shape[1]
    reach = chunk.index[:, :1].to(device) + torch.arange(1, length + horizon, device=device)
    rows, inside = reach.clamp(max=len(data.inputs) - 1), reach < chunk.ends.to(device)[:, None]
    later = _rows(data.inputs, rows)[..., :values]
    there = _rows(data.present, rows) & inside[..., None]
    return later, there.to(later.dtype), chunk.counted.to(device, later.dtype)


def _rows(array: Tensor, index: Tensor) -> Tensor:
    """Return rows of (n, W) as (B, T, W): by index_select, which copies whole rows."""
    return array.index_select(0, index.flatten()).view(*index.shape, array.shape[1])
