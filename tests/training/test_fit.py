"""The training loop: what it learns from, what it must not see, and which weights it keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from streamlstm.core.log import Record
from streamlstm.core.model import Architecture
from streamlstm.training import fit as module
from streamlstm.training.fit import CHECK_EVERY, Curve, Progress, World, fit, held_out_loss
from streamlstm.training.history import History
from streamlstm.training.lanes import CHUNK_EVENTS, Data
from streamlstm.training.network import Network, State
from streamlstm.training.scaling import fit_scaling, model_inputs
from tests.builders import SCHEMA, changed, make_feed, make_history

ARCHITECTURE = Architecture(values=2, inputs=2, hidden=8, layers=1, horizon=2, embedding=4)


def data_of(history: History) -> Data:
    """Return a history as tensors."""
    inputs, present = model_inputs(history, SCHEMA, fit_scaling(history, SCHEMA))
    categories = torch.zeros(len(history), 0, dtype=torch.int64)
    return Data(torch.from_numpy(inputs), categories, torch.from_numpy(present))


def new_network(kind: type[Network] = Network) -> Network:
    """Return a network with its first, seeded weights."""
    torch.manual_seed(3)
    return kind(ARCHITECTURE)


def fitted(
    records: list[Record],
    *,
    updates: int = 50,
    seed: int = 0,
    network: Network | None = None,
    progress: list[Progress] | None = None,
) -> tuple[Network, Data, History, Curve]:
    """Return a network fitted to records, with its data, history and curve."""
    history = make_history(records)
    data, network = data_of(history), network or new_network()
    told = [] if progress is None else progress
    curve = fit(network, data, history, updates=updates, lanes=4, seed=seed, world=World(), on_progress=told.append)
    return network, data, history, curve


def test_fit_to_a_sine_lowers_the_loss_on_both_parts() -> None:
    """After some updates training and held-out loss lie well below those of the first weights."""
    network, data, history, curve = fitted(make_feed(400), updates=100)
    assert np.mean(curve.loss[-10:]) < curve.loss[0] - 0.2
    assert held_out_loss(network, data, history) < held_out_loss(new_network(), data, history) - 0.2


def test_fit_keeps_the_weights_with_the_best_held_out_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """On noise, where more training is worse, it stops early and goes back to the best look."""
    monkeypatch.setattr(module, "CHECK_EVERY", 1)
    monkeypatch.setattr(module, "PATIENCE", 4)
    monkeypatch.setattr(module, "LEARNING_RATE", 0.2)
    rng = np.random.default_rng(0)
    noise = [changed(record, flow=float(rng.normal()), pressure=float(rng.normal())) for record in make_feed(150)]
    network, data, history, curve = fitted(noise, updates=400)
    assert curve.stopped_early
    assert held_out_loss(network, data, history) == min(curve.held_out)
    assert curve.best_update == curve.held_out_update[int(np.argmin(curve.held_out))]
    assert curve.update[-1] == curve.best_update + 4
    assert curve.held_out[-1] > min(curve.held_out)


def test_fit_that_runs_to_its_end_says_so() -> None:
    """The curve has every update, a look every 25 and one at the end; the best look's weights are kept."""
    network, data, history, curve = fitted(make_feed(150), updates=2 * CHECK_EVERY + 3)
    assert not curve.stopped_early
    assert curve.update == list(range(1, 2 * CHECK_EVERY + 4))
    assert curve.held_out_update == [CHECK_EVERY, 2 * CHECK_EVERY, 2 * CHECK_EVERY + 3]
    assert held_out_loss(network, data, history) == min(curve.held_out)


def test_fit_tells_its_progress_update_by_update() -> None:
    """Each update is told once, with a held-out loss where it was looked at."""
    told: list[Progress] = []
    *_, curve = fitted(make_feed(150), updates=30, progress=told)
    assert [step.update for step in told] == curve.update
    assert {step.updates for step in told} == {30}
    assert [step.update for step in told if step.held_out is not None] == [25, 30]


def test_fit_with_the_same_seed_gives_the_same_weights() -> None:
    """Lanes are drawn from the seed alone; another seed draws others."""
    (one, *_), (same, *_), (other, *_) = (fitted(make_feed(150), updates=5, seed=seed) for seed in (7, 7, 8))
    assert torch.equal(one.head.weight, same.head.weight)
    assert not torch.equal(one.head.weight, other.head.weight)


def test_fit_never_reads_the_held_out_part_for_its_updates() -> None:
    """However wild the held-out part is, the training losses are the same."""
    *_, plain = fitted(make_feed(300), updates=20)
    history = make_history(make_feed(300))
    data = data_of(history)
    data.inputs[torch.from_numpy(history.is_held_out)] = 1e3
    curve = fit(new_network(), data, history, updates=20, lanes=4, seed=0, world=World(), on_progress=lambda _: None)
    assert curve.loss == plain.loss
    assert curve.held_out[0] > plain.held_out[0] + 1


class Recording(Network):
    """A network that notes the length of each training chunk and the state it was given."""

    seen: list[tuple[int, bool]]

    def forward(self, inputs: Tensor, categories: Tensor, state: State | None = None) -> tuple[Tensor, Tensor, State]:
        """Note, and compute as ever."""
        if self.training:
            assert state is None or not state[0].requires_grad
            self.seen.append((len(inputs), state is not None))
        return super().forward(inputs, categories, state)


def test_fit_carries_the_state_from_chunk_to_chunk_of_a_lane() -> None:
    """Lanes of 225 events come in chunks of 64; only the first has no state, and none has a gradient to the past."""
    network = new_network(Recording)
    assert isinstance(network, Recording)
    network.seen = []
    fitted(make_feed(300, ("a",)), updates=8, network=network)
    lane = [(CHUNK_EVENTS, False), (CHUNK_EVENTS, True), (CHUNK_EVENTS, True), (225 - 3 * CHUNK_EVENTS, True)]
    assert network.seen == lane * 2


@pytest.mark.parametrize(("present", "changes"), [(True, True), (False, False)])
def test_loss_counts_targets_that_are_present_only(present: bool, changes: bool) -> None:
    """The last event is a target and nothing else: wild, it counts if measured, and not if missing."""
    history = make_history(make_feed(300, ("a",)))
    data, network = data_of(history), new_network()
    before = held_out_loss(network, data, history)
    data.present[-1] = present
    plain = held_out_loss(network, data, history)
    data.inputs[-1] = 1e3
    assert (held_out_loss(network, data, history) != plain) == changes
    assert (plain != before) != present


def test_loss_of_a_keys_end_does_not_look_into_the_next_key() -> None:
    """Forecasts beyond a key's last event have no target."""
    history = make_history([*make_feed(300, ("a",)), *make_feed(4, ("b",))])
    data, network = data_of(history), new_network()
    before = held_out_loss(network, data, history)
    data.inputs[300:] = 1e3
    assert held_out_loss(network, data, history) == before
