"""The natural period: found where there is one, a default where there is none."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from streamlstm.training.history import History
from streamlstm.training.period import DEFAULT_PERIOD, MAX_PERIOD, natural_period


def history_of_values(*keys: np.ndarray) -> History:
    """Return a history of keys with these values, (events, channels × samples), none held out."""
    lengths = [len(values) for values in keys]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    total = int(starts[-1])
    return History(
        keys=[b"%d" % k for k in range(len(keys))],
        starts=starts,
        held_out=starts[1:].copy(),
        timestamp_ms=np.arange(total),
        gap_ms=np.ones(total),
        values=np.concatenate(keys),
        categories=[()] * total,
        duplicates=0,
        is_late=np.zeros(total, dtype=bool),
    )


def sine(period: float, events: int = 3000, *, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    """Return one channel: a sine in noise."""
    rng = np.random.default_rng(seed)
    return (np.sin(2 * np.pi * np.arange(events) / period) + noise * rng.normal(size=events))[:, None]


@pytest.mark.parametrize("period", [5, 20, 96, 300])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_period_of_a_sine_is_found(period: int, noise: float) -> None:
    """Within two per cent, or one event, in clear and in noisy signals."""
    found, known = natural_period(history_of_values(sine(period, noise=noise)), 1, 1)
    assert known
    assert found == pytest.approx(period, abs=max(1, 0.02 * period))


def test_period_of_a_signal_with_harmonics_is_the_whole_one() -> None:
    """A beat is a beat although parts of it repeat sooner."""
    values = 0.6 * sine(40) + sine(20, seed=1)
    assert natural_period(history_of_values(values), 1, 1) == (40, True)


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).normal(size=(3000, 1)),
        np.random.default_rng(0).normal(size=(3000, 1)).cumsum(axis=0),
        np.zeros((3000, 1)),
        np.full((3000, 1), np.nan),
        sine(1000),
    ],
    ids=["noise", "random walk", "constant", "missing", "longer than the longest"],
)
def test_period_of_a_signal_that_has_none_is_the_default(values: np.ndarray) -> None:
    """Noise, drift, silence and what is too long to wait for have no period."""
    assert natural_period(history_of_values(values), 1, 1) == (DEFAULT_PERIOD, False)


def test_period_is_never_longer_than_the_longest_allowed() -> None:
    """A running mean over more would not notice anything."""
    found, _ = natural_period(history_of_values(sine(MAX_PERIOD - 12, 6000)), 1, 1)
    assert found <= MAX_PERIOD


def test_period_is_that_of_the_longest_keys_training_part() -> None:
    """A short key, and the held-out part, have no say."""
    history = history_of_values(sine(11, 500), np.concatenate([sine(25, 1500), 5 * sine(60, 1400)]))
    history.held_out[1] = 500 + 1500
    assert natural_period(history, 1, 1) == (25, True)


def test_period_of_frames_is_that_of_their_activity() -> None:
    """Of a frame counts how much happens in it: bursts every 12 events, of either sign."""
    rng = np.random.default_rng(3)
    strength = np.where(np.arange(2400) % 12 < 3, 1.0, 0.05)
    frames = strength[:, None] * rng.normal(size=(2400, 8))
    assert natural_period(history_of_values(frames), 1, 8) == (12, True)


def test_period_with_a_channel_that_was_never_seen_is_that_of_the_others() -> None:
    """A dead sensor neither hides the period nor warns."""
    rng = np.random.default_rng(4)
    strength = np.where(np.arange(2400) % 12 < 3, 1.0, 0.05)
    alive = strength[:, None] * rng.normal(size=(2400, 4))
    frames = np.concatenate([np.full((2400, 4), np.nan), alive], axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert natural_period(history_of_values(frames), 2, 4) == (12, True)
