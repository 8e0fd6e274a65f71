"""Channels: what each makes of one event."""

from __future__ import annotations

import numpy as np
import pytest

from streamlstm.core.channels import (
    NAMES,
    Fitted,
    channel_weights,
    novelty,
    observe_channels,
    record,
    state_floats,
    stillness,
)
from streamlstm.core.channels.seen import Seen


def references(*points: list[float]) -> np.ndarray:
    """Return reference points as (four directions, points)."""
    found = np.zeros((4, len(points)), np.float32)
    found[: len(points[0])] = np.array(points).T
    return found


def nearest_mean(point: np.ndarray, known: np.ndarray) -> float:
    """Return the mean distance of a point to the nearest of ``known``."""
    hidden = np.zeros((1, 4), np.float32)
    hidden[0, : len(point)] = point
    return nearest_means(hidden, novelty.Fitted(np.zeros(4, np.float32), np.eye(4, dtype=np.float32), known))[0]


def nearest_means(hidden: np.ndarray, known: novelty.Fitted) -> list[float]:
    """Return the mean distance of each hidden state to its nearest references, measured side by side."""
    near, count = novelty.new_scratch(known, len(hidden)), known.references.shape[1]
    novelty.measure(near, np.zeros((len(hidden), len(known.centre)), np.float32), hidden, known)
    return [float(novelty.nearest_mean(row, count)) for row in near]


def fitted(*points: list[float]) -> Fitted:
    """Return a novelty that knows points in the first two directions of a hidden state of four."""
    return Fitted(
        novelty.Fitted(np.zeros(4, np.float32), np.eye(4, dtype=np.float32), references(*points)),
        record.unfitted(2),
        stillness.unfitted(2),
    )


def seen(*, distance: float = 1.0, inputs: list[float] | None = None, newness: float = 1.0, age: int = 1) -> Seen:
    """Return one event at the origin of the hidden state."""
    values = np.array([0.0] if inputs is None else inputs, np.float32)
    present = np.ones(len(values), np.bool_)
    return Seen(np.float32(distance), values, present, np.zeros(4, np.float32), np.float32(newness), age)


def observe(running: np.ndarray, event: Seen, known: Fitted) -> list[float]:
    """Return the raw values of one event, by channel, advancing ``running``."""
    raw = np.full(len(NAMES), np.nan, np.float32)
    near = novelty.new_scratch(known.novelty, 1)
    novelty.measure(near, np.zeros((1, 4), np.float32), event.hidden[None], known.novelty)
    observe_channels(raw, running, event, known, near[0])
    return raw.tolist()


def test_channels_have_names_weights_and_a_place_in_the_state() -> None:
    """Names are distinct, weights normed; the record channel has the share that is asked for."""
    assert NAMES == ("forecast_error", "smoothed_error", "novelty", "level", "record", "stillness")
    assert channel_weights(0.25, of_frames=False).tolist() == pytest.approx([0.25, 0.25, 0.125, 0.125, 0.25])
    assert channel_weights(0.1, of_frames=True).tolist() == pytest.approx([0.2, 0.6, 0.0, 0.1, 0.1])
    assert state_floats(3) == 4 + 3 * 11
    assert record.share_of_score(500) == 0.5
    assert record.share_of_score(100_000) < 0.005


def test_channels_of_one_event_see_error_state_and_level() -> None:
    """A first event: its distance twice, the distance of its state, and its mean squared input."""
    raw = observe(np.zeros(state_floats(2), np.float32), seen(distance=2.5, inputs=[3.0, 1.0]), fitted([3.0, 4.0]))
    assert raw[:4] == [2.5, 2.5, 5.0, 5.0]


def test_channels_with_memory_move_by_the_newness_of_an_event() -> None:
    """A running mean moves by its newness towards the event; the forecast error has no memory."""
    running = np.zeros(state_floats(1), np.float32)
    observe(running, seen(distance=1.0, inputs=[2.0]), fitted([3.0, 4.0]))
    raw = observe(running, seen(distance=9.0, inputs=[4.0], newness=0.25, age=4), fitted([6.0, 8.0]))
    assert raw[:4] == pytest.approx([9.0, 1.0 + 0.4 * 8, 5.0 + 0.25 * 5, 4.0 + 0.25 * 12])
    assert running[1:4].tolist() == raw[1:4]


RANGE = record.Fitted(np.full((3, 1), -1.5, np.float32), np.full((3, 1), 1.5, np.float32))


def records(*values: float) -> list[float]:
    """Return what the record channel makes of one value after the other."""
    running = np.zeros(record.FLOATS, np.float32)
    return [float(record.observe(running, seen(inputs=[value], age=i + 1), RANGE)) for i, value in enumerate(values)]


