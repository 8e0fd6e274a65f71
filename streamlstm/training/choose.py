"""How large a network, how far it looks ahead, on a calendar or not: chosen by held-out likelihood, in so many updates.

One size is the prior. Beside it others are trained for a tenth of the updates each; one takes their place
only if it forecasts the next event of the held-out tails clearly better. Counted in updates, not in seconds: so that
a seed gives the same model on a busy machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from streamlstm.core.model import Architecture
from streamlstm.training.fit import Progress, World, fit, held_out_surprise
from streamlstm.training.history import History
from streamlstm.training.lanes import Data
from streamlstm.training.network import Network

HIDDEN = 48  # the recipe's
OTHER_HIDDEN = (24, 96)
# Events ahead. The recipe's 4 detected no better than 2 over three seeds (README), and cost more to train and to keep.
# With 1, average precision on MIT-BIH 106 was .43, not .50.
HORIZON = 2
OTHER_HORIZONS = (4,)
TRIAL_SHARE = 10  # a trial has a tenth of the training's updates: all of them together cost less than training
MIN_UPDATES = 100  # of the training; with fewer, trials tell nothing
# Nats per value that are a clear gain. Twice the hidden size takes three times the time and twice the state; and what
# forecasts better by less need not detect better (96 instead of 48: MIT-BIH 106 .45, not .50, for a gain of .13).
CLEAR_GAIN = {"hidden": 0.25, "horizon": 0.05, "calendar": 0.05}
MIN_CALENDAR_MS = 14 * 86_400_000  # of one key: to know a weekday from chance
CLEAR_ERRORS = 2.0  # and in standard errors of the mean difference over blocks of held-out events


class Choice(msgspec.Struct, frozen=True):
    """What was chosen, and why, in words."""

    name: str
    value: int
    reason: str


Trial = Callable[[Architecture], NDArray[np.float64]]


def choose(
    prior: Architecture, hidden: list[int], horizons: list[int], trial: Trial
) -> tuple[Architecture, list[Choice]]:
    """Return the architecture to train, and the choices made: of the hidden size first, then of the horizon.

    ``hidden`` and ``horizons`` are tried beside the prior's; none if that is set by hand. ``trial`` returns the
    surprise of forecasts one event ahead, in nats per value, for each block of held-out events.
    """
    chosen, choices = prior, []
    surprise = trial(prior) if hidden or horizons else np.zeros(0)
    for name, others in (("hidden", hidden), ("horizon", horizons)):
        tried = []
        for size in others:
            other = msgspec.structs.replace(chosen, **{name: size})
            found = trial(other)
            gain, error = _gain(surprise, found)
            tried.append(
                (gain if gain > max(CLEAR_GAIN[name], CLEAR_ERRORS * error) else -np.inf, gain, error, other, found)
            )
        if not tried:
            continue
        told = ", ".join(f"{getattr(o, name)}: {gain:+.3f} ± {error:.3f}" for _, gain, error, o, _ in tried)
        clear, _, _, best, found = max(tried, key=lambda one: one[0])
        why = "clearly better" if clear > -np.inf else f"none is better by {CLEAR_GAIN[name]:g} and two errors"
        reason = f"{why}; nats per value gained one event ahead over {getattr(chosen, name)}: {told}"
        if clear > -np.inf:
            chosen, surprise = best, found
        choices.append(Choice(name, getattr(chosen, name), reason))
    return chosen, choices


def choose_calendar(plain: NDArray[np.float64], calendar: NDArray[np.float64]) -> Choice:
    """Return whether hour and weekday become inputs, from the surprise without them and with them."""
    gain, error = _gain(plain, calendar)
    clear = gain > max(CLEAR_GAIN["calendar"], CLEAR_ERRORS * error)
    why = "clearly better" if clear else f"not better by {CLEAR_GAIN['calendar']:g} and two errors"
    return Choice("calendar", int(clear), f"{why}; nats per value gained one event ahead: {gain:+.3f} ± {error:.3f}")


def _gain(prior: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean gain of ``other`` and its standard error, over the same blocks."""
    gains = prior - other
    return float(gains.mean()), float(gains.std() / np.sqrt(max(len(gains) - 1, 1)))


def trial_of(
    data: Data,
    history: History,
    *,
    updates: int,
    lanes: int,
    dropout: float,
    seed: int,
    device: str,
    world: World,
    on_progress: Callable[[Progress], None],
) -> Trial:
    """Return a trial that trains with a tenth of the updates."""

    def trial(architecture: Architecture) -> NDArray[np.float64]:
        what = f"trying {architecture.hidden} hidden, {architecture.horizon} ahead"
        torch.manual_seed(seed)
        network = Network(architecture, dropout).to(device)
        fit(
            network,
            data,
            history,
            updates=updates // TRIAL_SHARE,
            lanes=lanes,
            seed=seed,
            world=world,
            on_progress=lambda progress: on_progress(replace(progress, what=what)),
        )
        return held_out_surprise(network, data, history)

    return trial
