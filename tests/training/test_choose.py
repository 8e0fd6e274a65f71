"""What is chosen by held-out likelihood, and what is left as it was set."""

from __future__ import annotations

import functools

import msgspec
import numpy as np
import pytest
import torch
from torch.distributions import StudentT

from streamlstm.core.model import Architecture
from streamlstm.training import train as train_module
from streamlstm.training.choose import CLEAR_GAIN, MIN_CALENDAR_MS, MIN_UPDATES, Trial, choose, choose_calendar
from streamlstm.training.fit import _said
from streamlstm.training.history import History
from streamlstm.training.lanes import Data, Lanes
from streamlstm.training.network import Network
from streamlstm.training.report import report_html
from streamlstm.training.student import location_and_scale
from streamlstm.training.student import surprises as surprises_of
from streamlstm.training.train import Options, Trained, train
from tests import builders

PRIOR = Architecture(values=1, inputs=1, hidden=48, layers=1, horizon=4, embedding=8)


def surprises(architecture: Architecture, gains: dict[tuple[int, int], float], noise: float) -> np.ndarray:
    """Return surprises that are lower by the gain of a hidden size and horizon."""
    rng = np.random.default_rng(architecture.hidden + architecture.horizon)
    return 1.0 - gains.get((architecture.hidden, architecture.horizon), 0.0) + noise * rng.normal(size=100)


@pytest.mark.parametrize(
    ("gains", "noise", "hidden", "horizon"),
    [
        ({}, 0.01, 48, 4),
        ({(96, 4): 0.5}, 0.01, 96, 4),
        ({(24, 4): 0.3, (96, 4): 0.5}, 0.01, 96, 4),
        ({(96, 4): CLEAR_GAIN["hidden"] - 0.05}, 0.01, 48, 4),
        ({(96, 4): 0.5}, 10.0, 48, 4),
        ({(48, 2): 0.2}, 0.01, 48, 2),
        ({(96, 4): 0.5, (96, 2): 0.6}, 0.01, 96, 2),
        ({(96, 4): 0.5, (48, 2): 0.9}, 0.01, 96, 4),
    ],
)
def test_another_size_is_chosen_only_if_it_is_clearly_better(
    gains: dict[tuple[int, int], float], noise: float, hidden: int, horizon: int
) -> None:
    """Better by enough, and by more than chance; the horizon is tried with the hidden size that was chosen."""
    chosen, choices = choose(PRIOR, [24, 96], [2], lambda architecture: surprises(architecture, gains, noise))
    assert (chosen.hidden, chosen.horizon) == (hidden, horizon)
    assert [(choice.name, choice.value) for choice in choices] == [("hidden", hidden), ("horizon", horizon)]
    assert all("nats per value" in choice.reason for choice in choices)


def test_nothing_is_tried_where_all_is_set_by_hand() -> None:
    """Then no trial is paid for."""

    def trial(architecture: Architecture) -> np.ndarray:
        raise AssertionError(architecture)

    assert choose(PRIOR, [], [], trial) == (PRIOR, [])


@functools.cache
def history() -> History:
    """Return a short history of the small stream."""
    return builders.make_history(builders.make_feed(300), builders.SCHEMA)


@functools.cache
def trained(hidden: int | None = None, horizon: int | None = None, updates: int = MIN_UPDATES) -> Trained:
    """Return a model with choices, as far as they are not given."""
    return train(history(), builders.SCHEMA, Options(hidden=hidden, horizon=horizon, updates=updates, lanes=4))


def test_choices_are_told_in_the_report_and_kept_in_the_bundle() -> None:
    """With their reason."""
    choices = trained().bundle.report["choices"]
    assert [choice["name"] for choice in choices] == ["hidden", "horizon"]
    assert trained().bundle.architecture.hidden == choices[0]["value"]
    assert trained().bundle.architecture.horizon == choices[1]["value"]
    page = report_html(trained())
    assert f"Why hidden {choices[0]['value']}" in page
    assert "nats per value gained" in page


def test_choices_are_the_same_for_a_seed() -> None:
    """The budget is counted in updates, so the clock has no say."""
    again = train(history(), builders.SCHEMA, Options(updates=MIN_UPDATES, lanes=4))
    assert again.bundle.report["choices"] == trained().bundle.report["choices"]
    assert again.bundle.digest == trained().bundle.digest