def test_record_is_above_one_outside_the_range_so_far_and_only_once() -> None:
    """A new key's range is a fleet's; leaving it by half its width is 1.5, and then it is wider."""
    raw = records(0.0, 3.0, 3.0, 0.0)
    assert raw[0] == pytest.approx(0.5)
    assert raw[1] == pytest.approx(1.5, abs=1e-3)
    assert raw[2] < 1.2
    assert raw[3] < 1.0


def test_record_of_a_short_outlier_and_of_a_long_small_shift() -> None:
    """One value far out is seen at once; a shift within the range of single values, by their means."""
    rng = np.random.default_rng(3)
    usual = rng.normal(size=2000).tolist()
    assert max(records(*usual, 12.0)[500:2000]) < 1.6 < records(*usual, 12.0)[-1]
    shifted = records(*usual, *(1.5 + rng.normal(size=80)).tolist())
    assert np.mean(shifted[2000:]) > 1.3 * np.mean(shifted[1000:2000])


def test_record_forgets_an_outlier() -> None:
    """The range it left behind is gone, most of it, after twice a hundred thousand events."""
    usual = np.random.default_rng(4).normal(size=250_000).tolist()
    raw = records(*usual[:1000], 50.0, *usual[1000:], 20.0)
    assert records(*usual[:1000], 50.0, 20.0)[-1] < 1.3 < 1.5 < raw[-1]


STILL = stillness.Fitted(np.full(1, 0.5, np.float32))  # the lowest activity of a value whose deviation is about one


def stillness_of(*values: float, known: stillness.Fitted = STILL, present: bool = True) -> list[float]:
    """Return what the stillness channel makes of one value after the other."""
    running, of_record = np.zeros(stillness.FLOATS, np.float32), np.zeros(record.FLOATS, np.float32)
    raw = []
    for i, value in enumerate(values):
        event = seen(inputs=[value], age=i + 1)._replace(present=np.array([present]))
        record.observe(of_record, event, RANGE)
        raw.append(float(stillness.observe(running, of_record, event, known)))
    return raw


NOISE = np.random.default_rng(6).normal(size=20_000).tolist()


def test_stillness_is_silent_while_a_value_moves_as_it_used_to() -> None:
    """Through many events none is stiller than a quarter of the lowest."""
    assert max(stillness_of(*NOISE)) == 0.0


@pytest.mark.parametrize("stuck_at", [0.0, 1.5, -3.0])
def test_stillness_tells_a_stuck_value_wherever_it_is_stuck(stuck_at: float) -> None:
    """Within a hundred events it adds more than two decades; and a value that moves again is not still."""
    raw = stillness_of(*NOISE[:500], *[stuck_at] * 110, *NOISE[500:600])
    assert max(raw[:520]) == 0.0
    assert max(raw[500:600]) > 2.0
    assert max(raw[650:]) == 0.0


def test_stillness_that_lasts_becomes_normal() -> None:
    """After some thousand events nobody is told any more."""
    raw = stillness_of(*NOISE[:500], *[0.0] * 8000)
    assert max(raw[500:1000]) > 2.0
    assert raw[-1] == 0.0


def test_stillness_of_a_value_that_never_moved_much_or_is_missing_is_not_told() -> None:
    """An idle metric has no activity to lose, and of a missing one nothing is known."""
    assert max(stillness_of(*[0.0] * 500, known=stillness.unfitted(1))) == 0.0
    assert max(stillness_of(*NOISE[:100], *[0.0] * 300, present=False)) == 0.0


def test_stillness_fit_is_the_lower_quartile_over_keys() -> None:
    """One dead key in four or more does not make the fleet blind; keys too short to tell do not count."""
    inputs = np.array([*NOISE[:2000], *[0.0] * 500, *NOISE[:10]], np.float32)[:, None]
    keys = [(0, 500), (500, 1000), (1000, 1500), (1500, 2000), (2000, 2500), (2500, 2510)]
    known = stillness.fit(inputs, np.ones_like(inputs, np.bool_), keys)
    assert 0.2 < known.lowest[0] < 1.0
    assert stillness.fit(inputs, np.ones_like(inputs, np.bool_), keys[-1:]).lowest[0] == np.float32(
        stillness.SMALLEST_ACTIVITY
    )


def test_stillness_takes_its_part_of_the_blame() -> None:
    """The stillest value has the part that stillness has in the score, the others share the rest as before."""
    shares = np.array([0.5, 0.25, 0.25], np.float32)
    running = np.array([1.0, 1.0, 0.01, 1.0, 1.0, 1.0], np.float32)
    stillness.blame(shares, running, np.float32(0.8))
    assert shares.tolist() == pytest.approx([0.1, 0.85, 0.05])


