"""The training loop: lanes of contiguous history, state carried from chunk to chunk."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from streamlstm.training.history import History
from streamlstm.training.lanes import CHUNK_EVENTS, Data, Lanes, drawn, held_out
from streamlstm.training.network import Network, State
from streamlstm.training.student import StudentSurprise, surprises

LEARNING_RATE = 4e-3  # recipe: Adam with OneCycle
CLIP_NORM = 1.0  # recipe
CHECK_EVERY = 25  # updates between two looks at the held-out loss
PATIENCE = 6  # looks without a better held-out loss, after which training stops


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
    update, horizon = 0, network.architecture.horizon
    while update < updates and waited < PATIENCE:
        state: State | None = None
        for chunk in drawn(data, history, horizon, max(1, lanes // world.size), rng).chunks():
            network.train()
            loss, state = loss_of(model, chunk, state)
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
    horizon = network.architecture.horizon
    loss, _ = loss_of(network, held_out(data, history, horizon, at_least=horizon), None)
    return float(loss)


@torch.no_grad()
def held_out_surprise(network: Network, data: Data, history: History) -> NDArray[np.float64]:
    """Return how surprising the held-out events are one event ahead: −log likelihood per value, (blocks,).

    A block is up to ``CHUNK_EVENTS`` events of one key; the same blocks whatever the network, so that two can be
    compared block by block.
    """
    network.eval()
    lanes = held_out(data, history, network.architecture.horizon, at_least=1)
    surprise, weight = surprises(*_said(network, lanes, None)[0])
    sums, counts = (
        torch.stack([part.sum(dim=(0, 1)) for part in torch.split(of_next, CHUNK_EVENTS, dim=1)]).flatten()
        for of_next in (surprise[0], weight[0])
    )
    blocks: NDArray[np.float64] = (sums[counts > 0] / counts[counts > 0]).double().cpu().numpy()
    return blocks


def loss_of(model: nn.Module, lanes: Lanes, state: State | None) -> tuple[Tensor, State]:
    """Return the mean negative log-likelihood of the L events after each counted one, and the state after the last."""
    said, state = _said(model, lanes, state)
    total, count = StudentSurprise.apply(*said)  # type: ignore[no-untyped-call]
    return total / count.clamp(min=1.0), state


def _said(model: nn.Module, lanes: Lanes, state: State | None) -> tuple[tuple[Tensor, ...], State]:
    """Return what :class:`StudentSurprise` takes, what the model says after each event and what came; and the state."""
    head, freedom, (h, c) = model(lanes.inputs, lanes.categories, state)
    return (head, freedom, lanes.later, lanes.there, lanes.counted), (h.detach(), c.detach())