def test_what_is_set_by_hand_is_not_searched() -> None:
    """One by one, or both; then the model is that of the seed alone."""
    assert [choice["name"] for choice in trained(hidden=8).bundle.report["choices"]] == ["horizon"]
    assert [choice["name"] for choice in trained(horizon=2).bundle.report["choices"]] == ["hidden"]
    by_hand = trained(hidden=8, horizon=2).bundle
    assert by_hand.report["choices"] == []
    assert (by_hand.architecture.hidden, by_hand.architecture.horizon) == (8, 2)


def test_a_training_too_short_to_tell_takes_the_prior_sizes() -> None:
    """A trial of a few updates would choose by chance."""
    short = trained(updates=5).bundle
    assert short.report["choices"] == []
    assert (short.architecture.hidden, short.architecture.horizon) == (48, 2)
    assert msgspec.json.encode(short.report)


def test_surprise_is_that_of_students_t() -> None:
    """Written out, with what depends on the freedom alone taken once; torch's own says the same."""
    rng = np.random.default_rng(0)
    feed = history()
    inputs = torch.from_numpy(rng.normal(size=(len(feed), 1)).astype(np.float32))
    data = Data(inputs, torch.zeros(len(feed), 0, dtype=torch.int64), torch.ones(len(feed), 1, dtype=torch.bool))
    network = Network(msgspec.structs.replace(PRIOR, horizon=1)).eval()
    index = torch.arange(50)[:, None]
    head, freedom, _ = network(data.inputs[index], data.categories[index])
    location, scale = location_and_scale(head)
    wanted = -StudentT(freedom, location, scale).log_prob(inputs[index + 1].permute(2, 0, 1)[None])  # type: ignore[no-untyped-call]
    later = inputs[1:51].t()[..., None]
    lanes = Lanes(data.inputs[index], data.categories[index], later, torch.ones(later.shape), torch.ones(50, 1))
    found, weight = surprises_of(*_said(network, lanes, None)[0])
    assert weight.min() == 1.0
    assert found.detach().numpy() == pytest.approx(wanted.detach().numpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("gain", "noise", "helps"),
    [(0.2, 0.01, 1), (CLEAR_GAIN["calendar"] - 0.02, 0.01, 0), (0.2, 5.0, 0), (-0.2, 0.01, 0)],
)
def test_calendar_is_chosen_only_if_it_is_clearly_better(gain: float, noise: float, helps: int) -> None:
    """By enough, and by more than chance."""
    with_it = 1.0 - gain + noise * np.random.default_rng(0).normal(size=100)
    choice = choose_calendar(np.ones(100), with_it)
    assert (choice.name, choice.value) == ("calendar", helps)
    assert "nats per value" in choice.reason


@pytest.mark.parametrize(
    ("days", "calendar", "helps", "tried"),
    [(14, None, True, True), (14, None, False, True), (13, None, True, False), (14, True, False, False)],
)
def test_calendar_is_tried_on_two_weeks_unless_set_by_hand(
    monkeypatch: pytest.MonkeyPatch, days: int, calendar: bool | None, helps: bool, tried: bool
) -> None:
    """And the bundle has the inputs that were chosen, and says why."""

    def trial_of(data: Data, *_: object, **__: object) -> Trial:
        return lambda architecture: np.full(10, float(helps and architecture.inputs == 2))

    monkeypatch.setattr(train_module, "trial_of", trial_of)
    schema = msgspec.structs.replace(builders.SCHEMA, calendar=calendar)
    gap_ms = days * MIN_CALENDAR_MS // 14 // 300  # so the last of 300 events lies a gap short of the whole days
    feed = [
        builders.changed(record, time=builders.START_MS + i * gap_ms)
        for i, record in enumerate(builders.make_feed(300, ("a",)))
    ]
    found = train(builders.make_history(feed, schema), schema, Options(hidden=8, horizon=1, updates=MIN_UPDATES)).bundle
    assert found.feature.has_calendar == (calendar or (tried and helps))
    assert [choice["name"] for choice in found.report["choices"]] == ["calendar"] * tried
    assert found.architecture.inputs == 2 + 4 * found.feature.has_calendar