def test_nearest_mean_among_many_is_that_of_the_five_nearest() -> None:
    """The compiled search agrees with sorting all distances."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(200, 3)).astype(np.float32)
    point = rng.normal(size=3).astype(np.float32)
    distances = np.sort(np.linalg.norm(points - point, axis=1))
    assert nearest_mean(point, references(*points)) == pytest.approx(distances[:5].mean(), rel=1e-5)


def brute_force(hidden: np.ndarray, known: novelty.Fitted) -> float:
    """Return the mean distance to the five nearest by sorting all, each sum in the order of the compiled search."""
    place = -known.centre
    for k in range(0, len(hidden), 4):
        a, b, c, d = (hidden[k + row] * known.projection[k + row] for row in range(4))
        place = place + ((a + b) + (c + d))
    squares = np.zeros(known.references.shape[1], np.float32)
    for p in range(0, len(place), 4):
        e, f, g, h = (known.references[p + row] - place[p + row] for row in range(4))
        squares = squares + ((e * e + f * f) + (g * g + h * h))
    nearest, total = np.sort(squares)[: novelty.NEIGHBOURS], np.float32(0)
    for square in nearest:
        total = total + np.sqrt(square)
    return float(total / np.float32(len(nearest)))


@pytest.mark.parametrize("laid_out", [False, True])
@pytest.mark.parametrize("kind", ["spread", "clustered", "repeated", "one"])
@pytest.mark.parametrize("count", [1, 4, 5, 6, 64, 511, 512, 513, 1500])
def test_nearest_mean_is_that_of_a_brute_force_search_bit_for_bit(count: int, kind: str, laid_out: bool) -> None:
    """Whatever the references look like and how many there are, and however many states are measured at once."""
    rng = np.random.default_rng(count)
    states = rng.normal(size=(count, 12))
    if kind == "clustered":
        states = np.repeat(states[:3], count, axis=0)[:count] + 1e-3 * states
    elif kind == "repeated":
        states = states[rng.integers(0, min(count, 7), count)]
    elif kind == "one":
        states[:] = states[0]
    projection = np.ascontiguousarray(rng.normal(size=(12, 8)), np.float32)
    known = novelty.Fitted(
        rng.normal(size=8).astype(np.float32), projection, np.ascontiguousarray((states @ projection).T, np.float32)
    )
    hidden = rng.normal(size=(8, 12)).astype(np.float32)
    hidden[:4] = states[rng.integers(0, count, 4)]
    for measured in (1, 2, 3, 8):
        found = nearest_means(hidden[:measured], novelty.laid_out(known) if laid_out else known)
        assert found == [brute_force(one, known) for one in hidden[:measured]]


def test_nearest_mean_among_fewer_than_five_is_that_of_all() -> None:
    """Few references do not make the distance infinite."""
    assert nearest_mean(np.zeros(1), references([3.0], [5.0])) == 4.0


def test_novelty_fit_whitens_the_states_it_knows() -> None:
    """Projected, normal states have mean 0 and unit deviation in every direction kept."""
    rng = np.random.default_rng(1)
    states = (rng.normal(size=(4000, 6)) @ rng.normal(size=(6, 12)) + 5).astype(np.float32)
    known = novelty.fit(states, seed=0)
    assert known.projection.shape == (12, 8)
    projected = states @ known.projection - known.centre
    assert np.abs(projected.mean(axis=0)).max() < 1e-3
    filled = [1.0] * 6 + [0.0] * 2  # the states fill six directions only; four are taken at a time
    assert projected.std(axis=0) == pytest.approx(np.array(filled), abs=1e-2)
    assert known.references.shape == (8, novelty.REFERENCES)


def test_novelty_fit_keeps_at_most_eight_directions_and_repeats_itself() -> None:
    """The same seed draws the same references, another seed others."""
    states = np.random.default_rng(2).normal(size=(2000, 16)).astype(np.float32)
    known, again, other = novelty.fit(states, 0), novelty.fit(states, 0), novelty.fit(states, 1)
    assert known.projection.shape[1] == novelty.DIRECTIONS
    assert np.array_equal(known.references, again.references)
    assert not np.array_equal(known.references, other.references)


def test_novelty_fit_on_states_that_never_vary_is_finite() -> None:
    """A dead network is no reason for a division by zero."""
    known = novelty.fit(np.ones((100, 4), np.float32), seed=0)
    assert all(np.isfinite(array).all() for array in known)
